//! What distrusting a CA breaks, and for whom. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;

use crate::api::{AgentIdentity, SlotKind, SlotPhase, SlotStatus, TrustDomain};
use crate::cli::words::{WIDTH, count, names_of, slots, wrap};

/// The CAs that go when one is distrusted: a root with every issuing CA under it, and an issuing
/// CA with its root, because peers look at the root alone. One that does not sign yet goes
/// without its root.
pub fn struck<'a>(slots: &'a [SlotStatus], key_id: &str) -> Vec<&'a SlotStatus> {
    let Some(named) = slots.iter().find(|slot| slot.key_id == key_id) else { return Vec::new() };
    if named.phase == SlotPhase::Prepared && named.kind == SlotKind::Issuing {
        return vec![named];
    }
    let root = named.signed_by.as_ref().unwrap_or(&named.key_id);
    slots
        .iter()
        .filter(|slot| slot.key_id == *root || slot.signed_by.as_ref() == Some(root))
        .collect()
}

/// The agents of a trust domain whose certificates chain to one of these CAs and live.
pub fn victims<'a>(
    trust_domain: &str,
    struck: &[String],
    identities: &'a [AgentIdentity],
    now: Timestamp,
) -> Vec<&'a AgentIdentity> {
    let is_one = |identity: &&AgentIdentity| {
        let status = identity.status.as_ref();
        status.is_some_and(|status| status.trust_domain.as_deref() == Some(trust_domain))
            && status.and_then(|status| status.certificate.as_ref()).is_some_and(|certificate| {
                struck.contains(&certificate.authority_key_id) && certificate.not_after.0 > now
            })
    };
    identities.iter().filter(is_one).collect()
}

/// Namespaces that are named; the others are counted.
const NAMED: usize = 8;
/// Where the text begins, beside its headings.
const INDENT: usize = 14;

/// What breaks when these CAs are distrusted, and what happens then.
pub fn warning(
    domain: &TrustDomain,
    struck: &[String],
    identities: &[AgentIdentity],
    now: Timestamp,
) -> String {
    let name = domain.metadata.name.as_deref().unwrap_or_default();
    let gone: Vec<&SlotStatus> =
        slots(domain).iter().filter(|slot| struck.contains(&slot.key_id)).collect();
    let signs = gone.iter().any(|slot| slot.phase == SlotPhase::Active);
    let victims = victims(name, struck, identities, now);
    let mut text =
        format!("{name}: this distrusts {}, at once and without overlap.\n\n", names_of(&gone));
    let mut say = |heading: &str, said: &str| {
        let _ = writeln!(text, "  {heading:<12}{}", wrap(said, INDENT, WIDTH));
    };
    say("Breaks", &breaks(&victims, signs));
    if !victims.is_empty() {
        say("Where", &by_namespace(&victims));
    }
    say("Then", then(signs, !victims.is_empty()));
    say(
        "For good",
        "the key is destroyed, and taking the key id out of spec.ca.distrust brings nothing back. \
         Peers that hold a bundle of their own (outside the cluster, or copied) must be told by you.",
    );
    text
}

fn breaks(victims: &[&AgentIdentity], signs: bool) -> String {
    if victims.is_empty() {
        return "nothing: no agent has a living certificate under it.".to_owned();
    }
    let who = count(victims.len(), "agent");
    let verb = if victims.len() == 1 { "has a certificate" } else { "have certificates" };
    let mut said = format!(
        "{who} {verb} under it. Each is refused by every peer that has the new bundle, until it has \
         loaded a new certificate."
    );
    if signs {
        said.push_str(
            " And whoever still has the old bundle refuses the new certificates, since the new CA \
             signs before its bundle is everywhere.",
        );
    }
    said
}

fn then(signs: bool, has_victims: bool) -> &'static str {
    match (signs, has_victims) {
        (true, _) => {
            "the operator makes a new root and issuing CA, publishes them, and issues every agent a \
             new certificate, all at once. A kubelet shows pods the new files within 30 to 100 s; \
             agents that read them only at their start must be restarted. Connections that are open \
             stay open."
        }
        (false, true) => {
            "the operator takes it out of the bundle; the CA that signs now stays, and the agents \
             that have a certificate under the old one get one of it. Connections that are open stay \
             open."
        }
        (false, false) => "the operator takes it out of the bundle; the CA that signs now stays.",
    }
}

/// `research 8, billing 3 and 2 other namespaces`, those with most agents first.
fn by_namespace(victims: &[&AgentIdentity]) -> String {
    let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
    for victim in victims {
        let namespace = victim.metadata.namespace.as_deref().unwrap_or_default();
        *numbers.entry(namespace).or_default() += 1;
    }
    let mut sorted: Vec<(&str, usize)> = numbers.into_iter().collect();
    sorted.sort_by_key(|(namespace, number)| (std::cmp::Reverse(*number), *namespace));
    let named: Vec<String> = sorted
        .iter()
        .take(NAMED)
        .map(|(namespace, number)| format!("{namespace} {number}"))
        .collect();
    let rest = sorted.len().saturating_sub(NAMED);
    let others =
        if rest == 0 { String::new() } else { format!(" and {}", count(rest, "other namespace")) };
    format!("{}{others}", named.join(", "))
}
