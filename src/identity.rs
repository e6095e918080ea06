//! The only door in: resources become types that cannot be wrong.
//!
//! [`Identity::parse`] and [`Domain::parse`] take what the API server stored and return what the
//! rest of the program works with, or the one rule that the resource breaks. Most of these rules
//! are in the CRDs too, where a user meets them first; they are repeated here because a CRD can be
//! older than the program, and an object older than the CRD.

pub mod access;
pub mod authority;
pub mod cert_manager;
pub mod domain;
pub mod grants;
pub mod lifetime;
pub mod remote;
pub mod selector;
pub mod server_trust;
pub mod spiffe;
pub mod vault;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::ObjectMeta;
use kube::{Resource, ResourceExt};

use crate::api::names::{LABEL_VALUE_MAX, PREFIX, REVOKED_BY_ANNOTATION, default_secret_name};
use crate::api::{
    AgentIdentity, DeletionPolicy, ExtraFormat, KeyAlgorithm, RevocationReason, RevokedSpec,
};
use crate::x509::{Serial, serial::SerialError};

pub use access::{AccessError, AccessPolicy, PolicyKey};
pub use authority::{AuthorityError, AuthorityKind, AuthoritySource, TokenAddress};
pub use cert_manager::IssuerName;
pub use domain::{Domain, DomainError, Refusal};
pub use grants::Grant;
pub use lifetime::{Lifetime, LifetimeError};
pub use remote::{REMOTE_PERIODS, RemoteAddress, RemoteSpecError};
pub use selector::{PodSelector, SelectorError};
pub use server_trust::{FileName, ServerTrust};
pub use spiffe::{SpiffeError, SpiffeId, TrustDomainName};
pub use vault::{VaultAddress, VaultLogin, VaultWork};

/// The shortest life a certificate may have: below it, renewal has no time to fail and be repeated.
pub const MINIMUM_LIFE: Lifetime = Lifetime::from_seconds(5 * 60);
/// The life of a certificate whose spec names none.
pub const DEFAULT_LIFE: Lifetime = Lifetime::from_seconds(60 * 60);

/// Which AgentIdentity: its namespace and name. Copies share the text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdentityKey {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl fmt::Display for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// An AgentIdentity whose every field has been understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    pub key: IdentityKey,
    pub uid: String,
    /// `metadata.generation`: the version of the spec that this was parsed from.
    pub generation: i64,
    pub created: Timestamp,
    pub service_account: Arc<str>,
    pub selector: PodSelector,
    pub role: Option<String>,
    /// The TrustDomain named, or `None` for the default one.
    pub trust_domain: Option<String>,
    pub dns_names: BTreeSet<String>,
    pub life: Lifetime,
    pub renew_before: Option<Lifetime>,
    pub algorithm: KeyAlgorithm,
    pub secret_name: String,
    pub template: Template,
    pub formats: BTreeSet<ExtraFormat>,
    pub deletion_policy: DeletionPolicy,
    /// Why it is revoked, while it is. One that is deleted is, unless what was issued to it is to
    /// live on.
    pub revoked: Option<RevokedSpec>,
    /// Who did that, or revoked single certificates, as the API server knows him.
    pub revoked_by: Option<String>,
    /// Single certificates that are revoked.
    pub revoked_certificates: BTreeMap<Serial, RevocationReason>,
}

/// Labels and annotations that a user adds to the Secret.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Template {
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

/// The rule of the spec that an AgentIdentity breaks. The text names the field and what to write.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum IdentityError {
    #[error("the object has no {0}; it was not read from an API server")]
    Incomplete(&'static str),
    #[error("metadata.name is {0} characters long and is also a label: write at most 63")]
    NameTooLong(usize),
    #[error("spec.{field}: {source}")]
    Lifetime { field: &'static str, source: LifetimeError },
    #[error("spec.certificate.duration is {0}; a certificate lives at least 5m: write 5m or more")]
    TooShort(Lifetime),
    #[error(
        "spec.certificate.renewBefore is {renew_before}, and the certificate lives {life}: write less than that"
    )]
    RenewBeforeTooLong { renew_before: Lifetime, life: Lifetime },
    #[error("spec.podSelector: {0}")]
    Selector(#[from] SelectorError),
    #[error(
        "spec.podSelector asks for {0:?}: labels under countersign.dev/ follow from identities; select by labels of your own"
    )]
    SelectsByOurs(String),
    #[error(
        "spec.dnsNames has {0:?}, which is no DNS name: write lower-case labels without wildcard or trailing dot"
    )]
    DnsName(String),
    #[error(
        "spec.serviceAccountName is {0:?}: write the name of a ServiceAccount of this namespace"
    )]
    ServiceAccount(String),
    #[error(
        "spec.role is {0:?}: write at most 63 letters, digits, '-', '_' and '.', starting and ending with a letter or digit"
    )]
    Role(String),
    #[error(
        "spec.delivery.secretName is {0:?}: write lower-case letters, digits, '-' and '.', at most 253"
    )]
    SecretName(String),
    #[error(
        "spec.delivery.secretTemplate has the key {0:?}: keys under countersign.dev/ are the operator's; choose a prefix of your own"
    )]
    ReservedKey(String),
    #[error("spec.delivery.formats names a format twice: write each once")]
    DuplicateFormat,
    #[error("spec.revokedCertificates: {0}")]
    Serial(#[from] SerialError),
}

impl Identity {
    /// Understands an AgentIdentity, or names the first rule that it breaks.
    pub fn parse(resource: &AgentIdentity) -> Result<Self, IdentityError> {
        let spec = &resource.spec;
        let key = IdentityKey::of(resource)?;
        let uid = resource.metadata.uid.clone().ok_or(IdentityError::Incomplete("metadata.uid"))?;
        if key.name.len() > LABEL_VALUE_MAX {
            return Err(IdentityError::NameTooLong(key.name.len()));
        }
        if !is_object_name(&spec.service_account_name) {
            return Err(IdentityError::ServiceAccount(spec.service_account_name.clone()));
        }
        if let Some(role) = spec.role.as_ref().filter(|role| !is_label_value(role)) {
            return Err(IdentityError::Role(role.clone()));
        }
        if let Some(name) = spec.dns_names.iter().find(|name| !is_dns_name(name)) {
            return Err(IdentityError::DnsName(name.clone()));
        }
        let (life, renew_before) = parse_lives(resource)?;
        let delivery = &spec.delivery;
        let secret_name =
            delivery.secret_name.clone().unwrap_or_else(|| default_secret_name(&key.name));
        if !is_object_name(&secret_name) {
            return Err(IdentityError::SecretName(secret_name));
        }
        let formats: BTreeSet<_> = delivery.formats.iter().copied().collect();
        if formats.len() != delivery.formats.len() {
            return Err(IdentityError::DuplicateFormat);
        }
        Ok(Identity {
            uid,
            generation: resource.metadata.generation.unwrap_or_default(),
            created: resource
                .metadata
                .creation_timestamp
                .as_ref()
                .ok_or(IdentityError::Incomplete("metadata.creationTimestamp"))?
                .0,
            service_account: spec.service_account_name.as_str().into(),
            selector: parse_selector(spec.pod_selector.as_ref())?,
            role: spec.role.clone(),
            trust_domain: spec.trust_domain.clone(),
            dns_names: spec.dns_names.iter().cloned().collect(),
            life,
            renew_before,
            algorithm: spec.certificate.key_algorithm.unwrap_or_default(),
            secret_name,
            template: parse_template(resource)?,
            formats,
            deletion_policy: delivery.deletion_policy.unwrap_or_default(),
            revoked: spec.revoked.clone().or_else(|| revoked_by_deletion(resource)),
            revoked_by: resource.annotations().get(REVOKED_BY_ANNOTATION).cloned(),
            revoked_certificates: parse_revoked(resource)?,
            key,
        })
    }
}

/// What an identity is given to follows from labels that others write: by one of ours it would
/// follow from itself.
fn parse_selector(selector: Option<&LabelSelector>) -> Result<PodSelector, IdentityError> {
    let parsed = PodSelector::parse(selector)?;
    let labels = selector.and_then(|selector| selector.match_labels.as_ref());
    let expressions = selector.and_then(|selector| selector.match_expressions.as_ref());
    let keys = labels.into_iter().flatten().map(|(key, _)| key);
    let mut keys = keys.chain(expressions.into_iter().flatten().map(|expression| &expression.key));
    match keys.find(|key| is_reserved(key)) {
        Some(key) => Err(IdentityError::SelectsByOurs(key.clone())),
        None => Ok(parsed),
    }
}

impl Identity {
    /// Who revoked it, to be said after what was done; nothing where nobody says. What stands there
    /// came from whoever tells the API server of its users, and is one line whatever that was.
    pub fn by_whom(&self) -> String {
        let by = self.revoked_by.as_ref().map(|by| format!(", by {}", by.escape_debug()));
        by.unwrap_or_default()
    }
}

impl IdentityKey {
    /// The AgentIdentity as Events name it.
    pub fn reference(&self, uid: &str) -> ObjectReference {
        ObjectReference {
            api_version: Some(AgentIdentity::api_version(&()).into_owned()),
            kind: Some(AgentIdentity::kind(&()).into_owned()),
            namespace: Some(self.namespace.to_string()),
            name: Some(self.name.to_string()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        }
    }

    /// Which AgentIdentity this is.
    pub fn of(resource: &AgentIdentity) -> Result<Self, IdentityError> {
        let ObjectMeta { namespace, name, .. } = &resource.metadata;
        let namespace = namespace.as_deref().ok_or(IdentityError::Incomplete("metadata.namespace"));
        let name = name.as_deref().ok_or(IdentityError::Incomplete("metadata.name"));
        Ok(IdentityKey { namespace: namespace?.into(), name: name?.into() })
    }
}

fn parse_lives(resource: &AgentIdentity) -> Result<(Lifetime, Option<Lifetime>), IdentityError> {
    let certificate = &resource.spec.certificate;
    let parse = |field, text: &Option<String>| {
        text.as_deref()
            .map(|text| text.parse::<Lifetime>())
            .transpose()
            .map_err(|source| IdentityError::Lifetime { field, source })
    };
    let life = parse("certificate.duration", &certificate.duration)?.unwrap_or(DEFAULT_LIFE);
    let renew_before = parse("certificate.renewBefore", &certificate.renew_before)?;
    if life < MINIMUM_LIFE {
        return Err(IdentityError::TooShort(life));
    }
    match renew_before {
        Some(renew_before) if renew_before >= life => {
            Err(IdentityError::RenewBeforeTooLong { renew_before, life })
        }
        _ => Ok((life, renew_before)),
    }
}

fn revoked_by_deletion(resource: &AgentIdentity) -> Option<RevokedSpec> {
    resource.metadata.deletion_timestamp.as_ref()?;
    let policy = resource.spec.delivery.deletion_policy.unwrap_or_default();
    let reason = RevocationReason::CessationOfOperation;
    (policy == DeletionPolicy::Delete).then_some(RevokedSpec { reason, message: None })
}

fn parse_revoked(
    resource: &AgentIdentity,
) -> Result<BTreeMap<Serial, RevocationReason>, IdentityError> {
    let revoked = resource.spec.revoked_certificates.iter();
    revoked
        .map(|revoked| {
            let reason = revoked.reason.unwrap_or(RevocationReason::KeyCompromise);
            Ok((revoked.serial_number.parse()?, reason))
        })
        .collect()
}

/// True if and only if the operator alone writes labels and annotations of this key.
fn is_reserved(key: &str) -> bool {
    key.starts_with(PREFIX) || key.contains(".countersign.dev/")
}

fn parse_template(resource: &AgentIdentity) -> Result<Template, IdentityError> {
    let Some(template) = &resource.spec.delivery.secret_template else {
        return Ok(Template::default());
    };
    let mut keys = template.labels.keys().chain(template.annotations.keys());
    if let Some(key) = keys.find(|key| is_reserved(key)) {
        return Err(IdentityError::ReservedKey(key.clone()));
    }
    Ok(Template { labels: template.labels.clone(), annotations: template.annotations.clone() })
}

/// True if and only if the text is a DNS name in lower case (RFC 1123), without wildcard and
/// without trailing dot.
pub fn is_dns_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= 253 && text.split('.').all(is_dns_label)
}

fn is_dns_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// True if and only if the text may name a Secret or a ServiceAccount.
fn is_object_name(text: &str) -> bool {
    let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    (1..=253).contains(&bytes.len())
        && edge(bytes[0])
        && edge(bytes[bytes.len() - 1])
        && bytes.iter().all(|&b| edge(b) || b == b'-' || b == b'.')
}

/// True if and only if the text is a label's value that is not empty.
fn is_label_value(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=LABEL_VALUE_MAX).contains(&bytes.len())
        && bytes[0].is_ascii_alphanumeric()
        && bytes[bytes.len() - 1].is_ascii_alphanumeric()
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
}

#[cfg(test)]
mod tests;
