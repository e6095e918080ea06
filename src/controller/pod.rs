//! Pods: the labels of the identity they carry, and none that they do not.

use std::time::Duration;

use super::{Context, Next};
use crate::apply;
use crate::decide::pods::{Candidate, change, claimant};
use crate::telemetry::ErrorLabels;
use crate::watch::ObjectKey;
use crate::wire::WireError;

const CONTROLLER: &str = "pod";

/// One turn of a pod; says when to come back.
pub async fn run(context: &Context, key: &ObjectKey) -> Next {
    let result = context.turn(CONTROLLER, reconcile(context, key)).await?;
    match result {
        Ok(()) => None,
        // It went, or it changed and the watch will tell of it.
        Err(WireError::NotFound(_) | WireError::Conflict(_)) => None,
        Err(error) => {
            let labels = ErrorLabels { controller: CONTROLLER, kind: error.kind() };
            context.metrics.reconcile_errors.get_or_create(&labels).inc();
            tracing::warn!(pod = %format!("{}/{}", key.namespace, key.name), %error, "not labelled");
            Some(RETRY)
        }
    }
}

/// Pods have no status of ours to count failures in. Ten seconds is soon enough for a pod that
/// the API server refused to have labelled, and seldom enough to do no harm.
const RETRY: Duration = Duration::from_secs(10);

async fn reconcile(context: &Context, key: &ObjectKey) -> Result<(), WireError> {
    // 1. and 2. Observe.
    let Some(pod) = context.view.pods.get(key) else { return Ok(()) };
    let candidates = context
        .view
        .candidates(&ObjectKey::new(key.namespace.clone(), pod.service_account.as_str()));
    // 3. Decide.
    let candidates: Vec<Candidate<'_>> =
        candidates.iter().map(|(identity, spiffe_id)| Candidate { identity, spiffe_id }).collect();
    let winner = claimant(&pod.labels, &candidates);
    let change = change(&pod.labels, &pod.annotations, winner);
    if change.is_empty() {
        return Ok(());
    }
    // 5. Apply.
    apply::pods::change(&context.client, key, &pod, &change).await?;
    let identity = winner.map(|winner| &*winner.identity.key.name).unwrap_or("none");
    tracing::info!(pod = %format!("{}/{}", key.namespace, key.name), identity, "labelled");
    Ok(())
}
