//! Where a trust domain's CAs come from, understood.

use std::path::PathBuf;

use super::cert_manager::IssuerName;
use super::remote::{RemoteAddress, RemoteSpecError};
use super::vault::{VaultAddress, VaultSpecError, VaultWork};
use crate::api::{AuthoritySpec, Pkcs11Authority, SlotKind};

/// Where CAs come from, with all that a kind needs to know.
#[derive(Clone, Debug, PartialEq)]
pub enum AuthoritySource {
    /// The operator makes them.
    SelfSigned,
    /// Somebody else puts one into a Secret of the operator's namespace.
    Secret { name: String },
    /// A PKI engine of Vault or OpenBao signs.
    Vault(Box<VaultAddress>),
    /// The operator makes them, with keys that are made in this token and stay there.
    Pkcs11(TokenAddress),
    /// An issuer of cert-manager's signs.
    CertManager(IssuerName),
    /// There are none: somebody else's bundle is fetched.
    Remote(Box<RemoteAddress>),
}

/// Where a token is, and who knows its PIN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenAddress {
    /// The PKCS#11 module, a library.
    pub module: PathBuf,
    /// The token's label.
    pub label: String,
    /// The Secret of the operator's namespace that holds the PIN.
    pub pin_secret: String,
    /// The file in that Secret.
    pub pin_key: String,
}

/// Which kind of authority. A CA keeps the mark of the kind that it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AuthorityKind {
    SelfSigned,
    Secret,
    /// Vault signs issuing CAs, whose keys the operator has.
    Vault,
    /// Vault signs every leaf. That is a kind of its own, so that a change between the two is a
    /// rotation: a CA of the one cannot sign in the manner of the other.
    VaultLeaf,
    Pkcs11,
    CertManager,
    /// No CA is of this kind.
    Remote,
}

/// What is wrong with `spec.authority`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    #[error("it names {0} authorities: name exactly one, such as selfSigned: {{}}")]
    NotOne(usize),
    #[error("the Secret's name is {0:?}, which is no Secret's name of your own: write another")]
    SecretName(String),
    #[error(transparent)]
    Vault(#[from] VaultSpecError),
    #[error(
        "certManager.issuerRef is {0}, which names no issuer: write the name of one, and its kind and group where they are not Issuer and cert-manager.io"
    )]
    Issuer(String),
    #[error(transparent)]
    Remote(#[from] RemoteSpecError),
    #[error("pkcs11.module is {0:?}: write the module's whole path in the operator's container")]
    ModulePath(String),
    #[error("pkcs11.tokenLabel is {0:?}: write the token's label, of 1 to 32 bytes")]
    TokenLabel(String),
}

impl AuthoritySource {
    /// Understands `spec.authority`, or names the first rule that it breaks.
    pub fn parse(spec: &AuthoritySpec) -> Result<Self, AuthorityError> {
        let AuthoritySpec { self_signed, secret, pkcs11, vault, cert_manager, remote } = spec;
        let mut given = Vec::new();
        if self_signed.is_some() {
            given.push(Ok(AuthoritySource::SelfSigned));
        }
        if let Some(secret) = secret {
            given.push(own_secret(&secret.name).map(|name| AuthoritySource::Secret { name }));
        }
        if let Some(pkcs11) = pkcs11 {
            given.push(token(pkcs11).map(AuthoritySource::Pkcs11));
        }
        if let Some(vault) = vault {
            let vault = VaultAddress::parse(vault);
            given.push(vault.map(|vault| AuthoritySource::Vault(vault.into())));
        }
        if let Some(given_issuer) = cert_manager {
            given.push(IssuerName::parse(given_issuer).map(AuthoritySource::CertManager));
        }
        if let Some(remote) = remote {
            let remote = RemoteAddress::parse(remote);
            given.push(remote.map(|remote| AuthoritySource::Remote(remote.into())));
        }
        match given.len() {
            1 => given.remove(0),
            count => Err(AuthorityError::NotOne(count)),
        }
    }

    /// Which kind it is.
    pub fn kind(&self) -> AuthorityKind {
        match self {
            AuthoritySource::SelfSigned => AuthorityKind::SelfSigned,
            AuthoritySource::Secret { .. } => AuthorityKind::Secret,
            AuthoritySource::Vault(vault) => match vault.work {
                VaultWork::IssuingCas => AuthorityKind::Vault,
                VaultWork::Leaves { .. } => AuthorityKind::VaultLeaf,
            },
            AuthoritySource::Pkcs11(_) => AuthorityKind::Pkcs11,
            AuthoritySource::CertManager(_) => AuthorityKind::CertManager,
            AuthoritySource::Remote(_) => AuthorityKind::Remote,
        }
    }

    /// True if and only if a change of this Secret of the operator's namespace concerns it.
    pub fn reads(&self, secret: &str) -> bool {
        match self {
            AuthoritySource::SelfSigned | AuthoritySource::CertManager(_) => false,
            AuthoritySource::Secret { name } => name == secret,
            AuthoritySource::Vault(vault) => vault.reads(secret),
            AuthoritySource::Pkcs11(token) => token.pin_secret == secret,
            AuthoritySource::Remote(remote) => remote.reads(secret),
        }
    }
}

impl AuthorityKind {
    /// Every kind.
    pub const ALL: [AuthorityKind; 7] = [
        AuthorityKind::SelfSigned,
        AuthorityKind::Secret,
        AuthorityKind::Pkcs11,
        AuthorityKind::Vault,
        AuthorityKind::VaultLeaf,
        AuthorityKind::CertManager,
        AuthorityKind::Remote,
    ];

    /// The field of `spec.authority`, and the mode where that makes two of it.
    pub fn as_str(self) -> &'static str {
        match self {
            AuthorityKind::SelfSigned => "selfSigned",
            AuthorityKind::Secret => "secret",
            AuthorityKind::Vault => "vault",
            AuthorityKind::VaultLeaf => "vault-leaf",
            AuthorityKind::Pkcs11 => "pkcs11",
            AuthorityKind::CertManager => "certManager",
            AuthorityKind::Remote => "remote",
        }
    }

    /// True if and only if the operator has the key of such a CA of this kind.
    pub fn keeps_key(self, kind: SlotKind) -> bool {
        match self {
            AuthorityKind::SelfSigned | AuthorityKind::Pkcs11 => true,
            AuthorityKind::Secret | AuthorityKind::Vault | AuthorityKind::CertManager => {
                kind == SlotKind::Issuing
            }
            AuthorityKind::VaultLeaf | AuthorityKind::Remote => false,
        }
    }

    /// The kind of this name. CAs that were made before there were kinds carry none, and are
    /// self-signed.
    pub fn of(name: Option<&str>) -> Option<Self> {
        let Some(name) = name else { return Some(AuthorityKind::SelfSigned) };
        AuthorityKind::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// The file that holds the PIN where none is named.
const DEFAULT_PIN_KEY: &str = "pin";

/// A token, whose label PKCS#11 limits to 32 bytes (CK_TOKEN_INFO).
fn token(given: &Pkcs11Authority) -> Result<TokenAddress, AuthorityError> {
    let Pkcs11Authority { module, token_label, pin_secret_ref } = given;
    let (path, label) = (PathBuf::from(module), token_label.clone());
    if !path.is_absolute() || module.contains("/../") || module.contains('\0') {
        return Err(AuthorityError::ModulePath(module.clone()));
    }
    if label.is_empty() || label.len() > 32 || label.trim() != label {
        return Err(AuthorityError::TokenLabel(label));
    }
    let pin_secret = own_secret(&pin_secret_ref.name)?;
    let pin_key = pin_secret_ref.key.clone().unwrap_or_else(|| DEFAULT_PIN_KEY.to_owned());
    Ok(TokenAddress { module: path, label, pin_secret, pin_key })
}

/// A Secret of the user's: one of the operator's own CAs would be taken up again and again.
pub(super) fn own_secret(name: &str) -> Result<String, AuthorityError> {
    let is_name = !name.is_empty()
        && name.len() <= 253
        && name.bytes().all(|c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'));
    match is_name && !name.starts_with("countersign-ca-") {
        true => Ok(name.to_owned()),
        false => Err(AuthorityError::SecretName(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn parse(spec: Value) -> Result<AuthoritySource, AuthorityError> {
        AuthoritySource::parse(&serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn an_authority_is_exactly_one() {
        assert_eq!(parse(json!({})), Err(AuthorityError::NotOne(0)));
        assert_eq!(parse(json!({"selfSigned": {}})), Ok(AuthoritySource::SelfSigned));
        let both = json!({"selfSigned": {}, "secret": {"name": "a"}});
        assert_eq!(parse(both), Err(AuthorityError::NotOne(2)));
        for (name, good) in [
            ("corporate-ca", true),
            ("a.b", true),
            ("", false),
            ("A", false),
            ("a/b", false),
            ("countersign-ca-prod-issuing-1", false),
        ] {
            let parsed = parse(json!({"secret": {"name": name}}));
            assert_eq!(parsed.is_ok(), good, "{name}: {parsed:?}");
        }
    }

    #[test]
    fn a_token_is_named_by_its_modules_path_and_its_label() {
        let spec = |module: &str, label: &str| {
            json!({"pkcs11": {
                "module": module, "tokenLabel": label, "pinSecretRef": {"name": "hsm-pin"},
            }})
        };
        let Ok(AuthoritySource::Pkcs11(token)) = parse(spec("/lib/hsm.so", "Corporate HSM")) else {
            panic!("it is a token");
        };
        assert_eq!((token.pin_secret.as_str(), token.pin_key.as_str()), ("hsm-pin", "pin"));
        for module in ["hsm.so", "", "/lib/../hsm.so"] {
            let parsed = parse(spec(module, "a"));
            assert!(matches!(parsed, Err(AuthorityError::ModulePath(_))), "{module}: {parsed:?}");
        }
        for label in ["", " a", "thirty-three bytes are one too many"] {
            let parsed = parse(spec("/lib/hsm.so", label));
            assert!(matches!(parsed, Err(AuthorityError::TokenLabel(_))), "{label}: {parsed:?}");
        }
    }

    #[test]
    fn a_kind_is_known_by_its_field() {
        for kind in AuthorityKind::ALL {
            assert_eq!(AuthorityKind::of(Some(kind.as_str())), Some(kind));
        }
        assert_eq!(AuthorityKind::of(None), Some(AuthorityKind::SelfSigned));
        assert_eq!(AuthorityKind::of(Some("cloud")), None);
    }
}
