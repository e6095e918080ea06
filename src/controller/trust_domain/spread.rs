//! Publishing a bundle, and seeing how far it has come.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;

use super::cluster::{self, ClusterSpread};
use crate::api::names::{
    BUNDLE_SHA256_ANNOTATION, SPIFFE_ID_ANNOTATION, bundle_config_map_name,
    cluster_trust_bundle_name,
};
use crate::apply;
use crate::controller::Context;
use crate::decide::bundle::{self, BundleFacts, BundleWrite, NamespaceFacts};
use crate::decide::slots::Reach;
use crate::identity::Domain;
use crate::wire::WireError;
use crate::x509::Sha256;

/// Writes of one bundle under way at once.
const WRITES_AT_ONCE: usize = 8;

/// What came of publishing a bundle.
pub struct Spread {
    /// Namespaces that could not be written to.
    pub failed: BTreeSet<String>,
    /// True if and only if somebody wrote meanwhile, so that it is not known what a namespace holds.
    pub is_behind: bool,
    /// What came of the ClusterTrustBundle.
    pub cluster: ClusterSpread,
    /// ConfigMaps that were written, or will have to be, in this turn.
    pending: BTreeSet<String>,
    /// Namespaces in which nothing can be put any more.
    out_of_reach: BTreeSet<String>,
    selected: usize,
}

impl Spread {
    /// Which namespaces hold what was published, with its CRLs. `lacks_crl` where one that there
    /// should be could not be signed.
    pub fn reach(&self, lacks_crl: bool) -> Reach {
        let mut unreached: BTreeSet<String> = self
            .pending
            .union(&self.failed)
            .map(|namespace| format!("namespace {namespace}"))
            .collect();
        let going = |namespace| format!("namespace {namespace}, which is terminating");
        unreached.extend(self.out_of_reach.iter().map(going));
        if lacks_crl {
            unreached.insert("a CRL that could not be signed".to_owned());
        }
        Reach { targets: count(self.selected), unreached }
    }

    /// True if and only if some place could not be written to.
    pub fn is_incomplete(&self) -> bool {
        !self.failed.is_empty() || matches!(self.cluster, ClusterSpread::Failed(_))
    }
}

/// Writes the bundle where it is missing or wrong.
pub async fn spread(context: &Context, domain: &Domain, bundle_pem: &str, crl_pem: &str) -> Spread {
    let bundle = Sha256::of(bundle_pem.as_bytes());
    let crl = (!crl_pem.is_empty()).then(|| Sha256::of(crl_pem.as_bytes()));
    let namespaces = namespaces(context);
    let found = found(context, domain);
    let writes = bundle::decide(domain, bundle, crl, &namespaces, &found);
    let out_of_reach = bundle::out_of_reach(domain, &namespaces, &found);
    let pending = writes
        .iter()
        .filter(|write| !matches!(write, BundleWrite::Delete { .. }))
        .map(|write| write.namespace().to_owned())
        .collect();
    let results: Vec<_> = futures::stream::iter(writes)
        .map(|write| async move {
            let result =
                apply::bundle::write(&context.client, domain, bundle_pem, crl_pem, &write).await;
            (write, result)
        })
        .buffer_unordered(WRITES_AT_ONCE)
        .collect()
        .await;
    let (mut failed, mut is_behind) = (BTreeSet::new(), false);
    for (write, result) in results {
        match (&write, result) {
            (_, Ok(())) => {}
            // The mirror is behind a write of a moment ago, our own perhaps, and will catch up.
            (BundleWrite::Replace { .. }, Err(WireError::Conflict(_))) => is_behind = true,
            (write, Err(error)) => {
                let namespace = write.namespace().to_owned();
                tracing::warn!(trust_domain = domain.name, namespace, %error, "the bundle is not written");
                failed.insert(namespace);
            }
        }
    }
    let selected = namespaces.values().filter(|facts| bundle::is_selected(domain, facts)).count();
    let cluster = cluster::spread(context, domain, bundle_pem).await;
    Spread { failed, is_behind, cluster, pending, out_of_reach, selected }
}

/// Which places hold a bundle. It takes a look at every Secret: for when somebody waits for them.
/// Each says so itself, by the digest that it carries. What was
/// written in this very turn is believed when the watch has told of it.
pub fn reach(context: &Context, domain: &Domain, bundle: Sha256, spread: &Spread) -> Reach {
    let prefix = format!("{}/", domain.domain.authority_id());
    let digest = bundle.to_string();
    let Reach { mut unreached, .. } = spread.reach(false);
    let mut targets = spread.selected + usize::from(spread.cluster.is_target());
    if spread.cluster.is_target() && spread.cluster != ClusterSpread::Holds {
        unreached.insert(format!("ClusterTrustBundle {}", cluster_trust_bundle_name(&domain.name)));
    }
    for (key, facts) in context.view.secrets.all() {
        let meta = facts.meta.unpack();
        let annotation = |name: &str| meta.annotations.get(name).map(String::as_str);
        if !annotation(SPIFFE_ID_ANNOTATION).is_some_and(|id| id.starts_with(&prefix)) {
            continue;
        }
        targets += 1;
        if annotation(BUNDLE_SHA256_ANNOTATION) != Some(&digest) {
            unreached.insert(format!("Secret {}/{}", key.namespace, key.name));
        }
    }
    Reach { targets: count(targets), unreached }
}

fn count(targets: usize) -> u32 {
    u32::try_from(targets).unwrap_or(u32::MAX)
}

fn namespaces(context: &Context) -> BTreeMap<String, NamespaceFacts> {
    let all = context.view.namespaces.all();
    all.into_iter().map(|(key, facts)| (key.name.to_string(), (*facts).clone())).collect()
}

fn found(context: &Context, domain: &Domain) -> BTreeMap<String, BundleFacts> {
    let name = bundle_config_map_name(&domain.name);
    let all = context.view.bundles.all();
    all.into_iter()
        .filter(|(key, _)| *key.name == name)
        .map(|(key, facts)| (key.namespace.to_string(), (*facts).clone()))
        .collect()
}
