//! A bundle of somebody else's trust domain: what of it is trusted, or why nothing of it is.
//!
//! Whoever answers at the address decides whom our agents trust as that trust domain. So all of a
//! bundle is taken or none: one that holds what is no root is a mistake, of which a part would be
//! a guess.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use rustls_pki_types::CertificateDer;
use serde::Deserialize;

use crate::api::{RemoteCertificate, RemoteFormat, RemoteStatus};
use crate::identity::{Lifetime, REMOTE_PERIODS};
use crate::x509::{self, X509Error};

/// More roots than this are no bundle of one trust domain. SPIRE has two while it rotates.
pub const MOST_CERTIFICATES: usize = 32;
/// How often a bundle is fetched where neither the spec nor the bundle says so: SPIFFE asks for
/// five minutes (SPIFFE Trust Domain and Bundle, 4.1.2).
const DEFAULT_PERIOD: Lifetime = Lifetime::from_seconds(300);

/// A bundle that can be used.
#[derive(Clone, Debug, PartialEq)]
pub struct RemoteBundle {
    /// Roots that have not ended, each once, in the order in which they came.
    pub certificates: Vec<RemoteCertificate>,
    pub sequence: Option<u64>,
    /// How often it asks to be fetched, in seconds.
    pub refresh_hint: Option<u64>,
}

/// Why a bundle is not taken.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BundleRefusal {
    // What is wrong is not quoted: it may be a page that is none of our business.
    #[error("it cannot be read as certificates in PEM")]
    Pem,
    #[error(
        "it is no SPIFFE bundle, a JSON object with an array `keys` ({0}): see that the address and remote.format are those of the bundle"
    )]
    Json(String),
    #[error("its key {0} for x509-svid needs exactly one certificate in x5c, in base64")]
    Key(usize),
    #[error("it has no CA certificate: an empty bundle would have its agents trusted by nobody")]
    Empty,
    #[error("it has {0} CA certificates, more than {MOST_CERTIFICATES}")]
    TooMany(usize),
    #[error(
        "certificate {position} of it is no root ({why}): it is to hold self-signed CA certificates alone"
    )]
    NoRoot { position: usize, why: String },
    #[error("all its CA certificates have expired, the last at {0}")]
    Expired(Timestamp),
    #[error(
        "its sequence is {found}, and that of the bundle held is {held}: the server gives out an old one. If it was set up anew, change remote.url, if only by a `?` at its end, and its count begins again"
    )]
    Older { held: u64, found: u64 },
}

/// Reads a bundle and judges it.
///
/// # Errors
/// When anything in it is not what it should be, or nothing in it has not expired.
pub fn judge(
    bytes: &[u8],
    format: RemoteFormat,
    now: Timestamp,
) -> Result<RemoteBundle, BundleRefusal> {
    let (found, sequence, refresh_hint) = match format {
        RemoteFormat::Pem => match x509::read_pem(bytes) {
            Ok(found) => (found, None, None),
            Err(X509Error::NoCertificate) => return Err(BundleRefusal::Empty),
            Err(_) => return Err(BundleRefusal::Pem),
        },
        RemoteFormat::Spiffe => read_spiffe(bytes)?,
    };
    match found.len() {
        0 => return Err(BundleRefusal::Empty),
        count if count > MOST_CERTIFICATES => return Err(BundleRefusal::TooMany(count)),
        _ => {}
    }
    let mut certificates: Vec<RemoteCertificate> = Vec::new();
    for (index, der) in found.iter().enumerate() {
        let root =
            read_root(der).map_err(|why| BundleRefusal::NoRoot { position: index + 1, why })?;
        if !certificates.iter().any(|known| known.sha256 == root.sha256) {
            certificates.push(root);
        }
    }
    let last = certificates.iter().map(|root| root.not_after.0).max();
    certificates.retain(|root| root.not_after.0 > now);
    match last {
        Some(last) if certificates.is_empty() => Err(BundleRefusal::Expired(last)),
        _ => Ok(RemoteBundle { certificates, sequence, refresh_hint }),
    }
}

/// Says whether a bundle may take the place of the one that is held.
///
/// # Errors
/// When it is older, by the numbers that the two give themselves.
pub fn succeeds(
    bundle: &RemoteBundle,
    url: &str,
    held: Option<&RemoteStatus>,
) -> Result<(), BundleRefusal> {
    let held = held.filter(|held| held.url == url).and_then(|held| held.sequence);
    match (held, bundle.sequence) {
        (Some(held), Some(found)) if found < held => Err(BundleRefusal::Older { held, found }),
        _ => Ok(()),
    }
}

/// What is to be recorded: the bundle that was fetched, where it says something else than what is
/// held, and in any case without what has expired.
pub fn record(
    held: Option<&RemoteStatus>,
    fetched: Option<&RemoteBundle>,
    url: &str,
    now: Timestamp,
) -> Option<RemoteStatus> {
    let held = held.map(|held| RemoteStatus {
        certificates: without_expired(&held.certificates, now),
        ..held.clone()
    });
    let is_living = |root: &&RemoteCertificate| root.not_after.0 > now;
    let living = |fetched: &RemoteBundle| fetched.certificates.iter().any(|root| is_living(&root));
    let Some(fetched) = fetched.filter(|fetched| living(fetched)) else { return held };
    let new = RemoteStatus {
        url: url.to_owned(),
        since: held.as_ref().map_or(Time(now), |held| held.since.clone()),
        sequence: fetched.sequence,
        certificates: without_expired(&fetched.certificates, now),
    };
    match held {
        Some(held) if held == new => Some(held),
        _ => Some(RemoteStatus { since: Time(now), ..new }),
    }
}

/// The certificates to trust, one after the other.
pub fn bundle_of(held: &RemoteStatus) -> String {
    held.certificates.iter().map(|root| root.certificate.as_str()).collect()
}

/// How long to wait before the bundle is fetched again: as the spec says or, where the bundle asks
/// for less or the spec says nothing, as that does.
pub fn period(asked: Option<Lifetime>, hint: Option<u64>) -> Lifetime {
    let (shortest, longest) = (*REMOTE_PERIODS.start(), *REMOTE_PERIODS.end());
    let hint = hint.filter(|hint| *hint > 0);
    let hint = hint.map(|hint| Lifetime::from_seconds(hint.clamp(shortest, longest)));
    match (asked, hint) {
        (Some(asked), Some(hint)) => asked.min(hint),
        (one, other) => one.or(other).unwrap_or(DEFAULT_PERIOD),
    }
}

/// All of them where every one has expired: what was published is not emptied by time.
fn without_expired(roots: &[RemoteCertificate], now: Timestamp) -> Vec<RemoteCertificate> {
    let living: Vec<_> = roots.iter().filter(|root| root.not_after.0 > now).cloned().collect();
    if living.is_empty() { roots.to_vec() } else { living }
}

fn read_root(der: &CertificateDer<'_>) -> Result<RemoteCertificate, String> {
    let ca = x509::read_ca(der).map_err(|error| error.to_string())?;
    let subject: String = ca.subject.chars().take(LONGEST_SUBJECT).collect();
    if !x509::is_signed_by(der, der) {
        return Err(format!("{subject} is not signed with its own key"));
    }
    Ok(RemoteCertificate {
        subject,
        sha256: ca.fingerprint.to_string(),
        not_after: Time(ca.not_after),
        certificate: x509::write_pem([der]),
    })
}

/// A subject is for people, and somebody else's text.
const LONGEST_SUBJECT: usize = 200;

type Read = (Vec<CertificateDer<'static>>, Option<u64>, Option<u64>);

/// SPIFFE Trust Domain and Bundle, section 4: keys of other uses are not ours to judge.
fn read_spiffe(bytes: &[u8]) -> Result<Read, BundleRefusal> {
    #[derive(Deserialize)]
    struct Bundle {
        keys: Vec<Key>,
        spiffe_sequence: Option<u64>,
        spiffe_refresh_hint: Option<u64>,
    }
    #[derive(Deserialize)]
    struct Key {
        #[serde(rename = "use")]
        purpose: Option<String>,
        #[serde(default)]
        x5c: Vec<String>,
    }
    let bundle: Bundle = serde_json::from_slice(bytes).map_err(|error| {
        BundleRefusal::Json(format!("{:?} at line {}", error.classify(), error.line()))
    })?;
    let mut certificates = Vec::new();
    for (index, key) in bundle.keys.iter().enumerate() {
        if key.purpose.as_deref() != Some("x509-svid") {
            continue;
        }
        let [one] = key.x5c.as_slice() else { return Err(BundleRefusal::Key(index + 1)) };
        let der = STANDARD.decode(one).map_err(|_| BundleRefusal::Key(index + 1))?;
        certificates.push(CertificateDer::from(der));
    }
    Ok((certificates, bundle.spiffe_sequence, bundle.spiffe_refresh_hint))
}

#[cfg(test)]
mod tests;
