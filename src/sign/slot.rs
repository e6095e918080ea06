//! The CAs of a self-signed trust domain: making one, and reading one back.

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;

use super::authority::{Chain, LocalAuthority};
use super::key::PrivateKey;
use super::{SignError, profile};
use crate::decide::slots::SlotOrder;
use crate::identity::Domain;
use crate::x509::{self, Ca};

/// A CA with its key, as its Secret holds it.
#[derive(Debug)]
pub struct Slot {
    pub certificate: CertificateDer<'static>,
    pub ca: Ca,
    pub key: PrivateKey,
}

impl Slot {
    /// Makes the CA that was ordered. An issuing CA ends with its root at the latest (rule 1).
    pub fn make(
        domain: &Domain,
        order: &SlotOrder,
        parent: Option<&Slot>,
        now: Timestamp,
    ) -> Result<Self, SignError> {
        let now = crate::decide::schedule::whole_seconds(now);
        let key = PrivateKey::generate_for_ca(domain.ca.algorithm)?;
        let end = order.life.after(now);
        let end = parent.map_or(end, |parent| end.min(parent.ca.not_after));
        let params = profile::ca(order.kind, &domain.domain, now, end)?;
        let broken = |error: rcgen::Error| SignError::Sign(error.to_string());
        let certificate = match parent {
            None => params.self_signed(key.pair()),
            Some(parent) => {
                let issuer =
                    rcgen::Issuer::from_ca_cert_der(&parent.certificate, parent.key.pair())
                        .map_err(broken)?;
                params.signed_by(key.pair(), &issuer)
            }
        };
        Slot::new(certificate.map_err(broken)?.into(), key)
    }

    /// Reads a CA Secret's files, and sees that they belong together.
    pub fn read(certificate_pem: &[u8], key_pem: &[u8]) -> Result<Self, SignError> {
        let mut certificates = x509::read_pem(certificate_pem)?;
        if certificates.len() != 1 {
            return Err(SignError::Sign("tls.crt must hold one certificate".to_owned()));
        }
        Slot::new(certificates.remove(0), PrivateKey::from_pem(key_pem)?)
    }

    /// Takes up both CAs as one that signs leaves.
    pub fn into_authority(
        self,
        root: &Slot,
        bundle_pem: String,
        retiring: Vec<String>,
    ) -> Result<LocalAuthority, SignError> {
        let chain = Chain::new((self.certificate, &self.ca), &root.ca, bundle_pem, retiring)?;
        LocalAuthority::new(chain, self.key)
    }

    /// The key id of the CA that signed this one, if it is the one given or itself.
    pub fn signed_by(&self, root: Option<&Slot>) -> Option<String> {
        root.filter(|root| x509::is_signed_by(&self.certificate, &root.certificate))
            .map(|root| root.ca.key_id.clone())
    }

    fn new(certificate: CertificateDer<'static>, key: PrivateKey) -> Result<Self, SignError> {
        let ca = x509::read_ca(&certificate)?;
        if ca.public_key != key.public_key() {
            return Err(SignError::KeyMismatch);
        }
        Ok(Slot { certificate, ca, key })
    }
}
