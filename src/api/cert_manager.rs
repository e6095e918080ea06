//! `spec.authority.certManager`: an issuing CA that is requested of cert-manager.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// An issuer of cert-manager's, which signs the issuing CA.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct CertManagerAuthority {
    /// Which issuer.
    pub issuer_ref: CertManagerIssuer,
}

/// An issuer, as a CertificateRequest names it. An `Issuer` is one of the operator's namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct CertManagerIssuer {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$')").message("write the name of an issuer: lower-case letters, digits, '-' and '.'"))]
    pub name: String,
    /// Its kind: `Issuer` (default), `ClusterIssuer`, or that of an external issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Z][A-Za-z0-9]*$')").message("write the kind of an issuer, such as Issuer or ClusterIssuer"))]
    pub kind: Option<String>,
    /// Its API group. Default `cert-manager.io`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$')").message("write an API group, such as cert-manager.io"))]
    pub group: Option<String>,
}
