//! An AgentIdentity that was deleted: what was issued to it is on the CRL before it goes.

use jiff::Timestamp;

use super::revocation::{alive_of, hand_in, step_of};
use super::{Context, Next, current_status};
use crate::api::conditions::Reason;
use crate::api::{DeletionPolicy, RevocationReason};
use crate::apply;
use crate::controller::until;
use crate::decide::deletion::{self, Deletion, DeletionStep};
use crate::decide::revocation::{entries, single_entries};
use crate::decide::{Content, SecretState};
use crate::identity::IdentityKey;
use crate::observe::read_secret;
use crate::watch::ObjectKey;
use crate::watch::agents::AgentFacts;
use crate::wire::WireError;

/// One turn of an identity that was deleted.
pub async fn run(
    context: &Context,
    key: &IdentityKey,
    facts: &AgentFacts,
    now: Timestamp,
) -> Result<Next, WireError> {
    // It waits for others, or never had a certificate.
    if !facts.is_held() {
        return Ok(None);
    }

    // 2. Observe.
    let status = current_status(context, key, facts);
    let previous = status.status.as_deref();
    let (client, view, memory) = (&context.client, &context.view, &context.memory);
    let secret = match &facts.identity {
        Ok(identity) => read_secret(client, view, memory, identity).await?,
        // No Secret is known of one that cannot be understood; its status tells what there was.
        Err(_) => SecretState::Absent,
    };
    let namespace = view.namespaces.get(&ObjectKey::new("", key.namespace.clone()));

    // 3. Decide, and hand in what is to be on the CRL.
    let alive = alive_of(context, facts.uid(), previous, &secret, now);
    let reason = RevocationReason::CessationOfOperation;
    let wanted = match &facts.identity {
        Ok(identity) => match &identity.revoked {
            Some(revoked) => entries(&alive, revoked.reason, now),
            // An orphan is meant to live on.
            None => single_entries(identity, &alive, now),
        },
        Err(_) => entries(&alive, reason, now),
    };
    let identity = facts.identity.as_ref().ok();
    let spec = identity.and_then(|identity| identity.trust_domain.as_deref());
    let resolved = identity.and_then(|_| view.domains.resolve(spec).ok());
    let resolved = resolved.as_ref().map(|state| state.domain.name.as_str());
    let before = previous.and_then(|status| status.trust_domain.as_deref());
    let submitted = hand_in(context, key, resolved.or(before).or(spec), &wanted);
    if submitted.new > 0 {
        let note = format!("it was deleted, and is revoked with it ({reason:?})");
        step_of(context, key, facts.uid(), "SigningStopped", "signing-stopped", note);
    }
    let decided = deletion::decide(
        &Deletion {
            since: context.memory.deleted_since(key, now),
            is_recorded: submitted.is_recorded,
            is_published: submitted.is_published,
            is_with_namespace: namespace.is_some_and(|namespace| namespace.terminating),
        },
        now,
    );

    let serials: Vec<&str> = wanted.iter().map(|entry| entry.key.serial.as_str()).collect();
    let serials = serials.join(", ");
    match decided {
        DeletionStep::Wait(moment) => return Ok(Some(until(moment, now))),
        DeletionStep::LetGo if wanted.is_empty() => {}
        DeletionStep::LetGo => {
            let place = if submitted.is_published { "on the CRL" } else { "on record" };
            let note = format!("{place}: {serials}");
            step_of(context, key, facts.uid(), "CertificatesRevoked", "crl-published", note);
        }
        DeletionStep::GiveUp => give_up(context, key, facts, &serials),
    }

    // 5. Apply.
    if let (Ok(identity), SecretState::Ours(ours)) = (&facts.identity, &secret)
        && identity.revoked.is_some()
        && identity.deletion_policy == DeletionPolicy::Orphan
        && ours.content != Content::Emptied
    {
        apply::take_out_key(client, memory, identity, ours).await?;
    }
    apply::finalizer::take_off(client, key, facts).await?;
    Ok(None)
}

/// Says that certificates are revoked nowhere whose identity goes.
fn give_up(context: &Context, key: &IdentityKey, facts: &AgentFacts, serials: &str) {
    let note = format!(
        "it was deleted and is let go, though it could not be recorded that these certificates are revoked: {serials}. Peers accept them until they end; the TrustDomain's conditions say what is wrong"
    );
    tracing::warn!(target: "audit", identity = %key, step = "given-up", "{note}");
    let reason = Reason::RecordNotWritten.as_str();
    context.tell(key.reference(facts.uid()), true, reason, "Revoke", note);
}
