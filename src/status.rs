//! 6. From a plan and what came of it to a status; then one patch, skipped where nothing changed.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Client;
use serde::Serialize;
use serde_json::{Value, json};

use crate::api::conditions::{PODS_LABELLED, READY, Reason};
use crate::api::{AgentIdentityStatus, CertificateStatus, LastFailure, PodsStatus};
use crate::decide::schedule::{renew_at, whole_seconds};
use crate::decide::{Admission, Content, Ready, SecretState, leaf::good_until};
use crate::identity::{Identity, IdentityKey};
use crate::observe::{Memory, Observed, PodCounts, StatusVersion};
use crate::wire::{self, WireError};
use crate::x509::Leaf;

/// How the attempt of this reconciliation ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Nothing was attempted, or it is not known to have gone wrong.
    Quiet(Ready),
    /// A certificate was written.
    Issued(Leaf),
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
    let found = match &observed.secret {
        SecretState::Ours(secret) => match &secret.content {
            Content::Read(facts) => Some(&facts.leaf),
            Content::Unreadable(_) => None,
        },
        SecretState::Absent | SecretState::Foreign(_) => None,
    };
    let (leaf, ready) = match outcome {
        Outcome::Issued(leaf) => (Some(leaf), (true, Reason::Issued, good_until(&leaf.not_after))),
        Outcome::Quiet(ready) => (found, spoken(ready)),
        Outcome::Failed { reason, message, standing } => match standing {
            Ready::Yes { message: standing } => {
                (found, (true, Reason::Issued, format!("{standing}; {message}")))
            }
            Ready::No { .. } => (found, (false, *reason, message.clone())),
        },
    };
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
        certificate: leaf.map(|leaf| certificate(identity, leaf, previous)),
        pods: Some(PodsStatus { matched: observed.pods.matched, labelled: observed.pods.labelled }),
        failed_attempts,
        last_failure,
    }
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
        Outcome::Issued(_) => (None, None),
        Outcome::Quiet(Ready::Yes { .. }) => (None, None),
        Outcome::Quiet(Ready::No { .. }) => (
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
    previous: Option<&AgentIdentityStatus>,
) -> CertificateStatus {
    let before = previous.and_then(|status| status.certificate.as_ref());
    let revision = match before {
        Some(before) if before.serial_number == leaf.serial => before.revision,
        Some(before) => before.revision + 1,
        None => 1,
    };
    CertificateStatus {
        serial_number: leaf.serial.clone(),
        sha256_fingerprint: leaf.fingerprint.to_string(),
        not_before: leaf.not_before.into(),
        not_after: leaf.not_after.into(),
        renew_at: renew_at(identity, leaf).into(),
        authority_key_id: leaf.authority_key_id.clone(),
        revision,
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
