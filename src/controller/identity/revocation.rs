//! Revoking an identity. In order: nothing is signed from here on; its pods are labelled; its
//! certificates are recorded and on the CRL (which the trust domain does, for all that came
//! together); key and certificate are taken out of its Secret; then its status says so.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{Context, Next, publish};
use crate::api::RevokedSpec;
use crate::apply;
use crate::decide::SecretState;
use crate::decide::ledger::{Issued, Ledger, leaf_of};
use crate::decide::record::Entry;
use crate::decide::revocation::{RevocationStep, entries, next_step, single_entries};
use crate::identity::Identity;
use crate::observe::{Observed, PodCounts};
use crate::status;
use crate::telemetry::StepLabels;
use crate::watch::agents::AgentFacts;
use crate::watch::domains::DomainState;
use crate::wire::WireError;

/// How long what is to be revoked waits for others, so that all of them are one write.
const GATHER: Duration = Duration::from_millis(50);
/// Whoever waits for a CRL is woken when it is published; this is for a defect.
const AWAIT: Duration = Duration::from_secs(30);
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
    let submitted = hand_in(context, identity, &observed, &entries(&alive, revoked.reason, now));
    if submitted.new > 0 {
        let who = format!("nothing is signed for it any more ({:?})", revoked.reason);
        step(context, identity, "SigningStopped", "signing-stopped", who);
        await_labels(context, identity).await;
    }
    // 5. Apply.
    match next_step(submitted.is_published, &observed.secret) {
        RevocationStep::AwaitCrl => return Ok(Some(AWAIT)),
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
    // 6. Status.
    let serials = alive.into_iter().map(|issued| issued.serial).collect();
    let is_news = observed.previous().is_none_or(|status| status.revoked.is_none());
    let status = status::build_revoked(identity, &observed, revoked, &serials, now);
    let key = &identity.key;
    if publish(context, key, facts, &observed.status, status).await? && is_news {
        let message = revoked.message.as_deref().unwrap_or("no message");
        let note = format!("revoked: {:?} ({message})", revoked.reason);
        step(context, identity, "Revoked", "status-written", note);
    }
    Ok(None)
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
        let submitted = hand_in(context, identity, observed, &entries);
        if submitted.new > 0 {
            let serials: Vec<&str> = entries.iter().map(|e| e.key.serial.as_str()).collect();
            let note = format!("to be on the CRL: {}", serials.join(", "));
            step(context, identity, "CertificatesRevoked", "certificates", note);
        }
    }
    let next = Ledger::of(&identity.uid, observed.previous()).next().to_string();
    let held = leaf_of(&observed.secret).map(|leaf| leaf.serial.clone());
    held.into_iter().chain([next]).filter(|serial| context.book.has(serial)).collect()
}

/// What came of handing in.
struct Submitted {
    new: usize,
    is_published: bool,
}

/// Hands in entries at the trust domains whose CAs signed them.
fn hand_in(
    context: &Context,
    identity: &Identity,
    observed: &Observed,
    entries: &[Entry],
) -> Submitted {
    let mut by_domain = BTreeMap::<String, Vec<Entry>>::new();
    for entry in entries {
        // What a CA signed that no trust domain knows is trusted by nobody.
        if let Some(domain) = domain_of(context, observed, entry.key.key_id.as_deref()) {
            by_domain.entry(domain).or_default().push(entry.clone());
        }
    }
    let mut all = Submitted { new: 0, is_published: true };
    for (domain, entries) in by_domain {
        let submission = context.book.submit(&domain, &identity.key, &entries);
        all.new += submission.new;
        all.is_published &= submission.is_published;
        if submission.new > 0 {
            context.trust_domains.wake_after(domain, GATHER);
        }
    }
    all
}

/// The trust domain whose CA this is; where none says so, the identity's own.
fn domain_of(context: &Context, observed: &Observed, key_id: Option<&str>) -> Option<String> {
    let domains = context.view.domains.all();
    let has = |state: &DomainState| {
        let (Ok(authority), Some(key_id)) = (&state.authority, key_id) else { return false };
        let facts = &authority.chain().facts;
        facts.key_id == key_id || facts.retiring.iter().any(|retiring| retiring == key_id)
    };
    let signer = domains.iter().find(|state| has(state));
    let own = observed.trust_domain.as_ref();
    let own = own.or_else(|| observed.previous()?.trust_domain.as_ref());
    let own = domains.iter().find(|state| Some(&state.domain.name) == own);
    signer.or(own).map(|state| state.domain.name.clone())
}

fn alive(
    context: &Context,
    identity: &Identity,
    observed: &Observed,
    now: Timestamp,
) -> Vec<Issued> {
    // The longest that any trust domain allows: the identity may have been in another one.
    let domains = context.view.domains.all();
    let longest = domains.iter().map(|state| state.domain.rules.maximum_life).max();
    let longest = longest.unwrap_or(identity.life).max(identity.life).as_duration();
    Ledger::of(&identity.uid, observed.previous()).alive(&observed.secret, longest, now)
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
    tracing::info!(target: "audit", identity = %identity.key, step, "{note}");
    context.metrics.revocations.get_or_create(&StepLabels { step }).inc();
    context.tell(identity.key.reference(&identity.uid), false, event, "Revoke", note);
}
