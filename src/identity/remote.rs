//! `spec.authority.remote`, understood: where the bundle is, how it is written, and whom to believe
//! that it is the one.

use super::authority::AuthorityError;
use super::server_trust::ServerTrust;
use super::{Lifetime, LifetimeError};
use crate::api::{RemoteAuthority, RemoteFormat};

/// Where a bundle is fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteAddress {
    /// As it was written.
    pub url: String,
    pub format: RemoteFormat,
    /// None for the roots that the operator's image has.
    pub trust: Option<ServerTrust>,
    /// The longest time between two fetches, where the spec says one.
    pub period: Option<Lifetime>,
}

/// What is wrong with `spec.authority.remote`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RemoteSpecError {
    #[error(
        "remote.url is {0:?}: write an address with https and without user or fragment, such as https://spire.partner.example/bundle"
    )]
    Url(String),
    #[error("remote names {0} of caBundle, caSecretRef and caConfigMapRef: name at most one")]
    Trust(usize),
    #[error("remote.caBundle holds no certificate in PEM: {0}")]
    CaBundle(String),
    #[error("remote.refreshPeriod: {0}")]
    Period(LifetimeError),
    #[error("remote.refreshPeriod is {0}: write a duration between 10s and 24h")]
    PeriodRange(Lifetime),
}

/// The shortest and the longest period that a spec may ask for, in seconds.
pub const REMOTE_PERIODS: std::ops::RangeInclusive<u64> = 10..=24 * 3600;

impl RemoteAddress {
    /// Understands `spec.authority.remote`, or names the first rule that it breaks.
    pub fn parse(given: &RemoteAuthority) -> Result<Self, AuthorityError> {
        if !is_https(&given.url) {
            return Err(RemoteSpecError::Url(given.url.clone()).into());
        }
        let period = given.refresh_period.as_deref().map(str::parse::<Lifetime>).transpose();
        let period = period.map_err(RemoteSpecError::Period)?;
        if let Some(period) = period
            && !REMOTE_PERIODS.contains(&period.seconds())
        {
            return Err(RemoteSpecError::PeriodRange(period).into());
        }
        Ok(RemoteAddress {
            url: given.url.clone(),
            format: given.format,
            trust: trust(given)?,
            period,
        })
    }

    /// True if and only if a change of this Secret of the operator's namespace concerns it.
    pub fn reads(&self, secret: &str) -> bool {
        self.trust.as_ref().is_some_and(|trust| trust.reads(secret))
    }
}

/// True if and only if it is `https://`, a host with a port or without, and a path with a query or
/// without: no user, no fragment.
fn is_https(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("https://") else { return false };
    let is_printable = rest.bytes().all(|c| c.is_ascii_graphic() && !b"#\\\"<>^`{|}".contains(&c));
    let authority = rest.split('/').next().unwrap_or_default();
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        // An address of IPv6.
        Some((address, after)) => {
            let is_address = address.bytes().all(|c| c.is_ascii_hexdigit() || b":.".contains(&c));
            let port = if after.is_empty() { Some("443") } else { after.strip_prefix(':') };
            (is_address.then_some(address), port)
        }
        None => {
            let (host, port) = authority.rsplit_once(':').unwrap_or((authority, "443"));
            let is_host = host.bytes().all(|c| c.is_ascii_alphanumeric() || b".-".contains(&c));
            (is_host.then_some(host), Some(port))
        }
    };
    let port = port.and_then(|port| port.parse::<u16>().ok()).unwrap_or_default();
    is_printable && port > 0 && host.is_some_and(|host| !host.is_empty())
}

fn trust(given: &RemoteAuthority) -> Result<Option<ServerTrust>, AuthorityError> {
    ServerTrust::parse(
        given.ca_bundle.as_deref(),
        given.ca_secret_ref.as_ref(),
        given.ca_config_map_ref.as_ref(),
        RemoteSpecError::Trust,
        RemoteSpecError::CaBundle,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn parse(change: Value) -> Result<RemoteAddress, AuthorityError> {
        let mut spec = json!({"url": "https://partner.example/bundle", "format": "SPIFFE"});
        for (key, value) in change.as_object().unwrap() {
            spec[key] = value.clone();
        }
        RemoteAddress::parse(&serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn an_address_is_https_without_user_and_fragment() {
        for (url, good) in [
            ("https://partner.example", true),
            ("https://partner.example:8443/a/b?c=d", true),
            ("https://10.0.0.1:1/", true),
            ("https://[fd00::1]/x", true),
            ("https://[fd00::1]:9443", true),
            ("http://partner.example", false),
            ("https://", false),
            ("https:///bundle", false),
            ("https://user@partner.example/", false),
            ("https://partner.example/#part", false),
            ("https://partner.example/a b", false),
            ("https://partner.example:0/", false),
            ("https://partner.example:70000/", false),
            ("https://[::1/", false),
            ("https://partner.example?c=d", false),
        ] {
            let parsed = parse(json!({"url": url}));
            assert_eq!(parsed.is_ok(), good, "{url}: {parsed:?}");
        }
    }

    #[test]
    fn the_server_is_checked_with_one_place_of_certificates_or_the_systems() {
        assert_eq!(parse(json!({})).unwrap().trust, None);
        let secret = parse(json!({"caSecretRef": {"name": "partner-ca"}})).unwrap();
        assert!(secret.reads("partner-ca") && !secret.reads("another"));
        let both = json!({"caSecretRef": {"name": "a"}, "caConfigMapRef": {"name": "b"}});
        assert_eq!(parse(both), Err(RemoteSpecError::Trust(2).into()));
        let garbage = parse(json!({"caBundle": "nothing"}));
        assert!(matches!(garbage, Err(AuthorityError::Remote(RemoteSpecError::CaBundle(_)))));
    }

    #[test]
    fn a_period_is_neither_too_short_nor_too_long() {
        for (period, good) in
            [("10s", true), ("24h", true), ("9s", false), ("25h", false), ("soon", false)]
        {
            assert_eq!(parse(json!({"refreshPeriod": period})).is_ok(), good, "{period}");
        }
    }
}
