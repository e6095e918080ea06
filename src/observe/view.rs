//! The mirrors, and the projections that they keep.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::ResourceExt;
use kube::api::{ObjectMeta, PartialObjectMeta};
use kube::core::DeserializeGuard;

use super::cluster_bundles::ClusterBundles;
pub use super::revocations::{CrlObject, RevocationObject};
use crate::api::names::{BUNDLE_SHA256_ANNOTATION, CA_CRT, CRL_PEM, CRL_SHA256_ANNOTATION};
use crate::api::{AgentRoster, TrustDomain};
use crate::decide::Meta;
use crate::decide::bundle::{BundleFacts, NamespaceFacts};
use crate::decide::roster::{PartFacts, digest};
use crate::identity::{Identity, SpiffeId};
use crate::watch::access::PolicyFacts;
use crate::watch::agents::AgentFacts;
use crate::watch::census::Census;
use crate::watch::domains::Domains;
use crate::watch::packed::Packed;
use crate::watch::pods::{PodFacts, PodIndex};
use crate::watch::{Mirror, ObjectKey};
use crate::x509::Sha256;

/// Everything that is known without asking.
#[derive(Default)]
pub struct View {
    /// The operator's own namespace.
    pub namespace: String,
    /// The cluster's DNS domain, such as `cluster.local`.
    pub cluster_domain: String,
    pub trust_domains: Mirror<Object<TrustDomain>>,
    pub identities: Mirror<AgentFacts>,
    pub access_policies: Mirror<PolicyFacts>,
    /// Secrets with our label, by metadata alone.
    pub secrets: Mirror<SecretFacts>,
    /// The Secrets of the operator's namespace, by metadata alone: CA Secrets, and those that
    /// authorities read.
    pub slots: Mirror<SlotVersion>,
    pub bundles: Mirror<BundleFacts>,
    /// The operator's own ConfigMaps that record what was revoked or hold a CRL.
    pub revocations: Mirror<RevocationObject>,
    pub cluster_bundles: ClusterBundles,
    /// The parts of every namespace's roster, without their entries.
    pub rosters: Mirror<PartFacts>,
    pub namespaces: Mirror<NamespaceFacts>,
    pub pods: Mirror<PodFacts>,
    pub pod_index: PodIndex,
    pub census: Census,
    pub domains: Domains,
}

impl View {
    /// The identities that pods of a ServiceAccount may carry: those that hold their SPIFFE ID
    /// and that their trust domain serves.
    pub fn candidates(&self, account: &ObjectKey) -> Vec<(Arc<Identity>, SpiffeId)> {
        let mut candidates = self.census.candidates(account);
        if candidates.is_empty() {
            return candidates;
        }
        let labels = self.namespaces.get(&ObjectKey::new("", account.namespace.clone()));
        let labels = labels.map(|namespace| namespace.labels.clone()).unwrap_or_default();
        candidates.retain(|(identity, _)| {
            self.domains.resolve(identity.trust_domain.as_deref()).is_ok_and(|state| {
                state.domain.admit(identity, &labels, &self.cluster_domain).is_ok()
            })
        });
        candidates
    }
}

/// A resource of ours as the API server sent it, which need not be one that we can read: a CRD
/// may be newer than this program.
#[derive(Clone, Debug, PartialEq)]
pub enum Object<K> {
    Read(Arc<K>),
    Unreadable { resource_version: String, generation: i64, error: String },
}

/// What is kept of an identity's Secret.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SecretFacts {
    pub resource_version: String,
    pub meta: Packed<Meta>,
}

/// What is kept of a Secret of the operator's namespace.
#[derive(Clone, Debug, PartialEq)]
pub struct SlotVersion {
    /// The TrustDomain that a CA Secret belongs to; empty for a Secret of somebody else.
    pub trust_domain: String,
    pub resource_version: String,
}

impl<K: kube::Resource> Object<K> {
    /// The version of the object.
    pub fn resource_version(&self) -> &str {
        match self {
            Object::Read(resource) => {
                resource.meta().resource_version.as_deref().unwrap_or_default()
            }
            Object::Unreadable { resource_version, .. } => resource_version,
        }
    }

    /// What is kept of a resource of ours: all of it, except metadata that nothing here reads and
    /// that can be larger than the rest (who wrote which field, what was last applied).
    pub fn of(guard: DeserializeGuard<K>) -> Self {
        match guard.0 {
            Ok(mut resource) => {
                let metadata = resource.meta_mut();
                metadata.managed_fields = None;
                metadata.annotations = None;
                metadata.labels = None;
                Object::Read(Arc::new(resource))
            }
            Err(invalid) => Object::Unreadable {
                resource_version: invalid.metadata.resource_version.unwrap_or_default(),
                generation: invalid.metadata.generation.unwrap_or_default(),
                error: invalid.error,
            },
        }
    }
}

impl SecretFacts {
    /// What is kept of a Secret of which only metadata was sent.
    pub fn of(secret: PartialObjectMeta<Secret>) -> Self {
        SecretFacts::of_meta(&secret.metadata)
    }

    /// What is kept of a Secret's metadata.
    pub fn of_meta(metadata: &ObjectMeta) -> Self {
        let owner = metadata.owner_references.iter().flatten().find(|o| o.controller == Some(true));
        SecretFacts {
            resource_version: metadata.resource_version.clone().unwrap_or_default(),
            meta: Packed::pack(&Meta {
                labels: metadata.labels.clone().unwrap_or_default(),
                annotations: annotations(metadata),
                owner: owner.map(|owner| owner.uid.clone()),
            }),
        }
    }
}

/// All annotations but the one that may hold the whole object once more.
fn annotations(metadata: &ObjectMeta) -> BTreeMap<String, String> {
    let mut annotations = metadata.annotations.clone().unwrap_or_default();
    annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    annotations
}

/// What is kept of a ConfigMap of ours: whether it holds the bundle and the CRLs, says so, and
/// nothing else.
pub fn bundle_facts(config_map: ConfigMap) -> BundleFacts {
    let data = config_map.data.as_ref();
    let is_known = |key: &String| key == CA_CRT || key == CRL_PEM;
    let alone =
        data.is_some_and(|data| data.keys().all(is_known)) && config_map.binary_data.is_none();
    let digest = |file: &str, annotation: &str| {
        data.filter(|_| alone)
            .and_then(|data| data.get(file))
            .map(|text| Sha256::of(text.as_bytes()))
            .filter(|sha256| config_map.annotations().get(annotation) == Some(&sha256.to_string()))
    };
    BundleFacts {
        resource_version: config_map.resource_version().unwrap_or_default(),
        sha256: digest(CA_CRT, BUNDLE_SHA256_ANNOTATION),
        crl: digest(CRL_PEM, CRL_SHA256_ANNOTATION),
    }
}

/// What is kept of a part of a roster: its range, and a digest in place of its entries.
pub fn roster_facts(guard: DeserializeGuard<AgentRoster>) -> PartFacts {
    match guard.0 {
        Ok(roster) => PartFacts {
            resource_version: roster.metadata.resource_version.unwrap_or_default(),
            digest: Some(digest(&roster.spec)),
            from: roster.spec.from,
            to: roster.spec.to,
        },
        Err(invalid) => PartFacts {
            resource_version: invalid.metadata.resource_version.unwrap_or_default(),
            digest: None,
            from: None,
            to: None,
        },
    }
}

/// What is kept of a namespace.
pub fn namespace_facts(namespace: PartialObjectMeta<Namespace>) -> NamespaceFacts {
    NamespaceFacts {
        labels: namespace.labels().clone(),
        terminating: namespace.metadata.deletion_timestamp.is_some(),
    }
}
