//! Whatever `can` says, every emitter agrees with: on random policies and identities, its objects
//! are read by a small model of the enforcer that shares no code with it.
//!
//! An emitter may let through less where it says so. It may let through more only where it leaves
//! the rest to an Envoy that the policy names: then both together let through what `can` says.

mod models;

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::emit::{ENFORCERS, Object, Output, Verdict, emit};
use super::*;
use crate::api::{AgentAccessPolicy, EnforcerState};
use crate::identity::TrustDomainName;
use models::{Call, Source, lets_through};

const NAMESPACES: [&str; 2] = ["a", "b"];
const PORTS: [u16; 2] = [80, 8443];

fn agent() -> impl Strategy<Value = Agent> {
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

fn policy() -> impl Strategy<Value = Value> {
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

fn parse(number: usize, spec: &Value) -> Arc<AccessPolicy> {
    let resource: AgentAccessPolicy = serde_json::from_value(json!({
        "metadata": {"name": format!("p{number}"), "namespace": "a", "uid": format!("u{number}")},
        "spec": spec,
    }))
    .unwrap();
    Arc::new(AccessPolicy::parse(&resource).unwrap())
}

/// Every request that the policies above could tell apart.
fn requests() -> Vec<(&'static str, &'static str, Mcp<'static>)> {
    let mut requests = Vec::new();
    for method in ["GET", "POST", "PUT"] {
        for path in ["/mcp", "/v1.0/a/b", "/v1x0/a", "/v1.0", "/open/", "/"] {
            requests.push((method, path, Mcp::None));
        }
    }
    for mcp in [
        Mcp::Tool("search"),
        Mcp::Tool("read.file"),
        Mcp::Tool("readxfile"),
        Mcp::Method("initialize"),
        Mcp::Method("notifications/initialized"),
        Mcp::Method("resources/read"),
    ] {
        requests.push(("POST", "/mcp", mcp));
        requests.push(("POST", "/v1.0/mcp", mcp));
    }
    requests
}

/// The pods that call: those of each identity, and for each ServiceAccount one that is nobody's.
fn sources<'a>(agents: &'a Agents, foreign: &'a SpiffeId) -> Vec<(Option<Caller<'a>>, Source)> {
    let mut sources = vec![(
        Some(Caller::Foreign(foreign)),
        Source {
            namespace: "far".into(),
            account: None,
            labels: BTreeMap::new(),
            id: Some(foreign.to_string()),
        },
    )];
    for agent in agents.all() {
        let labels = match agent.spiffe_id {
            Some(_) => agent.pod_labels().remove(0),
            None => agent.pods[0].clone(),
        };
        let source = Source {
            namespace: agent.key.namespace.to_string(),
            account: Some(agent.service_account.clone()),
            labels,
            id: agent.spiffe_id.as_ref().map(ToString::to_string),
        };
        sources.push((Some(Caller::Identity(agent)), source.clone()));
        if !agents.all().any(|other| {
            other.key.namespace == agent.key.namespace
                && other.service_account == agent.service_account
                && other.has_whole_account
        }) {
            sources.push((None, Source { labels: BTreeMap::new(), id: None, ..source }));
        }
    }
    sources
}

fn check(agents: Vec<Agent>, specs: Vec<Value>) {
    let agents = Agents::of(agents);
    let policies = specs.iter().enumerate().map(|(number, spec)| parse(number, spec));
    let set = AccessSet::compile(policies, &agents);
    let outputs: Vec<(crate::api::Enforcer, Output)> =
        ENFORCERS.into_iter().map(|enforcer| (enforcer, emit(&set, enforcer, true))).collect();
    let envoy: &[Object] = &outputs.last().unwrap().1.objects;
    let foreign = SpiffeId::new(&TrustDomainName::parse("partner").unwrap(), "/ns/x/sa/y").unwrap();
    for (caller, source) in sources(&agents, &foreign) {
        for target in agents.all().filter(|agent| &*agent.key.namespace == "a") {
            let labels = target.pod_labels().remove(0);
            for port in PORTS {
                for (method, path, mcp) in requests() {
                    let question = Question {
                        port: Some(port),
                        method: Some(method),
                        path: Some(path),
                        mcp: Some(mcp),
                    };
                    let answer = match &caller {
                        Some(caller) => can(&set, &agents, caller, &target.key, &question),
                        None => Answer::No(Vec::new()),
                    };
                    // A revoked one may be closed whatever is about it.
                    let is_open = set.rules.iter().all(|rule| !rule.is_about(&target.key))
                        && !target.is_revoked;
                    let call =
                        Call { source: &source, target: ("a", &labels), port, method, path, mcp };
                    for (enforcer, output) in &outputs {
                        let said = lets_through(*enforcer, &output.objects, &call);
                        let verdicts: Vec<&Verdict> = set
                            .rules
                            .iter()
                            .filter(|rule| rule.is_about(&target.key))
                            .filter_map(|rule| output.verdicts.get(&rule.policy.key))
                            .collect();
                        let states: Vec<EnforcerState> =
                            verdicts.iter().map(|verdict| verdict.state).collect();
                        let context = || {
                            format!(
                                "{enforcer:?} says {said:?}, can says {answer:?}: {call:?}\n{states:?}\n{specs:#?}"
                            )
                        };
                        let Some(said) = said else { continue };
                        assert!(
                            !is_open,
                            "nothing is closed that no policy is about: {}",
                            context()
                        );
                        let less = states.iter().any(|state| {
                            matches!(state, EnforcerState::Narrowed | EnforcerState::Refused)
                        });
                        let with_envoy = verdicts
                            .iter()
                            .any(|verdict| verdict.message.contains("leaves those to the Envoy"))
                            && lets_through(crate::api::Enforcer::Envoy, envoy, &call)
                                == Some(false);
                        assert!(!said || answer.is_yes() || with_envoy, "more: {}", context());
                        assert!(said || !answer.is_yes() || less, "less, silently: {}", context());
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]
    #[test]
    fn every_emitter_agrees_with_can(
        agents in prop::collection::vec(agent(), 1..7),
        specs in prop::collection::vec(policy(), 1..4),
    ) {
        check(agents, specs);
    }
}
