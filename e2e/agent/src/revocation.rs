//! What `crl.pem` takes back: certificates that are genuine, have not expired, and count no more.
//!
//! The file holds a CRL of each CA, and webpki picks the one of a certificate's issuer. Three things are decided here:
//!
//! - No `crl.pem`: nothing is checked. A trust domain whose CAs sign no CRLs has none.
//! - A CA of which `crl.pem` says nothing: not checked. CAs and CRLs come in one ConfigMap, so this is a CA that signs
//!   no CRLs; refusing its leaves would protect from nobody.
//! - An expired `crl.pem`: everybody is refused, as Envoy, nginx and OpenSSL do. It is signed for longer than a
//!   leaf lives, so by then either the operator has been dead for as long, or somebody keeps new ones from us.

use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use webpki::{
    CertRevocationList, ExpirationPolicy, OwnedCertRevocationList, RevocationCheckDepth,
    RevocationOptions, RevocationOptionsBuilder, UnknownStatusPolicy,
};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

/// The CRLs of `crl.pem`; without any, nothing is revoked.
#[derive(Default)]
pub struct Revoked {
    lists: Vec<CertRevocationList<'static>>,
    /// How many certificates all of them name.
    pub entries: usize,
}

impl Revoked {
    pub fn from_ders(ders: &[CertificateRevocationListDer<'_>]) -> anyhow::Result<Self> {
        anyhow::ensure!(!ders.is_empty(), "crl.pem holds no CRL");
        let mut revoked = Self::default();
        for der in ders {
            let (_, list) = CertificateRevocationList::from_der(der)?;
            revoked.entries += list.iter_revoked_certificates().count();
            revoked.lists.push(OwnedCertRevocationList::from_der(der)?.into());
        }
        Ok(revoked)
    }

    /// The lists as [`Self::options`] wants them.
    pub fn lists(&self) -> Vec<&CertRevocationList<'static>> {
        self.lists.iter().collect()
    }

    /// Every certificate of a chain is looked up, the issuing CA's too, in a list that has not expired.
    pub fn options<'a>(lists: &'a [&'a CertRevocationList<'a>]) -> Option<RevocationOptions<'a>> {
        let builder = RevocationOptionsBuilder::new(lists).ok()?;
        Some(
            builder
                .with_depth(RevocationCheckDepth::Chain)
                .with_status_policy(UnknownStatusPolicy::Allow)
                .with_expiration_policy(ExpirationPolicy::Enforce)
                .build(),
        )
    }

    /// True if and only if a list of the certificate's own issuer names it. It is for words alone: no
    /// signature is checked here.
    pub fn names(&self, certificate: &CertificateDer<'_>) -> bool {
        X509Certificate::from_der(certificate).is_ok_and(|(_, certificate)| {
            let serial = certificate.raw_serial();
            // webpki keeps a name without the SEQUENCE around it.
            let issuer = certificate.issuer().as_raw();
            self.lists.iter().any(|list| {
                issuer.ends_with(list.issuer()) && matches!(list.find_serial(serial), Ok(Some(_)))
            })
        })
    }
}
