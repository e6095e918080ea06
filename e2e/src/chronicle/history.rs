//! What must hold of a chronicle.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use countersign::api::{SlotKind, SlotPhase, SlotStatus, TrustDomainStatus};
use jiff::{SignedDuration, Timestamp};
use rustls_pki_types::CertificateDer;

use super::{Entry, Version};
use crate::delivered::{Leaf, authority_key_id, certificates, leaf_of, verify};

/// How far a leaf is backdated.
const BACKDATE: SignedDuration = SignedDuration::from_secs(120);

/// The versions of a trust domain, in order.
pub struct History {
    trust_domain: String,
    entries: Vec<Entry>,
}

/// What was judged.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Different leaves.
    pub leaves: usize,
    /// Different bundles.
    pub bundles: usize,
    /// Pairs of the two that agents can have held at one moment.
    pub pairs: usize,
}

struct Issued {
    chain: Vec<CertificateDer<'static>>,
    leaf: Leaf,
}

impl History {
    pub(super) fn new(trust_domain: &str, entries: Vec<Entry>) -> Self {
        Self { trust_domain: trust_domain.to_owned(), entries }
    }

    /// The statuses, in order.
    pub fn statuses(&self) -> impl Iterator<Item = (Timestamp, &TrustDomainStatus)> {
        self.entries.iter().filter_map(|entry| match &entry.version {
            Version::Domain(status) => Some((entry.at, &**status)),
            _ => None,
        })
    }

    /// The status now.
    pub fn status(&self) -> Option<&TrustDomainStatus> {
        self.statuses().last().map(|(_, status)| status)
    }

    /// The phases of all CAs since the first of them signed, in the order in which they came to
    /// be so, such as `root-1 Active, issuing-1 Active`.
    pub fn phases(&self) -> Vec<String> {
        let signs = |status: &TrustDomainStatus| {
            slot(status, SlotKind::Issuing, SlotPhase::Active).is_some()
        };
        let statuses = self.statuses().skip_while(|(_, status)| !signs(status));
        let mut all: Vec<String> = statuses.map(|(_, status)| self.phases_of(status)).collect();
        all.dedup();
        all
    }

    /// The phases of all CAs now.
    pub fn phases_now(&self) -> String {
        self.status().map(|status| self.phases_of(status)).unwrap_or_default()
    }

    /// What happened, a line a version, for people.
    pub fn story(&self) -> String {
        let lines = self.entries.iter().map(|entry| {
            let what = match &entry.version {
                Version::Domain(status) => {
                    let reasons = status.conditions.iter().map(|c| c.reason.as_str());
                    let reasons = reasons.collect::<Vec<_>>().join(" ");
                    let sequence = status.bundle.as_ref().map(|bundle| bundle.sequence);
                    let (phases, rotation) = (self.phases_of(status), &status.rotation);
                    let rotation = serde_json::to_string(rotation).unwrap_or_default();
                    let counts = status.identities.map(|counts| (counts.total, counts.ready));
                    format!("{phases}; {reasons}; bundle {sequence:?}; {counts:?}; {rotation}")
                }
                Version::Bundle(place, pem) => format!("{place}: {} roots", count(pem.as_deref())),
                Version::Agent(place, files) => {
                    let bundle = files.as_ref().map(|(_, bundle)| bundle.as_str());
                    let leaf = files.as_ref().map(|(chain, _)| leaf_of(&certificates(chain)[0]));
                    let serial = leaf.map(|leaf| leaf.serial).unwrap_or_default();
                    format!("{place}: {} roots, leaf {serial}", count(bundle))
                }
                Version::Authority(name, there) => {
                    format!("{name} {}", if there.is_some() { "is there" } else { "is gone" })
                }
            };
            format!("{} {} {what}\n", entry.revision, entry.at)
        });
        lines.collect()
    }

    fn phases_of(&self, status: &TrustDomainStatus) -> String {
        let prefix = format!("countersign-ca-{}-", self.trust_domain);
        let slots = status.slots.iter().map(|slot| {
            let name = slot.name.strip_prefix(&prefix).expect("a CA is called after its domain");
            format!("{name} {:?}", slot.phase)
        });
        slots.collect::<Vec<_>>().join(", ")
    }

    /// What agents' Secrets hold now: `tls.crt` and `ca.crt` by place.
    pub fn agents(&self) -> BTreeMap<&str, (&str, &str)> {
        let mut agents = BTreeMap::new();
        for entry in &self.entries {
            match &entry.version {
                Version::Agent(place, Some((chain, bundle))) => {
                    agents.insert(place.as_str(), (chain.as_str(), bundle.as_str()));
                }
                Version::Agent(place, None) => drop(agents.remove(place.as_str())),
                _ => {}
            }
        }
        agents
    }

    /// Every bundle that is held now, in ConfigMaps and in Secrets.
    pub fn bundles(&self) -> BTreeMap<&str, &str> {
        let mut bundles: BTreeMap<&str, &str> =
            self.agents().into_iter().map(|(place, (_, bundle))| (place, bundle)).collect();
        for entry in &self.entries {
            match &entry.version {
                Version::Bundle(place, Some(bundle)) => drop(bundles.insert(place, bundle)),
                Version::Bundle(place, None) => drop(bundles.remove(place.as_str())),
                _ => {}
            }
        }
        bundles
    }

    /// The CA Secrets that are there now.
    pub fn authorities(&self) -> BTreeSet<&str> {
        let mut names = BTreeSet::new();
        for entry in &self.entries {
            match &entry.version {
                Version::Authority(name, Some(_)) => drop(names.insert(name.as_str())),
                Version::Authority(name, None) => drop(names.remove(name.as_str())),
                _ => {}
            }
        }
        names
    }

    /// True if and only if this many agents hold a leaf each, all of the active issuing CA, and
    /// every bundle is that of the status.
    pub fn is_settled(&self, agents: usize) -> Result<(), String> {
        let status = self.status().ok_or("no status")?;
        let active = slot(status, SlotKind::Issuing, SlotPhase::Active).ok_or("nothing signs")?;
        let held = self.agents();
        if held.len() != agents {
            return Err(format!("{} agents of {agents}", held.len()));
        }
        for (place, (chain, _)) in held {
            if authority_key_id(&certificates(chain)[0]) != active.key_id {
                return Err(format!("{place} has a leaf of another CA"));
            }
        }
        let bundle = roots_of(status);
        match self.bundles().into_iter().find(|(_, held)| *held != bundle) {
            Some((place, _)) => Err(format!("{place} holds another bundle")),
            None => Ok(()),
        }
    }

    /// Rules 2 and 3: every leaf was signed by a CA that was Active, and at every moment every
    /// leaf that had not ended, however old, was accepted by every bundle that an agent can have
    /// held: the present one of every place, and those that it held up to `lag` before.
    pub fn judge_trust(&self, lag: SignedDuration) -> Tally {
        let mut judge = TrustJudge { lag, ..TrustJudge::default() };
        let mut at = Timestamp::MIN;
        for entry in &self.entries {
            at = at.max(entry.at);
            judge.take(at, &entry.version);
        }
        Tally {
            leaves: judge.leaves.len(),
            bundles: judge.bundles.len(),
            pairs: judge.judged.len(),
        }
    }

    /// One Active of each kind, none lost before its time, no key replaced, no Secret of a
    /// recorded CA gone, and the bundle's number grows by one with each change.
    pub fn judge_slots(&self) {
        let mut keys: HashMap<&str, &str> = HashMap::new();
        let mut secrets: HashMap<&str, &str> = HashMap::new();
        let mut last: Option<&TrustDomainStatus> = None;
        for entry in &self.entries {
            match &entry.version {
                Version::Domain(status) => {
                    for slot in &status.slots {
                        let key = keys.entry(&slot.name).or_insert(&slot.key_id);
                        assert_eq!(*key, slot.key_id, "{} has another key", slot.name);
                    }
                    for kind in [SlotKind::Root, SlotKind::Issuing] {
                        let active = status
                            .slots
                            .iter()
                            .filter(|slot| slot.kind == kind && slot.phase == SlotPhase::Active);
                        assert!(active.count() <= 1, "two Active: {}", self.phases_of(status));
                    }
                    if let Some(last) = last {
                        self.judge_step(entry.at, last, status);
                    }
                    last = Some(status);
                }
                Version::Authority(name, Some(digest)) => {
                    let first = secrets.entry(name).or_insert(digest);
                    assert_eq!(first, digest, "Secret {name} was overwritten");
                }
                Version::Authority(name, None) => {
                    let recorded = last.iter().flat_map(|status| &status.slots);
                    let mut recorded = recorded.filter(|slot| slot.name == *name);
                    assert!(recorded.next().is_none(), "Secret {name} went while it was recorded");
                }
                _ => {}
            }
        }
    }

    fn judge_step(&self, at: Timestamp, last: &TrustDomainStatus, next: &TrustDomainStatus) {
        let step = format!("{} -> {}", self.phases_of(last), self.phases_of(next));
        for slot in &last.slots {
            if next.slots.iter().any(|other| other.name == slot.name) {
                continue;
            }
            let until = slot.trusted_until.as_ref().map(|time| time.0);
            let is_over = until.is_some_and(|until| until <= at + SignedDuration::from_secs(1));
            assert!(slot.phase == SlotPhase::Retiring && is_over, "{} is lost: {step}", slot.name);
        }
        let (Some(last), Some(next)) = (&last.bundle, &next.bundle) else { return };
        let grows_by = u64::from(last.sha256 != next.sha256);
        assert_eq!(next.sequence, last.sequence + grows_by, "the bundle's number: {step}");
    }
}

#[derive(Default)]
struct TrustJudge {
    lag: SignedDuration,
    leaves: Vec<Issued>,
    known: HashMap<String, usize>,
    bundles: Vec<(String, Vec<CertificateDer<'static>>)>,
    /// The bundle that a place holds, and those that it held, until when an agent may lag.
    current: HashMap<String, usize>,
    former: Vec<(usize, Timestamp)>,
    judged: BTreeSet<(usize, usize)>,
    /// Of each CA that signed: when it was seen not to be Active any more.
    signed_until: HashMap<String, Option<Timestamp>>,
}

impl TrustJudge {
    fn take(&mut self, at: Timestamp, version: &Version) {
        match version {
            Version::Domain(status) => self.signs(at, status),
            Version::Bundle(place, pem) => self.hold(at, place, pem.as_deref()),
            Version::Agent(place, None) => self.hold(at, place, None),
            Version::Agent(place, Some((chain, bundle))) => {
                self.issued(place, chain);
                self.hold(at, place, Some(bundle));
            }
            Version::Authority(..) => {}
        }
        self.former.retain(|(_, until)| *until > at);
        let held = self.current.values().chain(self.former.iter().map(|(bundle, _)| bundle));
        let held: BTreeSet<usize> = held.copied().collect();
        for (number, issued) in self.leaves.iter().enumerate() {
            if issued.leaf.not_after <= at {
                continue;
            }
            for bundle in &held {
                if self.judged.insert((number, *bundle)) {
                    let (pem, roots) = &self.bundles[*bundle];
                    verify(&issued.chain, roots, at.as_second()).unwrap_or_else(|error| {
                        panic!("at {at} an agent refuses {:?}: {error}\n{pem}", issued.leaf)
                    });
                }
            }
        }
    }

    fn signs(&mut self, at: Timestamp, status: &TrustDomainStatus) {
        let active = slot(status, SlotKind::Issuing, SlotPhase::Active).map(|slot| &slot.key_id);
        for (key, until) in &mut self.signed_until {
            if Some(key) != active && until.is_none() {
                *until = Some(at);
            }
        }
        if let Some(active) = active {
            self.signed_until.insert(active.clone(), None);
        }
    }

    fn issued(&mut self, place: &str, pem: &str) {
        if self.known.contains_key(pem) {
            return;
        }
        let chain = certificates(pem);
        let leaf = leaf_of(&chain[0]);
        let (key, signed) = (authority_key_id(&chain[0]), leaf.not_before + BACKDATE);
        let until = self.signed_until.get(&key);
        let until = until.unwrap_or_else(|| panic!("{place}: {key} signed and never was Active"));
        // What was signed before may be written a moment after.
        let second = SignedDuration::from_secs(1);
        let in_time = until.is_none_or(|until| signed <= until + second);
        assert!(in_time, "{place}: {key} signed at {signed} and was Active until {until:?}");
        self.known.insert(pem.to_owned(), self.leaves.len());
        self.leaves.push(Issued { chain, leaf });
    }

    fn hold(&mut self, at: Timestamp, place: &str, pem: Option<&str>) {
        let next = pem.map(|pem| {
            self.bundles.iter().position(|(known, _)| known == pem).unwrap_or_else(|| {
                self.bundles.push((pem.to_owned(), certificates(pem)));
                self.bundles.len() - 1
            })
        });
        let before = self.current.remove(place);
        if let Some(before) = before.filter(|before| Some(*before) != next) {
            self.former.push((before, at + self.lag));
        }
        if let Some(next) = next {
            self.current.insert(place.to_owned(), next);
        }
    }
}

fn count(bundle: Option<&str>) -> usize {
    bundle.map(|pem| pem.matches("-BEGIN").count()).unwrap_or_default()
}

/// The CA of a kind in a phase.
pub fn slot(status: &TrustDomainStatus, kind: SlotKind, phase: SlotPhase) -> Option<&SlotStatus> {
    status.slots.iter().find(|slot| slot.kind == kind && slot.phase == phase)
}

/// The bundle of a status.
fn roots_of(status: &TrustDomainStatus) -> String {
    status.slots.iter().filter_map(|slot| slot.certificate.as_deref()).collect()
}
