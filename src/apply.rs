//! 5. Writes, in one fixed order.
//!
//! The Secret comes before the status, so that a status never speaks of a certificate that was
//! not written. A former Secret goes only once the present one is right, so that an agent always
//! has one of the two. A CA's Secret comes before any word of it, and the bundle before the CA
//! signs (see [`crate::controller::trust_domain`]).
//!
//! Every write carries the resourceVersion that it was decided on, or creates what must not be
//! there yet: of two writers one is refused.

pub mod access;
pub mod bundle;
pub mod cluster_bundle;
pub mod finalizer;
pub mod pods;
pub mod revocation;
pub mod roster;
pub mod secret;
pub mod slots;

use kube::Client;

use crate::api::names::SPIFFE_ID_ANNOTATION;
use crate::decide::{Content, ContentFacts, LeafProfile, Meta, OurSecret, SecretState};
use crate::identity::Identity;
use crate::observe::Memory;
use crate::observe::view::SecretFacts;
use crate::sign::{Files, Prepared, formats};
use crate::wire::{self, WireError};
use crate::x509::{Leaf, Sha256};

/// Proof that a certificate stands in the Secret: only [`issue`] and [`adjust`] make one.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    pub leaf: Leaf,
}

/// Writes a new certificate into the identity's Secret.
///
/// # Errors
/// Where nothing, or nobody knows what, was written. Either way the next observation tells.
pub async fn issue(
    client: &Client,
    memory: &Memory,
    identity: &Identity,
    profile: &LeafProfile,
    found: &SecretState,
    prepared: Prepared,
) -> Result<Applied, WireError> {
    let desired =
        Meta::desired(identity, profile.spiffe_id.as_str(), &prepared.leaf, prepared.bundle);
    let namespace = &identity.key.namespace;
    let (replaced, metadata) = match found {
        SecretState::Ours(ours) => {
            let body = secret::replacement(identity, ours, &desired, &prepared.files);
            let written =
                wire::patch_secret(client, namespace, &identity.secret_name, body).await?;
            (Some(ours.resource_version.clone()), written)
        }
        // A foreign Secret is refused by the decision; were it not, creating would fail.
        SecretState::Absent | SecretState::Foreign(_) => {
            let body = secret::creation(identity, &desired, &prepared.files);
            (None, wire::create_secret(client, namespace, body).await?)
        }
    };
    let content = ContentFacts {
        leaf: prepared.leaf.clone(),
        key_matches: true,
        issuer: Some(prepared.issuer),
        bundle: Some(prepared.bundle),
        formats: identity.formats.clone(),
        strays: Default::default(),
    };
    memory.remember_secret(
        &identity.key,
        &identity.secret_name,
        replaced,
        SecretFacts::of_meta(&metadata),
        Content::Read(Box::new(content)),
    );
    Ok(Applied { leaf: prepared.leaf })
}

/// Sets right what stands beside a certificate that is good: bundle, labels, annotations, owner.
///
/// # Errors
/// As [`issue`].
pub async fn adjust(
    client: &Client,
    memory: &Memory,
    identity: &Identity,
    ours: &OurSecret,
    facts: &ContentFacts,
    bundle_pem: &str,
    rewrite_bundle: bool,
) -> Result<Applied, WireError> {
    let bundle = Sha256::of(bundle_pem.as_bytes());
    let spiffe_id = facts.leaf.uris.first().map(String::as_str).unwrap_or_default();
    let desired = Meta::desired(identity, spiffe_id, &facts.leaf, bundle);
    debug_assert!(desired.annotations.contains_key(SPIFFE_ID_ANNOTATION));
    let files = match rewrite_bundle {
        true => formats::render_bundle(bundle_pem, &identity.formats),
        false => Files::default(),
    };
    let body = secret::adjustment(identity, ours, &desired, &files);
    let metadata =
        wire::patch_secret(client, &identity.key.namespace, &identity.secret_name, body).await?;
    let content = ContentFacts {
        bundle: if rewrite_bundle { Some(bundle) } else { facts.bundle },
        ..facts.clone()
    };
    memory.remember_secret(
        &identity.key,
        &identity.secret_name,
        Some(ours.resource_version.clone()),
        SecretFacts::of_meta(&metadata),
        Content::Read(Box::new(content)),
    );
    Ok(Applied { leaf: facts.leaf.clone() })
}

/// Takes certificate and key out of the identity's Secret.
///
/// # Errors
/// As [`issue`].
pub async fn take_out_key(
    client: &Client,
    memory: &Memory,
    identity: &Identity,
    ours: &OurSecret,
) -> Result<OurSecret, WireError> {
    let body = secret::removal(ours);
    let metadata =
        wire::patch_secret(client, &identity.key.namespace, &identity.secret_name, body).await?;
    let facts = SecretFacts::of_meta(&metadata);
    let (resource_version, meta) = (facts.resource_version.clone(), facts.meta.unpack());
    let (key, name) = (&identity.key, &identity.secret_name);
    let replaced = Some(ours.resource_version.clone());
    memory.remember_secret(key, name, replaced, facts, Content::Emptied);
    Ok(OurSecret { resource_version, meta, content: Content::Emptied })
}
