//! AgentAccessPolicies, understood as they come in.

use std::sync::Arc;

use kube::core::DeserializeGuard;

use crate::api::{AgentAccessPolicy, AgentAccessPolicyStatus};
use crate::identity::AccessPolicy;

/// What is kept of an AgentAccessPolicy.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyFacts {
    pub uid: String,
    pub resource_version: String,
    pub generation: i64,
    pub is_being_deleted: bool,
    /// Or why it cannot be understood.
    pub policy: Result<Arc<AccessPolicy>, String>,
    pub status: Option<AgentAccessPolicyStatus>,
}

impl PolicyFacts {
    /// What is kept of one as the API server sent it.
    pub fn of(guard: DeserializeGuard<AgentAccessPolicy>) -> Self {
        let (metadata, policy, status) = match guard.0 {
            Ok(resource) => {
                let policy = AccessPolicy::parse(&resource).map_err(|error| error.to_string());
                (resource.metadata, policy, resource.status)
            }
            Err(invalid) => {
                let message = format!("the AgentAccessPolicy cannot be read: {}", invalid.error);
                (invalid.metadata, Err(message), None)
            }
        };
        PolicyFacts {
            uid: metadata.uid.unwrap_or_default(),
            resource_version: metadata.resource_version.unwrap_or_default(),
            generation: metadata.generation.unwrap_or_default(),
            is_being_deleted: metadata.deletion_timestamp.is_some(),
            policy: policy.map(Arc::new),
            status,
        }
    }
}
