//! Istio's and Cilium's own code refuses nothing that is made of random policies, and each of them can refuse.

use countersign::api::{AgentAccessPolicy, Enforcer};
use countersign::decide::access::emit::emit;
use countersign::decide::access::{AccessSet, Agent, Agents};
use countersign::identity::access::{AccessPolicy, labels_of};
use countersign::identity::{IdentityKey, SpiffeId, TrustDomainName};
use countersign_e2e::install::documents;
use countersign_e2e::meshes::{NO_PODS, cilium_finds, istio_finds, message};
use countersign_e2e::{judges, workspace};
use proptest::collection::vec;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

#[path = "../../../src/decide/access/agreement/random.rs"]
mod random;

/// How many sets of one to three policies.
const SETS: usize = 300;

/// What one of the judges finds.
type Judge = fn(&[Value]) -> Vec<Value>;

#[test]
fn istio_and_cilium_refuse_nothing_that_is_made_of_random_policies() {
    judges::build();
    let strategy = (vec(random::agent(), 1..7), vec(random::policy(), 1..4));
    let mut runner = TestRunner::default();
    let (mut istio, mut cilium) = (Vec::new(), Vec::new());
    for number in 0..SETS {
        let (agents, specs) = strategy.new_tree(&mut runner).expect("it filters nothing").current();
        let policies = specs.iter().enumerate().map(|(number, spec)| random::parse(number, spec));
        let set = AccessSet::compile(policies, &Agents::of(agents));
        for (enforcer, objects) in [(Enforcer::Istio, &mut istio), (Enforcer::Cilium, &mut cilium)]
        {
            objects.extend(emit(&set, enforcer, true).objects.iter().map(|object| {
                let mut manifest = object.manifest();
                // No two objects of one name.
                manifest["metadata"]["namespace"] = json!(format!("set{number}"));
                manifest
            }));
        }
    }
    assert!(istio.len() > SETS && cilium.len() > SETS, "the policies are about something");
    for (judge, objects) in [(istio_but_for_pods as Judge, istio), (cilium_finds, cilium)] {
        let found = judge(&objects);
        assert!(found.is_empty(), "{found:#?}\n{objects:#?}");
    }
}

/// The policies that cut revoked pods off, as the chart ships them.
#[test]
fn istio_and_cilium_refuse_no_quarantine_policy() {
    judges::build();
    for (judge, file, count) in
        [(istio_but_for_pods as Judge, "istio.yaml", 2), (cilium_finds, "cilium.yaml", 1)]
    {
        let file = workspace::root().join("manifests/quarantine").join(file);
        let objects = documents(&std::fs::read_to_string(&file).expect("it is generated"));
        assert_eq!(objects.len(), count);
        let found = judge(&objects);
        assert!(found.is_empty(), "{}: {found:#?}", file.display());
    }
}

#[test]
fn each_judge_can_refuse() {
    judges::build();
    let istio = |kind: &str, spec: Value| object("security.istio.io/v1", kind, spec);
    let cilium = |spec: Value| object("cilium.io/v2", "CiliumNetworkPolicy", spec);
    let authorization = "AuthorizationPolicy";
    let tool = json!({"matchLabels": {"countersign.dev/role": "tool"}});
    let endpoint = json!({"matchLabels": {"k8s:countersign.dev/role": "tool"}});
    for (what, judge, object, says) in [
        (
            "a port that is none",
            istio_finds as Judge,
            istio(
                authorization,
                json!({"selector": tool, "rules": [{"to": [{"operation": {"ports": ["99999"]}}]}]}),
            ),
            "bad port",
        ),
        (
            "a source that says nothing",
            istio_finds,
            istio(authorization, json!({"selector": tool, "rules": [{"from": [{"source": {}}]}]})),
            "must not be empty",
        ),
        (
            "a denial that denies nothing",
            istio_finds,
            istio(authorization, json!({"selector": tool, "action": "DENY"})),
            "will never be triggered",
        ),
        (
            "ports without a selector",
            istio_finds,
            istio("PeerAuthentication", json!({"portLevelMtls": {"8443": {"mode": "STRICT"}}})),
            "cannot have port level",
        ),
        (
            "a field that Istio does not know",
            istio_finds,
            istio(authorization, json!({"selectors": tool})),
            "unknown field",
        ),
        (
            "a policy that is about no pod",
            istio_finds,
            istio(authorization, json!({"selector": tool, "rules": [{}]})),
            NO_PODS,
        ),
        (
            "a path that is no regular expression",
            cilium_finds,
            cilium(json!({"endpointSelector": endpoint, "ingress": [{
                "toPorts": [{"ports": [{"port": "8443", "protocol": "TCP"}], "rules": {"http": [{"path": "/docs/("}]}}],
            }]})),
            "missing closing )",
        ),
        (
            "a port that is none",
            cilium_finds,
            cilium(json!({"endpointSelector": endpoint, "ingress": [{
                "toPorts": [{"ports": [{"port": "99999"}]}],
            }]})),
            "99999",
        ),
        (
            "a field that Cilium does not know",
            cilium_finds,
            cilium(json!({"endpointSelector": endpoint, "ingres": [{}]})),
            "unknown field",
        ),
        ("nothing", cilium_finds, cilium(Value::Null), "empty"),
    ] {
        let found = judge(&[object]);
        assert!(found.iter().any(|each| message(each).contains(says)), "{what}: {found:?}");
    }
}

fn object(api_version: &str, kind: &str, spec: Value) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "broken", "namespace": "a"}, "spec": spec})
}

/// No pod is among the objects.
fn istio_but_for_pods(objects: &[Value]) -> Vec<Value> {
    let found = istio_finds(objects).into_iter();
    found.filter(|each| !message(each).contains(NO_PODS)).collect()
}
