//! Whether a TrustDomain that somebody deleted may go yet.
//!
//! With it go its CAs' keys, and every identity's next certificate. So it is held as long as
//! identities belong to it, and serves them meanwhile, unless its spec says to leave them behind.

use std::collections::BTreeSet;

use crate::api::TrustDomainDeletion;

/// What becomes of a TrustDomain that is being deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Departure {
    /// These still belong to it, `namespace/name`.
    Held(BTreeSet<String>),
    /// Which identities there are is not known yet: nobody can be told, and nothing is done.
    Unknown,
    Goes,
}

/// Whether it may go, of the identities that belong to it; None where they are not all known.
pub fn decide(policy: TrustDomainDeletion, identities: Option<BTreeSet<String>>) -> Departure {
    match (policy, identities) {
        (TrustDomainDeletion::Orphan, _) => Departure::Goes,
        (TrustDomainDeletion::Hold, None) => Departure::Unknown,
        (TrustDomainDeletion::Hold, Some(identities)) if identities.is_empty() => Departure::Goes,
        (TrustDomainDeletion::Hold, Some(identities)) => Departure::Held(identities),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_when_nobody_is_left_or_all_are_to_be_left_behind() {
        use TrustDomainDeletion::{Hold, Orphan};
        let none = || Some(BTreeSet::new());
        let one = || Some(BTreeSet::from(["research/planner".to_owned()]));
        for (what, policy, identities, expected) in [
            ("nobody is left", Hold, none(), Departure::Goes),
            ("somebody is left", Hold, one(), Departure::Held(one().unwrap_or_default())),
            ("who is there is not known yet", Hold, None, Departure::Unknown),
            ("they are to be left behind", Orphan, one(), Departure::Goes),
            ("whoever they are", Orphan, None, Departure::Goes),
        ] {
            assert_eq!(decide(policy, identities), expected, "{what}");
        }
    }
}
