//! What is made for Istio and Cilium, against the CRDs that those projects publish; an enforcer that
//! comes, and one that goes, while the operator runs; a restart.

use countersign::api::EnforcerState::{Applied, Delegated};
use countersign_e2e::install::{api_of, apply, documents, is_served};
use countersign_e2e::{
    Namespace, Operator, Options, User, World, holds_for, judges, meshes, seconds, wait_for,
    workspace,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::DeleteParams;
use kube::{Api, Client};
use serde_json::{Value, json};

use super::{crew, policy, ready};

#[tokio::test]
async fn the_meshes_own_definitions_take_what_is_made_for_them() {
    judges::build();
    let world = World::start().await;
    let ns = world.namespace("meshes").await;
    crew(&ns).await;
    let client = ns.client.clone();
    let crd_api: Api<CustomResourceDefinition> = Api::all(client.clone());
    serve(&client, &["security.istio.io", "cilium.io", "policy.linkerd.io"]).await;

    let spec = json!({
        "target": {"role": "tool", "ports": [8443]}, "ciliumAuthentication": "Required",
        "from": {"roles": ["planner"]}, "http": [{"methods": ["GET"], "paths": ["/v1.0/search", "/docs/*"]}],
        "enforcers": ["NetworkPolicy", "Istio", "Linkerd", "Cilium", "Envoy"],
    });
    policy(&ns, "tools", spec).await;
    let resource = ready(&ns, "tools", "True", "Compiled").await;
    let states: Vec<_> = resource.status.unwrap().enforcers.iter().map(|each| each.state).collect();
    assert_eq!(states, [Delegated, Delegated, Delegated, Applied, Applied]);

    let id = format!("test.countersign.dev/ns/{}/sa/planner", ns.name);
    let istio = found(&ns, "security.istio.io/v1", "AuthorizationPolicy", "tools").await.unwrap();
    let operation =
        json!({"ports": ["8443"], "methods": ["GET"], "paths": ["/docs/*", "/v1.0/search"]});
    let rules = istio["rules"].clone();
    assert_eq!(rules[0]["from"][0]["source"]["principals"], json!([id]));
    assert_eq!(sorted(&rules[0]["to"][0]["operation"]), sorted(&operation));
    let peers = found(&ns, "security.istio.io/v1", "PeerAuthentication", "tools").await.unwrap();
    assert_eq!(peers["mtls"]["mode"], "STRICT");
    let cilium = found(&ns, "cilium.io/v2", "CiliumNetworkPolicy", "tools").await.unwrap();
    assert_eq!(cilium["ingress"][0]["authentication"]["mode"], "required");
    let linkerd = found(
        &ns,
        "policy.linkerd.io/v1alpha1",
        "MeshTLSAuthentication",
        "countersign-search-8443",
    )
    .await;
    assert_eq!(linkerd.unwrap()["identityRefs"][0]["name"], "planner");

    judge(&ns).await;

    // What is stored is what was sent, by each definition: nothing is written again, nor by a
    // second operator after a restart.
    nothing_is_written(&ns, world.server.requests_by(User::Operator).len()).await;
    let before = world.server.requests_by(User::Operator).len();
    world.operator.stop(seconds(20)).await;
    world.server.forget_leader().await;
    let operator = Operator::start_leading(&world.server, Options::replica("second")).await;
    nothing_is_written(&ns, before).await;

    // Cilium goes while we run: no crash, and the others are kept.
    crd_api.delete("ciliumnetworkpolicies.cilium.io", &DeleteParams::default()).await.unwrap();
    let change = json!({
        "target": {"role": "tool", "ports": [8443]}, "from": {"roles": ["planner", "executor"]},
    });
    policy(&ns, "more", change.clone()).await;
    ready(&ns, "tools", "False", "Narrowed").await;
    let resource = ready(&ns, "more", "True", "Compiled").await;
    let names: Vec<Value> =
        resource.status.unwrap().enforcers.iter().map(|each| json!(each.name)).collect();
    assert!(names.contains(&json!("Istio")) && !names.contains(&json!("Cilium")), "{names:?}");
    assert!(operator.leads().await, "the same operator still leads");

    // Taken out of the policy, an enforcer's objects go.
    let mut pinned = change;
    pinned["enforcers"] = json!(["NetworkPolicy"]);
    policy(&ns, "more", pinned.clone()).await;
    pinned["from"] = json!({"roles": ["planner"]});
    policy(&ns, "tools", pinned).await;
    ready(&ns, "tools", "True", "Compiled").await;
    wait_for("Istio's objects are gone", seconds(30), async || {
        match found(&ns, "security.istio.io/v1", "AuthorizationPolicy", "tools").await {
            None => Ok(()),
            Some(found) => Err(found),
        }
    })
    .await;
}

/// Has the API server serve the published definitions of these groups.
pub async fn serve(client: &Client, groups: &[&str]) {
    let crds = crds(groups);
    for crd in &crds {
        apply(client, crd).await;
    }
    for crd in &crds {
        is_served(client, crd).await;
    }
}

async fn nothing_is_written(ns: &Namespace, before: usize) {
    holds_for("nothing is written", seconds(3), async || {
        let writes = ns.server.requests_by(User::Operator).after(before).within(&ns.name).writes();
        // The roster of identities that were just made follows them within a second or two.
        let writes = writes.filter(|request| request.resource != "agentrosters");
        if writes.is_empty() { Ok(()) } else { Err(writes) }
    })
    .await;
}

/// Istio's and Cilium's own code finds nothing wrong with what is stored, beside pods that it is about.
async fn judge(ns: &Namespace) {
    let mut objects = all(ns, "security.istio.io/v1", "AuthorizationPolicy").await;
    objects.extend(all(ns, "security.istio.io/v1", "PeerAuthentication").await);
    objects.extend(all(ns, "cilium.io/v2", "CiliumNetworkPolicy").await);
    assert_eq!(objects.len(), 5, "each of the policy, and the first and the last of the revoked");
    let without_pods = meshes::istio_finds(&objects);
    let selects_nothing = |finding: &Value| meshes::message(finding).contains(meshes::NO_PODS);
    assert!(
        without_pods.len() == 2 && without_pods.iter().all(selects_nothing),
        "{without_pods:?}"
    );
    objects.push(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": ns.name}}));
    for (name, mut labels) in [
        ("tool", json!({"countersign.dev/role": "tool"})),
        ("stolen", json!({"countersign.dev/state": "revoked"})),
    ] {
        labels["sidecar.istio.io/inject"] = json!("true");
        let metadata = json!({"name": name, "namespace": ns.name, "labels": labels});
        objects.push(json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": []}}));
    }
    assert_eq!(meshes::istio_finds(&objects), Vec::<Value>::new());
    assert_eq!(meshes::cilium_finds(&objects), Vec::<Value>::new());
}

/// Every object of a kind in the namespace, whole.
pub async fn all(ns: &Namespace, api_version: &str, kind: &str) -> Vec<Value> {
    let object = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "any", "namespace": ns.name}});
    let list = api_of(&ns.client, &object).list(&Default::default()).await.unwrap();
    let mut objects: Vec<Value> = list.iter().map(|each| json!(each)).collect();
    for each in &mut objects {
        (each["apiVersion"], each["kind"]) = (json!(api_version), json!(kind));
    }
    objects
}

/// The spec of an object, if it is there.
async fn found(ns: &Namespace, api_version: &str, kind: &str, name: &str) -> Option<Value> {
    // kube guesses a plural by adding an s, or by turning a y to ies.
    let object = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": ns.name}});
    let found = api_of(&ns.client, &object).get_opt(name).await.unwrap();
    found.map(|found| found.data["spec"].clone())
}

/// Lists in order: the order of paths is nobody's business.
fn sorted(operation: &Value) -> Value {
    let mut operation = operation.clone();
    for list in operation.as_object_mut().unwrap().values_mut() {
        list.as_array_mut().unwrap().sort_by_key(ToString::to_string);
    }
    operation
}

/// The published definitions of these groups.
fn crds(groups: &[&str]) -> Vec<Value> {
    let published = workspace::tool("enforcer-crds");
    let files = [
        published.join("istio.yaml"),
        published.join("cilium.yaml"),
        workspace::root().join("e2e/tests/access/linkerd.yaml"),
    ];
    let all = files.iter().flat_map(|file| documents(&std::fs::read_to_string(file).unwrap()));
    let wanted = |crd: &Value| {
        let group = crd["spec"]["group"].as_str().unwrap_or_default();
        groups.contains(&group)
    };
    all.filter(wanted).collect()
}
