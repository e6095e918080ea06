//! One reconciler a resource, each the same numbered sentence; what they share; and the queues
//! that say whose turn it is.

pub mod access;
pub mod clock;
pub mod cluster_bundles;
pub mod identity;
pub mod pace;
pub mod pod;
pub mod queue;
pub mod roster;
pub mod summary;
pub mod trust_domain;
pub mod watches;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;

use crate::identity::IdentityKey;
use crate::observe::{Book, Memory, View};
use crate::sign::forge::Forge;
use crate::telemetry::{ControllerLabels, Metrics, Notice, Outbox, ReasonLabels};
use crate::watch::ObjectKey;
use crate::watch::census::Concerned;
use crate::watch::time::Timekeeper;
use crate::wire::WireError;

use pace::Pace;
use queue::Queue;

/// Everything that the reconcilers share.
pub struct Context {
    pub client: Client,
    pub view: View,
    pub memory: Memory,
    /// What is revoked.
    pub book: Book,
    pub forge: Forge,
    /// This machine's clock, and whether it can be believed.
    pub time: Arc<Timekeeper>,
    /// What the CRL distribution point in each certificate begins with.
    pub crl_url: Option<String>,
    /// Whether this replica still leads. Asked before every turn: a process that was held up for
    /// longer than its lease must not act on what it was about to do.
    pub may_act: Box<dyn Fn() -> bool + Send + Sync>,
    pub metrics: Metrics,
    pub outbox: Outbox,
    /// How fast a changed bundle is written into Secrets.
    pub bundle_pace: Pace<IdentityKey>,
    /// How fast certificates of a retiring CA are replaced.
    pub reissue_pace: Pace<IdentityKey>,
    pub slots: trust_domain::SlotMemory,
    pub identities: Queue<IdentityKey>,
    /// How fast identities that were Ready are looked at after a start.
    pub first_looks: Pace<()>,
    pub pods: Queue<ObjectKey>,
    /// ServiceAccounts whose pods are to be read.
    pub pod_reads: Queue<ObjectKey>,
    pub trust_domains: Queue<String>,
    /// Namespaces whose roster is to be looked at.
    pub rosters: Queue<Arc<str>>,
    pub roster_writes: roster::LastWrites,
    /// Namespaces whose access policies are to be compiled.
    pub access: Queue<String>,
    pub access_memory: access::AccessMemory,
}

/// How long a change of pods waits before it is counted in an identity's status: a Deployment
/// of ten then costs one or two writes, not ten.
const POD_COUNT_DELAY: Duration = Duration::from_secs(1);

impl Context {
    /// Now, by a clock that can be believed.
    pub fn now(&self) -> Timestamp {
        self.time.now()
    }

    /// Takes a turn and counts how long it took; None, and no turn, where this replica must not
    /// act any more.
    pub async fn turn<T>(
        &self,
        controller: &'static str,
        reconcile: impl Future<Output = T>,
    ) -> Option<T> {
        if !(self.may_act)() {
            return None;
        }
        let start = Instant::now();
        let result = reconcile.await;
        let seconds = start.elapsed().as_secs_f64();
        let labels = ControllerLabels { controller };
        self.metrics.reconcile_seconds.get_or_create(&labels).observe(seconds);
        Some(result)
    }

    /// Wakes whomever a change of an identity or a trust domain concerns.
    pub fn wake(&self, concerned: Concerned) {
        let mut namespaces = BTreeSet::new();
        for key in concerned.identities {
            namespaces.insert(key.namespace.clone());
            self.identities.wake(key);
        }
        for account in concerned.accounts {
            self.wake_pods(&account);
            namespaces.insert(account.namespace);
        }
        for namespace in namespaces {
            self.rosters.wake(namespace);
        }
    }

    /// Wakes the pods of a ServiceAccount, whose labels may have to change.
    pub fn wake_pods(&self, account: &ObjectKey) {
        for key in self.view.pod_index.of_account(account) {
            self.pods.wake(key);
        }
    }

    /// Has the pods of a ServiceAccount's identities counted anew, soon.
    pub fn recount_pods(&self, account: &ObjectKey) {
        for key in self.view.census.of_account(account) {
            self.identities.wake_after(key, POD_COUNT_DELAY);
        }
    }

    /// The trust domains' rules or CAs changed: everybody's claim is worked out anew.
    pub fn domains_changed(&self) {
        self.wake(self.view.census.recount(&self.view.domains));
        access::everything_changed(self);
    }

    /// Hands in an Event about an object, and counts it where it is a failure.
    pub fn tell(
        &self,
        object: ObjectReference,
        is_failure: bool,
        reason: &'static str,
        action: &'static str,
        note: String,
    ) {
        if is_failure {
            self.metrics.failures.get_or_create(&ReasonLabels { reason }).inc();
        }
        self.outbox.put(Notice { object, is_failure, reason, action, note });
    }
}

/// When to look again, if time alone can change anything.
pub type Next = Option<Duration>;

/// The time from now until a moment; a moment that has passed is now.
pub fn until(moment: Timestamp, now: Timestamp) -> Duration {
    // A fraction more, so that "has it come?" is surely answered yes.
    Duration::try_from(moment.duration_since(now)).unwrap_or_default() + Duration::from_millis(5)
}

/// Names, the first few of them, for a message.
pub fn some_of(names: &BTreeSet<String>) -> String {
    let shown: Vec<&str> = names.iter().take(5).map(String::as_str).collect();
    let more = names.len().saturating_sub(shown.len());
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}

/// Runs every controller until the future that is returned is dropped.
///
/// The order of the start matters: trust domains are known before an identity is looked at, or a
/// restart would find ten thousand identities without one, and say so in ten thousand writes.
pub async fn run(context: Arc<Context>, queues: Queues) {
    let watches = watches::run(context.clone());
    let trust_domains = async {
        let view = &context.view;
        view.trust_domains.wait_until_ready().await;
        view.namespaces.wait_until_ready().await;
        view.slots.wait_until_ready().await;
        view.bundles.wait_until_ready().await;
        view.revocations.wait_until_ready().await;
        // One place of many that hold a bundle: its trouble is not everybody's.
        let known = tokio::time::timeout(CLUSTER_BUNDLES, view.cluster_bundles.wait_until_ready());
        if known.await.is_err() {
            tracing::warn!("ClusterTrustBundles could not be listed; going on without");
        }
        let reconcile = {
            let context = context.clone();
            move |name: String| {
                let context = context.clone();
                async move { trust_domain::run(&context, &name).await }
            }
        };
        trust_domain::load(&context).await;
        queues.trust_domains.run(TRUST_DOMAINS_AT_ONCE, reconcile).await;
    };
    let identities = async {
        let view = &context.view;
        view.domains.wait_until_loaded().await;
        view.identities.wait_until_ready().await;
        view.secrets.wait_until_ready().await;
        view.pods.wait_until_ready().await;
        let reconcile = {
            let context = context.clone();
            move |key: IdentityKey| {
                let context = context.clone();
                async move { identity::run(&context, &key).await }
            }
        };
        queues.identities.run(IDENTITIES_AT_ONCE, reconcile).await;
    };
    let pods = async {
        context.view.domains.wait_until_loaded().await;
        context.view.identities.wait_until_ready().await;
        let reconcile = {
            let context = context.clone();
            move |key: ObjectKey| {
                let context = context.clone();
                async move { pod::run(&context, &key).await }
            }
        };
        queues.pods.run(PODS_AT_ONCE, reconcile).await;
    };
    let rosters = async {
        let view = &context.view;
        view.domains.wait_until_loaded().await;
        view.identities.wait_until_ready().await;
        view.rosters.wait_until_ready().await;
        let reconcile = {
            let context = context.clone();
            move |namespace: Arc<str>| {
                let context = context.clone();
                async move { roster::run(&context, &namespace).await }
            }
        };
        queues.rosters.run(ROSTERS_AT_ONCE, reconcile).await;
    };
    let pod_reads = queues.pod_reads.run(PODS_AT_ONCE, {
        let context = context.clone();
        move |account: ObjectKey| {
            let context = context.clone();
            async move { watches::read_pods(&context, &account).await }
        }
    });
    let access = async {
        let view = &context.view;
        view.domains.wait_until_loaded().await;
        view.identities.wait_until_ready().await;
        view.pods.wait_until_ready().await;
        // Of an object made of several policies, all must be known, or it would be written twice.
        view.access_policies.wait_until_ready().await;
        let reconcile = {
            let context = context.clone();
            move |namespace: String| {
                let context = context.clone();
                async move { access::run(&context, &namespace).await }
            }
        };
        queues.access.run(NAMESPACES_AT_ONCE, reconcile).await;
    };
    let summary = summary::run(context.clone());
    let clock = clock::run(&context);
    // None of them ends by itself; whichever does, the caller ends the process.
    tokio::select! {
        () = watches => {}
        () = trust_domains => {}
        () = identities => {}
        () = pods => {}
        () = pod_reads => {}
        () = rosters => {}
        () = access => {}
        () = summary => {}
        () = clock => {}
    }
}

/// The far ends of the queues, where work is taken out.
pub struct Queues {
    pub identities: queue::Worker<IdentityKey>,
    pub pods: queue::Worker<ObjectKey>,
    pub pod_reads: queue::Worker<ObjectKey>,
    pub trust_domains: queue::Worker<String>,
    pub rosters: queue::Worker<Arc<str>>,
    pub access: queue::Worker<String>,
}

/// How long a start waits for the list of ClusterTrustBundles.
const CLUSTER_BUNDLES: Duration = Duration::from_secs(10);

/// Enough to keep an API server busy: each waits for its answer most of the time. At 64 a server
/// on two cores is at its limit, and more only lengthen its queue.
const IDENTITIES_AT_ONCE: usize = 64;
const PODS_AT_ONCE: usize = 16;
const TRUST_DOMAINS_AT_ONCE: usize = 4;
const ROSTERS_AT_ONCE: usize = 8;
const NAMESPACES_AT_ONCE: usize = 4;

/// True where trying again at once may do: somebody else wrote between our read and our write.
fn is_conflict(error: &WireError) -> bool {
    matches!(error, WireError::Conflict(_))
}
