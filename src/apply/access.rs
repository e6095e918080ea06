//! The objects of access policies.

use kube::Client;
use kube::api::{DeleteParams, DynamicObject, PostParams, Preconditions};

use crate::decide::access::emit::Object;
use crate::decide::access::plan::Write;
use crate::observe::access::api;
use crate::wire::WireError;

/// Does one write.
///
/// # Errors
/// When the API server did not take it. An object of that name that is not ours is left alone:
/// creating it conflicts.
pub async fn write(client: &Client, namespace: &str, write: &Write) -> Result<(), WireError> {
    let params = PostParams::default();
    match write {
        Write::Create(object) => {
            api(client, namespace, object.kind).create(&params, &body(object, None)?).await?;
        }
        Write::Replace(object, version) => {
            let body = body(object, Some(version))?;
            api(client, namespace, object.kind).replace(&object.name, &params, &body).await?;
        }
        Write::Delete { kind, name, resource_version } => {
            let preconditions =
                Preconditions { resource_version: Some(resource_version.clone()), uid: None };
            let params = DeleteParams::default().preconditions(preconditions);
            match api(client, namespace, *kind).delete(name, &params).await.map_err(WireError::from)
            {
                Ok(_) | Err(WireError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

fn body(object: &Object, version: Option<&String>) -> Result<DynamicObject, WireError> {
    let mut body: DynamicObject = serde_json::from_value(object.manifest())
        .map_err(|error| WireError::Answer(error.to_string()))?;
    body.metadata.resource_version = version.cloned();
    Ok(body)
}
