//! Istio's and Cilium's own code (`e2e/judges/istio`, `e2e/judges/cilium`): what it finds wrong with what is made for them, and what
//! istiod makes of it for an Envoy.

use std::process::Command;

use serde::Deserialize;
use serde_json::Value;

use crate::judges::run;
use crate::workspace;

/// What istiod tells the Envoy of a pod.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Compiled {
    /// `STRICT`, `PERMISSIVE` or `DISABLE`.
    #[serde(rename = "mutualTLS")]
    pub mutual_tls: String,
    /// HTTP filters, in their order. None where no policy is about the pod.
    pub http: Vec<Value>,
}

/// In what the analyzers say of a policy that selects no pod.
pub const NO_PODS: &str = "[IST0127]";

/// What istiod's validation and `istioctl analyze` find wrong with Istio's objects among these. The analyzers look at namespaces and
/// pods as well: a policy that selects no pod is a finding.
pub fn istio_finds(objects: &[Value]) -> Vec<Value> {
    judged("istio-judge", &["validate"], objects, "istio.io")
}

/// What Cilium's agent finds wrong with CiliumNetworkPolicies among these.
pub fn cilium_finds(objects: &[Value]) -> Vec<Value> {
    judged("cilium-judge", &[], objects, "cilium.io")
}

/// What a finding says.
pub fn message(finding: &Value) -> &str {
    finding["message"].as_str().expect("a finding has a message")
}

/// What istiod makes of these objects for the Envoy beside a pod with these labels (`a=b,c=d`).
pub fn compiled_by_istio(objects: &[Value], namespace: &str, labels: &str) -> Compiled {
    let mut command = Command::new(workspace::tool("istio-judge"));
    command.args(["compile", namespace, labels]);
    let printed = run(&mut command, &stream(objects));
    serde_json::from_str(&printed).expect("istio-judge prints JSON")
}

/// Panics where the judge did not look at each object of the group, or at none.
fn judged(program: &str, arguments: &[&str], objects: &[Value], group: &str) -> Vec<Value> {
    let of_group = |object: &&Value| {
        let group_of =
            |version: &str| version.split('/').next().is_some_and(|g| g.ends_with(group));
        object["apiVersion"].as_str().is_some_and(group_of)
    };
    let expected = objects.iter().filter(of_group).count();
    let printed = run(Command::new(workspace::tool(program)).args(arguments), &stream(objects));
    let report: Value = serde_json::from_str(&printed).expect("a judge prints JSON");
    assert!(expected > 0 && report["judged"] == expected, "{program}: {expected} are {report}");
    report["findings"].as_array().expect("a judge lists its findings").clone()
}

/// JSON is YAML, one document after the other.
fn stream(objects: &[Value]) -> String {
    objects.iter().map(|object| format!("{object}\n---\n")).collect()
}
