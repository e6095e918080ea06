//! Requests that carry key material, and the answers: bytes that clear themselves, and answers
//! that leave out what we just sent.
//!
//! kube's typed calls would copy keys into buffers that are not cleared, log bodies that do not
//! parse, and have the API server send every Secret back. Everything else goes through kube.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use jiff::Timestamp;
use kube::Client;
use kube::api::{ObjectMeta, PartialObjectMeta};
use kube::client::Body;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use zeroize::Zeroizing;

/// What kept a request from being done.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The object is not in the version that the request was decided on.
    #[error("the object has changed since it was read: {0}")]
    Conflict(String),
    #[error("it is not there any more: {0}")]
    NotFound(String),
    /// The API server understood and refused.
    #[error("the API server refused ({code}): {message}")]
    Refused { code: u16, message: String },
    #[error("the API server cannot be reached: {0}")]
    Unreachable(String),
    #[error("the API server's answer cannot be read: {0}")]
    Answer(String),
}

/// A Secret that was read. It prints no data and clears itself.
#[derive(Deserialize, Default)]
pub struct SecretObject {
    #[serde(default)]
    pub metadata: ObjectMeta,
    #[serde(default, deserialize_with = "decode_data")]
    pub data: BTreeMap<String, Zeroizing<Vec<u8>>>,
}

impl WireError {
    /// One of a fixed set of words, for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            WireError::Conflict(_) => "conflict",
            WireError::NotFound(_) => "not_found",
            WireError::Refused { .. } => "refused",
            WireError::Unreachable(_) => "unreachable",
            WireError::Answer(_) => "answer",
        }
    }
}

impl From<kube::Error> for WireError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => refusal(status.code, status.message.clone()),
            other => WireError::Unreachable(other.to_string()),
        }
    }
}

impl fmt::Debug for SecretObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretObject")
            .field("name", &self.metadata.name)
            .field("files", &self.data.keys())
            .finish()
    }
}

/// Reads a Secret; None where there is none.
pub async fn get_secret(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<Option<SecretObject>, WireError> {
    let path = format!("/api/v1/namespaces/{namespace}/secrets/{name}");
    match send(client, Method::GET, &path, "", Zeroizing::default()).await {
        Ok(bytes) => parse(&bytes).map(Some),
        Err(WireError::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads the Secrets that a label selector matches.
pub async fn list_secrets(
    client: &Client,
    namespace: &str,
    selector: &str,
) -> Result<Vec<SecretObject>, WireError> {
    #[derive(Deserialize)]
    struct List {
        items: Vec<SecretObject>,
    }
    let selector = selector.replace('=', "%3D");
    let path = format!("/api/v1/namespaces/{namespace}/secrets?labelSelector={selector}");
    let bytes = send(client, Method::GET, &path, "", Zeroizing::default()).await?;
    parse::<List>(&bytes).map(|list| list.items)
}

/// Creates a Secret and returns its metadata.
pub async fn create_secret(
    client: &Client,
    namespace: &str,
    body: Zeroizing<Vec<u8>>,
) -> Result<ObjectMeta, WireError> {
    let path = format!("/api/v1/namespaces/{namespace}/secrets");
    write(client, Method::POST, &path, "application/json", body).await
}

/// Merges a change into a Secret and returns its metadata.
pub async fn patch_secret(
    client: &Client,
    namespace: &str,
    name: &str,
    body: Zeroizing<Vec<u8>>,
) -> Result<ObjectMeta, WireError> {
    let path = format!("/api/v1/namespaces/{namespace}/secrets/{name}");
    write(client, Method::PATCH, &path, MERGE_PATCH, body).await
}

/// Merges a change into the object (or subresource) at this path and returns its metadata.
pub async fn patch(
    client: &Client,
    path: &str,
    body: &serde_json::Value,
) -> Result<ObjectMeta, WireError> {
    let body = Zeroizing::new(body.to_string().into_bytes());
    write(client, Method::PATCH, path, MERGE_PATCH, body).await
}

/// Bytes as a JSON text in base64.
pub fn base64(bytes: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(bytes))
}

const JSON: &str = "application/json";
const MERGE_PATCH: &str = "application/merge-patch+json";

/// Asks for the metadata alone: we know what we sent, and half of the bytes on the wire of an
/// issuance would be the Secret coming back.
const METADATA_ONLY: &str =
    "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";

/// An API server answers a write within a second, or within ten when it is in trouble. Whoever
/// waits longer holds a place that others could use.
const PATIENCE: Duration = Duration::from_secs(30);

async fn write(
    client: &Client,
    method: Method,
    path: &str,
    content_type: &str,
    body: Zeroizing<Vec<u8>>,
) -> Result<ObjectMeta, WireError> {
    let bytes = send(client, method, path, content_type, body).await?;
    parse::<PartialObjectMeta<k8s_openapi::api::core::v1::Secret>>(&bytes)
        .map(|object| object.metadata)
}

async fn send(
    client: &Client,
    method: Method,
    path: &str,
    content_type: &str,
    body: Zeroizing<Vec<u8>>,
) -> Result<Zeroizing<Vec<u8>>, WireError> {
    let accept = if method == Method::GET { JSON } else { METADATA_ONLY };
    exchange(client, method, path, accept, content_type, body).await.0
}

/// Asks for an object or writes one, and says with it what time the API server had.
///
/// # Errors
/// As every request; the time may be there all the same.
pub async fn dated<T: Serialize + DeserializeOwned>(
    client: &Client,
    method: Method,
    path: &str,
    object: Option<&T>,
) -> (Result<T, WireError>, Option<Timestamp>) {
    let body = object.map(serde_json::to_vec).transpose();
    let body = match body {
        Ok(body) => Zeroizing::new(body.unwrap_or_default()),
        Err(error) => return (Err(WireError::Answer(error.to_string())), None),
    };
    let content_type = if object.is_some() { JSON } else { "" };
    let (bytes, date) = exchange(client, method, path, JSON, content_type, body).await;
    (bytes.and_then(|bytes| parse(&bytes)), date)
}

/// One request: what came back, and the time in its header.
async fn exchange(
    client: &Client,
    method: Method,
    path: &str,
    accept: &str,
    content_type: &str,
    body: Zeroizing<Vec<u8>>,
) -> (Result<Zeroizing<Vec<u8>>, WireError>, Option<Timestamp>) {
    let unreachable = |error: &dyn fmt::Display| WireError::Unreachable(error.to_string());
    let mut request =
        Request::builder().method(method).uri(path).header(http::header::ACCEPT, accept);
    if !content_type.is_empty() {
        request = request.header(http::header::CONTENT_TYPE, content_type);
    }
    let request = match request.body(Body::from(Bytes::from_owner(body))) {
        Ok(request) => request,
        Err(error) => return (Err(unreachable(&error)), None),
    };
    let mut date = None;
    let answer = async {
        let response = client.send(request).await.map_err(WireError::from)?;
        let status = response.status();
        date = date_of(response.headers());
        let bytes = response.into_body().collect().await.map_err(|error| unreachable(&error))?;
        Ok::<_, WireError>((status, Zeroizing::new(Vec::from(bytes.to_bytes()))))
    };
    let answer = tokio::time::timeout(PATIENCE, answer).await;
    let answer = match answer {
        Ok(Ok((status, bytes))) if status.is_success() => Ok(bytes),
        Ok(Ok((status, bytes))) => Err(refused(status, &bytes)),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(unreachable(&format!("no answer within {PATIENCE:?}"))),
    };
    (answer, date)
}

/// The time that a server says it is, in whole seconds (RFC 9110, 6.6.1).
fn date_of(headers: &http::HeaderMap) -> Option<Timestamp> {
    let date = headers.get(http::header::DATE)?.to_str().ok()?;
    jiff::fmt::rfc2822::parse(date).ok().map(|date| date.timestamp())
}

fn refused(status: StatusCode, bytes: &[u8]) -> WireError {
    #[derive(Deserialize, Default)]
    struct Status {
        #[serde(default)]
        message: String,
    }
    let message = serde_json::from_slice::<Status>(bytes).unwrap_or_default().message;
    refusal(status.as_u16(), message)
}

fn refusal(code: u16, message: String) -> WireError {
    match code {
        409 => WireError::Conflict(message),
        404 => WireError::NotFound(message),
        // The API server is overloaded, starting, or has lost etcd: as good as not there.
        429 | 500..=599 => WireError::Unreachable(format!("{code}: {message}")),
        _ => WireError::Refused { code, message },
    }
}

/// Parses without ever quoting what was read: it may be a key.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    serde_json::from_slice(bytes).map_err(|error| {
        WireError::Answer(format!("{:?} at line {}", error.classify(), error.line()))
    })
}

fn decode_data<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, Zeroizing<Vec<u8>>>, D::Error> {
    let encoded = Option::<BTreeMap<String, Zeroizing<String>>>::deserialize(deserializer)?;
    encoded
        .unwrap_or_default()
        .into_iter()
        .map(|(name, text)| {
            base64::engine::general_purpose::STANDARD
                .decode(text.as_bytes())
                .map(|bytes| (name, Zeroizing::new(bytes)))
                .map_err(|_| serde::de::Error::custom("data that is not base64"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_of_an_answer_is_read() {
        let read = |text: &'static str| {
            let mut headers = http::HeaderMap::new();
            headers.insert(http::header::DATE, http::HeaderValue::from_static(text));
            date_of(&headers).map(|date| date.to_string())
        };
        let date = read("Wed, 25 Nov 2026 00:12:05 GMT");
        assert_eq!(date.as_deref(), Some("2026-11-25T00:12:05Z"));
        assert_eq!(read("yesterday"), None);
        assert_eq!(date_of(&http::HeaderMap::new()), None);
    }
}
