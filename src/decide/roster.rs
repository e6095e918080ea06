//! The roster of a namespace: which identities the pods of each ServiceAccount may carry, cut
//! into parts that fit into an object, and the writes that bring it about.
//!
//! The same identities always come to the same parts, byte for byte, so that a restart finds
//! nothing to write.

use std::collections::BTreeMap;

use kube::core::Expression;

use super::pods::{Candidate, precedence, state_of};
use crate::api::agent_roster::{AgentRosterSpec, RosterEntry, RosterTerm};
use crate::x509::Sha256;

/// The name of a namespace's roster, or of its first part.
pub const ROSTER: &str = "countersign";

/// How large a part may become, in bytes of JSON. etcd takes 1.5 MB in one request; a third of
/// that leaves room for what the API server adds, and keeps a write of one part short. About 4,000
/// identities with names of ordinary length.
pub const LARGEST_PART: usize = 512 * 1024;

/// What a roster part that was found says, without its entries.
#[derive(Clone, Debug, PartialEq)]
pub struct PartFacts {
    pub resource_version: String,
    pub from: Option<String>,
    pub to: Option<String>,
    /// Of the whole spec, as [`digest`] gives it; None where the part cannot be read.
    pub digest: Option<Sha256>,
}

/// One write to a namespace's roster.
#[derive(Clone, Debug, PartialEq)]
pub enum RosterWrite {
    Create { name: String, spec: AgentRosterSpec },
    Replace { name: String, resource_version: String, spec: AgentRosterSpec },
    Delete { name: String, resource_version: String },
}

/// The parts of the roster of a namespace with these identities, by ServiceAccount. None of them
/// where there is no identity.
pub fn draw_up(
    accounts: &BTreeMap<&str, Vec<Candidate<'_>>>,
    largest: usize,
) -> Vec<AgentRosterSpec> {
    let mut parts: Vec<AgentRosterSpec> = Vec::new();
    let mut room = 0;
    for (account, candidates) in accounts {
        let entries = entries(candidates);
        if entries.is_empty() {
            continue;
        }
        let size = account.len() + 5 + json_size(&entries);
        if size > room || parts.is_empty() {
            if let Some(last) = parts.last_mut() {
                last.to = Some((*account).to_owned());
            }
            let from = (!parts.is_empty()).then(|| (*account).to_owned());
            parts.push(AgentRosterSpec { from, ..AgentRosterSpec::default() });
            room = largest;
        }
        room = room.saturating_sub(size);
        if let Some(part) = parts.last_mut() {
            part.identities += u32::try_from(entries.len()).unwrap_or(u32::MAX);
            part.accounts.insert((*account).to_owned(), entries);
        }
    }
    parts
}

/// The writes that turn the parts that were found into the parts that are wanted, in an order in
/// which no ServiceAccount is without a part at any moment between them.
///
/// A policy is asked once for each part, and a part has no word on ServiceAccounts beyond its
/// range. Were a range given up by one part before another has taken it, labels of pods of these
/// ServiceAccounts would be anybody's for that moment. So what begins or grows goes first, and
/// what shrinks or ends goes last: a part's name stands for its beginning, which never moves.
pub fn plan(wanted: Vec<AgentRosterSpec>, found: &BTreeMap<String, PartFacts>) -> Vec<RosterWrite> {
    let mut left_over = found.clone();
    let (mut first, mut last) = (Vec::new(), Vec::new());
    for spec in wanted {
        let name = part_name(&spec);
        let Some(facts) = left_over.remove(&name) else {
            first.push(RosterWrite::Create { name, spec });
            continue;
        };
        if facts.digest == Some(digest(&spec)) {
            continue;
        }
        // None is without end.
        let shrinks = match (&facts.to, &spec.to) {
            (None, to) => to.is_some(),
            (Some(old), to) => to.as_ref().is_some_and(|to| to < old),
        };
        let writes = if shrinks && facts.from == spec.from { &mut last } else { &mut first };
        let resource_version = facts.resource_version;
        writes.push(RosterWrite::Replace { name, resource_version, spec });
    }
    // Parts that are not needed any more, and rosters that nobody wants.
    let obsolete = left_over.into_iter().map(|(name, facts)| RosterWrite::Delete {
        name,
        resource_version: facts.resource_version,
    });
    first.into_iter().chain(last).chain(obsolete).collect()
}

/// What tells one spec from another.
pub fn digest(spec: &AgentRosterSpec) -> Sha256 {
    Sha256::of(&serde_json::to_vec(spec).unwrap_or_default())
}

/// The name of a part: `countersign` of the first, and of others one that stands for the
/// ServiceAccount that they begin with.
fn part_name(spec: &AgentRosterSpec) -> String {
    match &spec.from {
        None => ROSTER.to_owned(),
        Some(from) => {
            let digest = Sha256::of(from.as_bytes()).to_string();
            format!("{ROSTER}-{}", digest.get(..16).unwrap_or(&digest))
        }
    }
}

/// The identities of a ServiceAccount in the order in which a pod's labels are held against them.
fn entries(candidates: &[Candidate<'_>]) -> Vec<RosterEntry> {
    let mut sorted: Vec<&Candidate<'_>> = candidates.iter().collect();
    sorted.sort_by_key(|candidate| precedence(candidate.identity));
    sorted
        .into_iter()
        .map(|Candidate { identity, spiffe_id }| RosterEntry {
            identity: identity.key.name.to_string(),
            role: identity.role.clone(),
            state: state_of(identity).to_owned(),
            spiffe_id: spiffe_id.as_str().to_owned(),
            selector: identity.selector.expressions().map(term).collect(),
        })
        .collect()
}

fn term(expression: Expression) -> RosterTerm {
    let (key, operator, values) = match expression {
        Expression::In(key, values) => (key, "In", values.into_iter().collect()),
        Expression::NotIn(key, values) => (key, "NotIn", values.into_iter().collect()),
        Expression::Exists(key) => (key, "Exists", Vec::new()),
        Expression::DoesNotExist(key) => (key, "DoesNotExist", Vec::new()),
        Expression::Equal(key, value) => (key, "In", vec![value]),
        Expression::NotEqual(key, value) => (key, "NotIn", vec![value]),
    };
    RosterTerm { key, operator: operator.to_owned(), values }
}

fn json_size(entries: &[RosterEntry]) -> usize {
    serde_json::to_vec(entries).map(|bytes| bytes.len()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
