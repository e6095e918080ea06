//! `AgentAccessPolicy`: who may call whom, namespaced, in the namespace of whom is called.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::schema;

/// Who may call the agents of this namespace, and for what. Whoever is selected as a target by any
/// policy is called by nobody but those whom some policy names: policies add up.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[kube(
    group = "countersign.dev",
    version = "v1alpha1",
    kind = "AgentAccessPolicy",
    plural = "agentaccesspolicies",
    shortname = "aap",
    category = "countersign",
    namespaced,
    status = "AgentAccessPolicyStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "Who may call an agent, and for what; compiled into every enforcer that the cluster has.",
    validation = Rule::new("size(self.metadata.name) <= 63").message("an AgentAccessPolicy's name is also a label on what is made of it: write at most 63 characters"),
    validation = Rule::new("self.metadata.name != 'countersign-revoked'").message("countersign-revoked is the name of what is made of all policies of a namespace to close revoked pods: write another"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Enforcers", type_ = "string", json_path = ".status.enforcers[*].name"),
    printcolumn(name = "Callers", type_ = "integer", json_path = ".status.callers"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.http) && size(self.http) > 0) && !(has(self.tools) && size(self.tools) > 0) || has(self.target.ports) && size(self.target.ports) > 0").message("http and tools are about requests on a port: write target.ports, the ports on which the target speaks HTTP"))]
pub struct AgentAccessPolicySpec {
    /// Who is called.
    pub target: AccessTarget,

    /// Who may call.
    pub from: AccessFrom,

    /// The HTTP requests that are let through. By default all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub http: Vec<HttpRule>,

    /// The MCP tools that may be called (JSON-RPC `tools/call`). Given, nothing of MCP is let
    /// through beside them and what every session needs: `initialize`, `ping`, `tools/list` and
    /// notifications.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::tool_names")]
    pub tools: Vec<String>,

    /// What enforces the policy. By default every enforcer whose API the cluster serves, except
    /// Envoy, which no API tells of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5), extend("x-kubernetes-list-type" = "set"))]
    pub enforcers: Vec<Enforcer>,

    /// Has Cilium authenticate both ends by itself as well (`authentication.mode: required`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cilium_authentication: Option<CiliumAuthentication>,
}

/// Who is called: exactly one of an identity, a role, or pods by their labels.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.identity), has(self.role), has(self.podSelector)].filter(given, given).size() == 1").message("target is exactly one of identity, role and podSelector: write one of them"))]
pub struct AccessTarget {
    /// An AgentIdentity of this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::identity_name")]
    pub identity: Option<String>,

    /// Every AgentIdentity of this namespace with this role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::role_name")]
    pub role: Option<String>,

    /// Pods of this namespace, whether they have an identity or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label_selector")]
    #[x_kube(validation = Rule::new("has(self.matchLabels) && size(self.matchLabels) > 0 || has(self.matchExpressions) && size(self.matchExpressions) > 0").message("an empty podSelector is every pod of the namespace, and would cut off those that you did not think of: write matchLabels or matchExpressions"))]
    pub pod_selector: Option<LabelSelector>,

    /// The TCP ports of the pods on which they may be called. By default all. Other ports of the
    /// target are closed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::ports")]
    pub ports: Vec<u16>,
}

/// Who may call. At least one must be named.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.identities) && size(self.identities) > 0) || (has(self.roles) && size(self.roles) > 0) || (has(self.namespaces) && size(self.namespaces) > 0) || (has(self.spiffeIds) && size(self.spiffeIds) > 0)").message("from names nobody: write identities, roles, namespaces or spiffeIds"))]
pub struct AccessFrom {
    /// AgentIdentities by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub identities: Vec<IdentityReference>,

    /// Roles: of this namespace, or of `namespaces` where they are given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::role_names")]
    pub roles: Vec<String>,

    /// The namespaces of `roles`. Where no role is given: every identity of these namespaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::namespace_names")]
    pub namespaces: Vec<String>,

    /// SPIFFE IDs of other trust domains. Those of this cluster are named by `identities`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::spiffe_ids")]
    pub spiffe_ids: Vec<String>,
}

/// An AgentIdentity.
#[derive(schemars::JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct IdentityReference {
    /// Its name.
    #[schemars(schema_with = "schema::identity_name")]
    pub name: String,
    /// Its namespace. Default: the policy's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::namespace_name")]
    pub namespace: Option<String>,
}

/// HTTP requests: one of the methods, to one of the paths.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.methods) && size(self.methods) > 0) || (has(self.paths) && size(self.paths) > 0)").message("an entry of http without methods and paths is every request: write one of them, or leave http out"))]
pub struct HttpRule {
    /// Methods. By default all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::http_methods")]
    pub methods: Vec<String>,
    /// Paths without query: exact, or with all below where they end in `/*`. By default all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::http_paths")]
    pub paths: Vec<String>,
}

/// What can enforce a policy.
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
pub enum Enforcer {
    /// The cluster's network plugin, by NetworkPolicy.
    NetworkPolicy,
    /// Istio, by AuthorizationPolicy and PeerAuthentication.
    Istio,
    /// Linkerd, by Server, MeshTLSAuthentication and AuthorizationPolicy.
    Linkerd,
    /// Cilium, by CiliumNetworkPolicy.
    Cilium,
    /// An Envoy beside the target that loads the ConfigMap which is made for it.
    Envoy,
}

/// Whether Cilium authenticates both ends.
#[derive(
    schemars::JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default,
)]
pub enum CiliumAuthentication {
    /// It does.
    #[default]
    Required,
}

/// What came of the policy.
#[derive(schemars::JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct AgentAccessPolicyStatus {
    /// `Ready` and `NamesFound`; docs/reference.md lists the reasons.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// What each enforcer makes of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub enforcers: Vec<EnforcerStatus>,
    /// Identities that may call by this policy now, those of other trust domains included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "int32"))]
    pub callers: Option<u32>,
    /// Identities that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "int32"))]
    pub targets: Option<u32>,
}

/// What an enforcer makes of a policy.
#[derive(schemars::JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct EnforcerStatus {
    /// Which.
    pub name: Enforcer,
    /// How far its objects say what the policy says.
    pub state: EnforcerState,
    /// What it lets through less, what it leaves to another, or what is wrong.
    pub message: String,
}

/// How far an enforcer's objects say what the policy says.
#[derive(
    schemars::JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord,
)]
pub enum EnforcerState {
    /// They say the same.
    Applied,
    /// They leave a part to an Envoy that the policy names.
    Delegated,
    /// They let through less.
    Narrowed,
    /// It cannot say this policy at all; nothing is written for it.
    Refused,
    /// It is named, and the cluster does not serve its API.
    NotServed,
    /// Its objects could not be written.
    Failed,
}
