//! CA Secrets: immutable, one a CA, never overwritten.

use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, DeleteParams};
use serde::Serialize;
use std::collections::BTreeMap;
use zeroize::Zeroizing;

use crate::api::SlotKind;
use crate::api::names::{AUTHORITY_LABEL, SLOT_KIND_LABEL, TLS_CRT, TLS_KEY, TRUST_DOMAIN_LABEL};
use crate::decide::slots::SlotOrder;
use crate::identity::Domain;
use crate::sign::Slot;
use crate::wire::{self, WireError, base64};
use crate::x509::write_pem;

/// Keeps a new CA. Its key is destroyed by us alone: when it is retired, or the TrustDomain goes.
///
/// # Errors
/// A conflict where a Secret of that name exists: another replica, or this one before a crash,
/// was first, and its CA is the one that counts.
pub async fn create(
    client: &Client,
    namespace: &str,
    domain: &Domain,
    order: &SlotOrder,
    slot: &Slot,
) -> Result<(), WireError> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Body<'a> {
        api_version: &'static str,
        kind: &'static str,
        r#type: &'static str,
        immutable: bool,
        metadata: serde_json::Value,
        data: BTreeMap<&'a str, Zeroizing<String>>,
    }
    let kind = match order.kind {
        SlotKind::Root => "root",
        SlotKind::Issuing => "issuing",
    };
    let mut data = BTreeMap::from([(TLS_CRT, base64(write_pem(slot.chain()).as_bytes()))]);
    if let Some(key) = &slot.key {
        let (name, content) = key.kept();
        data.insert(name, base64(&content));
    }
    // The API server takes no Secret of this type without tls.key, and policy holds the operator to
    // this type.
    data.entry(TLS_KEY).or_default();
    let body = Body {
        api_version: "v1",
        kind: "Secret",
        r#type: "kubernetes.io/tls",
        immutable: true,
        metadata: serde_json::json!({
            "name": order.name,
            // No owner: with one, whoever deletes the TrustDomain in the foreground would have the
            // garbage collector destroy the keys while identities still hold it.
            "labels": {
                TRUST_DOMAIN_LABEL: domain.name,
                SLOT_KIND_LABEL: kind,
                AUTHORITY_LABEL: domain.authority.kind().as_str(),
            },
        }),
        data,
    };
    // An RSA-4096 key and certificate come to 7 kB.
    let mut bytes = Zeroizing::new(Vec::with_capacity(32 * 1024));
    serde_json::to_writer(&mut *bytes, &body).expect("plain data can be written to memory");
    wire::create_secret(client, namespace, bytes).await.map(drop)
}

/// Destroys a CA that nothing needs any more, and its key with it.
///
/// # Errors
/// When the API server did not take it.
pub async fn destroy(client: &Client, namespace: &str, name: &str) -> Result<(), WireError> {
    let api = Api::<Secret>::namespaced(client.clone(), namespace);
    match api.delete(name, &DeleteParams::default()).await.map_err(WireError::from) {
        Ok(_) | Err(WireError::NotFound(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// A reference to the TrustDomain, so that what belongs to it goes with it.
pub(super) fn owner(domain: &Domain) -> serde_json::Value {
    serde_json::json!({
        "apiVersion": "countersign.dev/v1alpha1",
        "kind": "TrustDomain",
        "name": domain.name,
        "uid": domain.uid,
        "controller": true,
        "blockOwnerDeletion": false,
    })
}
