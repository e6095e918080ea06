//! Istio's and Cilium's own code refuses nothing that is made of random policies, and each of them can refuse.
//!
//! e2e/judges/build.sh makes both judges; what they look at is said there, in istio and cilium.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use countersign::api::{AgentAccessPolicy, Enforcer};
use countersign::decide::access::emit::emit;
use countersign::decide::access::{AccessSet, Agent, Agents};
use countersign::identity::access::{AccessPolicy, labels_of};
use countersign::identity::{IdentityKey, SpiffeId, TrustDomainName};
use proptest::collection::vec;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde::Deserialize;
use serde_json::{Value, json};

#[path = "../src/decide/access/agreement/random.rs"]
mod random;

/// How many sets of one to three policies.
const SETS: usize = 300;

/// What the analyzers say where no pod is told of that a policy selects: here none is told of.
const NO_PODS: &str = "[IST0127]";

#[test]
fn istio_and_cilium_refuse_nothing_that_is_made_of_random_policies() {
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
    let Some(found) = judge("istio-judge", &["validate"], &istio) else { return };
    let found: Vec<&Value> = found.iter().filter(|each| !text(each).contains(NO_PODS)).collect();
    assert!(found.is_empty(), "{found:#?}\n{istio:#?}");
    let found = judge("cilium-judge", &[], &cilium).expect("they are built together");
    assert!(found.is_empty(), "{found:#?}\n{cilium:#?}");
}

/// The policies that cut revoked pods off, as the chart ships them.
#[test]
fn istio_and_cilium_refuse_no_quarantine_policy() {
    for (program, arguments, file, count) in [
        ("istio-judge", &["validate"] as &[&str], "istio.yaml", 2),
        ("cilium-judge", &[], "cilium.yaml", 1),
    ] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/quarantine").join(file);
        let documents = std::fs::read_to_string(file).expect("it is generated");
        let objects: Vec<Value> = serde_yaml::Deserializer::from_str(&documents)
            .map(|each| Value::deserialize(each).expect("it is YAML"))
            .filter(|each| !each.is_null())
            .collect();
        assert_eq!(objects.len(), count);
        let Some(found) = judge(program, arguments, &objects) else { return };
        let found: Vec<&Value> =
            found.iter().filter(|each| !text(each).contains(NO_PODS)).collect();
        assert!(found.is_empty(), "{program}: {found:#?}");
    }
}

#[test]
fn each_judge_can_refuse() {
    let istio = |kind: &str, spec: Value| object("security.istio.io/v1", kind, spec);
    let cilium = |spec: Value| object("cilium.io/v2", "CiliumNetworkPolicy", spec);
    let validate: &[&str] = &["validate"];
    let authorization = "AuthorizationPolicy";
    let tool = json!({"matchLabels": {"countersign.dev/role": "tool"}});
    let endpoint = json!({"matchLabels": {"k8s:countersign.dev/role": "tool"}});
    for (what, judge_of, object, says) in [
        (
            "a port that is none",
            ("istio-judge", validate),
            istio(
                authorization,
                json!({"selector": tool, "rules": [{"to": [{"operation": {"ports": ["99999"]}}]}]}),
            ),
            "bad port",
        ),
        (
            "a source that says nothing",
            ("istio-judge", validate),
            istio(authorization, json!({"selector": tool, "rules": [{"from": [{"source": {}}]}]})),
            "must not be empty",
        ),
        (
            "a denial that denies nothing",
            ("istio-judge", validate),
            istio(authorization, json!({"selector": tool, "action": "DENY"})),
            "will never be triggered",
        ),
        (
            "ports without a selector",
            ("istio-judge", validate),
            istio("PeerAuthentication", json!({"portLevelMtls": {"8443": {"mode": "STRICT"}}})),
            "cannot have port level",
        ),
        (
            "a field that Istio does not know",
            ("istio-judge", validate),
            istio(authorization, json!({"selectors": tool})),
            "unknown field",
        ),
        (
            "a policy that is about no pod",
            ("istio-judge", validate),
            istio(authorization, json!({"selector": tool, "rules": [{}]})),
            NO_PODS,
        ),
        (
            "a path that is no regular expression",
            ("cilium-judge", &[]),
            cilium(json!({"endpointSelector": endpoint, "ingress": [{
                "toPorts": [{"ports": [{"port": "8443", "protocol": "TCP"}], "rules": {"http": [{"path": "/docs/("}]}}],
            }]})),
            "missing closing )",
        ),
        (
            "a port that is none",
            ("cilium-judge", &[]),
            cilium(json!({"endpointSelector": endpoint, "ingress": [{
                "toPorts": [{"ports": [{"port": "99999"}]}],
            }]})),
            "99999",
        ),
        (
            "a field that Cilium does not know",
            ("cilium-judge", &[]),
            cilium(json!({"endpointSelector": endpoint, "ingres": [{}]})),
            "unknown field",
        ),
        ("nothing", ("cilium-judge", &[]), cilium(Value::Null), "empty"),
    ] {
        let (program, arguments) = judge_of;
        let Some(found) = judge(program, arguments, &[object]) else { return };
        assert!(found.iter().any(|each| text(each).contains(says)), "{program}, {what}: {found:?}");
    }
}

fn object(api_version: &str, kind: &str, spec: Value) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "broken", "namespace": "a"}, "spec": spec})
}

fn text(finding: &Value) -> &str {
    finding["message"].as_str().expect("a finding has a message")
}

/// What a judge finds, having looked at each object; None where it has not been built, which CI must have done.
fn judge(program: &str, arguments: &[&str], objects: &[Value]) -> Option<Vec<Value>> {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools").join(program);
    if !program.exists() {
        assert!(std::env::var_os("CI").is_none(), "CI must build the judges first");
        eprintln!("skipped: e2e/judges/build.sh makes {}", program.display());
        return None;
    }
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a judge can be started");
    let stream: String = objects.iter().map(|object| format!("{object}\n---\n")).collect();
    let mut pipe = child.stdin.take().expect("it is piped");
    pipe.write_all(stream.as_bytes()).expect("a judge reads to the end");
    drop(pipe);
    let output = child.wait_with_output().expect("a judge can be waited for");
    assert!(output.status.success(), "a judge gave up: {}", output.status);
    let report: Value = serde_json::from_slice(&output.stdout).expect("a judge prints JSON");
    assert_eq!(report["judged"], objects.len());
    Some(report["findings"].as_array().expect("a judge lists its findings").clone())
}
