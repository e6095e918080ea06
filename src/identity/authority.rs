//! Where a trust domain's CAs come from, understood.

use crate::api::{AuthoritySpec, SlotKind};

/// Where CAs come from, with all that a kind needs to know.
#[derive(Clone, Debug, PartialEq)]
pub enum AuthoritySource {
    /// The operator makes them.
    SelfSigned,
    /// Somebody else puts one into a Secret of the operator's namespace.
    Secret { name: String },
}

/// Which kind of authority. A CA keeps the mark of the kind that it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AuthorityKind {
    SelfSigned,
    Secret,
}

/// What is wrong with `spec.authority`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    #[error("it names {0} authorities: name exactly one, such as selfSigned: {{}}")]
    NotOne(usize),
    #[error("secret.name is {0:?}, which is no Secret's name of your own: write another")]
    SecretName(String),
}

impl AuthoritySource {
    /// Understands `spec.authority`, or names the first rule that it breaks.
    pub fn parse(spec: &AuthoritySpec) -> Result<Self, AuthorityError> {
        let AuthoritySpec { self_signed, secret } = spec;
        let mut given = Vec::new();
        if self_signed.is_some() {
            given.push(Ok(AuthoritySource::SelfSigned));
        }
        if let Some(secret) = secret {
            given.push(own_secret(&secret.name).map(|name| AuthoritySource::Secret { name }));
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
        }
    }

    /// True if and only if a change of this Secret of the operator's namespace concerns it.
    pub fn reads(&self, secret: &str) -> bool {
        match self {
            AuthoritySource::SelfSigned => false,
            AuthoritySource::Secret { name } => name == secret,
        }
    }
}

impl AuthorityKind {
    /// Every kind.
    pub const ALL: [AuthorityKind; 2] = [AuthorityKind::SelfSigned, AuthorityKind::Secret];

    /// The field of `spec.authority`.
    pub fn as_str(self) -> &'static str {
        match self {
            AuthorityKind::SelfSigned => "selfSigned",
            AuthorityKind::Secret => "secret",
        }
    }

    /// True if and only if the operator has the key of such a CA of this kind.
    pub fn keeps_key(self, kind: SlotKind) -> bool {
        match self {
            AuthorityKind::SelfSigned => true,
            AuthorityKind::Secret => kind == SlotKind::Issuing,
        }
    }

    /// The kind of this name. CAs that were made before there were kinds carry none, and are
    /// self-signed.
    pub fn of(name: Option<&str>) -> Option<Self> {
        let Some(name) = name else { return Some(AuthorityKind::SelfSigned) };
        AuthorityKind::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// A Secret of the user's: one of the operator's own CAs would be taken up again and again.
fn own_secret(name: &str) -> Result<String, AuthorityError> {
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
    fn a_kind_is_known_by_its_field() {
        for kind in AuthorityKind::ALL {
            assert_eq!(AuthorityKind::of(Some(kind.as_str())), Some(kind));
        }
        assert_eq!(AuthorityKind::of(None), Some(AuthorityKind::SelfSigned));
        assert_eq!(AuthorityKind::of(Some("cloud")), None);
    }
}
