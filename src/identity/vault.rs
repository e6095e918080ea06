//! `spec.authority.vault`, understood: where Vault is, whom to believe that it is Vault, what to
//! ask of it, and how to log in.

use super::authority::AuthorityError;
use super::server_trust::{FileName, ServerTrust};
use crate::api::{VaultAuth, VaultAuthority, VaultMode};

/// A PKI engine of Vault or OpenBao, and how to use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultAddress {
    /// `https://` and host, with a port where one was given.
    pub server: String,
    pub trust: ServerTrust,
    pub namespace: Option<String>,
    /// Where the PKI engine is mounted.
    pub mount: String,
    /// The issuer that signs, by name or id.
    pub issuer: String,
    pub work: VaultWork,
    pub login: VaultLogin,
}

/// What Vault signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VaultWork {
    /// Issuing CAs.
    IssuingCas,
    /// Every leaf, under this role.
    Leaves { role: String },
}

/// How the operator logs in, and where the auth method is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VaultLogin {
    Kubernetes { role: String, mount: String, audience: Option<String> },
    AppRole { role_id: String, secret_id: FileName, mount: String },
}

/// What is wrong with `spec.authority.vault`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VaultSpecError {
    #[error(
        "vault.server is {0:?}: write Vault's address with https and without a path, such as https://vault.vault.svc:8200"
    )]
    Server(String),
    #[error("vault names {0} of caBundle, caSecretRef and caConfigMapRef: name exactly one")]
    Trust(usize),
    #[error("vault.caBundle holds no certificate in PEM: {0}")]
    CaBundle(String),
    #[error("vault.{field} is {given:?}: write it as Vault has it, without a slash at either end")]
    Path { field: &'static str, given: String },
    #[error("vault.mode Leaf needs a role, under which Vault signs; Intermediate takes none")]
    Role,
    #[error("vault.auth names {0} ways to log in: name exactly one, kubernetes or appRole")]
    Auth(usize),
    #[error("vault.auth.appRole.roleId is empty")]
    RoleId,
}

impl VaultAddress {
    /// Understands `spec.authority.vault`, or names the first rule that it breaks.
    pub fn parse(given: &VaultAuthority) -> Result<Self, AuthorityError> {
        let namespace = given.namespace.as_deref();
        let work = match (given.mode, &given.role) {
            (VaultMode::Intermediate, None) => VaultWork::IssuingCas,
            (VaultMode::Leaf, Some(role)) => VaultWork::Leaves { role: name("role", role)? },
            _ => return Err(VaultSpecError::Role.into()),
        };
        Ok(VaultAddress {
            server: server(&given.server)?,
            trust: trust(given)?,
            namespace: namespace.map(|given| path("namespace", given)).transpose()?,
            mount: path("mount", given.mount.as_deref().unwrap_or("pki"))?,
            issuer: name("issuer", given.issuer.as_deref().unwrap_or("default"))?,
            work,
            login: login(&given.auth)?,
        })
    }

    /// True if and only if a change of this Secret of the operator's namespace concerns it.
    pub fn reads(&self, secret: &str) -> bool {
        let logs_in_with = match &self.login {
            VaultLogin::AppRole { secret_id, .. } => secret_id.object == secret,
            VaultLogin::Kubernetes { .. } => false,
        };
        self.trust.reads(secret) || logs_in_with
    }
}

fn server(given: &str) -> Result<String, VaultSpecError> {
    let authority = given.strip_prefix("https://").unwrap_or_default();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-:[]".contains(c);
    match !authority.is_empty() && authority.chars().all(is_plain) {
        true => Ok(given.to_owned()),
        false => Err(VaultSpecError::Server(given.to_owned())),
    }
}

fn trust(given: &VaultAuthority) -> Result<ServerTrust, AuthorityError> {
    let trust = ServerTrust::parse(
        given.ca_bundle.as_deref(),
        given.ca_secret_ref.as_ref(),
        given.ca_config_map_ref.as_ref(),
        VaultSpecError::Trust,
        VaultSpecError::CaBundle,
    )?;
    trust.ok_or(VaultSpecError::Trust(0).into())
}

fn login(given: &VaultAuth) -> Result<VaultLogin, AuthorityError> {
    let mount = |given: &Option<String>, default: &str| {
        path("auth mount", given.as_deref().unwrap_or(default))
    };
    match (&given.kubernetes, &given.app_role) {
        (Some(kubernetes), None) => Ok(VaultLogin::Kubernetes {
            role: name("auth.kubernetes.role", &kubernetes.role)?,
            mount: mount(&kubernetes.mount, "kubernetes")?,
            audience: kubernetes.audience.clone(),
        }),
        (None, Some(app_role)) if app_role.role_id.is_empty() => Err(VaultSpecError::RoleId.into()),
        (None, Some(app_role)) => Ok(VaultLogin::AppRole {
            role_id: app_role.role_id.clone(),
            secret_id: FileName::parse(&app_role.secret_id_ref, "secretId")?,
            mount: mount(&app_role.mount, "approle")?,
        }),
        (None, None) => Err(VaultSpecError::Auth(0).into()),
        (Some(_), Some(_)) => Err(VaultSpecError::Auth(2).into()),
    }
}

/// A path within Vault. What would lead out of its place is refused: `..`, empty segments, and
/// whatever an URL would take for something else.
fn path(field: &'static str, given: &str) -> Result<String, VaultSpecError> {
    match given.split('/').all(is_name) {
        true => Ok(given.to_owned()),
        false => Err(VaultSpecError::Path { field, given: given.to_owned() }),
    }
}

fn name(field: &'static str, given: &str) -> Result<String, VaultSpecError> {
    match is_name(given) {
        true => Ok(given.to_owned()),
        false => Err(VaultSpecError::Path { field, given: given.to_owned() }),
    }
}

fn is_name(segment: &str) -> bool {
    let is_plain = |c: u8| c.is_ascii_alphanumeric() || b"._-".contains(&c);
    !segment.is_empty() && !segment.starts_with('.') && segment.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn spec(change: Value) -> Value {
        let mut spec = json!({
            "server": "https://vault.vault.svc:8200",
            "caSecretRef": {"name": "vault-ca"},
            "auth": {"appRole": {"roleId": "r-1", "secretIdRef": {"name": "vault-secret-id"}}},
        });
        for (key, value) in change.as_object().unwrap() {
            match value {
                Value::Null => drop(spec.as_object_mut().unwrap().remove(key)),
                value => spec[key] = value.clone(),
            }
        }
        spec
    }

    fn parse(change: Value) -> Result<VaultAddress, AuthorityError> {
        VaultAddress::parse(&serde_json::from_value(spec(change)).unwrap())
    }

    #[test]
    fn what_is_not_said_is_what_vault_itself_takes_for_given() {
        let address = parse(json!({})).unwrap();
        assert_eq!(
            (address.mount.as_str(), address.issuer.as_str(), &address.work),
            ("pki", "default", &VaultWork::IssuingCas)
        );
        let VaultLogin::AppRole { secret_id, mount, .. } = &address.login else { panic!() };
        assert_eq!((secret_id.key.as_str(), mount.as_str()), ("secretId", "approle"));
        assert!(address.reads("vault-ca") && address.reads("vault-secret-id"));
        assert!(!address.reads("another"));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let kubernetes = json!({"kubernetes": {"role": "countersign"}});
        assert!(parse(json!({"auth": kubernetes})).is_ok());
        assert!(parse(json!({"mode": "Leaf", "role": "agents"})).is_ok());
        let both = json!({
            "kubernetes": {"role": "countersign"},
            "appRole": {"roleId": "r-1", "secretIdRef": {"name": "vault-secret-id"}},
        });
        let path = |field, given: &str| VaultSpecError::Path { field, given: given.to_owned() };
        for (change, error) in [
            (
                json!({"server": "http://vault:8200"}),
                VaultSpecError::Server("http://vault:8200".to_owned()),
            ),
            (json!({"server": "https://"}), VaultSpecError::Server("https://".to_owned())),
            (json!({"server": "https://a/b"}), VaultSpecError::Server("https://a/b".to_owned())),
            (json!({"caSecretRef": null}), VaultSpecError::Trust(0)),
            (json!({"caConfigMapRef": {"name": "a"}}), VaultSpecError::Trust(2)),
            (json!({"mount": "/pki"}), path("mount", "/pki")),
            (json!({"mount": "pki/../sys"}), path("mount", "pki/../sys")),
            (json!({"namespace": "a?b"}), path("namespace", "a?b")),
            (json!({"issuer": "a/b"}), path("issuer", "a/b")),
            (json!({"mode": "Leaf"}), VaultSpecError::Role),
            (json!({"role": "agents"}), VaultSpecError::Role),
            (json!({"auth": {}}), VaultSpecError::Auth(0)),
            (json!({"auth": both}), VaultSpecError::Auth(2)),
        ] {
            assert_eq!(parse(change.clone()), Err(error.into()), "{change}");
        }
        let bundle = parse(json!({"caSecretRef": null, "caBundle": "nothing"}));
        assert!(matches!(bundle, Err(AuthorityError::Vault(VaultSpecError::CaBundle(_)))));
    }
}
