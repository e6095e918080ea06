//! A ConfigMap for an Envoy beside the target: the filters `envoy.filters.http.mcp` and
//! `envoy.filters.http.rbac`, as discovery responses that Envoy loads, and loads again when they
//! change, by `config_discovery` with a `path_config_source`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{Kind, Object, Output, Verdict};
use crate::api::EnforcerState;
use crate::api::names::{ENVOY_ACCESS, ENVOY_MCP, access_config_map_name};
use crate::decide::access::{Rule, SESSION_METHODS, SESSION_PREFIX};
use crate::identity::IdentityKey;
use crate::identity::access::{HttpMatch, Path, PolicyKey, Target};

const KIND: Kind =
    Kind { group: "", version: "v1", kind: "ConfigMap", plural: "configmaps", content: "data" };

/// What is written.
pub const KINDS: [Kind; 1] = [KIND];

/// The names of the two extension configurations, which an Envoy's own configuration refers to.
const ACCESS: &str = "countersign-access";
const MCP: &str = "countersign-mcp";

/// The filter whose metadata tells what a message of MCP is.
const MCP_FILTER: &str = "envoy.filters.http.mcp";
/// A message that is longer is not understood, and so not let through where tools are named.
const LONGEST_MESSAGE: u32 = 1024 * 1024;

/// One ConfigMap for each identity that is a target, made of all policies at once.
pub fn emit(rules: &[&Rule]) -> Output {
    let mut output = Output::default();
    let mut targets: BTreeMap<&IdentityKey, Vec<&Rule>> = BTreeMap::new();
    for rule in rules {
        let verdict = match rule.policy.target {
            Target::Pods(..) => Verdict::new(
                EnforcerState::Refused,
                "an Envoy's configuration is made for an identity: write an identity or a role as the target",
            ),
            _ => {
                for target in &rule.targets {
                    targets.entry(target).or_default().push(rule);
                }
                Verdict::new(
                    EnforcerState::Applied,
                    "written; it holds where the Envoy before the target loads the ConfigMap",
                )
            }
        };
        output.verdicts.insert(rule.policy.key.clone(), verdict);
    }
    for (target, rules) in targets {
        output.objects.push(config_map(target, &rules));
    }
    output
}

fn config_map(target: &IdentityKey, rules: &[&Rule]) -> Object {
    let owners: BTreeSet<PolicyKey> = rules.iter().map(|rule| rule.policy.key.clone()).collect();
    let policies: Map<String, Value> = rules
        .iter()
        .filter(|rule| !rule.callers.is_empty() && !rule.revoked.contains(target))
        .map(|rule| (rule.policy.key.name.clone(), policy(rule)))
        .collect();
    let rbac = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
        "rules": {"action": "ALLOW", "policies": policies},
    });
    let names_tools = rules.iter().any(|rule| !rule.layer7().tools.is_empty());
    let mcp = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.mcp.v3.Mcp",
        // It only reads: what is let through is the other filter's business.
        "traffic_mode": if names_tools { "PASS_THROUGH" } else { "NOOP" },
        "max_request_body_size": LONGEST_MESSAGE,
        // Of two names for a tool in one message, servers do not agree which counts.
        "reject_duplicate_keys": true,
    });
    Object {
        kind: KIND,
        namespace: target.namespace.to_string(),
        name: access_config_map_name(&target.name),
        owners: owners.into_iter().collect(),
        content: json!({ENVOY_ACCESS: response(ACCESS, rbac), ENVOY_MCP: response(MCP, mcp)}),
    }
}

/// The text of a discovery response with one extension configuration.
fn response(name: &str, configuration: Value) -> String {
    let response = json!({
        "resources": [{
            "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
            "name": name,
            "typed_config": configuration,
        }],
    });
    format!("{response:#}\n")
}

fn policy(rule: &Rule) -> Value {
    let principal = |id: &crate::identity::SpiffeId| json!({"authenticated": {"principal_name": {"exact": id.as_str()}}});
    let layer7 = rule.layer7();
    let ports = rule.policy.ports.iter().map(|port| json!({"destination_port": port}));
    let asked: Vec<Value> = [
        one_of(ports.collect()),
        one_of(layer7.http.iter().map(request).collect()),
        one_of(messages(&layer7.tools)),
    ]
    .into_iter()
    .flatten()
    .collect();
    json!({
        "permissions": [all_of(asked)],
        "principals": rule.callers.keys().map(principal).collect::<Vec<_>>(),
    })
}

fn request(http: &HttpMatch) -> Value {
    let method =
        |method: &String| json!({"header": {"name": ":method", "string_match": {"exact": method}}});
    let path = |path: &Path| match path {
        Path::Exact(exact) => json!({"url_path": {"path": {"exact": exact}}}),
        Path::Below(_) => json!({"url_path": {"path": {"safe_regex": {"regex": path.regex()}}}}),
    };
    let parts = [
        one_of(http.methods.iter().map(method).collect()),
        one_of(http.paths.iter().map(path).collect()),
    ];
    all_of(parts.into_iter().flatten().collect())
}

fn messages(tools: &BTreeSet<String>) -> Vec<Value> {
    if tools.is_empty() {
        return Vec::new();
    }
    let names = tools.iter().map(|tool| metadata(&["params", "name"], json!({"exact": tool})));
    let call =
        [Some(metadata(&["method"], json!({"exact": "tools/call"}))), one_of(names.collect())];
    let mut messages = vec![all_of(call.into_iter().flatten().collect())];
    let methods = SESSION_METHODS.map(|method| metadata(&["method"], json!({"exact": method})));
    messages.extend(methods);
    messages.push(metadata(&["method"], json!({"prefix": SESSION_PREFIX})));
    messages
}

fn metadata(path: &[&str], text: Value) -> Value {
    let path: Vec<Value> = path.iter().map(|key| json!({"key": key})).collect();
    json!({"sourced_metadata": {"metadata_matcher": {
        "filter": MCP_FILTER, "path": path, "value": {"string_match": text},
    }}})
}

fn one_of(mut parts: Vec<Value>) -> Option<Value> {
    match parts.len() {
        0 => None,
        1 => parts.pop(),
        _ => Some(json!({"or_rules": {"rules": parts}})),
    }
}

/// Nothing asked for is anything allowed.
fn all_of(mut parts: Vec<Value>) -> Value {
    match parts.len() {
        0 => json!({"any": true}),
        1 => parts.pop().unwrap_or_default(),
        _ => json!({"and_rules": {"rules": parts}}),
    }
}
