//! Where CAs come from: one trait, a file for each kind of `spec.authority`.
//!
//! A source has a client where it needs one. What it brings becomes a slot like any other, so
//! that everything after it (who holds the bundle, what signs, what is still trusted) is the same
//! for every kind, and decided in [`crate::decide::slots`] alone. docs/authorities.md says how to
//! add a kind.

pub mod cert_manager;
pub mod files;
pub mod https;
pub mod pkcs11;
pub mod remote;
pub mod secret;
pub mod self_signed;
pub mod vault;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use kube::Client;

use crate::api::conditions::Reason;
use crate::decide::crl::CrlOrder;
use crate::decide::slots::{SlotOrder, Supply};
use crate::identity::{AuthoritySource, Domain};
use crate::sign::token::TokenAuthority;
use crate::sign::{Authority, Chain, LocalAuthority, SignError, Slot};

/// An authority, as the operator deals with it.
#[async_trait]
pub trait CaSource: Send + Sync {
    /// What it has to give now. It is asked again when its Secret changes, after a while, and
    /// after a pause that doubles where it failed.
    ///
    /// # Errors
    /// When it cannot be reached, or what it has cannot be used. What it gave before goes on.
    async fn supply(&self, domain: &Domain, now: Timestamp) -> Result<Supply, Unavailable>;

    /// The CA that was ordered: made, or taken over.
    ///
    /// # Errors
    /// When it cannot be had now. The order comes again.
    async fn make(&self, making: Making<'_>) -> Result<Slot, SourceError>;

    /// What signs leaves with an issuing CA that it gave. By default the operator itself, with
    /// the key that it has.
    ///
    /// # Errors
    /// When the CA has no key that can sign.
    fn authority(&self, chain: Chain, issuing: Slot) -> Result<Box<dyn Authority>, SignError> {
        signing_with(chain, issuing)
    }

    /// True if and only if it is another program, which may let one wait: it is asked in the background.
    fn is_far_away(&self) -> bool {
        false
    }

    /// True if and only if every signature is asked of it. So it is looked at now and then though it
    /// gives what it is to give, and nothing is signed while it does not.
    fn is_asked_for_every_leaf(&self) -> bool {
        false
    }

    /// True if and only if something happened, since this was asked last, for which it is to be asked
    /// what it has to give though it is not time yet.
    fn has_news(&self) -> bool {
        false
    }

    /// The CRL of an issuing CA whose key it keeps, in DER, once everything that is ordered stands on
    /// it; None where it has none to give.
    ///
    /// # Errors
    /// When it could not be asked, or has not revoked what it was to.
    async fn crl(&self, _: &Slot, _: &CrlOrder) -> Result<Option<Vec<u8>>, Unavailable> {
        Ok(None)
    }

    /// For how long it has asked to be left alone, where it has.
    fn asks_for_time(&self) -> Option<Duration> {
        None
    }
}

/// What signs leaves with the key of an issuing CA, wherever that is.
fn signing_with(chain: Chain, issuing: Slot) -> Result<Box<dyn Authority>, SignError> {
    let key = issuing.key.ok_or(SignError::NoKey)?;
    Ok(match key.in_token() {
        Some(key) => Box::new(TokenAuthority::new(chain, key.clone())?),
        None => Box::new(LocalAuthority::new(chain, key)?),
    })
}

/// A CA that is ordered.
pub struct Making<'a> {
    pub domain: &'a Domain,
    pub order: &'a SlotOrder,
    /// The root that is to sign it, where the order names one.
    pub parent: Option<Slot>,
    pub now: Timestamp,
}

/// Why an authority gives nothing now: what `Ready` says.
#[derive(Clone, Debug, PartialEq)]
pub struct Unavailable {
    pub reason: Reason,
    /// What is wrong and what to do, without a stop at the end.
    pub message: String,
}

/// Why a CA that was ordered could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("the CA could not be made: {0}")]
    Sign(#[from] SignError),
    #[error("the authority gave no CA: {0}")]
    Unavailable(String),
    #[error("the authority gave no CA: {}", .0.message)]
    Withheld(Unavailable),
    #[error(
        "the key of {name} could not be destroyed ({why}): it is tried again; to leave the key where it is, delete that Secret"
    )]
    KeyStays { name: String, why: String },
    #[error("the authority's CA is another than a moment ago: it is asked again")]
    Changed,
}

/// The source of a trust domain's CAs.
pub fn of(authority: &AuthoritySource, client: &Client, namespace: &str) -> Arc<dyn CaSource> {
    match authority {
        AuthoritySource::SelfSigned => Arc::new(self_signed::SelfSigned),
        AuthoritySource::Vault(address) => {
            let address = (**address).clone();
            Arc::new(vault::VaultSource::new(client.clone(), namespace.to_owned(), address))
        }
        AuthoritySource::Pkcs11(address) => Arc::new(pkcs11::Pkcs11Source::new(
            client.clone(),
            namespace.to_owned(),
            address.clone(),
        )),
        AuthoritySource::CertManager(issuer) => Arc::new(cert_manager::CertManagerSource::new(
            client.clone(),
            namespace.to_owned(),
            issuer.clone(),
        )),
        AuthoritySource::Remote(_) => Arc::new(remote::NoCa),
        AuthoritySource::Secret { name } => Arc::new(secret::SecretSource {
            client: client.clone(),
            namespace: namespace.to_owned(),
            name: name.clone(),
        }),
    }
}
