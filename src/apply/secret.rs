//! The bodies of the writes to an identity's Secret. They hold keys, so they are put together in
//! buffers that clear themselves and never grow, which would leave copies behind.

use std::collections::BTreeMap;

use kube::Resource;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::api::AgentIdentity;
use crate::api::names::{
    NOT_AFTER_ANNOTATION, ORPHAN_OWNER_ANNOTATION, PRIVATE_KEYS, SECRET_KEYS, SERIAL_ANNOTATION,
    SPIFFE_ID_ANNOTATION, TAKEN_OUT_ANNOTATION, TEMPLATE_KEYS_ANNOTATION, TLS_CRT, TLS_KEY,
};
use crate::decide::{Content, Meta, OurSecret};
use crate::identity::Identity;
use crate::sign::Files;
use crate::wire::base64;

/// A new Secret.
pub fn creation(identity: &Identity, desired: &Meta, files: &Files) -> Zeroizing<Vec<u8>> {
    let name = Some(identity.secret_name.as_str());
    write(&Body {
        api_version: Some("v1"),
        kind: Some("Secret"),
        r#type: Some("kubernetes.io/tls"),
        metadata: Metadata {
            name,
            resource_version: None,
            labels: given(&desired.labels),
            annotations: given(&desired.annotations),
            owner_references: owners(identity, desired),
        },
        data: encoded(files),
    })
}

/// A Secret of ours with other files: what was there and is not asked for goes.
pub fn replacement(
    identity: &Identity,
    found: &OurSecret,
    desired: &Meta,
    files: &Files,
) -> Zeroizing<Vec<u8>> {
    let mut data = encoded(files);
    for name in SECRET_KEYS {
        data.entry(name).or_insert(None);
    }
    if let Content::Read(facts) = &found.content {
        for name in &facts.strays {
            data.entry(name).or_insert(None);
        }
    }
    write(&Body { metadata: changed(identity, found, desired), data, ..Body::default() })
}

/// A Secret of ours whose certificate stays: these files and the metadata are set right.
pub fn adjustment(
    identity: &Identity,
    found: &OurSecret,
    desired: &Meta,
    files: &Files,
) -> Zeroizing<Vec<u8>> {
    let metadata = changed(identity, found, desired);
    write(&Body { metadata, data: encoded(files), ..Body::default() })
}

/// A Secret of ours without certificate and key. What is not secret stays: the bundle, and what
/// others wrote.
pub fn removal(found: &OurSecret) -> Zeroizing<Vec<u8>> {
    let mut data: BTreeMap<&str, Option<Zeroizing<String>>> =
        PRIVATE_KEYS.into_iter().map(|name| (name, None)).collect();
    // A Secret of type kubernetes.io/tls has both, if only empty.
    for name in [TLS_CRT, TLS_KEY] {
        data.insert(name, Some(Zeroizing::default()));
    }
    // It stands for nobody any more, and no rotation waits for it.
    let gone = [SPIFFE_ID_ANNOTATION, SERIAL_ANNOTATION, NOT_AFTER_ANNOTATION];
    let mut annotations: BTreeMap<&str, Option<&str>> =
        gone.into_iter().map(|key| (key, None)).collect();
    // The status may be written in another turn, which is to know what was issued last.
    if let Content::Read(facts) = &found.content {
        annotations.insert(TAKEN_OUT_ANNOTATION, Some(&facts.leaf.serial));
    }
    write(&Body {
        metadata: Metadata {
            resource_version: Some(&found.resource_version),
            annotations,
            ..Metadata::default()
        },
        data,
        ..Body::default()
    })
}

/// A reference to the AgentIdentity, so that its Secret goes with it.
fn owners(identity: &Identity, desired: &Meta) -> Option<Vec<Owner<'static>>> {
    desired.owner.as_ref().map(|uid| {
        vec![Owner {
            api_version: AgentIdentity::api_version(&()).into_owned(),
            kind: "AgentIdentity",
            name: identity.key.name.to_string(),
            uid: uid.clone(),
            controller: true,
            // Deleting an identity in the foreground would wait for a right to update its
            // finalizers that nobody needs to have.
            block_owner_deletion: false,
        }]
    })
}

fn changed<'a>(identity: &'a Identity, found: &'a OurSecret, desired: &'a Meta) -> Metadata<'a> {
    let mut labels = given(&desired.labels);
    let mut annotations = given(&desired.annotations);
    for key in found.meta.obsolete_keys(desired) {
        if found.meta.labels.contains_key(key) {
            labels.insert(key, None);
        }
        if found.meta.annotations.contains_key(key) {
            annotations.insert(key, None);
        }
    }
    for key in [ORPHAN_OWNER_ANNOTATION, TAKEN_OUT_ANNOTATION, TEMPLATE_KEYS_ANNOTATION] {
        if found.meta.annotations.contains_key(key) && !desired.annotations.contains_key(key) {
            annotations.insert(key, None);
        }
    }
    Metadata {
        name: None,
        resource_version: Some(&found.resource_version),
        labels,
        annotations,
        // An empty list takes the owner off a Secret that is to outlive it.
        owner_references: (found.meta.owner != desired.owner)
            .then(|| owners(identity, desired).unwrap_or_default()),
    }
}

/// A Secret, or a merge patch of one: in `data`, None takes a file away.
#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    api_version: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'static str>,
    metadata: Metadata<'a>,
    data: BTreeMap<&'a str, Option<Zeroizing<String>>>,
}

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_version: Option<&'a str>,
    labels: BTreeMap<&'a str, Option<&'a str>>,
    annotations: BTreeMap<&'a str, Option<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner_references: Option<Vec<Owner<'a>>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Owner<'a> {
    api_version: String,
    kind: &'a str,
    name: String,
    uid: String,
    controller: bool,
    block_owner_deletion: bool,
}

fn given(map: &BTreeMap<String, String>) -> BTreeMap<&str, Option<&str>> {
    map.iter().map(|(key, value)| (key.as_str(), Some(value.as_str()))).collect()
}

fn encoded(files: &Files) -> BTreeMap<&str, Option<Zeroizing<String>>> {
    files.iter().map(|(name, bytes)| (name, Some(base64(bytes)))).collect()
}

fn write(body: &Body<'_>) -> Zeroizing<Vec<u8>> {
    let data: usize = body.data.values().flatten().map(|text| text.len() + 64).sum();
    let metadata: usize = [&body.metadata.labels, &body.metadata.annotations]
        .into_iter()
        .flatten()
        // Escaping makes a character six bytes at most.
        .map(|(key, value)| key.len() + 6 * value.map_or(4, str::len) + 64)
        .sum();
    let mut bytes = Zeroizing::new(Vec::with_capacity(data + metadata + 2048));
    serde_json::to_writer(&mut *bytes, body).expect("plain data can be written to memory");
    bytes
}
