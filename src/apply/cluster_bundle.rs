//! The ClusterTrustBundle, in whichever version the API server serves.

use kube::api::{ApiResource, DeleteParams, DynamicObject, PostParams, Preconditions};
use kube::{Api, Client};
use serde_json::json;

use super::slots::owner;
use crate::api::names::{
    AGENT_SIGNER, BUNDLE_SHA256_ANNOTATION, TRUST_DOMAIN_LABEL, cluster_trust_bundle_name,
};
use crate::decide::cluster_bundle::ClusterBundlePlan;
use crate::identity::Domain;
use crate::observe::cluster_bundles::{cluster_bundle_facts, kind};
use crate::wire::WireError;
use crate::x509::Sha256;

/// Does what was planned about a trust domain's ClusterTrustBundle.
///
/// # Errors
/// When the API server did not take it, or one of that name is not ours: creating it then
/// conflicts, and it is left alone.
pub async fn write(
    client: &Client,
    version: &str,
    domain: &Domain,
    bundle_pem: &str,
    plan: &ClusterBundlePlan,
) -> Result<(), WireError> {
    let name = cluster_trust_bundle_name(&domain.name);
    let kind = kind(version);
    let api = Api::<DynamicObject>::all_with(client.clone(), &kind);
    match plan {
        ClusterBundlePlan::Nothing | ClusterBundlePlan::Foreign => Ok(()),
        ClusterBundlePlan::Create => {
            let object = object(&kind, domain, bundle_pem, &name, None);
            match api.create(&PostParams::default(), &object).await.map_err(WireError::from) {
                Err(WireError::Conflict(message)) => {
                    // Without our label, or behind our own write of a moment ago, it is in no
                    // mirror.
                    let found = api.get_opt(&name).await?.map(cluster_bundle_facts);
                    let Some(found) = found.filter(|found| found.is_of(&domain.name, &domain.uid))
                    else {
                        return Err(WireError::Conflict(message));
                    };
                    replace(&api, &kind, domain, bundle_pem, &found.resource_version).await
                }
                created => created.map(drop),
            }
        }
        ClusterBundlePlan::Replace { resource_version } => {
            replace(&api, &kind, domain, bundle_pem, resource_version).await
        }
        ClusterBundlePlan::Delete { resource_version } => {
            delete(client, version, &name, resource_version).await
        }
    }
}

/// Takes away the ClusterTrustBundle of this name, in the version that was seen.
///
/// # Errors
/// When it changed meanwhile, or the API server did not take it.
pub async fn delete(
    client: &Client,
    version: &str,
    name: &str,
    resource_version: &str,
) -> Result<(), WireError> {
    let api = Api::<DynamicObject>::all_with(client.clone(), &kind(version));
    let seen = Preconditions { resource_version: Some(resource_version.to_owned()), uid: None };
    let params = DeleteParams::default().preconditions(seen);
    match api.delete(name, &params).await.map_err(WireError::from) {
        Ok(_) | Err(WireError::NotFound(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

async fn replace(
    api: &Api<DynamicObject>,
    kind: &ApiResource,
    domain: &Domain,
    bundle_pem: &str,
    resource_version: &str,
) -> Result<(), WireError> {
    let name = cluster_trust_bundle_name(&domain.name);
    let object = object(kind, domain, bundle_pem, &name, Some(resource_version));
    Ok(api.replace(&name, &PostParams::default(), &object).await.map(drop)?)
}

fn object(
    kind: &ApiResource,
    domain: &Domain,
    bundle_pem: &str,
    name: &str,
    resource_version: Option<&str>,
) -> DynamicObject {
    let metadata = json!({
        "name": name,
        "resourceVersion": resource_version,
        "labels": {TRUST_DOMAIN_LABEL: domain.name},
        "annotations": {BUNDLE_SHA256_ANNOTATION: Sha256::of(bundle_pem.as_bytes()).to_string()},
        "ownerReferences": [owner(domain)],
    });
    let spec = json!({"spec": {"signerName": AGENT_SIGNER, "trustBundle": bundle_pem}});
    let mut object = DynamicObject::new(name, kind).data(spec);
    object.metadata = serde_json::from_value(metadata).expect("these are the fields of ObjectMeta");
    object
}
