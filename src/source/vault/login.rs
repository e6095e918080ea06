//! Logging in to Vault: with a role id and a secret id, or with a token of the operator's own
//! ServiceAccount.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use kube::Client;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::client::{Ask, VaultClient};
use super::error::VaultError;
use crate::identity::VaultLogin;
use crate::source::files;
use crate::wire::{self, WireError};

/// A token of Vault's, shared by those who use it. It clears itself.
pub type Token = Arc<Zeroizing<String>>;

/// What is needed to log in.
pub struct Credentials<'a> {
    pub vault: &'a VaultClient,
    pub kube: &'a Client,
    /// The operator's own.
    pub namespace: &'a str,
    pub login: &'a VaultLogin,
}

/// A token, and how long it is good.
pub struct Lease {
    pub token: Token,
    is_renewable: bool,
    /// How long it was good when it was got.
    length: Duration,
    /// When a third of its life is left; None where it does not end.
    renew_at: Option<Instant>,
}

#[derive(Deserialize)]
struct Answer {
    auth: Option<Auth>,
}

#[derive(Deserialize)]
struct Auth {
    client_token: Zeroizing<String>,
    /// In seconds; 0 where it does not end.
    #[serde(default)]
    lease_duration: u64,
    #[serde(default)]
    renewable: bool,
}

impl Lease {
    fn new(auth: Auth) -> Self {
        let length = Duration::from_secs(auth.lease_duration);
        Lease {
            token: Arc::new(auth.client_token),
            is_renewable: auth.renewable,
            length,
            renew_at: (!length.is_zero()).then(|| Instant::now() + length * 2 / 3),
        }
    }

    /// True if and only if more than a third of its life is left.
    pub fn is_fresh(&self, now: Instant) -> bool {
        self.renew_at.is_none_or(|moment| now < moment)
    }
}

/// The same token with a new life. None where it has none to give: its longest life is near, or
/// it does not hold any more.
pub async fn renew(vault: &VaultClient, lease: &Lease) -> Option<Lease> {
    if !lease.is_renewable {
        return None;
    }
    let answer = vault.ask(Ask {
        method: Method::POST,
        path: "auth/token/renew-self",
        token: Some(&lease.token),
        body: None,
    });
    let auth = answer.await.ok().and_then(|answer: Answer| answer.auth)?;
    let renewed = Lease::new(auth);
    (renewed.length >= lease.length / 2).then_some(renewed)
}

/// Logs in.
pub async fn log_in(credentials: &Credentials<'_>) -> Result<Lease, VaultError> {
    let (mount, body, next) = match credentials.login {
        VaultLogin::AppRole { role_id, secret_id, mount } => {
            let secret_id = files::secret_file(credentials.kube, credentials.namespace, secret_id);
            let secret_id = text(&secret_id.await?)?;
            let body = json_of(&[("role_id", role_id), ("secret_id", &secret_id)]);
            let next = "see that vault.auth.appRole.roleId is right, and put a secret id that holds into the Secret";
            (mount, body, next)
        }
        VaultLogin::Kubernetes { role, mount, audience } => {
            let jwt = own_token(credentials, audience.as_deref()).await?;
            let body = json_of(&[("role", role), ("jwt", &jwt)]);
            let next = "see that this role of the auth method is for the operator's ServiceAccount and its audience, and that Vault can ask the API server for TokenReviews";
            (mount, body, next)
        }
    };
    let path = format!("auth/{mount}/login");
    let ask = Ask { method: Method::POST, path: &path, token: None, body: Some(body) };
    let answer: Answer = credentials.vault.ask(ask).await.map_err(|error| match error {
        VaultError::Denied { path, said } | VaultError::NotAllowed { path, said } => {
            VaultError::LoginRefused { path, said, next }
        }
        other => other,
    })?;
    let no_token = || VaultError::Answer { path, why: "it holds no token".to_owned() };
    answer.auth.map(Lease::new).ok_or_else(no_token)
}

fn text(bytes: &[u8]) -> Result<Zeroizing<String>, VaultError> {
    let text = std::str::from_utf8(bytes).map(str::trim);
    let text = text.ok().filter(|text| !text.is_empty());
    text.map(|text| Zeroizing::new(text.to_owned())).ok_or_else(|| {
        VaultError::Setting("the secret id in the Secret is empty or no text".to_owned())
    })
}

/// A JSON object of texts, in a buffer that clears itself and does not grow.
fn json_of(fields: &[(&str, &str)]) -> Zeroizing<Vec<u8>> {
    let fields: std::collections::BTreeMap<&str, &str> = fields.iter().copied().collect();
    // Escaping makes a character six bytes at most.
    let length: usize = fields.iter().map(|(name, text)| name.len() + 6 * text.len() + 8).sum();
    let mut bytes = Zeroizing::new(Vec::with_capacity(length + 2));
    serde_json::to_writer(&mut *bytes, &fields).expect("texts can be written to memory");
    bytes
}

/// Ten minutes, the least that the API server gives: it is used once, at once.
const TOKEN_LIFE: u64 = 600;

/// A token of the operator's own ServiceAccount, for Vault to show to the API server.
async fn own_token(
    credentials: &Credentials<'_>,
    audience: Option<&str>,
) -> Result<Zeroizing<String>, VaultError> {
    #[derive(Serialize, Deserialize)]
    struct Request<S> {
        #[serde(rename = "apiVersion")]
        api_version: String,
        kind: String,
        #[serde(default)]
        spec: serde_json::Value,
        status: Option<S>,
    }
    #[derive(Serialize, Deserialize)]
    struct Review {
        #[serde(rename = "userInfo")]
        user_info: UserInfo,
    }
    #[derive(Serialize, Deserialize)]
    struct UserInfo {
        username: String,
    }
    #[derive(Serialize, Deserialize)]
    struct Given {
        token: Zeroizing<String>,
    }
    let version = "authentication.k8s.io/v1".to_owned();
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        VaultError::Setting(format!("{what} for the login to Vault could not be had: {error}"))
    };
    let review = Request::<Review> {
        api_version: version.clone(),
        kind: "SelfSubjectReview".to_owned(),
        spec: serde_json::Value::Null,
        status: None,
    };
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let (review, _) = wire::dated(credentials.kube, Method::POST, path, Some(&review)).await;
    let whoami = review.map_err(|error| failed("the operator's own name", &error))?;
    let username = whoami.status.map(|status| status.user_info.username).unwrap_or_default();
    let mut parts = username.strip_prefix("system:serviceaccount:").unwrap_or_default().split(':');
    let (Some(namespace), Some(name)) = (parts.next(), parts.next()) else {
        return Err(VaultError::Setting(format!(
            "the operator is {username:?} to the API server, and only a ServiceAccount has a token for the login to Vault: run it as one, or use vault.auth.appRole"
        )));
    };
    let audiences: Vec<&str> = audience.into_iter().collect();
    let request = Request::<Given> {
        api_version: version,
        kind: "TokenRequest".to_owned(),
        spec: json!({"audiences": audiences, "expirationSeconds": TOKEN_LIFE}),
        status: None,
    };
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token");
    let (given, _) = wire::dated(credentials.kube, Method::POST, &path, Some(&request)).await;
    let given = given.map_err(|error: WireError| {
        failed(&format!("a token of the ServiceAccount {namespace}/{name}"), &error)
    })?;
    given.status.map(|status| status.token).ok_or_else(|| {
        failed(&format!("a token of the ServiceAccount {namespace}/{name}"), &"there is none")
    })
}
