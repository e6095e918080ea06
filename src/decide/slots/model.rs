//! The whole rotation as a model: an operator that crashes between any two writes, targets that
//! cannot be reached for a while, agents that load what they are given late; and rule 3 checked
//! for every pair of agents at every moment of thousands of histories.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::json;

use super::offers::{made, offered, secret_authority};
use super::tests::{domain, now};
use super::*;
use crate::api::SlotPhase;

const AGENTS: usize = 4;
/// How late an agent may load what stands in its Secret: just under the soak.
const LAG: SignedDuration = SignedDuration::from_mins(9);
/// The steps in which a long time passes, in minutes: shorter than what is left of a leaf's life
/// when it is due.
const STEP: i64 = 15;
const LEAF: SignedDuration = SignedDuration::from_mins(60);

#[derive(Clone, Debug)]
enum Op {
    /// Time passes, in minutes.
    Pass(i64),
    /// The operator takes a turn, and dies after this many writes.
    Turn(usize),
    /// An agent loads what stands in its Secret now.
    Load(usize),
    /// An agent's Secret can or cannot be written.
    Reachable(usize, bool),
    /// Somebody asks for another root, or another issuing CA.
    Rotate(SlotKind),
    /// A CA Secret that signs nothing yet, or nothing any more, is deleted by hand.
    Lose(usize),
    /// An authority with CAs of its own puts another in the place of one.
    Offer(SlotKind),
    /// It can or cannot be asked.
    Withhold(bool),
    /// The CAs come from such an authority, or the operator makes them.
    Kind(bool),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (1i64..20).prop_map(Op::Pass),
        1 => (100i64..1500).prop_map(Op::Pass),
        12 => prop_oneof![Just(usize::MAX), 0usize..12].prop_map(Op::Turn),
        4 => (0..AGENTS).prop_map(Op::Load),
        2 => (0..AGENTS, any::<bool>()).prop_map(|(agent, up)| Op::Reachable(agent, up)),
        1 => prop_oneof![Just(SlotKind::Root), Just(SlotKind::Issuing)].prop_map(Op::Rotate),
        1 => (0usize..8).prop_map(Op::Lose),
    ]
}

/// The same, with an authority that has CAs of its own.
fn op_with_offers() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => op(),
        1 => prop_oneof![Just(SlotKind::Root), Just(SlotKind::Issuing)].prop_map(Op::Offer),
        1 => any::<bool>().prop_map(Op::Withhold),
        1 => any::<bool>().prop_map(Op::Kind),
    ]
}

/// What an agent can hold, and what its Secret holds.
#[derive(Clone, Debug, Default, PartialEq)]
struct Held {
    /// The root that the leaf chains to, the issuing CA, and its end.
    leaf: Option<(String, String, Timestamp)>,
    bundle: BTreeSet<String>,
}

#[derive(Debug)]
struct Agent {
    /// Every version of the Secret from the one that the agent has loaded, with when it appeared.
    versions: Vec<(Timestamp, Held)>,
    reachable: bool,
}

struct World {
    now: Timestamp,
    at_least: (u32, u32),
    found: Vec<SlotSecret>,
    recorded: Vec<SlotStatus>,
    rotation: Option<RotationStatus>,
    /// The bundle in the ConfigMaps.
    published: BTreeSet<String>,
    /// The CAs whose CRLs stand there: every version that a volume can still show, with when it
    /// appeared.
    crls: Vec<(Timestamp, BTreeSet<String>)>,
    agents: Vec<Agent>,
    /// What signs in the operator's memory: (root, issuing, end). Gone after a crash.
    authority: Option<(String, String, Timestamp)>,
    /// The root and the issuing CA that an authority offers, by numbers of its own.
    offer: (u32, u32),
    is_offered: bool,
    is_withheld: bool,
    checks: usize,
}

/// The writes that the operator may still do before it dies.
struct Budget(usize);

impl Budget {
    fn spend(&mut self) -> Option<()> {
        self.0 = self.0.checked_sub(1)?;
        Some(())
    }
}

impl World {
    fn new() -> Self {
        let agent = || Agent { versions: vec![(now(), Held::default())], reachable: true };
        World {
            now: now(),
            at_least: (1, 1),
            found: Vec::new(),
            recorded: Vec::new(),
            rotation: None,
            published: BTreeSet::new(),
            crls: Vec::new(),
            agents: (0..AGENTS).map(|_| agent()).collect(),
            authority: None,
            offer: (1, 1),
            is_offered: false,
            is_withheld: false,
            checks: 0,
        }
    }

    fn supply(&self) -> Supply {
        match (self.is_offered, self.is_withheld) {
            (false, _) => Supply::Made,
            (true, false) => offered(self.offer.0, self.offer.1),
            (true, true) => Supply::Missing,
        }
    }

    fn domain(&self) -> Domain {
        let at_least = json!({"root": self.at_least.0, "issuing": self.at_least.1});
        let mut domain = domain(json!({"atLeast": at_least}));
        if self.is_offered {
            domain.authority = secret_authority();
        }
        domain
    }

    /// The operator's turn, write by write as the controller does them. None where it died.
    fn turn(&mut self, budget: &mut Budget) -> Option<()> {
        let domain = self.domain();
        let bundle = roots(&self.recorded);
        let crls: BTreeSet<String> = self.recorded.iter().map(|slot| slot.key_id.clone()).collect();
        let newest = self.crls.last().map(|(_, crls)| crls);
        if !self.recorded.is_empty() && (self.published != bundle || newest != Some(&crls)) {
            budget.spend()?;
            self.published = bundle.clone();
            // No pod starts before it has a certificate.
            if self.agents.iter().all(|agent| agent.latest().leaf.is_none()) {
                self.crls.clear();
            }
            self.crls.push((self.now, crls));
        }
        let unreached: BTreeSet<String> = self
            .agents
            .iter()
            .enumerate()
            .filter(|(_, agent)| agent.latest().leaf.is_some() && agent.latest().bundle != bundle)
            .map(|(number, _)| format!("Secret {number}"))
            .collect();
        let reach = Reach { targets: AGENTS as u32, unreached };
        let supply = self.supply();
        let plan = loop {
            let plan = decide(&SlotSituation {
                domain: &domain,
                supply: &supply,
                found: &self.found,
                recorded: &self.recorded,
                rotation: self.rotation.as_ref(),
                reach: (!self.recorded.is_empty()).then_some(&reach),
                contact_since: None,
                now: self.now,
            });
            let Some(order) = plan.create else { break plan };
            let most = 12 + 3 * (self.offer.0 + self.offer.1) as usize;
            assert!(self.found.len() < most, "CAs are made without end: {:#?}", self.recorded);
            budget.spend()?;
            let number_of = |name: &String| SlotOrder::number_of("prod", SlotKind::Root, name);
            let parent = order.parent.as_ref().and_then(number_of);
            let mut made = made(&supply, &order, self.now);
            if supply == Supply::Made {
                self.clamp(&mut made, parent);
            }
            assert!(self.found.iter().all(|found| found.name != made.name), "never overwritten");
            self.found.push(made);
        };
        if plan.slots != self.recorded {
            self.authority = None;
            budget.spend()?;
            self.recorded = plan.slots;
            self.rotation = plan.rotation;
            return Some(());
        }
        self.rotation = plan.rotation;
        self.authority = plan.chain.ok().map(|names| {
            let key = |name: &str| {
                let slot = self.recorded.iter().find(|slot| slot.name == name).unwrap();
                // Rule 2.
                assert_eq!(slot.phase, SlotPhase::Active);
                slot.key_id.clone()
            };
            assert_eq!(self.published, bundle, "what is unpublished does not sign");
            (key(&names.root), key(&names.issuing), names.not_after)
        });
        for name in plan.destroy {
            budget.spend()?;
            self.found.retain(|secret| secret.name != name);
        }
        Some(())
    }

    /// An issuing CA ends with its root.
    fn clamp(&self, made: &mut SlotSecret, parent: Option<u32>) {
        let root = parent.and_then(|number| {
            self.found.iter().find(|f| f.kind == SlotKind::Root && f.number == number)
        });
        if let (Some(Ok(root)), Ok(made)) = (root.map(|root| &root.content), &mut made.content) {
            made.ca.not_after = made.ca.not_after.min(root.ca.not_after);
        }
    }

    /// The identities' turns: certificates that are due, of another CA, or beside an old bundle.
    fn serve(&mut self, budget: &mut Budget) -> Option<()> {
        let Some((root, issuing, end)) = self.authority.clone() else { return Some(()) };
        let bundle = roots(&self.recorded);
        for agent in self.agents.iter_mut().filter(|agent| agent.reachable) {
            let latest = agent.latest().clone();
            let keeps = latest.leaf.as_ref().is_some_and(|(_, by, not_after)| {
                *by == issuing && *not_after > self.now + LEAF / 3
            });
            if keeps && latest.bundle == bundle {
                continue;
            }
            budget.spend()?;
            let not_after = (self.now + LEAF).min(end);
            let leaf = if keeps || not_after < self.now + SignedDuration::from_mins(5) {
                latest.leaf
            } else {
                Some((root.clone(), issuing.clone(), not_after))
            };
            agent.versions.push((self.now, Held { leaf, bundle: bundle.clone() }));
        }
        Some(())
    }

    /// Nobody is later than LAG.
    fn catch_up(&mut self) {
        let now = self.now;
        while self.crls.get(1).is_some_and(|(since, _)| *since + LAG <= now) {
            self.crls.remove(0);
        }
        for agent in &mut self.agents {
            while agent.versions.get(1).is_some_and(|(since, _)| *since + LAG <= now) {
                agent.versions.remove(0);
            }
        }
    }

    /// Rule 3: whoever has a certificate that has not ended is trusted by whoever has a bundle,
    /// whichever of the versions each of the two has loaded; and by whoever reads the ConfigMap.
    fn check(&mut self, op: &Op) {
        let held =
            || self.agents.iter().flat_map(|agent| agent.versions.iter().map(|(_, held)| held));
        let mut checks = 0;
        for (presenter, leaf) in held().filter_map(|held| Some((held, held.leaf.as_ref()?))) {
            if leaf.2 <= self.now {
                continue;
            }
            for verifier in held().map(|held| &held.bundle).filter(|bundle| !bundle.is_empty()) {
                checks += 1;
                assert!(
                    verifier.contains(&leaf.0),
                    "after {op:?} at {}: {presenter:?} is refused by {verifier:?}; {:#?}",
                    self.now,
                    self.recorded,
                );
            }
            assert!(self.published.contains(&leaf.0), "after {op:?}: by the ConfigMap");
            for (_, crls) in &self.crls {
                assert!(
                    crls.contains(&leaf.1),
                    "after {op:?} at {}: {leaf:?} is refused by whoever checks CRLs: {crls:?}",
                    self.now,
                );
            }
        }
        self.checks += checks;
    }

    /// Somebody who is not reached is seen to before the deadline; what happens after it is told in
    /// the tables.
    fn relent(&mut self) {
        let end = self.rotation.as_ref().and_then(|rotation| rotation.proceeds_at.as_ref());
        if end.is_some_and(|end| end.0 <= self.now + SignedDuration::from_mins(90)) {
            self.agents.iter_mut().for_each(|agent| agent.reachable = true);
        }
    }

    fn play(&mut self, op: &Op) {
        self.relent();
        match op {
            Op::Pass(minutes) => {
                // A long time passes in steps, which an operator would not sleep through.
                let step = if *minutes > 60 { STEP } else { *minutes };
                for _ in 0..*minutes / step {
                    self.now += SignedDuration::from_mins(step);
                    self.catch_up();
                    self.relent();
                    if *minutes > 60 {
                        let _ =
                            self.turn(&mut Budget(100)).and_then(|()| self.serve(&mut Budget(100)));
                    }
                }
            }
            Op::Turn(writes) => {
                let mut budget = Budget(*writes);
                let survived = self.turn(&mut budget).and_then(|()| self.serve(&mut budget));
                if survived.is_none() {
                    self.authority = None;
                }
            }
            Op::Load(agent) => {
                let versions = &mut self.agents[*agent].versions;
                let latest = versions.len() - 1;
                versions.drain(..latest);
            }
            Op::Reachable(agent, reachable) => self.agents[*agent].reachable = *reachable,
            Op::Rotate(kind) => {
                let newest =
                    |kind| self.recorded.iter().filter(|s| s.kind == kind).map(|s| s.number).max();
                match kind {
                    SlotKind::Root => self.at_least.0 = newest(*kind).unwrap_or_default() + 1,
                    SlotKind::Issuing => self.at_least.1 = newest(*kind).unwrap_or_default() + 1,
                }
            }
            Op::Offer(kind) => match kind {
                SlotKind::Root => self.offer = (self.offer.0 + 1, self.offer.1 + 1),
                SlotKind::Issuing => self.offer.1 += 1,
            },
            Op::Withhold(is_withheld) => self.is_withheld = *is_withheld,
            Op::Kind(is_offered) => self.is_offered = *is_offered,
            Op::Lose(which) => {
                let idle: Vec<String> = self
                    .recorded
                    .iter()
                    .filter(|slot| slot.phase != SlotPhase::Active)
                    .map(|slot| slot.name.clone())
                    .collect();
                if let Some(name) = idle.get(*which) {
                    self.found.retain(|secret| secret.name != *name);
                }
            }
        }
    }
}

impl Agent {
    fn latest(&self) -> &Held {
        &self.versions.last().expect("there is always one").1
    }
}

fn roots(slots: &[SlotStatus]) -> BTreeSet<String> {
    bundle_of(slots).lines().map(str::to_owned).collect()
}

fn cases() -> u32 {
    // 256 is what proptest does where nobody asks for another number.
    let asked = ProptestConfig::default().cases;
    if asked == 256 { HISTORIES } else { asked }
}

/// Histories of up to 150 steps: some ten million pairs of agents. PROPTEST_CASES, which proptest
/// itself reads, sets another number.
const HISTORIES: u32 = 2000;

fn judge(ops: &[Op]) {
    let mut world = World::new();
    for op in ops {
        world.play(op);
        world.check(op);
        let mut active = BTreeMap::<&str, usize>::new();
        for slot in world.recorded.iter().filter(|slot| slot.phase == SlotPhase::Active) {
            *active
                .entry(if slot.kind == SlotKind::Root { "root" } else { "issuing" })
                .or_default() += 1;
        }
        assert!(active.values().all(|count| *count == 1), "{active:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn any_two_agents_verify_each_other_at_every_moment(ops in proptest::collection::vec(op(), 20..150)) {
        judge(&ops);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases() / 4, ..ProptestConfig::default() })]

    #[test]
    fn and_so_they_do_where_an_authority_has_cas_of_its_own(ops in proptest::collection::vec(op_with_offers(), 20..150)) {
        judge(&ops);
    }
}
