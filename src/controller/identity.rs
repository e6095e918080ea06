//! AgentIdentity: from its spec to a certificate in a Secret.

mod deletion;
mod revocation;

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{Context, Next, is_conflict, until};
use crate::api::conditions::{IssueReason, READY, Reason};
use crate::apply;
use crate::decide::{
    Admission, Content, IssueOrder, Plan, Ready, SecretState, Situation, Step, decide, schedule,
};
use crate::identity::{Identity, IdentityKey};
use crate::observe::{Observed, StatusVersion, observe};
use crate::sign::{SignError, sign};
use crate::status::{self, Outcome};
use crate::telemetry::{ErrorLabels, IssuanceLabels};
use crate::watch::ObjectKey;
use crate::watch::agents::{AgentFacts, Misfit};
use crate::wire::WireError;

const CONTROLLER: &str = "identity";

/// One turn of an identity; says when to come back.
pub async fn run(context: &Context, key: &IdentityKey) -> Next {
    let result = context.turn(CONTROLLER, reconcile(context, key)).await?;
    match result {
        Ok(next) => {
            context.memory.reset_failures(key);
            next
        }
        Err(error) => Some(retry(context, key, &error)),
    }
}

async fn reconcile(context: &Context, key: &IdentityKey) -> Result<Next, WireError> {
    let now = context.now();
    let Some(facts) = context.view.identities.get(&key.clone().into()) else { return Ok(None) };
    if facts.is_being_deleted {
        return deletion::run(context, key, &facts, now).await;
    }

    // 1. Understand the spec: the watch has, or says why it cannot.
    let current = current_status(context, key, &facts);
    let identity = match &facts.identity {
        Ok(identity) => identity,
        Err(misfit) => {
            let Misfit { uid, generation, message } = &**misfit;
            let previous = current.status.as_deref();
            let status = status::build_invalid(*generation, previous, message.clone(), now);
            if publish(context, key, &facts, &current, status).await? {
                let reason = Reason::InvalidSpec.as_str();
                context.tell(key.reference(uid), true, reason, "Parse", message.clone());
            }
            return Ok(None);
        }
    };

    // Its labels may decide; a watch that has not told of it yet soon will.
    if context.view.namespaces.get(&ObjectKey::new("", key.namespace.clone())).is_none() {
        return Ok(Some(UNKNOWN_NAMESPACE_CHECK));
    }

    // 2. Observe.
    let mut observed =
        observe(&context.client, &context.view, &context.memory, identity, current).await?;

    if let Some(revoked) = &identity.revoked {
        return revocation::run(context, identity, &facts, observed, revoked, now).await;
    }
    let revoked = revocation::revoked(context, identity, &observed, now);

    // 3. Decide.
    let plan = decide(&Situation {
        identity,
        admission: &observed.admission,
        secret: &observed.secret,
        former_secret: observed.former_secret.as_deref(),
        previous: observed.previous(),
        revoked: &revoked,
        crl_url: context.crl_url.as_deref(),
        now,
    });

    // Whoever has a certificate stays until it is revoked; so this is before the first is signed. The
    // watch tells of the write, and the next turn goes on. An admission policy spares it.
    let has_certificate = observed.previous().is_some_and(|status| status.revision > Some(0));
    if !facts.is_held() && (has_certificate || matches!(plan.step, Step::Issue(_))) {
        apply::finalizer::put_on(&context.client, key, &facts).await?;
        return Ok(None);
    }

    // 4. and 5. Sign and apply.
    let performed = perform(context, identity, &facts, &mut observed, &plan, now).await?;
    let outcome = match performed {
        Performed::Wait(wait) => return Ok(Some(wait)),
        Performed::KeyPending => return Ok(None),
        Performed::Done(outcome) => *outcome,
    };
    if let (Some(name), Outcome::Issued(..) | Outcome::Quiet(Ready::Yes { .. })) =
        (&plan.remove, &outcome)
    {
        remove_former(context, key, name).await?;
    }

    // 6. Status.
    let status = status::build(identity, &observed, &outcome, now);
    let attempts = status.failed_attempts.unwrap_or_default();
    announce(context, identity, &observed, &plan, &outcome);
    let next = next_turn(identity, &observed, &plan, &outcome, attempts, now);
    publish(context, key, &facts, &observed.status, status).await?;
    Ok(next)
}

/// What the API server holds, as far as this replica knows.
fn current_status(context: &Context, key: &IdentityKey, facts: &AgentFacts) -> StatusVersion {
    let seen = StatusVersion {
        resource_version: facts.resource_version.to_string(),
        status: facts.status.as_ref().map(|status| Arc::new(status.unpack())),
    };
    context.memory.status(key, seen)
}

enum Performed {
    Done(Box<Outcome>),
    /// The turn for a write that is paced has not come.
    Wait(Duration),
    /// The key is being made; whoever makes it wakes the identity.
    KeyPending,
}

impl Performed {
    fn done(outcome: Outcome) -> Self {
        Performed::Done(Box::new(outcome))
    }
}

/// Does what was planned. Only what a status could not speak of is an error.
async fn perform(
    context: &Context,
    identity: &Identity,
    facts: &AgentFacts,
    observed: &mut Observed,
    plan: &Plan,
    now: Timestamp,
) -> Result<Performed, WireError> {
    match &plan.step {
        Step::Nothing | Step::Count { skip: false } => {
            Ok(Performed::done(Outcome::Quiet(plan.ready.clone())))
        }
        Step::Count { skip: true } => Ok(Performed::done(Outcome::Skipped(plan.ready.clone()))),
        Step::Issue(order) => {
            if order.reason == IssueReason::AuthorityRetiring
                && let Some(wait) = context.reissue_pace.wait(identity.key.clone(), now)
            {
                return Ok(Performed::Wait(wait));
            }
            issue(context, identity, facts, observed, plan, order).await
        }
        Step::Adjust { rewrite_bundle } => {
            if *rewrite_bundle
                && let Some(wait) = context.bundle_pace.wait(identity.key.clone(), now)
            {
                return Ok(Performed::Wait(wait));
            }
            let (SecretState::Ours(ours), Some(bundle)) = (&observed.secret, &observed.bundle)
            else {
                return Ok(Performed::done(Outcome::Quiet(plan.ready.clone())));
            };
            let Content::Read(facts) = &ours.content else {
                return Ok(Performed::done(Outcome::Quiet(plan.ready.clone())));
            };
            let (client, memory) = (&context.client, &context.memory);
            let rewrite = *rewrite_bundle;
            let adjusted =
                apply::adjust(client, memory, identity, ours, facts, bundle, rewrite).await;
            written(plan, adjusted.map(|_| Outcome::Quiet(plan.ready.clone()))).map(Performed::done)
        }
    }
}

async fn issue(
    context: &Context,
    identity: &Identity,
    facts: &AgentFacts,
    observed: &mut Observed,
    plan: &Plan,
    order: &IssueOrder,
) -> Result<Performed, WireError> {
    let Some(authority) = observed.authority.clone() else {
        return Ok(Performed::done(Outcome::Quiet(plan.ready.clone())));
    };
    if authority.is_busy() {
        return Ok(Performed::Wait(BUSY_AUTHORITY_CHECK));
    }
    let start = Instant::now();
    let prepared = match context.forge.key(&identity.key, identity.algorithm) {
        Ok(None) => return Ok(Performed::KeyPending),
        Ok(Some(key)) => sign(&*authority, identity, order, key, context.now()).await,
        Err(error) => Err(SignError::from(error)),
    };
    context.metrics.sign_seconds.observe(start.elapsed().as_secs_f64());
    let prepared = match prepared {
        Ok(prepared) => prepared,
        // Between two CAs nothing is signed for a moment; nobody need hear of it.
        Err(SignError::OtherAuthority) => {
            count(context, order, "conflict");
            return Err(WireError::Conflict(SignError::OtherAuthority.to_string()));
        }
        Err(SignError::Busy) => return Ok(Performed::Wait(BUSY_AUTHORITY_CHECK)),
        Err(error) => {
            count(context, order, "sign_failed");
            tell_trust_domain(context, observed, Some(&error));
            return Ok(Performed::done(Outcome::Failed {
                reason: Reason::SigningFailed,
                message: format!("signing failed: {error}"),
                standing: plan.ready.clone(),
            }));
        }
    };
    if authority.chain().facts.signs_elsewhere {
        tell_trust_domain(context, observed, None);
        let (leaf, previous) = (&prepared.leaf, observed.previous());
        let announced = status::announce(identity, previous, leaf, order.reason);
        publish(context, &identity.key, facts, &observed.status, announced).await?;
        observed.status = current_status(context, &identity.key, facts);
    }
    let (client, memory) = (&context.client, &context.memory);
    let applied =
        apply::issue(client, memory, identity, &order.profile, &observed.secret, prepared).await;
    match &applied {
        Ok(applied) => {
            count(context, order, "issued");
            let (action, leaf) = (issue_action(observed), &applied.leaf);
            let (serial, until) = (&leaf.serial, leaf.not_after);
            tracing::info!(identity = %identity.key, spiffe_id = %order.profile.spiffe_id,
                serial, reason = %order.reason, %until, "{action}");
            let note = format!(
                "certificate {serial} for {} is good until {until} ({}: {})",
                order.profile.spiffe_id, order.reason, order.message
            );
            context.tell(identity.key.reference(&identity.uid), false, action, "Issue", note);
        }
        Err(error) if is_conflict(error) => count(context, order, "conflict"),
        Err(_) => count(context, order, "write_failed"),
    }
    written(plan, applied.map(|applied| Outcome::Issued(applied.leaf, order.reason)))
        .map(Performed::done)
}

/// Whether an authority that is another program does what it is to is seen first by who asks it.
fn tell_trust_domain(context: &Context, observed: &Observed, error: Option<&SignError>) {
    let Some(name) = &observed.trust_domain else { return };
    let is_news = match error {
        Some(error) => matches!(error, SignError::Elsewhere(_)),
        None => context.view.domains.resolve(Some(name)).is_ok_and(|state| !state.is_available),
    };
    if is_news {
        context.trust_domains.wake(name.clone());
    }
}

/// A refusal is news for the status. Everything else is not known to have failed, or would keep
/// the status from being written too.
fn written(plan: &Plan, result: Result<Outcome, WireError>) -> Result<Outcome, WireError> {
    match result {
        Err(error @ WireError::Refused { .. }) => Ok(Outcome::Failed {
            reason: Reason::WriteFailed,
            message: format!("the Secret could not be written: {error}"),
            standing: plan.ready.clone(),
        }),
        other => other,
    }
}

fn issue_action(observed: &Observed) -> &'static str {
    match &observed.secret {
        SecretState::Ours(ours) if matches!(ours.content, Content::Read(_)) => "Renewed",
        _ => "Issued",
    }
}

fn count(context: &Context, order: &IssueOrder, result: &'static str) {
    let labels = IssuanceLabels { reason: order.reason.as_str(), result };
    context.metrics.issuances.get_or_create(&labels).inc();
}

async fn remove_former(context: &Context, key: &IdentityKey, name: &str) -> Result<(), WireError> {
    use k8s_openapi::api::core::v1::Secret;
    use kube::api::{Api, DeleteParams, Preconditions};
    let seen = context.view.secrets.get(&ObjectKey::new(key.namespace.clone(), name));
    let Some(seen) = seen else { return Ok(()) };
    let preconditions =
        Preconditions { resource_version: Some(seen.resource_version.clone()), uid: None };
    let api = Api::<Secret>::namespaced(context.client.clone(), &key.namespace);
    let params = DeleteParams::default().preconditions(preconditions);
    match api.delete(name, &params).await.map_err(WireError::from) {
        Ok(_) | Err(WireError::NotFound(_)) => {
            tracing::info!(identity = %key, secret = name, "the Secret of the former name is deleted");
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Tells of what went wrong, once a failure or a change, not once a look.
fn announce(
    context: &Context,
    identity: &Identity,
    observed: &Observed,
    plan: &Plan,
    outcome: &Outcome,
) {
    let (reason, message) = match outcome {
        // A moment later it is otherwise.
        _ if matches!(plan.step, Step::Count { .. }) => return,
        Outcome::Failed { reason, message, .. } => (reason, message),
        Outcome::Quiet(Ready::No { reason, message }) if !already_said(observed, message) => {
            (reason, message)
        }
        _ => return,
    };
    tracing::warn!(identity = %identity.key, %reason, "{message}");
    let action = if matches!(plan.step, Step::Nothing) { "Check" } else { "Issue" };
    let reference = identity.key.reference(&identity.uid);
    context.tell(reference, true, reason.as_str(), action, message.clone());
}

fn already_said(observed: &Observed, message: &str) -> bool {
    observed.previous().is_some_and(|status| {
        status.conditions.iter().any(|c| c.type_ == READY && c.message == message)
    })
}

fn next_turn(
    identity: &Identity,
    observed: &Observed,
    plan: &Plan,
    outcome: &Outcome,
    attempts: u32,
    now: Timestamp,
) -> Next {
    match outcome {
        Outcome::Issued(leaf, _) => Some(until(schedule::renew_at(identity, leaf), now)),
        Outcome::Failed { .. } => {
            let pause = schedule::retry_after(attempts, life_left(&observed.secret, now));
            Some(pause.try_into().unwrap_or_default())
        }
        Outcome::Skipped(_) => Some(Duration::ZERO),
        Outcome::Quiet(_) if matches!(plan.step, Step::Count { .. }) => Some(Duration::ZERO),
        Outcome::Quiet(_) => match (&observed.secret, &observed.admission) {
            // A foreign Secret has no label that would tell of its end: look again now and then.
            (SecretState::Foreign(_), Admission::Admitted { .. }) => Some(FOREIGN_SECRET_CHECK),
            _ => plan.next_check.map(|moment| until(moment, now)),
        },
    }
}

/// An authority that is another program does some hundred signatures a second.
const BUSY_AUTHORITY_CHECK: Duration = Duration::from_secs(1);
const UNKNOWN_NAMESPACE_CHECK: Duration = Duration::from_secs(1);
/// Often enough for somebody who has just deleted the Secret and waits; it costs one read.
const FOREIGN_SECRET_CHECK: Duration = Duration::from_secs(5);

fn life_left(secret: &SecretState, now: Timestamp) -> Option<jiff::SignedDuration> {
    match secret {
        SecretState::Ours(ours) => match &ours.content {
            Content::Read(facts) => Some(facts.leaf.not_after.duration_since(now)),
            Content::Emptied | Content::Unreadable(_) => None,
        },
        SecretState::Absent | SecretState::Foreign(_) => None,
    }
}

async fn publish(
    context: &Context,
    key: &IdentityKey,
    facts: &AgentFacts,
    current: &StatusVersion,
    status: crate::api::AgentIdentityStatus,
) -> Result<bool, WireError> {
    let mirrored = facts.resource_version.to_string();
    match status::publish(&context.client, &context.memory, key, mirrored, current, status).await {
        // It was deleted meanwhile.
        Err(WireError::NotFound(_)) => Ok(false),
        other => other,
    }
}

/// Counts an error and says when to try again. A first conflict is tried again at once, with a
/// fresh look: somebody wrote between our look and our write.
fn retry(context: &Context, key: &IdentityKey, error: &WireError) -> Duration {
    let labels = ErrorLabels { controller: CONTROLLER, kind: error.kind() };
    context.metrics.reconcile_errors.get_or_create(&labels).inc();
    context.memory.doubt(key);
    let failures = context.memory.count_failure(key);
    if failures == 1 && is_conflict(error) {
        tracing::debug!(identity = %key, %error, "looking again");
        return Duration::ZERO;
    }
    let facts = context.view.identities.get(&key.clone().into());
    let schedule = facts.and_then(|facts| facts.schedule);
    let life_left = schedule.map(|(end, _)| end.duration_since(context.now()));
    let pause = schedule::retry_after(failures, life_left);
    tracing::warn!(identity = %key, %error, failures, retry_in = %pause, "not done");
    pause.try_into().unwrap_or_default()
}
