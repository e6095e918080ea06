//! Every decision about CAs, as rows that are sentences.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::*;
use crate::api::{SlotPhase, TrustDomain};
use crate::x509::Sha256;

pub fn now() -> Timestamp {
    "2026-11-24T12:00:00Z".parse().unwrap()
}

pub fn hours(hours: i64) -> SignedDuration {
    SignedDuration::from_hours(hours)
}

/// CAs of 30 and 15 days, leaves of an hour, a soak of ten minutes.
pub fn domain(ca: Value) -> Domain {
    let mut all = json!({"rootLifetime": "720h", "issuingLifetime": "360h"});
    for (key, value) in ca.as_object().unwrap() {
        all[key] = value.clone();
    }
    let resource: TrustDomain = serde_json::from_value(json!({
        "metadata": {"name": "prod", "uid": "t", "creationTimestamp": "2026-11-24T09:00:00Z"},
        "spec": {
            "domain": "prod.example.com", "authority": {"selfSigned": {}}, "ca": all,
            "identities": {"maxDuration": "1h"},
        },
    }))
    .unwrap();
    Domain::parse(&resource).unwrap()
}

/// A CA Secret made at `made`, whose key id tells its kind and number.
pub fn secret(kind: SlotKind, number: u32, parent: Option<u32>, made: Timestamp) -> SlotSecret {
    let key_id = key_id(kind, number);
    let life = if kind == SlotKind::Root { hours(720) } else { hours(360) };
    let signed_by = parent.map_or(key_id.clone(), |root| self::key_id(SlotKind::Root, root));
    let ca = Ca {
        subject: String::new(),
        fingerprint: Sha256::of(key_id.as_bytes()),
        not_before: made,
        not_after: made + life,
        public_key: Sha256::of(key_id.as_bytes()),
        key_id: key_id.clone(),
    };
    let content = FoundCa {
        ca,
        certificate_pem: format!("{key_id}\n"),
        origin: AuthorityKind::SelfSigned,
        signed_by: Some(signed_by),
    };
    SlotSecret {
        name: SlotOrder::name_of("prod", kind, number),
        kind,
        number,
        content: Ok(content),
    }
}

pub fn key_id(kind: SlotKind, number: u32) -> String {
    match kind {
        SlotKind::Root => format!("aa{number:02}"),
        SlotKind::Issuing => format!("bb{number:02}"),
    }
}

fn root(number: u32) -> SlotSecret {
    secret(SlotKind::Root, number, None, now())
}

fn issuing(number: u32, root: u32) -> SlotSecret {
    secret(SlotKind::Issuing, number, Some(root), now())
}

/// Decides again and again until nothing changes but time.
pub struct Story {
    pub domain: Domain,
    pub found: Vec<SlotSecret>,
    pub recorded: Vec<SlotStatus>,
    pub rotation: Option<RotationStatus>,
    pub reach: Reach,
    pub supply: Supply,
    pub contact_since: Option<Timestamp>,
    pub now: Timestamp,
}

impl Story {
    pub fn new(ca: Value, found: &[SlotSecret]) -> Self {
        let found = found.to_vec();
        let domain = domain(ca);
        Story {
            domain,
            found,
            recorded: Vec::new(),
            rotation: None,
            reach: Reach { targets: 3, unreached: BTreeSet::new() },
            supply: Supply::Made,
            contact_since: None,
            now: now(),
        }
    }

    pub fn settled(ca: Value) -> Self {
        let mut story = Story::new(json!({}), &[root(1), issuing(1, 1)]);
        story.turn();
        story.turn();
        story.domain = domain(ca);
        story
    }

    pub fn decide(&self) -> SlotPlan {
        decide(&SlotSituation {
            domain: &self.domain,
            supply: &self.supply,
            found: &self.found,
            recorded: &self.recorded,
            rotation: self.rotation.as_ref(),
            reach: (!self.recorded.is_empty()).then_some(&self.reach),
            contact_since: self.contact_since,
            now: self.now,
        })
    }

    pub fn turn(&mut self) -> SlotPlan {
        let mut plan = self.decide();
        while let Some(order) = plan.create {
            self.found.push(super::offers::made(&self.supply, &order, self.now));
            plan = self.decide();
        }
        self.recorded = plan.slots.clone();
        self.rotation = plan.rotation.clone();
        self.found.retain(|secret| !plan.destroy.contains(&secret.name));
        plan
    }

    /// What stands where, such as "root-1 Active".
    pub fn phases(&self) -> Vec<String> {
        let name =
            |slot: &SlotStatus| slot.name.trim_start_matches("countersign-ca-prod-").to_owned();
        self.recorded.iter().map(|slot| format!("{} {:?}", name(slot), slot.phase)).collect()
    }
}

fn reason(plan: &SlotPlan) -> Reason {
    plan.chain.as_ref().unwrap_err().reason
}

#[test]
fn a_new_trust_domain_gets_a_root_and_an_issuing_ca_that_sign_once_they_are_published() {
    let mut story = Story::new(json!({}), &[]);
    let first = story.decide().create.unwrap();
    assert_eq!((first.kind, first.number, first.parent), (SlotKind::Root, 1, None));
    let plan = story.turn();
    assert_eq!(story.phases(), ["root-1 Prepared", "issuing-1 Prepared"]);
    assert_eq!(reason(&plan), Reason::Preparing, "nobody holds the bundle yet");
    let plan = story.turn();
    assert_eq!(story.phases(), ["root-1 Active", "issuing-1 Active"]);
    assert_eq!(plan.chain.unwrap().not_after, now() + hours(360));
    let again = story.turn();
    assert_eq!((again.create, again.news, again.destroy), (None, None, vec![]));
}

#[test]
fn a_ca_that_was_recorded_is_never_silently_replaced() {
    let unreadable = SlotSecret { content: Err("truncated".to_owned()), ..issuing(1, 1) };
    let other = SlotSecret { name: issuing(1, 1).name, number: 1, ..issuing(9, 1) };
    let stranger =
        SlotSecret { name: issuing(1, 1).name, ..secret(SlotKind::Issuing, 1, Some(7), now()) };
    for (sentence, found, expected) in [
        ("both gone", vec![], Reason::CaSecretMissing),
        ("the root gone", vec![issuing(1, 1)], Reason::CaSecretMissing),
        ("the issuing CA gone", vec![root(1)], Reason::CaSecretMissing),
        ("another key in its place", vec![root(1), other], Reason::CaSecretInvalid),
        ("truncated", vec![root(1), unreadable], Reason::CaSecretInvalid),
        ("signed by a stranger", vec![root(1), stranger], Reason::CaSecretInvalid),
    ] {
        let mut story = Story::settled(json!({}));
        let before = story.recorded.clone();
        story.found = found;
        let plan = story.turn();
        assert_eq!(plan.create, None, "{sentence}");
        assert_eq!(reason(&plan), expected, "{sentence}");
        assert_eq!(plan.slots, before, "{sentence}: the record stays");
        // A person who asks for another CA gets one, and the old one stays trusted meanwhile.
        story.domain = domain(json!({"atLeast": {"root": 2}}));
        story.turn();
        story.turn();
        story.now += SignedDuration::from_mins(10);
        let healed = story.turn();
        assert!(healed.chain.is_ok(), "{sentence}: {healed:?}");
        assert!(bundle_of(&healed.slots).contains("aa01"), "{sentence}");
    }
}

#[test]
fn a_root_is_replaced_only_after_every_target_and_the_soak() {
    let mut story = Story::settled(json!({"atLeast": {"root": 2}}));
    story.reach.unreached.insert("namespace x".to_owned());
    story.turn();
    let prepared = ["root-1 Active", "root-2 Prepared", "issuing-1 Active", "issuing-2 Prepared"];
    assert_eq!(story.phases(), prepared);
    assert_eq!(bundle_of(&story.recorded), "aa01\naa02\n", "both are trusted from now on");
    let plan = story.turn();
    assert_eq!(plan.news.unwrap().0, Reason::Publishing);
    assert_eq!(plan.rotation.unwrap().unreached, ["namespace x"]);
    assert_eq!(plan.chain.unwrap().root, "countersign-ca-prod-root-1", "the old one signs on");
    story.reach.unreached.clear();
    assert_eq!(story.turn().news.unwrap().0, Reason::Soaking);
    story.now += SignedDuration::from_mins(9);
    story.turn();
    assert_eq!(story.phases(), prepared, "agents are still given time");
    story.now += SignedDuration::from_mins(1);
    let plan = story.turn();
    let active = ["root-1 Retiring", "root-2 Active", "issuing-1 Retiring", "issuing-2 Active"];
    assert_eq!(story.phases(), active);
    assert_eq!(plan.news.unwrap().0, Reason::Retiring);
    assert_eq!(bundle_of(&story.recorded), "aa01\naa02\n");
    story.now += hours(1);
    story.turn();
    assert_eq!(story.phases(), active, "a peer's clock may be two minutes behind");
    story.now += SignedDuration::from_mins(2);
    let plan = story.turn();
    assert_eq!(story.phases(), ["root-2 Active", "issuing-2 Active"]);
    let destroyed = ["countersign-ca-prod-root-1", "countersign-ca-prod-issuing-1"];
    assert_eq!(plan.destroy, destroyed);
    let after = story.turn();
    assert_eq!((after.destroy, after.news, after.create), (vec![], None, None));
}

#[test]
fn an_issuing_ca_alone_is_replaced_under_the_same_root_once_its_crl_is_everywhere() {
    let mut story = Story::settled(json!({"atLeast": {"issuing": 2}}));
    story.reach.unreached.insert("namespace x".to_owned());
    story.turn();
    let prepared = ["root-1 Active", "issuing-1 Active", "issuing-2 Prepared"];
    assert_eq!(story.phases(), prepared);
    let (reason, message) = story.turn().news.unwrap();
    assert_eq!((reason, &*message), (Reason::Publishing, "2 of 3 targets hold the new CA's CRL"));
    story.reach.unreached.clear();
    assert_eq!(story.turn().news.unwrap().0, Reason::Soaking);
    assert_eq!(story.phases(), prepared, "volumes are still given time");
    story.now += SignedDuration::from_mins(10);
    let plan = story.turn();
    assert_eq!(plan.news.unwrap().0, Reason::Retiring);
    assert_eq!(story.phases(), ["root-1 Active", "issuing-1 Retiring", "issuing-2 Active"]);
    assert_eq!(bundle_of(&story.recorded), "aa01\n");
    story.now += hours(2);
    assert_eq!(story.turn().destroy, ["countersign-ca-prod-issuing-1"]);
}

#[test]
fn the_soak_begins_anew_after_a_time_in_which_the_api_server_did_not_answer() {
    let mut story = Story::settled(json!({"atLeast": {"root": 2}}));
    story.turn();
    story.turn();
    story.now += SignedDuration::from_mins(9);
    story.contact_since = Some(story.now);
    story.turn();
    story.now += SignedDuration::from_mins(9);
    assert_eq!(story.turn().news.unwrap().0, Reason::Soaking, "kubelets had no answer either");
    story.now += SignedDuration::from_mins(1);
    assert_eq!(story.turn().news.unwrap().0, Reason::Retiring);
}

#[test]
fn an_issuing_ca_that_is_lost_or_distrusted_is_not_waited_for() {
    let asked = json!({"atLeast": {"issuing": 2}});
    let mut story = Story::settled(asked.clone());
    story.found.retain(|secret| secret.kind == SlotKind::Root);
    story.turn();
    let plan = story.turn();
    assert!(plan.chain.is_ok(), "{plan:?}");
    assert_eq!(story.phases(), ["root-1 Active", "issuing-1 Retiring", "issuing-2 Active"]);

    let mut story = Story::settled(asked);
    story.turn();
    story.domain = domain(json!({"distrust": ["bb01"]}));
    story.turn();
    story.turn();
    let phases = ["root-2 Active", "issuing-3 Active"];
    assert_eq!(story.phases(), phases, "what was Prepared beside it goes with its root");
}

#[test]
fn a_root_that_is_asked_for_overtakes_an_issuing_ca_that_waits() {
    let mut story = Story::settled(json!({"atLeast": {"issuing": 2}}));
    story.turn();
    story.domain = domain(json!({"atLeast": {"root": 2, "issuing": 2}}));
    story.turn();
    story.turn();
    let prepared = ["root-1 Active", "root-2 Prepared", "issuing-1 Active", "issuing-3 Prepared"];
    assert_eq!(story.phases(), prepared);
    story.now += SignedDuration::from_mins(10);
    let plan = story.turn();
    assert_eq!(plan.destroy, ["countersign-ca-prod-issuing-2"]);
}

#[test]
fn cas_are_replaced_when_a_third_of_their_life_is_left() {
    let mut story = Story::settled(json!({}));
    story.now += hours(240) - SignedDuration::from_secs(1);
    story.turn();
    assert_eq!(story.phases(), ["root-1 Active", "issuing-1 Active"]);
    story.now += SignedDuration::from_secs(1);
    story.turn();
    assert_eq!(story.phases(), ["root-1 Active", "issuing-1 Active", "issuing-2 Prepared"]);
    story.turn();
    story.now += SignedDuration::from_mins(10);
    story.turn();
    assert_eq!(story.phases(), ["root-1 Active", "issuing-1 Retiring", "issuing-2 Active"]);
    story.now = now() + hours(480);
    story.turn();
    let phases = story.phases();
    assert!(phases.contains(&"root-2 Prepared".to_owned()), "{phases:?}");
}

#[test]
fn a_target_that_cannot_be_reached_holds_a_rotation_but_not_for_ever() {
    let stuck = |ca: Value| {
        let mut story = Story::settled(ca);
        story.reach.unreached.insert("namespace x".to_owned());
        story.turn();
        story.now += hours(1) - SignedDuration::from_secs(1);
        assert_eq!(story.turn().news.unwrap().0, Reason::Publishing);
        story.now += SignedDuration::from_secs(1);
        story
    };
    let mut story = stuck(json!({"atLeast": {"root": 2}, "whenUnreached": "Proceed"}));
    story.turn();
    assert!(story.phases().contains(&"root-2 Active".to_owned()), "it was told to go on");
    let mut story = stuck(json!({"atLeast": {"root": 2}}));
    let (reason, message) = story.turn().news.unwrap();
    assert_eq!(reason, Reason::Stalled);
    assert!(message.contains("namespace x") && message.contains("whenUnreached"), "{message}");
    // An hour, the longest life of a leaf, before the issuing CA ends.
    story.now = now() + hours(359) - SignedDuration::from_secs(1);
    story.turn();
    assert!(story.phases().contains(&"root-1 Active".to_owned()));
    story.now = now() + hours(359);
    story.turn();
    assert!(story.phases().contains(&"root-2 Active".to_owned()), "before the old one ends");
}

#[test]
fn a_distrusted_ca_goes_at_once_with_all_that_it_signed() {
    for distrusted in ["aa01", "bb01"] {
        let mut story = Story::settled(json!({"distrust": [distrusted]}));
        story.reach.unreached.insert("namespace x".to_owned());
        story.turn();
        assert_eq!(story.recorded.len(), 4, "{distrusted}: the new one is recorded first");
        let plan = story.turn();
        assert_eq!(story.phases(), ["root-2 Active", "issuing-2 Active"], "{distrusted}");
        assert_eq!(bundle_of(&plan.slots), "aa02\n", "{distrusted}");
        assert_eq!(plan.destroy.len(), 2, "{distrusted}: and their keys");
    }
}

#[test]
fn a_prepared_root_that_is_distrusted_is_destroyed_and_another_takes_its_place() {
    let mut story = Story::settled(json!({"atLeast": {"root": 2}}));
    story.turn();
    story.domain = domain(json!({"atLeast": {"root": 2}, "distrust": ["aa02"]}));
    let plan = story.turn();
    assert!(plan.destroy.contains(&"countersign-ca-prod-root-2".to_owned()), "{plan:?}");
    assert!(story.phases().contains(&"root-3 Prepared".to_owned()), "{:?}", story.phases());
    assert_eq!(bundle_of(&story.recorded), "aa01\naa03\n");
}

#[test]
fn a_slot_that_is_lost_is_replaced_while_nothing_hangs_on_it() {
    let mut story = Story::settled(json!({"atLeast": {"root": 2}}));
    story.turn();
    story.found.retain(|secret| secret.number != 2);
    let order = story.decide().create.unwrap();
    assert_eq!((order.kind, order.number), (SlotKind::Root, 3), "a number is never used twice");
    // Retiring: its certificate stands in the status, and its key is not needed any more.
    let mut story = Story::settled(json!({"atLeast": {"root": 2}}));
    story.turn();
    story.turn();
    story.now += SignedDuration::from_mins(10);
    story.turn();
    story.found.retain(|secret| secret.number != 1);
    let plan = story.turn();
    assert_eq!(bundle_of(&plan.slots), "aa01\naa02\n");
    assert!(plan.chain.is_ok());
}

#[test]
fn of_two_that_were_made_active_by_hand_the_newer_signs_and_the_older_stays_trusted() {
    let mut story = Story::settled(json!({}));
    story.found.extend([root(2), issuing(2, 2)]);
    let mut by_hand = story.recorded.clone();
    for slot in &mut by_hand {
        slot.number = 2;
        slot.name = SlotOrder::name_of("prod", slot.kind, 2);
        slot.key_id = key_id(slot.kind, 2);
        slot.signed_by = slot.signed_by.is_some().then(|| key_id(SlotKind::Root, 2));
        slot.certificate = slot.certificate.is_some().then(|| "aa02\n".to_owned());
    }
    story.recorded.extend(by_hand);
    let plan = story.turn();
    assert_eq!(plan.chain.unwrap().root, "countersign-ca-prod-root-2");
    let active = story.recorded.iter().filter(|slot| slot.phase == SlotPhase::Active).count();
    assert_eq!(active, 2);
    assert_eq!(bundle_of(&story.recorded), "aa01\naa02\n");
}

#[test]
fn leaves_that_were_allowed_to_live_longer_are_waited_for() {
    let mut story = Story::settled(json!({}));
    story.recorded.iter_mut().for_each(|slot| slot.longest_life = Some(24 * 3600));
    story.domain = domain(json!({"atLeast": {"issuing": 2}}));
    story.turn();
    story.turn();
    story.now += SignedDuration::from_mins(10);
    story.turn();
    let retiring = story.recorded.iter().find(|slot| slot.phase == SlotPhase::Retiring).unwrap();
    let until = retiring.trusted_until.as_ref().unwrap().0;
    assert_eq!(until, story.now + hours(24) + SignedDuration::from_mins(2));
}

#[test]
fn an_expired_ca_signs_nothing() {
    let mut story = Story::settled(json!({}));
    story.now += hours(361);
    // Its replacement is made in the same turn; without it the old one does not sign.
    let plan = story.decide();
    assert_eq!(reason(&plan), Reason::CaExpired);
}
