//! SPIFFE IDs and trust domain names (SPIFFE-ID section 2).

use std::fmt;
use std::sync::Arc;

/// A trust domain's name: the authority part of its SPIFFE IDs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomainName(String);

/// A SPIFFE ID with a path: `spiffe://<trust domain>/<segment>/...`. Copies share the text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId(Arc<str>);

/// What makes a text no trust domain name or no SPIFFE ID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeError {
    #[error(
        "{0:?} is not a trust domain: write 1 to 255 lower-case letters, digits, '.', '-' and '_'"
    )]
    TrustDomain(String),
    #[error(
        "{0:?} is not the path of a SPIFFE ID: write /segment/segment of letters, digits, '.', '-' and '_', no segment '.' or '..'"
    )]
    Path(String),
    #[error("{0} would be longer than the 2048 bytes that SPIFFE allows: use shorter names")]
    TooLong(String),
}

/// SPIFFE-ID 2.3: implementations must support 2048 bytes, and should not make more.
const LONGEST_ID: usize = 2048;

impl TrustDomainName {
    /// Understands a trust domain's name (SPIFFE-ID 2.1).
    pub fn parse(text: &str) -> Result<Self, SpiffeError> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
        if (1..=255).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(TrustDomainName(text.to_owned()))
        } else {
            Err(SpiffeError::TrustDomain(text.to_owned()))
        }
    }

    /// The name alone.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The ID of the trust domain itself, which its CAs carry: no path.
    pub fn authority_id(&self) -> String {
        format!("spiffe://{}", self.0)
    }
}

impl SpiffeId {
    /// The ID of a workload, which must have a path (SPIFFE-ID 2.2, X.509-SVID 2).
    pub fn new(trust_domain: &TrustDomainName, path: &str) -> Result<Self, SpiffeError> {
        let is_segment = |segment: &str| {
            !segment.is_empty()
                && segment != "."
                && segment != ".."
                && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        let good = path.strip_prefix('/').is_some_and(|path| path.split('/').all(is_segment));
        if !good {
            return Err(SpiffeError::Path(path.to_owned()));
        }
        let id = format!("spiffe://{}{path}", trust_domain.0);
        if id.len() > LONGEST_ID {
            return Err(SpiffeError::TooLong(id));
        }
        Ok(SpiffeId(id.into()))
    }

    /// Reads a whole ID; None where it is not one of a workload.
    pub fn read(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("spiffe://")?;
        let (domain, path) = rest.split_at(rest.find('/')?);
        SpiffeId::new(&TrustDomainName::parse(domain).ok()?, path).ok()
    }

    /// The name of its trust domain.
    pub fn trust_domain(&self) -> &str {
        let rest = self.0.strip_prefix("spiffe://").unwrap_or_default();
        rest.split('/').next().unwrap_or_default()
    }

    /// The whole ID.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn trust_domains_and_paths_are_what_the_standard_says() {
        let domain = TrustDomainName::parse("prod.example.com").unwrap();
        for path in ["/ns/a/sa/b", "/A", "/a.b/c_d-e", "/..."] {
            assert_eq!(
                SpiffeId::new(&domain, path).unwrap().as_str(),
                format!("spiffe://prod.example.com{path}")
            );
        }
        for path in ["", "/", "a", "/a/", "//a", "/a//b", "/.", "/a/..", "/a%20b", "/é", "/a?b#c"]
        {
            assert!(SpiffeId::new(&domain, path).is_err(), "{path}");
        }
        for name in ["", "Prod", "prod:8443", "a/b", "é", &"a".repeat(256)] {
            assert!(TrustDomainName::parse(name).is_err(), "{name}");
        }
        assert!(SpiffeId::new(&domain, &format!("/{}", "a".repeat(2048))).is_err());
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(name in ".*", path in ".*") {
            let _ = TrustDomainName::parse(&name);
            let domain = TrustDomainName::parse("a").unwrap();
            if let Ok(id) = SpiffeId::new(&domain, &path) {
                prop_assert!(id.as_str().is_ascii());
                prop_assert_eq!(id.as_str(), format!("spiffe://a{path}"));
            }
        }
    }
}
