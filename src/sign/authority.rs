//! Who signs leaves: one small trait, an implementation a file.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use rustls_pki_types::CertificateDer;

use super::key::PrivateKey;
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
}

/// What stands above a leaf.
#[derive(Clone, Debug)]
pub struct Chain {
    /// The issuing CA.
    pub issuer: CertificateDer<'static>,
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
        issuer: (CertificateDer<'static>, &Ca),
        root: &Ca,
        bundle_pem: String,
        retiring: Vec<String>,
    ) -> Result<Self, SignError> {
        let facts = AuthorityFacts {
            key_id: issuer.1.key_id.clone(),
            issuer: issuer.1.fingerprint,
            not_after: issuer.1.not_after.min(root.not_after),
            bundle: Sha256::of(bundle_pem.as_bytes()),
            retiring,
        };
        let roots = read_pem(bundle_pem.as_bytes())?;
        Ok(Chain { issuer: issuer.0, roots, bundle_pem: bundle_pem.into(), facts })
    }
}

/// A CA whose key this program holds.
pub struct LocalAuthority {
    chain: Chain,
    /// Set before anybody is told that another CA signs.
    is_retired: AtomicBool,
    issuer: rcgen::Issuer<'static, CaKey>,
}

/// The CA's key as rcgen's issuer owns it. It clears itself, which rcgen's own type does not.
struct CaKey(PrivateKey);

impl rcgen::PublicKeyData for CaKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.pair().der_bytes()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        rcgen::PublicKeyData::algorithm(self.0.pair())
    }
}

impl rcgen::SigningKey for CaKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.pair().sign(message)
    }
}

impl LocalAuthority {
    /// Takes up a CA whose chain and key have been found to agree.
    pub fn new(chain: Chain, key: PrivateKey) -> Result<Self, SignError> {
        let issuer = rcgen::Issuer::from_ca_cert_der(&chain.issuer, CaKey(key))
            .map_err(|error| SignError::Sign(error.to_string()))?;
        Ok(LocalAuthority { chain, is_retired: AtomicBool::new(false), issuer })
    }

    /// Signs nothing from now on (rule 2).
    pub fn retire(&self) {
        self.is_retired.store(true, Ordering::SeqCst);
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
        if self.is_retired.load(Ordering::SeqCst) {
            return Err(SignError::OtherAuthority);
        }
        let certificate = profile::leaf(profile)?
            .signed_by(key.pair(), &self.issuer)
            .map_err(|error| SignError::Sign(error.to_string()))?;
        Ok(certificate.into())
    }
}
