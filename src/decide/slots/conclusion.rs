//! What comes of a step: who signs, what is destroyed, what is said, and when to look again.

use jiff::{SignedDuration, Timestamp};

use super::plan::{Work, third};
use super::{Blocked, ChainNames, SlotOrder, SlotPlan, SlotSecret, awaited};
use crate::api::conditions::Reason;
use crate::api::{RotationStatus, SlotKind, SlotPhase, SlotStatus};
use crate::decide::schedule::saturating_sub;

impl Work<'_> {
    /// The plan, once every slot is in its phase.
    pub(super) fn conclude(mut self, create: Option<SlotOrder>) -> SlotPlan {
        let maximum = self.situation.domain.rules.maximum_life.seconds();
        for slot in self.slots.iter_mut().filter(|slot| slot.phase == SlotPhase::Active) {
            slot.longest_life = Some(slot.longest_life.unwrap_or_default().max(maximum));
        }
        self.slots.sort_by_key(|slot| (slot.kind == SlotKind::Issuing, slot.number));
        let destroy = self.destroyed();
        SlotPlan {
            chain: self.chain(),
            news: self.news(),
            next_check: self.next_check(),
            rotation: self.rotation,
            destroy,
            create,
            slots: self.slots,
        }
    }

    /// Secrets of CAs that are not recorded any more, and were retired (they are older than what
    /// signs) or are distrusted.
    fn destroyed(&self) -> Vec<String> {
        let active = |kind| self.phase(kind, SlotPhase::Active).map(|slot| slot.number);
        let distrust = &self.situation.domain.ca.distrust;
        let is_distrusted = |secret: &SlotSecret| {
            secret.content.as_ref().is_ok_and(|found| distrust.contains(&found.ca.key_id))
        };
        self.situation
            .found
            .iter()
            .filter(|secret| Some(secret.number) < active(secret.kind) || is_distrusted(secret))
            .filter(|secret| !self.slots.iter().any(|slot| slot.name == secret.name))
            .map(|secret| secret.name.clone())
            .collect()
    }

    fn chain(&self) -> Result<ChainNames, Blocked> {
        let active = |kind| self.phase(kind, SlotPhase::Active);
        let (Some(root), Some(issuing)) = (active(SlotKind::Root), active(SlotKind::Issuing))
        else {
            let message = "the CA is being made".to_owned();
            return Err(Blocked { reason: Reason::Preparing, message });
        };
        self.sound(root)?;
        let found = self.sound(issuing)?;
        if found.signed_by.as_ref() != Some(&root.key_id) {
            return Err(Blocked {
                reason: Reason::CaSecretInvalid,
                message: format!(
                    "the CA in Secret {} was not signed by the root CA and nothing is signed: delete it and restore it from a backup",
                    issuing.name
                ),
            });
        }
        let not_after = root.not_after.0.min(issuing.not_after.0);
        if not_after <= self.now {
            return Err(Blocked {
                reason: Reason::CaExpired,
                message: format!(
                    "the CA expired at {not_after} and nothing is signed until another takes its place"
                ),
            });
        }
        Ok(ChainNames { root: root.name.clone(), issuing: issuing.name.clone(), not_after })
    }

    fn news(&self) -> Option<(Reason, String)> {
        if let Some(rotation) = &self.rotation {
            let kind = match self.phase(SlotKind::Root, SlotPhase::Prepared) {
                Some(_) => SlotKind::Root,
                None => SlotKind::Issuing,
            };
            let it = awaited(kind);
            let RotationStatus { targets, reached, .. } = rotation;
            let by = |time: &Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| {
                time.as_ref().map(|time| time.0.to_string()).unwrap_or_default()
            };
            return Some(if self.stalled {
                let message = format!(
                    "{} of {targets} targets do not hold {it} ({}): agents there would refuse certificates of the new CA; see to them, or set spec.ca.whenUnreached: Proceed; without either the new CA signs from {}, before the old one ends",
                    targets - reached,
                    rotation.unreached.join(", "),
                    by(&rotation.proceeds_at),
                );
                (Reason::Stalled, message)
            } else if rotation.reached_since.is_some() {
                let at = by(&rotation.activates_at);
                let message =
                    format!("all {targets} targets hold {it}; the new CA signs from {at}");
                (Reason::Soaking, message)
            } else {
                (Reason::Publishing, format!("{reached} of {targets} targets hold {it}"))
            });
        }
        let retiring = |kind| self.phase(kind, SlotPhase::Retiring);
        let slot = retiring(SlotKind::Root).or_else(|| retiring(SlotKind::Issuing))?;
        let until = slot.trusted_until.as_ref()?.0;
        Some((Reason::Retiring, format!("the CA {} is trusted until {until}", slot.key_id)))
    }

    fn next_check(&self) -> Option<Timestamp> {
        let due = |kind, life: SignedDuration| {
            let active = self.phase(kind, SlotPhase::Active)?;
            let at = saturating_sub(active.not_after.0, third(self.life_of(active, life)));
            (at > self.now).then_some(at).or(Some(active.not_after.0))
        };
        let ca = &self.situation.domain.ca;
        let until = |slot: &SlotStatus| slot.trusted_until.as_ref().map(|time| time.0);
        let steps = self.rotation.iter().flat_map(|rotation| {
            [&rotation.activates_at, &rotation.proceeds_at].into_iter().flatten().map(|time| time.0)
        });
        self.slots
            .iter()
            .filter_map(until)
            .chain(due(SlotKind::Root, ca.root_life.as_duration()))
            .chain(due(SlotKind::Issuing, ca.issuing_life.as_duration()))
            .chain(steps)
            .filter(|moment| *moment > self.now)
            .min()
    }
}
