//! 6. From a plan and what came of it to a status; then one patch, skipped where nothing changed.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Client;
use serde::Serialize;
use serde_json::{Value, json};

use crate::api::conditions::{IssueReason, PODS_LABELLED, READY, REVOKED, Reason};
use crate::api::{
    AgentIdentityStatus, CertificateStatus, FormerCertificate, LastFailure, PodsStatus,
    RevokedSpec, RevokedStatus,
};
use crate::decide::ledger::{Ledger, leaf_of};
use crate::decide::schedule::{renew_at, whole_seconds};
use crate::decide::{Admission, Ready, leaf::good_until};
use crate::identity::{Identity, IdentityKey};
use crate::observe::{Memory, Observed, PodCounts, StatusVersion};
use crate::wire::{self, WireError};
use crate::x509::Leaf;

/// How the attempt of this reconciliation ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Nothing was attempted, or it is not known to have gone wrong.
    Quiet(Ready),
    /// A certificate was written, and why.
    Issued(Leaf, IssueReason),
    /// Nothing was attempted: the next serial number is passed over.
    Skipped(Ready),
    /// Something was attempted and failed. `standing` is what is still there.
    Failed { reason: Reason, message: String, standing: Ready },
}

/// The status of an identity after a reconciliation.
pub fn build(
    identity: &Identity,
    observed: &Observed,
    outcome: &Outcome,
    now: Timestamp,
) -> AgentIdentityStatus {
    let previous = observed.previous();
    let spiffe_id = match &observed.admission {
        Admission::Admitted { spiffe_id, .. } => Some(spiffe_id.to_string()),
        Admission::Waiting { spiffe_id, .. } => spiffe_id.as_ref().map(ToString::to_string),
        Admission::Refused { .. } => None,
    };
    let ledger = Ledger::of(&identity.uid, previous);
    // A certificate that somebody else put there is not one of ours.
    let found = leaf_of(&observed.secret).filter(|leaf| ledger.revision_of(&leaf.serial).is_some());
    let (leaf, ready) = match outcome {
        Outcome::Issued(leaf, _) => {
            (Some(leaf), (true, Reason::Issued, good_until(&leaf.not_after)))
        }
        Outcome::Quiet(ready) | Outcome::Skipped(ready) => (found, spoken(ready)),
        Outcome::Failed { reason, message, standing } => match standing {
            Ready::Yes { message: standing } => {
                (found, (true, Reason::Issued, format!("{standing}; {message}")))
            }
            Ready::No { .. } => (found, (false, *reason, message.clone())),
        },
    };
    let certificate = leaf.map(|leaf| certificate(identity, leaf, &ledger, previous, outcome));
    let counted = certificate.as_ref().map(|certificate| certificate.revision);
    let skipped = matches!(outcome, Outcome::Skipped(_)).then_some(ledger.revision + 1);
    let revision = [Some(ledger.revision), counted, skipped].into_iter().flatten().max();
    let current = certificate.as_ref().map(|certificate| certificate.serial_number.as_str());
    let former = ledger.followed(current, now);
    let (failed_attempts, last_failure) = failures(identity, previous, outcome, now);
    let mut conditions = Vec::with_capacity(2);
    for (kind, (is_true, reason, message)) in
        [(READY, ready), (PODS_LABELLED, pods_labelled(&observed.pods))]
    {
        conditions.push(condition(
            previous.map(|status| status.conditions.as_slice()).unwrap_or_default(),
            kind,
            is_true,
            reason,
            message,
            identity.generation,
            now,
        ));
    }
    AgentIdentityStatus {
        conditions,
        spiffe_id,
        trust_domain: observed.trust_domain.clone().or_else(|| identity.trust_domain.clone()),
        secret_name: Some(identity.secret_name.clone()),
        certificate,
        revision: revision.filter(|revision| *revision > 0),
        former,
        revoked: None,
        pods: Some(PodsStatus { matched: observed.pods.matched, labelled: observed.pods.labelled }),
        failed_attempts,
        last_failure,
    }
}

/// The status that counts a certificate which is signed and not written yet, among the former ones.
///
/// Where another program chooses serial numbers, nobody could tell afterwards which one a certificate
/// had whose Secret is gone: so it is counted before it can be out.
pub fn announce(
    identity: &Identity,
    previous: Option<&AgentIdentityStatus>,
    leaf: &Leaf,
    reason: IssueReason,
) -> AgentIdentityStatus {
    let mut status = previous.cloned().unwrap_or_default();
    let revision = Ledger::of(&identity.uid, previous).revision + 1;
    status.former.push(FormerCertificate {
        serial_number: leaf.serial.clone(),
        not_after: leaf.not_after.into(),
        authority_key_id: leaf.authority_key_id.clone(),
        revision,
        reason: Some(reason.to_string()),
        count: None,
    });
    status.revision = Some(revision);
    status
}

/// The status of an identity that is revoked: these certificates are on the CRL, and nothing is in
/// its Secret.
pub fn build_revoked(
    identity: &Identity,
    observed: &Observed,
    revoked: &RevokedSpec,
    serials: &BTreeSet<String>,
    now: Timestamp,
) -> AgentIdentityStatus {
    let previous = observed.previous();
    let before = previous.and_then(|status| status.revoked.as_ref());
    let mut serial_numbers = before.map(|b| b.serial_numbers.clone()).unwrap_or_default();
    let new = serials.iter().filter(|serial| !serial_numbers.contains(serial));
    serial_numbers.extend(new.cloned().collect::<Vec<_>>());
    let since = before.map(|b| b.since.clone()).unwrap_or_else(|| whole_seconds(now).into());
    let message = format!(
        "revoked since {} ({:?}){}{}: take spec.revoked away to give it a new key and certificate",
        since.0,
        revoked.reason,
        identity.by_whom(),
        revoked.message.as_ref().map(|message| format!(": {message}")).unwrap_or_default(),
    );
    let ready = Ready::No { reason: Reason::Revoked, message: message.clone() };
    let ledger = Ledger::of(&identity.uid, previous);
    // A serial number that is on the CRL without having been used is never used.
    let is_used = serials.contains(&ledger.next().to_string());
    let outcome = if is_used { Outcome::Skipped(ready) } else { Outcome::Quiet(ready) };
    let mut status = build(identity, observed, &outcome, now);
    status.certificate = None;
    status.former = ledger.followed(None, now);
    status.failed_attempts = None;
    status.last_failure = None;
    let conditions = previous.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let generation = identity.generation;
    status.conditions.push(condition(
        conditions,
        REVOKED,
        true,
        Reason::Revoked,
        message,
        generation,
        now,
    ));
    status.revoked = Some(RevokedStatus { since, reason: revoked.reason, serial_numbers });
    status
}

/// The status of an identity that is to be revoked, and whose certificates are not on a CRL that is
/// published yet.
pub fn build_awaiting(
    identity: &Identity,
    observed: &Observed,
    since: Timestamp,
    now: Timestamp,
) -> AgentIdentityStatus {
    let since = whole_seconds(since);
    let of = observed.trust_domain.as_deref().unwrap_or("(none)");
    let message = format!(
        "since {since} its certificates wait to be on a published CRL: the conditions CRLPublished and Ready of TrustDomain {of} say what is wrong. Nothing is signed for it any more, and its pods are labelled"
    );
    let ready = Ready::No { reason: Reason::Revoked, message: message.clone() };
    let mut status = build(identity, observed, &Outcome::Quiet(ready), now);
    let previous = observed.previous();
    let conditions = previous.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let reason = Reason::CrlAwaited;
    let generation = identity.generation;
    let revoked = condition(conditions, REVOKED, false, reason, message, generation, now);
    status.conditions.push(revoked);
    status
}

/// The status of a resource that cannot be understood.
pub fn build_invalid(
    generation: i64,
    previous: Option<&AgentIdentityStatus>,
    message: String,
    now: Timestamp,
) -> AgentIdentityStatus {
    let mut status = previous.cloned().unwrap_or_default();
    let ready =
        condition(&status.conditions, READY, false, Reason::InvalidSpec, message, generation, now);
    status.conditions.retain(|condition| condition.type_ != READY);
    status.conditions.insert(0, ready);
    status
}

/// Writes a status, unless the API server holds the same one. True if it was written.
///
/// # Errors
/// A conflict where the object changed meanwhile: the change wakes the identity again.
pub async fn publish(
    client: &Client,
    memory: &Memory,
    key: &IdentityKey,
    mirrored: String,
    current: &StatusVersion,
    status: AgentIdentityStatus,
) -> Result<bool, WireError> {
    if current.status.as_deref() == Some(&status) {
        return Ok(false);
    }
    let IdentityKey { namespace, name } = key;
    let path = format!(
        "/apis/countersign.dev/v1alpha1/namespaces/{namespace}/agentidentities/{name}/status"
    );
    let body = patch_of(&current.resource_version, current.status.as_deref(), &status);
    let metadata = wire::patch(client, &path, &body).await?;
    memory.remember_status(
        key,
        mirrored,
        StatusVersion {
            resource_version: metadata.resource_version.unwrap_or_default(),
            status: Some(Arc::new(status)),
        },
    );
    Ok(true)
}

/// A merge patch from one status to another: what the new one lacks is taken away, however deep.
pub fn patch_of<S: Serialize>(resource_version: &str, old: Option<&S>, new: &S) -> Value {
    let value = |status: &S| serde_json::to_value(status).unwrap_or_default();
    let mut status = value(new);
    if let Some(old) = old.map(value) {
        take_away(&old, &mut status);
    }
    json!({"metadata": {"resourceVersion": resource_version}, "status": status})
}

fn take_away(old: &Value, new: &mut Value) {
    let (Value::Object(old), Value::Object(new)) = (old, new) else { return };
    for (key, old) in old {
        match new.get_mut(key) {
            Some(new) => take_away(old, new),
            None => drop(new.insert(key.clone(), Value::Null)),
        }
    }
}

/// A condition that keeps its time of transition where its status stays.
pub fn condition(
    previous: &[Condition],
    kind: &str,
    is_true: bool,
    reason: Reason,
    message: String,
    generation: i64,
    now: Timestamp,
) -> Condition {
    let status = if is_true { "True" } else { "False" };
    let since = previous
        .iter()
        .find(|condition| condition.type_ == kind && condition.status == status)
        .map(|condition| condition.last_transition_time.clone());
    Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_string(),
        message,
        observed_generation: Some(generation),
        last_transition_time: since.unwrap_or_else(|| whole_seconds(now).into()),
    }
}

fn spoken(ready: &Ready) -> (bool, Reason, String) {
    match ready {
        Ready::Yes { message } => (true, Reason::Issued, message.clone()),
        Ready::No { reason, message } => (false, *reason, message.clone()),
    }
}

/// Failures since the last success, of this generation of the spec: a user who has just fixed it
/// starts afresh.
fn failures(
    identity: &Identity,
    previous: Option<&AgentIdentityStatus>,
    outcome: &Outcome,
    now: Timestamp,
) -> (Option<u32>, Option<LastFailure>) {
    let before = previous.filter(|status| {
        status.conditions.iter().any(|condition| {
            condition.type_ == READY && condition.observed_generation == Some(identity.generation)
        })
    });
    match outcome {
        Outcome::Issued(..) | Outcome::Quiet(Ready::Yes { .. }) => (None, None),
        Outcome::Skipped(_) | Outcome::Quiet(Ready::No { .. }) => (
            before.and_then(|status| status.failed_attempts),
            before.and_then(|status| status.last_failure.clone()),
        ),
        Outcome::Failed { reason, message, .. } => (
            Some(before.and_then(|status| status.failed_attempts).unwrap_or_default() + 1),
            Some(LastFailure {
                time: whole_seconds(now).into(),
                reason: reason.to_string(),
                message: message.clone(),
            }),
        ),
    }
}

fn certificate(
    identity: &Identity,
    leaf: &Leaf,
    ledger: &Ledger<'_>,
    previous: Option<&AgentIdentityStatus>,
    outcome: &Outcome,
) -> CertificateStatus {
    let before = previous
        .and_then(|status| status.certificate.as_ref())
        .filter(|before| before.serial_number == leaf.serial);
    let reason = match outcome {
        Outcome::Issued(_, reason) => Some(reason.to_string()),
        _ => before.and_then(|before| before.reason.clone()),
    };
    CertificateStatus {
        serial_number: leaf.serial.clone(),
        sha256_fingerprint: leaf.fingerprint.to_string(),
        not_before: leaf.not_before.into(),
        not_after: leaf.not_after.into(),
        renew_at: renew_at(identity, leaf).into(),
        authority_key_id: leaf.authority_key_id.clone(),
        revision: ledger.revision_of(&leaf.serial).unwrap_or(ledger.revision),
        reason,
    }
}

fn pods_labelled(pods: &PodCounts) -> (bool, Reason, String) {
    let PodCounts { matched, labelled, claimed_by_another, other } = pods;
    if *claimed_by_another > 0 {
        let other = other.as_deref().unwrap_or_default();
        let message = format!(
            "{claimed_by_another} of {matched} matching pods carry AgentIdentity {other}, which is more specific or older: narrow spec.podSelector of one of the two"
        );
        (false, Reason::PodsClaimedByAnother, message)
    } else if *matched == 0 {
        (true, Reason::NoPods, "no pod of the ServiceAccount matches".to_owned())
    } else if labelled < matched {
        (false, Reason::Labelling, format!("{labelled} of {matched} matching pods are labelled"))
    } else {
        (true, Reason::AllLabelled, format!("all {matched} matching pods are labelled"))
    }
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_takes_away_what_the_new_status_lacks_however_deep() {
        let old = json!({"a": 1, "b": {"c": [1], "d": 2}, "e": {"f": 3}});
        let new = json!({"a": 1, "b": {"d": 4}});
        let patch = patch_of("7", Some(&old), &new);
        let status = json!({"a": 1, "b": {"c": null, "d": 4}, "e": null});
        assert_eq!(patch, json!({"metadata": {"resourceVersion": "7"}, "status": status}));
    }
}
