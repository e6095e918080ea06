//! Who claims which SPIFFE ID, and which identities belong to a ServiceAccount.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::domains::Domains;
use crate::api::AgentIdentity;
use crate::api::conditions::READY;
use crate::identity::{Identity, IdentityKey, SpiffeId};

/// Everything about an identity that concerns others.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Member {
    /// None where the spec cannot be understood.
    pub identity: Option<Identity>,
    pub ready: bool,
    /// When its certificate ends and is renewed, as the status says.
    pub schedule: Option<(Timestamp, Timestamp)>,
}

/// All identities, indexed by what they claim.
#[derive(Default)]
pub struct Census(Mutex<State>);

#[derive(Default)]
struct State {
    members: HashMap<IdentityKey, Entry>,
    /// Claimants in the order of their right: the oldest first.
    by_claim: HashMap<SpiffeId, BTreeSet<(Timestamp, String, IdentityKey)>>,
    by_account: HashMap<(String, String), BTreeSet<IdentityKey>>,
}

struct Entry {
    member: Arc<Member>,
    trust_domain: Option<String>,
    claim: Option<SpiffeId>,
}

/// Whom a change concerns besides the identity that changed.
#[derive(Debug, Default, PartialEq)]
pub struct Concerned {
    /// Identities whose right to their SPIFFE ID may have changed.
    pub identities: BTreeSet<IdentityKey>,
    /// ServiceAccounts, as (namespace, name), whose pods may carry other labels now.
    pub accounts: BTreeSet<(String, String)>,
}

impl Member {
    /// What matters of an AgentIdentity to others.
    pub fn of(resource: &AgentIdentity) -> Self {
        let status = resource.status.as_ref();
        let ready = status.is_some_and(|status| {
            status.conditions.iter().any(|c| c.type_ == READY && c.status == "True")
        });
        Member {
            identity: Identity::parse(resource).ok(),
            ready,
            schedule: status
                .and_then(|status| status.certificate.as_ref())
                .map(|certificate| (certificate.not_after.0, certificate.renew_at.0)),
        }
    }
}

impl Census {
    /// Enters an identity, or what became of it.
    pub fn set(&self, key: IdentityKey, member: Arc<Member>, domains: &Domains) -> Concerned {
        let mut state = self.lock();
        let mut concerned = Concerned::default();
        let same =
            state.members.get(&key).is_some_and(|entry| entry.member.identity == member.identity);
        if same {
            // A status alone concerns nobody else.
            if let Some(entry) = state.members.get_mut(&key) {
                entry.member = member;
            }
            return concerned;
        }
        state.strike(&key, &mut concerned);
        state.enter(key.clone(), member, domains, &mut concerned);
        concerned.identities.remove(&key);
        concerned
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
            state.members.iter().map(|(key, entry)| (key.clone(), entry.member.clone())).collect();
        for (key, member) in members {
            state.strike(&key, &mut concerned);
            state.enter(key.clone(), member, domains, &mut concerned);
            concerned.identities.insert(key);
        }
        concerned
    }

    /// The identity that has the first right to this SPIFFE ID.
    pub fn holder(&self, claim: &SpiffeId) -> Option<IdentityKey> {
        self.lock().by_claim.get(claim)?.first().map(|(_, _, key)| key.clone())
    }

    /// The identities that pods of a ServiceAccount may carry: those that hold their SPIFFE ID.
    pub fn candidates(&self, namespace: &str, account: &str) -> Vec<(Arc<Member>, SpiffeId)> {
        let state = self.lock();
        let keys = state.by_account.get(&(namespace.to_owned(), account.to_owned()));
        keys.into_iter()
            .flatten()
            .filter_map(|key| {
                let entry = state.members.get(key)?;
                let claim = entry.claim.clone()?;
                let holds = state
                    .by_claim
                    .get(&claim)
                    .and_then(BTreeSet::first)
                    .is_some_and(|(_, _, holder)| holder == key);
                holds.then(|| (entry.member.clone(), claim))
            })
            .collect()
    }

    /// The identities of a ServiceAccount, whether they hold their SPIFFE ID or not.
    pub fn of_account(&self, namespace: &str, account: &str) -> Vec<IdentityKey> {
        let state = self.lock();
        let keys = state.by_account.get(&(namespace.to_owned(), account.to_owned()));
        keys.into_iter().flatten().cloned().collect()
    }

    /// How many identities each trust domain has, and how many of them are ready.
    pub fn counts(&self) -> BTreeMap<String, (u32, u32)> {
        let mut counts = BTreeMap::<String, (u32, u32)>::new();
        for entry in self.lock().members.values() {
            if let Some(name) = &entry.trust_domain {
                let ready = u32::from(entry.member.ready);
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
            if let Some((not_after, renew_at)) = entry.member.schedule {
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
    fn enter(
        &mut self,
        key: IdentityKey,
        member: Arc<Member>,
        domains: &Domains,
        concerned: &mut Concerned,
    ) {
        let mut entry = Entry { member: member.clone(), trust_domain: None, claim: None };
        if let Some(identity) = &member.identity {
            let account = (key.namespace.clone(), identity.service_account.clone());
            self.by_account.entry(account.clone()).or_default().insert(key.clone());
            concerned.accounts.insert(account);
            if let Ok(state) = domains.resolve(identity.trust_domain.as_deref()) {
                entry.trust_domain = Some(state.domain.name.clone());
                entry.claim = state.domain.spiffe_id(identity).ok();
            }
            if let Some(claim) = &entry.claim {
                let claimants = self.by_claim.entry(claim.clone()).or_default();
                claimants.insert((identity.created, identity.uid.clone(), key.clone()));
                concerned.identities.extend(claimants.iter().map(|(_, _, key)| key.clone()));
            }
        }
        self.members.insert(key, entry);
    }

    fn strike(&mut self, key: &IdentityKey, concerned: &mut Concerned) {
        let Some(entry) = self.members.remove(key) else { return };
        let Some(identity) = &entry.member.identity else { return };
        let account = (key.namespace.clone(), identity.service_account.clone());
        if let Some(keys) = self.by_account.get_mut(&account) {
            keys.remove(key);
            if keys.is_empty() {
                self.by_account.remove(&account);
            }
        }
        concerned.accounts.insert(account);
        let Some(claim) = &entry.claim else { return };
        if let Some(claimants) = self.by_claim.get_mut(claim) {
            claimants.remove(&(identity.created, identity.uid.clone(), key.clone()));
            concerned.identities.extend(claimants.iter().map(|(_, _, key)| key.clone()));
            if claimants.is_empty() {
                self.by_claim.remove(claim);
            }
        }
    }
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
        domains.set(DomainState { domain, authority: Err(blocked) });
        domains
    }

    fn key(name: &str) -> IdentityKey {
        IdentityKey { namespace: "research".to_owned(), name: name.to_owned() }
    }

    fn member(name: &str, minute: u32, account: &str) -> Arc<Member> {
        let resource: AgentIdentity = serde_json::from_value(json!({
            "metadata": {
                "name": name, "namespace": "research", "uid": name,
                "creationTimestamp": format!("2026-11-24T10:{minute:02}:00Z"),
            },
            "spec": {"serviceAccountName": account},
        }))
        .unwrap();
        Arc::new(Member::of(&resource))
    }

    const BY_ACCOUNT: &str = "/ns/{namespace}/sa/{serviceAccount}";

    #[test]
    fn the_older_keeps_a_spiffe_id_and_the_newer_gets_it_when_the_older_goes() {
        let (census, domains) = (Census::default(), domains(BY_ACCOUNT));
        let concerned = census.set(key("new"), member("new", 2, "a"), &domains);
        assert!(concerned.identities.is_empty());
        let concerned = census.set(key("old"), member("old", 1, "a"), &domains);
        assert_eq!(concerned.identities, BTreeSet::from([key("new")]), "the newer must give way");
        let claim = census.candidates("research", "a")[0].1.clone();
        assert_eq!(census.holder(&claim), Some(key("old")));
        assert_eq!(census.candidates("research", "a").len(), 1);
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
        let accounts = ["a", "b"].map(|name| ("research".to_owned(), name.to_owned()));
        assert_eq!(concerned.accounts, BTreeSet::from(accounts));
        assert!(census.candidates("research", "a").is_empty());
        let same = census.set(key("p"), member("p", 1, "b"), &domains);
        assert_eq!(same, Concerned::default());
    }

    #[test]
    fn other_rules_of_the_trust_domain_make_other_claims() {
        let census = Census::default();
        let by_account = domains(BY_ACCOUNT);
        census.set(key("a"), member("a", 1, "x"), &by_account);
        census.set(key("b"), member("b", 2, "x"), &by_account);
        assert_eq!(census.candidates("research", "x").len(), 1);
        let concerned = census.recount(&domains("/{namespace}/{name}"));
        assert_eq!(concerned.identities, BTreeSet::from([key("a"), key("b")]));
        assert_eq!(census.candidates("research", "x").len(), 2);
        assert_eq!(census.counts(), BTreeMap::from([("prod".to_owned(), (2, 0))]));
    }
}
