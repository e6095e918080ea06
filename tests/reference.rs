//! docs/reference.md leaves nothing out: every field, reason, label and metric stands in it.

use std::collections::BTreeSet;
use std::path::Path;

use countersign::api::{AgentAccessPolicy, AgentIdentity, AgentRoster, TrustDomain};
use kube::CustomResourceExt;
use serde_json::Value;

#[test]
fn every_field_is_described() {
    let reference = read("docs/reference.md");
    let mut fields = BTreeSet::new();
    for crd in
        [AgentIdentity::crd(), AgentRoster::crd(), TrustDomain::crd(), AgentAccessPolicy::crd()]
    {
        let crd = serde_json::to_value(crd).expect("a CRD is plain data");
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
        for part in ["spec", "status"] {
            collect_fields(&schema[part], &mut fields);
        }
    }
    assert!(fields.len() > 30, "the CRDs have fields: {fields:?}");
    let missing: Vec<&String> = fields.iter().filter(|name| !names(&reference, name)).collect();
    assert!(
        missing.is_empty(),
        "docs/reference.md does not say what these fields are: {missing:?}"
    );
}

#[test]
fn every_reason_is_described() {
    assert_described("src/api/conditions.rs", is_reason);
}

#[test]
fn every_reason_that_is_described_exists() {
    let reasons = strings("src/api/conditions.rs", is_reason);
    let reference = read("docs/reference.md");
    let mut in_table = false;
    for line in reference.lines() {
        in_table = line.starts_with("| reason |") || (in_table && line.starts_with('|'));
        if let Some(reason) = line.split('`').nth(1).filter(|_| in_table) {
            assert!(reasons.contains(reason), "there is no reason {reason}");
        }
    }
}

fn is_reason(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_uppercase())
        && text.chars().all(|c| c.is_ascii_alphanumeric())
}

#[test]
fn every_label_and_file_is_described() {
    assert_described("src/api/names.rs", |text| {
        !text.ends_with('/') && text.chars().any(|c| "./".contains(c)) && !text.contains(' ')
    });
}

/// prometheus-client adds the unit and `_total` to the name that the source has.
#[test]
fn every_metric_is_described() {
    let reference = read("docs/reference.md");
    let described: BTreeSet<&str> = reference.split('`').skip(1).step_by(2).collect();
    for source in ["src/telemetry.rs", "src/runtime/metrics.rs"] {
        let metrics = strings(source, |text| {
            text.starts_with("countersign_") || text.starts_with("process_")
        });
        assert!(!metrics.is_empty(), "{source} has metrics");
        for metric in metrics {
            let endings = ["", "_total", "_seconds"];
            let is_described =
                endings.iter().any(|end| described.contains(format!("{metric}{end}").as_str()));
            assert!(is_described, "docs/reference.md does not say what {metric} is");
        }
    }
}

/// Every string in a source file that looks like a name of that kind stands in the reference.
fn assert_described(source: &str, is_name: fn(&str) -> bool) {
    let reference = read("docs/reference.md");
    let found = strings(source, is_name);
    assert!(!found.is_empty(), "{source} has names");
    let missing: Vec<&String> = found.iter().filter(|name| !names(&reference, name)).collect();
    assert!(missing.is_empty(), "docs/reference.md does not say what these are: {missing:?}");
}

/// The strings in a source file, comments and tests aside, that look like a name of that kind.
fn strings(source: &str, is_name: fn(&str) -> bool) -> BTreeSet<String> {
    let text = read(source);
    let product = text.split("#[cfg(test)]").next().unwrap_or_default();
    let code = product.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(|line| line.split('"').skip(1).step_by(2))
        .filter(|text| is_name(text))
        .map(str::to_owned)
        .collect()
}

/// True if and only if the text has `name` in backquotes, alone or as a part of a path
/// (`` `certificate.duration` ``).
fn names(text: &str, name: &str) -> bool {
    text.split('`')
        .skip(1)
        .step_by(2)
        .any(|quoted| quoted == name || quoted.split('.').any(|part| part == name))
}

fn collect_fields(schema: &Value, fields: &mut BTreeSet<String>) {
    // Conditions are Kubernetes' own.
    if schema["x-kubernetes-list-map-keys"] == serde_json::json!(["type"]) {
        return;
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        fields.insert(name.clone());
        collect_fields(field, fields);
    }
    if schema["items"].is_object() {
        collect_fields(&schema["items"], fields);
    }
}

fn read(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file))
        .unwrap_or_else(|error| panic!("cannot read {file}: {error}"))
}
