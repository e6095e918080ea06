use super::*;
use crate::api::AgentIdentity;
use crate::identity::{Identity, SpiffeId, TrustDomainName};
use proptest::prelude::*;
use serde_json::{Value, json};

fn identity(name: &str, account: &str, minute: u32, selector: Value) -> Identity {
    let resource: AgentIdentity = serde_json::from_value(json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "AgentIdentity",
        "metadata": {
            "name": name, "namespace": "research", "uid": name,
            "creationTimestamp": format!("2026-11-24T10:{minute:02}:00Z"),
        },
        "spec": {"serviceAccountName": account, "podSelector": selector},
    }))
    .unwrap();
    Identity::parse(&resource).unwrap()
}

fn spiffe_id() -> SpiffeId {
    SpiffeId::new(&TrustDomainName::parse("x").unwrap(), "/a").unwrap()
}

fn drawn_up(identities: &[Identity], largest: usize) -> Vec<AgentRosterSpec> {
    let spiffe_id = spiffe_id();
    let mut accounts = BTreeMap::<&str, Vec<Candidate<'_>>>::new();
    for identity in identities {
        let candidate = Candidate { identity, spiffe_id: &spiffe_id };
        accounts.entry(&identity.service_account).or_default().push(candidate);
    }
    draw_up(&accounts, largest)
}

fn agents(accounts: impl IntoIterator<Item = String>) -> Vec<Identity> {
    accounts.into_iter().map(|account| identity("agent", &account, 0, json!({}))).collect()
}

/// The parts as they stand in the cluster after a write.
fn take(found: &mut BTreeMap<String, PartFacts>, write: &RosterWrite) {
    let facts = |spec: &AgentRosterSpec| PartFacts {
        resource_version: "1".to_owned(),
        from: spec.from.clone(),
        to: spec.to.clone(),
        digest: Some(digest(spec)),
    };
    match write {
        RosterWrite::Create { name, spec } => {
            assert!(found.insert(name.clone(), facts(spec)).is_none(), "{name} was there");
        }
        RosterWrite::Replace { name, spec, .. } => {
            assert!(found.insert(name.clone(), facts(spec)).is_some(), "{name} was not there");
        }
        RosterWrite::Delete { name, .. } => assert!(found.remove(name).is_some(), "{name}"),
    }
}

fn is_covered(account: &str, found: &BTreeMap<String, PartFacts>) -> bool {
    found.values().any(|part| {
        part.from.as_deref().is_none_or(|from| from <= account)
            && part.to.as_deref().is_none_or(|to| account < to)
    })
}

#[test]
fn a_namespace_without_identities_has_no_roster() {
    assert_eq!(drawn_up(&[], LARGEST_PART), []);
    let found = BTreeMap::from([(
        "countersign".to_owned(),
        PartFacts { resource_version: "7".to_owned(), from: None, to: None, digest: None },
    )]);
    let gone =
        RosterWrite::Delete { name: "countersign".to_owned(), resource_version: "7".to_owned() };
    assert_eq!(plan(Vec::new(), &found), [gone]);
}

#[test]
fn entries_stand_in_the_order_in_which_they_have_a_pod() {
    let parts = drawn_up(
        &[
            identity("all", "agents", 1, json!({})),
            identity("new", "agents", 3, json!({"matchLabels": {"app": "a"}})),
            identity("old", "agents", 2, json!({"matchLabels": {"app": "a"}})),
            identity(
                "most",
                "agents",
                4,
                json!({"matchLabels": {"app": "a"}, "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["2", "1"]}]}),
            ),
        ],
        LARGEST_PART,
    );
    let [part] = parts.as_slice() else { panic!("one part: {parts:?}") };
    assert_eq!((&part.from, &part.to, part.identities), (&None, &None, 4));
    let entries = &part.accounts["agents"];
    let names: Vec<&str> = entries.iter().map(|entry| entry.identity.as_str()).collect();
    assert_eq!(names, ["most", "old", "new", "all"]);
    let term = |key: &str, operator: &str, values: &[&str]| RosterTerm {
        key: key.to_owned(),
        operator: operator.to_owned(),
        values: values.iter().map(|value| (*value).to_owned()).collect(),
    };
    assert_eq!(
        entries[0],
        RosterEntry {
            identity: "most".to_owned(),
            role: None,
            state: "active".to_owned(),
            spiffe_id: "spiffe://x/a".to_owned(),
            selector: vec![term("app", "In", &["a"]), term("tier", "NotIn", &["1", "2"])],
        }
    );
}

#[test]
fn ten_thousand_identities_fit_into_a_handful_of_parts() {
    let identities: Vec<Identity> = (0..10_000)
        .map(|n| identity(&format!("agent-{n:05}"), &format!("agent-{n:05}"), 0, json!({})))
        .collect();
    let parts = drawn_up(&identities, LARGEST_PART);
    assert!(parts.len() <= 3, "{} parts", parts.len());
    assert_eq!(parts.iter().map(|part| part.identities).sum::<u32>(), 10_000);
    for part in &parts {
        let size = serde_json::to_vec(part).unwrap().len();
        assert!(size <= LARGEST_PART + 1024, "a part of {size} bytes");
    }
}

#[test]
fn one_service_account_with_very_many_identities_is_not_torn_apart() {
    let identities: Vec<Identity> =
        (0..50).map(|n| identity(&format!("agent-{n}"), "one", 0, json!({}))).collect();
    let parts = drawn_up(&identities, 100);
    assert_eq!(parts.len(), 1);
    assert_eq!(parts[0].accounts["one"].len(), 50);
}

proptest! {
    /// From any roster to any other, by way of every state between two writes: no ServiceAccount
    /// is without a part, everything that was wanted is there at the end, and asking again gives
    /// nothing to do.
    #[test]
    fn no_service_account_is_ever_without_a_part(
        before in proptest::collection::btree_set("[a-f]{1,3}", 1..30),
        after in proptest::collection::btree_set("[a-f]{1,3}", 1..30),
        (large, small) in (90usize..600, 90usize..600),
        stop in 0usize..8,
        probes in proptest::collection::vec("[a-g]{0,4}", 10),
    ) {
        let mut found = BTreeMap::new();
        for write in plan(drawn_up(&agents(before), large), &found.clone()) {
            take(&mut found, &write);
        }
        // A crash after some writes, and from there to a third roster.
        for (wanted, writes) in [
            (drawn_up(&agents(after.clone()), small), stop),
            (drawn_up(&agents(after), large), usize::MAX),
        ] {
            for write in plan(wanted.clone(), &found.clone()).iter().take(writes) {
                take(&mut found, write);
                for probe in &probes {
                    prop_assert!(is_covered(probe, &found), "{probe} in {found:?} after {write:?}");
                }
            }
            if writes == usize::MAX {
                prop_assert_eq!(found.len(), wanted.len());
                prop_assert_eq!(plan(wanted, &found), []);
            }
        }
    }
}
