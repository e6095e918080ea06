//! `remote`: no CA, but the bundle of somebody else's trust domain, fetched over HTTPS.
//!
//! It gives no slot: a slot is a CA that signs here. What is fetched is judged in
//! [`crate::decide::remote`], recorded in the status, and published from there.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use jiff::Timestamp;
use kube::Client;

use super::files::{self, FileError};
use super::https::{self, innermost, tls_error};
use super::{CaSource, Making, SourceError, Unavailable};
use crate::api::conditions::Reason;
use crate::decide::slots::Supply;
use crate::identity::{Domain, RemoteAddress};
use crate::sign::Slot;
use crate::x509;

/// From the first packet to the last byte: who gives a few kilobytes more slowly is not there.
const PATIENCE: Duration = Duration::from_secs(10);
/// 32 roots of the largest keys come to a hundred kilobytes, and a SPIFFE bundle has keys for JWTs
/// too. The message of [`RemoteError::TooLarge`] has the number.
const LONGEST_ANSWER: usize = 512 << 10;
/// A longer ETag is not worth keeping: without one the bundle is fetched whole.
const LONGEST_ETAG: usize = 256;

/// What came.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The bundle is still the one with the ETag that was shown.
    Unchanged,
    /// A bundle, which nobody has judged yet.
    Bundle { bytes: Vec<u8>, etag: Option<String> },
}

/// Why nothing came. The texts say what to do next, without a stop at the end.
#[derive(Debug, thiserror::Error)]
enum RemoteError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("the CA certificates for {0} cannot be used: {1}")]
    Trust(String, String),
    #[error("{0} cannot be reached: {1}")]
    Unreachable(String, String),
    #[error(
        "the server of {0} does not prove who it is ({1}): see that the CA certificates which remote names are those of its certificate, and that this is for the host in remote.url"
    )]
    Untrusted(String, String),
    #[error(
        "{url} sends to {to}: no redirect is followed, so write the bundle's own address in remote.url"
    )]
    Redirect { url: String, to: String },
    #[error("{0} answers {1}, and gives no bundle")]
    Status(String, StatusCode),
    #[error(
        "{0} gives more than 512 KiB, which no bundle needs: see that it is the bundle's address"
    )]
    TooLarge(String),
}

/// Fetches a bundle. `etag` is that of the bundle that is there already.
///
/// # Errors
/// When none came: why, and what to do.
pub async fn fetch(
    kube: &Client,
    namespace: &str,
    address: &RemoteAddress,
    etag: Option<&str>,
) -> Result<Answer, Unavailable> {
    let exchange = exchange(kube, namespace, address, etag);
    let answer = tokio::time::timeout(PATIENCE, exchange).await.unwrap_or_else(|_| {
        let why = format!("no whole answer within {}s", PATIENCE.as_secs());
        Err(RemoteError::Unreachable(address.url.clone(), why))
    });
    answer.map_err(|error| {
        let reason = match error {
            RemoteError::Untrusted(..) => Reason::AuthorityUntrusted,
            _ => Reason::AuthorityUnavailable,
        };
        Unavailable { reason, message: error.to_string() }
    })
}

async fn exchange(
    kube: &Client,
    namespace: &str,
    address: &RemoteAddress,
    etag: Option<&str>,
) -> Result<Answer, RemoteError> {
    let url = || address.url.clone();
    let trust = |why: String| RemoteError::Trust(url(), why);
    let trusted = match &address.trust {
        None => None,
        Some(place) => {
            let pem = files::trusted(kube, namespace, place).await?;
            Some(x509::read_pem(&pem).map_err(|error| trust(error.to_string()))?)
        }
    };
    let client = https::client(trusted.as_deref()).map_err(trust)?;
    let mut request = Request::get(&address.url)
        .header(header::USER_AGENT, concat!("countersign/", env!("CARGO_PKG_VERSION")));
    if let Some(etag) = etag {
        request = request.header(header::IF_NONE_MATCH, etag);
    }
    let unreachable = |why: String| RemoteError::Unreachable(url(), why);
    let request =
        request.body(Full::<Bytes>::default()).map_err(|error| unreachable(error.to_string()))?;
    let response = client.request(request).await.map_err(|error| match tls_error(&error) {
        Some(error) => RemoteError::Untrusted(url(), error.to_string()),
        None => unreachable(innermost(&error)),
    })?;
    let (head, body) = response.into_parts();
    let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
    match head.status {
        StatusCode::OK => {}
        StatusCode::NOT_MODIFIED if etag.is_some() => return Ok(Answer::Unchanged),
        status if status.is_redirection() => {
            let to = text(header::LOCATION).unwrap_or("another address");
            return Err(RemoteError::Redirect { url: url(), to: to.chars().take(200).collect() });
        }
        status => return Err(RemoteError::Status(url(), status)),
    }
    let etag = text(header::ETAG).filter(|etag| etag.len() <= LONGEST_ETAG).map(str::to_owned);
    let bytes =
        Limited::new(body, LONGEST_ANSWER).collect().await.map_err(|error| match error
            .is::<LengthLimitError>(
        ) {
            true => RemoteError::TooLarge(url()),
            false => unreachable(innermost(&*error)),
        })?;
    Ok(Answer::Bundle { bytes: bytes.to_bytes().into(), etag })
}

/// The source of CAs where there are none: whoever asks for one is told so.
pub struct NoCa;

#[async_trait]
impl CaSource for NoCa {
    async fn supply(&self, domain: &Domain, _: Timestamp) -> Result<Supply, Unavailable> {
        let message = format!("TrustDomain {} is remote, and has no CA here", domain.name);
        Err(Unavailable { reason: Reason::RemoteTrustDomain, message })
    }

    async fn make(&self, making: Making<'_>) -> Result<Slot, SourceError> {
        let name = &making.domain.name;
        Err(SourceError::Unavailable(format!("TrustDomain {name} is remote")))
    }
}
