//! From the neutral set to each enforcer's objects, one file an enforcer.
//!
//! An emitter lets through what the set lets through, or less, and says which in a [`Verdict`]. It
//! never lets through more by itself; where it cannot see all, it may leave the rest to an Envoy
//! that the policy itself names.

pub mod cilium;
pub mod envoy;
pub mod istio;
pub mod linkerd;
pub mod network_policy;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{AccessSet, Labelled, Rule};
use crate::api::names::{
    ACCESS_POLICY_LABEL, ACCESS_REVOKED_NAME, IDENTITY_LABEL, MANAGED_BY_LABEL, ROLE_LABEL,
    STATE_ACTIVE, STATE_LABEL, STATE_REVOKED,
};
use crate::api::{Enforcer, EnforcerState};
use crate::identity::access::{PolicyKey, Target};

/// A kind of object that the operator writes for an enforcer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    /// Where the content is, beside metadata: `spec` or `data`.
    pub content: &'static str,
}

/// An object to write. Everything in it follows from the set alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
    /// The policies that it is made of, sorted. It goes when the last of them does.
    pub owners: Vec<PolicyKey>,
    pub content: Value,
}

/// What an enforcer makes of one policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    pub state: EnforcerState,
    pub message: String,
}

/// What comes of a set for one enforcer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    pub objects: Vec<Object>,
    pub verdicts: BTreeMap<PolicyKey, Verdict>,
}

/// The kinds of an enforcer, all of which must be served for it to be there.
pub fn kinds(enforcer: Enforcer) -> &'static [Kind] {
    match enforcer {
        Enforcer::NetworkPolicy => &network_policy::KINDS,
        Enforcer::Istio => &istio::KINDS,
        Enforcer::Linkerd => &linkerd::KINDS,
        Enforcer::Cilium => &cilium::KINDS,
        Enforcer::Envoy => &envoy::KINDS,
    }
}

/// Every enforcer, in the order in which a status lists them.
pub const ENFORCERS: [Enforcer; 5] = [
    Enforcer::NetworkPolicy,
    Enforcer::Istio,
    Enforcer::Linkerd,
    Enforcer::Cilium,
    Enforcer::Envoy,
];

/// What comes of a set for an enforcer. `is_found`: whether policies that name no enforcer mean it.
pub fn emit(set: &AccessSet, enforcer: Enforcer, is_found: bool) -> Output {
    let rules = set.for_enforcer(enforcer, is_found);
    match enforcer {
        Enforcer::NetworkPolicy => network_policy::emit(&rules),
        Enforcer::Istio => istio::emit(&rules),
        Enforcer::Linkerd => linkerd::emit(&rules),
        Enforcer::Cilium => cilium::emit(&rules),
        Enforcer::Envoy => envoy::emit(&rules),
    }
}

impl Kind {
    /// `v1`, or `group/version`.
    pub fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }
}

impl Object {
    /// The whole object, as it is sent.
    pub fn manifest(&self) -> Value {
        let is_single = self.owners.len() == 1;
        let owners: Vec<Value> = self
            .owners
            .iter()
            .map(|owner| {
                let mut reference = json!({
                    "apiVersion": "countersign.dev/v1alpha1", "kind": "AgentAccessPolicy",
                    "name": owner.name, "uid": owner.uid,
                });
                // Of several owners none is the controller.
                if is_single {
                    reference["controller"] = json!(true);
                }
                reference
            })
            .collect();
        let first = self.owners.first().map(|owner| owner.name.as_str()).unwrap_or_default();
        json!({
            "apiVersion": self.kind.api_version(),
            "kind": self.kind.kind,
            "metadata": {
                "name": self.name,
                "namespace": self.namespace,
                "labels": {MANAGED_BY_LABEL: "countersign", ACCESS_POLICY_LABEL: first},
                "ownerReferences": owners,
            },
            self.kind.content: self.content,
        })
    }
}

impl Verdict {
    fn new(state: EnforcerState, message: impl Into<String>) -> Self {
        Verdict { state, message: message.into() }
    }
}

/// An object of one policy, called after it.
fn object_of(rule: &Rule, kind: Kind, content: Value) -> Object {
    let key = &rule.policy.key;
    Object {
        kind,
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        owners: vec![key.clone()],
        content,
    }
}

/// One object a namespace that closes the pods of revoked identities, for enforcers that tell pods by labels: a label follows
/// a revocation before anything else does, and here nothing needs to be written for it. It goes with the last policy.
fn object_of_revoked(rules: &[&Rule], kind: Kind, content: Value) -> Option<Object> {
    let mut owners: Vec<PolicyKey> = rules.iter().map(|rule| rule.policy.key.clone()).collect();
    owners.sort();
    let namespace = owners.first()?.namespace.clone();
    Some(Object { kind, namespace, name: ACCESS_REVOKED_NAME.to_owned(), owners, content })
}

/// The label of revoked pods. `prefix` goes before the key.
fn revoked_labels(prefix: &str) -> Value {
    json!({format!("{prefix}{STATE_LABEL}"): STATE_REVOKED})
}

/// How much of what a rule asks for above TCP an enforcer sees.
enum Sight {
    All,
    /// Not all, and the policy names an Envoy that does.
    LeftToEnvoy(String),
    /// Not all, and nobody else is named.
    Blind(String),
}

fn sight(rule: &Rule, sees_http: bool, enforcer: &str) -> Sight {
    let layer7 = rule.layer7();
    let mut unseen = Vec::new();
    if !layer7.http.is_empty() && !sees_http {
        unseen.push("HTTP requests");
    }
    if !layer7.tools.is_empty() {
        unseen.push("MCP tools");
    }
    let unseen = unseen.join(" and ");
    // An Envoy refuses a target of pod labels, and so cannot be left anything.
    let by_labels = matches!(rule.policy.target, Target::Pods(..));
    match unseen.is_empty() {
        true => Sight::All,
        false if rule.policy.has_envoy() && !by_labels => Sight::LeftToEnvoy(format!(
            "{enforcer} cannot see {unseen}: it opens the ports to the callers, and leaves those to the Envoy that the policy names"
        )),
        false => Sight::Blind(format!(
            "{enforcer} cannot see {unseen}, and lets nobody in by this policy; where an Envoy with its ConfigMap stands before the target, add Envoy to spec.enforcers"
        )),
    }
}

/// Puts what is narrower together with what is seen.
fn verdict(sight: &Sight, narrower: Vec<String>, applied: &str) -> Verdict {
    let (mut state, mut messages) = match sight {
        Sight::All => (EnforcerState::Applied, Vec::new()),
        Sight::LeftToEnvoy(why) => (EnforcerState::Delegated, vec![why.clone()]),
        Sight::Blind(why) => (EnforcerState::Narrowed, vec![why.clone()]),
    };
    if !narrower.is_empty() {
        state = EnforcerState::Narrowed;
        messages.extend(narrower);
    }
    match messages.is_empty() {
        true => Verdict::new(state, applied),
        false => Verdict::new(state, messages.join("; ")),
    }
}

/// What is said of callers whom an enforcer has no word for.
fn left_out<'a>(
    ids: impl ExactSizeIterator<Item = &'a crate::identity::SpiffeId>,
    why: &str,
) -> Option<String> {
    let count = ids.len();
    let shown: Vec<&str> = ids.take(3).map(crate::identity::SpiffeId::as_str).collect();
    let more = count - shown.len();
    (count > 0).then(|| match more {
        0 => format!("{} left out: {why}", shown.join(", ")),
        _ => format!("{} and {more} more left out: {why}", shown.join(", ")),
    })
}

/// Label selectors for the callers of one namespace: one, or two where both names and roles are
/// given. `prefix` goes before each key.
fn caller_selectors(labelled: &Labelled, prefix: &str) -> Vec<Value> {
    let key = |label: &str| format!("{prefix}{label}");
    let one = |expression: Value| {
        json!({
            "matchLabels": {key(STATE_LABEL): STATE_ACTIVE},
            "matchExpressions": [expression],
        })
    };
    if labelled.every {
        return vec![one(json!({"key": key(IDENTITY_LABEL), "operator": "Exists"}))];
    }
    let mut selectors = Vec::new();
    for (label, values) in [(IDENTITY_LABEL, &labelled.identities), (ROLE_LABEL, &labelled.roles)] {
        if !values.is_empty() {
            selectors.push(one(json!({"key": key(label), "operator": "In", "values": values})));
        }
    }
    selectors
}

/// The labels of a target, where they say it all.
fn target_labels(target: &Target) -> Option<BTreeMap<String, String>> {
    let one = |label: &str, value: &String| BTreeMap::from([(label.to_owned(), value.clone())]);
    match target {
        Target::Identity(name) => Some(one(IDENTITY_LABEL, name)),
        Target::Role(role) => Some(one(ROLE_LABEL, role)),
        Target::Pods(_, selector) => match &selector.match_expressions {
            None => selector.match_labels.clone(),
            Some(_) => None,
        },
    }
}

/// The selector of a target, as Kubernetes has it.
fn target_selector(target: &Target) -> Value {
    match (target, target_labels(target)) {
        (_, Some(labels)) => json!({"matchLabels": labels}),
        (Target::Pods(_, selector), None) => serde_json::to_value(selector).unwrap_or_default(),
        // The others have labels.
        (_, None) => Value::Null,
    }
}
