//! The bundle's ConfigMaps.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::slots::owner;
use crate::api::names::{
    BUNDLE_SHA256_ANNOTATION, CA_CRT, CRL_PEM, CRL_SHA256_ANNOTATION, TRUST_DOMAIN_LABEL,
    bundle_config_map_name,
};
use crate::decide::bundle::BundleWrite;
use crate::identity::Domain;
use crate::wire::WireError;
use crate::x509::Sha256;

/// Does one write to a bundle ConfigMap.
///
/// # Errors
/// When the API server did not take it, or a ConfigMap of that name is not ours: creating it then
/// conflicts, and it is left alone.
pub async fn write(
    client: &Client,
    domain: &Domain,
    bundle_pem: &str,
    crl_pem: &str,
    write: &BundleWrite,
) -> Result<(), WireError> {
    let name = bundle_config_map_name(&domain.name);
    let api = |namespace: &str| Api::<ConfigMap>::namespaced(client.clone(), namespace);
    let config_map_at =
        |version: Option<&str>| config_map(domain, bundle_pem, crl_pem, &name, version);
    match write {
        BundleWrite::Create { namespace } => {
            let created = api(namespace).create(&PostParams::default(), &config_map_at(None)).await;
            match created.map_err(WireError::from) {
                Err(WireError::Conflict(message)) => {
                    // The mirror may be behind our own write of a moment ago.
                    let found = api(namespace).get_opt(&name).await?;
                    let Some(found) = found else { return Err(WireError::Conflict(message)) };
                    if found.labels().get(TRUST_DOMAIN_LABEL) == Some(&domain.name) {
                        return Ok(());
                    }
                    // Without our label it is in no mirror; its owner proves that it is ours.
                    let mut owners = found.owner_references().iter();
                    if !owners
                        .any(|owner| owner.controller == Some(true) && owner.uid == domain.uid)
                    {
                        return Err(WireError::Conflict(message));
                    }
                    let version = found.resource_version();
                    let config_map = config_map_at(version.as_deref());
                    api(namespace).replace(&name, &PostParams::default(), &config_map).await?;
                }
                created => drop(created?),
            }
        }
        BundleWrite::Replace { namespace, resource_version } => {
            let config_map = config_map_at(Some(resource_version));
            api(namespace).replace(&name, &PostParams::default(), &config_map).await?;
        }
        BundleWrite::Delete { namespace, resource_version } => {
            let preconditions =
                Preconditions { resource_version: Some(resource_version.clone()), uid: None };
            let params = DeleteParams::default().preconditions(preconditions);
            match api(namespace).delete(&name, &params).await.map_err(WireError::from) {
                Ok(_) | Err(WireError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

fn config_map(
    domain: &Domain,
    bundle_pem: &str,
    crl_pem: &str,
    name: &str,
    resource_version: Option<&str>,
) -> ConfigMap {
    let digest = |text: &str| Sha256::of(text.as_bytes()).to_string();
    let mut data = BTreeMap::from([(CA_CRT.to_owned(), bundle_pem.to_owned())]);
    let mut annotations = json!({BUNDLE_SHA256_ANNOTATION: digest(bundle_pem)});
    if !crl_pem.is_empty() {
        data.insert(CRL_PEM.to_owned(), crl_pem.to_owned());
        annotations[CRL_SHA256_ANNOTATION] = json!(digest(crl_pem));
    }
    let metadata = json!({
        "name": name,
        "resourceVersion": resource_version,
        "labels": {TRUST_DOMAIN_LABEL: domain.name},
        "annotations": annotations,
        "ownerReferences": [owner(domain)],
    });
    ConfigMap {
        metadata: serde_json::from_value(metadata).expect("these are the fields of ObjectMeta"),
        data: Some(data),
        ..ConfigMap::default()
    }
}
