//! What the chart brings before the operator runs: the CRDs, the operator's rights, the policies.

use std::path::PathBuf;

use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::{Api, Client};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::policies::{self, Policies};
use crate::users::OPERATOR_NAMESPACE;
use crate::wait::{seconds, wait_for};
use crate::workspace;

/// Creates the operator's namespace, the CRDs of `crds/` and the RBAC objects of
/// `manifests/install.yaml`, waits until the API server serves the new kinds, and installs the policies.
pub async fn install(client: &Client, policies: Policies) {
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": OPERATOR_NAMESPACE},
    });
    apply(client, &namespace).await;
    let crds = crds();
    for crd in &crds {
        apply(client, crd).await;
    }
    for object in rights() {
        apply(client, &object).await;
    }
    for crd in &crds {
        is_served(client, crd).await;
    }
    policies::install(client, policies).await;
}

/// Applies one object on the server's side, as the test.
pub async fn apply(client: &Client, object: &Value) -> DynamicObject {
    let name = object["metadata"]["name"].as_str().expect("an object of ours has a name");
    let api = api_of(client, object);
    api.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(object))
        .await
        .unwrap_or_else(|error| panic!("cannot apply {} {name}: {error}", object["kind"]))
}

/// The API of an object's own kind and namespace.
pub fn api_of(client: &Client, object: &Value) -> Api<DynamicObject> {
    let text = |key: &str| object[key].as_str().expect("an object says its apiVersion and kind");
    let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, text("kind")));
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &kind),
        None => Api::all_with(client.clone(), &kind),
    }
}

/// The documents of a YAML text.
pub fn documents(text: &str) -> Vec<Value> {
    serde_yaml::Deserializer::from_str(text)
        .map(|document| Value::deserialize(document).expect("the file is YAML"))
        .filter(|document| !document.is_null())
        .collect()
}

/// The CRDs as they are shipped.
pub fn crds() -> Vec<Value> {
    let folder = workspace::root().join("crds");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", folder.display()))
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    files
        .iter()
        .flat_map(|file| documents(&std::fs::read_to_string(file).expect("a CRD can be read")))
        .collect()
}

/// The operator's rights as they are shipped.
fn rights() -> Vec<Value> {
    shipped(|kind| {
        matches!(
            kind,
            "ServiceAccount" | "ClusterRole" | "ClusterRoleBinding" | "Role" | "RoleBinding"
        )
    })
}

/// The objects of `manifests/install.yaml` whose kind is wanted.
pub fn shipped(is_wanted: impl Fn(&str) -> bool) -> Vec<Value> {
    let file = workspace::root().join("manifests/install.yaml");
    let text = std::fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", file.display()));
    let mut objects = documents(&text);
    objects.retain(|object| is_wanted(object["kind"].as_str().unwrap_or_default()));
    objects
}

/// Waits until the API server serves the kind that a CRD defines.
pub async fn is_served(client: &Client, crd: &Value) {
    let name = crd["metadata"]["name"].as_str().expect("a CRD has a name");
    let api = api_of(client, crd);
    wait_for(&format!("{name} is served"), seconds(30), async || {
        let crd = api.get(name).await.map_err(|error| error.to_string())?;
        let conditions = crd.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let is = |kind: &str| conditions.iter().any(|c| c["type"] == kind && c["status"] == "True");
        // A rule of ours that the API server would not take has refused the CRD before this.
        if is("Established") && is("NamesAccepted") {
            Ok(())
        } else {
            Err(json!(conditions).to_string())
        }
    })
    .await;
}
