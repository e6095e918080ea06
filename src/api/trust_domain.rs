//! `TrustDomain`: one root of trust with a name, cluster-scoped, declared once by the platform.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::agent_identity::KeyAlgorithm;
use super::authority::AuthoritySpec;
use super::remote::RemoteStatus;
use super::schema;

/// Whose certificates are trusted, who may have one, and how the trust reaches namespaces.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[kube(
    group = "countersign.dev",
    version = "v1alpha1",
    kind = "TrustDomain",
    plural = "trustdomains",
    shortname = "td",
    category = "countersign",
    status = "TrustDomainStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A root of trust with a name: spiffe://<domain>/...",
    validation = Rule::new("size(self.metadata.name) <= 63").message("a TrustDomain's name is also a label: write at most 63 characters"),
    printcolumn(name = "Domain", type_ = "string", json_path = ".spec.domain"),
    printcolumn(name = "Default", type_ = "boolean", json_path = ".spec.default"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Identities", type_ = "integer", json_path = ".status.identities.total"),
    printcolumn(name = "Issued", type_ = "integer", json_path = ".status.identities.ready"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.default) && self.default && has(self.authority.remote))").message("no CA signs in a remote trust domain, so it cannot be the one of identities that name none: leave out default: true"))]
pub struct TrustDomainSpec {
    /// The name in every SPIFFE ID of this trust domain. It cannot be changed: every certificate
    /// and every policy speaks of it.
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(
        validation = Rule::new("self.matches('^[a-z0-9._-]+$')").message("write a trust domain as SPIFFE has it: lower-case letters, digits, '.', '-' and '_', such as prod.example.com"),
        validation = Rule::new("self == oldSelf").message("a trust domain's domain cannot be changed: create another TrustDomain and move identities to it")
    )]
    pub domain: String,

    /// Whether identities that name no trust domain belong to this one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub default: bool,

    /// Where the CA certificate comes from.
    pub authority: AuthoritySpec,

    /// The CA certificates' lives and keys.
    #[serde(default)]
    pub ca: CaSpec,

    /// Who may have an identity, and of what shape.
    #[serde(default)]
    pub identities: IdentitiesSpec,

    /// Where the bundle is published.
    #[serde(default)]
    pub bundle: BundleSpec,

    /// How often revocation is told of.
    #[serde(default)]
    pub revocation: RevocationSpec,

    /// What to do when the TrustDomain is deleted while identities belong to it. Default Hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<TrustDomainDeletion>,
}

/// What to do when a TrustDomain is deleted while identities belong to it.
#[derive(
    schemars::JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default,
)]
pub enum TrustDomainDeletion {
    /// Hold it, and serve them, until they are gone.
    #[default]
    Hold,
    /// Let it go: they keep their certificates until these end, and get no others.
    Orphan,
}

/// The CA certificates' lives and keys. They apply to CAs that are made from now on.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.issuingLifetime) ? duration(self.issuingLifetime) : duration('8760h')) <= (has(self.rootLifetime) ? duration(self.rootLifetime) : duration('87600h'))").message("issuingLifetime (8760h where it is not given) must not be longer than rootLifetime (87600h where it is not given)"))]
#[x_kube(validation = Rule::new("(has(self.issuingLifetime) ? duration(self.issuingLifetime) : duration('8760h')).getSeconds() >= 6 * (has(self.soak) ? duration(self.soak) : duration('10m')).getSeconds()").message("issuingLifetime (8760h where it is not given) must be at least six times soak (10m where it is not given): write a longer issuingLifetime or a shorter soak, or a rotation of the root could not end before the issuing CA does"))]
pub struct CaSpec {
    /// How long the root CA lives. Default 87600h (ten years).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1h')").message("a root CA lives at least 1h: write 1h or more"))]
    pub root_lifetime: Option<String>,
    /// How long an issuing CA lives. Default 8760h (one year).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('10m')").message("an issuing CA lives at least 10m: write 10m or more"))]
    pub issuing_lifetime: Option<String>,
    /// The algorithm of both CA keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_algorithm: Option<CaKeyAlgorithm>,
    /// How long a new root CA is trusted everywhere before it signs: the time that agents take to
    /// see and load a new bundle. Default 10m; a kubelet takes up to 100 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub soak: Option<String>,
    /// Asks for newer CAs: those with a lower number than this are rotated out.
    /// `kubectl countersign rotate-ca` raises it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least: Option<SlotNumbers>,
    /// What to do when a new bundle has not reached every target an hour after it was published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when_unreached: Option<WhenUnreached>,
    /// Key ids of root or issuing CAs that are not to be trusted from now on, without overlap:
    /// agents that have not yet got a certificate of another CA are cut off. For a CA key that is
    /// in wrong hands.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::key_ids")]
    pub distrust: Vec<String>,
}

/// Numbers of CAs, as they stand in `status.slots`.
#[derive(
    schemars::JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default,
)]
pub struct SlotNumbers {
    /// The least number of the root CA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000), extend("format" = "int32"))]
    pub root: Option<u32>,
    /// The least number of the issuing CA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000), extend("format" = "int32"))]
    pub issuing: Option<u32>,
}

/// What to do when a new bundle does not reach every target.
#[derive(
    schemars::JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default,
)]
pub enum WhenUnreached {
    /// Wait for a person, until the old CA is about to end.
    #[default]
    Wait,
    /// Go on: whoever was not reached will not trust certificates of the new CA.
    Proceed,
}

/// The algorithms a CA's key may have. Ed25519 is not among them: Envoy and Java before 15 refuse
/// every certificate under such a CA.
#[derive(
    schemars::JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default,
)]
pub enum CaKeyAlgorithm {
    /// NIST P-256, the default.
    #[default]
    #[serde(rename = "ECDSA-P256")]
    EcdsaP256,
    /// NIST P-384.
    #[serde(rename = "ECDSA-P384")]
    EcdsaP384,
    /// RSA with 3072 bits.
    #[serde(rename = "RSA-3072")]
    Rsa3072,
    /// RSA with 4096 bits.
    #[serde(rename = "RSA-4096")]
    Rsa4096,
}

/// Who may have an identity, and of what shape.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.minDuration) ? duration(self.minDuration) : duration('5m')) <= (has(self.maxDuration) ? duration(self.maxDuration) : duration('24h'))").message("minDuration (5m where it is not given) must not be longer than maxDuration (24h where it is not given)"))]
pub struct IdentitiesSpec {
    /// The namespaces whose AgentIdentities this trust domain serves. By default all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label_selector")]
    pub namespace_selector: Option<LabelSelector>,
    /// The path of SPIFFE IDs, from `{namespace}`, `{serviceAccount}`, `{name}` and `{role}`.
    /// Default `/ns/{namespace}/sa/{serviceAccount}`, the shape that Istio accepts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 512))]
    #[x_kube(
        validation = Rule::new("self.matches('^(/([A-Za-z0-9._-]|[{](namespace|serviceAccount|name|role)[}])+)+$')").message("write a path of segments from letters, digits, '.', '-', '_' and the placeholders {namespace}, {serviceAccount}, {name} and {role}, such as /ns/{namespace}/agent/{name}"),
        validation = Rule::new("self.matches('.*/[{]namespace[}](/.*|$)') && self.matches('.*/[{](serviceAccount|name)[}](/.*|$)')").message("the path must have {namespace}, and {serviceAccount} or {name}, as whole segments, or one namespace could take another's identity"),
        validation = Rule::new("!(self + '/').contains('/./') && !(self + '/').contains('/../')").message("the segments . and .. are no part of a SPIFFE ID: write a path of segments that have names")
    )]
    pub path_template: Option<String>,
    /// The shortest life an identity may ask for. Default 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('5m')").message("a certificate lives at least 5m: write 5m or more"))]
    pub min_duration: Option<String>,
    /// The longest life an identity may ask for. Default 24h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('5m')").message("a certificate lives at least 5m: write 5m or more"))]
    pub max_duration: Option<String>,
    /// The key algorithms an identity may ask for. By default all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 6), extend("x-kubernetes-list-type" = "set"))]
    pub allowed_key_algorithms: Vec<KeyAlgorithm>,
    /// Suffixes of DNS names that identities may ask for, beside the names of their own
    /// namespace's Services: `agents.example.com` allows `a.agents.example.com`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::dns_suffixes")]
    pub allowed_dns_suffixes: Vec<String>,
    /// Who may ask for which roles and ServiceAccounts. Where there is one, each identity needs a
    /// grant that covers it: a namespace cannot take a role that is not meant for it. By default
    /// every namespace may ask for any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub grants: Vec<GrantSpec>,
}

/// What the identities of some namespaces may ask for.
#[derive(schemars::JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct GrantSpec {
    /// The namespaces. By default all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label_selector")]
    pub namespace_selector: Option<LabelSelector>,
    /// The roles that their identities may have. By default any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub roles: Vec<String>,
    /// The ServiceAccounts that their identities may be for. By default any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "set"))]
    pub service_account_names: Vec<String>,
}

/// Where the bundle is published.
#[derive(schemars::JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct BundleSpec {
    /// The namespaces that get the ConfigMap `countersign-trust-<name>`. By default those of
    /// `identities.namespaceSelector`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label_selector")]
    pub namespace_selector: Option<LabelSelector>,
    /// Whether the bundle is in a ClusterTrustBundle `countersign.dev:agent:<name>` too, where the
    /// API server serves them. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_trust_bundle: Option<bool>,
}

/// How often revocation is told of.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct RevocationSpec {
    /// How often CRLs are signed anew though nothing was revoked. Default 1h. A revocation has
    /// them signed at once. A CRL is good for this and 24h, or the longest life of a certificate
    /// where that is more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('5m') && duration(self) <= duration('168h')").message("CRLs are signed at most every 5m and at least every 168h: write a duration between the two"))]
    pub crl_period: Option<String>,
}

/// What the operator last saw and did.
#[derive(schemars::JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct TrustDomainStatus {
    /// `Ready` and `BundlePublished`; docs/reference.md lists the reasons.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// The CAs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slots: Vec<SlotStatus>,
    /// The bundle that is published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<BundleStatus>,
    /// How far a new root CA has come, while there is one that does not sign yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<RotationStatus>,
    /// The bundle of a remote trust domain, as it was fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<RemoteStatus>,
    /// The CRLs that are published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crl: Option<CrlStatus>,
    /// How many identities belong to this trust domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identities: Option<IdentitiesStatus>,
}

/// The CRLs of a trust domain, one for each CA, taken together.
#[derive(schemars::JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CrlStatus {
    /// The number of the latest (RFC 5280, 5.2.3). It only grows.
    #[schemars(extend("format" = "int64"))]
    pub number: u64,
    /// When the first of them ends: fail-closed peers refuse everybody from then on.
    pub next_update: Time,
    /// Certificates on them.
    #[schemars(extend("format" = "int32"))]
    pub entries: u32,
    /// Key ids of CAs that have none here, since their keys are somebody else's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signed_elsewhere: Vec<String>,
}

/// One CA.
#[derive(schemars::JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SlotStatus {
    /// The Secret in the operator's namespace.
    pub name: String,
    /// Grows with every CA of a kind, and is never used twice.
    #[schemars(extend("format" = "int32"))]
    pub number: u32,
    /// `Root` or `Issuing`.
    pub kind: SlotKind,
    /// What the CA is used for now.
    pub phase: SlotPhase,
    /// Subject key id, lower-case hexadecimal.
    pub key_id: String,
    /// Valid until.
    pub not_after: Time,
    /// In this phase since.
    pub since: Time,
    /// The key id of the root CA that signed an issuing CA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<String>,
    /// A root CA's certificate in PEM, so that the bundle can be put together again whatever
    /// becomes of the Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// The longest life that a certificate can have been given under this CA, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "int64"))]
    pub longest_life: Option<u64>,
    /// When the last certificate that a retiring CA can have signed has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trusted_until: Option<Time>,
}

/// How far a CA has come that does not sign yet: a root's bundle, or an issuing CA's CRL.
#[derive(schemars::JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct RotationStatus {
    /// Places that must hold the new bundle: ConfigMaps, the ClusterTrustBundle, and Secrets of
    /// identities. For an issuing CA alone, the ConfigMaps that must hold its CRL.
    #[schemars(extend("format" = "int32"))]
    pub targets: u32,
    /// Those of them that do.
    #[schemars(extend("format" = "int32"))]
    pub reached: u32,
    /// The first ten that do not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreached: Vec<String>,
    /// Since when all of them do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached_since: Option<Time>,
    /// When the new CA signs, if nothing comes between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activates_at: Option<Time>,
    /// When it signs even if some place is not reached, because the old one is about to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proceeds_at: Option<Time>,
}

/// Which of the two CAs of a chain.
#[derive(schemars::JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SlotKind {
    /// Signs issuing CAs; is what peers trust.
    Root,
    /// Signs leaves.
    Issuing,
}

/// What a CA is used for.
#[derive(schemars::JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotPhase {
    /// It exists and is not published everywhere: it signs nothing.
    Prepared,
    /// It is published and signs.
    Active,
    /// It signs nothing any more, and is trusted until all that it signed has ended.
    Retiring,
}

/// The bundle that is published.
#[derive(schemars::JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BundleStatus {
    /// SHA-256 of `ca.crt`, lower-case hexadecimal.
    pub sha256: String,
    /// Grows by one with every change.
    #[schemars(extend("format" = "int64"))]
    pub sequence: u64,
}

/// How many identities belong to a trust domain.
#[derive(schemars::JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Default)]
pub struct IdentitiesStatus {
    /// All of them.
    #[schemars(extend("format" = "int32"))]
    pub total: u32,
    /// Those whose `Ready` condition is true.
    #[schemars(extend("format" = "int32"))]
    pub ready: u32,
}
