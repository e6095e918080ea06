//! `spec.authority.certManager`, understood.

use super::authority::AuthorityError;
use crate::api::CertManagerAuthority;

/// An issuer of cert-manager's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerName {
    pub name: String,
    pub kind: String,
    pub group: String,
}

impl IssuerName {
    /// Understands `spec.authority.certManager`, or names the first rule that it breaks.
    pub fn parse(given: &CertManagerAuthority) -> Result<Self, AuthorityError> {
        let issuer = &given.issuer_ref;
        let kind = issuer.kind.as_deref().unwrap_or("Issuer");
        let group = issuer.group.as_deref().unwrap_or("cert-manager.io");
        let is_lower = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-.".contains(&c);
        let is_name = |text: &str| !text.is_empty() && text.bytes().all(is_lower);
        let is_kind = kind.starts_with(|c: char| c.is_ascii_uppercase())
            && kind.bytes().all(|c| c.is_ascii_alphanumeric());
        match is_name(&issuer.name) && is_name(group) && is_kind {
            true => Ok(IssuerName {
                name: issuer.name.clone(),
                kind: kind.to_owned(),
                group: group.to_owned(),
            }),
            false => Err(AuthorityError::Issuer(format!("{}/{kind}/{group}", issuer.name))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn an_issuer_is_one_of_cert_managers_own_where_nothing_else_is_said() {
        let parse = |issuer: Value| {
            IssuerName::parse(&serde_json::from_value(json!({"issuerRef": issuer})).unwrap())
        };
        let issuer = parse(json!({"name": "corporate"})).unwrap();
        assert_eq!((issuer.kind.as_str(), issuer.group.as_str()), ("Issuer", "cert-manager.io"));
        for wrong in [
            json!({"name": ""}),
            json!({"name": "Corporate"}),
            json!({"name": "corporate", "kind": "issuer"}),
            json!({"name": "corporate", "group": "a/b"}),
        ] {
            assert!(matches!(parse(wrong.clone()), Err(AuthorityError::Issuer(_))), "{wrong}");
        }
    }
}
