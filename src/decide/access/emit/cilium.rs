//! `cilium.io/v2` CiliumNetworkPolicy.

use serde_json::{Value, json};

use super::{
    Kind, Output, Sight, caller_selectors, left_out, object_of, object_of_revoked, revoked_labels,
    sight, target_labels, verdict,
};
use crate::decide::access::Rule;
use crate::identity::access::{HttpMatch, Target};

const KIND: Kind = Kind {
    group: "cilium.io",
    version: "v2",
    kind: "CiliumNetworkPolicy",
    plural: "ciliumnetworkpolicies",
    content: "spec",
};

/// What is written.
pub const KINDS: [Kind; 1] = [KIND];

/// Labels that come from Kubernetes: without it, a label of any source would do.
const PREFIX: &str = "k8s:";
const NAMESPACE_LABEL: &str = "k8s:io.kubernetes.pod.namespace";

const FOREIGN: &str = "Cilium tells callers by labels, and other trust domains have none here";

/// One CiliumNetworkPolicy a policy, called after it. One more denies calls to revoked pods: a deny wins.
pub fn emit(rules: &[&Rule]) -> Output {
    let mut output = Output::default();
    for rule in rules {
        let sight = sight(rule, true, "Cilium");
        let endpoints = match sight {
            Sight::Blind(_) => Vec::new(),
            _ => endpoints(rule),
        };
        // An empty rule closes the target and opens nothing.
        let mut ingress = json!({});
        if !endpoints.is_empty() {
            ingress["fromEndpoints"] = endpoints.into();
            if !rule.policy.ports.is_empty() {
                ingress["toPorts"] = json!([to_ports(rule)]);
            }
            if rule.policy.cilium_authentication {
                ingress["authentication"] = json!({"mode": "required"});
            }
        }
        let content =
            json!({"endpointSelector": selector(&rule.policy.target), "ingress": [ingress]});
        output.objects.push(object_of(rule, KIND, content));
        let narrower = left_out(rule.foreign.iter(), FOREIGN).into_iter().collect();
        output.verdicts.insert(rule.policy.key.clone(), verdict(&sight, narrower, "written"));
    }
    let selector = json!({"matchLabels": revoked_labels(PREFIX)});
    let denied = json!({"endpointSelector": selector, "ingressDeny": [{"fromEntities": ["all"]}]});
    output.objects.extend(object_of_revoked(rules, KIND, denied));
    output
}

fn selector(target: &Target) -> Value {
    let key = |key: &str| format!("{PREFIX}{key}");
    if let Some(labels) = target_labels(target) {
        let labels = labels.iter().map(|(name, value)| (key(name), json!(value)));
        return json!({"matchLabels": Value::Object(labels.collect())});
    }
    let Target::Pods(_, selector) = target else { return Value::Null };
    let mut written = serde_json::to_value(selector).unwrap_or_default();
    if let Some(labels) = &selector.match_labels {
        let labels = labels.iter().map(|(name, value)| (key(name), json!(value)));
        written["matchLabels"] = Value::Object(labels.collect());
    }
    for expression in written["matchExpressions"].as_array_mut().into_iter().flatten() {
        expression["key"] = json!(key(expression["key"].as_str().unwrap_or_default()));
    }
    written
}

fn endpoints(rule: &Rule) -> Vec<Value> {
    let mut endpoints = Vec::new();
    for (namespace, labelled) in &rule.labelled {
        for mut selector in caller_selectors(labelled, PREFIX) {
            selector["matchLabels"][NAMESPACE_LABEL] = json!(namespace);
            endpoints.push(selector);
        }
    }
    endpoints
}

fn to_ports(rule: &Rule) -> Value {
    let port = |port: &u16| json!({"port": port.to_string(), "protocol": "TCP"});
    let mut to_ports = json!({"ports": rule.policy.ports.iter().map(port).collect::<Vec<_>>()});
    let http: Vec<Value> = rule.layer7().http.iter().flat_map(requests).collect();
    if !http.is_empty() {
        to_ports["rules"] = json!({"http": http});
    }
    to_ports
}

/// Cilium takes both for regular expressions of the whole; methods are capitals alone.
fn requests(http: &HttpMatch) -> Vec<Value> {
    let paths: Vec<Option<String>> = match http.paths.is_empty() {
        true => vec![None],
        false => http.paths.iter().map(|path| Some(path.regex())).collect(),
    };
    let methods: Vec<Option<&String>> = match http.methods.is_empty() {
        true => vec![None],
        false => http.methods.iter().map(Some).collect(),
    };
    let mut requests = Vec::new();
    for method in &methods {
        for path in &paths {
            let mut request = json!({});
            if let Some(method) = method {
                request["method"] = json!(method);
            }
            if let Some(path) = path {
                request["path"] = json!(path);
            }
            requests.push(request);
        }
    }
    requests
}
