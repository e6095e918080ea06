//! The parts of a namespace's roster.

use kube::api::{DeleteParams, ObjectMeta, PostParams, Preconditions};
use kube::{Api, Client};

use crate::api::{AgentRoster, AgentRosterSpec};
use crate::decide::roster::RosterWrite;
use crate::wire::WireError;

/// Does one write to a roster.
///
/// # Errors
/// When the API server did not take it: a conflict where somebody else wrote meanwhile.
pub async fn write(client: &Client, namespace: &str, write: &RosterWrite) -> Result<(), WireError> {
    let api = Api::<AgentRoster>::namespaced(client.clone(), namespace);
    match write {
        RosterWrite::Create { name, spec } => {
            api.create(&PostParams::default(), &object(name, None, spec)).await?;
        }
        RosterWrite::Replace { name, resource_version, spec } => {
            let roster = object(name, Some(resource_version), spec);
            api.replace(name, &PostParams::default(), &roster).await?;
        }
        RosterWrite::Delete { name, resource_version } => {
            let preconditions =
                Preconditions { resource_version: Some(resource_version.clone()), uid: None };
            let params = DeleteParams::default().preconditions(preconditions);
            match api.delete(name, &params).await.map_err(WireError::from) {
                Ok(_) | Err(WireError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

fn object(name: &str, resource_version: Option<&String>, spec: &AgentRosterSpec) -> AgentRoster {
    let metadata = ObjectMeta {
        name: Some(name.to_owned()),
        resource_version: resource_version.cloned(),
        ..ObjectMeta::default()
    };
    AgentRoster { metadata, spec: spec.clone() }
}
