//! `spec.authority` of a TrustDomain: where its CA certificates come from.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{CertManagerAuthority, RemoteAuthority, VaultAuthority, schema};

/// Where the CA certificate comes from: exactly one.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.selfSigned), has(self.secret), has(self.pkcs11), has(self.vault), has(self.certManager), has(self.remote)].exists_one(given, given)").message("name exactly one authority: write selfSigned: {}, secret: {name: ...}, pkcs11: {module: ..., tokenLabel: ..., pinSecretRef: {name: ...}}, vault: {server: ..., auth: ...}, certManager: {issuerRef: {name: ...}} or remote: {url: ..., format: ...}"))]
#[x_kube(validation = Rule::new("has(self.remote) == has(oldSelf.remote)").message("remote and the authorities that sign cannot take each other's place: identities would lose their CA, or somebody else's trust domain be signed for here. Create another TrustDomain"))]
pub struct AuthoritySpec {
    /// The operator makes a root CA and an issuing CA under it, each in a Secret of its own
    /// namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub self_signed: Option<SelfSigned>,
    /// An issuing CA with its key, which somebody else puts into a Secret of the operator's
    /// namespace. Another one in its place is a rotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretAuthority>,
    /// The PKI engine of HashiCorp Vault or of OpenBao.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vault: Option<VaultAuthority>,
    /// The operator makes a root CA and an issuing CA under it, with keys that a token (an HSM, a
    /// TPM) makes and never gives away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pkcs11: Option<Pkcs11Authority>,
    /// An issuer of cert-manager's, which signs issuing CAs that are requested of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_manager: Option<CertManagerAuthority>,
    /// No CA: the bundle of somebody else's trust domain, which is fetched and published. No
    /// identity can belong to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<RemoteAuthority>,
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

/// A token that a PKCS#11 module speaks for.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Pkcs11Authority {
    /// The module: the path of a library in the operator's container, where it has to be mounted.
    #[schemars(length(min = 2, max = 512))]
    #[x_kube(validation = Rule::new("self.startsWith('/') && !self.contains('/../')").message("write the module's whole path in the operator's container, such as /usr/lib/softhsm/libsofthsm2.so"))]
    pub module: String,
    /// The token's label. It cannot be changed: the keys of the CAs are in that token.
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(
        validation = Rule::new("self == self.trim()").message("write the token's label without the spaces that fill it up"),
        validation = Rule::new("self == oldSelf").message("the keys of the CAs are in the token that was named first: to move to another one, make the authority selfSigned, wait until the rotation is over, and then name the other token")
    )]
    pub token_label: String,
    /// Where the PIN of the token's user is.
    pub pin_secret_ref: PinReference,
}

/// A file of a Secret in the operator's namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct PinReference {
    /// The Secret's name.
    #[schemars(schema_with = "schema::authority_secret")]
    pub name: String,
    /// The file in it. Default `pin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub key: Option<String>,
}
