//! Files of Secrets and ConfigMaps in the operator's namespace that a spec names.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use zeroize::Zeroizing;

use crate::identity::{FileName, ServerTrust};
use crate::wire;

/// Why a file could not be had. The texts say what to do next, without a stop at the end.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("{object} could not be read: {why}")]
    Unread { object: String, why: String },
    #[error("there is no {object} with the file {key}: put it there")]
    Missing { object: String, key: String },
}

/// The CA certificates, in PEM, with which a server's own is checked.
///
/// # Errors
/// When the file that the spec names cannot be had.
pub async fn trusted(
    client: &Client,
    namespace: &str,
    trust: &ServerTrust,
) -> Result<Vec<u8>, FileError> {
    match trust {
        ServerTrust::Inline(pem) => Ok(pem.clone().into_bytes()),
        ServerTrust::Secret(file) => Ok(secret_file(client, namespace, file).await?.to_vec()),
        ServerTrust::ConfigMap(file) => config_map_file(client, namespace, file).await,
    }
}

/// A file of a Secret.
///
/// # Errors
/// When it cannot be read, or is not there.
pub async fn secret_file(
    client: &Client,
    namespace: &str,
    file: &FileName,
) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let FileName { object, key } = file;
    let named = format!("Secret {namespace}/{object}");
    let secret = match wire::get_secret(client, namespace, object).await {
        Ok(secret) => secret,
        Err(error) => {
            return Err(FileError::Unread { object: named, why: error.to_string() });
        }
    };
    let content = secret.and_then(|mut secret| secret.data.remove(key));
    content.ok_or_else(|| FileError::Missing { object: named, key: key.clone() })
}

async fn config_map_file(
    client: &Client,
    namespace: &str,
    file: &FileName,
) -> Result<Vec<u8>, FileError> {
    let FileName { object, key } = file;
    let named = format!("ConfigMap {namespace}/{object}");
    let config_map = Api::<ConfigMap>::namespaced(client.clone(), namespace).get_opt(object).await;
    let config_map = match config_map {
        Ok(config_map) => config_map,
        Err(error) => {
            return Err(FileError::Unread { object: named, why: error.to_string() });
        }
    };
    let content = config_map.and_then(|config_map| config_map.data?.remove(key));
    let content = content.ok_or_else(|| FileError::Missing { object: named, key: key.clone() })?;
    Ok(content.into_bytes())
}
