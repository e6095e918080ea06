//! The ConfigMaps that record what was revoked, and those that hold a CRL, all in the operator's
//! own namespace.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use super::slots::owner;
use crate::api::names::{
    CRL_DER, CRL_SHA256_ANNOTATION, REVOCATION_LABEL, REVOKED_RECORD, TRUST_DOMAIN_LABEL, crl_name,
    record_name,
};
use crate::decide::record::{self, ShardWrite};
use crate::identity::Domain;
use crate::wire::WireError;
use crate::x509::Sha256;

/// Writes a ConfigMap of the record, and returns its version.
///
/// # Errors
/// A conflict where it is not in the version that the write was decided on.
pub async fn write_record(
    client: &Client,
    namespace: &str,
    domain: &Domain,
    write: &ShardWrite,
) -> Result<String, WireError> {
    let name = record_name(&domain.name, write.number);
    let metadata = metadata(domain, &name, &write.replaces, json!({}));
    let data = BTreeMap::from([(REVOKED_RECORD.to_owned(), record::write(&write.entries))]);
    let config_map = ConfigMap { metadata, data: Some(data), ..ConfigMap::default() };
    put(client, namespace, &name, &config_map).await
}

/// Writes the ConfigMap with a CA's CRL, and returns its version.
///
/// # Errors
/// As [`write_record`].
pub async fn write_crl(
    client: &Client,
    namespace: &str,
    domain: &Domain,
    key_id: &str,
    replaces: &Option<String>,
    der: &[u8],
) -> Result<String, WireError> {
    let name = crl_name(&domain.name, key_id);
    let annotations = json!({CRL_SHA256_ANNOTATION: Sha256::of(der).to_string()});
    let metadata = metadata(domain, &name, replaces, annotations);
    let data = BTreeMap::from([(CRL_DER.to_owned(), ByteString(der.to_vec()))]);
    let config_map = ConfigMap { metadata, binary_data: Some(data), ..ConfigMap::default() };
    put(client, namespace, &name, &config_map).await
}

/// Deletes one of these ConfigMaps.
///
/// # Errors
/// When it changed meanwhile, or the API server did not take it.
pub async fn delete(
    client: &Client,
    namespace: &str,
    name: &str,
    resource_version: &str,
) -> Result<(), WireError> {
    let api = Api::<ConfigMap>::namespaced(client.clone(), namespace);
    let preconditions =
        Preconditions { resource_version: Some(resource_version.to_owned()), uid: None };
    let params = DeleteParams::default().preconditions(preconditions);
    match api.delete(name, &params).await.map_err(WireError::from) {
        Ok(_) | Err(WireError::NotFound(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

fn metadata(
    domain: &Domain,
    name: &str,
    replaces: &Option<String>,
    annotations: Value,
) -> kube::api::ObjectMeta {
    let metadata = json!({
        "name": name,
        "resourceVersion": replaces,
        "labels": {REVOCATION_LABEL: domain.name, TRUST_DOMAIN_LABEL: domain.name},
        "annotations": annotations,
        "ownerReferences": [owner(domain)],
    });
    serde_json::from_value(metadata).expect("these are the fields of ObjectMeta")
}

async fn put(
    client: &Client,
    namespace: &str,
    name: &str,
    config_map: &ConfigMap,
) -> Result<String, WireError> {
    let api = Api::<ConfigMap>::namespaced(client.clone(), namespace);
    let params = PostParams::default();
    let written = match &config_map.metadata.resource_version {
        None => api.create(&params, config_map).await,
        Some(_) => api.replace(name, &params, config_map).await,
    };
    match written.map_err(WireError::from) {
        // It was deleted by hand meanwhile: the next look knows.
        Err(WireError::NotFound(message)) => Err(WireError::Conflict(message)),
        written => Ok(written?.resource_version().unwrap_or_default()),
    }
}
