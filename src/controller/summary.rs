//! A TrustDomain's counts of identities: written at most once a second, and only when changed.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::Context;
use crate::api::{IdentitiesStatus, TrustDomain};
use crate::observe::view::Object;
use crate::wire::{self, WireError};

const INTERVAL: Duration = Duration::from_secs(1);

/// Counts once a second, for ever.
pub async fn run(context: Arc<Context>) {
    context.view.domains.wait_until_loaded().await;
    context.view.identities.wait_until_ready().await;
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let counts = context.view.census.counts();
        for (key, object) in context.view.trust_domains.all() {
            let Object::Read(trust_domain) = &*object else { continue };
            let (total, ready) = counts.get(&*key.name).copied().unwrap_or_default();
            if let Err(error) =
                write(&context, trust_domain, IdentitiesStatus { total, ready }).await
            {
                tracing::debug!(trust_domain = %key.name, %error, "counted again in a second");
            }
        }
    }
}

async fn write(
    context: &Context,
    trust_domain: &TrustDomain,
    counts: IdentitiesStatus,
) -> Result<(), WireError> {
    let Some(status) = &trust_domain.status else { return Ok(()) };
    if status.identities == Some(counts) {
        return Ok(());
    }
    let name = trust_domain.metadata.name.as_deref().unwrap_or_default();
    let path = format!("/apis/countersign.dev/v1alpha1/trustdomains/{name}/status");
    let body = json!({
        "metadata": {"resourceVersion": trust_domain.metadata.resource_version},
        "status": {"identities": counts},
    });
    wire::patch(&context.client, &path, &body).await.map(drop)
}
