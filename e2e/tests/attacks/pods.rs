//! The attacks on pods, one row each.

use serde_json::{Value, json};

use crate::attack::{Attack, Verb};
use crate::scene::Scene;

use Verb::{Apply, Json, Merge, Post, Put, Strategic};

/// By whoever has every right in the namespace.
pub fn on_pods(scene: &Scene) -> Vec<Attack> {
    let ns = &scene.room.name;
    let pods = format!("/api/v1/namespaces/{ns}/pods");
    let bare = format!("/api/v1/namespaces/{}/pods", scene.empty.name);
    let new = |what, account: &str, metadata: Value, says| Attack {
        what,
        verb: Post,
        path: pods.clone(),
        body: pod(account, metadata),
        says,
    };
    let elsewhere = |what, metadata: Value, says| Attack {
        what,
        verb: Post,
        path: bare.clone(),
        body: pod("default", metadata),
        says,
    };
    let live = |what, verb, rest: &str, body: Value, says| Attack {
        what,
        verb,
        path: format!("{pods}/{rest}"),
        body,
        says,
    };
    let label = |key: &str, value: Value| json!({"metadata": {"labels": {key: value}}});
    let (identity, role, state) =
        ("countersign.dev/identity", "countersign.dev/role", "countersign.dev/state");
    let spiffe_id = "countersign.dev/spiffe-id";
    let alone = "Countersign alone writes";
    let remove = json!([{"op": "remove", "path": "/metadata/labels/countersign.dev~1state"}]);
    let add = json!([{"op": "add", "path": "/metadata/labels/countersign.dev~1identity", "value": "planner"}]);
    let binding = |metadata: Value| {
        let mut body = json!({"apiVersion": "v1", "kind": "Binding", "metadata": metadata, "target": {"kind": "Node", "name": "n"}});
        body["metadata"]["name"] = json!("stranger");
        body
    };
    let mut relabelled = scene.revoked.clone();
    relabelled["metadata"]["labels"][state] = json!("active");
    let mut stripped = scene.revoked.clone();
    stripped["metadata"]["labels"] = json!({});
    let mut forged = scene.stranger.clone();
    forged["metadata"]["labels"][identity] = json!("planner");
    let applied = |name: &str, account: &str, labels: Value| {
        let mut body = pod(account, json!({"name": name, "labels": labels}));
        body["apiVersion"] = json!("v1");
        body["kind"] = json!("Pod");
        body
    };

    vec![
        // A new pod.
        new(
            "a pod without identity says that it is one",
            "default",
            json!({"name": "x", "labels": {identity: "planner"}}),
            "no AgentIdentity of this namespace is for pods of ServiceAccount default",
        ),
        new(
            "a pod says that it is another",
            "executor",
            json!({"name": "x", "labels": {identity: "planner"}}),
            "are executor, not planner",
        ),
        new(
            "a pod takes another's role",
            "executor",
            json!({"name": "x", "labels": {role: "planner"}}),
            "has the role executor, not planner",
        ),
        new(
            "a pod takes another's SPIFFE ID",
            "executor",
            json!({"name": "x", "annotations": {spiffe_id: "spiffe://test.countersign.dev/ns/x/sa/planner"}}),
            "the SPIFFE ID of AgentIdentity executor is",
        ),
        new(
            "a role without an identity",
            "default",
            json!({"name": "x", "labels": {role: "planner"}}),
            "may not bring countersign.dev/role",
        ),
        new(
            "a SPIFFE ID without an identity",
            "default",
            json!({"name": "x", "annotations": {spiffe_id: "spiffe://x/y"}}),
            "may not bring countersign.dev/spiffe-id",
        ),
        new(
            "a revoked identity's new pod says that it is active",
            "planner",
            json!({"name": "x", "labels": {state: "active"}}),
            "is revoked, not active",
        ),
        new(
            "a pod outside the selector says that it is the identity",
            "narrow",
            json!({"name": "x", "labels": {identity: "narrow"}}),
            "no AgentIdentity of this namespace is for pods of ServiceAccount narrow",
        ),
        new(
            "an identity that does not exist yet",
            "default",
            json!({"name": "x", "labels": {identity: "future"}}),
            "no AgentIdentity of this namespace is for",
        ),
        new(
            "an identity that does not exist yet, of a ServiceAccount that has one",
            "executor",
            json!({"name": "x", "labels": {identity: "future"}}),
            "are executor, not future",
        ),
        new(
            "a label of ours that there is not",
            "executor",
            json!({"name": "x", "labels": {"countersign.dev/admin": "yes"}}),
            "may not bring countersign.dev/admin",
        ),
        new(
            "a label under a domain of ours",
            "executor",
            json!({"name": "x", "labels": {"x.countersign.dev/role": "planner"}}),
            "may not bring x.countersign.dev/role",
        ),
        new(
            "an annotation of ours that there is not",
            "executor",
            json!({"name": "x", "annotations": {"countersign.dev/serial": "1"}}),
            "may not bring countersign.dev/serial",
        ),
        new(
            "generateName",
            "default",
            json!({"generateName": "x-", "labels": {identity: "planner"}}),
            "no AgentIdentity of this namespace is for",
        ),
        Attack {
            what: "dry run",
            verb: Post,
            path: format!("{pods}?dryRun=All"),
            body: pod("default", json!({"name": "x", "labels": {identity: "planner"}})),
            says: "no AgentIdentity of this namespace is for",
        },
        live(
            "created by server-side apply",
            Apply,
            "applied?fieldManager=x&force=true",
            applied("applied", "default", json!({identity: "planner"})),
            "no AgentIdentity of this namespace is for",
        ),
        elsewhere(
            "an identity in a namespace without a roster",
            json!({"name": "x", "labels": {identity: "planner"}}),
            "no params found",
        ),
        elsewhere(
            "a role in a namespace without a roster",
            json!({"name": "x", "labels": {role: "planner"}}),
            "may not bring countersign.dev/role",
        ),
        // Later, on a pod that is none of ours.
        live("added by merge patch", Merge, "stranger", label(identity, json!("planner")), alone),
        live(
            "added by strategic merge patch",
            Strategic,
            "stranger",
            label(identity, json!("planner")),
            alone,
        ),
        live("added by JSON patch", Json, "stranger", add, alone),
        live(
            "added by server-side apply",
            Apply,
            "stranger?fieldManager=x&force=true",
            applied("stranger", "default", json!({identity: "planner"})),
            alone,
        ),
        live("added by update", Put, "stranger", forged.clone(), alone),
        live("added by update, dry run", Put, "stranger?dryRun=All", forged.clone(), alone),
        live(
            "added through status, patch",
            Merge,
            "stranger/status",
            label(identity, json!("planner")),
            alone,
        ),
        live(
            "added through status, apply",
            Apply,
            "stranger/status?fieldManager=x&force=true",
            applied("stranger", "default", json!({identity: "planner"})),
            alone,
        ),
        live("added through status, update", Put, "stranger/status", forged, alone),
        live(
            "an annotation, through status",
            Merge,
            "stranger/status",
            json!({"metadata": {"annotations": {spiffe_id: "spiffe://x/y"}}}),
            alone,
        ),
        live(
            "an annotation, through a binding",
            Post,
            "stranger/binding",
            binding(json!({"annotations": {spiffe_id: "spiffe://x/y"}})),
            alone,
        ),
        live(
            "a label, through a binding",
            Post,
            "stranger/binding",
            binding(json!({"labels": {identity: "planner"}})),
            alone,
        ),
        Attack {
            what: "an annotation, through the old bindings",
            verb: Post,
            path: format!("/api/v1/namespaces/{ns}/bindings"),
            body: binding(json!({"annotations": {spiffe_id: "spiffe://x/y"}})),
            says: alone,
        },
        live(
            "a label, through an eviction",
            Post,
            "stranger/eviction",
            json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "stranger", "labels": {identity: "planner"}}}),
            alone,
        ),
        // On a pod of a revoked identity.
        live(
            "revoked to active by merge patch",
            Merge,
            "revoked",
            label(state, json!("active")),
            alone,
        ),
        live("revoked to active by update", Put, "revoked", relabelled, alone),
        live(
            "revoked to active through status",
            Merge,
            "revoked/status",
            label(state, json!("active")),
            alone,
        ),
        live(
            "revoked to active by server-side apply",
            Apply,
            "revoked?fieldManager=x&force=true",
            applied("revoked", "planner", json!({state: "active"})),
            alone,
        ),
        live(
            "revoked taken off by merge patch",
            Merge,
            "revoked",
            label(state, Value::Null),
            alone,
        ),
        live("revoked taken off by JSON patch", Json, "revoked", remove.clone(), alone),
        live("revoked taken off through status", Json, "revoked/status", remove, alone),
        live(
            "every label taken off",
            Merge,
            "revoked",
            json!({"metadata": {"labels": null}}),
            alone,
        ),
        live("every label taken off by update", Put, "revoked", stripped, alone),
        live(
            "the SPIFFE ID taken off",
            Merge,
            "revoked",
            json!({"metadata": {"annotations": {spiffe_id: null}}}),
            alone,
        ),
        live("the role changed", Merge, "revoked", label(role, json!("admin")), alone),
    ]
}

/// A pod that runs as `account`.
pub fn pod(account: &str, metadata: Value) -> Value {
    json!({"metadata": metadata, "spec": {"serviceAccountName": account, "containers": [{"name": "agent", "image": "agent"}]}})
}
