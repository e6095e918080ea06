//! The issuer's name in what is signed, byte for byte as it stands in the CA's certificate.
//!
//! Verifiers find a CA by comparing names. rcgen reads a CA's name and writes it again, which
//! loses a part that is there twice (`DC=corp, DC=example, DC=com`, as Active Directory names its
//! CAs). So it is made to sign with a name that does not matter, and that is replaced before the
//! real signature.

use rcgen::{KeyIdMethod, PublicKeyData, SignatureAlgorithm, SigningKey};

use super::SignError;
use super::ca_key::SharedKey;
use crate::x509;

/// A CA as the issuer of what it signs.
pub struct ExactIssuer {
    /// Its subject, DER.
    name: Vec<u8>,
    key: SharedKey,
    issuer: rcgen::Issuer<'static, Unsigned>,
}

/// Where the issuer stands among the elements of what is signed (RFC 5280, 4.1 and 5.1).
const IN_CERTIFICATE: usize = 3;
const IN_CRL: usize = 2;

impl ExactIssuer {
    /// The issuer of this certificate, which signs with this key.
    pub fn new(
        certificate: &rustls_pki_types::CertificateDer<'_>,
        key: SharedKey,
    ) -> Result<Self, SignError> {
        let ca = x509::read_ca(certificate)?;
        let mut params = rcgen::CertificateParams::default();
        params.key_identifier_method = KeyIdMethod::PreSpecified(from_hex(&ca.key_id));
        params.key_usages =
            vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
        Ok(ExactIssuer {
            name: x509::subject_der(certificate)?,
            issuer: rcgen::Issuer::new(params, Unsigned(key.clone())),
            key,
        })
    }

    /// Signs a certificate for a public key.
    pub fn sign(
        &self,
        params: rcgen::CertificateParams,
        key: &impl PublicKeyData,
    ) -> Result<Vec<u8>, SignError> {
        let unsigned = params.signed_by(key, &self.issuer).map_err(broken)?;
        self.sign_again(unsigned.der(), IN_CERTIFICATE)
    }

    /// Signs a CRL.
    pub fn sign_crl(
        &self,
        params: rcgen::CertificateRevocationListParams,
    ) -> Result<Vec<u8>, SignError> {
        let unsigned = params.signed_by(&self.issuer).map_err(broken)?;
        self.sign_again(unsigned.der(), IN_CRL)
    }

    /// Puts the name where the issuer stands in what rcgen wrote, and signs that.
    fn sign_again(&self, unsigned: &[u8], issuer_at: usize) -> Result<Vec<u8>, SignError> {
        let malformed = || SignError::Sign("rcgen wrote something that is not signed".to_owned());
        let (content, _) = open(unsigned).ok_or_else(malformed)?;
        let (to_be_signed, rest) = open(content).ok_or_else(malformed)?;
        let (_, after_algorithm) = open(rest).ok_or_else(malformed)?;
        let algorithm = &rest[..rest.len() - after_algorithm.len()];
        let to_be_signed =
            with_element(to_be_signed, issuer_at, &self.name).ok_or_else(malformed)?;
        let signature = self.key.sign(&to_be_signed).map_err(broken)?;
        // A bit string begins with how many bits of its last byte are unused.
        let signature = wrap(0x03, &[&[0], signature.as_slice()].concat());
        Ok(wrap(SEQUENCE, &[to_be_signed.as_slice(), algorithm, &signature].concat()))
    }
}

fn broken(error: rcgen::Error) -> SignError {
    SignError::Sign(error.to_string())
}

/// A key's public half, with signatures of no bytes: what rcgen signs with it is not signed yet.
struct Unsigned(SharedKey);

impl PublicKeyData for Unsigned {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.0.algorithm()
    }
}

impl SigningKey for Unsigned {
    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(Vec::new())
    }
}

const SEQUENCE: u8 = 0x30;

/// A sequence of these elements, of which that at `position` is another.
fn with_element(elements: &[u8], position: usize, other: &[u8]) -> Option<Vec<u8>> {
    let mut rest = elements;
    for _ in 0..position {
        rest = open(rest)?.1;
    }
    let before = &elements[..elements.len() - rest.len()];
    let (_, after) = open(rest)?;
    Some(wrap(SEQUENCE, &[before, other, after].concat()))
}

/// The content of the first element, and what follows it.
fn open(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (_, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        _ => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
    };
    rest.split_at_checked(length)
}

/// An element of this tag and content.
fn wrap(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut der = vec![tag];
    match u8::try_from(content.len()) {
        Ok(length @ 0..=0x7f) => der.push(length),
        _ => {
            let bytes = content.len().to_be_bytes();
            let bytes = &bytes[bytes.iter().position(|byte| *byte != 0).unwrap_or_default()..];
            der.push(0x80 | u8::try_from(bytes.len()).unwrap_or_default());
            der.extend(bytes);
        }
    }
    der.extend(content);
    der
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    text.as_bytes().chunks(2).filter_map(digits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_of_any_length_are_read_back() {
        for length in [0, 1, 127, 128, 255, 256, 65_535, 65_536] {
            let content = vec![7; length];
            let mut der = wrap(0x04, &content);
            der.push(9);
            assert_eq!(open(&der), Some((content.as_slice(), &[9][..])), "{length}");
        }
        assert_eq!(open(&[0x30, 0x82, 0x01]), None);
        assert_eq!(from_hex("00ff1a"), [0, 255, 26]);
    }
}
