//! Which namespaces get the bundle, lose it, or could not be reached.

use std::collections::{BTreeMap, BTreeSet};

use crate::identity::Domain;
use crate::x509::Sha256;

/// A namespace, as far as the bundle is concerned.
#[derive(Clone, Debug, PartialEq)]
pub struct NamespaceFacts {
    pub labels: BTreeMap<String, String>,
    /// Nothing can be created in a namespace that is going away.
    pub terminating: bool,
}

/// Our ConfigMap in a namespace.
#[derive(Clone, Debug, PartialEq)]
pub struct BundleFacts {
    pub resource_version: String,
    /// SHA-256 of its `ca.crt`; None where it has none, or something that is not ours.
    pub sha256: Option<Sha256>,
    /// SHA-256 of its `crl.pem`, likewise.
    pub crl: Option<Sha256>,
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BundleWrite {
    Create { namespace: String },
    Replace { namespace: String, resource_version: String },
    Delete { namespace: String, resource_version: String },
}

impl BundleWrite {
    /// The namespace that is written to.
    pub fn namespace(&self) -> &str {
        match self {
            BundleWrite::Create { namespace }
            | BundleWrite::Replace { namespace, .. }
            | BundleWrite::Delete { namespace, .. } => namespace,
        }
    }
}

/// True if and only if a namespace is to hold the bundle. One that is going away is, for as long as
/// it is there: what runs in it may run for long, if something holds it.
pub fn is_selected(domain: &Domain, namespace: &NamespaceFacts) -> bool {
    domain.bundle_namespaces.matches(&namespace.labels)
}

/// The selected namespaces in which no bundle can be put any more: they are going away, and theirs
/// has gone before them.
pub fn out_of_reach(
    domain: &Domain,
    namespaces: &BTreeMap<String, NamespaceFacts>,
    found: &BTreeMap<String, BundleFacts>,
) -> BTreeSet<String> {
    let is_out = |(name, facts): &(&String, &NamespaceFacts)| {
        facts.terminating && is_selected(domain, facts) && !found.contains_key(*name)
    };
    namespaces.iter().filter(is_out).map(|(name, _)| name.clone()).collect()
}

/// What to write so that every selected namespace holds the bundle and the CRLs, and no other does.
pub fn decide(
    domain: &Domain,
    bundle: Sha256,
    crl: Option<Sha256>,
    namespaces: &BTreeMap<String, NamespaceFacts>,
    found: &BTreeMap<String, BundleFacts>,
) -> Vec<BundleWrite> {
    let selected =
        |name: &str| namespaces.get(name).is_some_and(|facts| is_selected(domain, facts));
    let wanted = namespaces.keys().filter(|name| selected(name)).filter_map(|name| {
        let namespace = name.clone();
        match found.get(name) {
            None if namespaces.get(name).is_some_and(|facts| facts.terminating) => None,
            None => Some(BundleWrite::Create { namespace }),
            Some(facts) if facts.sha256 != Some(bundle) || facts.crl != crl => {
                Some(BundleWrite::Replace {
                    namespace,
                    resource_version: facts.resource_version.clone(),
                })
            }
            Some(_) => None,
        }
    });
    // A namespace that is gone or going takes its ConfigMap along.
    let unwanted = found.iter().filter(|(name, _)| {
        namespaces.get(*name).is_some_and(|n| !n.terminating) && !selected(name)
    });
    wanted
        .chain(unwanted.map(|(name, facts)| BundleWrite::Delete {
            namespace: name.clone(),
            resource_version: facts.resource_version.clone(),
        }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::TrustDomain;
    use serde_json::json;

    #[test]
    fn every_selected_namespace_gets_the_bundle_and_no_other_keeps_it() {
        let resource: TrustDomain = serde_json::from_value(json!({
            "metadata": {"name": "prod", "uid": "t", "creationTimestamp": "2026-11-24T09:00:00Z"},
            "spec": {
                "domain": "prod.example.com", "authority": {"selfSigned": {}},
                "bundle": {"namespaceSelector": {"matchLabels": {"agents": "yes"}}},
            },
        }))
        .unwrap();
        let domain = Domain::parse(&resource).unwrap();
        let (bundle, old) = (Sha256::of(b"new"), Sha256::of(b"old"));
        let crl = Sha256::of(b"crl");
        let namespaces = [
            "empty",
            "stale",
            "right",
            "edited",
            "revoked",
            "no",
            "deselected",
            "going",
            "going-empty",
        ];
        let namespaces: BTreeMap<String, NamespaceFacts> = namespaces
            .into_iter()
            .map(|name| {
                let selected = !["no", "deselected"].contains(&name);
                let labels = selected.then(|| ("agents".to_owned(), "yes".to_owned()));
                let terminating = name.starts_with("going");
                let labels = labels.into_iter().collect();
                (name.to_owned(), NamespaceFacts { labels, terminating })
            })
            .collect();
        let found: BTreeMap<String, BundleFacts> = [
            ("stale", Some(old)),
            ("right", Some(bundle)),
            ("edited", None),
            ("revoked", Some(bundle)),
            ("deselected", Some(bundle)),
            ("going", Some(old)),
            ("gone", Some(old)),
        ]
        .into_iter()
        .map(|(name, sha256)| {
            let crl = Some(if name == "revoked" { old } else { crl });
            (name.to_owned(), BundleFacts { resource_version: "7".to_owned(), sha256, crl })
        })
        .collect();
        let (namespace, resource_version) = (str::to_owned, "7".to_owned());
        let replace = |name| BundleWrite::Replace {
            namespace: namespace(name),
            resource_version: resource_version.clone(),
        };
        let mut writes = super::decide(&domain, bundle, Some(crl), &namespaces, &found);
        writes.sort();
        assert_eq!(
            writes,
            [
                BundleWrite::Create { namespace: namespace("empty") },
                replace("edited"),
                replace("going"),
                replace("revoked"),
                replace("stale"),
                BundleWrite::Delete { namespace: namespace("deselected"), resource_version },
            ]
        );
        let out = super::out_of_reach(&domain, &namespaces, &found);
        assert_eq!(out, BTreeSet::from([namespace("going-empty")]));
    }
}
