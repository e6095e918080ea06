//! Revoking an identity. In order: nothing is signed from here on; its pods are labelled; its
//! certificates are recorded and on the CRL (which the trust domain does, for all that came
//! together); key and certificate are taken out of its Secret; then its status says so.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::{Context, Next, publish, until};
use crate::api::conditions::Reason;
use crate::api::{AgentIdentityStatus, RevokedSpec};
use crate::apply;
use crate::decide::SecretState;
use crate::decide::ledger::{Issued, Ledger, leaf_of};
use crate::decide::record::Entry;
use crate::decide::revocation::{RevocationStep, entries, next_step, single_entries};
use crate::decide::schedule::saturating_add;
use crate::identity::{Identity, IdentityKey};
use crate::observe::view::Object;
use crate::observe::{Observed, PodCounts};
use crate::status;
use crate::telemetry::StepLabels;
use crate::watch::ObjectKey;
use crate::watch::agents::AgentFacts;
use crate::watch::domains::DomainState;
use crate::wire::WireError;

/// How long what is to be revoked waits for others, so that all of them are one write.
const GATHER: Duration = Duration::from_millis(50);
/// A CRL takes a second or two, and up to ten where a thousand are revoked on a busy machine: a status
/// more for each of them would make it longer. Who waits for longer than that says so in its status.
const QUIET: SignedDuration = SignedDuration::from_secs(15);
/// Whoever waits for a CRL is woken when it is published; this is for a defect.
const AWAIT: Duration = Duration::from_secs(30);
/// The longest life that a TrustDomain allows where it says nothing of it.
const LONGEST_LIFE: SignedDuration = SignedDuration::from_hours(24);
/// Labelling takes a few milliseconds, and is seen as soon as the watch tells of it.
const LABELS_AWAITED: Duration = Duration::from_millis(300);
const LABELS_LOOK: Duration = Duration::from_millis(5);

/// One turn of an identity that is revoked.
pub async fn run(
    context: &Context,
    identity: &Identity,
    facts: &AgentFacts,
    mut observed: Observed,
    revoked: &RevokedSpec,
    now: Timestamp,
) -> Result<Next, WireError> {
    // 3. Decide, and hand in what is to be on the CRL.
    let alive = alive(context, identity, &observed, now);
    let entries = entries(&alive, revoked.reason, now);
    let submitted = hand_in(context, &identity.key, own_domain(&observed), &entries);
    if submitted.new > 0 {
        let (reason, by) = (revoked.reason, identity.by_whom());
        let note = format!("nothing is signed for it any more ({reason:?}){by}");
        step(context, identity, "SigningStopped", "signing-stopped", note);
        await_labels(context, identity).await;
    }
    // 5. Apply.
    match next_step(submitted.is_published, &observed.secret) {
        RevocationStep::AwaitCrl => {
            return await_crl(context, identity, facts, &observed, now).await;
        }
        RevocationStep::TakeOutKey => {
            let serials: Vec<&str> = alive.iter().map(|issued| issued.serial.as_str()).collect();
            let note = format!("on the CRL: {}", serials.join(", "));
            step(context, identity, "CertificatesRevoked", "crl-published", note);
            if let SecretState::Ours(ours) = &observed.secret {
                let (client, memory) = (&context.client, &context.memory);
                let emptied = apply::take_out_key(client, memory, identity, ours).await?;
                observed.secret = SecretState::Ours(Box::new(emptied));
            }
            let note = format!("key and certificate are out of Secret {}", identity.secret_name);
            step(context, identity, "KeyRemoved", "key-removed", note);
        }
        RevocationStep::Done => {}
    }
    context.memory.has_crl(&identity.key);

    // 6. Status.
    let serials = alive.into_iter().map(|issued| issued.serial).collect();
    let is_news = observed.previous().is_none_or(|status| status.revoked.is_none());
    let status = status::build_revoked(identity, &observed, revoked, &serials, now);
    let key = &identity.key;
    if publish(context, key, facts, &observed.status, status).await? && is_news {
        let message = revoked.message.as_deref().unwrap_or("no message");
        let by = identity.by_whom();
        let note = format!("revoked: {:?} ({message}){by}", revoked.reason);
        step(context, identity, "Revoked", "status-written", note);
    }
    Ok(None)
}

/// Whoever waits for a CRL is woken when it is published. Where that takes long, its status says so.
async fn await_crl(
    context: &Context,
    identity: &Identity,
    facts: &AgentFacts,
    observed: &Observed,
    now: Timestamp,
) -> Result<Next, WireError> {
    let key = &identity.key;
    let since = context.memory.awaits_crl_since(key, now);
    if now < saturating_add(since, QUIET) {
        return Ok(Some(until(saturating_add(since, QUIET), now)));
    }
    // What was said to be revoked is so; this replica has only just begun to lead.
    if observed.previous().is_some_and(|status| status.revoked.is_some()) {
        return Ok(Some(AWAIT));
    }
    let status = status::build_awaiting(identity, observed, since, now);
    if publish(context, key, facts, &observed.status, status).await? {
        let reason = Reason::CrlAwaited.as_str();
        let note = "its certificates are not on a published CRL yet".to_owned();
        context.tell(key.reference(&identity.uid), true, reason, "Revoke", note);
    }
    Ok(Some(AWAIT))
}

/// Hands in single certificates that are to be revoked. Returns which of the identity's serial
/// numbers are revoked, that of the next certificate included.
pub fn revoked(
    context: &Context,
    identity: &Identity,
    observed: &Observed,
    now: Timestamp,
) -> BTreeSet<String> {
    if !identity.revoked_certificates.is_empty() {
        let alive = alive(context, identity, observed, now);
        let entries = single_entries(identity, &alive, now);
        let submitted = hand_in(context, &identity.key, own_domain(observed), &entries);
        if submitted.new > 0 {
            let serials: Vec<&str> = entries.iter().map(|e| e.key.serial.as_str()).collect();
            let by = identity.by_whom();
            let note = format!("to be on the CRL: {}{by}", serials.join(", "));
            step(context, identity, "CertificatesRevoked", "certificates", note);
        }
    }
    let next = Ledger::of(&identity.uid, observed.previous()).next().to_string();
    let held = leaf_of(&observed.secret).map(|leaf| leaf.serial.clone());
    held.into_iter().chain([next]).filter(|serial| context.book.has(serial)).collect()
}

/// What came of handing in.
pub(super) struct Submitted {
    pub new: usize,
    pub is_recorded: bool,
    pub is_published: bool,
}

/// Hands in entries at the trust domains whose CAs signed them; where it is not known which, at
/// the one of this name.
pub(super) fn hand_in(
    context: &Context,
    who: &IdentityKey,
    named: Option<&str>,
    entries: &[Entry],
) -> Submitted {
    let mut by_domain = BTreeMap::<String, Vec<Entry>>::new();
    for entry in entries {
        // What a CA signed that no trust domain knows is trusted by nobody.
        if let Some(domain) = domain_of(context, named, entry.key.key_id.as_deref()) {
            by_domain.entry(domain).or_default().push(entry.clone());
        }
    }
    let mut all = Submitted { new: 0, is_recorded: true, is_published: true };
    for (domain, entries) in by_domain {
        let submission = context.book.submit(&domain, who, &entries);
        all.new += submission.new;
        all.is_recorded &= submission.is_recorded;
        all.is_published &= submission.is_published;
        if submission.new > 0 {
            context.trust_domains.wake_after(domain, GATHER);
        }
    }
    all
}

/// The name of the trust domain that an identity belongs to, or belonged to.
fn own_domain(observed: &Observed) -> Option<&str> {
    let before = || observed.previous()?.trust_domain.as_deref();
    observed.trust_domain.as_deref().or_else(before)
}

/// The trust domain whose CA this is; where none says so, the one named, if any of its CAs can
/// have signed anything.
fn domain_of(context: &Context, named: Option<&str>, key_id: Option<&str>) -> Option<String> {
    let has = |state: &DomainState| {
        let (Ok(authority), Some(key_id)) = (&state.authority, key_id) else { return false };
        let facts = &authority.chain().facts;
        facts.key_id == key_id || facts.retiring.iter().any(|retiring| retiring == key_id)
    };
    let domains = context.view.domains.all();
    if let Some(signer) = domains.iter().find(|state| has(state)) {
        return Some(signer.domain.name.clone());
    }
    let named = named?;
    let may_have_signed = match &*context.view.trust_domains.get(&ObjectKey::new("", named))? {
        Object::Read(resource) => {
            let is_served = domains.iter().any(|state| state.domain.name == named);
            let has_cas = resource.status.as_ref().is_some_and(|status| !status.slots.is_empty());
            // One whose spec cannot be understood now may be understood again; of one that goes,
            // nobody trusts a CA any more.
            has_cas && (is_served || resource.metadata.deletion_timestamp.is_none())
        }
        Object::Unreadable { .. } => true,
    };
    may_have_signed.then(|| named.to_owned())
}

fn alive(
    context: &Context,
    identity: &Identity,
    observed: &Observed,
    now: Timestamp,
) -> Vec<Issued> {
    alive_of(context, &identity.uid, observed.previous(), &observed.secret, now)
}

/// Every certificate of the identity with this UID that lives, or may.
pub(super) fn alive_of(
    context: &Context,
    uid: &str,
    previous: Option<&AgentIdentityStatus>,
    secret: &SecretState,
    now: Timestamp,
) -> Vec<Issued> {
    // The longest that any trust domain allows: the identity may have been in another one.
    let domains = context.view.domains.all();
    let longest = domains.iter().map(|state| state.domain.rules.maximum_life.as_duration()).max();
    let longest = longest.unwrap_or(LONGEST_LIFE).max(LONGEST_LIFE);
    Ledger::of(uid, previous).alive(secret, longest, now)
}

/// Waits until its pods are labelled, which has a queue of its own, and not long: pods that cannot
/// be labelled now keep no certificate off the CRL.
async fn await_labels(context: &Context, identity: &Identity) {
    let began = Instant::now();
    let counts = loop {
        let counts = PodCounts::of(&context.view, identity);
        let waits_for = counts.matched - counts.claimed_by_another;
        if counts.labelled >= waits_for || began.elapsed() > LABELS_AWAITED {
            break counts;
        }
        tokio::time::sleep(LABELS_LOOK).await;
    };
    let PodCounts { matched, labelled, .. } = counts;
    let note =
        format!("{labelled} of {matched} pods have the label countersign.dev/state: revoked");
    step(context, identity, "PodsRevoked", "pods-labelled", note);
}

/// An Event, a metric, and an audit line with its time.
fn step(
    context: &Context,
    identity: &Identity,
    event: &'static str,
    step: &'static str,
    note: String,
) {
    step_of(context, &identity.key, &identity.uid, event, step, note);
}

/// The same, of an identity that need not be understood.
pub(super) fn step_of(
    context: &Context,
    key: &IdentityKey,
    uid: &str,
    event: &'static str,
    step: &'static str,
    note: String,
) {
    tracing::info!(target: "audit", identity = %key, step, "{note}");
    context.metrics.revocations.get_or_create(&StepLabels { step }).inc();
    context.tell(key.reference(uid), false, event, "Revoke", note);
}
