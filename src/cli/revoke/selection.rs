//! Who is meant, what is cut, and how far it has come. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::api::AgentIdentity;
use crate::api::conditions::{READY, REVOKED};
use crate::cli::words::{WIDTH, count, wrap};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    Revoke,
    GiveBack,
}

/// Which AgentIdentity: namespace and name.
pub type Name = (String, String);

/// The name of an identity.
pub fn name_of(identity: &AgentIdentity) -> Name {
    let metadata = &identity.metadata;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    (text(&metadata.namespace), text(&metadata.name))
}

/// Of those found, the ones of a role, and of those the ones for which something is to be done:
/// what is revoked already is not revoked again.
pub fn select<'a>(
    found: &'a [AgentIdentity],
    role: Option<&str>,
    wish: Wish,
) -> Vec<&'a AgentIdentity> {
    let has_role =
        |identity: &&AgentIdentity| role.is_none() || identity.spec.role.as_deref() == role;
    let is_open =
        |identity: &&AgentIdentity| identity.spec.revoked.is_some() == (wish == Wish::GiveBack);
    found.iter().filter(has_role).filter(is_open).collect()
}

/// True if and only if the operator has done what was asked of this identity.
pub fn is_done(identity: &AgentIdentity, wish: Wish) -> bool {
    let conditions = identity.status.as_ref().map(|status| status.conditions.as_slice());
    let is_true = |kind: &str| {
        conditions.unwrap_or_default().iter().any(|condition| {
            condition.type_ == kind
                && condition.status == "True"
                && condition.observed_generation == identity.metadata.generation
        })
    };
    match wish {
        Wish::Revoke => identity.spec.revoked.is_none() || is_true(REVOKED),
        Wish::GiveBack => identity.spec.revoked.is_some() || is_true(READY),
    }
}

/// Namespaces that are named; the others are counted.
const NAMED: usize = 8;
/// Identities that are named.
const LISTED: usize = 12;
/// Where the text begins, beside its headings.
const INDENT: usize = 12;

/// What is cut, for a person who is about to do it.
pub fn summary(selected: &[&AgentIdentity], wish: Wish) -> String {
    let verb = match wish {
        Wish::Revoke => "This revokes",
        Wish::GiveBack => "This gives back",
    };
    let mut text = format!("{verb} {}.\n\n", count(selected.len(), "agent"));
    let mut say = |heading: &str, said: &str| {
        let _ = writeln!(text, "  {heading:<10}{}", wrap(said, INDENT, WIDTH));
    };
    let names = selected.iter().map(|identity| {
        let (namespace, name) = name_of(identity);
        format!("{namespace}/{name}")
    });
    say("Who", &listed(names.collect(), LISTED, "other"));
    let mut by_namespace: BTreeMap<String, usize> = BTreeMap::new();
    for identity in selected {
        *by_namespace.entry(name_of(identity).0).or_default() += 1;
    }
    let mut sorted: Vec<(String, usize)> = by_namespace.into_iter().collect();
    sorted.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    let places = sorted.into_iter().map(|(namespace, number)| format!("{namespace} {number}"));
    say("Where", &listed(places.collect(), NAMED, "other namespace"));
    let pods: u32 = selected
        .iter()
        .filter_map(|identity| identity.status.as_ref()?.pods.map(|pods| pods.matched))
        .sum();
    let pods = count(usize::try_from(pods).unwrap_or(usize::MAX), "pod");
    say(
        "Then",
        &match wish {
            Wish::Revoke => format!(
                "{pods}: labelled revoked at once; every certificate goes on the CRL within seconds; keys are taken out of the Secrets. `countersign unrevoke` gives new keys; what is on the CRL stays there."
            ),
            Wish::GiveBack => format!(
                "{pods}: labelled active again; each identity gets a new key and certificate."
            ),
        },
    );
    text
}

fn listed(names: Vec<String>, shown: usize, other: &str) -> String {
    let more = names.len().saturating_sub(shown);
    let named = names.iter().take(shown).cloned().collect::<Vec<_>>().join(", ");
    if more == 0 { named } else { format!("{named} and {}", count(more, other)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn identity(name: &str, role: &str, revoked: bool) -> AgentIdentity {
        let mut spec = json!({"serviceAccountName": name, "role": role});
        if revoked {
            spec["revoked"] = json!({"reason": "KeyCompromise"});
        }
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "research", "generation": 2},
            "spec": spec,
            "status": {"pods": {"matched": 3, "labelled": 3}},
        }))
        .unwrap()
    }

    #[test]
    fn what_is_done_already_is_not_done_again() {
        let all = [
            identity("a", "executor", false),
            identity("b", "executor", true),
            identity("c", "planner", false),
        ];
        let names = |selected: Vec<&AgentIdentity>| -> Vec<String> {
            selected.into_iter().map(|identity| name_of(identity).1).collect()
        };
        assert_eq!(names(select(&all, Some("executor"), Wish::Revoke)), ["a"]);
        assert_eq!(names(select(&all, None, Wish::Revoke)), ["a", "c"]);
        assert_eq!(names(select(&all, None, Wish::GiveBack)), ["b"]);
    }

    #[test]
    fn a_person_sees_who_is_cut_before_it_is_done() {
        let all = [identity("a", "executor", false), identity("c", "planner", false)];
        let text = summary(&select(&all, None, Wish::Revoke), Wish::Revoke);
        for part in ["2 agents", "research/a, research/c", "research 2", "6 pods"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn a_word_on_an_older_spec_does_not_count() {
        let mut revoked = identity("a", "executor", true);
        let condition = |generation: i64| {
            serde_json::from_value(json!([{
                "type": "Revoked", "status": "True", "reason": "Revoked", "message": "",
                "observedGeneration": generation, "lastTransitionTime": "2026-11-24T10:00:00Z",
            }]))
            .unwrap()
        };
        revoked.status.as_mut().unwrap().conditions = condition(1);
        assert!(!is_done(&revoked, Wish::Revoke));
        revoked.status.as_mut().unwrap().conditions = condition(2);
        assert!(is_done(&revoked, Wish::Revoke));
    }
}
