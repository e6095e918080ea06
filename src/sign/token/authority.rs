//! Leaves signed by a key in a token, on threads that nobody waits for.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rcgen::PublicKeyData;
use rustls_pki_types::CertificateDer;

use super::{TokenError, TokenKey};
use crate::decide::LeafProfile;
use crate::sign::issuer_name::ExactIssuer;
use crate::sign::{Authority, Chain, PrivateKey, SharedKey, SignError, profile};

/// A signature is made within milliseconds, or within seconds where others wait before it. Whoever
/// waits longer is better off with an error that says so.
const SIGNING: Duration = Duration::from_secs(60);

/// An issuing CA whose key is in a token.
pub struct TokenAuthority {
    chain: Chain,
    key: TokenKey,
    issuer: Arc<ExactIssuer>,
}

impl TokenAuthority {
    /// Takes up a CA whose chain and key have been found to agree.
    ///
    /// # Errors
    /// When the CA's certificate cannot be read.
    pub fn new(chain: Chain, key: TokenKey) -> Result<Self, SignError> {
        let issuer = ExactIssuer::new(&chain.issuer, SharedKey::new(key.clone()))?;
        Ok(TokenAuthority { chain, key, issuer: Arc::new(issuer) })
    }
}

#[async_trait]
impl Authority for TokenAuthority {
    fn chain(&self) -> &Chain {
        &self.chain
    }

    async fn sign(
        &self,
        profile: &LeafProfile,
        key: &PrivateKey,
    ) -> Result<CertificateDer<'static>, SignError> {
        let params = profile::leaf(profile)?;
        let public = rcgen::SubjectPublicKeyInfo::from_der(&key.pair().subject_public_key_info())
            .map_err(|error| SignError::Sign(error.to_string()))?;
        let (issuer, signer) = (self.issuer.clone(), self.key.clone());
        let sign = move || {
            issuer.sign(params, &public).map_err(|error| {
                let label = signer.reference().token.label.clone();
                signer.failure().unwrap_or(TokenError::Refused { label, why: error.to_string() })
            })
        };
        let label = &self.key.reference().token.label;
        Ok(blocking(label, SIGNING, sign).await?.into())
    }
}

/// Does what blocks on a thread for that, and does not wait for ever. What was given up goes on,
/// and holds one of the token's sessions, of which there are few: no more threads hang than that.
///
/// # Errors
/// What the work fails of, and [`TokenError::Busy`] where it takes longer than `patience`.
pub async fn blocking<T: Send + 'static>(
    label: &str,
    patience: Duration,
    work: impl FnOnce() -> Result<T, TokenError> + Send + 'static,
) -> Result<T, TokenError> {
    let label = || label.to_owned();
    match tokio::time::timeout(patience, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => Err(TokenError::Gone { label: label(), why: panic.to_string() }),
        Err(_) => Err(TokenError::Busy { label: label(), seconds: patience.as_secs() }),
    }
}
