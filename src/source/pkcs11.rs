//! `pkcs11`: as `selfSigned`, with CA keys that are made in a token (an HSM, a TPM) and stay there.
//!
//! A CA's Secret holds a reference to its key, a PKCS#11 URI, in place of the key. Everything else
//! about it is as it is for any CA, so that rotation, retiring and recovery are what they are. A
//! key that is made, and of which a crash lets no Secret tell, is found by its id when the same CA
//! is made again; a key goes before its Secret does.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use kube::Client;

use super::{CaSource, Making, SourceError, Unavailable};
use crate::api::conditions::Reason;
use crate::decide::slots::Supply;
use crate::identity::{Domain, TokenAddress};
use crate::sign::token::{KeyId, KeyReference, Pin, Token, TokenError, TokenKey, blocking};
use crate::sign::{Authority, Chain, SharedKey, SignError, Slot};
use crate::wire::{self, WireError};

/// A look at a token takes milliseconds, or seconds where others wait before it.
const LOOKING: Duration = Duration::from_secs(60);
/// A key may take minutes: a small token makes an RSA key by trial.
const MAKING: Duration = Duration::from_secs(300);

/// A token, by its address.
pub struct Pkcs11Source {
    pub client: Client,
    /// The operator's own, where the PIN is.
    pub namespace: String,
    pub address: TokenAddress,
    /// The key that signs leaves now, which a look at the token tries out.
    signer: Mutex<Option<TokenKey>>,
}

/// Why a token cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Pkcs11Error {
    #[error("Secret {0}, which is to hold the token's PIN, could not be read: {1}")]
    Unread(String, WireError),
    #[error("there is no Secret {0}: put the token's user PIN there, in the file {1}")]
    NoSecret(String, String),
    #[error("Secret {0} has no usable PIN in the file {1}: {2}")]
    Pin(String, String, String),
    #[error(transparent)]
    Token(#[from] TokenError),
}

impl Pkcs11Source {
    /// The token of this address.
    pub fn new(client: Client, namespace: String, address: TokenAddress) -> Self {
        Pkcs11Source { client, namespace, address, signer: Mutex::default() }
    }

    fn signer(&self) -> std::sync::MutexGuard<'_, Option<TokenKey>> {
        self.signer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl CaSource for Pkcs11Source {
    /// Opens the token, and has the key that signs now sign something.
    async fn supply(&self, _: &Domain, _: Timestamp) -> Result<Supply, Unavailable> {
        let signer = self.signer().clone();
        let token = open(&self.client, &self.namespace, &self.address).await?;
        let look = move || {
            token.check()?;
            signer.map_or(Ok(()), |signer| signer.find())
        };
        blocking(&self.address.label, LOOKING, look).await.map_err(Pkcs11Error::from)?;
        Ok(Supply::Made)
    }

    async fn make(&self, making: Making<'_>) -> Result<Slot, SourceError> {
        let Making { domain, order, parent, now } = making;
        let unavailable = |error: Pkcs11Error| SourceError::Unavailable(error.to_string());
        let token =
            open(&self.client, &self.namespace, &self.address).await.map_err(unavailable)?;
        let (domain, order) = (domain.clone(), order.clone());
        let making = move || {
            let id = KeyId::of(&domain.uid, &order.name);
            let key = SharedKey::new(token.make_key(&id, &order.name, domain.ca.algorithm)?);
            Ok(Slot::make_with(key, &domain, &order, parent.as_ref(), now))
        };
        let made = blocking(&self.address.label, MAKING, making).await;
        Ok(made.map_err(|error| unavailable(error.into()))??)
    }

    fn authority(&self, chain: Chain, issuing: Slot) -> Result<Box<dyn Authority>, SignError> {
        *self.signer() = issuing.key.as_ref().and_then(SharedKey::in_token).cloned();
        super::signing_with(chain, issuing)
    }

    fn is_asked_for_every_leaf(&self) -> bool {
        true
    }
}

/// Destroys the key of a CA that nothing needs any more.
///
/// # Errors
/// When the token cannot be asked. The CA's Secret is to stay until it can: it alone tells of the
/// key.
pub async fn destroy(
    client: &Client,
    namespace: &str,
    reference: &KeyReference,
) -> Result<(), Pkcs11Error> {
    let token = open(client, namespace, &reference.token).await?;
    let id = reference.id.clone();
    let count = blocking(&reference.token.label, LOOKING, move || token.destroy_key(&id)).await?;
    tracing::info!(
        token = reference.token.label,
        key = reference.name,
        count,
        "destroyed in the token"
    );
    Ok(())
}

/// Destroys what a token still holds for CAs of this TrustDomain, but for those of these names. That
/// is at most a key of which a crash, or a refusal, let no Secret tell.
///
/// # Errors
/// When the token cannot be asked.
pub async fn sweep(
    client: &Client,
    namespace: &str,
    address: &TokenAddress,
    trust_domain_uid: &str,
    kept: Vec<String>,
) -> Result<(), Pkcs11Error> {
    let token = open(client, namespace, address).await?;
    let uid = trust_domain_uid.to_owned();
    let count = blocking(&address.label, LOOKING, move || token.sweep(&uid, &kept)).await?;
    if count > 0 {
        tracing::info!(token = address.label, count, "what no CA needs is destroyed in the token");
    }
    Ok(())
}

async fn open(
    client: &Client,
    namespace: &str,
    address: &TokenAddress,
) -> Result<Token, Pkcs11Error> {
    let TokenAddress { pin_secret, pin_key, .. } = address;
    let place = format!("{namespace}/{pin_secret}");
    let secret = wire::get_secret(client, namespace, pin_secret)
        .await
        .map_err(|error| Pkcs11Error::Unread(place.clone(), error))?
        .ok_or_else(|| Pkcs11Error::NoSecret(place.clone(), pin_key.clone()))?;
    let wrong = |why: String| Pkcs11Error::Pin(place.clone(), pin_key.clone(), why);
    let pin = secret.data.get(pin_key).ok_or_else(|| wrong("there is no such file".to_owned()))?;
    let pin = Pin::read(pin).map_err(|error| wrong(error.to_string()))?;
    let address = address.clone();
    let label = address.label.clone();
    Ok(blocking(&label, LOOKING, move || Token::new(address, pin)).await?)
}

impl From<Pkcs11Error> for Unavailable {
    fn from(error: Pkcs11Error) -> Self {
        let is_absence = match &error {
            Pkcs11Error::Token(error) => error.is_absence(),
            _ => true,
        };
        let reason = match is_absence {
            true => Reason::AuthorityUnavailable,
            false => Reason::TokenRefused,
        };
        Unavailable { reason, message: error.to_string() }
    }
}
