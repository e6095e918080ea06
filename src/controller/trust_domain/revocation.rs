//! What was revoked, on record; then the CRLs that say so. The order is what makes it certain: what
//! nothing records may be forgotten, so it is recorded first; what no CRL says is not revoked, so
//! nobody is told before the CRLs are in every namespace.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::cas;
use super::spread::Spread;
use super::supply::known_source;
use crate::api::conditions::Reason;
use crate::api::names::{crl_name, record_name};
use crate::api::{CrlStatus, SlotKind, TrustDomainStatus};
use crate::apply::revocation as apply;
use crate::controller::{Context, until};
use crate::decide::crl::{self, CrlOrder, CrlSituation, Signer};
use crate::decide::record::{self, Entries, Shard};
use crate::decide::schedule::saturating_add;
use crate::decide::slots::SlotSecret;
use crate::identity::Domain;
use crate::observe::view::{CrlObject, RevocationObject};
use crate::sign::{SignError, Slot};
use crate::x509::{Crl, push_pem};

/// What came of it.
pub struct Revocation {
    /// `crl.pem`, with what could be signed.
    pub crl_pem: String,
    /// What of the record the CRLs say, once they are in every namespace.
    entries: Arc<Entries>,
    pub status: Option<CrlStatus>,
    /// CAs whose CRL a stranger signs, by key id.
    pub signed_elsewhere: Vec<String>,
    /// What could not be done, and why.
    pub failure: Option<(Reason, String)>,
    /// When to come back.
    pub next: Option<Duration>,
}

/// How often the record is written at most: whatever is revoked within a second is one write.
const BATCH: SignedDuration = SignedDuration::from_secs(1);
/// How long a namespace that cannot be written to keeps what is revoked from being said to be. It is
/// named all the while; in the others, over HTTP and by their pods' label everybody knows already.
const UNREACHED_AWAITED: SignedDuration = SignedDuration::from_secs(30);
/// The API server is gone or refuses. Neither passes in a moment.
const RETRY: Duration = Duration::from_secs(2);

/// Records what was handed in, and signs the CRLs that are due.
pub async fn run(
    context: &Context,
    domain: &Domain,
    status: &TrustDomainStatus,
    now: Timestamp,
) -> Revocation {
    let signers = BTreeMap::new();
    let mut work = Work { context, domain, status, now, signers, failure: None, next: None };
    let objects = work.objects();
    let entries = work.record(&objects).await;
    context.book.note_recorded(&domain.name, entries.clone());
    let crls = work.crls(&objects, &entries).await;
    work.finish(entries, &crls)
}

/// The CRLs are in every namespace: whoever waited for that goes on. A namespace that cannot be
/// written to holds this up for a while and not for ever. Returns those that could not be, and
/// since when.
pub fn published(
    context: &Context,
    domain: &Domain,
    revocation: &Revocation,
    spread: &Spread,
) -> BTreeMap<String, Timestamp> {
    let now = context.now();
    let unreached = context.book.note_unreached(&domain.name, &spread.failed, now);
    let is_held = unreached.values().any(|since| saturating_add(*since, UNREACHED_AWAITED) > now);
    if spread.is_behind || is_held {
        context.trust_domains.wake_after(domain.name.clone(), RETRY);
    } else {
        for key in context.book.publish(&domain.name, revocation.entries.clone()) {
            context.identities.wake(key);
        }
    }
    unreached
}

struct Work<'a> {
    context: &'a Context,
    domain: &'a Domain,
    status: &'a TrustDomainStatus,
    now: Timestamp,
    /// Who signs the CRLs of CAs whose keys are elsewhere.
    signers: BTreeMap<String, Signer>,
    failure: Option<(Reason, String)>,
    next: Option<Duration>,
}

type Objects = BTreeMap<String, Arc<RevocationObject>>;

impl Work<'_> {
    fn objects(&self) -> Objects {
        let all = self.context.view.revocations.all();
        let seen = all
            .into_iter()
            .filter(|(_, object)| object.trust_domain() == self.domain.name)
            .map(|(key, object)| (key.name.to_string(), object))
            .collect();
        self.context.book.objects(&self.domain.name, seen)
    }

    /// Writes what is revoked into the record. Returns what stands in it.
    async fn record(&mut self, objects: &Objects) -> Arc<Entries> {
        let (book, name) = (&self.context.book, &self.domain.name);
        let mut shards = BTreeMap::<usize, Shard>::new();
        for object in objects.values() {
            if let RevocationObject::Record { number, shard, .. } = &**object {
                book.learn(name, &shard.entries);
                shards.insert(*number, shard.clone());
            }
        }
        let (domain, now, slots) = (self.domain, self.now, &self.status.slots);
        // What a CA signed that nobody trusts any more is worth nothing, revoked or not.
        let is_gone =
            |key_id: &String| !slots.is_empty() && !slots.iter().any(|slot| slot.key_id == *key_id);
        let over = |entry: &record::Entry| {
            crl::is_over(domain, entry, now) || entry.key.key_id.as_ref().is_some_and(is_gone)
        };
        let wanted = book.entries(name);
        let tidy = objects.values().any(|object| object.is_stale(domain, now));
        let mut writes = record::plan(&shards, &wanted, over, tidy);
        let last = book.last_write(name).filter(|last| *last <= now);
        if let Some(last) = last.filter(|last| !writes.is_empty() && *last + BATCH > now) {
            self.next = Some(until(last + BATCH, now));
            writes.clear();
            return self.recorded(&wanted, &shards, over);
        }
        if !writes.is_empty() {
            book.note_write(name, now);
        }
        for write in &writes {
            let namespace = &self.context.view.namespace;
            match apply::write_record(&self.context.client, namespace, domain, write).await {
                Ok(resource_version) => {
                    let shard =
                        Shard { resource_version, entries: write.entries.clone(), is_sound: true };
                    shards.insert(write.number, shard.clone());
                    let object = RevocationObject::Record {
                        trust_domain: name.clone(),
                        number: write.number,
                        shard,
                    };
                    let replaced = write.replaces.clone();
                    book.remember(name, &record_name(name, write.number), replaced, object);
                }
                Err(error) => {
                    self.failed(Reason::RecordNotWritten, "the record of what is revoked", &error);
                }
            }
        }
        self.recorded(&wanted, &shards, over)
    }

    /// What is wanted and stands in the record, or need not.
    fn recorded(
        &self,
        wanted: &Arc<Entries>,
        shards: &BTreeMap<usize, Shard>,
        over: impl Fn(&record::Entry) -> bool,
    ) -> Arc<Entries> {
        let is_recorded = |key| shards.values().any(|shard| shard.entries.contains_key(key));
        if wanted.iter().all(|(key, entry)| is_recorded(key) || over(entry)) {
            return wanted.clone();
        }
        let some = wanted.iter().filter(|(key, entry)| is_recorded(key) || over(entry));
        Arc::new(some.map(|(key, entry)| (key.clone(), entry.clone())).collect())
    }

    /// Signs the CRLs that are due. Returns those that there are, by the key id of their CA.
    async fn crls(
        &mut self,
        objects: &Objects,
        entries: &Entries,
    ) -> BTreeMap<String, Arc<RevocationObject>> {
        let mut found: BTreeMap<String, Arc<RevocationObject>> = objects
            .values()
            .filter_map(|object| Some((object.as_crl()?.key_id.clone(), object.clone())))
            .collect();
        let sound = sound(&found);
        self.signers = self.find_signers().await;
        let recorded = self.status.crl.as_ref().map(|crl| crl.number).unwrap_or_default();
        let orders = crl::decide(&CrlSituation {
            domain: self.domain,
            slots: &self.status.slots,
            entries,
            published: &sound,
            signers: &self.signers,
            number: recorded.max(self.context.book.highest_number(&self.domain.name)),
            now: self.now,
        });
        if !orders.is_empty() {
            match cas::slots(self.context, self.domain).await {
                Ok(mut slots) => {
                    for order in &orders {
                        let slot = slots.remove(&order.slot);
                        self.sign(order, slot, &mut found).await;
                    }
                }
                Err(error) => self.failed(Reason::CrlNotSigned, "the CAs' keys", &error),
            }
        }
        self.remove_unneeded(&mut found).await;
        found
    }

    /// Who signs the CRLs of CAs whose keys are elsewhere.
    async fn find_signers(&self) -> BTreeMap<String, Signer> {
        let secrets = cas::found(self.context, self.domain).await.unwrap_or_default();
        let of = |secret: &SlotSecret| {
            let found = secret.content.as_ref().ok()?;
            let signer = match secret.kind {
                _ if found.origin.keeps_key(secret.kind) => return None,
                SlotKind::Issuing => Signer::Authority,
                SlotKind::Root => Signer::Stranger,
            };
            Some((found.ca.key_id.clone(), signer))
        };
        // A CA that signs leaves itself stands there as both, and counts as what signs them.
        let of_kind = |kind| secrets.iter().filter(move |secret| secret.kind == kind);
        of_kind(SlotKind::Root).chain(of_kind(SlotKind::Issuing)).filter_map(of).collect()
    }

    async fn sign(
        &mut self,
        order: &CrlOrder,
        slot: Option<Slot>,
        found: &mut BTreeMap<String, Arc<RevocationObject>>,
    ) {
        let start = Instant::now();
        let what = format!("the CRL of the CA {}", order.key_id);
        let signed = match slot {
            Some(Slot { key: None, .. }) => return self.fetch(order, &slot, found).await,
            Some(slot) => crate::sign::crl::crl(&slot, order),
            None => Err(SignError::Sign(format!(
                "its Secret {} is not there, or holds no CA",
                order.slot
            ))),
        };
        let der = match signed {
            Ok(der) => der,
            Err(error) => return self.failed(Reason::CrlNotSigned, &what, &error),
        };
        self.context.metrics.crl_seconds.observe(start.elapsed().as_secs_f64());
        self.context.book.note_number(&self.domain.name, order.number);
        self.keep(order, der, found).await;
    }

    /// Has the authority, which keeps the CA's key, revoke what is ordered, and takes over its CRL.
    async fn fetch(
        &mut self,
        order: &CrlOrder,
        slot: &Option<Slot>,
        found: &mut BTreeMap<String, Arc<RevocationObject>>,
    ) {
        let source = known_source(self.context, self.domain);
        let (Some(source), Some(slot)) = (source, slot) else { return };
        let before = found.get(&order.key_id).and_then(|object| object.as_crl());
        let before = before.map(|before| before.der.clone());
        match source.crl(slot, order).await {
            Ok(Some(der)) => {
                if before.as_ref() != Some(&der) {
                    self.keep(order, der.clone(), found).await;
                }
                self.warn_of_its_end(order, &der);
            }
            Ok(None) => {}
            Err(why) => {
                let what = format!("the CRL of the CA {}", order.key_id);
                self.failed(Reason::CrlNotSigned, &what, &why.message);
            }
        }
    }

    /// Peers that fail closed refuse everybody once a CRL has ended.
    fn warn_of_its_end(&mut self, order: &CrlOrder, der: &[u8]) {
        let Ok(crl) = crate::x509::read_crl(der) else { return };
        if crl.next_update <= self.now + self.domain.crl_period.as_duration() {
            let message = format!(
                "the CRL of the CA {}, which its authority signs, ends at {}: have the authority sign them ahead of time (in Vault: auto_rebuild of config/crl)",
                order.key_id, crl.next_update
            );
            self.failure.get_or_insert((Reason::CrlNotSigned, message));
        }
    }

    async fn keep(
        &mut self,
        order: &CrlOrder,
        der: Vec<u8>,
        found: &mut BTreeMap<String, Arc<RevocationObject>>,
    ) {
        let what = format!("the CRL of the CA {}", order.key_id);
        let (name, namespace) = (&self.domain.name, &self.context.view.namespace);
        let replaces = found.get(&order.key_id).map(|crl| crl.resource_version().to_owned());
        let client = &self.context.client;
        let key_id = &order.key_id;
        match apply::write_crl(client, namespace, self.domain, key_id, &replaces, &der).await {
            Ok(version) => {
                let crl = CrlObject::read(name.clone(), key_id.clone(), version, der);
                tracing::info!(target: "audit", step = "crl", trust_domain = name, ca = key_id,
                    number = order.number, entries = order.entries.len(),
                    next_update = %order.next_update, "a CRL is signed");
                let object = RevocationObject::Crl(crl);
                let file = crl_name(name, key_id);
                self.context.book.remember(name, &file, replaces, object.clone());
                found.insert(key_id.clone(), Arc::new(object));
            }
            Err(error) => self.failed(Reason::CrlNotSigned, &what, &error),
        }
    }

    /// Takes away the CRLs of CAs that nobody trusts any more.
    async fn remove_unneeded(&mut self, found: &mut BTreeMap<String, Arc<RevocationObject>>) {
        let is_needed = |key_id: &String| self.status.slots.iter().any(|s| s.key_id == *key_id);
        let unneeded: HashMap<String, String> = found
            .iter()
            .filter(|(key_id, _)| !is_needed(key_id))
            .map(|(key_id, object)| (key_id.clone(), object.resource_version().to_owned()))
            .collect();
        for (key_id, version) in unneeded {
            found.remove(&key_id);
            // What was not recorded as a slot yet has no CRL, and a status may be behind a write.
            if self.status.slots.is_empty() {
                continue;
            }
            let name = crl_name(&self.domain.name, &key_id);
            let (client, namespace) = (&self.context.client, &self.context.view.namespace);
            if let Err(error) = apply::delete(client, namespace, &name, &version).await {
                tracing::debug!(config_map = name, %error, "not deleted; it is tried again");
            }
        }
    }

    fn failed(&mut self, reason: Reason, what: &str, error: &dyn std::fmt::Display) {
        let message = format!("{what} cannot be written: {error}");
        tracing::warn!(trust_domain = self.domain.name, %reason, "{message}");
        self.context.book.doubt(&self.domain.name);
        self.failure.get_or_insert((reason, message));
        self.next = Some(RETRY);
    }

    fn finish(
        self,
        entries: Arc<Entries>,
        found: &BTreeMap<String, Arc<RevocationObject>>,
    ) -> Revocation {
        let mut slots: Vec<_> = self.status.slots.iter().collect();
        slots.sort_by_key(|slot| (slot.kind == crate::api::SlotKind::Issuing, slot.number));
        // A CA that signs leaves itself stands there twice.
        let mut seen = BTreeSet::new();
        slots.retain(|slot| seen.insert(&slot.key_id));
        let crls: Vec<&CrlObject> = slots
            .iter()
            .filter_map(|slot| found.get(&slot.key_id)?.as_crl())
            .filter(|crl| crl.crl.is_some())
            .collect();
        let mut crl_pem = String::new();
        for crl in &crls {
            push_pem(&mut crl_pem, "X509 CRL", &crl.der);
        }
        let read = || crls.iter().filter_map(|object| object.crl.as_ref());
        let is_strange = |key_id: &String| self.signers.get(key_id) == Some(&Signer::Stranger);
        let elsewhere = slots.iter().map(|slot| slot.key_id.clone());
        let signed_elsewhere: Vec<String> = elsewhere.filter(is_strange).collect();
        let status = read().map(|crl| crl.next_update).min().map(|next_update| CrlStatus {
            number: read().map(|crl| crl.number).max().unwrap_or_default(),
            next_update: next_update.into(),
            entries: u32::try_from(read().map(|crl| crl.entries.len()).sum::<usize>())
                .unwrap_or(u32::MAX),
            signed_elsewhere: signed_elsewhere.clone(),
        });
        let due = read()
            // When another program signs the next is its own affair.
            .filter(|crl| !self.signers.contains_key(&crl.key_id))
            .map(|crl| {
                crl.this_update
                    + self.domain.crl_period.as_duration()
                    + crate::decide::schedule::BACKDATE
            })
            .min()
            .map(|moment| until(moment, self.now));
        let next = self.next.into_iter().chain(due).min();
        let entries = match &self.failure {
            None => entries,
            // Not all of it stands where it should.
            Some(_) => {
                let slots = &self.status.slots;
                Arc::new(crl::published(slots, &entries, &sound(found), &self.signers))
            }
        };
        Revocation { crl_pem, entries, status, signed_elsewhere, failure: self.failure, next }
    }
}

/// Those of the CRLs that are what was put there, read.
fn sound(found: &BTreeMap<String, Arc<RevocationObject>>) -> BTreeMap<String, Crl> {
    found
        .iter()
        .filter_map(|(key_id, object)| Some((key_id.clone(), object.as_crl()?.crl.clone()?)))
        .collect()
}
