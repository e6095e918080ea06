//! All that a decision about an identity needs, gathered into one input.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::api::conditions::Reason;
use crate::api::names::{
    BUNDLE_SHA256_ANNOTATION, IDENTITY_LABEL, NOT_AFTER_ANNOTATION, ORPHAN_OWNER_ANNOTATION,
    SERIAL_ANNOTATION, SPIFFE_ID_ANNOTATION, TEMPLATE_KEYS_ANNOTATION,
};
use crate::api::{AgentIdentityStatus, DeletionPolicy, ExtraFormat};
use crate::identity::{Identity, SpiffeId};
use crate::x509::{Leaf, Sha256};

/// What is known about an identity at one moment.
#[derive(Clone, Debug)]
pub struct Situation<'a> {
    pub identity: &'a Identity,
    pub admission: &'a Admission,
    pub secret: &'a SecretState,
    /// A Secret of ours under a name that the spec does not give any more.
    pub former_secret: Option<&'a str>,
    pub previous: Option<&'a AgentIdentityStatus>,
    /// Serial numbers of this identity that are revoked, that of the next certificate included.
    pub revoked: &'a BTreeSet<String>,
    /// What the CRL distribution point in a certificate begins with, if it is to have one.
    pub crl_url: Option<&'a str>,
    pub now: Timestamp,
}

/// Whether the identity may have a certificate, and who would sign it.
#[derive(Clone, Debug, PartialEq)]
pub enum Admission {
    /// It may, and the CA signs.
    Admitted { spiffe_id: SpiffeId, authority: AuthorityFacts },
    /// It may, and the CA cannot sign now. What it has stands until it expires.
    /// Only the bundle beside it, SHA-256 of which this is, is kept right.
    Waiting { spiffe_id: Option<SpiffeId>, bundle: Option<Sha256>, reason: Reason, message: String },
    /// It may not.
    Refused { reason: Reason, message: String },
}

/// What a decision needs to know of the active issuing CA.
#[derive(Clone, Debug, PartialEq)]
pub struct AuthorityFacts {
    pub key_id: String,
    /// SHA-256 of the issuing CA and the intermediates above it: [`Sha256::of_chain`].
    pub issuer: Sha256,
    /// The earliest end of any certificate of the chain.
    pub not_after: Timestamp,
    /// SHA-256 of `ca.crt`.
    pub bundle: Sha256,
    /// Key ids of issuing CAs that sign no more and are still trusted.
    pub retiring: Vec<String>,
    /// True where another program signs, which gives serial numbers of its own and begins a life by
    /// rules of its own.
    pub signs_elsewhere: bool,
}

/// The Secret of the name that the spec gives.
#[derive(Clone, Debug, PartialEq)]
pub enum SecretState {
    Absent,
    /// It exists and is not this identity's; the text says whose or why.
    Foreign(String),
    Ours(Box<OurSecret>),
}

/// A Secret that this identity owns.
#[derive(Clone, Debug, PartialEq)]
pub struct OurSecret {
    pub resource_version: String,
    pub meta: Meta,
    pub content: Content,
}

/// The parts of an object's metadata that matter here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// The UID of its controlling owner.
    pub owner: Option<String>,
}

/// What stands in a Secret.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// There is neither certificate nor key, as in the Secret of a revoked identity.
    Emptied,
    /// tls.crt or tls.key cannot be read; the text says why.
    Unreadable(String),
    Read(Box<ContentFacts>),
}

/// What a Secret's files say. No key material.
#[derive(Clone, Debug, PartialEq)]
pub struct ContentFacts {
    pub leaf: Leaf,
    pub key_matches: bool,
    /// SHA-256 of what follows the leaf in tls.crt, if each certificate there really signed the one
    /// before it: [`Sha256::of_chain`].
    pub issuer: Option<Sha256>,
    /// SHA-256 of ca.crt.
    pub bundle: Option<Sha256>,
    /// The extra formats that are whole and agree with tls.crt and tls.key.
    pub formats: BTreeSet<ExtraFormat>,
    /// Files that belong to no whole format.
    pub strays: BTreeSet<String>,
}

impl SecretState {
    /// Whose Secret this is: the first question about every Secret.
    ///
    /// It is ours if and only if it is owned by exactly this AgentIdentity: by an owner reference
    /// with its UID, which proves it even where somebody took our label off, or, where it is to
    /// outlive its owner and so may not have one, by our label and an annotation. An orphan of an earlier AgentIdentity of the same name
    /// is adopted: it has no owner, our label, and the annotation that only we write.
    pub fn ownership(identity: &Identity, meta: &Meta) -> Result<(), String> {
        let name = &identity.secret_name;
        let labelled =
            meta.labels.get(IDENTITY_LABEL).map(String::as_str) == Some(&*identity.key.name);
        let next = "delete it, or give spec.delivery.secretName another name";
        match (&meta.owner, labelled) {
            (Some(owner), _) if *owner == identity.uid => Ok(()),
            (_, false) => {
                Err(format!("Secret {name} exists and was not made for this identity: {next}"))
            }
            (Some(_), true) => Err(format!("Secret {name} is owned by another object: {next}")),
            (None, true) if meta.annotations.contains_key(ORPHAN_OWNER_ANNOTATION) => Ok(()),
            (None, true) => {
                Err(format!("Secret {name} has our label and no owner that proves it: {next}"))
            }
        }
    }
}

impl Meta {
    /// What an identity's Secret carries for a leaf and a bundle, besides what others put there.
    pub fn desired(identity: &Identity, spiffe_id: &str, leaf: &Leaf, bundle: Sha256) -> Self {
        let template = &identity.template;
        let mut labels = template.labels.clone();
        labels.insert(IDENTITY_LABEL.to_owned(), identity.key.name.to_string());
        let mut annotations = template.annotations.clone();
        let keys: Vec<&str> = template
            .labels
            .keys()
            .map(String::as_str)
            .chain(template.annotations.keys().map(String::as_str))
            .collect();
        if !keys.is_empty() {
            annotations.insert(TEMPLATE_KEYS_ANNOTATION.to_owned(), keys.join(","));
        }
        annotations.insert(SPIFFE_ID_ANNOTATION.to_owned(), spiffe_id.to_owned());
        annotations.insert(SERIAL_ANNOTATION.to_owned(), leaf.serial.clone());
        annotations.insert(NOT_AFTER_ANNOTATION.to_owned(), leaf.not_after.to_string());
        annotations.insert(BUNDLE_SHA256_ANNOTATION.to_owned(), bundle.to_string());
        let owner = match identity.deletion_policy {
            DeletionPolicy::Delete => Some(identity.uid.clone()),
            DeletionPolicy::Orphan => {
                annotations.insert(ORPHAN_OWNER_ANNOTATION.to_owned(), identity.uid.clone());
                None
            }
        };
        Meta { labels, annotations, owner }
    }

    /// True if and only if everything desired is here, nothing of ours is stale, and what others
    /// added is left out of the question.
    pub fn has(&self, desired: &Meta) -> bool {
        let within = |part: &BTreeMap<String, String>, whole: &BTreeMap<String, String>| {
            part.iter().all(|(key, value)| whole.get(key) == Some(value))
        };
        within(&desired.labels, &self.labels)
            && within(&desired.annotations, &self.annotations)
            && self.owner == desired.owner
            && self.obsolete_keys(desired).next().is_none()
            && self.annotations.contains_key(ORPHAN_OWNER_ANNOTATION)
                == desired.annotations.contains_key(ORPHAN_OWNER_ANNOTATION)
    }

    /// Keys that a former template put here and the present one does not ask for.
    pub fn obsolete_keys<'a>(&'a self, desired: &'a Meta) -> impl Iterator<Item = &'a str> {
        self.annotations
            .get(TEMPLATE_KEYS_ANNOTATION)
            .into_iter()
            .flat_map(|keys| keys.split(','))
            .filter(|key| {
                !key.is_empty()
                    && !desired.labels.contains_key(*key)
                    && !desired.annotations.contains_key(*key)
            })
    }
}
