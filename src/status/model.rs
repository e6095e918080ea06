//! The ledger as a model: an operator that dies between any two writes, Secrets that are deleted by
//! hand, certificates that end, identities that are revoked and given back; and after each
//! revocation every certificate that an agent can hold is on record.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::api::names::TAKEN_OUT_ANNOTATION;
use crate::api::{AgentIdentity, KeyAlgorithm, RevocationReason};
use crate::decide::ledger::Ledger;
use crate::decide::revocation::{RevocationStep, entries, next_step};
use crate::decide::{
    AuthorityFacts, Content, ContentFacts, Meta, OurSecret, SecretState, Situation, Step, decide,
};
use crate::identity::SpiffeId;
use crate::identity::TrustDomainName;
use crate::x509::Sha256;

#[derive(Clone, Debug)]
enum Op {
    /// Time passes, in minutes.
    Pass(i64),
    /// The operator takes turns, and dies after this many writes.
    Turns(usize),
    DeleteSecret,
    Revoke,
    GiveBack,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (1i64..70).prop_map(Op::Pass),
        8 => prop_oneof![Just(usize::MAX), 0usize..4].prop_map(Op::Turns),
        4 => Just(Op::DeleteSecret),
        1 => Just(Op::Revoke),
        1 => Just(Op::GiveBack),
    ]
}

/// What the API server holds, and what agents have read.
struct World {
    now: Timestamp,
    identity: Identity,
    status: Option<AgentIdentityStatus>,
    secret: SecretState,
    version: u32,
    /// By serial number, when it ends.
    read: BTreeMap<String, Timestamp>,
    record: BTreeSet<String>,
    /// Another program signs, and chooses serial numbers.
    signs_elsewhere: bool,
    /// How many it chose.
    chosen: u32,
}

struct Budget(usize);

impl Budget {
    fn spend(&mut self) -> Option<()> {
        self.0 = self.0.checked_sub(1)?;
        Some(())
    }
}

const LONGEST: SignedDuration = SignedDuration::from_hours(24);

impl World {
    fn new(signs_elsewhere: bool) -> Self {
        let resource: AgentIdentity = serde_json::from_value(json!({
            "metadata": {
                "name": "planner", "namespace": "research", "uid": "u-1", "generation": 1,
                "creationTimestamp": "2026-11-24T10:00:00Z",
            },
            "spec": {"serviceAccountName": "planner"},
        }))
        .unwrap();
        World {
            now: "2026-11-24T12:00:00Z".parse().unwrap(),
            identity: Identity::parse(&resource).unwrap(),
            status: None,
            secret: SecretState::Absent,
            version: 0,
            read: BTreeMap::new(),
            record: BTreeSet::new(),
            signs_elsewhere,
            chosen: 0,
        }
    }

    fn observed(&self) -> Observed {
        let spiffe_id =
            SpiffeId::new(&TrustDomainName::parse("x").unwrap(), "/ns/research/sa/planner");
        let digest = Sha256::of(b"x");
        Observed {
            admission: Admission::Admitted {
                spiffe_id: spiffe_id.unwrap(),
                authority: AuthorityFacts {
                    key_id: "aa".to_owned(),
                    issuer: digest,
                    not_after: self.now + SignedDuration::from_hours(1000),
                    bundle: digest,
                    retiring: Vec::new(),
                    signs_elsewhere: self.signs_elsewhere,
                },
            },
            trust_domain: Some("prod".to_owned()),
            authority: None,
            bundle: None,
            secret: self.secret.clone(),
            former_secret: None,
            pods: PodCounts::default(),
            status: StatusVersion {
                resource_version: String::new(),
                status: self.status.clone().map(Arc::new),
            },
        }
    }

    fn put(&mut self, content: Content) {
        self.version += 1;
        self.secret = SecretState::Ours(Box::new(OurSecret {
            resource_version: self.version.to_string(),
            meta: Meta::default(),
            content,
        }));
    }

    /// One turn, write by write as the controller does them. True where another would follow at
    /// once; None where the operator died.
    fn turn(&mut self, budget: &mut Budget) -> Option<bool> {
        let mut observed = self.observed();
        if let Some(revoked) = &self.identity.revoked.clone() {
            let ledger = Ledger::of(&self.identity.uid, self.status.as_ref());
            let alive = ledger.alive(&self.secret, LONGEST, self.now);
            let serials: BTreeSet<String> = entries(&alive, revoked.reason, self.now)
                .into_iter()
                .map(|entry| entry.key.serial)
                .collect();
            if !serials.is_subset(&self.record) {
                budget.spend()?;
                self.record.extend(serials);
                return Some(true);
            }
            let mut observed = observed;
            if next_step(true, &self.secret) == RevocationStep::TakeOutKey {
                budget.spend()?;
                let taken_out = leaf_of(&self.secret).map(|leaf| leaf.serial.clone());
                self.put(Content::Emptied);
                if let (SecretState::Ours(ours), Some(serial)) = (&mut self.secret, taken_out) {
                    ours.meta.annotations.insert(TAKEN_OUT_ANNOTATION.to_owned(), serial);
                }
                observed.secret = self.secret.clone();
            }
            let status = build_revoked(&self.identity, &observed, revoked, &serials, self.now);
            return self.write(status, budget).map(|()| false);
        }
        let next = Ledger::of(&self.identity.uid, self.status.as_ref()).next().to_string();
        let held = leaf_of(&self.secret).map(|leaf| leaf.serial.clone());
        let revoked: BTreeSet<String> =
            held.into_iter().chain([next]).filter(|s| self.record.contains(s)).collect();
        let plan = decide(&Situation {
            identity: &self.identity,
            admission: &observed.admission,
            secret: &self.secret,
            former_secret: None,
            previous: observed.previous(),
            revoked: &revoked,
            crl_url: None,
            now: self.now,
        });
        let (outcome, again) = match &plan.step {
            Step::Issue(order) => {
                let serial = match self.signs_elsewhere {
                    true => format!("ff{:04x}", self.chosen),
                    false => order.profile.serial.to_string(),
                };
                self.chosen += 1;
                assert!(!self.record.contains(&serial), "{serial} is revoked");
                let leaf = leaf(order, &serial);
                if self.signs_elsewhere {
                    budget.spend()?;
                    let previous = self.status.as_ref();
                    let announced = announce(&self.identity, previous, &leaf, order.reason);
                    observed.status.status = Some(Arc::new(announced.clone()));
                    self.status = Some(announced);
                }
                budget.spend()?;
                self.read.insert(serial, leaf.not_after);
                let digest = Sha256::of(b"x");
                self.put(Content::Read(Box::new(ContentFacts {
                    leaf: leaf.clone(),
                    key_matches: true,
                    issuer: Some(digest),
                    bundle: Some(digest),
                    formats: BTreeSet::new(),
                    strays: BTreeSet::new(),
                })));
                (Outcome::Issued(leaf, order.reason), false)
            }
            Step::Count { skip: true } => (Outcome::Skipped(plan.ready.clone()), true),
            Step::Count { skip: false } => (Outcome::Quiet(plan.ready.clone()), true),
            Step::Nothing | Step::Adjust { .. } => (Outcome::Quiet(plan.ready.clone()), false),
        };
        let status = build(&self.identity, &observed, &outcome, self.now);
        self.write(status, budget).map(|()| again)
    }

    fn write(&mut self, status: AgentIdentityStatus, budget: &mut Budget) -> Option<()> {
        if self.status.as_ref() != Some(&status) {
            budget.spend()?;
            self.status = Some(status);
        }
        Some(())
    }

    /// Turns until there is nothing to do.
    fn turns(&mut self, writes: usize) {
        let mut budget = Budget(writes);
        for _ in 0..20 {
            match self.turn(&mut budget) {
                Some(true) => {}
                Some(false) | None => return,
            }
        }
        panic!("it finds no rest");
    }

    fn play(&mut self, op: &Op) {
        match op {
            Op::Pass(minutes) => self.now += SignedDuration::from_mins(*minutes),
            Op::Turns(writes) => self.turns(*writes),
            Op::DeleteSecret => self.secret = SecretState::Absent,
            Op::Revoke => {
                let reason = RevocationReason::KeyCompromise;
                self.identity.revoked = Some(RevokedSpec { reason, message: None });
            }
            Op::GiveBack => self.identity.revoked = None,
        }
    }

    fn judge_revoked(&self) {
        let alive = self.read.iter().filter(|(_, not_after)| **not_after > self.now);
        for (serial, _) in alive {
            assert!(self.record.contains(serial), "{serial} is forgotten");
        }
        assert_ne!(self.status.as_ref().and_then(|status| status.revoked.as_ref()), None);
        assert!(leaf_of(&self.secret).is_none(), "the key is still there");
    }
}

fn leaf(order: &crate::decide::IssueOrder, serial: &str) -> Leaf {
    let profile = &order.profile;
    Leaf {
        serial: serial.to_owned(),
        fingerprint: Sha256::of(serial.as_bytes()),
        not_before: profile.not_before,
        not_after: profile.not_after,
        authority_key_id: "aa".to_owned(),
        uris: vec![profile.spiffe_id.to_string()],
        dns_names: BTreeSet::new(),
        algorithm: Some(KeyAlgorithm::EcdsaP256),
        public_key: Sha256::of(b"key"),
        defect: None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]
    #[test]
    fn every_certificate_that_an_agent_has_read_is_revoked(
        ops in proptest::collection::vec(op(), 1..40), signs_elsewhere: bool,
    ) {
        let mut world = World::new(signs_elsewhere);
        for op in &ops {
            world.play(op);
        }
        world.play(&Op::Revoke);
        world.turns(usize::MAX);
        world.judge_revoked();
        let status = world.status.clone();
        world.turns(usize::MAX);
        prop_assert_eq!(&world.status, &status, "a restart writes nothing");

        // Given back, it has a certificate that is not revoked.
        world.play(&Op::GiveBack);
        world.turns(usize::MAX);
        let serial = leaf_of(&world.secret).map(|leaf| leaf.serial.clone()).expect("it has one");
        prop_assert!(!world.record.contains(&serial));
        prop_assert!(world.status.as_ref().unwrap().revoked.is_none());
    }

    #[test]
    fn a_flood_of_certificates_is_listed_in_bounded_room_and_none_is_forgotten(
        count in 1usize..200,
    ) {
        let mut world = World::new(false);
        for _ in 0..count {
            world.turns(usize::MAX);
            world.play(&Op::DeleteSecret);
        }
        let former = &world.status.as_ref().unwrap().former;
        prop_assert!(former.len() <= 48, "{}", former.len());
        prop_assert_eq!(world.read.len(), count);
        world.play(&Op::Revoke);
        world.turns(usize::MAX);
        world.judge_revoked();
    }
}
