//! Labels and annotations on pods.

use kube::Client;
use serde_json::json;

use crate::decide::pods::PodChange;
use crate::watch::ObjectKey;
use crate::watch::pods::PodFacts;
use crate::wire::{self, WireError};

/// Changes a pod's labels and annotations, and nothing else of it.
///
/// # Errors
/// When the pod changed or went meanwhile, or the API server did not take the change.
pub async fn change(
    client: &Client,
    key: &ObjectKey,
    found: &PodFacts,
    change: &PodChange,
) -> Result<(), WireError> {
    let path = format!("/api/v1/namespaces/{}/pods/{}", key.namespace, key.name);
    let mut metadata = json!({"resourceVersion": found.resource_version});
    if !change.labels.is_empty() {
        metadata["labels"] = json!(change.labels);
    }
    if !change.annotations.is_empty() {
        metadata["annotations"] = json!(change.annotations);
    }
    wire::patch(client, &path, &json!({"metadata": metadata})).await.map(drop)
}
