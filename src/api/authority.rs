//! `spec.authority` of a TrustDomain: where its CA certificates come from.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// Where the CA certificate comes from: exactly one.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.selfSigned), has(self.secret)].exists_one(given, given)").message("name exactly one authority: write selfSigned: {}, or secret: {name: ...}"))]
pub struct AuthoritySpec {
    /// The operator makes a root CA and an issuing CA under it, each in a Secret of its own
    /// namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub self_signed: Option<SelfSigned>,
    /// An issuing CA with its key, which somebody else puts into a Secret of the operator's
    /// namespace. Another one in its place is a rotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretAuthority>,
}

/// A root of our own. It takes no settings; `spec.ca` shapes it.
#[derive(schemars::JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
pub struct SelfSigned {}

/// An issuing CA in a Secret, laid out as cert-manager does: `tls.crt` (the issuing CA, then its
/// intermediates), `tls.key`, `ca.crt` (the root).
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
pub struct SecretAuthority {
    /// The Secret's name, in the operator's namespace.
    #[schemars(schema_with = "schema::authority_secret")]
    pub name: String,
}
