//! A CA's private key: one small trait, so that it may lie in this program's memory or elsewhere.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::SignError;
use super::key::PrivateKey;
use super::token::TokenKey;
use crate::api::names::TLS_KEY;

/// A CA's private key. `rcgen`'s traits make it sign, and show its public half.
pub trait CaKey: rcgen::SigningKey + Send + Sync {
    /// What the CA's Secret keeps of it: a file's name, and its content. The key itself, or what
    /// is needed to find it again.
    fn kept(&self) -> (&'static str, Zeroizing<Vec<u8>>);

    /// The key, where it is in a token: it signs slowly, and tells why where it does not.
    fn in_token(&self) -> Option<&TokenKey> {
        None
    }
}

/// A CA's key, shared by those who sign with it. It prints nothing.
#[derive(Clone)]
pub struct SharedKey(Arc<dyn CaKey>);

impl SharedKey {
    /// Shares a key.
    pub fn new(key: impl CaKey + 'static) -> Self {
        SharedKey(Arc::new(key))
    }

    /// What the CA's Secret keeps of it.
    pub fn kept(&self) -> (&'static str, Zeroizing<Vec<u8>>) {
        self.0.kept()
    }

    /// The key, where it is in a token.
    pub fn in_token(&self) -> Option<&TokenKey> {
        self.0.in_token()
    }

    /// What an error of a signature with this key means.
    pub fn why(&self, error: &rcgen::Error) -> SignError {
        let failure = self.in_token().and_then(TokenKey::failure);
        failure.map_or_else(|| SignError::Sign(error.to_string()), SignError::Token)
    }

    /// SHA-256 of the public key (SubjectPublicKeyInfo).
    pub fn public_key(&self) -> crate::x509::Sha256 {
        crate::x509::Sha256::of(&rcgen::PublicKeyData::subject_public_key_info(self))
    }
}

impl fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[private key]")
    }
}

impl rcgen::PublicKeyData for SharedKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.0.algorithm()
    }
}

impl rcgen::SigningKey for SharedKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign(message)
    }
}

impl rcgen::PublicKeyData for PrivateKey {
    fn der_bytes(&self) -> &[u8] {
        self.pair().der_bytes()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        rcgen::PublicKeyData::algorithm(self.pair())
    }
}

impl rcgen::SigningKey for PrivateKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.pair().sign(message)
    }
}

/// The key itself: it lies in the Secret.
impl CaKey for PrivateKey {
    fn kept(&self) -> (&'static str, Zeroizing<Vec<u8>>) {
        (TLS_KEY, Zeroizing::new(self.to_pem().as_bytes().to_vec()))
    }
}
