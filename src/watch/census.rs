//! Who claims which SPIFFE ID, and which identities belong to a ServiceAccount.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::ObjectKey;
use super::agents::AgentFacts;
use super::domains::Domains;
use crate::identity::{Identity, IdentityKey, SpiffeId};

/// All identities, indexed by what they claim.
#[derive(Default)]
pub struct Census(Mutex<State>);

/// In both indices an entry has one identity as a rule, which is why they are vectors.
#[derive(Default)]
struct State {
    members: HashMap<IdentityKey, Entry>,
    /// Claimants in the order of their right: the oldest first.
    by_claim: HashMap<SpiffeId, Vec<Arc<Identity>>>,
    /// By ServiceAccount, in the same order.
    by_account: BTreeMap<ObjectKey, Vec<Arc<Identity>>>,
}

struct Entry {
    facts: Arc<AgentFacts>,
    trust_domain: Option<String>,
    claim: Option<SpiffeId>,
}

/// Whom a change concerns besides the identity that changed.
#[derive(Debug, Default, PartialEq)]
pub struct Concerned {
    /// Identities whose right to their SPIFFE ID may have changed.
    pub identities: BTreeSet<IdentityKey>,
    /// ServiceAccounts whose pods may carry other labels now.
    pub accounts: BTreeSet<ObjectKey>,
}

impl Census {
    /// Enters an identity, or what became of it.
    pub fn set(&self, key: IdentityKey, facts: Arc<AgentFacts>, domains: &Domains) -> Concerned {
        let mut state = self.lock();
        let known = state.members.get(&key);
        let is_status_alone = known.is_some_and(|entry| entry.facts.identity == facts.identity);
        let mut concerned = Concerned::default();
        state.strike(&key, &mut concerned);
        state.enter(key.clone(), facts, domains, &mut concerned);
        concerned.identities.remove(&key);
        // A status alone concerns nobody else.
        if is_status_alone { Concerned::default() } else { concerned }
    }

    /// Strikes out an identity that is gone.
    pub fn remove(&self, key: &IdentityKey) -> Concerned {
        let mut concerned = Concerned::default();
        self.lock().strike(key, &mut concerned);
        concerned.identities.remove(key);
        concerned
    }

    /// Works out every claim anew, since trust domains changed. Everybody in it is concerned.
    pub fn recount(&self, domains: &Domains) -> Concerned {
        let mut state = self.lock();
        let mut concerned = Concerned::default();
        let members: Vec<_> =
            state.members.iter().map(|(key, entry)| (key.clone(), entry.facts.clone())).collect();
        for (key, facts) in members {
            state.strike(&key, &mut concerned);
            state.enter(key.clone(), facts, domains, &mut concerned);
            concerned.identities.insert(key);
        }
        concerned
    }

    /// The identity that has the first right to this SPIFFE ID.
    pub fn holder(&self, claim: &SpiffeId) -> Option<IdentityKey> {
        self.lock().holder(claim).map(|identity| identity.key.clone())
    }

    /// The identities that pods of a ServiceAccount may carry: those that hold their SPIFFE ID.
    pub fn candidates(&self, account: &ObjectKey) -> Vec<(Arc<Identity>, SpiffeId)> {
        let state = self.lock();
        let identities = state.by_account.get(account).into_iter().flatten();
        identities
            .filter_map(|identity| {
                let claim = state.members.get(&identity.key)?.claim.clone()?;
                let holds = state.holder(&claim).is_some_and(|holder| holder.key == identity.key);
                holds.then(|| (identity.clone(), claim))
            })
            .collect()
    }

    /// The ServiceAccounts of a namespace that have identities.
    pub fn accounts_of(&self, namespace: &str) -> Vec<ObjectKey> {
        let state = self.lock();
        let from = ObjectKey::new(namespace, "");
        let accounts = state.by_account.range(from..).map(|(account, _)| account);
        accounts.take_while(|account| *account.namespace == *namespace).cloned().collect()
    }

    /// The identities of a ServiceAccount, whether they hold their SPIFFE ID or not.
    pub fn of_account(&self, account: &ObjectKey) -> Vec<IdentityKey> {
        let state = self.lock();
        let identities = state.by_account.get(account).into_iter().flatten();
        identities.map(|identity| identity.key.clone()).collect()
    }

    /// The identities that name this trust domain, whether it can be used or not, and those that
    /// name none and belong to it: `namespace/name`.
    pub fn of_trust_domain(&self, name: &str) -> BTreeSet<String> {
        let state = self.lock();
        let belongs = |entry: &Entry| {
            let named =
                entry.facts.identity.as_ref().ok().and_then(|it| it.trust_domain.as_deref());
            named.or(entry.trust_domain.as_deref()) == Some(name)
        };
        let members = state.members.iter().filter(|(_, entry)| belongs(entry));
        members.map(|(key, _)| key.to_string()).collect()
    }

    /// How many identities each trust domain has, and how many of them are ready.
    pub fn counts(&self) -> BTreeMap<String, (u32, u32)> {
        let mut counts = BTreeMap::<String, (u32, u32)>::new();
        for entry in self.lock().members.values() {
            if let Some(name) = &entry.trust_domain {
                let ready = u32::from(entry.facts.is_ready);
                // Not `entry`, which would copy the name ten thousand times a second.
                match counts.get_mut(name) {
                    Some((total, all_ready)) => {
                        *total += 1;
                        *all_ready += ready;
                    }
                    None => {
                        counts.insert(name.clone(), (1, ready));
                    }
                }
            }
        }
        counts
    }

    /// Calls `visit` for every identity that has a certificate: when it ends and is renewed.
    pub fn for_each_schedule(&self, mut visit: impl FnMut(&IdentityKey, Timestamp, Timestamp)) {
        for (key, entry) in &self.lock().members {
            if let Some((not_after, renew_at)) = entry.facts.schedule {
                visit(key, not_after, renew_at);
            }
        }
    }

    /// The census holds whole entries only between calls, whoever panicked.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn holder(&self, claim: &SpiffeId) -> Option<&Identity> {
        Some(self.by_claim.get(claim)?.first()?)
    }

    fn enter(
        &mut self,
        key: IdentityKey,
        facts: Arc<AgentFacts>,
        domains: &Domains,
        concerned: &mut Concerned,
    ) {
        let mut entry = Entry { facts: facts.clone(), trust_domain: None, claim: None };
        if let Ok(identity) = &facts.identity {
            let account = account_of(identity);
            put(self.by_account.entry(account.clone()).or_default(), identity);
            concerned.accounts.insert(account);
            if let Ok(state) = domains.resolve(identity.trust_domain.as_deref()) {
                entry.trust_domain = Some(state.domain.name.clone());
                entry.claim = state.domain.spiffe_id(identity).ok();
            }
            if let Some(claim) = &entry.claim {
                let claimants = self.by_claim.entry(claim.clone()).or_default();
                put(claimants, identity);
                concerned.identities.extend(claimants.iter().map(|other| other.key.clone()));
            }
        }
        self.members.insert(key, entry);
    }

    fn strike(&mut self, key: &IdentityKey, concerned: &mut Concerned) {
        let Some(entry) = self.members.remove(key) else { return };
        let Ok(identity) = &entry.facts.identity else { return };
        let account = account_of(identity);
        if take_out(self.by_account.get_mut(&account), key) {
            self.by_account.remove(&account);
        }
        concerned.accounts.insert(account);
        let Some(claim) = &entry.claim else { return };
        if take_out(self.by_claim.get_mut(claim), key) {
            self.by_claim.remove(claim);
        }
        let claimants = self.by_claim.get(claim).into_iter().flatten();
        concerned.identities.extend(claimants.map(|other| other.key.clone()));
    }
}

/// The ServiceAccount whose pods may carry an identity.
pub fn account_of(identity: &Identity) -> ObjectKey {
    ObjectKey::new(identity.key.namespace.clone(), identity.service_account.clone())
}

/// Puts an identity in its place: the older before the newer.
fn put(identities: &mut Vec<Arc<Identity>>, identity: &Arc<Identity>) {
    let place = identities.partition_point(|other| rank(other) < rank(identity));
    identities.insert(place, identity.clone());
}

fn rank(identity: &Identity) -> (Timestamp, &str, &IdentityKey) {
    (identity.created, &identity.uid, &identity.key)
}

/// Takes an identity out. True if and only if nobody is left.
fn take_out(identities: Option<&mut Vec<Arc<Identity>>>, identity: &IdentityKey) -> bool {
    identities.is_some_and(|identities| {
        identities.retain(|other| other.key != *identity);
        identities.is_empty()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::TrustDomain;
    use crate::decide::slots::Blocked;
    use crate::identity::Domain;
    use crate::watch::domains::DomainState;
    use serde_json::json;

    fn domains(template: &str) -> Domains {
        let resource: TrustDomain = serde_json::from_value(json!({
            "metadata": {"name": "prod", "uid": "t", "creationTimestamp": "2026-11-24T09:00:00Z"},
            "spec": {
                "domain": "x", "default": true, "authority": {"selfSigned": {}},
                "identities": {"pathTemplate": template},
            },
        }))
        .unwrap();
        let domains = Domains::default();
        let blocked =
            Blocked { reason: crate::api::conditions::Reason::Preparing, message: String::new() };
        let domain = Domain::parse(&resource).unwrap();
        domains.set(DomainState {
            domain,
            authority: Err(blocked),
            is_available: true,
            bundle: None,
        });
        domains
    }

    fn key(name: &str) -> IdentityKey {
        IdentityKey { namespace: "research".into(), name: name.into() }
    }

    fn account(name: &str) -> ObjectKey {
        ObjectKey::new("research", name)
    }

    fn member(name: &str, minute: u32, account: &str) -> Arc<AgentFacts> {
        let resource = serde_json::from_value(json!({
            "metadata": {
                "name": name, "namespace": "research", "uid": name,
                "creationTimestamp": format!("2026-11-24T10:{minute:02}:00Z"),
            },
            "spec": {"serviceAccountName": account},
        }))
        .unwrap();
        Arc::new(AgentFacts::of(resource))
    }

    const BY_ACCOUNT: &str = "/ns/{namespace}/sa/{serviceAccount}";

    #[test]
    fn the_older_keeps_a_spiffe_id_and_the_newer_gets_it_when_the_older_goes() {
        let (census, domains) = (Census::default(), domains(BY_ACCOUNT));
        let concerned = census.set(key("new"), member("new", 2, "a"), &domains);
        assert!(concerned.identities.is_empty());
        let concerned = census.set(key("old"), member("old", 1, "a"), &domains);
        assert_eq!(concerned.identities, BTreeSet::from([key("new")]), "the newer must give way");
        let claim = census.candidates(&account("a"))[0].1.clone();
        assert_eq!(census.holder(&claim), Some(key("old")));
        assert_eq!(census.candidates(&account("a")).len(), 1);
        let concerned = census.remove(&key("old"));
        assert_eq!(concerned.identities, BTreeSet::from([key("new")]));
        assert_eq!(census.holder(&claim), Some(key("new")));
        census.remove(&key("new"));
        assert_eq!(census.holder(&claim), None);
    }

    #[test]
    fn a_change_of_account_concerns_the_pods_of_both() {
        let (census, domains) = (Census::default(), domains(BY_ACCOUNT));
        census.set(key("p"), member("p", 1, "a"), &domains);
        let concerned = census.set(key("p"), member("p", 1, "b"), &domains);
        let accounts = ["a", "b"].map(account);
        assert_eq!(concerned.accounts, BTreeSet::from(accounts));
        assert!(census.candidates(&account("a")).is_empty());
        let same = census.set(key("p"), member("p", 1, "b"), &domains);
        assert_eq!(same, Concerned::default());
    }

    #[test]
    fn other_rules_of_the_trust_domain_make_other_claims() {
        let census = Census::default();
        let by_account = domains(BY_ACCOUNT);
        census.set(key("a"), member("a", 1, "x"), &by_account);
        census.set(key("b"), member("b", 2, "x"), &by_account);
        assert_eq!(census.candidates(&account("x")).len(), 1);
        let concerned = census.recount(&domains("/{namespace}/{name}"));
        assert_eq!(concerned.identities, BTreeSet::from([key("a"), key("b")]));
        assert_eq!(census.candidates(&account("x")).len(), 2);
        assert_eq!(census.counts(), BTreeMap::from([("prod".to_owned(), (2, 0))]));
    }
}
