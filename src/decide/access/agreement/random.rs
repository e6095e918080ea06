//! Random identities and policies. e2e/tests/access/judged.rs has them as well, so this names nothing but what
//! its parent has in scope.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    AccessPolicy, Agent, AgentAccessPolicy, IdentityKey, SpiffeId, TrustDomainName, labels_of,
};

const NAMESPACES: [&str; 2] = ["a", "b"];
/// The ports of targets.
pub const PORTS: [u16; 2] = [80, 8443];

/// An identity of one of the namespaces.
pub fn agent() -> impl Strategy<Value = Agent> {
    (0..2usize, 0..4usize, 0..3usize, any::<bool>(), 0..8u8, any::<bool>(), 0..2usize).prop_map(
        |(namespace, name, role, shares_account, luck, has_whole_account, app)| {
            let (namespace, name) = (NAMESPACES[namespace], format!("n{name}"));
            let domain = TrustDomainName::parse("test").unwrap();
            let path = format!("/ns/{namespace}/agent/{name}");
            Agent {
                key: IdentityKey { namespace: namespace.into(), name: name.as_str().into() },
                service_account: if shares_account { "shared".to_owned() } else { name },
                role: [None, Some("planner"), Some("tool")][role].map(str::to_owned),
                spiffe_id: (luck != 0).then(|| SpiffeId::new(&domain, &path).unwrap()),
                has_whole_account,
                is_revoked: luck == 1,
                pods: vec![labels_of([("app", ["x", "y"][app])])],
            }
        },
    )
}

fn target() -> impl Strategy<Value = Value> {
    prop_oneof![
        (0..5usize).prop_map(|n| json!({"identity": format!("n{n}")})),
        prop_oneof![Just("planner"), Just("tool")].prop_map(|role| json!({"role": role})),
        Just(json!({"podSelector": {"matchLabels": {"app": "x"}}})),
        Just(
            json!({"podSelector": {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["x"]}]}})
        ),
    ]
}

fn from() -> impl Strategy<Value = Value> {
    let identity = (0..5usize, 0..2usize)
        .prop_map(|(n, of)| json!({"name": format!("n{n}"), "namespace": NAMESPACES[of]}));
    prop_oneof![
        prop::collection::vec(identity, 1..4).prop_map(|all| json!({"identities": all})),
        Just(json!({"roles": ["planner"]})),
        Just(json!({"roles": ["planner", "tool"], "namespaces": ["b"]})),
        Just(json!({"namespaces": ["a", "b"]})),
        Just(json!({"spiffeIds": ["spiffe://partner/ns/x/sa/y", "spiffe://test/ns/a/agent/n1"]})),
    ]
}

fn layer7() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => Just(json!({})),
        1 => Just(json!({"http": [{"methods": ["GET"]}]})),
        1 => Just(json!({"http": [{"methods": ["POST", "PUT"], "paths": ["/mcp", "/v1.0/*"]}, {"paths": ["/open/*"]}]})),
        1 => Just(json!({"tools": ["search", "read.file"]})),
        1 => Just(json!({"http": [{"paths": ["/mcp"]}], "tools": ["search"]})),
    ]
}

/// The spec of a policy of the namespace `a`.
pub fn policy() -> impl Strategy<Value = Value> {
    let pins = prop_oneof![
        3 => Just(json!([])),
        1 => Just(json!(["NetworkPolicy", "Envoy"])),
        1 => Just(json!(["Istio", "Cilium", "Linkerd", "Envoy"])),
    ];
    let ports = prop::collection::btree_set(prop::sample::select(PORTS.to_vec()), 0..3);
    (target(), from(), layer7(), pins, ports).prop_map(|(target, from, layer7, pins, ports)| {
        let mut spec = json!({"target": target, "from": from, "enforcers": pins});
        let has_layer7 = layer7 != json!({});
        spec.as_object_mut().unwrap().extend(layer7.as_object().unwrap().clone());
        let ports = if has_layer7 && ports.is_empty() { BTreeSet::from([8443]) } else { ports };
        spec["target"]["ports"] = json!(ports);
        spec
    })
}

/// A policy with this spec.
pub fn parse(number: usize, spec: &Value) -> Arc<AccessPolicy> {
    let resource: AgentAccessPolicy = serde_json::from_value(json!({
        "metadata": {"name": format!("p{number}"), "namespace": "a", "uid": format!("u{number}")},
        "spec": spec,
    }))
    .unwrap();
    Arc::new(AccessPolicy::parse(&resource).unwrap())
}
