//! ClusterTrustBundles: in which version the API server serves them, if it does, and ours.

use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Client, ResourceExt};
use tokio::sync::watch;

use crate::api::names::{AGENT_SIGNER, BUNDLE_SHA256_ANNOTATION, TRUST_DOMAIN_LABEL};
use crate::decide::cluster_bundle::ClusterBundleFacts;
use crate::watch::{Mirror, ObjectKey};
use crate::wire::WireError;
use crate::x509::Sha256;

/// The versions that this program can write, the best first: they differ in nothing but the name.
const VERSIONS: [&str; 2] = ["v1", "v1beta1"];

/// How the API server serves ClusterTrustBundles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Served {
    /// Nobody has asked yet.
    #[default]
    Unknown,
    Nowhere,
    At(&'static str),
}

/// The ClusterTrustBundles with our label.
#[derive(Default)]
pub struct ClusterBundles {
    pub mirror: Mirror<ClusterBundleFacts>,
    served: watch::Sender<Served>,
}

impl ClusterBundles {
    /// How they are served, as far as is known.
    pub fn served(&self) -> Served {
        *self.served.borrow()
    }

    /// Notes how they are served. True if and only if that is new.
    pub fn set_served(&self, served: Served) -> bool {
        self.served.send_replace(served) != served
    }

    /// Waits until it is known whether they are served, and if so, which there are.
    pub async fn wait_until_ready(&self) {
        let mut served = self.served.subscribe();
        // The sender lives as long as self.
        let known = served.wait_for(|served| *served != Served::Unknown).await;
        if known.is_ok_and(|served| *served != Served::Nowhere) {
            self.mirror.wait_until_ready().await;
        }
    }

    /// The one of this name, if it has our label.
    pub fn get(&self, name: &str) -> Option<std::sync::Arc<ClusterBundleFacts>> {
        self.mirror.get(&ObjectKey::new("", name))
    }
}

/// The kind in one of the versions.
pub fn kind(version: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, version, "ClusterTrustBundle"))
}

const GROUP: &str = "certificates.k8s.io";

/// Asks the API server in which version it serves them.
///
/// # Errors
/// When it did not answer.
pub async fn discover(client: &Client) -> Result<Served, WireError> {
    for version in VERSIONS {
        let group_version = format!("{GROUP}/{version}");
        match client.list_api_group_resources(&group_version).await.map_err(WireError::from) {
            Ok(list) if list.resources.iter().any(|kind| kind.name == "clustertrustbundles") => {
                return Ok(Served::At(version));
            }
            Ok(_) | Err(WireError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Served::Nowhere)
}

/// What is kept of a ClusterTrustBundle: whose it is, and whether it holds the bundle, says so,
/// and is of our signer.
pub fn cluster_bundle_facts(object: DynamicObject) -> ClusterBundleFacts {
    let owner = object.owner_references().iter().find(|owner| owner.controller == Some(true));
    let spec = &object.data["spec"];
    let sha256 = spec["trustBundle"]
        .as_str()
        .filter(|_| spec["signerName"] == AGENT_SIGNER)
        .map(|bundle| Sha256::of(bundle.as_bytes()))
        .filter(|sha256| {
            object.annotations().get(BUNDLE_SHA256_ANNOTATION) == Some(&sha256.to_string())
        });
    ClusterBundleFacts {
        resource_version: object.resource_version().unwrap_or_default(),
        trust_domain: object.labels().get(TRUST_DOMAIN_LABEL).cloned(),
        owner: owner.map(|owner| owner.uid.clone()),
        sha256,
    }
}
