//! The trust domains as this replica knows them now: rules, and who signs.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;

use crate::api::conditions::Reason;
use crate::decide::slots::Blocked;
use crate::identity::Domain;
use crate::sign::Authority;

/// A trust domain and its CA.
#[derive(Clone)]
pub struct DomainState {
    pub domain: Domain,
    /// What signs, or why nothing does.
    pub authority: Result<Arc<dyn Authority>, Blocked>,
    /// True if and only if the authority gives what it is to give. One that does not may go on
    /// signing with the CA that it gave before.
    pub is_available: bool,
    /// `ca.crt`, once it is published. It changes while nothing signs, too: a CA that takes the
    /// place of a lost one must come to be trusted before it can.
    pub bundle: Option<Arc<str>>,
}

/// Every TrustDomain that could be understood, by name.
pub struct Domains {
    states: RwLock<BTreeMap<String, Arc<DomainState>>>,
    /// The TrustDomains that have been looked at since this replica began to lead.
    loaded: watch::Sender<bool>,
}

impl Default for Domains {
    fn default() -> Self {
        Domains { states: RwLock::default(), loaded: watch::Sender::new(false) }
    }
}

impl Domains {
    /// Puts in what is known of a TrustDomain. True if and only if identities are concerned:
    /// its rules, its default mark or its CA changed, or its authority is there again.
    pub fn set(&self, state: DomainState) -> bool {
        let mut states = self.write();
        let changed = states.get(&state.domain.name).is_none_or(|old| {
            old.domain != state.domain
                || old.bundle != state.bundle
                || !same_authority(old, &state)
                // Whoever was refused meanwhile waits for minutes before it asks again.
                || (state.is_available && !old.is_available)
        });
        states.insert(state.domain.name.clone(), Arc::new(state));
        changed
    }

    /// Takes out a TrustDomain that is gone or cannot be understood. True if it was there.
    pub fn remove(&self, name: &str) -> bool {
        self.write().remove(name).is_some()
    }

    /// The TrustDomain of this name, or the default one: of several that are marked, the oldest,
    /// so that marking another breaks nobody.
    pub fn resolve(&self, name: Option<&str>) -> Result<Arc<DomainState>, Blocked> {
        let states = self.states.read().unwrap_or_else(PoisonError::into_inner);
        let found = match name {
            Some(name) => states.get(name),
            None => states
                .values()
                .filter(|state| state.domain.is_default)
                .min_by_key(|state| (state.domain.created, state.domain.uid.as_str())),
        };
        found.cloned().ok_or_else(|| Blocked {
            reason: Reason::TrustDomainNotFound,
            message: match name {
                Some(name) => format!(
                    "there is no usable TrustDomain {name}: create it, or name another in spec.trustDomain"
                ),
                None => "spec.trustDomain is not given and no TrustDomain is marked default: name one, or set default: true on one".to_owned(),
            },
        })
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<DomainState>> {
        self.states.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Says that every TrustDomain there is has been looked at once.
    pub fn set_loaded(&self) {
        self.loaded.send_replace(true);
    }

    /// Waits until every TrustDomain there is has been looked at once.
    pub async fn wait_until_loaded(&self) {
        let _ = self.loaded.subscribe().wait_for(|loaded| *loaded).await;
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<String, Arc<DomainState>>> {
        self.states.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn same_authority(a: &DomainState, b: &DomainState) -> bool {
    match (&a.authority, &b.authority) {
        (Ok(a), Ok(b)) => a.chain().facts == b.chain().facts,
        (Err(a), Err(b)) => a == b,
        _ => false,
    }
}
