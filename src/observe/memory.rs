//! What this replica has read and written itself, for as long as its watches have not told of it.
//!
//! A watch is always a little behind. Without this, each write would be followed by a look at the
//! world from before it, and a second certificate. Nothing here outlives the process, and nothing
//! here is needed for correctness: every write carries the resourceVersion it was decided on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::view::SecretFacts;
use crate::api::AgentIdentityStatus;
use crate::decide::Content;
use crate::identity::IdentityKey;

/// The status of an AgentIdentity, and the version of the object that holds it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StatusVersion {
    pub resource_version: String,
    pub status: Option<Arc<AgentIdentityStatus>>,
}

/// What this replica remembers of each identity.
#[derive(Debug, Default)]
pub struct Memory(Mutex<HashMap<IdentityKey, Recollection>>);

#[derive(Debug, Default)]
struct Recollection {
    /// A version of the Secret, and what it holds.
    content: Option<(Box<str>, Content)>,
    written_secret: Option<Box<Written<SecretFacts>>>,
    written_status: Option<Box<Written<StatusVersion>>>,
    /// A write was refused because the world is not as the mirrors have it: read before deciding.
    doubt: bool,
    failures: u32,
    deleted_since: Option<Timestamp>,
    awaits_crl_since: Option<Timestamp>,
}

/// A write that the watch has not told of yet, which is soon: boxed, for most have none.
#[derive(Debug)]
struct Written<T> {
    name: String,
    /// The version that it replaced; None where there was nothing.
    replaced: Option<String>,
    now: T,
}

impl Memory {
    /// The Secret's metadata as it must be now: what was written, or else what the mirror has.
    /// The outer None means that only the API server knows.
    pub fn secret(
        &self,
        identity: &IdentityKey,
        name: &str,
        seen: Option<Arc<SecretFacts>>,
    ) -> Option<Option<SecretFacts>> {
        let mut memory = self.lock();
        let Some(recollection) = memory.get_mut(identity) else {
            return Some(seen.map(|seen| (*seen).clone()));
        };
        if std::mem::take(&mut recollection.doubt) {
            return None;
        }
        if let Some(written) = &recollection.written_secret {
            let seen_version = seen.as_ref().map(|seen| &seen.resource_version);
            if written.name == name && written.replaced.as_ref() == seen_version {
                return Some(Some(written.now.clone()));
            }
            // The watch was faster than the answer to the write, and will not tell of it again.
            if seen_version == Some(&written.now.resource_version) {
                recollection.written_secret = None;
            }
        }
        Some(seen.map(|seen| (*seen).clone()))
    }

    /// What that version of the Secret holds, if it has been read or written here.
    pub fn content(&self, identity: &IdentityKey, resource_version: &str) -> Option<Content> {
        let memory = self.lock();
        let (version, content) = memory.get(identity)?.content.as_ref()?;
        (**version == *resource_version).then(|| content.clone())
    }

    /// Remembers what a version of the Secret holds.
    pub fn remember_content(&self, identity: &IdentityKey, version: &str, content: Content) {
        let mut memory = self.lock();
        memory.entry(identity.clone()).or_default().content = Some((version.into(), content));
    }

    /// Remembers a Secret that was written in place of version `replaced`.
    pub fn remember_secret(
        &self,
        identity: &IdentityKey,
        name: &str,
        replaced: Option<String>,
        now: SecretFacts,
        content: Content,
    ) {
        let mut memory = self.lock();
        let recollection = memory.entry(identity.clone()).or_default();
        recollection.content = Some((now.resource_version.as_str().into(), content));
        recollection.written_secret =
            Some(Box::new(Written { name: name.to_owned(), replaced, now }));
    }

    /// The watch has told of a version of the Secret, or of its end: from now on it is believed.
    pub fn confirm_secret(&self, identity: &IdentityKey, version: Option<&str>) {
        let mut memory = self.lock();
        let Some(recollection) = memory.get_mut(identity) else { return };
        let told = recollection
            .written_secret
            .as_ref()
            .is_some_and(|written| version.is_none_or(|v| v == written.now.resource_version));
        if told {
            recollection.written_secret = None;
        }
    }

    /// The watch of Secrets was broken and has listed anew: whoever waits for word of a write may
    /// wait for ever. Returns them; the mirror is believed from now on.
    pub fn give_up_waiting(&self) -> Vec<IdentityKey> {
        let mut memory = self.lock();
        memory
            .iter_mut()
            .filter_map(|(key, r)| r.written_secret.take().map(|_| key.clone()))
            .collect()
    }

    /// The status as it must be now: what was written, or else what the mirror has.
    pub fn status(&self, identity: &IdentityKey, seen: StatusVersion) -> StatusVersion {
        let mut memory = self.lock();
        let Some(recollection) = memory.get_mut(identity) else { return seen };
        match &recollection.written_status {
            Some(written) if written.replaced.as_ref() == Some(&seen.resource_version) => {
                written.now.clone()
            }
            _ => {
                recollection.written_status = None;
                seen
            }
        }
    }

    /// Remembers a status that was written in place of the version `replaced`, as the mirror has
    /// it: of several writes in a row the mirror may have seen none.
    pub fn remember_status(&self, identity: &IdentityKey, mirrored: String, now: StatusVersion) {
        let mut memory = self.lock();
        let written = Written { name: String::new(), replaced: Some(mirrored), now };
        memory.entry(identity.clone()).or_default().written_status = Some(Box::new(written));
    }

    /// The watch has told of a version of the object: from now on it is believed. True if and
    /// only if that is one that this replica made by writing the status.
    pub fn confirm_status(&self, identity: &IdentityKey, version: &str) -> bool {
        let mut memory = self.lock();
        let Some(recollection) = memory.get_mut(identity) else { return false };
        let is_ours = recollection
            .written_status
            .as_ref()
            .is_some_and(|written| written.now.resource_version == version);
        if is_ours {
            recollection.written_status = None;
        }
        is_ours
    }

    /// A write met another version than it was decided on: read before deciding again.
    pub fn doubt(&self, identity: &IdentityKey) {
        let mut memory = self.lock();
        let recollection = memory.entry(identity.clone()).or_default();
        recollection.doubt = true;
        recollection.written_secret = None;
    }

    /// Counts a failure in a row, and returns how many there were.
    pub fn count_failure(&self, identity: &IdentityKey) -> u32 {
        let mut memory = self.lock();
        let recollection = memory.entry(identity.clone()).or_default();
        recollection.failures = recollection.failures.saturating_add(1);
        recollection.failures
    }

    /// Since when this replica knows that it was deleted: since `now`, where this is the first time.
    pub fn deleted_since(&self, identity: &IdentityKey, now: Timestamp) -> Timestamp {
        let mut memory = self.lock();
        *memory.entry(identity.clone()).or_default().deleted_since.get_or_insert(now)
    }

    /// Since when this replica knows that it waits for a CRL: since `now`, where this is the first time.
    pub fn awaits_crl_since(&self, identity: &IdentityKey, now: Timestamp) -> Timestamp {
        let mut memory = self.lock();
        *memory.entry(identity.clone()).or_default().awaits_crl_since.get_or_insert(now)
    }

    /// It waits for no CRL any more.
    pub fn has_crl(&self, identity: &IdentityKey) {
        if let Some(recollection) = self.lock().get_mut(identity) {
            recollection.awaits_crl_since = None;
        }
    }

    /// Ends a row of failures.
    pub fn reset_failures(&self, identity: &IdentityKey) {
        if let Some(recollection) = self.lock().get_mut(identity) {
            recollection.failures = 0;
        }
    }

    /// Forgets an identity that is gone.
    pub fn forget(&self, identity: &IdentityKey) {
        self.lock().remove(identity);
    }

    /// Every recollection is whole between calls, whoever panicked.
    fn lock(&self) -> MutexGuard<'_, HashMap<IdentityKey, Recollection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> IdentityKey {
        IdentityKey { namespace: "research".into(), name: "planner".into() }
    }

    fn version(version: &str) -> SecretFacts {
        SecretFacts { resource_version: version.to_owned(), ..SecretFacts::default() }
    }

    fn seen(text: &str) -> Option<Arc<SecretFacts>> {
        Some(Arc::new(version(text)))
    }

    fn unreadable() -> Content {
        Content::Unreadable(String::new())
    }

    #[test]
    fn a_write_is_known_before_the_watch_tells_of_it() {
        let memory = Memory::default();
        assert_eq!(memory.secret(&key(), "s", None), Some(None));
        memory.remember_secret(&key(), "s", None, version("5"), unreadable());
        assert_eq!(memory.secret(&key(), "s", None), Some(Some(version("5"))));
        assert!(memory.content(&key(), "5").is_some() && memory.content(&key(), "4").is_none());
        // Somebody else wrote after us: the watch is ahead.
        assert_eq!(memory.secret(&key(), "s", seen("9")), Some(Some(version("9"))));
    }

    #[test]
    fn what_the_watch_has_told_of_is_not_believed_for_ever() {
        let memory = Memory::default();
        let write = || memory.remember_secret(&key(), "s", None, version("5"), unreadable());
        for (sentence, tell) in [
            ("our own write was told of, and the Secret was then deleted", Some("5")),
            ("its deletion was told of", None),
        ] {
            write();
            memory.confirm_secret(&key(), tell);
            assert_eq!(memory.secret(&key(), "s", None), Some(None), "{sentence}");
        }
        write();
        assert_eq!(memory.give_up_waiting(), [key()]);
        assert_eq!(memory.secret(&key(), "s", None), Some(None), "the watch was broken");
    }

    #[test]
    fn doubt_makes_the_next_look_a_real_one_and_only_that() {
        let memory = Memory::default();
        memory.doubt(&key());
        assert_eq!(memory.secret(&key(), "s", seen("5")), None);
        assert_eq!(memory.secret(&key(), "s", seen("5")), Some(Some(version("5"))));
    }

    #[test]
    fn of_several_statuses_in_a_row_the_last_counts_until_the_watch_moves() {
        let memory = Memory::default();
        let at =
            |version: &str| StatusVersion { resource_version: version.to_owned(), status: None };
        memory.remember_status(&key(), "1".to_owned(), at("2"));
        memory.remember_status(&key(), "1".to_owned(), at("3"));
        assert_eq!(memory.status(&key(), at("1")), at("3"));
        assert!(!memory.confirm_status(&key(), "2"), "an earlier one, and the last is awaited");
        assert_eq!(memory.status(&key(), at("1")), at("3"));
        assert!(memory.confirm_status(&key(), "3"));
        assert_eq!(memory.status(&key(), at("3")), at("3"));
    }
}
