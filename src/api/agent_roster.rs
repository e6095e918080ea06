//! `AgentRoster`: which identities the pods of each ServiceAccount may carry. The operator alone
//! writes it; the admission policies read it.
//!
//! It is the parameter of the policies that label pods and refuse labels, so it is made to be
//! looked into cheaply: a map by ServiceAccount, and in it the identities in the order in which
//! they are asked. That order is the whole precedence, so that no policy need know it.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// Which identities the pods of each ServiceAccount of a namespace may carry.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[kube(
    group = "countersign.dev",
    version = "v1alpha1",
    kind = "AgentRoster",
    plural = "agentrosters",
    category = "countersign",
    namespaced,
    derive = "PartialEq",
    derive = "Default",
    doc = "Which identities the pods of each ServiceAccount may carry. Written by the operator alone, read by the admission policies.",
    printcolumn(name = "Identities", type_ = "integer", json_path = ".spec.identities"),
    printcolumn(name = "From", type_ = "string", json_path = ".spec.from"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct AgentRosterSpec {
    /// The first ServiceAccount, in the order of the alphabet, that this part speaks of. Not
    /// given: from the beginning. A namespace has one roster, or several parts where one object
    /// would be too large.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub from: Option<String>,
    /// The first ServiceAccount that this part does not speak of any more. Not given: to the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub to: Option<String>,
    /// How many identities this part lists.
    #[schemars(extend("format" = "int32"))]
    pub identities: u32,
    /// By ServiceAccount, the identities that its pods may carry. A pod carries the first whose
    /// `selector` matches its labels, and no other.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-map-type" = "atomic"))]
    pub accounts: BTreeMap<String, Vec<RosterEntry>>,
}

/// One identity that pods of a ServiceAccount may carry.
#[derive(schemars::JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct RosterEntry {
    /// The AgentIdentity's name.
    pub identity: String,
    /// Its role, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// `active` or `revoked`.
    pub state: String,
    /// Its SPIFFE ID.
    pub spiffe_id: String,
    /// What a pod's labels must be, all of it. Not given: anything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub selector: Vec<RosterTerm>,
}

/// One thing that a pod's labels must be.
#[derive(schemars::JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct RosterTerm {
    /// The label.
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`, as in a label selector.
    pub operator: String,
    /// The values that it may have, or may not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}
