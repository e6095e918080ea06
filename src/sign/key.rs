//! Private keys: a type that prints nothing and clears itself.

use std::fmt;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::signature::EcdsaKeyPair;
use base64::Engine;
use rcgen::{KeyPair, PublicKeyData, RsaKeySize};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::{Zeroize, Zeroizing};

use crate::api::{CaKeyAlgorithm, KeyAlgorithm};
use crate::x509::Sha256;

/// A private key, for as short a time as possible.
pub struct PrivateKey(KeyPair);

/// A key that could not be made or read. Carries no key material.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("the key could not be made: {0}")]
    Generate(String),
    #[error("the key cannot be read: {0}")]
    Read(String),
}

impl PrivateKey {
    /// Makes a key for a leaf. RSA takes from a tenth of a second to seconds: not on a thread
    /// that others wait for.
    pub fn generate(algorithm: KeyAlgorithm) -> Result<Self, KeyError> {
        let pair = match algorithm {
            KeyAlgorithm::EcdsaP256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
            KeyAlgorithm::EcdsaP384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
            KeyAlgorithm::Ed25519 => ed25519(),
            KeyAlgorithm::Rsa2048 => rsa(RsaKeySize::_2048),
            KeyAlgorithm::Rsa3072 => rsa(RsaKeySize::_3072),
            KeyAlgorithm::Rsa4096 => rsa(RsaKeySize::_4096),
        };
        pair.map(PrivateKey).map_err(|error| KeyError::Generate(error.to_string()))
    }

    /// Makes a key for a CA.
    pub fn generate_for_ca(algorithm: CaKeyAlgorithm) -> Result<Self, KeyError> {
        PrivateKey::generate(match algorithm {
            CaKeyAlgorithm::EcdsaP256 => KeyAlgorithm::EcdsaP256,
            CaKeyAlgorithm::EcdsaP384 => KeyAlgorithm::EcdsaP384,
            CaKeyAlgorithm::Rsa3072 => KeyAlgorithm::Rsa3072,
            CaKeyAlgorithm::Rsa4096 => KeyAlgorithm::Rsa4096,
        })
    }

    /// Reads a key that somebody else made, in any of the three forms that OpenSSL writes
    /// (PKCS#8, and those of RSA and of elliptic curves alone), and holds it as PKCS#8.
    pub fn from_foreign_der(key: &PrivateKeyDer<'_>) -> Result<Self, KeyError> {
        let read = |error: rcgen::Error| KeyError::Read(error.to_string());
        let pair = KeyPair::try_from(key).map_err(read)?;
        if matches!(key, PrivateKeyDer::Pkcs8(_)) {
            return Ok(PrivateKey(pair));
        }
        let unreadable = |_| KeyError::Read("it is neither RSA nor ECDSA".to_owned());
        let algorithm = rcgen::PublicKeyData::algorithm(&pair);
        let pkcs8 = Zeroizing::new(match key {
            PrivateKeyDer::Pkcs1(key) => {
                let pair = aws_lc_rs::rsa::KeyPair::from_der(key.secret_pkcs1_der())
                    .map_err(|error| KeyError::Read(error.to_string()))?;
                AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).map_err(unreadable)?.as_ref().to_vec()
            }
            PrivateKeyDer::Sec1(key) => {
                let curve = if *algorithm == rcgen::PKCS_ECDSA_P384_SHA384 {
                    &aws_lc_rs::signature::ECDSA_P384_SHA384_ASN1_SIGNING
                } else {
                    &aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1_SIGNING
                };
                let key = key.secret_sec1_der();
                let pair = EcdsaKeyPair::from_private_key_der(curve, key)
                    .map_err(|error| KeyError::Read(error.to_string()))?;
                pair.to_pkcs8v1().map_err(unreadable)?.as_ref().to_vec()
            }
            _ => return Err(KeyError::Read("it is in a form that is not known".to_owned())),
        });
        let pkcs8 = PrivatePkcs8KeyDer::from(pkcs8.as_slice());
        KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, algorithm).map(PrivateKey).map_err(read)
    }

    /// Reads a PKCS#8 key in PEM.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let text = std::str::from_utf8(pem).map_err(|error| KeyError::Read(error.to_string()))?;
        KeyPair::from_pem(text).map(PrivateKey).map_err(|error| KeyError::Read(error.to_string()))
    }

    /// True if and only if making such a key takes long enough to keep others waiting.
    pub fn is_slow_to_make(algorithm: KeyAlgorithm) -> bool {
        matches!(algorithm, KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096)
    }

    /// The key in PKCS#8 PEM. Written here because rcgen's own PEM text is not cleared.
    pub fn to_pem(&self) -> Zeroizing<String> {
        let der = self.0.serialized_der();
        let text = Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(der));
        // Room for everything at once: a text that grows leaves copies behind.
        let mut pem = Zeroizing::new(String::with_capacity(text.len() + text.len() / 64 + 80));
        pem.push_str("-----BEGIN PRIVATE KEY-----\n");
        for line in text.as_bytes().chunks(64) {
            pem.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
            pem.push('\n');
        }
        pem.push_str("-----END PRIVATE KEY-----\n");
        pem
    }

    /// The key in PKCS#8 DER.
    pub fn as_der(&self) -> &[u8] {
        self.0.serialized_der()
    }

    /// SHA-256 of the public key (SubjectPublicKeyInfo).
    pub fn public_key(&self) -> Sha256 {
        Sha256::of(&self.0.subject_public_key_info())
    }

    /// The pair as rcgen takes it.
    pub(super) fn pair(&self) -> &KeyPair {
        &self.0
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[private key]")
    }
}

impl Drop for PrivateKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

fn rsa(size: RsaKeySize) -> Result<KeyPair, rcgen::Error> {
    KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size)
}

/// A key in version 1 of PKCS#8 (RFC 8410, section 7): OpenSSL 3.0, and with it nginx and Python,
/// does not read version 2, in which rcgen and aws-lc-rs would write it.
fn ed25519() -> Result<KeyPair, rcgen::Error> {
    let mut der = Zeroizing::new([0; ED25519_HEADER.len() + 32]);
    let (header, seed) = der.split_at_mut(ED25519_HEADER.len());
    header.copy_from_slice(&ED25519_HEADER);
    aws_lc_rs::rand::fill(seed).map_err(|_| rcgen::Error::RingUnspecified)?;
    let der = PrivatePkcs8KeyDer::from(der.as_slice());
    KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_ED25519)
}

/// PrivateKeyInfo, version 0, id-Ed25519, an octet string within an octet string of 32 bytes.
const ED25519_HEADER: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_back_and_never_printed() {
        for algorithm in [KeyAlgorithm::EcdsaP256, KeyAlgorithm::EcdsaP384, KeyAlgorithm::Ed25519] {
            let key = PrivateKey::generate(algorithm).unwrap();
            let again = PrivateKey::from_pem(key.to_pem().as_bytes()).unwrap();
            assert_eq!(key.public_key(), again.public_key());
            assert_eq!(format!("{key:?}"), "[private key]");
        }
    }

    #[test]
    fn what_is_no_key_is_refused_without_a_word_of_it() {
        for text in
            ["", "secret", "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"]
        {
            let error = PrivateKey::from_pem(text.as_bytes()).unwrap_err();
            assert!(!error.to_string().contains("c2VjcmV0"), "{error}");
        }
    }
}
