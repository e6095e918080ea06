//! Requests to Vault over TLS, with CA certificates of its own, and what an answer means.
//!
//! Bodies hold credentials and certificates: they clear themselves, and no error quotes them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use rustls_pki_types::CertificateDer;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::error::VaultError;
use crate::source::https::{self, HttpsClient, innermost, tls_error};

/// A signature takes Vault milliseconds, one with a key in an HSM less than a second. Whoever
/// waits longer holds a place that others could use.
const PATIENCE: Duration = Duration::from_secs(10);
/// Chains of certificates come to a few kilobytes, CRLs of a large PKI to some megabytes.
const LONGEST_ANSWER: usize = 8 << 20;
/// Where Vault asks for fewer requests and does not say for how long. Its quotas count by the second.
const DEFAULT_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause that is believed.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// A client of one Vault. Copies share its connections.
#[derive(Clone)]
pub struct VaultClient {
    http: HttpsClient,
    server: String,
    namespace: Option<String>,
    /// Until when nothing is asked of it, since it said so.
    paused: Arc<Mutex<Option<(Instant, String)>>>,
}

/// What is asked.
pub struct Ask<'a> {
    pub method: Method,
    /// Below `/v1/`.
    pub path: &'a str,
    pub token: Option<&'a str>,
    /// JSON.
    pub body: Option<Zeroizing<Vec<u8>>>,
}

impl VaultClient {
    /// A client that believes whoever has a certificate under one of these CAs to be Vault.
    ///
    /// # Errors
    /// Where one of them is no CA certificate.
    pub fn new(
        server: &str,
        namespace: Option<&str>,
        trusted: &[CertificateDer<'static>],
    ) -> Result<Self, VaultError> {
        let http = https::client(Some(trusted)).map_err(|error| {
            VaultError::Setting(format!("the CA certificates for Vault cannot be used: {error}"))
        })?;
        Ok(VaultClient {
            http,
            server: server.to_owned(),
            namespace: namespace.map(str::to_owned),
            paused: Arc::default(),
        })
    }

    /// One request, and its answer.
    pub async fn ask<T: DeserializeOwned>(&self, ask: Ask<'_>) -> Result<T, VaultError> {
        let path = ask.path.to_owned();
        let bytes = self.ask_for_bytes(ask).await?;
        serde_json::from_slice(&bytes).map_err(|error| VaultError::Answer {
            path,
            why: format!("{:?} at line {}", error.classify(), error.line()),
        })
    }

    /// One request, and its answer as it is.
    pub async fn ask_for_bytes(&self, ask: Ask<'_>) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        self.is_welcome()?;
        let path = ask.path.to_owned();
        let answer = tokio::time::timeout(PATIENCE, self.exchange(ask)).await;
        let Ok(answer) = answer else {
            let why = format!("no answer within {}s", PATIENCE.as_secs());
            return Err(VaultError::Unreachable { server: self.server.clone(), why });
        };
        let (status, headers, bytes) = answer?;
        match status.is_success() {
            true => Ok(bytes),
            false => Err(self.refusal(&path, status, &headers, &bytes)),
        }
    }

    async fn exchange(
        &self,
        ask: Ask<'_>,
    ) -> Result<(StatusCode, http::HeaderMap, Zeroizing<Vec<u8>>), VaultError> {
        let Ask { method, path, token, body } = ask;
        let unreachable =
            |why: String| VaultError::Unreachable { server: self.server.clone(), why };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}/v1/{path}", self.server))
            .header("X-Vault-Request", "true")
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = token {
            let mut token = header::HeaderValue::from_str(token)
                .map_err(|_| unreachable("its token is no header's value".to_owned()))?;
            token.set_sensitive(true);
            request = request.header("X-Vault-Token", token);
        }
        if let Some(namespace) = &self.namespace {
            request = request.header("X-Vault-Namespace", namespace);
        }
        let body = Bytes::from_owner(body.unwrap_or_default());
        let request =
            request.body(Full::new(body)).map_err(|error| unreachable(error.to_string()))?;
        let response = self.http.request(request).await.map_err(|error| self.no_answer(&error))?;
        let (head, body) = response.into_parts();
        let bytes = Limited::new(body, LONGEST_ANSWER).collect().await;
        let bytes = bytes.map_err(|error| unreachable(error.to_string()))?;
        Ok((head.status, head.headers, Zeroizing::new(Vec::from(bytes.to_bytes()))))
    }

    /// Says no in place of Vault, while it asked to be left alone.
    fn is_welcome(&self) -> Result<(), VaultError> {
        match &*self.paused() {
            Some((until, said)) if *until > Instant::now() => Err(VaultError::RateLimited {
                said: said.clone(),
                pause: until.duration_since(Instant::now()).max(Duration::from_secs(1)),
            }),
            _ => Ok(()),
        }
    }

    /// How much longer nothing is asked of it.
    pub fn pause_left(&self) -> Option<Duration> {
        let until = self.paused().as_ref().map(|(until, _)| *until)?;
        until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    fn no_answer(&self, error: &hyper_util::client::legacy::Error) -> VaultError {
        let server = self.server.clone();
        match tls_error(error) {
            Some(error) => VaultError::Untrusted { server, why: error.to_string() },
            None => VaultError::Unreachable { server, why: innermost(error) },
        }
    }

    fn refusal(
        &self,
        path: &str,
        status: StatusCode,
        headers: &http::HeaderMap,
        bytes: &[u8],
    ) -> VaultError {
        let said = errors_in(bytes);
        let (server, path) = (self.server.clone(), path.to_owned());
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        match status.as_u16() {
            307 | 308 => {
                let to = text(header::LOCATION).unwrap_or("another node");
                let to = to.chars().take(200).collect();
                VaultError::Standby { server, to }
            }
            429 => {
                let seconds = text(header::RETRY_AFTER).and_then(|text| text.parse().ok());
                let pause = seconds.map_or(DEFAULT_PAUSE, Duration::from_secs);
                let pause = pause.clamp(DEFAULT_PAUSE, LONGEST_PAUSE);
                *self.paused() = Some((Instant::now() + pause, said.clone()));
                VaultError::RateLimited { said, pause }
            }
            503 => VaultError::Sealed { server, said },
            // No such issuer is a failure to OpenBao and to Vault.
            500 if said.contains("unable to find PKI issuer") => VaultError::Denied { path, said },
            status @ 500.. => VaultError::Failed { path, status, said },
            // Of one thing that is asked, and not of the right to ask.
            400 if !said.contains("unknown role") => VaultError::NotAllowed { path, said },
            _ => VaultError::Denied { path, said },
        }
    }

    fn paused(&self) -> std::sync::MutexGuard<'_, Option<(Instant, String)>> {
        // A moment is whole, whoever panicked.
        self.paused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What Vault says is wrong, in one line and not without end.
fn errors_in(bytes: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Errors {
        #[serde(default)]
        errors: Vec<String>,
    }
    let errors = serde_json::from_slice::<Errors>(bytes).map(|body| body.errors);
    let errors = errors.unwrap_or_default().join("; ");
    let words: Vec<&str> = errors.split_whitespace().collect();
    match words.is_empty() {
        true => "it says no more".to_owned(),
        false => words.join(" ").chars().take(300).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_vault_says_is_one_line_of_bounded_length() {
        let said = |text: &str| errors_in(text.as_bytes());
        assert_eq!(
            said(r#"{"errors":["1 error:\n\t* permission denied\n"]}"#),
            "1 error: * permission denied"
        );
        assert_eq!(said(r#"{"errors":[]}"#), "it says no more");
        assert_eq!(said("<html>"), "it says no more");
        let long = format!(r#"{{"errors":["{}"]}}"#, "x".repeat(5000));
        assert_eq!(said(&long).len(), 300);
    }
}
