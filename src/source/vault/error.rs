//! What Vault does not do, and what each of it means for a TrustDomain.

use std::time::Duration;

use crate::api::conditions::Reason;
use crate::source::files::FileError;
use crate::source::{SourceError, Unavailable};

/// Why Vault gave nothing. The texts say what to do next, without a stop at the end.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum VaultError {
    #[error("{0}")]
    Setting(String),
    #[error("Vault at {server} cannot be reached: {why}")]
    Unreachable { server: String, why: String },
    #[error(
        "Vault at {server} does not prove who it is ({why}): see that the CA certificates which the spec names are those of its certificate, and that this is for the host in vault.server"
    )]
    Untrusted { server: String, why: String },
    #[error("Vault at {server} is sealed or has no active node ({said}): unseal it")]
    Sealed { server: String, said: String },
    #[error(
        "Vault at {server} is a standby that sends others to {to}: let vault.server be an address that leads to the active node"
    )]
    Standby { server: String, to: String },
    #[error("Vault refused the login at {path} ({said}): {next}")]
    LoginRefused { path: String, said: String, next: &'static str },
    #[error(
        "Vault refused {path} ({said}): see that mount, issuer and role are there, and that the policy of the operator's token allows `update` on that path"
    )]
    Denied { path: String, said: String },
    #[error("Vault refused what was asked at {path} ({said}): see that the role allows it")]
    NotAllowed { path: String, said: String },
    #[error("Vault asks for fewer requests ({said}): nothing is asked of it for {}s", .pause.as_secs())]
    RateLimited { said: String, pause: Duration },
    #[error("Vault failed at {path} ({status}: {said})")]
    Failed { path: String, status: u16, said: String },
    #[error("the answer of Vault to {path} cannot be read: {why}")]
    Answer { path: String, why: String },
    #[error("{0}")]
    Unusable(String),
}

impl VaultError {
    fn reason(&self) -> Reason {
        match self {
            VaultError::Setting(_)
            | VaultError::Unreachable { .. }
            | VaultError::Failed { .. }
            | VaultError::Answer { .. } => Reason::AuthorityUnavailable,
            VaultError::Untrusted { .. } => Reason::AuthorityUntrusted,
            VaultError::Sealed { .. } | VaultError::Standby { .. } => Reason::AuthoritySealed,
            VaultError::LoginRefused { .. } => Reason::AuthorityLoginRefused,
            VaultError::Denied { .. } | VaultError::NotAllowed { .. } => Reason::AuthorityDenied,
            VaultError::RateLimited { .. } => Reason::AuthorityRateLimited,
            VaultError::Unusable(_) => Reason::CaRefused,
        }
    }
}

impl From<FileError> for VaultError {
    fn from(error: FileError) -> Self {
        VaultError::Setting(error.to_string())
    }
}

impl From<VaultError> for Unavailable {
    fn from(error: VaultError) -> Self {
        Unavailable { reason: error.reason(), message: error.to_string() }
    }
}

impl From<VaultError> for SourceError {
    fn from(error: VaultError) -> Self {
        SourceError::Withheld(error.into())
    }
}
