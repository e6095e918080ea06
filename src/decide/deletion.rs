//! Whether an AgentIdentity that somebody deleted may go yet.
//!
//! It goes when everything that was issued to it is on a CRL that is published. That takes a second
//! or two. What keeps CRLs from being published does not keep it for ever: a certificate that is on
//! record is on every CRL that is signed from then on, whether its identity is there or not.

use jiff::{SignedDuration, Timestamp};

use super::schedule::saturating_add;

/// What is known of an identity that was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// When this replica first saw that it was. The API server's word for it is by another clock, and
    /// of a time when perhaps nobody led.
    pub since: Timestamp,
    /// Every certificate of its that lives is on record.
    pub is_recorded: bool,
    /// Every one is on a CRL that is published.
    pub is_published: bool,
    /// Its namespace is being deleted too, and waits for it.
    pub is_with_namespace: bool,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeletionStep {
    /// It stays, and is looked at again then, or when its certificates are published.
    Wait(Timestamp),
    /// It goes.
    LetGo,
    /// It goes, though nothing records that its certificates are revoked.
    GiveUp,
}

/// How long it waits for CRLs when its certificates are on record.
const PUBLICATION_AWAITED: SignedDuration = SignedDuration::from_secs(30);
/// How long it waits for the record: what keeps the operator from writing it (a quota, an admission
/// policy, a TrustDomain whose spec cannot be understood) wants a person.
const RECORD_AWAITED: SignedDuration = SignedDuration::from_mins(10);
/// The same where a whole namespace waits.
const RECORD_AWAITED_BY_NAMESPACE: SignedDuration = SignedDuration::from_mins(1);

/// What becomes of an identity that was deleted.
pub fn decide(deletion: &Deletion, now: Timestamp) -> DeletionStep {
    let Deletion { since, is_recorded, is_published, is_with_namespace } = *deletion;
    let patience = match (is_recorded, is_with_namespace) {
        (true, _) => PUBLICATION_AWAITED,
        (false, false) => RECORD_AWAITED,
        (false, true) => RECORD_AWAITED_BY_NAMESPACE,
    };
    let end = saturating_add(since, patience);
    match (is_published, now < end) {
        (true, _) => DeletionStep::LetGo,
        (false, true) => DeletionStep::Wait(end),
        (false, false) if is_recorded => DeletionStep::LetGo,
        (false, false) => DeletionStep::GiveUp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_when_what_it_had_is_published_and_is_never_held_for_ever() {
        use DeletionStep::{GiveUp, LetGo, Wait};
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let (published, recorded, nothing) = ((true, true), (false, true), (false, false));
        for (what, (is_published, is_recorded), is_with_namespace, now, expected) in [
            ("all is published", published, false, 0, LetGo),
            ("the record alone is not enough at first", recorded, false, 29, Wait(at(30))),
            ("after half a minute it is", recorded, false, 30, LetGo),
            ("a namespace waits no less for it", recorded, true, 29, Wait(at(30))),
            ("nothing is recorded", nothing, false, 599, Wait(at(600))),
            ("nothing was recorded for ten minutes", nothing, false, 600, GiveUp),
            ("a namespace waits", nothing, true, 59, Wait(at(60))),
            ("a namespace has waited for a minute", nothing, true, 60, GiveUp),
            ("the clock went back", nothing, false, -5, Wait(at(600))),
        ] {
            let deletion = Deletion { since: at(0), is_recorded, is_published, is_with_namespace };
            assert_eq!(decide(&deletion, at(now)), expected, "{what}");
        }
    }
}
