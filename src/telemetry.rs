//! What the program tells about itself while it works: counters, and Events waiting to be sent.
//!
//! The lowest level of all, so that every stage can count. How the numbers are served and who
//! sends the Events is the runtime's business.

use std::sync::atomic::AtomicU64;

use k8s_openapi::api::core::v1::ObjectReference;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use tokio::sync::mpsc;

/// Every number the program counts. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Certificates asked for, by why and how it went.
    pub issuances: Family<IssuanceLabels, Counter>,
    /// Failures that were told of in a condition and a Warning Event, by reason.
    pub failures: Family<ReasonLabels, Counter>,
    /// Reconciliations, in seconds, by controller.
    pub reconcile_seconds: Family<ControllerLabels, Histogram>,
    /// Reconciliations that failed, by controller and kind of error.
    pub reconcile_errors: Family<ErrorLabels, Counter>,
    /// Making, signing and verifying one certificate, in seconds.
    pub sign_seconds: Histogram,
    /// Objects of access policies that were written, by enforcer and how it went.
    pub access_writes: Family<EnforcerLabels, Counter>,
    /// Steps of revocations that were done, by step.
    pub revocations: Family<StepLabels, Counter>,
    /// Signing one CRL, in seconds.
    pub crl_seconds: Histogram,
    /// Watches that broke and were started again, by resource.
    pub watch_errors: Family<ResourceLabels, Counter>,
    /// Events that were sent.
    pub events_sent: Counter,
    /// Events that were dropped because too many waited.
    pub events_dropped: Counter,
    /// 1 while this replica leads.
    pub leader: Gauge,
}

/// Why a certificate was asked for, and how it went.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct IssuanceLabels {
    pub reason: &'static str,
    pub result: &'static str,
}

/// Which step of a revocation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StepLabels {
    pub step: &'static str,
}

/// Which of the conditions' reasons.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabels {
    pub reason: &'static str,
}

/// Which controller.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ControllerLabels {
    pub controller: &'static str,
}

/// Which controller, and which of a fixed set of kinds of error.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ErrorLabels {
    pub controller: &'static str,
    pub kind: &'static str,
}

/// For which enforcer an object was written, and how it went.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EnforcerLabels {
    pub enforcer: &'static str,
    pub result: &'static str,
}

/// Which resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResourceLabels {
    pub resource: &'static str,
}

impl Metrics {
    /// Numbers that all stand at zero, entered into a registry.
    pub fn register(registry: &mut Registry) -> Self {
        let reconcile = || Histogram::new(exponential_buckets(0.000_5, 2.0, 16));
        let metrics = Metrics {
            issuances: Family::default(),
            failures: Family::default(),
            reconcile_seconds: Family::new_with_constructor(reconcile as fn() -> Histogram),
            reconcile_errors: Family::default(),
            sign_seconds: Histogram::new(exponential_buckets(0.000_02, 2.0, 18)),
            access_writes: Family::default(),
            revocations: Family::default(),
            crl_seconds: Histogram::new(exponential_buckets(0.000_1, 2.0, 14)),
            watch_errors: Family::default(),
            events_sent: Counter::default(),
            events_dropped: Counter::default(),
            leader: Gauge::default(),
        };
        let seconds = || Unit::Seconds;
        registry.register(
            "countersign_issuances",
            "Certificates asked for, by reason and result",
            metrics.issuances.clone(),
        );
        registry.register(
            "countersign_failures",
            "Failures that were told of in a condition and a Warning Event, by reason",
            metrics.failures.clone(),
        );
        registry.register_with_unit(
            "countersign_reconcile_duration",
            "Time of one reconciliation",
            seconds(),
            metrics.reconcile_seconds.clone(),
        );
        registry.register(
            "countersign_reconcile_errors",
            "Reconciliations that failed, by kind of error",
            metrics.reconcile_errors.clone(),
        );
        registry.register_with_unit(
            "countersign_sign_duration",
            "Time to make, sign and verify one certificate, its key included",
            seconds(),
            metrics.sign_seconds.clone(),
        );
        registry.register(
            "countersign_access_writes",
            "Objects written for access policies, by enforcer and result",
            metrics.access_writes.clone(),
        );
        registry.register(
            "countersign_revocation_steps",
            "Steps of revocations that were done",
            metrics.revocations.clone(),
        );
        registry.register_with_unit(
            "countersign_crl_sign_duration",
            "Time to sign one CRL",
            seconds(),
            metrics.crl_seconds.clone(),
        );
        registry.register(
            "countersign_watch_errors",
            "Watches that broke and were started again",
            metrics.watch_errors.clone(),
        );
        registry.register(
            "countersign_events_sent",
            "Kubernetes Events that were sent",
            metrics.events_sent.clone(),
        );
        registry.register(
            "countersign_events_dropped",
            "Kubernetes Events that were dropped because too many waited",
            metrics.events_dropped.clone(),
        );
        registry.register(
            "countersign_leader",
            "1 while this replica leads, else 0",
            metrics.leader.clone(),
        );
        metrics
    }
}

/// An Event that waits to be sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    pub object: ObjectReference,
    /// Failures go first, and are Warnings.
    pub is_failure: bool,
    pub reason: &'static str,
    /// What was being done, such as `Issue`.
    pub action: &'static str,
    pub note: String,
}

/// Where Events are handed in. Never in anyone's way: a full outbox drops and counts.
#[derive(Clone, Debug)]
pub struct Outbox {
    failures: mpsc::Sender<Notice>,
    others: mpsc::Sender<Notice>,
    dropped: Counter<u64, AtomicU64>,
}

/// Where Events are taken out, failures first.
#[derive(Debug)]
pub struct Inbox {
    failures: mpsc::Receiver<Notice>,
    others: mpsc::Receiver<Notice>,
}

/// How many Events of a kind may wait: 25 seconds' worth at the rate they are sent. Older news
/// than that is in the status and the log.
const WAITING: usize = 500;

/// Two ends of a queue of Events.
pub fn outbox(metrics: &Metrics) -> (Outbox, Inbox) {
    let (failures, failures_in) = mpsc::channel(WAITING);
    let (others, others_in) = mpsc::channel(WAITING);
    let dropped = metrics.events_dropped.clone();
    (Outbox { failures, others, dropped }, Inbox { failures: failures_in, others: others_in })
}

impl Outbox {
    /// Hands in an Event, or drops it where too many wait.
    pub fn put(&self, notice: Notice) {
        let queue = if notice.is_failure { &self.failures } else { &self.others };
        if queue.try_send(notice).is_err() {
            self.dropped.inc();
        }
    }
}

impl Inbox {
    /// The next Event, failures first; None when every outbox is gone.
    pub async fn take(&mut self) -> Option<Notice> {
        tokio::select! {
            biased;
            Some(notice) = self.failures.recv() => Some(notice),
            Some(notice) = self.others.recv() => Some(notice),
            else => None,
        }
    }
}
