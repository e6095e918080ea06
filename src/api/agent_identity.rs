//! `AgentIdentity`: one agent's identity, namespaced, ten lines for a team to write.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::schema;

/// What an agent is called, which pods may carry the name, and how its certificate reaches them.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[kube(
    group = "countersign.dev",
    version = "v1alpha1",
    kind = "AgentIdentity",
    plural = "agentidentities",
    shortname = "agid",
    category = "countersign",
    namespaced,
    status = "AgentIdentityStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "The identity of one AI agent: a SPIFFE ID, and the short-lived certificate that proves it.",
    validation = Rule::new("size(self.metadata.name) <= 63").message("an AgentIdentity's name is also a label on its pods: write at most 63 characters"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "SPIFFE ID", type_ = "string", json_path = ".status.spiffeId"),
    printcolumn(name = "Secret", type_ = "string", json_path = ".status.secretName"),
    printcolumn(name = "Expires", type_ = "string", json_path = ".status.certificate.notAfter"),
    printcolumn(name = "Renews", type_ = "string", json_path = ".status.certificate.renewAt"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message", priority = 1),
    printcolumn(name = "Trust domain", type_ = "string", json_path = ".status.trustDomain", priority = 1),
    printcolumn(name = "Revoked", type_ = "string", json_path = ".status.revoked.since", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct AgentIdentitySpec {
    /// The ServiceAccount the agent's pods run as. This is what binds the identity to pods.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$')").message("write the name of a ServiceAccount of this namespace: lower-case letters, digits, '-' and '.'"))]
    pub service_account_name: String,

    /// Narrows the identity to some of the ServiceAccount's pods. By default it is all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::pod_selector")]
    pub pod_selector: Option<LabelSelector>,

    /// The TrustDomain that vouches for the identity. By default the one marked `default: true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub trust_domain: Option<String>,

    /// What the agent does (planner, retrieval, executor, tool ...). Becomes a label on its pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$')").message("a role becomes a label's value: at most 63 letters, digits, '-', '_' and '.', starting and ending with a letter or digit"))]
    pub role: Option<String>,

    /// DNS names for the certificate, beside the SPIFFE ID. By default only names of this
    /// namespace's Services are allowed (`<service>.<namespace>.svc`, with or without the
    /// cluster's domain); a TrustDomain can allow more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::dns_names")]
    pub dns_names: Vec<String>,

    /// The certificate's life and key.
    #[serde(default)]
    pub certificate: CertificateSpec,

    /// How the certificate reaches the agent.
    #[serde(default)]
    pub delivery: DeliverySpec,

    /// Revokes the identity while it is given: nothing is signed, every certificate that it ever
    /// got goes on the CRL, and the key is taken out of the Secret. Taking it away gives a new
    /// key and certificate; those revoked stay revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<RevokedSpec>,

    /// Single certificates of this identity to revoke, such as one that was copied. The identity
    /// gets a new key at once if it is the one that it uses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["serialNumber"]))]
    pub revoked_certificates: Vec<RevokedCertificate>,
}

/// Why an identity is revoked.
#[derive(schemars::JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RevokedSpec {
    /// What stands on the CRL.
    pub reason: RevocationReason,
    /// For people; it goes nowhere but into status, Events and the audit log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub message: Option<String>,
}

/// One certificate to revoke.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RevokedCertificate {
    /// As `status.certificate.serialNumber` and `status.former` have it.
    #[schemars(length(min = 32, max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9a-f]{32}$')").message("write a serial number as status has it: 32 hexadecimal digits in lower case"))]
    pub serial_number: String,
    /// What stands on the CRL. Default KeyCompromise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<RevocationReason>,
}

/// The reasons of RFC 5280, section 5.3.1, that fit an agent's certificate. CertificateHold is not
/// among them: what is revoked stays revoked. RemoveFromCRL is for delta CRLs, and AACompromise
/// for attribute certificates.
#[derive(
    schemars::JsonSchema,
    Serialize,
    Deserialize,
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
)]
pub enum RevocationReason {
    /// No reason is given.
    Unspecified,
    /// The key is, or may be, in wrong hands.
    KeyCompromise,
    /// The CA's key is.
    #[serde(rename = "CACompromise")]
    CaCompromise,
    /// The agent belongs to somebody else now.
    AffiliationChanged,
    /// Another certificate has taken its place.
    Superseded,
    /// The agent is not needed any more. What deleting an AgentIdentity means.
    CessationOfOperation,
    /// The agent may not do any more what it did.
    PrivilegeWithdrawn,
}

/// The certificate's life and key.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.renewBefore) || duration(self.renewBefore) < (has(self.duration) ? duration(self.duration) : duration('1h'))").message("renewBefore must be shorter than duration (which is 1h where it is not given)"))]
pub struct CertificateSpec {
    /// How long a certificate lives. Default 1h, at least 5m, at most what the TrustDomain allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('5m')").message("a certificate lives at least 5m: write 5m or more"))]
    pub duration: Option<String>,

    /// How long before its end a certificate is renewed. Default: a third of the life that was
    /// really issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('30s')").message("renewBefore must leave time to renew: write 30s or more"))]
    pub renew_before: Option<String>,

    /// The algorithm of the agent's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_algorithm: Option<KeyAlgorithm>,
}

/// The algorithms an agent's key may have.
#[derive(
    schemars::JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash, Default,
)]
pub enum KeyAlgorithm {
    /// NIST P-256, the default: every TLS library has it, and it is the fastest to make.
    #[default]
    #[serde(rename = "ECDSA-P256")]
    EcdsaP256,
    /// NIST P-384.
    #[serde(rename = "ECDSA-P384")]
    EcdsaP384,
    /// Ed25519 (RFC 8410). Envoy and browsers do not take it.
    Ed25519,
    /// RSA with 2048 bits.
    #[serde(rename = "RSA-2048")]
    Rsa2048,
    /// RSA with 3072 bits.
    #[serde(rename = "RSA-3072")]
    Rsa3072,
    /// RSA with 4096 bits.
    #[serde(rename = "RSA-4096")]
    Rsa4096,
}

/// How a certificate reaches the agent.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct DeliverySpec {
    /// `Secret`: a Secret of type `kubernetes.io/tls`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<DeliveryMode>,

    /// The Secret's name. Default `<name>-identity`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$')").message("write the name of a Secret: lower-case letters, digits, '-' and '.'"))]
    pub secret_name: Option<String>,

    /// Labels and annotations to put on the Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_template: Option<SecretTemplate>,

    /// Further files beside tls.crt, tls.key and ca.crt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3), extend("x-kubernetes-list-type" = "set"))]
    pub formats: Vec<ExtraFormat>,

    /// What becomes of the Secret when the AgentIdentity is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
}

/// Ways to deliver.
#[derive(
    schemars::JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default,
)]
pub enum DeliveryMode {
    /// The operator makes the key and writes it with the certificate into a Secret.
    #[default]
    Secret,
}

/// Labels and annotations to put on the Secret.
#[derive(schemars::JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct SecretTemplate {
    /// Labels for the Secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::template_labels")]
    pub labels: BTreeMap<String, String>,
    /// Annotations for the Secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::template_map")]
    pub annotations: BTreeMap<String, String>,
}

/// Further files of the Secret.
#[derive(
    schemars::JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord,
)]
pub enum ExtraFormat {
    /// `tls-combined.pem`: key, leaf and issuing CA in one file (HAProxy, MongoDB, ...).
    #[serde(rename = "CombinedPEM")]
    CombinedPem,
    /// `keystore.p12` and `keystore.password` (Java, .NET).
    #[serde(rename = "PKCS12")]
    Pkcs12,
    /// `envoy-identity.yaml` with `envoy-trust.yaml` or `envoy-trust-crl.yaml`, which Envoy loads and
    /// reloads by itself.
    #[serde(rename = "EnvoySDS")]
    EnvoySds,
}

/// What becomes of the Secret when the AgentIdentity is deleted.
#[derive(
    schemars::JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default,
)]
pub enum DeletionPolicy {
    /// It goes with it.
    #[default]
    Delete,
    /// It stays until somebody deletes it; its certificate still expires.
    Orphan,
}

/// What the operator last saw and did.
#[derive(schemars::JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct AgentIdentityStatus {
    /// `Ready` and `PodsLabelled`; docs/reference.md lists the reasons.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// The SPIFFE ID this identity stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spiffe_id: Option<String>,
    /// The TrustDomain that vouches for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_domain: Option<String>,
    /// The Secret that holds the certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,
    /// The certificate in the Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateStatus>,
    /// How many certificates this identity has had; the serial number of the next follows from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "int64"))]
    pub revision: Option<u64>,
    /// Certificates that it had before and that have not ended yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<FormerCertificate>,
    /// Since when it is revoked, and what is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<RevokedStatus>,
    /// The pods that carry the identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<PodsStatus>,
    /// Attempts to issue that failed since the last that succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "int32"))]
    pub failed_attempts: Option<u32>,
    /// The latest of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<LastFailure>,
}

/// The certificate in the Secret.
#[derive(schemars::JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CertificateStatus {
    /// Lower-case hexadecimal.
    pub serial_number: String,
    /// SHA-256 of the DER certificate, lower-case hexadecimal.
    pub sha256_fingerprint: String,
    /// Valid from.
    pub not_before: Time,
    /// Valid until.
    pub not_after: Time,
    /// When it will be renewed.
    pub renew_at: Time,
    /// The key id of the issuing CA that signed it, lower-case hexadecimal.
    pub authority_key_id: String,
    /// Certificates issued to this identity so far.
    #[schemars(extend("format" = "int64"))]
    pub revision: u64,
    /// Why it was issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A certificate that was issued, is not the one in use, and has not ended.
#[derive(schemars::JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct FormerCertificate {
    /// Lower-case hexadecimal.
    pub serial_number: String,
    /// Valid until.
    pub not_after: Time,
    /// The key id of the issuing CA that signed it, lower-case hexadecimal.
    pub authority_key_id: String,
    /// Which of the identity's certificates it was, counted from 1.
    #[schemars(extend("format" = "int64"))]
    pub revision: u64,
    /// Why it was issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How many certificates this stands for, counting back from this one, where there were so
    /// many that they are not listed one by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "int64"))]
    pub count: Option<u64>,
}

/// What was revoked.
#[derive(schemars::JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RevokedStatus {
    /// Since when it stands on the CRL.
    pub since: Time,
    /// Why.
    pub reason: RevocationReason,
    /// Serial numbers of its certificates that had not ended then, lower-case hexadecimal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub serial_numbers: Vec<String>,
}

/// The pods that carry the identity.
#[derive(schemars::JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct PodsStatus {
    /// Pods of the ServiceAccount that the selector matches.
    #[schemars(extend("format" = "int32"))]
    pub matched: u32,
    /// Those of them that carry this identity's labels.
    #[schemars(extend("format" = "int32"))]
    pub labelled: u32,
}

/// An attempt to issue that failed.
#[derive(schemars::JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LastFailure {
    /// When.
    pub time: Time,
    /// The condition's reason at that time.
    pub reason: String,
    /// What went wrong and what to do.
    pub message: String,
}
