//! TrustDomain: from its spec to CAs that sign and a bundle in every namespace.
//!
//! The order is what makes it safe: a CA's Secret is kept before anything else speaks of it; the
//! bundle is published before the CA signs (rule 2); and only then do identities hear of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use kube::Resource;

use super::{Context, Next, is_conflict, some_of, until};
use crate::api::conditions::{BUNDLE_PUBLISHED, DEFAULT, READY, Reason};
use crate::api::names::bundle_config_map_name;
use crate::api::{BundleStatus, SlotPhase, SlotStatus, TrustDomain, TrustDomainStatus};
use crate::apply;
use crate::decide::bundle::{self, BundleFacts, NamespaceFacts};
use crate::decide::slots::{self, Blocked, SlotPlan, SlotSecret};
use crate::identity::Domain;
use crate::observe::slots::read;
use crate::observe::view::Object;
use crate::sign::{Authority, Chain, LocalAuthority, SignError, Slot};
use crate::status::{condition, patch_of};
use crate::telemetry::{ControllerLabels, ErrorLabels};
use crate::watch::ObjectKey;
use crate::watch::domains::DomainState;
use crate::wire::{self, WireError};

const CONTROLLER: &str = "trust-domain";
/// After a failure. The API server is gone or refuses; neither passes in a moment.
const RETRY: Duration = Duration::from_secs(5);
/// Writes of one bundle under way at once.
const WRITES_AT_ONCE: usize = 8;

/// The CAs of each trust domain as they were last read, by the versions of their Secrets, so that
/// a turn that has nothing to do with them does not read keys again.
#[derive(Default)]
pub struct SlotMemory(Mutex<HashMap<String, Remembered>>);

struct Remembered {
    versions: BTreeMap<String, String>,
    facts: Vec<SlotSecret>,
    authority: Option<Arc<LocalAuthority>>,
}

/// What a turn can fail of.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("a CA could not be made: {0}")]
    Sign(#[from] SignError),
}

/// Looks at every TrustDomain once, and then lets identities be looked at.
pub async fn load(context: &Context) {
    for (key, _) in context.view.trust_domains.all() {
        if let Some(wait) = run(context, &key.name).await {
            context.trust_domains.wake_after(key.name.to_string(), wait);
        }
    }
    context.view.domains.set_loaded();
}

/// One turn of a TrustDomain; says when to come back.
pub async fn run(context: &Context, name: &str) -> Next {
    if !(context.may_act)() {
        return None;
    }
    let start = Instant::now();
    let result = reconcile(context, name).await;
    let labels = ControllerLabels { controller: CONTROLLER };
    context.metrics.reconcile_seconds.get_or_create(&labels).observe(start.elapsed().as_secs_f64());
    let error = match result {
        Ok(next) => return next,
        Err(error) => error,
    };
    let kind = match &error {
        Failure::Wire(error) if is_conflict(error) => {
            tracing::debug!(trust_domain = name, %error, "looking again");
            return Some(Duration::from_millis(200));
        }
        Failure::Wire(error) => error.kind(),
        Failure::Sign(_) => "sign",
    };
    let labels = ErrorLabels { controller: CONTROLLER, kind };
    context.metrics.reconcile_errors.get_or_create(&labels).inc();
    tracing::warn!(trust_domain = name, %error, "not done");
    Some(RETRY)
}

async fn reconcile(context: &Context, name: &str) -> Result<Next, Failure> {
    let now = (context.clock)();
    // 1. Understand the spec.
    let object = context.view.trust_domains.get(&ObjectKey::new("", name));
    let resource = match object.as_deref() {
        Some(Object::Read(resource)) if resource.metadata.deletion_timestamp.is_none() => resource,
        _ => {
            forget(context, name);
            return Ok(None);
        }
    };
    let mut report = Report::new(resource, now);
    let domain = match Domain::parse(resource) {
        Ok(domain) => domain,
        Err(error) => {
            forget(context, name);
            report.not_ready(Reason::InvalidSpec, error.to_string());
            return publish(context, resource, report).await.map(|()| None);
        }
    };
    report.default(&domain, older(context, resource, |other| other.spec.default));
    let rival = older(context, resource, |other| other.spec.domain == resource.spec.domain);

    // 2. to 5. The CAs: observe, decide, make what is missing, and again.
    let (plan, authority) = match rival {
        Some(rival) => (duplicate(&domain, &rival), None),
        None => secure(context, &domain, &report.status.slots).await?,
    };
    let chain = match (&plan.chain, authority) {
        (Ok(_), Some(authority)) => Ok(authority),
        (Err(blocked), _) => Err(blocked.clone()),
        (Ok(names), None) => Err(Blocked {
            reason: Reason::CaSecretInvalid,
            message: format!("the CA in Secret {} cannot sign", names.issuing),
        }),
    };
    let authority = match chain {
        Ok(authority) => authority,
        Err(blocked) => {
            report.status.slots = plan.slots;
            report.not_ready(blocked.reason, blocked.message.clone());
            install(context, &domain, Err(blocked));
            return publish(context, resource, report).await.map(|()| Some(BLOCKED_CHECK));
        }
    };
    if report.status.slots.is_empty() {
        // Recorded before anybody trusts them: from here on they are not silently replaced.
        let mut first = Report::new(resource, now);
        first.status.slots = prepared(&plan.slots);
        first.not_ready(Reason::Preparing, "the bundle is being published".to_owned());
        publish(context, resource, first).await?;
        return Ok(Some(Duration::ZERO));
    }
    let unreached = spread(context, &domain, authority.chain()).await;
    report.published(&unreached);
    report.active(plan.slots, authority.chain());
    let end = authority.chain().facts.not_after;
    install(context, &domain, Ok(authority));

    // 6. Status.
    publish(context, resource, report).await?;
    Ok(Some(if unreached.is_empty() { until(end, now) } else { RETRY }))
}

/// A blocked CA has its Secret watched; this is for what no watch tells.
const BLOCKED_CHECK: Duration = Duration::from_secs(60);

fn forget(context: &Context, name: &str) {
    context.slots.lock().remove(name);
    if context.view.domains.remove(name) {
        context.domains_changed();
    }
}

/// Lets identities hear of what signs, or of why nothing does.
fn install(context: &Context, domain: &Domain, authority: Result<Arc<LocalAuthority>, Blocked>) {
    let authority = authority.map(|authority| authority as Arc<dyn Authority>);
    if context.view.domains.set(DomainState { domain: domain.clone(), authority }) {
        context.domains_changed();
    }
}

/// The oldest TrustDomain before this one of which `same` holds.
fn older(
    context: &Context,
    resource: &TrustDomain,
    same: impl Fn(&TrustDomain) -> bool,
) -> Option<String> {
    let age = |resource: &TrustDomain| {
        let metadata = &resource.metadata;
        (metadata.creation_timestamp.as_ref().map(|time| time.0), metadata.uid.clone())
    };
    context
        .view
        .trust_domains
        .all()
        .into_iter()
        .filter_map(|(_, object)| match &*object {
            Object::Read(other) => Some(other.clone()),
            Object::Unreadable { .. } => None,
        })
        .filter(|other| same(other) && age(other) < age(resource))
        .min_by_key(|other| age(other))
        .and_then(|other| other.metadata.name.clone())
}

fn duplicate(domain: &Domain, rival: &str) -> SlotPlan {
    let message = format!(
        "the older TrustDomain {rival} has the domain {}, and two CAs under one name would vouch for each other's identities: delete one of the two",
        domain.domain
    );
    let blocked = Blocked { reason: Reason::DuplicateDomain, message };
    SlotPlan { create: None, slots: Vec::new(), chain: Err(blocked) }
}

/// Sees that the trust domain has its CAs.
async fn secure(
    context: &Context,
    domain: &Domain,
    recorded: &[SlotStatus],
) -> Result<(SlotPlan, Option<Arc<LocalAuthority>>), Failure> {
    let namespace = &context.view.namespace;
    let versions: BTreeMap<String, String> = context
        .view
        .slots
        .all()
        .into_iter()
        .filter(|(_, version)| version.trust_domain == domain.name)
        .map(|(key, version)| (key.name.to_string(), version.resource_version.clone()))
        .collect();
    if let Some(remembered) = context.slots.lock().get(&domain.name)
        && remembered.versions == versions
        && remembered.authority.is_some()
    {
        let plan = slots::decide(domain, &remembered.facts, recorded, (context.clock)());
        return Ok((plan, remembered.authority.clone()));
    }
    // Root, then issuing, then both are there.
    loop {
        let found = read(&context.client, namespace, &domain.name).await?;
        let facts: Vec<SlotSecret> = found.iter().map(|found| found.facts.clone()).collect();
        let plan = slots::decide(domain, &facts, recorded, (context.clock)());
        let mut slots: HashMap<String, Slot> =
            found.into_iter().filter_map(|found| Some((found.facts.name, found.slot?))).collect();
        let Some(order) = &plan.create else {
            let authority = match &plan.chain {
                Ok(names) => match (slots.remove(&names.issuing), slots.get(&names.root)) {
                    (Some(issuing), Some(root)) => Some(Arc::new(issuing.into_authority(root)?)),
                    _ => None,
                },
                Err(_) => None,
            };
            let remembered = Remembered { versions, facts, authority: authority.clone() };
            context.slots.lock().insert(domain.name.clone(), remembered);
            return Ok((plan, authority));
        };
        let parent = order.parent.as_ref().and_then(|name| slots.remove(name));
        let (made, order) = {
            let (domain, order, clock) = (domain.clone(), order.clone(), context.clock);
            // An RSA key takes seconds: not on a thread that others wait for.
            tokio::task::spawn_blocking(move || {
                let made = Slot::make(&domain, &order, parent.as_ref(), clock());
                (made, order)
            })
            .await
            .map_err(|error| SignError::Sign(error.to_string()))?
        };
        let slot = made?;
        tracing::info!(trust_domain = domain.name, secret = order.name, key_id = slot.ca.key_id,
            until = %slot.ca.not_after, "a CA is made");
        apply::slots::create(&context.client, namespace, domain, &order, &slot).await?;
    }
}

fn prepared(slots: &[SlotStatus]) -> Vec<SlotStatus> {
    let prepare = |slot: &SlotStatus| SlotStatus { phase: SlotPhase::Prepared, ..slot.clone() };
    slots.iter().map(prepare).collect()
}

/// Writes the bundle where it is missing or wrong. Returns the namespaces that were not reached.
async fn spread(context: &Context, domain: &Domain, chain: &Chain) -> BTreeSet<String> {
    let name = bundle_config_map_name(&domain.name);
    let namespaces: BTreeMap<String, NamespaceFacts> = context
        .view
        .namespaces
        .all()
        .into_iter()
        .map(|(key, facts)| (key.name.to_string(), (*facts).clone()))
        .collect();
    let found: BTreeMap<String, BundleFacts> = context
        .view
        .bundles
        .all()
        .into_iter()
        .filter(|(key, _)| *key.name == name)
        .map(|(key, facts)| (key.namespace.to_string(), (*facts).clone()))
        .collect();
    let writes = bundle::decide(domain, chain.facts.bundle, &namespaces, &found);
    futures::stream::iter(writes)
        .map(|write| async move {
            let result = apply::bundle::write(&context.client, domain, chain, &write).await;
            (write, result)
        })
        .buffer_unordered(WRITES_AT_ONCE)
        .filter_map(|(write, result)| async move {
            match (&write, result) {
                (_, Ok(())) => None,
                // The mirror is behind our own write of a moment ago, and will catch up.
                (bundle::BundleWrite::Replace { .. }, Err(WireError::Conflict(_))) => None,
                (write, Err(error)) => {
                    let namespace = write.namespace().to_owned();
                    tracing::warn!(trust_domain = domain.name, namespace, %error, "the bundle is not written");
                    Some(namespace)
                }
            }
        })
        .collect()
        .await
}

/// A status in the making, on top of the one that is there.
struct Report {
    status: TrustDomainStatus,
    generation: i64,
    now: jiff::Timestamp,
    failure: Option<(Reason, String)>,
}

impl Report {
    fn new(resource: &TrustDomain, now: jiff::Timestamp) -> Self {
        Report {
            status: resource.status.clone().unwrap_or_default(),
            generation: resource.metadata.generation.unwrap_or_default(),
            now,
            failure: None,
        }
    }

    fn set(&mut self, kind: &str, is_true: bool, reason: Reason, message: String) {
        let conditions = &mut self.status.conditions;
        let new = condition(conditions, kind, is_true, reason, message, self.generation, self.now);
        conditions.retain(|condition| condition.type_ != kind);
        conditions.push(new);
        conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
    }

    fn not_ready(&mut self, reason: Reason, message: String) {
        self.failure = Some((reason, message.clone()));
        self.set(READY, false, reason, message);
    }

    fn active(&mut self, slots: Vec<SlotStatus>, chain: &Chain) {
        self.status.slots = slots;
        let sha256 = chain.facts.bundle.to_string();
        let sequence = match &self.status.bundle {
            Some(bundle) if bundle.sha256 == sha256 => bundle.sequence,
            Some(bundle) => bundle.sequence + 1,
            None => 1,
        };
        self.status.bundle = Some(BundleStatus { sha256, sequence });
        let (key_id, end) = (&chain.facts.key_id, chain.facts.not_after);
        self.set(READY, true, Reason::Active, format!("the CA {key_id} signs until {end}"));
    }

    fn published(&mut self, unreached: &BTreeSet<String>) {
        if unreached.is_empty() {
            let message = "every selected namespace holds the bundle".to_owned();
            self.set(BUNDLE_PUBLISHED, true, Reason::Published, message);
            return;
        }
        let message = format!(
            "the bundle could not be written to {}: see the operator's log; a ConfigMap of that name that is not ours must be deleted or renamed",
            some_of(unreached)
        );
        self.failure = Some((Reason::NamespacesUnreached, message.clone()));
        self.set(BUNDLE_PUBLISHED, false, Reason::NamespacesUnreached, message);
    }

    fn default(&mut self, domain: &Domain, older: Option<String>) {
        match (domain.is_default, older) {
            (false, _) => self.status.conditions.retain(|condition| condition.type_ != DEFAULT),
            (true, None) => {
                let message = "identities that name no trust domain belong to this one".to_owned();
                self.set(DEFAULT, true, Reason::IsDefault, message);
            }
            (true, Some(older)) => {
                let message = format!(
                    "the older TrustDomain {older} is marked default as well, and is the one that counts: take default: true off one of the two"
                );
                self.failure = Some((Reason::DuplicateDefault, message.clone()));
                self.set(DEFAULT, false, Reason::DuplicateDefault, message);
            }
        }
    }
}

/// Writes the status where it changed, and tells of a failure that is new.
async fn publish(context: &Context, resource: &TrustDomain, report: Report) -> Result<(), Failure> {
    let previous = resource.status.as_ref();
    if previous == Some(&report.status) {
        return Ok(());
    }
    let name = resource.metadata.name.as_deref().unwrap_or_default();
    let version = resource.metadata.resource_version.as_deref().unwrap_or_default();
    let path = format!("/apis/countersign.dev/v1alpha1/trustdomains/{name}/status");
    match wire::patch(&context.client, &path, &patch_of(version, previous, &report.status)).await {
        Ok(_) | Err(WireError::NotFound(_)) => {}
        Err(error) => return Err(error.into()),
    }
    if let Some((reason, message)) =
        report.failure.filter(|(reason, _)| *reason != Reason::Preparing)
    {
        tracing::warn!(trust_domain = name, %reason, "{message}");
        context.tell(resource.object_ref(&()), true, reason.as_str(), "Reconcile", message);
    }
    Ok(())
}

impl SlotMemory {
    /// Remembered CAs are whole between calls, whoever panicked.
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Remembered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
