//! Which CAs a trust domain has, which are to be made, which sign, which are still trusted.
//!
//! ```text
//!   made ──> Prepared ──────────────────> Active ─────────────────> Retiring ──────────> destroyed
//!            in every bundle, signs       signs                     trusted, signs       out of the
//!            nothing; waits until every                             nothing; waits until bundle; its
//!            target holds the bundle,                               the last leaf that   key is gone
//!            and then for the soak                                  it signed has ended
//! ```
//!
//! A root and the issuing CA under it go through this together. An issuing CA alone needs no new
//! bundle, since its root is trusted already; but peers that check CRLs refuse what it signs until
//! they have its CRL, which comes by the same way and is waited for likewise.
//!
//! A slot that was recorded in the status is never silently replaced: peers hold its certificate.
//! An authority that has CAs of its own differs in one thing: what comes next is what it offers,
//! copied into a slot like any other ([`Supply`]).
//!
//! Slots that exist and are not recorded are what a crash left between two writes: they are taken
//! up if they are wanted, and destroyed if they are older than what signs.

mod conclusion;
#[cfg(test)]
mod model;
#[cfg(test)]
mod offers;
mod plan;
mod supply;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::api::conditions::Reason;
use crate::api::{RotationStatus, SlotKind, SlotStatus};
use crate::identity::{AuthorityKind, Domain, Lifetime};
use crate::x509::Ca;

pub use plan::decide;
pub use supply::{Offer, OfferedIssuing, OfferedRoot, Supply};

/// All that is known of a trust domain's CAs at one moment.
#[derive(Clone, Debug)]
pub struct SlotSituation<'a> {
    pub domain: &'a Domain,
    /// What the authority has to give now.
    pub supply: &'a Supply,
    /// The CA Secrets that exist.
    pub found: &'a [SlotSecret],
    /// What the status says.
    pub recorded: &'a [SlotStatus],
    pub rotation: Option<&'a RotationStatus>,
    /// Which targets hold the bundle of the recorded slots; None where it was not published yet.
    pub reach: Option<&'a Reach>,
    /// Since when the API server has answered, after a time in which it did not.
    pub contact_since: Option<Timestamp>,
    pub now: Timestamp,
}

/// How far a bundle has come.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reach {
    pub targets: u32,
    /// The targets that do not hold it, for people.
    pub unreached: BTreeSet<String>,
}

/// A CA Secret of this trust domain, as it was found.
#[derive(Clone, Debug, PartialEq)]
pub struct SlotSecret {
    pub name: String,
    pub kind: SlotKind,
    pub number: u32,
    /// What stands in it, or why that is not a CA with all that it needs.
    pub content: Result<FoundCa, String>,
}

/// A CA that is whole: where its key is to be there too, that agrees.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundCa {
    /// With the digest and the earliest end of its chain, up to but without the root.
    pub ca: Ca,
    /// The CA's own certificate.
    pub certificate_pem: String,
    /// The kind of authority that it came from.
    pub origin: AuthorityKind,
    /// The key id of the root whose signature it carries, among those found; its own for a root.
    pub signed_by: Option<String>,
}

/// What to do about a trust domain's CAs.
#[derive(Clone, Debug, PartialEq)]
pub struct SlotPlan {
    /// The next CA to make, if any. Only one at a time: an issuing CA needs its root.
    pub create: Option<SlotOrder>,
    /// The CAs to record, before anything else is done about them.
    pub slots: Vec<SlotStatus>,
    /// CA Secrets that no recorded slot needs, to be destroyed once that is recorded.
    pub destroy: Vec<String>,
    /// The two that sign, or why none does.
    pub chain: Result<ChainNames, Blocked>,
    pub rotation: Option<RotationStatus>,
    /// What the condition Rotating says, while anything is to be said.
    pub news: Option<(Reason, String)>,
    /// When time alone can change the plan.
    pub next_check: Option<Timestamp>,
}

/// A CA to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct SlotOrder {
    pub kind: SlotKind,
    pub number: u32,
    /// The Secret's name.
    pub name: String,
    pub life: Lifetime,
    /// The root that is to sign it; None for a root.
    pub parent: Option<String>,
}

/// The Secrets of the CAs that sign.
#[derive(Clone, Debug, PartialEq)]
pub struct ChainNames {
    pub root: String,
    pub issuing: String,
    /// The earlier end of the two.
    pub not_after: Timestamp,
}

/// Why no CA signs.
#[derive(Clone, Debug, PartialEq)]
pub struct Blocked {
    pub reason: Reason,
    pub message: String,
}

impl SlotOrder {
    /// The name of a CA's Secret, which holds its number.
    pub fn name_of(domain: &str, kind: SlotKind, number: u32) -> String {
        format!("{}{number}", name_prefix(domain, kind))
    }

    /// The number in the name of a CA's Secret.
    pub fn number_of(domain: &str, kind: SlotKind, name: &str) -> Option<u32> {
        name.strip_prefix(&name_prefix(domain, kind))?.parse().ok().filter(|number| *number > 0)
    }
}

fn name_prefix(domain: &str, kind: SlotKind) -> String {
    let kind = match kind {
        SlotKind::Root => "root",
        SlotKind::Issuing => "issuing",
    };
    format!("countersign-ca-{domain}-{kind}-")
}

/// What every target must hold before a CA of this kind takes over, for people.
pub fn awaited(kind: SlotKind) -> &'static str {
    match kind {
        SlotKind::Root => "the new bundle",
        SlotKind::Issuing => "the new CA's CRL",
    }
}

/// The certificates to trust: every root that is recorded, in whatever phase, the oldest first.
/// One that an authority offered twice is there once.
pub fn bundle_of(slots: &[SlotStatus]) -> String {
    let mut roots: Vec<&SlotStatus> =
        slots.iter().filter(|slot| slot.kind == SlotKind::Root).collect();
    roots.sort_by_key(|slot| slot.number);
    let mut certificates: Vec<&str> = Vec::new();
    for certificate in roots.iter().filter_map(|slot| slot.certificate.as_deref()) {
        if !certificates.contains(&certificate) {
            certificates.push(certificate);
        }
    }
    certificates.concat()
}
