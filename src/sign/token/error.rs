//! What can be wrong with a token, and what to do about each.

use cryptoki::error::{Error as Pkcs11Error, RvError};

use super::KeyId;

/// What kept a token from doing what it was asked. Carries neither PIN nor key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error(
        "the PKCS#11 module {module} cannot be loaded ({why}): mount it, and the libraries that it needs, into the operator's pod, or correct authority.pkcs11.module"
    )]
    Module { module: String, why: String },
    #[error(
        "no token is labelled {label:?}; the module {module} sees {seen}: plug it in, or correct authority.pkcs11.tokenLabel"
    )]
    NoToken { label: String, module: String, seen: String },
    #[error(
        "{count} tokens are labelled {label:?}, and keys made in one would be looked for in the other: give one of them another label"
    )]
    TwoTokens { label: String, count: usize },
    #[error(
        "the token {label:?} refuses the PIN, and it is not tried again, since a token locks itself after a few wrong tries: put the right user PIN into the Secret (or, where the token's PIN was changed to what is in the Secret, restart the operator)"
    )]
    PinIncorrect { label: String },
    #[error(
        "the token {label:?} is locked after too many wrong PINs: have its security officer unlock it, and then restart the operator"
    )]
    PinLocked { label: String },
    #[error(
        "the token {label:?} has seen wrong PINs and locks itself at the next one, so it is not tried: log in once by hand with the right PIN (pkcs11-tool --login --test), and then restart the operator"
    )]
    LastTry { label: String },
    #[error(
        "the token {label:?} has not been opened since the operator began: see whether its TrustDomain is Ready"
    )]
    Closed { label: String },
    #[error(
        "the token {label:?} does not answer ({why}): see that it is plugged in, reachable and powered"
    )]
    Gone { label: String, why: String },
    #[error(
        "the token {label:?} has not finished what it was asked before within {seconds} s: see how busy it is"
    )]
    Busy { label: String, seconds: u64 },
    #[error(
        "the token {label:?} has no room for another key ({why}): remove keys that nobody needs"
    )]
    Full { label: String, why: String },
    #[error(
        "the token {label:?} lets nobody write ({why}): a CA key cannot be made or destroyed in it"
    )]
    ReadOnly { label: String, why: String },
    #[error(
        "the token {label:?} cannot make or use such a key ({why}): choose another ca.keyAlgorithm; `pkcs11-tool --list-mechanisms` says what it can"
    )]
    Unsupported { label: String, why: String },
    #[error(
        "the token {label:?} holds no private key with the id {id} that is the certificate's: restore the token from its backup, or replace the CA with `kubectl countersign rotate-ca`"
    )]
    KeyMissing { label: String, id: KeyId },
    #[error("the certificate's key is of no kind that is signed with in a token: {0}")]
    Algorithm(String),
    #[error("the token {label:?} refused ({why})")]
    Refused { label: String, why: String },
}

impl TokenError {
    /// True if and only if the token may do it later, without anybody changing anything in the
    /// cluster.
    pub fn is_absence(&self) -> bool {
        use TokenError::{Busy, Closed, Gone, Module, NoToken};
        matches!(self, Module { .. } | NoToken { .. } | Closed { .. } | Gone { .. } | Busy { .. })
    }
}

/// What went wrong while a session was used.
pub(super) enum Fault {
    Pkcs11(Pkcs11Error),
    Token(TokenError),
}

impl Fault {
    /// True if and only if a new session, with a module that was started again, may fare better.
    pub(super) fn is_of_session(&self) -> bool {
        match self {
            // A token that was taken out while we were logged in shows no keys, without a complaint.
            Fault::Token(error) => {
                matches!(error, TokenError::NoToken { .. } | TokenError::KeyMissing { .. })
            }
            Fault::Pkcs11(Pkcs11Error::Pkcs11(code, _)) => !is_of_request(*code),
            Fault::Pkcs11(_) => false,
        }
    }

    /// What it means for the token of this label.
    pub(super) fn of(self, label: &str) -> TokenError {
        let error = match self {
            Fault::Token(error) => return error,
            Fault::Pkcs11(error) => error,
        };
        let (label, why) = (label.to_owned(), error.to_string());
        let Pkcs11Error::Pkcs11(code, _) = error else {
            return TokenError::Refused { label, why };
        };
        match code {
            RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange => {
                TokenError::PinIncorrect { label }
            }
            RvError::PinLocked => TokenError::PinLocked { label },
            RvError::DeviceMemory => TokenError::Full { label, why },
            RvError::TokenWriteProtected | RvError::SessionReadOnly => {
                TokenError::ReadOnly { label, why }
            }
            RvError::MechanismInvalid
            | RvError::MechanismParamInvalid
            | RvError::KeySizeRange
            | RvError::CurveNotSupported
            | RvError::DomainParamsInvalid
            | RvError::AttributeTypeInvalid
            | RvError::AttributeValueInvalid
            | RvError::TemplateInconsistent
            | RvError::FunctionNotSupported => TokenError::Unsupported { label, why },
            code if is_of_request(code) => TokenError::Refused { label, why },
            _ => TokenError::Gone { label, why },
        }
    }
}

impl From<Pkcs11Error> for Fault {
    fn from(error: Pkcs11Error) -> Self {
        Fault::Pkcs11(error)
    }
}

impl From<TokenError> for Fault {
    fn from(error: TokenError) -> Self {
        Fault::Token(error)
    }
}

/// True if and only if a token that is there and well answers so to what it will not do. What it
/// says when it is unplugged, its network is gone or its module was restarted beneath us differs
/// from maker to maker: everything that is not in this list is taken for that.
fn is_of_request(code: RvError) -> bool {
    use RvError::*;
    matches!(
        code,
        PinIncorrect
            | PinInvalid
            | PinLenRange
            | PinExpired
            | PinLocked
            | UserPinNotInitialized
            | DeviceMemory
            | TokenWriteProtected
            | SessionReadOnly
            | ActionProhibited
            | MechanismInvalid
            | MechanismParamInvalid
            | KeySizeRange
            | KeyTypeInconsistent
            | KeyFunctionNotPermitted
            | CurveNotSupported
            | DomainParamsInvalid
            | AttributeReadOnly
            | AttributeSensitive
            | AttributeTypeInvalid
            | AttributeValueInvalid
            | TemplateIncomplete
            | TemplateInconsistent
            | FunctionNotSupported
            | DataInvalid
            | DataLenRange
    )
}
