//! `networking.k8s.io/v1` NetworkPolicy: whatever network plugin the cluster has.

use serde_json::{Value, json};

use super::{
    Kind, Output, Sight, caller_selectors, left_out, object_of, object_of_revoked, revoked_labels,
    sight, target_selector, verdict,
};
use crate::api::names::{STATE_LABEL, STATE_REVOKED};
use crate::decide::access::Rule;
use crate::identity::access::Target;

const KIND: Kind = Kind {
    group: "networking.k8s.io",
    version: "v1",
    kind: "NetworkPolicy",
    plural: "networkpolicies",
    content: "spec",
};

/// What is written.
pub const KINDS: [Kind; 1] = [KIND];

/// The label that every namespace has, with its name.
const NAMESPACE_LABEL: &str = "kubernetes.io/metadata.name";

const FOREIGN: &str = "NetworkPolicy knows no SPIFFE IDs of other trust domains";

/// One NetworkPolicy a policy, called after it: ingress from pods by our labels. NetworkPolicies add up, and none can take back
/// what another allows, so these let go of revoked pods, and one more closes those.
pub fn emit(rules: &[&Rule]) -> Output {
    let mut output = Output::default();
    for rule in rules {
        let sight = sight(rule, false, "NetworkPolicy");
        let peers = match sight {
            Sight::Blind(_) => Vec::new(),
            _ => peers(rule),
        };
        let mut ingress = json!([]);
        if !peers.is_empty() {
            ingress = json!([{"from": peers}]);
            if !rule.policy.ports.is_empty() {
                let port = |port: &u16| json!({"port": port, "protocol": "TCP"});
                ingress[0]["ports"] = rule.policy.ports.iter().map(port).collect();
            }
        }
        output.objects.push(object_of(
            rule,
            KIND,
            json!({
                "podSelector": unless_revoked(&rule.policy.target),
                "policyTypes": ["Ingress"],
                "ingress": ingress,
            }),
        ));
        let narrower = left_out(rule.foreign.iter(), FOREIGN).into_iter().collect();
        let applied = "written; it holds where the cluster's network plugin enforces NetworkPolicy";
        output.verdicts.insert(rule.policy.key.clone(), verdict(&sight, narrower, applied));
    }
    let closed = json!({
        "podSelector": {"matchLabels": revoked_labels("")}, "policyTypes": ["Ingress"], "ingress": [],
    });
    output.objects.extend(object_of_revoked(rules, KIND, closed));
    drop_empty(&mut output);
    output
}

/// `NotIn` also selects pods that have no such label yet.
fn unless_revoked(target: &Target) -> Value {
    let mut selector = target_selector(target);
    let condition = json!({"key": STATE_LABEL, "operator": "NotIn", "values": [STATE_REVOKED]});
    match selector["matchExpressions"].as_array_mut() {
        Some(expressions) => expressions.push(condition),
        None => selector["matchExpressions"] = json!([condition]),
    }
    selector
}

/// The API server does not keep an empty list.
fn drop_empty(output: &mut Output) {
    for object in &mut output.objects {
        if object.content["ingress"] == json!([])
            && let Some(content) = object.content.as_object_mut()
        {
            content.remove("ingress");
        }
    }
}

fn peers(rule: &Rule) -> Vec<Value> {
    let mut peers = Vec::new();
    for (namespace, labelled) in &rule.labelled {
        for selector in caller_selectors(labelled, "") {
            let mut peer = json!({"podSelector": selector});
            if *namespace != rule.policy.key.namespace {
                peer["namespaceSelector"] = json!({"matchLabels": {NAMESPACE_LABEL: namespace}});
            }
            peers.push(peer);
        }
    }
    peers
}
