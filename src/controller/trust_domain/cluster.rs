//! Publishing a bundle to the whole cluster, where its API server serves ClusterTrustBundles.

use crate::api::names::cluster_trust_bundle_name;
use crate::apply;
use crate::controller::Context;
use crate::decide::cluster_bundle::{self, ClusterBundlePlan};
use crate::identity::Domain;
use crate::observe::cluster_bundles::Served;
use crate::wire::WireError;
use crate::x509::Sha256;

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub enum ClusterSpread {
    /// The spec does not want one.
    Unwanted,
    /// This API server serves none.
    Unserved,
    Holds,
    /// It was written in this turn; the watch will tell.
    Pending,
    /// Why it does not hold the bundle, for people.
    Failed(String),
}

impl ClusterSpread {
    /// True if and only if it is one of the places that are to hold the bundle.
    pub fn is_target(&self) -> bool {
        !matches!(self, ClusterSpread::Unwanted | ClusterSpread::Unserved)
    }
}

/// Writes the ClusterTrustBundle where it is missing or wrong.
pub async fn spread(context: &Context, domain: &Domain, bundle_pem: &str) -> ClusterSpread {
    let version = match context.view.cluster_bundles.served() {
        Served::At(version) => version,
        // Not known is as good as not served, but for what is said of it.
        Served::Unknown if domain.cluster_bundle => {
            return failed(domain, "whether the API server serves it is not known yet".to_owned());
        }
        Served::Nowhere if domain.cluster_bundle => return ClusterSpread::Unserved,
        Served::Unknown | Served::Nowhere => return ClusterSpread::Unwanted,
    };
    let name = cluster_trust_bundle_name(&domain.name);
    let found = context.view.cluster_bundles.get(&name);
    let bundle = Sha256::of(bundle_pem.as_bytes());
    let plan = cluster_bundle::decide(domain, bundle, found.as_deref());
    let foreign = || format!("a ClusterTrustBundle {name} is there that is not ours: delete it");
    let result =
        apply::cluster_bundle::write(&context.client, version, domain, bundle_pem, &plan).await;
    match (&plan, result) {
        (ClusterBundlePlan::Foreign, _) => failed(domain, foreign()),
        (ClusterBundlePlan::Create, Err(WireError::Conflict(_))) => failed(domain, foreign()),
        (ClusterBundlePlan::Nothing, _) if domain.cluster_bundle => ClusterSpread::Holds,
        // The mirror is behind our own write of a moment ago, and will catch up.
        (_, Ok(()) | Err(WireError::Conflict(_))) if domain.cluster_bundle => {
            ClusterSpread::Pending
        }
        (_, Ok(()) | Err(WireError::Conflict(_))) => ClusterSpread::Unwanted,
        (_, Err(error)) => failed(domain, format!("the ClusterTrustBundle {name}: {error}")),
    }
}

fn failed(domain: &Domain, why: String) -> ClusterSpread {
    tracing::warn!(trust_domain = domain.name, why, "the ClusterTrustBundle is not written");
    ClusterSpread::Failed(why)
}
