//! Reading and judging certificates. Pure, and keeps no private key.
//!
//! What is read is judged by rustls-webpki, which shares no code with rcgen that signs: a leaf
//! that rcgen got wrong does not leave the program.

pub mod crl;
pub mod issuer;
pub mod serial;

use std::collections::BTreeSet;
use std::fmt;

use aws_lc_rs::digest;
use jiff::Timestamp;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{ExtendedKeyUsage, GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

use crate::api::KeyAlgorithm;

pub use crl::{Crl, read_crl};
pub use serial::Serial;

/// SHA-256 of something public, such as a DER certificate or a bundle.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sha256([u8; 32]);

/// What a leaf says about itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Leaf {
    /// Lower-case hexadecimal.
    pub serial: String,
    pub fingerprint: Sha256,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    /// The issuing CA's key id, lower-case hexadecimal; empty where the leaf has none.
    pub authority_key_id: String,
    /// Its URI SANs. An X.509-SVID has exactly one.
    pub uris: Vec<String>,
    pub dns_names: BTreeSet<String>,
    /// None for an algorithm that no identity can ask for.
    pub algorithm: Option<KeyAlgorithm>,
    /// SHA-256 of the public key (SubjectPublicKeyInfo).
    pub public_key: Sha256,
    /// What keeps it from being an X.509-SVID of our profile, if anything.
    pub defect: Option<&'static str>,
}

/// What a CA certificate says about itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Ca {
    pub subject: String,
    pub fingerprint: Sha256,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    /// Subject key id, lower-case hexadecimal.
    pub key_id: String,
    /// SHA-256 of the public key (SubjectPublicKeyInfo).
    pub public_key: Sha256,
}

/// What cannot be read, or does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum X509Error {
    #[error("there is no certificate in PEM")]
    NoCertificate,
    #[error("it is not PEM: {0}")]
    Pem(String),
    #[error("it is not a certificate: {0}")]
    Certificate(String),
    #[error("it is not a CA certificate: {0}")]
    NotCa(&'static str),
    #[error("the chain does not hold: {0}")]
    Chain(String),
    #[error("it is not a CRL: {0}")]
    Crl(String),
}

impl Sha256 {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut out = [0; 32];
        out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
        Sha256(out)
    }

    /// The digest of certificates one after the other: of one, that of its DER.
    pub fn of_chain<'a, 'der: 'a>(
        chain: impl IntoIterator<Item = &'a CertificateDer<'der>>,
    ) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        chain.into_iter().for_each(|certificate| context.update(certificate));
        let mut out = [0; 32];
        out.copy_from_slice(context.finish().as_ref());
        Sha256(out)
    }

    /// Reads lower-case hexadecimal.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut out = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Sha256(out))
    }

    /// The digest itself.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Bytes in lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A certificate's public key, a SubjectPublicKeyInfo in DER.
pub fn public_key_info(der: &CertificateDer<'_>) -> Result<Vec<u8>, X509Error> {
    let (_, certificate) = X509Certificate::from_der(der)
        .map_err(|error| X509Error::Certificate(error.to_string()))?;
    Ok(certificate.public_key().raw.to_vec())
}

/// The bytes of an even number of hexadecimal digits.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// Every certificate of a PEM text, at least one.
pub fn read_pem(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, X509Error> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| X509Error::Pem(error.to_string()))?;
    if certificates.is_empty() {
        return Err(X509Error::NoCertificate);
    }
    Ok(certificates)
}

/// Certificates as PEM, one after the other.
pub fn write_pem<'a, 'der: 'a>(
    certificates: impl IntoIterator<Item = &'a CertificateDer<'der>>,
) -> String {
    let mut pem = String::new();
    for certificate in certificates {
        push_pem(&mut pem, "CERTIFICATE", certificate);
    }
    pem
}

/// Something public in DER as PEM (RFC 7468), at the end of a text.
pub fn push_pem(text: &mut String, label: &str, der: &[u8]) {
    use base64::Engine;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    text.push_str(&format!("-----BEGIN {label}-----\n"));
    for line in body.as_bytes().chunks(64) {
        text.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
}

/// Reads a leaf, whatever it is; `defect` says where it leaves our profile.
pub fn read_leaf(der: &CertificateDer<'_>) -> Result<Leaf, X509Error> {
    let certificate = parse(der)?;
    let (uris, dns_names) = subject_alternative_names(&certificate);
    Ok(Leaf {
        serial: hex(certificate.raw_serial()).trim_start_matches("00").to_owned(),
        fingerprint: Sha256::of(der),
        not_before: timestamp(certificate.validity().not_before.timestamp()),
        not_after: timestamp(certificate.validity().not_after.timestamp()),
        authority_key_id: authority_key_id(&certificate).unwrap_or_default(),
        algorithm: key_algorithm(&certificate),
        public_key: Sha256::of(certificate.public_key().raw),
        defect: leaf_defect(&certificate, &uris),
        uris,
        dns_names,
    })
}

/// Reads a CA certificate that can sign certificates.
pub fn read_ca(der: &CertificateDer<'_>) -> Result<Ca, X509Error> {
    let certificate = parse(der)?;
    let constraints = certificate.basic_constraints().ok().flatten();
    if !constraints.is_some_and(|constraints| constraints.value.ca) {
        return Err(X509Error::NotCa("basicConstraints does not say CA:TRUE"));
    }
    // One that has no key usage, as some old roots, may do anything (RFC 5280, 4.2.1.3).
    match certificate.key_usage() {
        Ok(usage) if usage.as_ref().is_none_or(|usage| usage.value.key_cert_sign()) => {}
        _ => return Err(X509Error::NotCa("its key usage lacks keyCertSign")),
    }
    let key_id =
        certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(hex(id.0)),
            _ => None,
        });
    Ok(Ca {
        subject: certificate.subject().to_string(),
        fingerprint: Sha256::of(der),
        not_before: timestamp(certificate.validity().not_before.timestamp()),
        not_after: timestamp(certificate.validity().not_after.timestamp()),
        key_id: key_id.ok_or(X509Error::NotCa("it has no subject key id"))?,
        public_key: Sha256::of(certificate.public_key().raw),
    })
}

/// A certificate's subject, as it stands there.
pub fn subject_der(der: &CertificateDer<'_>) -> Result<Vec<u8>, X509Error> {
    Ok(parse(der)?.subject().as_raw().to_vec())
}

/// True if and only if the first certificate was signed with the key of the second.
pub fn is_signed_by(certificate: &CertificateDer<'_>, issuer: &CertificateDer<'_>) -> bool {
    let (Ok(certificate), Ok(issuer)) = (parse(certificate), parse(issuer)) else {
        return false;
    };
    certificate.verify_signature(Some(issuer.public_key())).is_ok()
}

/// Judges a chain, leaf first, against the certificates to trust, as a TLS server and as a TLS
/// client of the given moment would.
pub fn verify_chain(
    chain: &[CertificateDer<'_>],
    roots: &[CertificateDer<'_>],
    at: Timestamp,
) -> Result<(), X509Error> {
    let broken = |error: webpki::Error| X509Error::Chain(error.to_string());
    let (leaf, intermediates) = chain.split_first().ok_or(X509Error::NoCertificate)?;
    let leaf = webpki::EndEntityCert::try_from(leaf).map_err(broken)?;
    let anchors = roots
        .iter()
        .map(|root| webpki::anchor_from_trusted_cert(root).map_err(broken))
        .collect::<Result<Vec<_>, _>>()?;
    let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(
        at.as_second().max(0).unsigned_abs(),
    ));
    for usage in [webpki::KeyUsage::server_auth(), webpki::KeyUsage::client_auth()] {
        leaf.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &anchors,
            intermediates,
            time,
            usage,
            None,
            None,
        )
        .map_err(broken)?;
    }
    Ok(())
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, X509Error> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(X509Error::Certificate("bytes follow it".to_owned())),
        Err(error) => Err(X509Error::Certificate(error.to_string())),
    }
}

fn timestamp(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or(if seconds < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}

fn subject_alternative_names(certificate: &X509Certificate<'_>) -> (Vec<String>, BTreeSet<String>) {
    let mut uris = Vec::new();
    let mut dns_names = BTreeSet::new();
    if let Ok(Some(names)) = certificate.subject_alternative_name() {
        for name in &names.value.general_names {
            match name {
                GeneralName::URI(uri) => uris.push((*uri).to_owned()),
                GeneralName::DNSName(name) => {
                    dns_names.insert((*name).to_owned());
                }
                _ => {}
            }
        }
    }
    (uris, dns_names)
}

fn authority_key_id(certificate: &X509Certificate<'_>) -> Option<String> {
    certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => {
            id.key_identifier.as_ref().map(|id| hex(id.0))
        }
        _ => None,
    })
}

fn key_algorithm(certificate: &X509Certificate<'_>) -> Option<KeyAlgorithm> {
    let key = certificate.public_key();
    if key.algorithm.algorithm == x509_parser::oid_registry::OID_SIG_ED25519 {
        return Some(KeyAlgorithm::Ed25519);
    }
    match key.parsed().ok()? {
        PublicKey::EC(point) => match point.key_size() {
            256 => Some(KeyAlgorithm::EcdsaP256),
            384 => Some(KeyAlgorithm::EcdsaP384),
            _ => None,
        },
        PublicKey::RSA(key) => match key.key_size() {
            2048 => Some(KeyAlgorithm::Rsa2048),
            3072 => Some(KeyAlgorithm::Rsa3072),
            4096 => Some(KeyAlgorithm::Rsa4096),
            _ => None,
        },
        _ => None,
    }
}

fn is_tls_alone(usage: &ExtendedKeyUsage<'_>) -> bool {
    let ExtendedKeyUsage { any, server_auth, client_auth, code_signing, .. } = usage;
    let ExtendedKeyUsage { email_protection, time_stamping, ocsp_signing, other, .. } = usage;
    let is_more = *any || *code_signing || *email_protection || *time_stamping || *ocsp_signing;
    *client_auth && *server_auth && !is_more && other.is_empty()
}

/// X.509-SVID sections 2 to 4, and RFC 5280 where it is stricter.
fn leaf_defect(certificate: &X509Certificate<'_>, uris: &[String]) -> Option<&'static str> {
    if uris.len() != 1 {
        return Some("it must have exactly one URI SAN");
    }
    match certificate.basic_constraints() {
        Ok(None) => {}
        Ok(Some(constraints)) if !constraints.value.ca => {}
        _ => return Some("it must not be a CA"),
    }
    match certificate.key_usage() {
        // digitalSignature is bit 0, and must stand alone.
        Ok(Some(usage)) if usage.critical && usage.value.flags == 1 => {}
        _ => return Some("its key usage must be digitalSignature alone, and critical"),
    }
    let is_other =
        |name: &GeneralName<'_>| !matches!(name, GeneralName::URI(_) | GeneralName::DNSName(_));
    let names = certificate.subject_alternative_name().ok().flatten();
    if names.is_some_and(|names| names.value.general_names.iter().any(is_other)) {
        return Some("its names must be a URI and DNS names");
    }
    match certificate.extended_key_usage() {
        Ok(Some(usage)) if is_tls_alone(usage.value) => None,
        _ => Some("its extended key usage must be clientAuth and serverAuth, and nothing else"),
    }
}
