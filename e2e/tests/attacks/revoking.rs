//! The attacks on revocations, by whoever may write AgentIdentities and lacks the verb `revoke`;
//! and what those do who have it.

use countersign::api::AgentIdentity;
use countersign_e2e::{seconds, wait_for};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use crate::attack::{Attack, Verb};
use crate::scene::Scene;

use Verb::{Apply, Delete, Json, Merge, Post};

const FINALIZER: &str = "countersign.dev/revocation";
const REVOKED_BY: &str = "countersign.dev/revoked-by";

/// What each of the ServiceAccounts may do.
pub const EDITOR: [&str; 7] = ["get", "list", "watch", "create", "update", "patch", "delete"];

/// Gives ServiceAccount `editor` every usual right to AgentIdentities, and `guard` the ClusterRole
/// that the chart has for revoking. Takes back what `planner` is.
pub async fn prepare(scene: &Scene) {
    let ns = &scene.room.name;
    let rbac = "rbac.authorization.k8s.io";
    for (account, role) in [("editor", "Role"), ("guard", "ClusterRole")] {
        scene.room.service_account(account).await;
        let name = if account == "guard" { "countersign-revoker" } else { account };
        if role == "Role" {
            let rule = json!({"apiGroups": ["countersign.dev"], "resources": ["agentidentities"], "verbs": EDITOR});
            scene.room.put(json!({
                "apiVersion": format!("{rbac}/v1"), "kind": role, "metadata": {"name": name}, "rules": [rule],
            }))
            .await;
        }
        scene.room.put(json!({
            "apiVersion": format!("{rbac}/v1"), "kind": "RoleBinding", "metadata": {"name": account},
            "roleRef": {"apiGroup": rbac, "kind": role, "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": ns}],
        }))
        .await;
    }
    let revoked =
        json!({"spec": {"revoked": {"reason": "KeyCompromise", "message": "seen in a log"}}});
    let planner = scene.room.change_identity("planner", revoked).await;
    assert_eq!(planner.annotations()[REVOKED_BY], "admin");
}

/// By whoever may write AgentIdentities.
pub fn rows(scene: &Scene) -> Vec<Attack> {
    let path =
        format!("/apis/countersign.dev/v1alpha1/namespaces/{}/agentidentities", scene.room.name);
    let may_not = "may not revoke AgentIdentities of namespace";
    let stays = "planner is revoked: its spec stays as it is";
    let reason = json!({"reason": "Superseded"});
    let serials = json!([{"serialNumber": "0123456789abcdef0123456789abcdef"}]);
    let object = |spec: Value| json!({"apiVersion": "countersign.dev/v1alpha1", "kind": "AgentIdentity", "metadata": {"name": "x"}, "spec": spec});
    let new = |what, mut spec: Value| {
        spec["serviceAccountName"] = json!("x");
        Attack { what, verb: Post, path: path.clone(), body: object(spec), says: may_not }
    };
    let change = |what, verb, name: &str, body: Value, says| Attack {
        what,
        verb,
        path: format!("{path}/{name}"),
        body,
        says,
    };
    let spec = |spec: Value| json!({"spec": spec});
    let mut applied = object(json!({"serviceAccountName": "executor", "revoked": reason}));
    applied["metadata"]["name"] = json!("executor");
    let remove = json!([{"op": "remove", "path": "/spec/revoked"}]);
    vec![
        new("an identity that is revoked from the start", json!({"revoked": reason})),
        new("one with a certificate that is", json!({"revokedCertificates": serials})),
        change("another is revoked", Merge, "executor", spec(json!({"revoked": reason})), may_not),
        change(
            "another is revoked by server-side apply",
            Apply,
            "executor?fieldManager=x&force=true",
            applied,
            may_not,
        ),
        change(
            "a certificate is revoked",
            Merge,
            "executor",
            spec(json!({"revokedCertificates": serials})),
            may_not,
        ),
        change(
            "what is revoked is given back",
            Merge,
            "planner",
            spec(json!({"revoked": null})),
            may_not,
        ),
        change("what is revoked is given back by JSON patch", Json, "planner", remove, may_not),
        change(
            "another reason is given",
            Merge,
            "planner",
            spec(json!({"revoked": {"reason": "Superseded"}})),
            may_not,
        ),
        change(
            "another message is given",
            Merge,
            "planner",
            spec(json!({"revoked": {"message": "nothing to see"}})),
            may_not,
        ),
        change(
            "what is revoked leaves its SPIFFE ID to another",
            Merge,
            "planner",
            spec(json!({"serviceAccountName": "other"})),
            stays,
        ),
        change(
            "what is revoked lets go of its pods",
            Merge,
            "planner",
            spec(json!({"podSelector": {"matchLabels": {"app": "none"}}})),
            stays,
        ),
        change(
            "what is revoked leaves its key behind",
            Merge,
            "planner",
            spec(json!({"delivery": {"deletionPolicy": "Orphan"}})),
            stays,
        ),
        change(
            "what is revoked is deleted",
            Delete,
            "planner",
            Value::Null,
            "planner is revoked: who deletes it wants the verb revoke",
        ),
    ]
}

/// What looks like an attack and comes to nothing, and what those may do who revoke.
pub async fn harmless_and_allowed(scene: &Scene, editor: &Client, guard: &Client) {
    let api = |client: &Client| -> Api<AgentIdentity> {
        Api::namespaced(client.clone(), &scene.room.name)
    };
    let merge = async |client: &Client, name: &str, patch: Value| {
        let patch = kube::api::Patch::Merge(patch);
        let changed = api(client).patch(name, &Default::default(), &patch).await;
        changed.unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    let found = merge(editor, "executor", json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(found.finalizers(), [FINALIZER], "it is put on again at once");
    let forged = json!({"metadata": {"annotations": {REVOKED_BY: "somebody else"}}});
    let found = merge(editor, "planner", forged.clone()).await;
    assert_eq!(found.annotations()[REVOKED_BY], "admin");
    let found = merge(editor, "executor", forged).await;
    assert!(!found.annotations().contains_key(REVOKED_BY));
    merge(editor, "planner", json!({"metadata": {"labels": {"team": "a"}}})).await;
    let duration = json!({"spec": {"certificate": {"duration": "2h"}}});
    merge(editor, "executor", duration).await;

    let name = format!("system:serviceaccount:{}:guard", scene.room.name);
    let revoked = json!({"spec": {"revoked": {"reason": "KeyCompromise"}}});
    let found = merge(guard, "executor", revoked).await;
    assert_eq!(found.annotations()[REVOKED_BY], name);
    let found = merge(guard, "executor", json!({"spec": {"revoked": null}})).await;
    assert!(!found.annotations().contains_key(REVOKED_BY), "nothing is revoked any more");
    let log = std::fs::read_to_string(scene.room.server.folder().join("audit.log")).unwrap();
    for (who, what) in [
        ("admin", "revokes the identity"),
        (&*name, "revokes the identity"),
        (&*name, "gives the identity back"),
    ] {
        let line = format!(r#""countersign-revocation/revocation":"{who} {what}""#);
        assert!(log.contains(&line), "the API server's audit log has {line}");
    }
}

/// A namespace that ends: its identities wait for the operator, which is gone. Those alone who may
/// revoke take the finalizer off.
pub async fn ends(scene: &Scene, member: &Client, admin: &Client) {
    let rbac = "rbac.authorization.k8s.io";
    // What was bound in the namespace goes with it.
    for role in ["countersign-view", "countersign-edit"] {
        let binding = json!({
            "apiVersion": format!("{rbac}/v1"), "kind": "ClusterRoleBinding",
            "metadata": {"name": format!("everywhere-{role}")},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "User", "name": "member", "apiGroup": rbac}],
        });
        countersign_e2e::install::apply(admin, &binding).await;
    }
    let path = format!(
        "/apis/countersign.dev/v1alpha1/namespaces/{}/agentidentities/planner",
        scene.room.name
    );
    let attack = |what, verb, rest: &str, body| Attack {
        what,
        verb,
        path: format!("{path}{rest}"),
        body,
        says: "the finalizer countersign.dev/revocation is the operator's",
    };
    let none = json!({"metadata": {"finalizers": []}});
    wait_for("the namespace's own rights are gone", seconds(60), async || {
        let tried = attack("", Merge, "?dryRun=All", none.clone());
        let answer = tried.send(member).await;
        let is_refused = answer.is_refused_by_policy() && answer.message().contains(tried.says);
        if is_refused { Ok(()) } else { Err(answer) }
    })
    .await;
    let answer = attack("the finalizer is taken off", Merge, "", none.clone()).send(member).await;
    assert!(answer.is_refused_by_policy(), "{answer:#?}");
    let answer = attack("it is deleted", Delete, "", Value::Null).send(member).await;
    assert!(answer.code < 300, "with its namespace whoever may: {answer:#?}");
    for name in ["planner", "executor", "narrow", "granted"] {
        let api: Api<AgentIdentity> = Api::namespaced(admin.clone(), &scene.room.name);
        let none = kube::api::Patch::Merge(&none);
        api.patch(name, &Default::default(), &none).await.expect("an administrator may");
    }
}
