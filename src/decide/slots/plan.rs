//! One step of the life of a trust domain's CAs, as a pure function.

use jiff::{SignedDuration, Timestamp};

use super::{Blocked, FoundCa, Reach, SlotOrder, SlotPlan, SlotSecret, SlotSituation, Supply};
use crate::api::conditions::Reason;
use crate::api::{RotationStatus, SlotKind, SlotPhase, SlotStatus};
use crate::decide::schedule::{BACKDATE, saturating_add, saturating_sub, whole_seconds};

/// How long a rotation waits for targets that cannot be reached before it asks for a person.
pub const REACH_DEADLINE: SignedDuration = SignedDuration::from_hours(1);

/// How many unreached targets a status names.
const NAMED: usize = 10;

/// What to do about a trust domain's CAs now.
pub fn decide(situation: &SlotSituation<'_>) -> SlotPlan {
    let mut work = Work::take_up(situation);
    work.keep_one_active(SlotKind::Root);
    work.keep_one_active(SlotKind::Issuing);
    work.adopt();
    let create = work.missing();
    if create.is_none() {
        work.activate();
    }
    work.drop_distrusted();
    work.drop_retired();
    work.conclude(create)
}

/// The slots while they are worked on, and what was found out on the way.
pub(super) struct Work<'a> {
    pub(super) situation: &'a SlotSituation<'a>,
    pub(super) slots: Vec<SlotStatus>,
    pub(super) now: Timestamp,
    pub(super) rotation: Option<RotationStatus>,
    pub(super) stalled: bool,
}

impl<'a> Work<'a> {
    fn take_up(situation: &'a SlotSituation<'a>) -> Self {
        let mut work = Work {
            situation,
            slots: situation.recorded.to_vec(),
            now: whole_seconds(situation.now),
            rotation: None,
            stalled: false,
        };
        // Of one that has not signed anything, nothing is lost but its key.
        let slots = std::mem::take(&mut work.slots);
        let distrust = &situation.domain.ca.distrust;
        work.slots = slots
            .into_iter()
            .filter(|slot| {
                slot.phase != SlotPhase::Prepared
                    || (!distrust.contains(&slot.key_id)
                        && work.sound(slot).is_ok_and(|found| work.is_still_wanted(slot, found)))
            })
            .collect();
        work
    }

    /// An issuing CA whose root was lost before it signed, or is to be replaced itself, is not
    /// wanted any more.
    fn drop_overtaken(&mut self) {
        let next = self.phase(SlotKind::Root, SlotPhase::Prepared);
        let next = next.or_else(|| self.phase(SlotKind::Root, SlotPhase::Active));
        let next = next.map(|root| root.key_id.clone());
        self.slots.retain(|slot| {
            slot.phase != SlotPhase::Prepared
                || slot.kind == SlotKind::Root
                || slot.signed_by == next
        });
    }

    /// The Secret of a recorded slot, if it still holds what was recorded.
    pub(super) fn sound(&self, slot: &SlotStatus) -> Result<&'a FoundCa, Blocked> {
        let domain = &self.situation.domain.name;
        let secret = self.situation.found.iter().find(|secret| secret.name == slot.name);
        let Some(secret) = secret else {
            return Err(Blocked {
                reason: Reason::CaSecretMissing,
                message: format!(
                    "the CA Secret {} is gone and nothing can be signed: restore it from a backup, or replace the CA with `kubectl countersign rotate-ca {domain}`",
                    slot.name
                ),
            });
        };
        let invalid = |why: &str| Blocked {
            reason: Reason::CaSecretInvalid,
            message: format!(
                "the CA Secret {} does not hold what was put into it ({why}) and nothing is signed: delete it and restore it from a backup, or replace the CA with `kubectl countersign rotate-ca {domain}`",
                slot.name
            ),
        };
        match &secret.content {
            Err(why) => Err(invalid(why)),
            Ok(found) if found.ca.key_id != slot.key_id => Err(invalid(&format!(
                "its key is {}, and {} was recorded",
                found.ca.key_id, slot.key_id
            ))),
            Ok(found) => Ok(found),
        }
    }

    pub(super) fn phase(&self, kind: SlotKind, phase: SlotPhase) -> Option<&SlotStatus> {
        self.slots
            .iter()
            .filter(|slot| slot.kind == kind && slot.phase == phase)
            .max_by_key(|slot| slot.number)
    }

    /// Two Active slots of a kind can only be made by hand: the newer signs.
    fn keep_one_active(&mut self, kind: SlotKind) {
        let Some(newest) = self.phase(kind, SlotPhase::Active).map(|slot| slot.number) else {
            return;
        };
        self.retire(|slot| slot.kind == kind && slot.number < newest);
    }

    /// Takes up what was made and is not recorded, where it is what comes next.
    fn adopt(&mut self) {
        for kind in [SlotKind::Root, SlotKind::Issuing] {
            self.drop_overtaken();
            if self.phase(kind, SlotPhase::Prepared).is_some() {
                continue;
            }
            let newest = self.slots.iter().filter(|slot| slot.kind == kind).map(|s| s.number).max();
            let candidate = self
                .situation
                .found
                .iter()
                .filter(|secret| secret.kind == kind && Some(secret.number) > newest)
                .filter_map(|secret| Some((secret, secret.content.as_ref().ok()?)))
                .filter(|(_, found)| self.fits(kind, found))
                .max_by_key(|(secret, _)| secret.number);
            if let Some((secret, found)) = candidate {
                let slot = self.prepared(secret, found);
                self.slots.push(slot);
            }
        }
    }

    /// True if and only if such a CA is what comes next.
    fn fits(&self, kind: SlotKind, found: &FoundCa) -> bool {
        if self.situation.domain.ca.distrust.contains(&found.ca.key_id)
            || !self.is_supplied(kind, found)
        {
            return false;
        }
        match kind {
            SlotKind::Root => self.wants_root() && found.signed_by == Some(found.ca.key_id.clone()),
            SlotKind::Issuing => {
                let parent = self.parent_of_next_issuing();
                parent.is_some_and(|root| found.signed_by.as_ref() == Some(&root.key_id))
            }
        }
    }

    fn prepared(&self, secret: &SlotSecret, found: &FoundCa) -> SlotStatus {
        let is_root = secret.kind == SlotKind::Root;
        SlotStatus {
            name: secret.name.clone(),
            number: secret.number,
            kind: secret.kind,
            phase: SlotPhase::Prepared,
            key_id: found.ca.key_id.clone(),
            not_after: found.ca.not_after.into(),
            since: self.now.into(),
            signed_by: if is_root { None } else { found.signed_by.clone() },
            certificate: is_root.then(|| found.certificate_pem.clone()),
            longest_life: None,
            trusted_until: None,
        }
    }

    /// Whether a root is wanted besides the one that is Active.
    fn wants_root(&self) -> bool {
        let ca = &self.situation.domain.ca;
        self.is_due(SlotKind::Root, ca.at_least.root, ca.root_life.as_duration())
    }

    fn wants_issuing(&self) -> bool {
        let ca = &self.situation.domain.ca;
        self.is_due(SlotKind::Issuing, ca.at_least.issuing, ca.issuing_life.as_duration())
    }

    /// There is none, a newer one is asked for, it is distrusted, or its time has come.
    fn is_due(&self, kind: SlotKind, at_least: Option<u32>, life: SignedDuration) -> bool {
        let Some(active) = self.phase(kind, SlotPhase::Active) else { return true };
        at_least.is_some_and(|least| least > active.number)
            || self.is_distrusted(active)
            || self.is_outdated(active, life)
    }

    /// The life that a CA was made with; where its Secret cannot tell, the one it would get now.
    pub(super) fn life_of(&self, slot: &SlotStatus, otherwise: SignedDuration) -> SignedDuration {
        self.sound(slot)
            .map_or(otherwise, |found| found.ca.not_after.duration_since(found.ca.not_before))
    }

    /// A root is distrusted with every issuing CA under it, and an issuing CA with its root: what
    /// either signed chains to the root, which is all that peers look at.
    fn is_distrusted(&self, slot: &SlotStatus) -> bool {
        let distrust = &self.situation.domain.ca.distrust;
        let root = slot.signed_by.as_ref().unwrap_or(&slot.key_id);
        distrust.contains(root)
            || self.slots.iter().any(|other| {
                other.signed_by.as_ref() == Some(root) && distrust.contains(&other.key_id)
            })
    }

    /// The root that the next issuing CA is to be under: the Prepared one, else the Active one
    /// if its issuing CA is due.
    fn parent_of_next_issuing(&self) -> Option<&SlotStatus> {
        self.phase(SlotKind::Root, SlotPhase::Prepared).or_else(|| {
            self.phase(SlotKind::Root, SlotPhase::Active).filter(|_| self.wants_issuing())
        })
    }

    /// The next CA that has to be made.
    fn missing(&self) -> Option<SlotOrder> {
        let domain = self.situation.domain;
        if *self.situation.supply == Supply::Missing {
            return None;
        }
        if self.wants_root() && self.phase(SlotKind::Root, SlotPhase::Prepared).is_none() {
            return Some(self.order(SlotKind::Root, domain.ca.root_life, None));
        }
        let parent = self.parent_of_next_issuing()?;
        let prepared = self.phase(SlotKind::Issuing, SlotPhase::Prepared);
        if prepared.is_some_and(|issuing| issuing.signed_by.as_ref() == Some(&parent.key_id)) {
            return None;
        }
        // Without the root's key there is no signature: the status says what is missing.
        self.sound(parent).ok()?;
        let life = domain.ca.issuing_life;
        Some(self.order(SlotKind::Issuing, life, Some(parent.name.clone())))
    }

    fn order(
        &self,
        kind: SlotKind,
        life: crate::identity::Lifetime,
        parent: Option<String>,
    ) -> SlotOrder {
        let recorded = self.situation.recorded.iter().filter(|slot| slot.kind == kind);
        let found = self.situation.found.iter().filter(|secret| secret.kind == kind);
        let newest = recorded.map(|s| s.number).chain(found.map(|s| s.number)).max();
        let number = newest.unwrap_or_default() + 1;
        let name = SlotOrder::name_of(&self.situation.domain.name, kind, number);
        SlotOrder { kind, number, name, life, parent }
    }

    /// Lets what is Prepared sign, where nobody can be hurt by it.
    fn activate(&mut self) {
        let root = self.phase(SlotKind::Root, SlotPhase::Prepared).cloned();
        let issuing = self.phase(SlotKind::Issuing, SlotPhase::Prepared).cloned();
        let Some(issuing) = issuing else { return };
        match root {
            Some(root) if issuing.signed_by.as_ref() != Some(&root.key_id) => {}
            Some(root) if self.may_activate(&root, &issuing) => {
                self.rotation = None;
                self.retire(|_| true);
                self.start(&[&root.name, &issuing.name]);
            }
            None if self.may_activate(&issuing, &issuing) => {
                self.rotation = None;
                self.retire(|slot| slot.kind == SlotKind::Issuing);
                self.start(&[&issuing.name]);
            }
            _ => {}
        }
    }

    /// Whether a root, or an issuing CA under a root that signs already, may take over. Notes on
    /// the way how far its bundle has come, and the CRL of `issuing`, which is to sign.
    fn may_activate(&mut self, next: &SlotStatus, issuing: &SlotStatus) -> bool {
        // Signs only what is recorded and published: what was adopted just now is neither.
        let is_recorded = self.situation.recorded.iter().any(|slot| slot.name == issuing.name);
        let Some(reach) = self.situation.reach.filter(|_| is_recorded) else { return false };
        let Some(active) = self.phase(next.kind, SlotPhase::Active).cloned() else {
            // The first of all: there is nobody yet who could be left behind.
            return true;
        };
        // While an issuing CA is lost nothing is signed, which hurts more than a CRL that is late.
        let is_lost = next.kind == SlotKind::Issuing && self.sound(&active).is_err();
        if is_lost || self.is_distrusted(&active) {
            return true;
        }
        let (now, soak) = (self.now, self.situation.domain.ca.soak.as_duration());
        let proceeds_at = self.last_moment(&active);
        let before = self.situation.rotation.and_then(|rotation| rotation.reached_since.clone());
        // The root may have soaked while its issuing CA was lost, and another took its place; and
        // what was published may not have come into volumes while the API server was away.
        let earliest = Some(issuing.since.0).max(self.situation.contact_since);
        let before = before.filter(|time| Some(time.0) >= earliest);
        let complete = reach.unreached.is_empty();
        // A status keeps whole seconds; rounded down, the soak would begin before it did.
        let begun = match self.situation.now > now {
            true => saturating_add(now, SignedDuration::from_secs(1)),
            false => now,
        };
        let reached_since = before.map(|time| time.0).or(complete.then_some(begun));
        let waited_enough = now >= saturating_add(next.since.0, REACH_DEADLINE);
        let proceed = self.situation.domain.ca.proceed_unreached && waited_enough;
        let soaked = reached_since.is_some_and(|since| now >= saturating_add(since, soak));
        self.stalled = !complete && waited_enough && !proceed;
        self.rotation = Some(progress(reach, reached_since, soak, proceeds_at));
        (complete && soaked) || proceed || now >= proceeds_at
    }

    /// When a rotation goes on whatever is unreached: when the old root, or the issuing CA under
    /// it, is so near its end that it would begin to cut leaves short.
    fn last_moment(&self, active: &SlotStatus) -> Timestamp {
        let leaf = self.situation.domain.rules.maximum_life.as_duration();
        let ca = &self.situation.domain.ca;
        let last = |slot: &SlotStatus, life: SignedDuration| {
            // A CA that lives hardly longer than its leaves still leaves half of its last third.
            saturating_sub(slot.not_after.0, leaf.min(third(self.life_of(slot, life)) / 2))
        };
        let root = last(active, ca.root_life.as_duration());
        let issuing = self.phase(SlotKind::Issuing, SlotPhase::Active);
        issuing.map_or(root, |issuing| root.min(last(issuing, ca.issuing_life.as_duration())))
    }

    fn start(&mut self, names: &[&str]) {
        let longest = self.situation.domain.rules.maximum_life.seconds();
        let now = self.now;
        for slot in self.slots.iter_mut().filter(|slot| names.contains(&slot.name.as_str())) {
            slot.phase = SlotPhase::Active;
            slot.since = now.into();
            slot.longest_life = Some(longest);
        }
    }

    /// Ends the signing of Active slots. They are trusted until the last leaf that they can have
    /// signed has ended.
    fn retire(&mut self, which: impl Fn(&SlotStatus) -> bool) {
        let now = self.now;
        let maximum = self.situation.domain.rules.maximum_life.seconds();
        for slot in &mut self.slots {
            if slot.phase != SlotPhase::Active || !which(slot) {
                continue;
            }
            let longest = slot.longest_life.unwrap_or_default().max(maximum);
            // A peer's clock may be as far behind as a leaf is backdated.
            let last = SignedDuration::from_secs(i64::try_from(longest).unwrap_or(i64::MAX));
            let until = saturating_add(saturating_add(now, last), BACKDATE);
            slot.phase = SlotPhase::Retiring;
            slot.since = now.into();
            slot.trusted_until = Some(until.min(slot.not_after.0).into());
        }
    }

    /// What is distrusted goes as soon as something else signs, and takes what it signed along.
    fn drop_distrusted(&mut self) {
        let goes: Vec<String> = self
            .slots
            .iter()
            .filter(|slot| slot.phase == SlotPhase::Retiring && self.is_distrusted(slot))
            .map(|slot| slot.name.clone())
            .collect();
        // An issuing CA whose root still signs cannot be distrusted by leaving it out of a bundle.
        let active = self.phase(SlotKind::Root, SlotPhase::Active).map(|root| root.key_id.clone());
        self.slots.retain(|slot| !goes.contains(&slot.name) || slot.signed_by == active);
    }

    fn drop_retired(&mut self) {
        let over = |slot: &SlotStatus, now| {
            slot.phase == SlotPhase::Retiring
                && slot.trusted_until.as_ref().is_none_or(|until| until.0 <= now)
        };
        let now = self.now;
        self.slots.retain(|slot| slot.kind == SlotKind::Root || !over(slot, now));
        // A root stays as long as an issuing CA under it is recorded. One key may stand in two
        // roots, if an authority had it certified anew: the newer is enough.
        let mut parents: Vec<(String, u32)> = Vec::new();
        for key_id in self.slots.iter().filter_map(|slot| slot.signed_by.clone()) {
            let of_key = self.slots.iter().filter(|slot| slot.key_id == key_id);
            let newest = of_key.map(|slot| slot.number).max();
            parents.extend(newest.map(|number| (key_id, number)));
        }
        self.slots.retain(|slot| {
            !over(slot, now) || parents.contains(&(slot.key_id.clone(), slot.number))
        });
    }
}

fn progress(
    reach: &Reach,
    reached_since: Option<Timestamp>,
    soak: SignedDuration,
    proceeds_at: Timestamp,
) -> RotationStatus {
    let missing = u32::try_from(reach.unreached.len()).unwrap_or(u32::MAX);
    RotationStatus {
        targets: reach.targets,
        reached: reach.targets.saturating_sub(missing),
        unreached: reach.unreached.iter().take(NAMED).cloned().collect(),
        reached_since: reached_since.map(Into::into),
        activates_at: reached_since.map(|since| saturating_add(since, soak).into()),
        proceeds_at: Some(proceeds_at.into()),
    }
}

pub(super) fn third(life: SignedDuration) -> SignedDuration {
    SignedDuration::from_secs(life.as_secs() / 3)
}
