//! Whether a trust domain's ClusterTrustBundle is written, taken away, or left alone.

use crate::identity::Domain;
use crate::x509::Sha256;

/// A ClusterTrustBundle that has the name of a trust domain's, as it was found.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterBundleFacts {
    pub resource_version: String,
    /// The TrustDomain that its label names.
    pub trust_domain: Option<String>,
    /// The UID of the object that controls it.
    pub owner: Option<String>,
    /// SHA-256 of the bundle in it; None where it does not say so itself.
    pub sha256: Option<Sha256>,
}

/// What to do about it.
#[derive(Clone, Debug, PartialEq)]
pub enum ClusterBundlePlan {
    /// It is as it should be, which may be not to be there.
    Nothing,
    Create,
    Replace {
        resource_version: String,
    },
    Delete {
        resource_version: String,
    },
    /// Somebody else's has the name.
    Foreign,
}

impl ClusterBundleFacts {
    /// True if and only if it was made for the TrustDomain of this name and UID. Either mark alone proves it, so that
    /// one that a hand took off can be put back; an owner of another UID proves the contrary.
    pub fn is_of(&self, name: &str, uid: &str) -> bool {
        match &self.owner {
            Some(owner) => owner == uid,
            None => self.trust_domain.as_deref() == Some(name),
        }
    }

    fn is_right(&self, domain: &Domain, bundle: Sha256) -> bool {
        self.owner.as_ref() == Some(&domain.uid)
            && self.trust_domain.as_ref() == Some(&domain.name)
            && self.sha256 == Some(bundle)
    }
}

/// What to do so that a ClusterTrustBundle holds the bundle, or, where the spec does not want it,
/// that there is none of ours.
pub fn decide(
    domain: &Domain,
    bundle: Sha256,
    found: Option<&ClusterBundleFacts>,
) -> ClusterBundlePlan {
    use ClusterBundlePlan::{Create, Delete, Foreign, Nothing, Replace};
    match (domain.cluster_bundle, found) {
        (false, None) => Nothing,
        (true, None) => Create,
        (wanted, Some(found)) if !found.is_of(&domain.name, &domain.uid) => match wanted {
            true => Foreign,
            false => Nothing,
        },
        (true, Some(found)) if found.is_right(domain, bundle) => Nothing,
        (true, Some(found)) => Replace { resource_version: found.resource_version.clone() },
        (false, Some(found)) => Delete { resource_version: found.resource_version.clone() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::TrustDomain;
    use serde_json::json;

    fn domain(wanted: Option<bool>) -> Domain {
        let resource: TrustDomain = serde_json::from_value(json!({
            "metadata": {"name": "prod", "uid": "t", "creationTimestamp": "2026-11-24T09:00:00Z"},
            "spec": {
                "domain": "prod_1.example.com", "authority": {"selfSigned": {}},
                "bundle": {"clusterTrustBundle": wanted},
            },
        }))
        .unwrap();
        Domain::parse(&resource).unwrap()
    }

    #[test]
    fn what_is_ours_is_put_right_and_what_is_not_is_left_alone() {
        use ClusterBundlePlan::{Create, Delete, Foreign, Nothing, Replace};
        let (bundle, old) = (Sha256::of(b"new"), Sha256::of(b"old"));
        let resource_version = || "7".to_owned();
        let replace = || Replace { resource_version: resource_version() };
        let delete = || Delete { resource_version: resource_version() };
        let found = |label: Option<&str>, owner: Option<&str>, sha256| {
            Some(ClusterBundleFacts {
                resource_version: resource_version(),
                trust_domain: label.map(str::to_owned),
                owner: owner.map(str::to_owned),
                sha256,
            })
        };
        let ours = |sha256| found(Some("prod"), Some("t"), sha256);
        for (what, found, wanted, unwanted) in [
            ("there is none", None, Create, Nothing),
            ("it holds the bundle", ours(Some(bundle)), Nothing, delete()),
            ("it holds the bundle of before", ours(Some(old)), replace(), delete()),
            ("it was edited", ours(None), replace(), delete()),
            ("its label was taken off", found(None, Some("t"), Some(bundle)), replace(), delete()),
            (
                "its owner was taken off",
                found(Some("prod"), None, Some(bundle)),
                replace(),
                delete(),
            ),
            ("it is of nobody", found(None, None, Some(bundle)), Foreign, Nothing),
            (
                "it is of a TrustDomain of this name that is gone",
                found(Some("prod"), Some("former"), Some(bundle)),
                Foreign,
                Nothing,
            ),
        ] {
            for (field, plan) in [(None, &wanted), (Some(true), &wanted), (Some(false), &unwanted)]
            {
                assert_eq!(
                    decide(&domain(field), bundle, found.as_ref()),
                    *plan,
                    "{what}: {field:?}"
                );
            }
        }
    }
}
