//! What the chart renders, with the values it ships and with others.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use serde_yaml::Value;

#[test]
fn rights_are_by_verb_and_resource() {
    let Some(objects) = render(&[]) else { return };
    let roles: Vec<&Value> =
        objects.iter().filter(|object| matches!(kind(object), "ClusterRole" | "Role")).collect();
    assert!(roles.len() >= 2, "the chart has a ClusterRole and a Role");
    for role in roles {
        for rule in role["rules"].as_sequence().expect("a role has rules") {
            for list in ["apiGroups", "resources", "verbs"] {
                let words = strings(&rule[list]);
                assert!(
                    !words.is_empty() && words.iter().all(|word| !word.contains('*')),
                    "{rule:?}"
                );
            }
            let verbs = strings(&rule["verbs"]);
            for escalating in ["escalate", "bind", "impersonate"] {
                assert!(!verbs.contains(&escalating), "{rule:?}");
            }
        }
    }
    for binding in objects.iter().filter(|object| kind(object).ends_with("RoleBinding")) {
        assert_eq!(binding["roleRef"]["name"], "countersign", "no role but its own: {binding:?}");
    }
}

/// The restricted profile of the Pod Security Standards, and a file system nobody writes to.
#[test]
fn every_pod_is_restricted() {
    let Some(objects) = render(&[]) else { return };
    let pods = [
        &find(&objects, "Deployment", "countersign")["spec"]["template"]["spec"],
        &find(&objects, "Pod", "countersign-test")["spec"],
    ];
    for pod in pods {
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["securityContext"]["runAsUser"], 65532);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        for key in ["hostNetwork", "hostPID", "hostIPC", "volumes", "initContainers"] {
            assert!(pod.get(key).is_none(), "{key} in {pod:?}");
        }
        for container in pod["containers"].as_sequence().expect("a pod has containers") {
            let security = &container["securityContext"];
            assert_eq!(security["allowPrivilegeEscalation"], false);
            assert_eq!(security["readOnlyRootFilesystem"], true);
            assert_eq!(strings(&security["capabilities"]["drop"]), ["ALL"]);
            assert!(security["capabilities"].get("add").is_none());
        }
    }
}

#[test]
fn a_drain_takes_one_of_two_replicas() {
    let Some(objects) = render(&[]) else { return };
    assert_eq!(find(&objects, "Deployment", "countersign")["spec"]["replicas"], 2);
    let budget = find(&objects, "PodDisruptionBudget", "countersign");
    assert_eq!(budget["spec"]["maxUnavailable"], 1);
}

#[test]
fn selectors_find_the_operator_and_not_the_test_pod() {
    let Some(objects) = render(&["networkPolicy.enabled=true", "serviceMonitor.enabled=true"])
    else {
        return;
    };
    let deployment = &find(&objects, "Deployment", "countersign")["spec"];
    let selectors = [
        &deployment["selector"]["matchLabels"],
        &find(&objects, "Service", "countersign")["spec"]["selector"],
        &find(&objects, "PodDisruptionBudget", "countersign")["spec"]["selector"]["matchLabels"],
        &find(&objects, "NetworkPolicy", "countersign")["spec"]["podSelector"]["matchLabels"],
    ];
    for selector in selectors {
        assert!(matches(selector, &deployment["template"]["metadata"]["labels"]));
        assert!(!matches(
            selector,
            &find(&objects, "Pod", "countersign-test")["metadata"]["labels"]
        ));
    }
    let monitor = find(&objects, "ServiceMonitor", "countersign");
    assert!(matches(
        &monitor["spec"]["selector"]["matchLabels"],
        &find(&objects, "Service", "countersign")["metadata"]["labels"]
    ));
}

/// Each flavour selects revoked pods and nobody else.
#[test]
fn quarantine_is_off_by_default_and_selects_the_revoked_alone() {
    let is_quarantine = |object: &&Value| {
        object["metadata"]["name"]
            .as_str()
            .is_some_and(|name| name.starts_with("countersign-quarantine"))
    };
    let Some(objects) = render(&[]) else { return };
    assert_eq!(objects.iter().filter(is_quarantine).count(), 0);
    let all = ["networkPolicy", "istio", "linkerd", "cilium"]
        .map(|kind| format!("quarantine.{kind}=true"));
    let mut values: Vec<&str> = all.iter().map(String::as_str).collect();
    values.push(r#"quarantine.namespaces=["a","b"]"#);
    let objects = render(&values).expect("helm was there a moment ago");
    let revoked: Value =
        serde_yaml::from_str("countersign.dev/state: revoked").expect("it is YAML");
    let mut kinds: Vec<String> = Vec::new();
    for object in objects.iter().filter(is_quarantine) {
        let spec = &object["spec"];
        let selectors: Vec<&Value> =
            ["podSelector", "selector", "workloadSelector", "endpointSelector"]
                .into_iter()
                .filter_map(|key| spec.get(key))
                .map(|selector| selector.get("matchLabels").unwrap_or(&selector["labels"]))
                .collect();
        assert_eq!(selectors, [&revoked], "{object:?}");
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or("everywhere");
        kinds.push(format!("{} {namespace}", kind(object)));
    }
    kinds.sort();
    let mut expected = vec!["CiliumClusterwideNetworkPolicy everywhere".to_owned()];
    for kind in ["AuthorizationPolicy", "NetworkPolicy", "Server", "Sidecar"] {
        expected.extend(["a", "b"].map(|namespace| format!("{kind} {namespace}")));
    }
    expected.sort();
    assert_eq!(kinds, expected);
}

#[test]
fn crds_come_with_the_chart_and_stay_when_it_goes() {
    let Some(objects) = render(&[]) else { return };
    let crds: Vec<&Value> =
        objects.iter().filter(|object| kind(object) == "CustomResourceDefinition").collect();
    assert_eq!(crds.len(), 4);
    for crd in crds {
        assert_eq!(crd["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
    }
    let without = render(&["crds.install=false"]).expect("helm was there a moment ago");
    assert!(without.iter().all(|object| kind(object) != "CustomResourceDefinition"));
}

/// Helm's way through YAML and back must not change a rule or a number.
#[test]
fn crds_are_rendered_as_they_are() {
    let Some(objects) = render(&[]) else { return };
    for plural in ["agentidentities", "agentrosters", "trustdomains", "agentaccesspolicies"] {
        let file = root().join(format!("crds/{plural}.countersign.dev.yaml"));
        let text = std::fs::read_to_string(&file).expect("crds/ has it");
        let mut shipped: Value = serde_yaml::from_str(&text).expect("it is YAML");
        let name = format!("{plural}.countersign.dev");
        let mut rendered = find(&objects, "CustomResourceDefinition", &name)["spec"].clone();
        numbers_as_floats(&mut rendered);
        numbers_as_floats(&mut shipped["spec"]);
        assert!(rendered == shipped["spec"], "the chart renders another {name}");
    }
}

#[test]
fn a_digest_wins_over_a_tag() {
    let digest = format!("sha256:{}", "a".repeat(64));
    let value = format!("image.digest={digest}");
    let Some(objects) = render(&["image.repository=r.example/c", "image.tag=1", &value]) else {
        return;
    };
    let deployment = find(&objects, "Deployment", "countersign");
    let image = &deployment["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(image.as_str(), Some(format!("r.example/c@{digest}").as_str()));
}

#[test]
fn a_value_that_does_not_exist_is_refused() {
    for (value, says) in [
        ("replica=3", "replica"),
        ("image.tga=1", "tga"),
        ("replicas=-1", "replicas"),
        ("log.format=xml", "format"),
        ("image.digest=latest", "digest"),
        ("listenAddress=localhost", "listenAddress"),
        ("networkPolicy.apiServer.ports=[]", "ports"),
        ("quarantine.calico=true", "calico"),
        ("quarantine.istio=true", "list them in quarantine.namespaces"),
    ] {
        let Some(refusal) = helm_error(value) else { return };
        assert!(refusal.contains(says), "{value}: {refusal}");
    }
}

/// The objects the chart renders, or nothing where helm is not built.
fn render(values: &[&str]) -> Option<Vec<Value>> {
    let output = template(values)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "helm template with {values:?}: {errors}");
    let text = String::from_utf8(output.stdout).expect("helm prints text");
    let documents = serde_yaml::Deserializer::from_str(&text)
        .map(|document| Value::deserialize(document).expect("helm prints YAML"));
    Some(documents.filter(|document| !document.is_null()).collect())
}

/// What helm says against one value, or nothing where helm is not built.
fn helm_error(value: &str) -> Option<String> {
    let output = template(&[value])?;
    assert!(!output.status.success(), "helm took {value}");
    Some(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Helm is built, not shipped. A developer may run these tests without it; CI may not.
fn template(values: &[&str]) -> Option<std::process::Output> {
    let helm: PathBuf = root().join("target/tools/helm");
    if !helm.exists() {
        assert!(std::env::var_os("CI").is_none(), "CI must build helm first");
        eprintln!("skipped: e2e/tools/build.sh helm makes target/tools/helm");
        return None;
    }
    let mut command = Command::new(helm);
    command.args(["template", "countersign-system"]).arg(root().join("charts/countersign"));
    command.args(["--namespace", "countersign-system", "--kube-version", "v1.37.2"]);
    for value in values {
        let (key, text) = value.split_once('=').expect("a value is key=value");
        // JSON where it is JSON, so that numbers and lists keep their type; else a string.
        let is_json = serde_json::from_str::<serde_json::Value>(text).is_ok() && key != "image.tag";
        let option = if is_json { "--set-json" } else { "--set-string" };
        command.args([option, value]);
    }
    Some(command.output().expect("helm can be started"))
}

fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    objects
        .iter()
        .find(|object| self::kind(object) == kind && object["metadata"]["name"] == name)
        .unwrap_or_else(|| panic!("the chart renders no {kind} {name}"))
}

/// To Helm and to the API server, 0 and 0.0 are one number; to serde_yaml they are two.
fn numbers_as_floats(value: &mut Value) {
    match value {
        Value::Number(number) => *value = number.as_f64().expect("a number").into(),
        Value::Sequence(items) => items.iter_mut().for_each(numbers_as_floats),
        Value::Mapping(pairs) => pairs.values_mut().for_each(numbers_as_floats),
        _ => {}
    }
}

fn kind(object: &Value) -> &str {
    object["kind"].as_str().unwrap_or_default()
}

fn strings(list: &Value) -> Vec<&str> {
    list.as_sequence().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// True if and only if `labels` has every pair of `selector`, and there is one.
fn matches(selector: &Value, labels: &Value) -> bool {
    let pairs = selector.as_mapping().expect("a selector is a map");
    !pairs.is_empty() && pairs.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
