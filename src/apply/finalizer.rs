//! Finalizers of ours: of a TrustDomain, and the one that keeps an AgentIdentity until what was
//! issued to it is revoked.

use kube::Client;
use kube::api::ObjectMeta;
use serde_json::json;

use crate::api::names::REVOCATION_FINALIZER;
use crate::identity::IdentityKey;
use crate::watch::agents::AgentFacts;
use crate::wire::{self, WireError};

/// Puts the one of an AgentIdentity on.
///
/// # Errors
/// A conflict where the object changed meanwhile.
pub async fn put_on(
    client: &Client,
    key: &IdentityKey,
    facts: &AgentFacts,
) -> Result<(), WireError> {
    let mut finalizers = facts.finalizers.to_vec();
    finalizers.push(REVOCATION_FINALIZER.to_owned());
    write_of(client, key, facts, &finalizers).await
}

/// Takes it off: an AgentIdentity that was deleted goes. One that is gone already is no error.
///
/// # Errors
/// As [`put_on`].
pub async fn take_off(
    client: &Client,
    key: &IdentityKey,
    facts: &AgentFacts,
) -> Result<(), WireError> {
    let mut finalizers = facts.finalizers.to_vec();
    finalizers.retain(|finalizer| finalizer != REVOCATION_FINALIZER);
    match write_of(client, key, facts, &finalizers).await {
        Err(WireError::NotFound(_)) => Ok(()),
        other => other,
    }
}

/// Writes the finalizers of the object at this path, as it was read, and nothing else.
///
/// # Errors
/// A conflict where the object changed meanwhile, or is another.
pub async fn write(
    client: &Client,
    path: &str,
    uid: &str,
    resource_version: &str,
    finalizers: &[String],
) -> Result<ObjectMeta, WireError> {
    let body = json!({"metadata": {
        "uid": uid, "resourceVersion": resource_version, "finalizers": finalizers,
    }});
    wire::patch(client, path, &body).await
}

async fn write_of(
    client: &Client,
    key: &IdentityKey,
    facts: &AgentFacts,
    finalizers: &[String],
) -> Result<(), WireError> {
    let IdentityKey { namespace, name } = key;
    let path =
        format!("/apis/countersign.dev/v1alpha1/namespaces/{namespace}/agentidentities/{name}");
    let version = &facts.resource_version;
    write(client, &path, facts.uid(), version, finalizers).await.map(drop)
}
