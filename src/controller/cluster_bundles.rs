//! The watch of ClusterTrustBundles, of which it must first be found out whether there are any.

use std::time::Duration;

use kube::Api;
use kube::ResourceExt;
use kube::api::DynamicObject;
use kube::runtime::watcher::{Config, watcher as watch};

use super::Context;
use super::watches::follow;
use crate::api::names::TRUST_DOMAIN_LABEL;
use crate::observe::cluster_bundles::{Served, cluster_bundle_facts, discover, kind};
use crate::watch::Change;

/// How often it is asked whether they are served in another version, or at all: an API server
/// changes that only when it is started again.
const ASKED_AGAIN: Duration = Duration::from_secs(300);
/// How long after an API server that did not answer.
const RETRY: Duration = Duration::from_secs(5);

/// Keeps the mirror up to date in whichever version there is. Does not end by itself.
pub async fn run(context: &Context) {
    let mut served = next(context, Served::Unknown).await;
    loop {
        if context.view.cluster_bundles.set_served(served) {
            tracing::info!(?served, "ClusterTrustBundles");
            for (trust_domain, _) in context.view.trust_domains.all() {
                context.trust_domains.wake(trust_domain.name.to_string());
            }
        }
        let changed = next(context, served);
        served = match served {
            Served::At(version) => tokio::select! {
                () = mirror(context, version) => served,
                changed = changed => changed,
            },
            Served::Unknown | Served::Nowhere => changed.await,
        };
    }
}

/// Waits until they are served otherwise than now.
async fn next(context: &Context, now: Served) -> Served {
    let mut wait = if now == Served::Unknown { Duration::ZERO } else { ASKED_AGAIN };
    loop {
        tokio::time::sleep(wait).await;
        wait = match discover(&context.client).await {
            Ok(served) if served != now => return served,
            Ok(_) => ASKED_AGAIN,
            Err(error) => {
                tracing::warn!(%error, "whether ClusterTrustBundles are served is not known");
                RETRY
            }
        };
    }
}

async fn mirror(context: &Context, version: &str) {
    let api = Api::<DynamicObject>::all_with(context.client.clone(), &kind(version));
    let stream = watch(api, Config::default().labels(TRUST_DOMAIN_LABEL));
    follow(context, "clustertrustbundles", stream, |event| {
        let project = |object: DynamicObject| {
            object.labels().contains_key(TRUST_DOMAIN_LABEL).then(|| cluster_bundle_facts(object))
        };
        for change in context.view.cluster_bundles.mirror.take(event, project) {
            let (Change::Set { new: facts, .. } | Change::Gone { old: facts, .. }) = change;
            if let Some(trust_domain) = &facts.trust_domain {
                context.trust_domains.wake(trust_domain.clone());
            }
        }
    })
    .await;
}
