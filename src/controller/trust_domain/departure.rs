//! The end of a TrustDomain: held by a finalizer of ours, and taken apart in an order.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, Preconditions};

use super::{Failure, cas};
use crate::api::TrustDomain;
use crate::api::names::{FINALIZER, bundle_config_map_name, cluster_trust_bundle_name};
use crate::apply;
use crate::controller::Context;
use crate::decide::departure::{self, Departure};
use crate::observe::cluster_bundles::Served;
use crate::observe::slots::read;
use crate::wire::WireError;

/// How often a TrustDomain that is held is looked at. It costs no request.
pub const HELD_CHECK: Duration = Duration::from_secs(1);

/// ConfigMaps that are deleted at once.
const DELETED_AT_ONCE: usize = 8;

/// What becomes of a TrustDomain; None where nobody has deleted it, or it is not ours to hold.
pub fn of(context: &Context, resource: &TrustDomain) -> Option<Departure> {
    resource.metadata.deletion_timestamp.as_ref()?;
    if !is_held(resource) {
        return Some(Departure::Goes);
    }
    let name = resource.metadata.name.as_deref().unwrap_or_default();
    let identities = context.view.identities.is_ready();
    let identities = identities.then(|| context.view.census.of_trust_domain(name));
    Some(departure::decide(resource.spec.deletion_policy.unwrap_or_default(), identities))
}

fn is_held(resource: &TrustDomain) -> bool {
    resource.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

/// Sees that a TrustDomain cannot go without us. One write in its life.
pub async fn hold(
    context: &Context,
    resource: &Arc<TrustDomain>,
) -> Result<Arc<TrustDomain>, Failure> {
    if is_held(resource) {
        return Ok(resource.clone());
    }
    let mut held = TrustDomain::clone(resource);
    held.metadata.finalizers.get_or_insert_default().push(FINALIZER.to_owned());
    let written = finalizers(context, &held).await?;
    // The turn goes on with what it has just written.
    held.metadata.resource_version = written.resource_version;
    Ok(Arc::new(held))
}

/// Takes apart what a TrustDomain has, and lets it go. What publishes goes first, the keys when
/// nothing can sign with them any more, and the finalizer when nothing is left.
pub async fn clear(context: &Context, resource: &TrustDomain) -> Result<(), Failure> {
    if !is_held(resource) {
        return Ok(());
    }
    let name = resource.metadata.name.as_deref().unwrap_or_default();
    delete_cluster_bundle(context, resource, name).await?;
    delete_config_maps(context, name).await?;
    let namespace = &context.view.namespace;
    // Asked for and not looked up: one that was made a moment ago is in no mirror.
    let found = read(&context.client, namespace, name).await?;
    cas::sweep_all(context, resource, &found).await?;
    for found in found {
        cas::destroy_slot(context, &found.facts.name, found.slot).await?;
    }
    let mut free = resource.clone();
    free.metadata.finalizers.iter_mut().for_each(|all| all.retain(|one| one != FINALIZER));
    match finalizers(context, &free).await {
        Ok(_) | Err(WireError::NotFound(_)) => {}
        Err(error) => return Err(error.into()),
    }
    tracing::info!(trust_domain = name, "it is gone, with its CAs and bundles");
    Ok(())
}

async fn delete_cluster_bundle(
    context: &Context,
    resource: &TrustDomain,
    name: &str,
) -> Result<(), WireError> {
    let bundle = cluster_trust_bundle_name(name);
    let uid = resource.metadata.uid.as_deref().unwrap_or_default();
    let found = context.view.cluster_bundles.get(&bundle).filter(|found| found.is_of(name, uid));
    match (context.view.cluster_bundles.served(), found) {
        (Served::At(version), Some(found)) => {
            let version_found = &found.resource_version;
            apply::cluster_bundle::delete(&context.client, version, &bundle, version_found).await
        }
        _ => Ok(()),
    }
}

async fn delete_config_maps(context: &Context, name: &str) -> Result<(), WireError> {
    let map = bundle_config_map_name(name);
    let all = context.view.bundles.all();
    let ours = all.into_iter().filter(|(key, _)| *key.name == map);
    futures::stream::iter(ours)
        .map(|(key, facts)| {
            let api = Api::<ConfigMap>::namespaced(context.client.clone(), &key.namespace);
            let version = Some(facts.resource_version.clone());
            let seen = Preconditions { resource_version: version, uid: None };
            let map = &map;
            async move {
                let params = DeleteParams::default().preconditions(seen);
                match api.delete(map, &params).await.map_err(WireError::from) {
                    Ok(_) | Err(WireError::NotFound(_)) => Ok(()),
                    Err(error) => Err(error),
                }
            }
        })
        .buffer_unordered(DELETED_AT_ONCE)
        .try_collect()
        .await
}

/// Writes the finalizers, and nothing else.
async fn finalizers(
    context: &Context,
    resource: &TrustDomain,
) -> Result<kube::api::ObjectMeta, WireError> {
    let metadata = &resource.metadata;
    let name = metadata.name.as_deref().unwrap_or_default();
    let path = format!("/apis/countersign.dev/v1alpha1/trustdomains/{name}");
    let uid = metadata.uid.as_deref().unwrap_or_default();
    let version = metadata.resource_version.as_deref().unwrap_or_default();
    let finalizers = metadata.finalizers.as_deref().unwrap_or_default();
    apply::finalizer::write(&context.client, &path, uid, version, finalizers).await
}
