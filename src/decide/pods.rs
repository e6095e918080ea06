//! Which identity a pod carries, and what its labels should be.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::api::names::{
    IDENTITY_LABEL, ROLE_LABEL, SPIFFE_ID_ANNOTATION, STATE_ACTIVE, STATE_LABEL, STATE_REVOKED,
};
use crate::identity::{Identity, SpiffeId};

/// The labels of ours that a pod may carry.
const POD_LABELS: [&str; 3] = [IDENTITY_LABEL, ROLE_LABEL, STATE_LABEL];

/// An identity that may stand on pods of its ServiceAccount.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    pub identity: &'a Identity,
    pub spiffe_id: &'a SpiffeId,
}

/// What to change on a pod: keys with their new value, or None to take them off. Empty maps mean
/// that the pod is right.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodChange {
    pub labels: BTreeMap<String, Option<String>>,
    pub annotations: BTreeMap<String, Option<String>>,
}

/// The identity that a pod with these labels carries: of the identities of its ServiceAccount
/// whose selector matches, the one that asks for most, then the oldest.
pub fn claimant<'c, 'a>(
    labels: &BTreeMap<String, String>,
    candidates: &'c [Candidate<'a>],
) -> Option<&'c Candidate<'a>> {
    candidates
        .iter()
        .filter(|candidate| candidate.identity.selector.matches(labels))
        .min_by_key(|candidate| precedence(candidate.identity))
}

/// Of two identities whose selectors match a pod, the one with the lesser of these has it: the
/// one that asks for more, then the older.
pub fn precedence(identity: &Identity) -> (Reverse<usize>, Timestamp, &str) {
    (Reverse(identity.selector.specificity()), identity.created, identity.uid.as_str())
}

/// What to change so that a pod carries the claimant's labels, and nobody else's.
pub fn change(
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
    claimant: Option<&Candidate<'_>>,
) -> PodChange {
    let wanted: BTreeMap<&str, &str> = claimant
        .map(|candidate| {
            let identity = candidate.identity;
            let mut wanted = BTreeMap::from([
                (IDENTITY_LABEL, &*identity.key.name),
                (STATE_LABEL, state_of(identity)),
            ]);
            if let Some(role) = &identity.role {
                wanted.insert(ROLE_LABEL, role);
            }
            wanted
        })
        .unwrap_or_default();
    let spiffe_id = claimant.map(|candidate| candidate.spiffe_id.as_str());
    PodChange {
        labels: POD_LABELS
            .into_iter()
            .filter_map(|key| difference(labels, key, wanted.get(key).copied()))
            .collect(),
        annotations: difference(annotations, SPIFFE_ID_ANNOTATION, spiffe_id).into_iter().collect(),
    }
}

/// What the state label of an identity's pods says.
pub fn state_of(identity: &Identity) -> &'static str {
    if identity.revoked.is_some() { STATE_REVOKED } else { STATE_ACTIVE }
}

impl PodChange {
    /// True if and only if there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.annotations.is_empty()
    }
}

fn difference(
    found: &BTreeMap<String, String>,
    key: &str,
    wanted: Option<&str>,
) -> Option<(String, Option<String>)> {
    (found.get(key).map(String::as_str) != wanted)
        .then(|| (key.to_owned(), wanted.map(str::to_owned)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::AgentIdentity;
    use crate::identity::TrustDomainName;
    use serde_json::{Value, json};

    fn identity(name: &str, age: u32, selector: Value) -> Identity {
        let resource: AgentIdentity = serde_json::from_value(json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "AgentIdentity",
            "metadata": {
                "name": name, "namespace": "research", "uid": name,
                "creationTimestamp": format!("2026-11-24T10:{:02}:00Z", 59 - age),
            },
            "spec": {"serviceAccountName": "agents", "podSelector": selector, "role": "r"},
        }))
        .unwrap();
        Identity::parse(&resource).unwrap()
    }

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_more_specific_selector_wins_then_the_older_identity() {
        let spiffe_id = SpiffeId::new(&TrustDomainName::parse("x").unwrap(), "/a").unwrap();
        let identities = [
            identity("all-old", 9, json!({})),
            identity("all-new", 1, json!({})),
            identity("app-new", 2, json!({"matchLabels": {"app": "a"}})),
            identity("app-old", 5, json!({"matchLabels": {"app": "a"}})),
            identity("two", 0, json!({"matchLabels": {"app": "a", "tier": "1"}})),
        ];
        let candidates: Vec<_> = identities
            .iter()
            .map(|identity| Candidate { identity, spiffe_id: &spiffe_id })
            .collect();
        for (pod, winner) in [
            (labels(&[]), Some("all-old")),
            (labels(&[("app", "b")]), Some("all-old")),
            (labels(&[("app", "a")]), Some("app-old")),
            (labels(&[("app", "a"), ("tier", "1")]), Some("two")),
        ] {
            let name = claimant(&pod, &candidates).map(|c| &*c.identity.key.name);
            assert_eq!(name, winner, "{pod:?}");
        }
        assert!(claimant(&labels(&[("app", "b")]), &candidates[2..]).is_none());
    }

    #[test]
    fn a_pod_gets_what_is_missing_loses_what_is_not_its_own_and_keeps_the_rest() {
        let identity = identity("planner", 1, json!({}));
        let spiffe_id = SpiffeId::new(&TrustDomainName::parse("x").unwrap(), "/a").unwrap();
        let candidate = Candidate { identity: &identity, spiffe_id: &spiffe_id };
        let none = BTreeMap::new();
        let given = change(&labels(&[("app", "a")]), &none, Some(&candidate));
        assert_eq!(
            given.labels,
            BTreeMap::from([
                (IDENTITY_LABEL.to_owned(), Some("planner".to_owned())),
                (ROLE_LABEL.to_owned(), Some("r".to_owned())),
                (STATE_LABEL.to_owned(), Some("active".to_owned())),
            ])
        );
        assert_eq!(
            given.annotations,
            BTreeMap::from([(SPIFFE_ID_ANNOTATION.to_owned(), Some("spiffe://x/a".to_owned()))])
        );
        let right =
            labels(&[(IDENTITY_LABEL, "planner"), (ROLE_LABEL, "r"), (STATE_LABEL, "active")]);
        let annotated = labels(&[(SPIFFE_ID_ANNOTATION, "spiffe://x/a")]);
        assert!(change(&right, &annotated, Some(&candidate)).is_empty());
        let taken = change(&right, &annotated, None);
        assert!(taken.labels.values().all(Option::is_none) && taken.labels.len() == 3);
        assert!(change(&labels(&[("app", "a")]), &none, None).is_empty());
    }
}
