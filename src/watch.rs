//! 1. What wakes whom. Watches feed mirrors: small copies of what the cluster holds.
//!
//! A mirror keeps only a projection of each object, in a type of ours, and says what changed. It
//! notices what was deleted while a watch was broken, which a plain stream of events does not.

pub mod access;
pub mod agents;
pub mod census;
pub mod domains;
pub mod packed;
pub mod pods;
pub mod time;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{Stream, StreamExt};
use kube::runtime::watcher::{self, Event};
use kube::{Resource, ResourceExt};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::watch;

use crate::identity::IdentityKey;

/// Which object: its namespace (empty for what has none) and its name. Copies share the text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

/// What became of one object.
#[derive(Clone, Debug, PartialEq)]
pub enum Change<V> {
    Set { key: ObjectKey, old: Option<Arc<V>>, new: Arc<V> },
    Gone { key: ObjectKey, old: Arc<V> },
}

/// A small copy of every object of a kind that matters.
#[derive(Debug)]
pub struct Mirror<V> {
    state: Mutex<State<V>>,
    ready: watch::Sender<bool>,
}

#[derive(Debug)]
struct State<V> {
    objects: HashMap<ObjectKey, Arc<V>>,
    /// While a list is being received: what it has named so far.
    listed: Option<HashSet<ObjectKey>>,
}

impl ObjectKey {
    /// The key of an object.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        ObjectKey { namespace: namespace.into(), name: name.into() }
    }

    /// The key of an object that came from the API server.
    pub fn of<K: Resource>(object: &K) -> Self {
        ObjectKey::new(object.namespace().unwrap_or_default(), object.name_any())
    }
}

impl From<IdentityKey> for ObjectKey {
    fn from(key: IdentityKey) -> Self {
        ObjectKey { namespace: key.namespace, name: key.name }
    }
}

impl From<ObjectKey> for IdentityKey {
    fn from(key: ObjectKey) -> Self {
        IdentityKey { namespace: key.namespace, name: key.name }
    }
}

impl<V> Default for Mirror<V> {
    fn default() -> Self {
        Mirror {
            state: Mutex::new(State { objects: HashMap::new(), listed: None }),
            ready: watch::Sender::new(false),
        }
    }
}

impl<V: PartialEq> Mirror<V> {
    /// What is known of an object.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<V>> {
        self.lock().objects.get(key).cloned()
    }

    /// Everything that is known.
    pub fn all(&self) -> Vec<(ObjectKey, Arc<V>)> {
        self.lock().objects.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// Everything that is known in a namespace.
    pub fn within(&self, namespace: &str) -> Vec<(ObjectKey, Arc<V>)> {
        let state = self.lock();
        let all = state.objects.iter();
        all.filter(|(key, _)| *key.namespace == *namespace)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }

    /// True if and only if everything has been listed once.
    pub fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// Waits until everything has been listed once.
    pub async fn wait_until_ready(&self) {
        // The sender lives as long as self.
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
    }

    /// Takes in what a watch says. `project` keeps what matters of an object, or None where all
    /// of it does not. Returns what really changed.
    pub fn take<K: Resource>(
        &self,
        event: Event<K>,
        project: impl FnOnce(K) -> Option<V>,
    ) -> Vec<Change<V>> {
        let mut state = self.lock();
        match event {
            Event::Init => {
                state.listed = Some(HashSet::new());
                Vec::new()
            }
            Event::InitApply(object) => {
                let key = ObjectKey::of(&object);
                if let Some(listed) = &mut state.listed {
                    listed.insert(key.clone());
                }
                state.set(key, project(object))
            }
            Event::InitDone => {
                let gone = state.forget_unlisted();
                drop(state);
                self.ready.send_replace(true);
                gone
            }
            Event::Apply(object) => {
                let key = ObjectKey::of(&object);
                state.set(key, project(object))
            }
            Event::Delete(object) => state.remove(ObjectKey::of(&object)),
        }
    }

    /// Puts in an object that was read beside the watch, unless the watch has told of it.
    pub fn put_if_absent(&self, key: ObjectKey, value: V) -> Vec<Change<V>> {
        let mut state = self.lock();
        if state.objects.contains_key(&key) { Vec::new() } else { state.set(key, Some(value)) }
    }

    /// A mirror holds whole values only: a thread that panicked cannot have left half of one.
    fn lock(&self) -> MutexGuard<'_, State<V>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V: PartialEq> State<V> {
    fn set(&mut self, key: ObjectKey, value: Option<V>) -> Vec<Change<V>> {
        let Some(value) = value else { return self.remove(key) };
        if self.objects.get(&key).is_some_and(|old| **old == value) {
            return Vec::new();
        }
        let new = Arc::new(value);
        let old = self.objects.insert(key.clone(), new.clone());
        vec![Change::Set { key, old, new }]
    }

    fn remove(&mut self, key: ObjectKey) -> Vec<Change<V>> {
        match self.objects.remove(&key) {
            Some(old) => vec![Change::Gone { key, old }],
            None => Vec::new(),
        }
    }

    fn forget_unlisted(&mut self) -> Vec<Change<V>> {
        let Some(listed) = self.listed.take() else { return Vec::new() };
        let gone: Vec<ObjectKey> =
            self.objects.keys().filter(|key| !listed.contains(*key)).cloned().collect();
        gone.into_iter().flat_map(|key| self.remove(key)).collect()
    }
}

/// Feeds a watch into `take` until the stream ends, which it does not by itself: a broken watch
/// is counted, reported and started again by the stream's own back-off.
pub async fn drive<K>(
    resource: &'static str,
    errors: Counter,
    stream: impl Stream<Item = Result<Event<K>, watcher::Error>>,
    mut take: impl FnMut(Event<K>),
) {
    let mut stream = std::pin::pin!(stream);
    while let Some(event) = stream.next().await {
        match event {
            Ok(event) => take(event),
            Err(error) => {
                errors.inc();
                tracing::warn!(resource, %error, "the watch broke and is started again");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Namespace;

    fn namespace(name: &str, label: &str) -> Namespace {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": name, "labels": {"a": label}},
        }))
        .unwrap()
    }

    fn label(namespace: Namespace) -> Option<String> {
        namespace.labels().get("a").cloned().filter(|label| label != "no")
    }

    #[test]
    fn what_went_while_the_watch_was_broken_is_noticed() {
        let mirror = Mirror::<String>::default();
        let key = |name| ObjectKey::new("", name);
        mirror.take::<Namespace>(Event::Init, label);
        assert_eq!(mirror.take(Event::InitApply(namespace("x", "1")), label).len(), 1);
        assert_eq!(mirror.take(Event::InitApply(namespace("y", "1")), label).len(), 1);
        assert!(mirror.take(Event::InitApply(namespace("z", "no")), label).is_empty());
        assert!(mirror.take::<Namespace>(Event::InitDone, label).is_empty());
        assert!(mirror.take(Event::Apply(namespace("x", "1")), label).is_empty(), "nothing new");
        mirror.take::<Namespace>(Event::Init, label);
        mirror.take(Event::InitApply(namespace("y", "2")), label);
        let gone = mirror.take::<Namespace>(Event::InitDone, label);
        assert_eq!(gone, [Change::Gone { key: key("x"), old: Arc::new("1".to_owned()) }]);
        assert_eq!(mirror.get(&key("y")).as_deref(), Some(&"2".to_owned()));
        let gone = mirror.take(Event::Apply(namespace("y", "no")), label);
        assert_eq!(gone, [Change::Gone { key: key("y"), old: Arc::new("2".to_owned()) }]);
    }
}
