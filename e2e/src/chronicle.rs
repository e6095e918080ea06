//! Everything that the API server held of a trust domain, version by version.
//!
//! A look now and then misses what stood there for a moment. A watch tells of every version, and
//! etcd numbers the versions of all kinds in one row: so what a chronicle holds can be put into
//! the one order in which it came to be, and judged afterwards.

mod history;

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign::api::names::{CA_CRT, TLS_CRT, bundle_config_map_name, cluster_trust_bundle_name};
use countersign::api::{TrustDomain, TrustDomainStatus};
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::users::OPERATOR_NAMESPACE;
use crate::wait::{now, wait_for};

pub use history::{History, Tally, slot};

/// What a version of an object said; None where the object was deleted.
#[derive(Clone, Debug)]
pub enum Version {
    /// The TrustDomain's status.
    Domain(Box<TrustDomainStatus>),
    /// The bundle of a ConfigMap or of the ClusterTrustBundle, and where it is.
    Bundle(String, Option<String>),
    /// An identity's Secret: where, and its `tls.crt` and `ca.crt`.
    Agent(String, Option<(String, String)>),
    /// A CA's Secret: its name, and a digest of what it held.
    Authority(String, Option<String>),
}

/// One version.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its place in the order of all.
    pub revision: u64,
    /// When it was heard of, by the operator's clock.
    pub at: Timestamp,
    /// What it said.
    pub version: Version,
}

/// Follows one trust domain from now on until it is dropped.
pub struct Chronicle {
    shared: Arc<Shared>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

struct Shared {
    trust_domain: String,
    entries: Mutex<Vec<Entry>>,
    ahead: AtomicI64,
}

impl Chronicle {
    /// Begins with what is there.
    pub async fn of(client: &Client, trust_domain: &str, domain: &str) -> Self {
        let shared = Arc::new(Shared {
            trust_domain: trust_domain.to_owned(),
            entries: Mutex::default(),
            ahead: AtomicI64::new(0),
        });
        let of_domain = format!("countersign.dev/trust-domain={trust_domain}");
        let prefix = format!("spiffe://{domain}/");
        let map = bundle_config_map_name(trust_domain);
        let cluster = cluster_trust_bundle_name(trust_domain);
        let (name, mut tasks) = (trust_domain.to_owned(), Vec::new());
        let api = Api::<TrustDomain>::all(client.clone());
        tasks.push(shared.follow(api, "", move |object, _| {
            let is_it = object.name_any() == name;
            is_it.then(|| Version::Domain(Box::new(object.status.clone().unwrap_or_default())))
        }));
        let api = Api::<ConfigMap>::all(client.clone());
        tasks.push(shared.follow(api, &of_domain, move |object, gone| {
            let pem = object.data.as_ref().and_then(|data| data.get(CA_CRT)).cloned();
            let place = format!("ConfigMap {}", object.namespace().unwrap_or_default());
            (object.name_any() == map).then(|| Version::Bundle(place, pem.filter(|_| !gone)))
        }));
        let api = Api::<ClusterTrustBundle>::all(client.clone());
        tasks.push(shared.follow(api, &of_domain, move |object, gone| {
            let pem = Some(object.spec.trust_bundle.clone()).filter(|_| !gone);
            (object.name_any() == cluster).then(|| Version::Bundle("the cluster".to_owned(), pem))
        }));
        let api = Api::<Secret>::all(client.clone());
        tasks.push(shared.follow(api, "countersign.dev/identity", move |object, gone| {
            let id = object.annotations().get("countersign.dev/spiffe-id")?;
            let place =
                format!("Secret {}/{}", object.namespace().unwrap_or_default(), object.name_any());
            let text = |key| {
                let data = object.data.as_ref()?.get(key)?;
                String::from_utf8(data.0.clone()).ok()
            };
            let files = text(TLS_CRT).zip(text(CA_CRT)).filter(|_| !gone);
            id.starts_with(&prefix).then_some(Version::Agent(place, files))
        }));
        let api = Api::<Secret>::namespaced(client.clone(), OPERATOR_NAMESPACE);
        tasks.push(shared.follow(api, &of_domain, |object, gone| {
            let held = serde_json::to_string(&object.data).expect("data can be written");
            let digest = format!("{:?}", Sha256::digest(held));
            Some(Version::Authority(object.name_any(), Some(digest).filter(|_| !gone)))
        }));
        let chronicle = Self { shared, tasks };
        chronicle
            .until("the chronicle has begun", crate::seconds(20), |history| {
                match history.status() {
                    Some(status) => Ok(status.clone()),
                    None => Err("no TrustDomain"),
                }
            })
            .await;
        chronicle
    }

    /// From now on the operator's clock is ahead by this many seconds.
    pub fn clock_ahead(&self, seconds: i64) {
        self.shared.ahead.store(seconds, Ordering::SeqCst);
    }

    /// What has been heard so far.
    pub fn history(&self) -> History {
        let mut entries = self.shared.lock().clone();
        entries.sort_by_key(|entry| entry.revision);
        History::new(&self.shared.trust_domain, entries)
    }

    /// Waits until `condition` holds of what has been heard.
    pub async fn until<T, E: Debug>(
        &self,
        what: &str,
        limit: Duration,
        mut condition: impl FnMut(&History) -> Result<T, E>,
    ) -> T {
        let what = format!("TrustDomain {}: {what}", self.shared.trust_domain);
        wait_for(&what, limit, async || condition(&self.history())).await
    }
}

impl Drop for Chronicle {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
        if std::thread::panicking() {
            let history = self.history();
            eprintln!(
                "===== the chronicle of {} =====\n{}",
                self.shared.trust_domain,
                history.story()
            );
        }
    }
}

impl Shared {
    /// Hears of every version of what `read` understands.
    fn follow<K>(
        self: &Arc<Self>,
        api: Api<K>,
        labels: &str,
        read: impl Fn(&K, bool) -> Option<Version> + Send + Sync + 'static,
    ) -> tokio::task::JoinHandle<()>
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        let (shared, labels) = (Arc::clone(self), labels.to_owned());
        tokio::spawn(async move {
            let mut known: HashMap<String, K> = HashMap::new();
            let mut from = None;
            // A watch ends by itself after some minutes, or with the API server.
            loop {
                let Some(since) = from.clone() else {
                    from = shared.list(&api, &labels, &mut known, &read).await;
                    continue;
                };
                let watch = WatchParams::default().labels(&labels);
                let Ok(stream) = api.watch(&watch, &since).await else {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                let mut stream = std::pin::pin!(stream);
                while let Some(Ok(event)) = stream.next().await {
                    let (object, gone) = match event {
                        WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, false),
                        WatchEvent::Deleted(object) => (object, true),
                        WatchEvent::Bookmark(_) => continue,
                        // An API server that was started anew knows nothing of before.
                        WatchEvent::Error(_) => {
                            from = None;
                            break;
                        }
                    };
                    from = object.resource_version();
                    shared.take(&read, &object, gone, false);
                    match gone {
                        true => known.remove(&name_of(&object)),
                        false => known.insert(name_of(&object), object),
                    };
                }
            }
        })
    }

    /// Takes what is there and is not known, and the end of what is known and is not there. Gives
    /// the revision to watch from. (What came and went between is not heard of.)
    async fn list<K>(
        &self,
        api: &Api<K>,
        labels: &str,
        known: &mut HashMap<String, K>,
        read: &impl Fn(&K, bool) -> Option<Version>,
    ) -> Option<String>
    where
        K: Resource + Clone + DeserializeOwned + Debug,
    {
        let list = api.list(&ListParams::default().labels(labels)).await;
        let Ok(list) = list else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            return None;
        };
        let is_first = known.is_empty();
        let mut gone = std::mem::take(known);
        for object in list.items {
            let before = gone.remove(&name_of(&object));
            if before.and_then(|before| before.resource_version()) != object.resource_version() {
                self.take(read, &object, false, is_first);
            }
            known.insert(name_of(&object), object);
        }
        let revision = list.metadata.resource_version;
        for mut object in gone.into_values() {
            object.meta_mut().resource_version.clone_from(&revision);
            self.take(read, &object, true, false);
        }
        revision
    }

    fn take<K: Resource>(
        &self,
        read: &impl Fn(&K, bool) -> Option<Version>,
        object: &K,
        gone: bool,
        was_there: bool,
    ) {
        if let Some(version) = read(object, gone) {
            // Leaves that are there already were signed by what was Active before.
            let comes_first = was_there && matches!(version, Version::Domain(_));
            self.note(object, version, comes_first);
        }
    }

    fn note<K: Resource>(&self, object: &K, version: Version, comes_first: bool) {
        let revision = object.meta().resource_version.as_deref().unwrap_or_default();
        let revision = revision.parse().expect("etcd's revision is a number");
        let revision = if comes_first { 0 } else { revision };
        let ahead = SignedDuration::from_secs(self.ahead.load(Ordering::SeqCst));
        self.lock().push(Entry { revision, at: now() + ahead, version });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().expect("nobody panics holding this")
    }
}

fn name_of<K: Resource>(object: &K) -> String {
    format!("{}/{}", object.meta().namespace.as_deref().unwrap_or_default(), object.name_any())
}
