//! 2. Reads, and nothing else: all that a decision about an identity needs, gathered into one
//!    value. What is not there is None, not an error.

pub mod access;
pub mod book;
pub mod cluster_bundles;
pub mod content;
pub mod memory;
pub mod pods;
pub mod revocations;
pub mod slots;
pub mod view;

use std::sync::Arc;

use kube::Client;

use crate::api::AgentIdentityStatus;
use crate::api::conditions::Reason;
use crate::decide::{Admission, Content, OurSecret, SecretState};
use crate::identity::{Identity, IdentityKey};
use crate::sign::Authority;
use crate::watch::ObjectKey;
use crate::wire::{self, WireError};
use crate::x509::Sha256;

pub use book::Book;
pub use memory::{Memory, StatusVersion};
pub use pods::PodCounts;
pub use view::View;

/// What is known of an identity, and who would sign for it.
pub struct Observed {
    pub admission: Admission,
    /// The name of the TrustDomain that it belongs to, where there is one.
    pub trust_domain: Option<String>,
    pub authority: Option<Arc<dyn Authority>>,
    /// `ca.crt` as it should be.
    pub bundle: Option<Arc<str>>,
    pub secret: SecretState,
    pub former_secret: Option<String>,
    pub pods: PodCounts,
    pub status: StatusVersion,
}

impl Observed {
    /// The status that the API server holds.
    pub fn previous(&self) -> Option<&AgentIdentityStatus> {
        self.status.status.as_deref()
    }
}

/// Gathers what is known of an identity. Reads the Secret itself only where this version of it
/// has not been read before.
///
/// # Errors
/// When the API server did not answer a read.
pub async fn observe(
    client: &Client,
    view: &View,
    memory: &Memory,
    identity: &Identity,
    status: StatusVersion,
) -> Result<Observed, WireError> {
    let (admission, authority) = admit(view, identity);
    let secret = match admission {
        // What may have no certificate is not worth a read, unless it is to be taken away.
        Admission::Refused { .. } if identity.revoked.is_none() => SecretState::Absent,
        _ => read_secret(client, view, memory, identity).await?,
    };
    let former_secret = former_secret(view, identity, status.status.as_deref());
    let pods = PodCounts::of(view, identity);
    let state = view.domains.resolve(identity.trust_domain.as_deref()).ok();
    let trust_domain = state.as_ref().map(|state| state.domain.name.clone());
    let bundle = state.and_then(|state| state.bundle.clone());
    Ok(Observed { admission, trust_domain, authority, bundle, secret, former_secret, pods, status })
}

/// Whether the identity may have a certificate, and who would sign it.
fn admit(view: &View, identity: &Identity) -> (Admission, Option<Arc<dyn Authority>>) {
    let refused = |reason, message| (Admission::Refused { reason, message }, None);
    let state = match view.domains.resolve(identity.trust_domain.as_deref()) {
        Ok(state) => state,
        // It may come (back): what the identity has stands until it expires.
        Err(blocked) => {
            let (reason, message) = (blocked.reason, blocked.message);
            return (Admission::Waiting { spiffe_id: None, bundle: None, reason, message }, None);
        }
    };
    let namespace = view.namespaces.get(&ObjectKey::new("", identity.key.namespace.clone()));
    let labels = namespace.map(|namespace| namespace.labels.clone()).unwrap_or_default();
    let spiffe_id = match state.domain.admit(identity, &labels, &view.cluster_domain) {
        Ok(spiffe_id) => spiffe_id,
        Err(refusal @ crate::identity::Refusal::Namespace { .. }) => {
            return refused(Reason::NamespaceNotAllowed, refusal.to_string());
        }
        Err(refusal @ crate::identity::Refusal::Remote { .. }) => {
            return refused(Reason::RemoteTrustDomain, refusal.to_string());
        }
        Err(refusal) => return refused(Reason::NotAllowed, refusal.to_string()),
    };
    if let Some(holder) = view.census.holder(&spiffe_id).filter(|holder| *holder != identity.key) {
        let message = format!(
            "{spiffe_id} belongs to the older AgentIdentity {holder}: delete one of the two, or give them SPIFFE IDs of their own with the TrustDomain's pathTemplate"
        );
        return refused(Reason::IdentityConflict, message);
    }
    match &state.authority {
        Ok(authority) => {
            let facts = authority.chain().facts.clone();
            (Admission::Admitted { spiffe_id, authority: facts }, Some(authority.clone()))
        }
        Err(blocked) => {
            let message = format!("TrustDomain {}: {}", state.domain.name, blocked.message);
            let reason = Reason::AuthorityNotReady;
            let bundle = state.bundle.as_ref().map(|pem| Sha256::of(pem.as_bytes()));
            (Admission::Waiting { spiffe_id: Some(spiffe_id), bundle, reason, message }, None)
        }
    }
}

/// The Secret of the name that the spec gives.
///
/// # Errors
/// When the API server did not answer.
pub async fn read_secret(
    client: &Client,
    view: &View,
    memory: &Memory,
    identity: &Identity,
) -> Result<SecretState, WireError> {
    let key = ObjectKey::new(identity.key.namespace.clone(), identity.secret_name.as_str());
    if let Some(known) = memory.secret(&identity.key, &key.name, view.secrets.get(&key)) {
        let Some(facts) = known else { return Ok(SecretState::Absent) };
        let meta = facts.meta.unpack();
        if let Err(why) = SecretState::ownership(identity, &meta) {
            return Ok(SecretState::Foreign(why));
        }
        if let Some(content) = memory.content(&identity.key, &facts.resource_version) {
            let resource_version = facts.resource_version.clone();
            return Ok(SecretState::Ours(Box::new(OurSecret { resource_version, meta, content })));
        }
    }
    let Some(secret) = wire::get_secret(client, &key.namespace, &key.name).await? else {
        return Ok(SecretState::Absent);
    };
    let facts = view::SecretFacts::of_meta(&secret.metadata);
    let meta = facts.meta.unpack();
    if let Err(why) = SecretState::ownership(identity, &meta) {
        // Without our label it is in no mirror: the next look must ask again.
        memory.doubt(&identity.key);
        return Ok(SecretState::Foreign(why));
    }
    let content: Content = content::read(&secret.data);
    memory.remember_content(&identity.key, &facts.resource_version, content.clone());
    Ok(SecretState::Ours(Box::new(OurSecret {
        resource_version: facts.resource_version,
        meta,
        content,
    })))
}

/// A Secret that this identity had under another name, if it is still there and still ours.
fn former_secret(
    view: &View,
    identity: &Identity,
    previous: Option<&AgentIdentityStatus>,
) -> Option<String> {
    let name = previous?.secret_name.clone().filter(|name| *name != identity.secret_name)?;
    let facts = view.secrets.get(&ObjectKey::new(identity.key.namespace.clone(), name.as_str()))?;
    (facts.meta.unpack().owner.as_ref() == Some(&identity.uid)).then_some(name)
}

/// The identity that a Secret of ours belongs to.
pub fn identity_of_secret(key: &ObjectKey, facts: &view::SecretFacts) -> Option<IdentityKey> {
    let meta = facts.meta.unpack();
    let name = meta.labels.get(crate::api::names::IDENTITY_LABEL)?.as_str();
    Some(IdentityKey { namespace: key.namespace.clone(), name: name.into() })
}
