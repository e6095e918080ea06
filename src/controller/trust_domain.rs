//! TrustDomain: from its spec to CAs that sign and a bundle in every namespace.
//!
//! The order is what makes it safe: a CA's Secret is kept before anything else speaks of it; the
//! status records it before any bundle holds it; the bundle is published before the CA signs
//! (rule 2); what signed before has stopped before the status says so; and a key is destroyed
//! only when the status does not speak of it any more.

mod asking;
mod awaited;
mod cas;
mod cluster;
mod departure;
mod polling;
mod remote;
mod report;
mod revocation;
mod spread;
mod supply;

use std::sync::Arc;
use std::time::Duration;

use super::{Context, Next, is_conflict, until};
use crate::api::conditions::Reason;
use crate::api::{SlotKind, SlotPhase, SlotStatus, TrustDomain};
use crate::decide::departure::Departure;
use crate::decide::slots::{self, Blocked, Reach, SlotSituation, bundle_of};
use crate::identity::{AuthoritySource, Domain};
use crate::observe::view::Object;
use crate::sign::{Authority, Retirable, SignError};
use crate::source::SourceError;
use crate::telemetry::ErrorLabels;
use crate::watch::ObjectKey;
use crate::watch::domains::DomainState;
use crate::wire::WireError;
use crate::x509::Sha256;

pub use cas::SlotMemory;
use departure::HELD_CHECK;
use report::{Report, publish};
use spread::{reach, spread};

const CONTROLLER: &str = "trust-domain";
/// After a failure, and while a rotation is under way. The API server is gone or refuses, or
/// targets are slow; neither passes in a moment.
const RETRY: Duration = Duration::from_secs(5);

/// What a turn can fail of.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("a CA could not be made: {0}")]
    Sign(#[from] SignError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("one CA after the other is wanted, now {0}: this is a defect, please report it")]
    Endless(String),
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
    let result = context.turn(CONTROLLER, reconcile(context, name)).await?;
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
        Failure::Source(_) => "source",
        Failure::Endless(_) => "defect",
    };
    let labels = ErrorLabels { controller: CONTROLLER, kind };
    context.metrics.reconcile_errors.get_or_create(&labels).inc();
    tracing::warn!(trust_domain = name, %error, "not done");
    Some(RETRY)
}

async fn reconcile(context: &Context, name: &str) -> Result<Next, Failure> {
    let object = context.view.trust_domains.get(&ObjectKey::new("", name));
    let Some(Object::Read(resource)) = object.as_deref() else {
        forget(context, name);
        // What is revoked in one that cannot be read waits until it can.
        if object.is_none() {
            close_book(context, name);
        }
        return Ok(None);
    };
    let mut report = Report::new(resource, context.now());
    let departure = departure::of(context, resource);
    match &departure {
        None => {
            let resource = departure::hold(context, resource).await?;
            report.deleting(None);
            return serve(context, &resource, report).await;
        }
        Some(Departure::Goes) => {
            // Nothing signs any more, and whoever belonged here hears of it, before anything goes.
            forget(context, name);
            close_book(context, name);
            return departure::clear(context, resource).await.map(|()| None);
        }
        Some(Departure::Held(identities)) => report.deleting(Some(identities)),
        Some(Departure::Unknown) => {}
    }
    let next = serve(context, resource, report).await?;
    Ok(next.into_iter().chain([HELD_CHECK]).min())
}

/// Serves the identities of a TrustDomain, which may be one that is held.
async fn serve(
    context: &Context,
    resource: &TrustDomain,
    mut report: Report,
) -> Result<Next, Failure> {
    let now = report.now;
    // 1. Understand the spec.
    let domain = match Domain::parse(resource) {
        Ok(domain) => domain,
        Err(error) => {
            forget(context, resource.metadata.name.as_deref().unwrap_or_default());
            report.not_ready(Reason::InvalidSpec, error.to_string());
            return publish(context, resource, report).await.map(|_| None);
        }
    };
    report.default(&domain, older(context, resource, |other| other.spec.default));
    if let Some(rival) = older(context, resource, |other| other.spec.domain == resource.spec.domain)
    {
        let blocked = duplicate(&domain, &rival);
        report.not_ready(blocked.reason, blocked.message.clone());
        install(context, &domain, Err(blocked), true, "");
        publish(context, resource, report).await?;
        return Ok(Some(BLOCKED_CHECK));
    }

    if let AuthoritySource::Remote(address) = &domain.authority {
        return remote::serve(context, resource, &domain, address, report).await;
    }

    // A clock that jumped makes no step and ends nothing; what is published stays.
    if let Some(disagreement) = context.time.disagreement() {
        let (blocked, bundle_pem) = (disagreement.blocked(), bundle_of(&report.status.slots));
        report.not_ready(blocked.reason, blocked.message.clone());
        install(context, &domain, Err(blocked), true, &bundle_pem);
        // A revocation does not wait for clocks: it goes by the API server's.
        if !report.status.slots.is_empty() {
            let revocation = revocation::run(context, &domain, &report.status, now).await;
            let spread = spread(context, &domain, &bundle_pem, &revocation.crl_pem).await;
            let unreached = revocation::published(context, &domain, &revocation, &spread);
            report.crls(&revocation, &unreached);
        }
        publish(context, resource, report).await?;
        return Ok(Some(RETRY));
    }

    // 2. Observe: the CAs there are, and who holds the bundle of those that are recorded. It is
    // published before it is asked about, so that what is Prepared has a way to become Active.
    let bundle_pem = bundle_of(&report.status.slots);
    let bundle = Sha256::of(bundle_pem.as_bytes());
    let revocation = revocation::run(context, &domain, &report.status, now).await;
    let spread = match report.status.slots.as_slice() {
        [] => None,
        _ => Some(spread(context, &domain, &bundle_pem, &revocation.crl_pem).await),
    };
    if let Some(spread) = &spread {
        let unreached = revocation::published(context, &domain, &revocation, spread);
        report.crls(&revocation, &unreached);
    }
    let reach = spread.as_ref().map(|spread| match awaits_targets(&report.status.slots) {
        Some(SlotKind::Root) => reach(context, &domain, bundle, spread),
        Some(SlotKind::Issuing) => spread.reach(revocation.failure.is_some()),
        None => Reach::default(),
    });

    // 3. Decide, and make what is missing: a root, and then an issuing CA under it.
    let mut stock = supply::observe(context, &domain).await;
    let mut made = 0;
    let plan = loop {
        let plan = slots::decide(&SlotSituation {
            domain: &domain,
            supply: &stock.supply,
            found: &cas::found(context, &domain).await?,
            recorded: &report.status.slots,
            rotation: report.status.rotation.as_ref(),
            reach: reach.as_ref(),
            contact_since: context.time.contact_since(),
            now: context.now(),
        });
        let Some(order) = &plan.create else { break plan };
        made += 1;
        if made > MADE_AT_ONCE {
            return Err(Failure::Endless(order.name.clone()));
        }
        match cas::make(context, &*stock.source, &domain, order).await {
            Ok(()) => supply::given(context, &domain),
            Err(Failure::Source(SourceError::Withheld(why))) => {
                stock = supply::withheld(context, &domain, stock, why);
            }
            Err(error) => return Err(error),
        }
    };

    // 6. Status, before anything is done that it must speak of: what is recorded is not silently
    // replaced, and what does not sign any more has stopped before that is said.
    if let Some(spread) = &spread {
        report.bundle(bundle);
        report.published(&spread.failed, &spread.cluster);
    }
    if plan.slots != report.status.slots {
        if signers(&plan.slots) != signers(&report.status.slots) {
            context.slots.retire(&domain.name);
        }
        report.slots(&plan);
        if report.status.bundle.is_none() {
            report.not_ready(Reason::Preparing, "the bundle is being published".to_owned());
        }
        publish(context, resource, report).await?;
        return Ok(Some(Duration::ZERO));
    }
    report.slots(&plan);

    // 4. and 5. Sign with what is recorded and published; destroy what nobody needs.
    let authority = match &plan.chain {
        Ok(names) => cas::authority(context, &*stock.source, &domain, names, &plan.slots).await,
        Err(blocked) => {
            let blocked = stock.blocked(context, &domain, blocked);
            report.not_ready(blocked.reason, blocked.message.clone());
            install(context, &domain, Err(blocked), stock.is_available(), &bundle_pem);
            publish(context, resource, report).await?;
            let wait = if plan.rotation.is_some() { RETRY } else { BLOCKED_CHECK };
            let sooner = stock.ask_again_in.into_iter().chain(revocation.next);
            return Ok(sooner.chain([wait]).min());
        }
    }?;
    report.active(authority.chain());
    if let Some(unavailable) = stock.while_signing(context, &domain, authority.chain()) {
        report.not_ready(unavailable.reason, unavailable.message);
    }
    install(context, &domain, Ok(authority), stock.is_available(), &bundle_pem);
    for name in &plan.destroy {
        cas::destroy(context, &domain, name).await?;
        tracing::info!(trust_domain = domain.name, secret = name, "a CA and its key are destroyed");
    }
    publish(context, resource, report).await?;
    let failed = spread.is_some_and(|spread| spread.is_incomplete());
    let soon = (failed || plan.rotation.is_some()).then_some(RETRY);
    let next = plan.next_check.map(|moment| until(moment, now));
    Ok(soon.into_iter().chain(next).chain(stock.ask_again_in).chain(revocation.next).min())
}

/// Which kind of CA is recorded that waits for every target to hold it; a root comes first.
fn awaits_targets(slots: &[SlotStatus]) -> Option<SlotKind> {
    let prepared = slots.iter().filter(|slot| slot.phase == SlotPhase::Prepared);
    prepared.map(|slot| slot.kind).min_by_key(|kind| *kind == SlotKind::Issuing)
}

/// Which CAs sign.
fn signers(slots: &[SlotStatus]) -> Vec<&str> {
    let active = slots.iter().filter(|slot| slot.phase == SlotPhase::Active);
    active.map(|slot| slot.name.as_str()).collect()
}

/// A root and an issuing CA. Whoever wants more in one turn would want more for ever.
const MADE_AT_ONCE: usize = 2;

/// A blocked CA has its Secret watched; this is for what no watch tells.
const BLOCKED_CHECK: Duration = Duration::from_secs(60);

fn forget(context: &Context, name: &str) {
    context.slots.forget(name);
    if context.view.domains.remove(name) {
        context.domains_changed();
    }
}

/// Nobody trusts its CAs any more: whoever waits for a CRL of theirs need not.
fn close_book(context: &Context, name: &str) {
    for identity in context.book.forget(name) {
        context.identities.wake(identity);
    }
}

/// Lets identities hear of what signs, or of why nothing does, and of the bundle.
fn install(
    context: &Context,
    domain: &Domain,
    authority: Result<Arc<Retirable>, Blocked>,
    is_available: bool,
    bundle_pem: &str,
) {
    let state = DomainState {
        domain: domain.clone(),
        authority: authority.map(|authority| authority as Arc<dyn Authority>),
        is_available,
        bundle: (!bundle_pem.is_empty()).then(|| bundle_pem.into()),
    };
    if context.view.domains.set(state) {
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

fn duplicate(domain: &Domain, rival: &str) -> Blocked {
    let message = format!(
        "the older TrustDomain {rival} has the domain {}, and two CAs under one name would vouch for each other's identities: delete one of the two",
        domain.domain
    );
    Blocked { reason: Reason::DuplicateDomain, message }
}
