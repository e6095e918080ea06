//! What is revoked, as far as this replica knows: what the record holds, and what is on its way
//! there.
//!
//! Identities hand in what is to be revoked and go away; the trust domain writes what has come
//! together, once for all of them, and wakes them when it is published. What stands here and not in
//! the record is handed in again after a restart, by the identities that it is about.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::view::RevocationObject;
use crate::decide::record::{Entries, Entry};
use crate::identity::IdentityKey;

/// What is revoked in each trust domain.
#[derive(Debug, Default)]
pub struct Book(Mutex<HashMap<String, Page>>);

#[derive(Debug, Default)]
struct Page {
    entries: Arc<Entries>,
    /// Serial numbers of the entries.
    serials: BTreeSet<String>,
    /// What of `entries` stood in the record when that was last seen to.
    recorded: Arc<Entries>,
    /// What stood in `entries` when the CRLs were last published.
    published: Arc<Entries>,
    waiting: BTreeSet<IdentityKey>,
    written: BTreeMap<String, Written>,
    /// When the record was last written.
    last: Option<Timestamp>,
    /// The highest number that this replica gave to a CRL.
    highest: u64,
    /// Namespaces whose ConfigMap could not be written, and since when.
    unreached: BTreeMap<String, Timestamp>,
}

/// A write that the watch has not told of yet.
#[derive(Debug)]
struct Written {
    replaced: Option<String>,
    now: Arc<RevocationObject>,
}

/// What came of handing in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Submission {
    /// Entries that nobody had handed in before.
    pub new: usize,
    /// True if and only if each of them stands in the record.
    pub is_recorded: bool,
    /// True if and only if each of them is on a CRL that is published.
    pub is_published: bool,
}

impl Book {
    /// Hands in what is to be revoked. Where it is not published yet, `who` is told when it is.
    pub fn submit(&self, domain: &str, who: &IdentityKey, entries: &[Entry]) -> Submission {
        let mut book = self.lock();
        let page = book.entry(domain.to_owned()).or_default();
        let mut new = 0;
        for entry in entries {
            new += usize::from(page.enter(entry));
        }
        let is_published = entries.iter().all(|entry| page.published.contains_key(&entry.key));
        let is_recorded = entries.iter().all(|entry| page.recorded.contains_key(&entry.key));
        if !is_published {
            page.waiting.insert(who.clone());
        }
        Submission { new, is_recorded, is_published }
    }

    /// Takes in what the record holds.
    pub fn learn(&self, domain: &str, entries: &Entries) {
        let mut book = self.lock();
        let page = book.entry(domain.to_owned()).or_default();
        for entry in entries.values() {
            page.enter(entry);
        }
    }

    /// Everything that is revoked in a trust domain.
    pub fn entries(&self, domain: &str) -> Arc<Entries> {
        self.lock().get(domain).map(|page| page.entries.clone()).unwrap_or_default()
    }

    /// True if and only if a certificate with this serial number is revoked, in any trust domain.
    pub fn has(&self, serial: &str) -> bool {
        self.lock().values().any(|page| page.serials.contains(serial))
    }

    /// These stand in the record now.
    pub fn note_recorded(&self, domain: &str, entries: Arc<Entries>) {
        self.lock().entry(domain.to_owned()).or_default().recorded = entries;
    }

    /// These are published now. Returns whoever waited for that.
    pub fn publish(&self, domain: &str, entries: Arc<Entries>) -> BTreeSet<IdentityKey> {
        let mut book = self.lock();
        let page = book.entry(domain.to_owned()).or_default();
        if Arc::ptr_eq(&page.published, &entries) && Arc::ptr_eq(&page.entries, &entries) {
            return BTreeSet::new();
        }
        page.published = entries;
        std::mem::take(&mut page.waiting)
    }

    /// Takes out what has ended long enough ago.
    pub fn drop_over(&self, domain: &str, over: impl Fn(&Entry) -> bool) {
        let mut book = self.lock();
        let Some(page) = book.get_mut(domain) else { return };
        if page.entries.values().any(&over) {
            let is_published = Arc::ptr_eq(&page.published, &page.entries);
            Arc::make_mut(&mut page.entries).retain(|_, entry| !over(entry));
            page.serials = page.entries.keys().map(|key| key.serial.clone()).collect();
            if is_published {
                page.published = page.entries.clone();
            }
        }
    }

    /// When the record of a trust domain was last written.
    pub fn last_write(&self, domain: &str) -> Option<Timestamp> {
        self.lock().get(domain)?.last
    }

    /// Notes that the record of a trust domain is being written.
    pub fn note_write(&self, domain: &str, now: Timestamp) {
        self.lock().entry(domain.to_owned()).or_default().last = Some(now);
    }

    /// The highest number that this replica gave to a CRL of a trust domain. A CRL may be deleted
    /// by hand before the status has its number, and the next must have another.
    pub fn highest_number(&self, domain: &str) -> u64 {
        self.lock().get(domain).map(|page| page.highest).unwrap_or_default()
    }

    /// Notes that a CRL of this number is being written.
    pub fn note_number(&self, domain: &str, number: u64) {
        let mut book = self.lock();
        let page = book.entry(domain.to_owned()).or_default();
        page.highest = page.highest.max(number);
    }

    /// Notes which namespaces of a trust domain could not be written to just now. Returns since
    /// when each of them could not.
    pub fn note_unreached(
        &self,
        domain: &str,
        failed: &BTreeSet<String>,
        now: Timestamp,
    ) -> BTreeMap<String, Timestamp> {
        let mut book = self.lock();
        let page = book.entry(domain.to_owned()).or_default();
        page.unreached.retain(|namespace, _| failed.contains(namespace));
        for namespace in failed {
            page.unreached.entry(namespace.clone()).or_insert(now);
        }
        page.unreached.clone()
    }

    /// Remembers an object that was written in place of version `replaced`.
    pub fn remember(
        &self,
        domain: &str,
        name: &str,
        replaced: Option<String>,
        now: RevocationObject,
    ) {
        let mut book = self.lock();
        let page = book.entry(domain.to_owned()).or_default();
        page.written.insert(name.to_owned(), Written { replaced, now: Arc::new(now) });
    }

    /// The watch has told of a version of an object, or of its end: from now on it is believed. Were
    /// it not, an object that is deleted before anybody looks again would seem to be there for ever,
    /// as nothing is what it took the place of.
    pub fn confirm(&self, domain: &str, name: &str, version: Option<&str>) {
        let mut book = self.lock();
        let Some(page) = book.get_mut(domain) else { return };
        let is_told = |written: &Written| {
            version.is_none_or(|version| version == written.now.resource_version())
        };
        if page.written.get(name).is_some_and(is_told) {
            page.written.remove(name);
        }
    }

    /// The objects of a trust domain as they must be now: what was written, or else what the
    /// mirror has.
    pub fn objects(
        &self,
        domain: &str,
        mut seen: BTreeMap<String, Arc<RevocationObject>>,
    ) -> BTreeMap<String, Arc<RevocationObject>> {
        let mut book = self.lock();
        let Some(page) = book.get_mut(domain) else { return seen };
        page.written.retain(|name, written| {
            let version = seen.get(name).map(|object| object.resource_version());
            written.replaced.as_deref() == version
        });
        for (name, written) in &page.written {
            seen.insert(name.clone(), written.now.clone());
        }
        seen
    }

    /// The watch was broken and has listed anew, or a write was refused: the mirror is believed.
    pub fn doubt(&self, domain: &str) {
        if let Some(page) = self.lock().get_mut(domain) {
            page.written.clear();
        }
    }

    /// Forgets a trust domain that is gone. Returns whoever waited for it.
    pub fn forget(&self, domain: &str) -> BTreeSet<IdentityKey> {
        self.lock().remove(domain).map(|page| page.waiting).unwrap_or_default()
    }

    /// Every page is whole between calls, whoever panicked.
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Page>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Page {
    fn enter(&mut self, entry: &Entry) -> bool {
        if self.entries.contains_key(&entry.key) {
            return false;
        }
        self.serials.insert(entry.key.serial.clone());
        Arc::make_mut(&mut self.entries).insert(entry.key.clone(), entry.clone());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::record::Shard;

    fn record(version: &str) -> RevocationObject {
        let shard =
            Shard { resource_version: version.to_owned(), entries: Entries::new(), is_sound: true };
        RevocationObject::Record { trust_domain: "prod".to_owned(), number: 0, shard }
    }

    #[test]
    fn what_was_written_is_known_until_the_watch_tells_of_it_and_no_longer() {
        let seen = |version: Option<&str>| -> BTreeMap<String, Arc<RevocationObject>> {
            version.map(|version| ("r".to_owned(), Arc::new(record(version)))).into_iter().collect()
        };
        for (what, told, mirror, expected) in [
            ("nothing was told yet", &[][..], None, Some("5")),
            ("it was told of", &[Some("5")], Some("5"), Some("5")),
            ("somebody else has written since", &[], Some("9"), Some("9")),
            ("it was told of and deleted before anybody looked", &[Some("5"), None], None, None),
            ("it was deleted, and only that was told of", &[None], None, None),
            ("another version was told of, and it was deleted", &[Some("9"), None], None, None),
            ("word of an older one comes late", &[Some("3")], None, Some("5")),
        ] {
            let book = Book::default();
            book.remember("prod", "r", None, record("5"));
            for version in told {
                book.confirm("prod", "r", *version);
            }
            let objects = book.objects("prod", seen(mirror));
            let found = objects.get("r").map(|object| object.resource_version());
            assert_eq!(found, expected, "{what}");
        }
    }
}
