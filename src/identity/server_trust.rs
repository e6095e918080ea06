//! Files in the operator's namespace that a spec names, and the CA certificates with which the own
//! certificate of a server is checked.

use super::authority::{AuthorityError, own_secret};
use crate::api::FileReference;
use crate::x509;

/// A file of a Secret or ConfigMap in the operator's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileName {
    pub object: String,
    pub key: String,
}

/// Where the CA certificates are with which the own certificate of a server is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerTrust {
    /// In PEM.
    Inline(String),
    Secret(FileName),
    ConfigMap(FileName),
}

impl FileName {
    /// Understands a reference. Without a key it is to the file `default`.
    pub fn parse(given: &FileReference, default: &str) -> Result<Self, AuthorityError> {
        let key = given.key.clone().unwrap_or_else(|| default.to_owned());
        Ok(FileName { object: own_secret(&given.name)?, key })
    }
}

impl ServerTrust {
    /// Understands `caBundle`, `caSecretRef` and `caConfigMapRef` of a spec, of which at most one is
    /// given. `several` is what is wrong where so many are, `no_certificate` where `caBundle` cannot
    /// be read, for this reason.
    pub fn parse<E: Into<AuthorityError>>(
        bundle: Option<&str>,
        secret: Option<&FileReference>,
        config_map: Option<&FileReference>,
        several: impl Fn(usize) -> E,
        no_certificate: impl Fn(String) -> E,
    ) -> Result<Option<Self>, AuthorityError> {
        let file = |given| FileName::parse(given, "ca.crt");
        match (bundle, secret, config_map) {
            (None, None, None) => Ok(None),
            (Some(pem), None, None) => match x509::read_pem(pem.as_bytes()) {
                Ok(_) => Ok(Some(ServerTrust::Inline(pem.to_owned()))),
                Err(error) => Err(no_certificate(error.to_string()).into()),
            },
            (None, Some(given), None) => Ok(Some(ServerTrust::Secret(file(given)?))),
            (None, None, Some(given)) => Ok(Some(ServerTrust::ConfigMap(file(given)?))),
            _ => {
                let files = [secret, config_map].into_iter().flatten().count();
                Err(several(files + usize::from(bundle.is_some())).into())
            }
        }
    }

    /// True if and only if they are in this Secret.
    pub fn reads(&self, secret: &str) -> bool {
        matches!(self, ServerTrust::Secret(file) if file.object == secret)
    }
}
