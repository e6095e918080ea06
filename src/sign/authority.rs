//! Who signs leaves: one small trait, an implementation a file.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use rustls_pki_types::CertificateDer;

use super::ca_key::SharedKey;
use super::issuer_name::ExactIssuer;
use super::key::PrivateKey;
use super::slot::Slot;
use super::{SignError, profile};
use crate::decide::{AuthorityFacts, LeafProfile};
use crate::x509::{Ca, Sha256, read_pem};

/// Something that signs leaves for a trust domain.
///
/// An authority never changes: another CA is another authority. That is what lets a decision
/// speak of one by the digest of its certificate.
#[async_trait]
pub trait Authority: Send + Sync {
    /// The certificates between leaf and bundle, and the bundle.
    fn chain(&self) -> &Chain;

    /// Signs a leaf of exactly this profile for the public half of this key.
    ///
    /// # Errors
    /// When the authority cannot sign now. Nothing is signed in part.
    async fn sign(
        &self,
        profile: &LeafProfile,
        key: &PrivateKey,
    ) -> Result<CertificateDer<'static>, SignError>;

    /// True if and only if it has so much to do that another request would only wait: better to come
    /// again.
    fn is_busy(&self) -> bool {
        false
    }
}

/// What stands above a leaf.
#[derive(Clone, Debug)]
pub struct Chain {
    /// The issuing CA.
    pub issuer: CertificateDer<'static>,
    /// The intermediates above it, each signed by the next, without the root.
    pub above: Vec<CertificateDer<'static>>,
    /// The certificates to trust.
    pub roots: Vec<CertificateDer<'static>>,
    /// `ca.crt`.
    pub bundle_pem: Arc<str>,
    pub facts: AuthorityFacts,
}

impl Chain {
    /// The chain of an issuing CA under a root, for a bundle that may trust other roots besides,
    /// and issuing CAs that are still trusted and sign no more.
    pub fn new(
        issuing: &Slot,
        root: &Ca,
        bundle_pem: String,
        retiring: Vec<String>,
    ) -> Result<Self, SignError> {
        let facts = AuthorityFacts {
            key_id: issuing.ca.key_id.clone(),
            issuer: issuing.ca.fingerprint,
            not_after: issuing.ca.not_after.min(root.not_after),
            bundle: Sha256::of(bundle_pem.as_bytes()),
            retiring,
            signs_elsewhere: false,
        };
        let roots = read_pem(bundle_pem.as_bytes())?;
        let (issuer, above) = (issuing.certificate.clone(), issuing.above.clone());
        Ok(Chain { issuer, above, roots, bundle_pem: bundle_pem.into(), facts })
    }

    /// What a peer is shown: the leaf, and all that stands above it but the root.
    pub fn presented_with(&self, leaf: CertificateDer<'static>) -> Vec<CertificateDer<'static>> {
        let mut presented = vec![leaf, self.issuer.clone()];
        presented.extend(self.above.iter().cloned());
        presented
    }
}

/// A CA whose key signs at once: the program holds it.
pub struct LocalAuthority {
    chain: Chain,
    issuer: ExactIssuer,
}

impl LocalAuthority {
    /// Takes up a CA whose chain and key have been found to agree.
    pub fn new(chain: Chain, key: SharedKey) -> Result<Self, SignError> {
        let issuer = ExactIssuer::new(&chain.issuer, key)?;
        Ok(LocalAuthority { chain, issuer })
    }
}

#[async_trait]
impl Authority for LocalAuthority {
    fn chain(&self) -> &Chain {
        &self.chain
    }

    async fn sign(
        &self,
        profile: &LeafProfile,
        key: &PrivateKey,
    ) -> Result<CertificateDer<'static>, SignError> {
        Ok(self.issuer.sign(profile::leaf(profile)?, key.pair())?.into())
    }
}

/// An authority whose signing can be ended, while others still hold it.
pub struct Retirable {
    authority: Box<dyn Authority>,
    /// Set before anybody is told that another CA signs.
    is_retired: AtomicBool,
}

impl Retirable {
    /// One that signs.
    pub fn new(authority: Box<dyn Authority>) -> Self {
        Retirable { authority, is_retired: AtomicBool::new(false) }
    }

    /// Signs nothing from now on (rule 2).
    pub fn retire(&self) {
        self.is_retired.store(true, Ordering::SeqCst);
    }
}

#[async_trait]
impl Authority for Retirable {
    fn chain(&self) -> &Chain {
        self.authority.chain()
    }

    fn is_busy(&self) -> bool {
        self.authority.is_busy()
    }

    async fn sign(
        &self,
        profile: &LeafProfile,
        key: &PrivateKey,
    ) -> Result<CertificateDer<'static>, SignError> {
        if self.is_retired.load(Ordering::SeqCst) {
            return Err(SignError::OtherAuthority);
        }
        let signed = self.authority.sign(profile, key).await?;
        // An authority that is far away may have taken its time.
        match self.is_retired.load(Ordering::SeqCst) {
            true => Err(SignError::OtherAuthority),
            false => Ok(signed),
        }
    }
}
