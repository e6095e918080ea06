//! Keys and signatures. No client here: what is signed is handed on, whole and verified.
//!
//! The only user of randomness.

pub mod authority;
pub mod ca_key;
pub mod crl;
pub mod forge;
pub mod formats;
pub mod import;
pub mod issuer_name;
pub mod key;
pub mod profile;
pub mod request;
pub mod slot;
pub mod token;

use jiff::Timestamp;

use crate::api::conditions::IssueReason;
use crate::decide::schedule::ELSEWHERE_LEEWAY;
use crate::decide::{IssueOrder, LeafProfile};
use crate::identity::Identity;
use crate::x509::{self, Leaf, Sha256, X509Error};

pub use authority::{Authority, Chain, LocalAuthority, Retirable};
pub use ca_key::{CaKey, SharedKey};
pub use formats::Files;
pub use import::{ForeignIssuer, Imported, Refusal};
pub use key::{KeyError, PrivateKey};
pub use slot::{KeptKey, Slot};
pub use token::TokenError;

/// A certificate that has been signed, verified, and not been written anywhere yet.
#[derive(Debug)]
pub struct Prepared {
    pub reason: IssueReason,
    pub leaf: Leaf,
    /// SHA-256 of the chain above it, up to but without the root.
    pub issuer: Sha256,
    /// SHA-256 of `ca.crt`.
    pub bundle: Sha256,
    pub files: Files,
}

/// Why nothing was signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("the signature could not be made: {0}")]
    Sign(String),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("the system gave no random bytes")]
    Random,
    #[error("the key store could not be written: {0}")]
    KeyStore(String),
    #[error("the operator does not have the CA's key")]
    NoKey,
    #[error("the key is not the certificate's")]
    KeyMismatch,
    #[error("the CA changed since the decision; the next one will use the new CA")]
    OtherAuthority,
    #[error("what was signed does not hold and was thrown away: {0}")]
    Unsound(String),
    /// Of an authority that is another program.
    #[error("{0}")]
    Elsewhere(String),
    #[error("the authority has as much to do as it can take")]
    Busy,
    #[error(transparent)]
    X509(#[from] X509Error),
}

/// Signs what was ordered for a new key, and judges it as a peer would before handing it on.
pub async fn sign(
    authority: &dyn Authority,
    identity: &Identity,
    order: &IssueOrder,
    key: PrivateKey,
    now: Timestamp,
) -> Result<Prepared, SignError> {
    let chain = authority.chain();
    if chain.facts.issuer != order.profile.issuer {
        return Err(SignError::OtherAuthority);
    }
    let certificate = authority.sign(&order.profile, &key).await?;
    let leaf = x509::read_leaf(&certificate)?;
    let presented = chain.presented_with(certificate);
    x509::verify_chain(&presented, &chain.roots, now)?;
    judge(&leaf, &order.profile, &key, chain.facts.signs_elsewhere)?;
    let files = formats::render(&presented, &key, &chain.bundle_pem, &identity.formats)?;
    Ok(Prepared {
        reason: order.reason,
        leaf,
        issuer: chain.facts.issuer,
        bundle: chain.facts.bundle,
        files,
    })
}

/// Sees that a leaf says what was ordered, and nothing else.
fn judge(
    leaf: &Leaf,
    profile: &LeafProfile,
    key: &PrivateKey,
    is_from_elsewhere: bool,
) -> Result<(), SignError> {
    let begins_as_ordered = match is_from_elsewhere {
        true => leaf.not_before.duration_since(profile.not_before).abs() <= ELSEWHERE_LEEWAY,
        false => leaf.not_before == profile.not_before,
    };
    let unsound = |what: &str| Err(SignError::Unsound(what.to_owned()));
    if let Some(defect) = leaf.defect {
        unsound(defect)
    } else if leaf.public_key != key.public_key() {
        unsound("it is for another key")
    } else if !is_from_elsewhere && leaf.serial != profile.serial.to_string() {
        unsound("its serial number is another")
    } else if leaf.uris != [profile.spiffe_id.as_str()] || leaf.dns_names != profile.dns_names {
        unsound("it names somebody else")
    } else if !begins_as_ordered || leaf.not_after != profile.not_after {
        unsound("its life is another")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
