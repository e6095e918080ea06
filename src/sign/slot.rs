//! The CAs of a trust domain: making one, and reading one back.

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;

use super::authority::{Chain, LocalAuthority};
use super::ca_key::SharedKey;
use super::key::{KeyError, PrivateKey};
use super::token::{KeyReference, TokenKey};
use super::{SignError, profile};
use crate::decide::slots::SlotOrder;
use crate::identity::Domain;
use crate::x509::{self, Ca, Sha256};

/// A CA, as its Secret holds it.
#[derive(Clone, Debug)]
pub struct Slot {
    pub certificate: CertificateDer<'static>,
    /// The intermediates above it, each signed by the next, without the root. A root has none.
    pub above: Vec<CertificateDer<'static>>,
    /// What the certificate says, with the digest and the earliest end of all of them.
    pub ca: Ca,
    /// None where the operator does not have it: a root that somebody else keeps.
    pub key: Option<SharedKey>,
}

/// What a CA's Secret holds of its key.
#[derive(Clone, Copy)]
pub enum KeptKey<'a> {
    None,
    /// The key itself, PKCS#8 in PEM.
    Pem(&'a [u8]),
    /// Where it is: a PKCS#11 URI.
    Uri(&'a [u8]),
}

impl Slot {
    /// Makes the CA that was ordered, with a key of its own, and signs it with its parent's. An
    /// issuing CA ends with its root at the latest (rule 1).
    pub fn make(
        domain: &Domain,
        order: &SlotOrder,
        parent: Option<&Slot>,
        now: Timestamp,
    ) -> Result<Self, SignError> {
        let key = SharedKey::new(PrivateKey::generate_for_ca(domain.ca.algorithm)?);
        Slot::make_with(key, domain, order, parent, now)
    }

    /// Makes the CA that was ordered for a key that there is already.
    pub fn make_with(
        key: SharedKey,
        domain: &Domain,
        order: &SlotOrder,
        parent: Option<&Slot>,
        now: Timestamp,
    ) -> Result<Self, SignError> {
        let now = crate::decide::schedule::whole_seconds(now);
        let end = order.life.after(now);
        let end = parent.map_or(end, |parent| end.min(parent.ca.not_after));
        let params = profile::ca(order.kind, &domain.domain, now, end)?;
        let certificate = match parent {
            None => params.self_signed(&key).map_err(|error| key.why(&error))?,
            Some(parent) => {
                let signer = parent.key.clone().ok_or(SignError::NoKey)?;
                let issuer = rcgen::Issuer::from_ca_cert_der(&parent.certificate, signer.clone())
                    .map_err(|error| SignError::Sign(error.to_string()))?;
                params.signed_by(&key, &issuer).map_err(|error| signer.why(&error))?
            }
        };
        Slot::new(vec![certificate.into()], Some(key))
    }

    /// Puts together a CA that somebody else made: its certificate and those above it, and the key.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: Option<SharedKey>,
    ) -> Result<Self, SignError> {
        let fingerprint = Sha256::of_chain(&chain);
        if !chain.windows(2).all(|pair| x509::is_signed_by(&pair[0], &pair[1])) {
            return Err(SignError::Sign("the chain in tls.crt is not in order".to_owned()));
        }
        let mut chain = chain.into_iter();
        let certificate = chain.next().ok_or(x509::X509Error::NoCertificate)?;
        let above: Vec<_> = chain.collect();
        let mut ca = x509::read_ca(&certificate)?;
        ca.fingerprint = fingerprint;
        for der in &above {
            ca.not_after = ca.not_after.min(x509::read_ca(der)?.not_after);
        }
        if key.as_ref().is_some_and(|key| key.public_key() != ca.public_key) {
            return Err(SignError::KeyMismatch);
        }
        Ok(Slot { certificate, above, ca, key })
    }

    /// Reads a CA Secret's files, and sees that they belong together.
    pub fn read(certificate_pem: &[u8], key: KeptKey<'_>) -> Result<Self, SignError> {
        let chain = x509::read_pem(certificate_pem)?;
        let key = match key {
            KeptKey::None => None,
            KeptKey::Pem(pem) => Some(SharedKey::new(PrivateKey::from_pem(pem)?)),
            KeptKey::Uri(uri) => {
                let bad = |why: String| SignError::Key(KeyError::Read(why));
                let uri = std::str::from_utf8(uri).map_err(|error| bad(error.to_string()))?;
                let reference = KeyReference::read(uri).map_err(|error| bad(error.to_string()))?;
                let certificate = chain.first().ok_or(x509::X509Error::NoCertificate)?;
                let public = x509::public_key_info(certificate)?;
                Some(SharedKey::new(TokenKey::of(reference, &public)?))
            }
        };
        Slot::new(chain, key)
    }

    /// `tls.crt`: its certificate, and those above it.
    pub fn chain(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        std::iter::once(&self.certificate).chain(&self.above)
    }

    /// Takes up both CAs as one that signs leaves.
    pub fn into_authority(
        self,
        root: &Slot,
        bundle_pem: String,
        retiring: Vec<String>,
    ) -> Result<LocalAuthority, SignError> {
        let chain = Chain::new(&self, &root.ca, bundle_pem, retiring)?;
        LocalAuthority::new(chain, self.key.ok_or(SignError::NoKey)?)
    }

    /// The key id of the CA that signed the top of this chain, if it is the one given or itself.
    pub fn signed_by(&self, root: Option<&Slot>) -> Option<String> {
        let top = self.above.last().unwrap_or(&self.certificate);
        root.filter(|root| x509::is_signed_by(top, &root.certificate))
            .map(|root| root.ca.key_id.clone())
    }
}
