//! How many pods carry an identity.

use crate::api::names::{IDENTITY_LABEL, STATE_LABEL};
use crate::decide::pods::{Candidate, claimant, state_of};
use crate::identity::Identity;

use super::View;
use crate::watch::census::account_of;

/// The pods of an identity, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodCounts {
    /// Pods of the ServiceAccount that the selector matches.
    pub matched: u32,
    /// Those of them that carry this identity's label.
    pub labelled: u32,
    /// Those of them that another identity has the better claim to, and one such identity.
    pub claimed_by_another: u32,
    pub other: Option<String>,
}

impl PodCounts {
    /// Counts an identity's pods.
    pub fn of(view: &View, identity: &Identity) -> Self {
        let account = account_of(identity);
        let mut counts = PodCounts::default();
        let pods = view.pod_index.of_account(&account);
        if pods.is_empty() {
            return counts;
        }
        let candidates = view.candidates(&account);
        let candidates: Vec<Candidate<'_>> = candidates
            .iter()
            .map(|(identity, spiffe_id)| Candidate { identity, spiffe_id })
            .collect();
        for pod in pods.iter().filter_map(|key| view.pods.get(key)) {
            if !identity.selector.matches(&pod.labels) {
                continue;
            }
            counts.matched += 1;
            let says = |label: &str, value: &str| {
                pod.labels.get(label).is_some_and(|found| found.as_str() == value)
            };
            let is_labelled =
                says(IDENTITY_LABEL, &identity.key.name) && says(STATE_LABEL, state_of(identity));
            counts.labelled += u32::from(is_labelled);
            if let Some(winner) = claimant(&pod.labels, &candidates)
                && winner.identity.key != identity.key
            {
                counts.claimed_by_another += 1;
                counts.other = Some(winner.identity.key.name.to_string());
            }
        }
        counts
    }
}
