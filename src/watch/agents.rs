//! AgentIdentities, understood as they come in: what is kept is the parsed spec, not the resource.

use std::sync::Arc;

use jiff::Timestamp;
use kube::core::DeserializeGuard;

use super::packed::Packed;
use crate::api::conditions::READY;
use crate::api::names::REVOCATION_FINALIZER;
use crate::api::{AgentIdentity, AgentIdentityStatus};
use crate::identity::Identity;

/// What is kept of an AgentIdentity.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentFacts {
    pub resource_version: Box<str>,
    pub is_being_deleted: bool,
    /// `metadata.finalizers`.
    pub finalizers: Box<[String]>,
    pub identity: Result<Arc<Identity>, Box<Misfit>>,
    /// True if and only if its status says that it is Ready.
    pub is_ready: bool,
    /// When its certificate ends and is renewed, as the status says.
    pub schedule: Option<(Timestamp, Timestamp)>,
    pub status: Option<Packed<AgentIdentityStatus>>,
}

/// An AgentIdentity that cannot be understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Misfit {
    pub uid: String,
    pub generation: i64,
    /// Why not.
    pub message: String,
}

impl AgentFacts {
    /// What is kept of an AgentIdentity as the API server sent it, which need not be one that we
    /// can read: a CRD may be newer than this program.
    pub fn of(guard: DeserializeGuard<AgentIdentity>) -> Self {
        let (metadata, identity, status) = match guard.0 {
            Ok(resource) => {
                let identity = Identity::parse(&resource).map_err(|error| error.to_string());
                (resource.metadata, identity, resource.status)
            }
            Err(invalid) => {
                let message = format!("the AgentIdentity cannot be read: {}", invalid.error);
                (invalid.metadata, Err(message), None)
            }
        };
        AgentFacts {
            resource_version: metadata.resource_version.unwrap_or_default().into(),
            is_being_deleted: metadata.deletion_timestamp.is_some(),
            finalizers: metadata.finalizers.unwrap_or_default().into(),
            identity: identity.map(Arc::new).map_err(|message| {
                let uid = metadata.uid.unwrap_or_default();
                let generation = metadata.generation.unwrap_or_default();
                Box::new(Misfit { uid, generation, message })
            }),
            is_ready: status.as_ref().is_some_and(is_ready),
            schedule: status.as_ref().and_then(schedule),
            status: status.as_ref().map(Packed::pack),
        }
    }

    /// True if and only if it stays until we let it go.
    pub fn is_held(&self) -> bool {
        self.finalizers.iter().any(|finalizer| finalizer == REVOCATION_FINALIZER)
    }

    /// Tells it from another of the same name.
    pub fn uid(&self) -> &str {
        match &self.identity {
            Ok(identity) => &identity.uid,
            Err(misfit) => &misfit.uid,
        }
    }
}

fn is_ready(status: &AgentIdentityStatus) -> bool {
    status.conditions.iter().any(|condition| condition.type_ == READY && condition.status == "True")
}

fn schedule(status: &AgentIdentityStatus) -> Option<(Timestamp, Timestamp)> {
    let certificate = status.certificate.as_ref()?;
    Some((certificate.not_after.0, certificate.renew_at.0))
}
