//! What revoking an identity, or one of its certificates, comes to.

use jiff::Timestamp;

use super::ledger::Issued;
use super::observed::{Content, SecretState};
use super::record::{Entry, EntryKey};
use super::schedule::whole_seconds;
use crate::api::RevocationReason;
use crate::identity::Identity;

/// The next step of a revocation. Signing has stopped before any of them, since a revoked identity
/// comes here instead; and its pods' label says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevocationStep {
    /// Its certificates are not all on a CRL that is published.
    AwaitCrl,
    /// They are, and the Secret holds a key.
    TakeOutKey,
    /// Nothing is left to do.
    Done,
}

/// The next step, once it is known whether every certificate is on a CRL that is published.
pub fn next_step(is_published: bool, secret: &SecretState) -> RevocationStep {
    match secret {
        _ if !is_published => RevocationStep::AwaitCrl,
        SecretState::Ours(ours) if ours.content != Content::Emptied => RevocationStep::TakeOutKey,
        SecretState::Ours(_) | SecretState::Absent | SecretState::Foreign(_) => {
            RevocationStep::Done
        }
    }
}

/// What a revocation of everything that lives puts on record.
pub fn entries(alive: &[Issued], reason: RevocationReason, now: Timestamp) -> Vec<Entry> {
    alive.iter().map(|issued| entry(issued, reason, now)).collect()
}

/// What the revocation of single certificates puts on record: those of the identity, and no
/// others, or whoever may write an identity could revoke anybody's.
pub fn single_entries(identity: &Identity, alive: &[Issued], now: Timestamp) -> Vec<Entry> {
    let reason_of = |issued: &Issued| {
        let serial = issued.serial.parse().ok()?;
        identity.revoked_certificates.get(&serial).copied()
    };
    alive.iter().filter_map(|issued| Some(entry(issued, reason_of(issued)?, now))).collect()
}

fn entry(issued: &Issued, reason: RevocationReason, now: Timestamp) -> Entry {
    Entry {
        key: EntryKey { key_id: issued.key_id.clone(), serial: issued.serial.clone() },
        at: whole_seconds(now),
        reason,
        not_after: whole_seconds(issued.not_after),
    }
}
