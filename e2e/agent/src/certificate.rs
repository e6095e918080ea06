//! The facts of one certificate that a person wants to read. It judges nothing.

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Every URI among its names. An X.509-SVID has exactly one; what it means is up to `verify`.
    pub uris: Vec<String>,
    /// In whole bytes, as the operator and OpenSSL write it: people search for it.
    pub serial: String,
    pub subject: String,
    pub issuer: String,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub fingerprint: String,
}

#[derive(Debug, thiserror::Error)]
#[error("not a certificate that can be read: {0}")]
pub struct Unreadable(String);

impl Facts {
    pub fn read(der: &CertificateDer<'_>) -> Result<Self, Unreadable> {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|error| Unreadable(error.to_string()))?;
        let names = certificate
            .subject_alternative_name()
            .map_err(|error| Unreadable(error.to_string()))?;
        let uris =
            names.iter().flat_map(|names| &names.value.general_names).filter_map(
                |name| match name {
                    GeneralName::URI(uri) => Some((*uri).to_owned()),
                    _ => None,
                },
            );
        Ok(Self {
            uris: uris.collect(),
            serial: hex(&certificate.serial.to_bytes_be()),
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            not_before: timestamp(certificate.validity().not_before.timestamp())?,
            not_after: timestamp(certificate.validity().not_after.timestamp())?,
            fingerprint: hex(&Sha256::digest(der)),
        })
    }

    /// The SPIFFE ID, if there is exactly one URI and it is one.
    pub fn spiffe_id(&self) -> Option<&str> {
        match self.uris.as_slice() {
            [only] if only.starts_with("spiffe://") => Some(only),
            _ => None,
        }
    }

    /// The SPIFFE ID, or words where it should be.
    pub fn who(&self) -> &str {
        self.spiffe_id().unwrap_or("(no SPIFFE ID)")
    }

    /// The subject, which is empty in a leaf that is named by its URI alone.
    pub fn subject_or_dash(&self) -> &str {
        if self.subject.is_empty() { "(empty: the URI names it)" } else { &self.subject }
    }
}

fn timestamp(seconds: i64) -> Result<Timestamp, Unreadable> {
    Timestamp::from_second(seconds).map_err(|error| Unreadable(error.to_string()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
