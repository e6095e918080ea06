//! A TrustDomain that has been understood, and its word on whether an identity may be.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{
    AuthorityError, AuthorityKind, AuthoritySource, Grant, Identity, Lifetime, LifetimeError,
};
use super::{MINIMUM_LIFE, PodSelector, grants};
use super::{SelectorError, SpiffeError, SpiffeId, TrustDomainName};
use crate::api::{CaKeyAlgorithm, KeyAlgorithm, SlotNumbers, TrustDomain, WhenUnreached};

/// The path of a SPIFFE ID where a TrustDomain gives none: the one shape that Istio accepts
/// without configuration.
pub const DEFAULT_PATH_TEMPLATE: &str = "/ns/{namespace}/sa/{serviceAccount}";

const DEFAULT_ROOT_LIFE: Lifetime = Lifetime::from_seconds(10 * 365 * 24 * 3600);
const DEFAULT_ISSUING_LIFE: Lifetime = Lifetime::from_seconds(365 * 24 * 3600);
/// A kubelet shows a changed file within 100 s, an agent may look once a minute, and some are slow.
const DEFAULT_SOAK: Lifetime = Lifetime::from_seconds(10 * 60);
/// A peer that reads CRLs over HTTP asks anew about as often.
const DEFAULT_CRL_PERIOD: Lifetime = Lifetime::from_seconds(3600);
/// A rotation of the root may begin when a third of the issuing CA's life is left, and goes on
/// whoever is reached when half of that is (see `decide::slots`): a sixth is what surely remains
/// for the soak.
const SOAKS_IN_AN_ISSUING_LIFE: u64 = 6;
const DEFAULT_MAXIMUM_LIFE: Lifetime = Lifetime::from_seconds(24 * 3600);

/// A TrustDomain whose every field has been understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Domain {
    /// The TrustDomain's name in Kubernetes.
    pub name: String,
    pub uid: String,
    pub generation: i64,
    pub created: Timestamp,
    /// The trust domain itself.
    pub domain: TrustDomainName,
    pub is_default: bool,
    /// Where its CAs come from.
    pub authority: AuthoritySource,
    pub ca: CaShape,
    pub rules: Rules,
    /// The namespaces that get the bundle.
    pub bundle_namespaces: PodSelector,
    /// How often CRLs are signed anew though nothing was revoked.
    pub crl_period: Lifetime,
    /// Whether a ClusterTrustBundle holds the bundle too, where there can be one.
    pub cluster_bundle: bool,
}

/// The CAs to make.
#[derive(Clone, Debug, PartialEq)]
pub struct CaShape {
    pub root_life: Lifetime,
    pub issuing_life: Lifetime,
    pub algorithm: CaKeyAlgorithm,
    /// How long a new root is trusted everywhere before it signs.
    pub soak: Lifetime,
    /// CAs with a lower number are rotated out.
    pub at_least: SlotNumbers,
    /// Whether a rotation goes on past targets that cannot be reached.
    pub proceed_unreached: bool,
    /// Key ids of CAs that are not to be trusted.
    pub distrust: BTreeSet<String>,
}

/// What identities of a trust domain may ask for.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    pub namespaces: PodSelector,
    pub path_template: String,
    pub minimum_life: Lifetime,
    pub maximum_life: Lifetime,
    /// Empty means all.
    pub algorithms: Vec<KeyAlgorithm>,
    pub dns_suffixes: Vec<String>,
    /// Empty means that everybody may ask for any role and ServiceAccount.
    pub grants: Vec<Grant>,
}

/// The rule of the spec that a TrustDomain breaks.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DomainError {
    #[error("the object has no {0}; it was not read from an API server")]
    Incomplete(&'static str),
    #[error("spec.domain: {0}")]
    Domain(#[from] SpiffeError),
    #[error(
        "spec.default is true, and no CA signs in a remote trust domain: leave out default: true"
    )]
    RemoteDefault,
    #[error("spec.authority: {0}")]
    Authority(#[from] AuthorityError),
    #[error("spec.{field}: {source}")]
    Lifetime { field: &'static str, source: LifetimeError },
    #[error("spec.{field}: {source}")]
    Selector { field: &'static str, source: SelectorError },
    #[error(
        "spec.ca.issuingLifetime is {issuing}, longer than the root's {root}: write at most that"
    )]
    IssuingOutlivesRoot { issuing: Lifetime, root: Lifetime },
    #[error(
        "spec.ca.issuingLifetime is {issuing}, less than six times the soak {soak}: write a longer issuingLifetime or a shorter soak, or a rotation of the root could not end before the issuing CA does"
    )]
    SoakTooLong { issuing: Lifetime, soak: Lifetime },
    #[error("spec.identities.minDuration is {minimum}, longer than maxDuration {maximum}")]
    EmptyRange { minimum: Lifetime, maximum: Lifetime },
    #[error(
        "spec.identities.minDuration is {0}: a certificate lives at least 5m, write 5m or more"
    )]
    MinimumTooShort(Lifetime),
    #[error(
        "spec.identities.pathTemplate is {0:?}: it must have {{namespace}}, and {{serviceAccount}} or {{name}}, as whole segments, or one namespace could take another's identity"
    )]
    PathNotUnique(String),
    #[error(
        "spec.identities.pathTemplate has {0:?}: the placeholders are {{namespace}}, {{serviceAccount}}, {{name}} and {{role}}"
    )]
    Placeholder(String),
}

/// Why a trust domain does not serve an identity. The text says what to write instead.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    #[error(
        "TrustDomain {domain} does not serve namespace {namespace}: label the namespace as its spec.identities.namespaceSelector asks, or name another trust domain"
    )]
    Namespace { domain: String, namespace: String },
    #[error("spec.certificate.duration is {life}; TrustDomain {domain} allows at most {maximum}")]
    LifeTooLong { domain: String, life: Lifetime, maximum: Lifetime },
    #[error(
        "spec.certificate.duration is {life}; TrustDomain {domain} asks for at least {minimum}"
    )]
    LifeTooShort { domain: String, life: Lifetime, minimum: Lifetime },
    #[error(
        "spec.certificate.keyAlgorithm is not among the spec.identities.allowedKeyAlgorithms of TrustDomain {domain}"
    )]
    Algorithm { domain: String },
    #[error(
        "spec.dnsNames has {name:?}: allowed are names of this namespace's Services, <service>.{namespace}.svc, and the allowedDnsSuffixes of TrustDomain {domain}"
    )]
    DnsName { domain: String, namespace: String, name: String },
    #[error(
        "no grant of TrustDomain {domain} gives namespace {namespace} {asked}: ask for what its spec.identities.grants give, or have it changed"
    )]
    NotGranted { domain: String, namespace: String, asked: String },
    #[error("TrustDomain {domain} builds SPIFFE IDs from {{role}}: give the identity a spec.role")]
    RoleMissing { domain: String },
    #[error(
        "TrustDomain {domain} is remote: it is there to be trusted, and no CA signs for it here. Name a trust domain that has a CA in spec.trustDomain"
    )]
    Remote { domain: String },
    #[error("no SPIFFE ID can be made for this identity: {0}")]
    SpiffeId(#[from] SpiffeError),
}

impl Domain {
    /// Understands a TrustDomain, or names the first rule that it breaks.
    pub fn parse(resource: &TrustDomain) -> Result<Self, DomainError> {
        let (metadata, spec) = (&resource.metadata, &resource.spec);
        let incomplete = DomainError::Incomplete;
        let authority = AuthoritySource::parse(&spec.authority)?;
        if spec.default && authority.kind() == AuthorityKind::Remote {
            return Err(DomainError::RemoteDefault);
        }
        let rules = parse_rules(resource)?;
        let bundle_namespaces = match &spec.bundle.namespace_selector {
            None => rules.namespaces.clone(),
            given => selector("bundle.namespaceSelector", given.as_ref())?,
        };
        Ok(Domain {
            name: metadata.name.clone().ok_or(incomplete("metadata.name"))?,
            uid: metadata.uid.clone().ok_or(incomplete("metadata.uid"))?,
            generation: metadata.generation.unwrap_or_default(),
            created: metadata
                .creation_timestamp
                .as_ref()
                .ok_or(incomplete("metadata.creationTimestamp"))?
                .0,
            domain: TrustDomainName::parse(&spec.domain)?,
            is_default: spec.default,
            authority,
            ca: parse_ca(resource)?,
            rules,
            bundle_namespaces,
            crl_period: lifetime("revocation.crlPeriod", &spec.revocation.crl_period)?
                .unwrap_or(DEFAULT_CRL_PERIOD),
            cluster_bundle: spec.bundle.cluster_trust_bundle.unwrap_or(true),
        })
    }

    /// The SPIFFE ID that an identity would have here, whether it is allowed or not.
    pub fn spiffe_id(&self, identity: &Identity) -> Result<SpiffeId, Refusal> {
        let template = &self.rules.path_template;
        if template.contains("{role}") && identity.role.is_none() {
            return Err(Refusal::RoleMissing { domain: self.name.clone() });
        }
        let path = template
            .replace("{namespace}", &identity.key.namespace)
            .replace("{serviceAccount}", &identity.service_account)
            .replace("{name}", &identity.key.name)
            .replace("{role}", identity.role.as_deref().unwrap_or_default());
        Ok(SpiffeId::new(&self.domain, &path)?)
    }

    /// The SPIFFE ID of an identity that this trust domain serves, or the first rule against it.
    ///
    /// `namespace_labels` are those of the identity's namespace; `cluster_domain` is the DNS
    /// domain of the cluster, such as `cluster.local`.
    pub fn admit(
        &self,
        identity: &Identity,
        namespace_labels: &BTreeMap<String, String>,
        cluster_domain: &str,
    ) -> Result<SpiffeId, Refusal> {
        let domain = || self.name.clone();
        if let AuthoritySource::Remote(_) = self.authority {
            return Err(Refusal::Remote { domain: domain() });
        }
        let rules = &self.rules;
        if !rules.namespaces.matches(namespace_labels) {
            let namespace = identity.key.namespace.to_string();
            return Err(Refusal::Namespace { domain: domain(), namespace });
        }
        let is_granted = |grant: &Grant| grant.covers(identity, namespace_labels);
        if !rules.grants.is_empty() && !rules.grants.iter().any(is_granted) {
            let namespace = identity.key.namespace.to_string();
            let asked = grants::asked(identity);
            return Err(Refusal::NotGranted { domain: domain(), namespace, asked });
        }
        let life = identity.life;
        if life > rules.maximum_life {
            return Err(Refusal::LifeTooLong {
                domain: domain(),
                life,
                maximum: rules.maximum_life,
            });
        }
        if life < rules.minimum_life {
            let minimum = rules.minimum_life;
            return Err(Refusal::LifeTooShort { domain: domain(), life, minimum });
        }
        if !rules.algorithms.is_empty() && !rules.algorithms.contains(&identity.algorithm) {
            return Err(Refusal::Algorithm { domain: domain() });
        }
        let namespace = &identity.key.namespace;
        let allowed = |name: &&String| {
            is_service_name(name, namespace, cluster_domain)
                || rules.dns_suffixes.iter().any(|suffix| is_below(name, suffix))
        };
        if let Some(name) = identity.dns_names.iter().find(|name| !allowed(name)) {
            return Err(Refusal::DnsName {
                domain: domain(),
                namespace: namespace.to_string(),
                name: name.clone(),
            });
        }
        self.spiffe_id(identity)
    }
}

/// True if and only if the name is `<service>.<namespace>.svc`, alone or in the cluster's domain.
///
/// Neither `<service>` nor `<service>.<namespace>` will do: the first names another Service in
/// every other namespace, the second could be a public name (a namespace may be called `com`).
fn is_service_name(name: &str, namespace: &str, cluster_domain: &str) -> bool {
    let local = name.strip_suffix(cluster_domain).and_then(|rest| rest.strip_suffix('.'));
    local
        .unwrap_or(name)
        .strip_suffix(".svc")
        .and_then(|rest| rest.strip_suffix(namespace))
        .and_then(|rest| rest.strip_suffix('.'))
        .is_some_and(|service| !service.is_empty() && !service.contains('.'))
}

/// True if and only if the name is one or more labels below the suffix.
fn is_below(name: &str, suffix: &str) -> bool {
    name.strip_suffix(suffix)
        .and_then(|rest| rest.strip_suffix('.'))
        .is_some_and(|rest| !rest.is_empty())
}

fn parse_ca(resource: &TrustDomain) -> Result<CaShape, DomainError> {
    let ca = &resource.spec.ca;
    let root = lifetime("ca.rootLifetime", &ca.root_lifetime)?.unwrap_or(DEFAULT_ROOT_LIFE);
    let issuing =
        lifetime("ca.issuingLifetime", &ca.issuing_lifetime)?.unwrap_or(DEFAULT_ISSUING_LIFE);
    if issuing > root {
        return Err(DomainError::IssuingOutlivesRoot { issuing, root });
    }
    let soak = lifetime("ca.soak", &ca.soak)?.unwrap_or(DEFAULT_SOAK);
    if issuing.seconds() < SOAKS_IN_AN_ISSUING_LIFE * soak.seconds() {
        return Err(DomainError::SoakTooLong { issuing, soak });
    }
    Ok(CaShape {
        root_life: root,
        issuing_life: issuing,
        algorithm: ca.key_algorithm.unwrap_or_default(),
        soak,
        at_least: ca.at_least.unwrap_or_default(),
        proceed_unreached: ca.when_unreached == Some(WhenUnreached::Proceed),
        distrust: ca.distrust.iter().cloned().collect(),
    })
}

fn parse_rules(resource: &TrustDomain) -> Result<Rules, DomainError> {
    let given = &resource.spec.identities;
    let minimum = lifetime("identities.minDuration", &given.min_duration)?.unwrap_or(MINIMUM_LIFE);
    let maximum =
        lifetime("identities.maxDuration", &given.max_duration)?.unwrap_or(DEFAULT_MAXIMUM_LIFE);
    if minimum < MINIMUM_LIFE {
        return Err(DomainError::MinimumTooShort(minimum));
    }
    if minimum > maximum {
        return Err(DomainError::EmptyRange { minimum, maximum });
    }
    let path_template =
        given.path_template.clone().unwrap_or_else(|| DEFAULT_PATH_TEMPLATE.to_owned());
    check_path_template(&path_template)?;
    Ok(Rules {
        namespaces: selector("identities.namespaceSelector", given.namespace_selector.as_ref())?,
        path_template,
        minimum_life: minimum,
        maximum_life: maximum,
        algorithms: given.allowed_key_algorithms.clone(),
        dns_suffixes: given.allowed_dns_suffixes.clone(),
        grants: given
            .grants
            .iter()
            .map(Grant::parse)
            .collect::<Result<_, _>>()
            .map_err(|source| DomainError::Selector { field: "identities.grants", source })?,
    })
}

fn check_path_template(template: &str) -> Result<(), DomainError> {
    let has = |segment: &str| template.split('/').any(|part| part == segment);
    if !has("{namespace}") || !(has("{serviceAccount}") || has("{name}")) {
        return Err(DomainError::PathNotUnique(template.to_owned()));
    }
    let mut rest = template;
    while let Some((_, tail)) = rest.split_once('{') {
        let placeholder = tail.split('}').next().unwrap_or_default();
        if !["namespace", "serviceAccount", "name", "role"].contains(&placeholder) {
            return Err(DomainError::Placeholder(placeholder.to_owned()));
        }
        rest = tail;
    }
    Ok(())
}

fn lifetime(field: &'static str, text: &Option<String>) -> Result<Option<Lifetime>, DomainError> {
    text.as_deref()
        .map(str::parse)
        .transpose()
        .map_err(|source| DomainError::Lifetime { field, source })
}

fn selector(
    field: &'static str,
    given: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector>,
) -> Result<PodSelector, DomainError> {
    PodSelector::parse(given).map_err(|source| DomainError::Selector { field, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_service_names_of_the_own_namespace_are_allowed_by_default() {
        for (name, allowed) in [
            ("tools.research.svc", true),
            ("tools.research.svc.cluster.local", true),
            ("tools", false),
            ("tools.research", false),
            ("tools.other.svc", false),
            ("a.tools.research.svc", false),
            ("tools.research.svc.evil.com", false),
            ("toolsresearch.svc", false),
            (".research.svc", false),
            ("research.svc", false),
        ] {
            assert_eq!(is_service_name(name, "research", "cluster.local"), allowed, "{name}");
        }
    }

    #[test]
    fn an_issuing_ca_lives_six_soaks_at_the_least() {
        for (issuing, soak, good) in [
            (Some("1h"), None, true),
            (Some("59m59s"), None, false),
            (Some("10m"), Some("100s"), true),
            (Some("10m"), Some("101s"), false),
            (None, Some("1460h"), true),
            (None, Some("1461h"), false),
        ] {
            let resource: TrustDomain = serde_json::from_value(serde_json::json!({
                "metadata": {"name": "t", "uid": "t", "creationTimestamp": "2026-11-24T09:00:00Z"},
                "spec": {
                    "domain": "t", "authority": {"selfSigned": {}},
                    "ca": {"issuingLifetime": issuing, "soak": soak},
                },
            }))
            .unwrap();
            let parsed = Domain::parse(&resource);
            let refused = matches!(parsed, Err(DomainError::SoakTooLong { .. }));
            assert_eq!(refused, !good, "{issuing:?} {soak:?}: {parsed:?}");
        }
    }

    #[test]
    fn a_suffix_allows_what_is_below_it_and_not_what_ends_alike() {
        assert!(is_below("a.agents.example.com", "agents.example.com"));
        assert!(is_below("a.b.agents.example.com", "agents.example.com"));
        assert!(!is_below("agents.example.com", "agents.example.com"));
        assert!(!is_below("my-agents.example.com", "agents.example.com"));
    }

    #[test]
    fn a_path_that_two_namespaces_could_share_is_refused() {
        for (template, good) in [
            ("/ns/{namespace}/sa/{serviceAccount}", true),
            ("/{namespace}/{name}/{role}", true),
            ("/sa/{serviceAccount}", false),
            ("/ns/{namespace}", false),
            ("/x-{namespace}/{name}", false),
            ("/{namespace}/{name}/{pod}", false),
        ] {
            assert_eq!(check_path_template(template).is_ok(), good, "{template}");
        }
    }
}
