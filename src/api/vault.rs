//! `spec.authority.vault`: the PKI secrets engine of HashiCorp Vault or of OpenBao.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// A PKI engine of Vault or OpenBao.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("[has(self.caBundle), has(self.caSecretRef), has(self.caConfigMapRef)].exists_one(given, given)").message("name exactly one place of the CA certificates that Vault's own certificate is checked with: caBundle, caSecretRef or caConfigMapRef"),
    validation = Rule::new("(self.mode == 'Leaf') == has(self.role)").message("mode: Leaf needs a role, under which Vault signs; mode: Intermediate takes none")
)]
pub struct VaultAuthority {
    /// Its address, such as `https://vault.vault.svc:8200`. Plain HTTP is refused.
    #[schemars(length(min = 9, max = 300))]
    #[x_kube(validation = Rule::new("self.matches('^https://([A-Za-z0-9.-]+|[[][0-9A-Fa-f:.]+[]])(:[0-9]{1,5})?$')").message("write Vault's address with https and without a path, such as https://vault.vault.svc:8200"))]
    pub server: String,
    /// CA certificates in PEM, with which Vault's own certificate is checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    pub ca_bundle: Option<String>,
    /// The same in a Secret of the operator's namespace. Default key `ca.crt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<FileReference>,
    /// The same in a ConfigMap of the operator's namespace. Default key `ca.crt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_config_map_ref: Option<FileReference>,
    /// Vault's namespace, where it has such.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$')").message("write the path of a Vault namespace without a slash at either end, such as teams/research"))]
    pub namespace: Option<String>,
    /// Where the PKI engine is mounted. Default `pki`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::vault_mount")]
    pub mount: Option<String>,
    /// `Intermediate`: Vault signs an issuing CA, whose key the operator makes and keeps, and the
    /// operator signs leaves with it. `Leaf`: Vault signs every leaf.
    #[serde(default)]
    pub mode: VaultMode,
    /// The issuer of the engine that signs, by name or id. Default `default`, the engine's default
    /// issuer, whichever that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::vault_name")]
    pub issuer: Option<String>,
    /// `Leaf` mode: the role under which leaves are signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::vault_name")]
    pub role: Option<String>,
    /// How the operator logs in.
    pub auth: VaultAuth,
}

/// What Vault signs.
#[derive(
    schemars::JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default,
)]
pub enum VaultMode {
    /// Issuing CAs.
    #[default]
    Intermediate,
    /// Every leaf.
    Leaf,
}

/// How the operator logs in: exactly one.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.kubernetes), has(self.appRole)].exists_one(given, given)").message("name exactly one way to log in: kubernetes: {role: ...}, or appRole: {roleId: ..., secretIdRef: {name: ...}}"))]
pub struct VaultAuth {
    /// With a token of the operator's own ServiceAccount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<VaultKubernetesAuth>,
    /// With a role id and a secret id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_role: Option<VaultAppRoleAuth>,
}

/// Vault's `kubernetes` auth method.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct VaultKubernetesAuth {
    /// The role of the auth method.
    #[schemars(schema_with = "schema::vault_name")]
    pub role: String,
    /// Where the auth method is mounted. Default `kubernetes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::vault_mount")]
    pub mount: Option<String>,
    /// The audience of the token, where the auth method asks for one. Default: the API server's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub audience: Option<String>,
}

/// Vault's `approle` auth method.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct VaultAppRoleAuth {
    /// The role id. It is no secret.
    #[schemars(length(min = 1, max = 253))]
    pub role_id: String,
    /// Where the secret id is, in the operator's namespace. Default key `secretId`.
    pub secret_id_ref: FileReference,
    /// Where the auth method is mounted. Default `approle`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::vault_mount")]
    pub mount: Option<String>,
}

/// A file of a Secret or ConfigMap in the operator's namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct FileReference {
    /// Its name.
    #[schemars(schema_with = "schema::authority_secret")]
    pub name: String,
    /// The file in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub key: Option<String>,
}
