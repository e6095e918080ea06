//! `spec.authority.remote`: somebody else's trust domain, of which only the bundle is known here.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{FileReference, schema};

/// The bundle of a trust domain whose certificates are signed elsewhere. No CA signs here.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.caBundle), has(self.caSecretRef), has(self.caConfigMapRef)].filter(given, given).size() <= 1").message("name at most one place of the CA certificates that the server's own certificate is checked with: caBundle, caSecretRef or caConfigMapRef; without one, it is checked with the roots of the operator's image"))]
pub struct RemoteAuthority {
    /// Where the bundle is fetched. Plain HTTP is refused, and so is a redirect.
    #[schemars(length(min = 9, max = 1024))]
    #[x_kube(validation = Rule::new("self.matches('^https://([A-Za-z0-9.-]+|[[][0-9A-Fa-f:.]+[]])(:[0-9]{1,5})?(/[A-Za-z0-9._~!$&()*+,;=:@%/?-]*)?$')").message("write an address with https and without user or fragment, such as https://spire.partner.example/bundle"))]
    pub url: String,
    /// How the bundle is written.
    pub format: RemoteFormat,
    /// CA certificates in PEM, with which the server's own certificate is checked. Default: the
    /// roots of the operator's image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    pub ca_bundle: Option<String>,
    /// The same in a Secret of the operator's namespace. Default key `ca.crt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<FileReference>,
    /// The same in a ConfigMap of the operator's namespace. Default key `ca.crt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_config_map_ref: Option<FileReference>,
    /// How often the bundle is fetched. Default: what a SPIFFE bundle asks for, or 5m. One that
    /// asks to be fetched more often than this is fetched as often as it asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('10s') && duration(self) <= duration('24h')").message("a bundle is fetched at most every 10s and at least every 24h: write a duration between the two"))]
    pub refresh_period: Option<String>,
}

/// How a bundle is written.
#[derive(
    schemars::JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default,
)]
pub enum RemoteFormat {
    /// Certificates in PEM, one after the other.
    #[default]
    #[serde(rename = "PEM")]
    Pem,
    /// A SPIFFE bundle: a JWK set, of which the keys for `x509-svid` are taken.
    #[serde(rename = "SPIFFE")]
    Spiffe,
}

/// The bundle that was fetched last and could be used. It stays when a later one cannot be had, and
/// stands here so that it outlives the operator.
#[derive(schemars::JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RemoteStatus {
    /// Where it came from.
    pub url: String,
    /// When it was fetched first. Fetching the same again changes nothing.
    pub since: Time,
    /// The number that a SPIFFE bundle gives itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "int64"))]
    pub sequence: Option<u64>,
    /// The CA certificates in it.
    pub certificates: Vec<RemoteCertificate>,
}

/// A CA certificate of a fetched bundle.
#[derive(schemars::JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RemoteCertificate {
    /// Its subject, for people.
    pub subject: String,
    /// SHA-256 of the certificate, lower-case hexadecimal.
    pub sha256: String,
    /// Valid until.
    pub not_after: Time,
    /// The certificate in PEM.
    pub certificate: String,
}
