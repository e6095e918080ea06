//! Who leads: a Lease that is only ever written with the resourceVersion that was read.
//!
//! Times are measured on this machine's own monotonic clock, and never compared with another's
//! (the times in the Lease are for people, and tell a new leader whether there was a long silence). A leader stops acting `STOPS_AFTER` after the last
//! renewal that it knows to have arrived, counted from before it was sent; another may start
//! `LASTS` after it last saw the Lease change, which is later.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Method;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::ObjectMeta;
use kube::{Client, ResourceExt};
use tokio::time::Instant;

use super::clock;
use crate::watch::time::Timekeeper;
use crate::wire::{self, WireError};

/// How long a Lease that does not change is respected. A leader that was killed is replaced after
/// this and one `TICK`, and a new one has ten thousand identities to list before it can act: under
/// fifteen seconds in all to the next issuance.
const LASTS: Duration = Duration::from_secs(8);
/// When a leader that cannot renew stops acting: two renewals may be lost, not three.
const STOPS_AFTER: Duration = Duration::from_secs(6);
/// How often a leader renews and the others look.
const TICK: Duration = Duration::from_secs(2);
/// One request. kube repeats requests by itself for longer than a lease lasts.
const PATIENCE: Duration = Duration::from_secs(3);

/// Runs for leader, leads, steps down.
pub struct Elector {
    client: Client,
    /// The path of the Leases of the operator's namespace.
    leases: String,
    name: String,
    holder: String,
    contact: Contact,
    time: Arc<Timekeeper>,
    /// The Lease while this replica holds it.
    held: Mutex<Option<Lease>>,
}

/// The right to act, for as long as it is renewed.
#[derive(Clone, Debug)]
pub struct Leadership(Arc<Mutex<Instant>>);

/// When the API server last answered.
#[derive(Clone, Debug, Default)]
pub struct Contact(Arc<Mutex<Option<Instant>>>);

impl Leadership {
    /// True if and only if this replica may act now.
    pub fn holds(&self) -> bool {
        Instant::now() < *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn until(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn extend(&self, sent: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = sent + STOPS_AFTER;
    }
}

impl Contact {
    /// True if and only if the API server answered within this time.
    pub fn is_within(&self, time: Duration) -> bool {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|last| last.elapsed() < time)
    }

    fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}

impl Elector {
    /// A candidate. `replica` is a name for people; what tells holders apart is random, so that a
    /// program that was restarted does not take itself for the one before.
    pub fn new(
        client: Client,
        namespace: &str,
        name: &str,
        replica: &str,
        time: Arc<Timekeeper>,
    ) -> Self {
        let mut mark = [0; 4];
        aws_lc_rs::rand::fill(&mut mark).expect("a system without random bytes can do nothing");
        Elector {
            client,
            leases: format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"),
            name: name.to_owned(),
            holder: format!("{replica}_{}", crate::x509::hex(&mark)),
            contact: Contact::default(),
            time,
            held: Mutex::new(None),
        }
    }

    /// This candidate's name in the Lease.
    pub fn holder(&self) -> &str {
        &self.holder
    }

    /// When the API server last answered this candidate.
    pub fn contact(&self) -> Contact {
        self.contact.clone()
    }

    /// Waits until this replica leads.
    pub async fn acquire(&self) -> Leadership {
        // The version of the Lease (empty while there is none), and since when it is known not to
        // have changed.
        let mut seen: Option<(String, Instant)> = None;
        let mut silent = false;
        loop {
            let sent = Instant::now();
            match self.run_for_leader(&mut seen).await {
                Ok(Some(lease)) => {
                    self.hold(Some(lease));
                    let leadership = Leadership(Arc::new(Mutex::new(sent)));
                    leadership.extend(sent);
                    return leadership;
                }
                Ok(None) => silent = false,
                // Another was faster.
                Err(WireError::Conflict(_)) => {}
                Err(error) => {
                    if !std::mem::replace(&mut silent, true) {
                        tracing::warn!(%error, "the lease cannot be read; trying until it can");
                    }
                }
            }
            tokio::time::sleep(TICK).await;
        }
    }

    /// Renews until that fails for too long, or another leads.
    pub async fn keep(&self, leadership: &Leadership) {
        loop {
            let next = Instant::now() + TICK;
            tokio::time::sleep_until(next.min(leadership.until())).await;
            if !leadership.holds() {
                break;
            }
            let sent = Instant::now();
            match tokio::time::timeout_at(leadership.until(), self.renew()).await {
                Ok(Ok(true)) => leadership.extend(sent),
                Ok(Ok(false)) => break,
                Ok(Err(error)) => tracing::warn!(%error, "the lease was not renewed"),
                Err(_) => break,
            }
        }
        self.hold(None);
    }

    /// Gives the lease back, if it is held, so that another need not wait.
    pub async fn release(&self) {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut lease) = held else { return };
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = None;
        spec.renew_time = Some(MicroTime(clock::now()));
        if let Err(error) = self.put(&lease).await {
            tracing::debug!(%error, "the lease was not given back");
        }
    }

    async fn run_for_leader(
        &self,
        seen: &mut Option<(String, Instant)>,
    ) -> Result<Option<Lease>, WireError> {
        let Some(lease) = self.get().await? else {
            return match seen {
                None => self.create().await.map(Some),
                Some((version, since)) if version.is_empty() && since.elapsed() >= LASTS => {
                    self.create().await.map(Some)
                }
                // Somebody deleted it. Whoever held it acts until it notices.
                Some((version, _)) => {
                    if !version.is_empty() {
                        *seen = Some((String::new(), Instant::now()));
                    }
                    Ok(None)
                }
            };
        };
        let version = lease.resource_version().unwrap_or_default();
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref());
        let is_free = holder.is_none_or(str::is_empty);
        let since = match seen {
            Some((known, since)) if *known == version => *since,
            _ => {
                *seen = Some((version, Instant::now()));
                Instant::now()
            }
        };
        if !is_free && since.elapsed() < LASTS {
            return Ok(None);
        }
        if let Some(renewed) = lease.spec.as_ref().and_then(|spec| spec.renew_time.as_ref()) {
            self.time.succeed(renewed.0);
        }
        let transitions = lease.spec.as_ref().and_then(|spec| spec.lease_transitions);
        let taken = Lease {
            metadata: lease.metadata,
            spec: Some(self.spec(transitions.unwrap_or_default() + 1)),
        };
        self.put(&taken).await.map(Some)
    }

    /// False where another holds the lease.
    async fn renew(&self) -> Result<bool, WireError> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(mut lease) = held else { return Ok(false) };
        lease.spec.get_or_insert_default().renew_time = Some(MicroTime(clock::now()));
        match self.put(&lease).await {
            Ok(lease) => self.hold(Some(lease)),
            // Our own write whose answer was lost, somebody's annotation, or another leader.
            Err(WireError::Conflict(_)) => {
                let Some(found) = self.get().await? else { return Ok(false) };
                let holder = found.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref());
                if holder != Some(&self.holder) {
                    return Ok(false);
                }
                self.hold(Some(found));
                return Err(WireError::Conflict("the Lease was changed by another".to_owned()));
            }
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    fn hold(&self, lease: Option<Lease>) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = lease;
    }

    fn spec(&self, transitions: i32) -> LeaseSpec {
        let now = MicroTime(clock::now());
        LeaseSpec {
            holder_identity: Some(self.holder.clone()),
            lease_duration_seconds: Some(LASTS.as_secs() as i32),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }

    async fn get(&self) -> Result<Option<Lease>, WireError> {
        let path = format!("{}/{}", self.leases, self.name);
        match self.ask(Method::GET, &path, None).await {
            Err(WireError::NotFound(_)) => Ok(None),
            found => found.map(Some),
        }
    }

    async fn create(&self) -> Result<Lease, WireError> {
        let lease = Lease {
            metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
            spec: Some(self.spec(0)),
        };
        self.ask(Method::POST, &self.leases, Some(&lease)).await
    }

    async fn put(&self, lease: &Lease) -> Result<Lease, WireError> {
        self.ask(Method::PUT, &format!("{}/{}", self.leases, self.name), Some(lease)).await
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        lease: Option<&Lease>,
    ) -> Result<Lease, WireError> {
        let sent = std::time::Instant::now();
        let request = wire::dated(&self.client, method, path, lease);
        let Ok((answer, date)) = tokio::time::timeout(PATIENCE, request).await else {
            return Err(WireError::Unreachable(format!("no answer within {PATIENCE:?}")));
        };
        if let Some(date) = date {
            self.time.hear(date, sent);
        }
        if !matches!(answer, Err(WireError::Unreachable(_))) {
            self.contact.note();
        }
        answer
    }
}
