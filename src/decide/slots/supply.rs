//! What an authority has to give, and whether a CA is what it gives.

use std::collections::BTreeSet;

use jiff::SignedDuration;

use super::FoundCa;
use super::plan::{Work, third};
use crate::api::{SlotKind, SlotStatus};
use crate::decide::schedule::saturating_sub;
use crate::x509::Sha256;

/// What an authority has to give now.
#[derive(Clone, Debug, PartialEq)]
pub enum Supply {
    /// Whatever is ordered: root CAs, and issuing CAs under them.
    Made,
    /// CAs of its own.
    Offered(Offer),
    /// CAs of its own, none of which can be had now. What there is goes on.
    Missing,
}

/// The CAs that an authority has now.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    pub root: OfferedRoot,
    /// None where the authority makes issuing CAs under its root when they are ordered.
    pub issuing: Option<OfferedIssuing>,
}

/// The root that peers are to trust.
#[derive(Clone, Debug, PartialEq)]
pub struct OfferedRoot {
    pub key_id: String,
    pub certificate_pem: String,
}

/// The CA that is to sign leaves.
#[derive(Clone, Debug, PartialEq)]
pub struct OfferedIssuing {
    pub key_id: String,
    /// Of its certificate and the intermediates above it: [`Sha256::of_chain`].
    pub fingerprint: Sha256,
}

impl Offer {
    /// The key id of the first CA that is not to be trusted, if there is one.
    pub fn distrusted(&self, distrust: &BTreeSet<String>) -> Option<&str> {
        let issuing = self.issuing.as_ref().map(|issuing| &issuing.key_id);
        let mut keys = [&self.root.key_id].into_iter().chain(issuing);
        keys.find(|key_id| distrust.contains(*key_id)).map(String::as_str)
    }
}

impl Work<'_> {
    /// True if and only if this is a CA that the authority has to give now.
    pub(super) fn is_supplied(&self, kind: SlotKind, found: &FoundCa) -> bool {
        if found.origin != self.situation.domain.authority.kind() {
            return false;
        }
        match self.situation.supply {
            Supply::Made => true,
            Supply::Missing => false,
            Supply::Offered(offer) => match kind {
                SlotKind::Root => found.certificate_pem == offer.root.certificate_pem,
                SlotKind::Issuing => offer
                    .issuing
                    .as_ref()
                    .is_none_or(|issuing| issuing.fingerprint == found.ca.fingerprint),
            },
        }
    }

    /// True if and only if a Prepared CA is still what comes next: the authority has not put
    /// another in its place meanwhile. One that cannot be asked has not.
    pub(super) fn is_still_wanted(&self, slot: &SlotStatus, found: &FoundCa) -> bool {
        *self.situation.supply == Supply::Missing || self.is_supplied(slot.kind, found)
    }

    /// True if and only if the authority is to give another CA in place of an Active one: a third
    /// of its life is left, or what the authority offers is another.
    pub(super) fn is_outdated(&self, active: &SlotStatus, life: SignedDuration) -> bool {
        let found = self.sound(active).ok();
        let is_near_its_end =
            || self.now >= saturating_sub(active.not_after.0, third(self.life_of(active, life)));
        let is_of_another_kind =
            || found.is_some_and(|found| found.origin != self.situation.domain.authority.kind());
        match (self.situation.supply, active.kind) {
            (Supply::Missing, _) => false,
            (Supply::Made, _) => is_of_another_kind() || is_near_its_end(),
            (Supply::Offered(offer), SlotKind::Root) => {
                active.certificate.as_ref() != Some(&offer.root.certificate_pem)
            }
            (Supply::Offered(offer), SlotKind::Issuing) => match &offer.issuing {
                None => is_of_another_kind() || is_near_its_end(),
                Some(issuing) => {
                    found.is_none_or(|found| found.ca.fingerprint != issuing.fingerprint)
                }
            },
        }
    }
}
