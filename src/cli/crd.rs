//! `countersign crd`: the CRDs, generated from the types of [`crate::api`].

use kube::CustomResourceExt;

use crate::api::{AgentAccessPolicy, AgentIdentity, AgentRoster, TrustDomain};

/// The CRDs by file name, as crds/ holds them.
pub fn files() -> Vec<(String, String)> {
    [AgentIdentity::crd(), AgentRoster::crd(), TrustDomain::crd(), AgentAccessPolicy::crd()]
        .into_iter()
        .map(|crd| {
            let name = format!("{}.yaml", crd.metadata.name.as_deref().unwrap_or_default());
            let yaml = serde_yaml::to_string(&crd).expect("a CRD is plain data");
            (name, yaml)
        })
        .collect()
}

/// All CRDs as one stream of YAML documents.
pub fn stream() -> String {
    files().into_iter().map(|(_, yaml)| format!("---\n{yaml}")).collect()
}
