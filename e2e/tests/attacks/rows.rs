//! The attacks on what the labels rest on, one row each.

use serde_json::{Value, json};

use crate::attack::{Attack, Verb};
use crate::scene::Scene;

use Verb::{Apply, Delete, Merge, Post, Put, Strategic};

/// By the same, on what the labels rest on.
pub fn on_other_objects(scene: &Scene) -> Vec<Attack> {
    let ns = &scene.room.name;
    let rosters = |ns: &str| format!("/apis/countersign.dev/v1alpha1/namespaces/{ns}/agentrosters");
    let core = |rest: &str| format!("/api/v1/namespaces/{ns}/{rest}");
    let roster = json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "AgentRoster", "metadata": {"name": "countersign"},
        "spec": {"identities": 1, "accounts": {"default": [{"identity": "planner", "state": "active", "spiffeId": "spiffe://x/y"}]}},
    });
    let mut another = roster.clone();
    another["metadata"]["name"] = json!("another");
    let mut edited = scene.roster.clone();
    edited["spec"]["accounts"]["planner"][0]["state"] = json!("active");
    let identity = "countersign.dev/identity";
    let alone = "Countersign alone writes";
    let rosters_alone = "Countersign alone writes AgentRosters";
    let attack = |what, verb, path, body, says| Attack { what, verb, path, body, says };
    let bundle = "configmaps/countersign-trust-test";
    vec![
        attack(
            "a roster for a namespace without one",
            Post,
            rosters(&scene.empty.name),
            roster.clone(),
            rosters_alone,
        ),
        attack("a second roster", Post, rosters(ns), another, rosters_alone),
        attack(
            "the roster edited by update",
            Put,
            format!("{}/countersign", rosters(ns)),
            edited,
            rosters_alone,
        ),
        attack(
            "the roster edited by merge patch",
            Merge,
            format!("{}/countersign", rosters(ns)),
            json!({"spec": {"accounts": {}}}),
            rosters_alone,
        ),
        attack(
            "the roster edited by server-side apply",
            Apply,
            format!("{}/countersign?fieldManager=x&force=true", rosters(ns)),
            roster,
            rosters_alone,
        ),
        attack(
            "the roster deleted",
            Delete,
            format!("{}/countersign", rosters(ns)),
            Value::Null,
            rosters_alone,
        ),
        attack("every roster deleted", Delete, rosters(ns), Value::Null, rosters_alone),
        attack(
            "a Secret that says it is an identity's",
            Post,
            core("secrets"),
            json!({"metadata": {"name": "x", "labels": {identity: "planner"}}}),
            alone,
        ),
        attack(
            "an identity's Secret says it is another's",
            Merge,
            core("secrets/planner-identity"),
            json!({"metadata": {"labels": {identity: "executor"}}}),
            alone,
        ),
        attack(
            "an identity's Secret loses its label",
            Merge,
            core("secrets/planner-identity"),
            json!({"metadata": {"labels": {identity: null}}}),
            alone,
        ),
        attack(
            "an identity's Secret gets another serial number",
            Merge,
            core("secrets/planner-identity"),
            json!({"metadata": {"annotations": {"countersign.dev/serial": "1"}}}),
            alone,
        ),
        attack(
            "a ConfigMap that says it is a bundle",
            Post,
            core("configmaps"),
            json!({"metadata": {"name": "x", "labels": {"countersign.dev/trust-domain": "test"}}}),
            alone,
        ),
        attack(
            "a bundle's ConfigMap loses its label",
            Merge,
            core(bundle),
            json!({"metadata": {"labels": {"countersign.dev/trust-domain": null}}}),
            alone,
        ),
        attack(
            "a bundle's ConfigMap gets another digest",
            Merge,
            core(bundle),
            json!({"metadata": {"annotations": {"countersign.dev/bundle-sha256": "00"}}}),
            alone,
        ),
    ]
}

/// By whoever has every right in the operator's own namespace, and none to TrustDomains.
pub fn on_ca_secrets(scene: &Scene) -> Vec<Attack> {
    let secrets = "/api/v1/namespaces/countersign-system/secrets";
    let label = "countersign.dev/trust-domain";
    let alone = "Countersign alone writes";
    let attack = |what, verb, path, body| Attack { what, verb, path, body, says: alone };
    vec![
        attack(
            "a Secret that says it is a CA's",
            Post,
            secrets.to_owned(),
            json!({"metadata": {"name": "x", "labels": {label: "test", "countersign.dev/slot-kind": "root"}}}),
        ),
        attack(
            "a CA's Secret loses its label",
            Merge,
            format!("{secrets}/{}", scene.ca),
            json!({"metadata": {"labels": {label: null}}}),
        ),
        attack(
            "a CA's Secret goes to another trust domain",
            Merge,
            format!("{secrets}/{}", scene.ca),
            json!({"metadata": {"labels": {label: "other"}}}),
        ),
    ]
}

/// With the operator's own token, and a certificate to have trusted.
pub fn with_a_stolen_operator_token(scene: &Scene, ca: &str) -> Vec<Attack> {
    let ns = &scene.room.name;
    let core = |rest: &str| format!("/api/v1/namespaces/{ns}/{rest}");
    let owner = |kind: &str, name: &str| json!([{"apiVersion": "countersign.dev/v1alpha1", "kind": kind, "name": name, "uid": "x", "controller": true}]);
    let labels = json!({"countersign.dev/identity": "planner"});
    let identities = format!("/apis/countersign.dev/v1alpha1/namespaces/{ns}/agentidentities");
    let only_finalizers = "the operator changes its finalizers of AgentIdentities and TrustDomains";
    let no_secret = "the operator writes no Secret";
    let no_map = "the operator writes no ConfigMap";
    let only_labels = "the operator changes labels and annotations of pods, and nothing else";
    let attack = |what, verb, path, body, says| Attack { what, verb, path, body, says };
    vec![
        attack(
            "a ClusterTrustBundle for everybody",
            Post,
            "/apis/certificates.k8s.io/v1/clustertrustbundles".to_owned(),
            json!({"apiVersion": "certificates.k8s.io/v1", "kind": "ClusterTrustBundle", "metadata": {"name": "everybody"}, "spec": {"trustBundle": ca}}),
            "ClusterTrustBundles of the signer countersign.dev/agent alone",
        ),
        attack(
            "another label on a pod",
            Merge,
            core("pods/stranger"),
            json!({"metadata": {"labels": {"app": "database"}}}),
            "the operator changes no labels and annotations of pods but its own, and not app",
        ),
        attack(
            "another's label taken off a pod",
            Merge,
            core("pods/stranger"),
            json!({"metadata": {"labels": {"app": null}}}),
            "not app",
        ),
        attack(
            "another annotation on a pod",
            Merge,
            core("pods/stranger"),
            json!({"metadata": {"annotations": {"example.com/a": "b"}}}),
            "not example.com/a",
        ),
        attack(
            "a label of ours that there is not, on a pod",
            Merge,
            core("pods/stranger"),
            json!({"metadata": {"labels": {"countersign.dev/admin": "b"}}}),
            "not countersign.dev/admin",
        ),
        attack(
            "another image in a pod",
            Strategic,
            core("pods/stranger"),
            json!({"spec": {"containers": [{"name": "agent", "image": "evil"}]}}),
            only_labels,
        ),
        attack(
            "a finalizer on a pod",
            Merge,
            core("pods/stranger"),
            json!({"metadata": {"finalizers": ["example.com/a"]}}),
            only_labels,
        ),
        attack(
            "an owner for a pod",
            Merge,
            core("pods/stranger"),
            json!({"metadata": {"ownerReferences": owner("AgentIdentity", "planner")}}),
            only_labels,
        ),
        attack(
            "a Secret of nobody",
            Post,
            core("secrets"),
            json!({"metadata": {"name": "x"}, "type": "kubernetes.io/tls", "data": {"tls.crt": "", "tls.key": ""}}),
            no_secret,
        ),
        attack(
            "a Secret of a foreign owner",
            Post,
            core("secrets"),
            json!({"metadata": {"name": "x", "labels": labels, "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "planner", "uid": "x", "controller": true}]}, "type": "kubernetes.io/tls", "data": {"tls.crt": "", "tls.key": ""}}),
            no_secret,
        ),
        attack(
            "a CA's Secret in another namespace",
            Post,
            core("secrets"),
            json!({"metadata": {"name": "x", "labels": {"countersign.dev/trust-domain": "test"}, "ownerReferences": owner("TrustDomain", "test")}, "type": "kubernetes.io/tls", "data": {"tls.crt": "", "tls.key": ""}}),
            no_secret,
        ),
        attack(
            "a Secret that is given a ServiceAccount's token",
            Post,
            core("secrets"),
            json!({"metadata": {"name": "x", "labels": labels, "annotations": {"kubernetes.io/service-account.name": "default"}, "ownerReferences": owner("AgentIdentity", "planner")}, "type": "kubernetes.io/service-account-token"}),
            "of another type than kubernetes.io/tls",
        ),
        attack(
            "a foreign Secret overwritten",
            Merge,
            core("secrets/foreign"),
            json!({"data": {"tls.key": ""}}),
            no_secret,
        ),
        attack(
            "a foreign Secret taken over",
            Merge,
            core("secrets/foreign"),
            json!({"metadata": {"labels": labels, "ownerReferences": owner("AgentIdentity", "planner")}}),
            no_secret,
        ),
        attack("a foreign Secret deleted", Delete, core("secrets/foreign"), Value::Null, no_secret),
        attack(
            "an identity's Secret given away",
            Merge,
            core("secrets/planner-identity"),
            json!({"metadata": {"ownerReferences": null}}),
            no_secret,
        ),
        attack(
            "a ConfigMap of nobody",
            Post,
            "/api/v1/namespaces/kube-system/configmaps".to_owned(),
            json!({"metadata": {"name": "x"}}),
            no_map,
        ),
        attack(
            "a foreign ConfigMap overwritten",
            Put,
            core("configmaps/foreign"),
            json!({"metadata": {"name": "foreign", "labels": {"countersign.dev/trust-domain": "test"}, "ownerReferences": owner("TrustDomain", "test")}, "data": {"a": "evil"}}),
            no_map,
        ),
        attack(
            "a foreign ConfigMap deleted",
            Delete,
            core("configmaps/foreign"),
            Value::Null,
            no_map,
        ),
        attack(
            "another role for an identity",
            Merge,
            format!("{identities}/executor"),
            json!({"spec": {"role": "planner"}}),
            only_finalizers,
        ),
        attack(
            "a label on an identity",
            Merge,
            format!("{identities}/executor"),
            json!({"metadata": {"labels": {"app": "evil"}}}),
            only_finalizers,
        ),
        attack(
            "another's finalizer on an identity",
            Merge,
            format!("{identities}/executor"),
            json!({"metadata": {"finalizers": ["countersign.dev/revocation", "example.com/a"]}}),
            only_finalizers,
        ),
        attack(
            "a trust domain for all namespaces",
            Merge,
            "/apis/countersign.dev/v1alpha1/trustdomains/granting".to_owned(),
            json!({"spec": {"identities": {"grants": null}}}),
            only_finalizers,
        ),
        attack(
            "another's Lease",
            Post,
            "/apis/coordination.k8s.io/v1/namespaces/countersign-system/leases".to_owned(),
            json!({"metadata": {"name": "another"}}),
            "the operator has one Lease",
        ),
    ]
}

/// By a tenant who asks for what his namespace may not have.
pub fn on_identities(scene: &Scene) -> Vec<Attack> {
    let path =
        format!("/apis/countersign.dev/v1alpha1/namespaces/{}/agentidentities", scene.room.name);
    let new = |what, spec: Value, says| {
        let mut body = json!({"apiVersion": "countersign.dev/v1alpha1", "kind": "AgentIdentity", "metadata": {"name": "x"}, "spec": spec});
        body["spec"]["trustDomain"] = json!("granting");
        Attack { what, verb: Post, path: path.clone(), body, says }
    };
    let kept = |what, spec: Value, says| Attack {
        what,
        verb: Merge,
        path: format!("{path}/granted"),
        body: json!({"spec": spec}),
        says,
    };
    let default = |what, spec: Value, says| Attack {
        what,
        verb: Merge,
        path: format!("{path}/planner"),
        body: json!({"spec": spec}),
        says,
    };
    vec![
        new(
            "another team's role",
            json!({"serviceAccountName": "a", "role": "gateway"}),
            "no grant of TrustDomain granting gives namespace",
        ),
        new(
            "another team's ServiceAccount",
            json!({"serviceAccountName": "gateway"}),
            "no grant of TrustDomain granting gives namespace",
        ),
        new(
            "too long a life",
            json!({"serviceAccountName": "a", "certificate": {"duration": "3h"}}),
            "granting allows at most 2h",
        ),
        new(
            "too short a life",
            json!({"serviceAccountName": "a", "certificate": {"duration": "29m"}}),
            "granting asks for at least 30m",
        ),
        new(
            "another key algorithm",
            json!({"serviceAccountName": "a", "certificate": {"keyAlgorithm": "RSA-4096"}}),
            "granting allows ECDSA-P256, ECDSA-P384",
        ),
        new(
            "another namespace's DNS name",
            json!({"serviceAccountName": "a", "dnsNames": ["api.kube-system.svc"]}),
            "spec.dnsNames has api.kube-system.svc",
        ),
        new(
            "a DNS name that ends like an allowed one",
            json!({"serviceAccountName": "a", "dnsNames": ["evil-agents.example.com"]}),
            "spec.dnsNames has evil-agents.example.com",
        ),
        kept(
            "another team's role, later",
            json!({"role": "gateway"}),
            "no grant of TrustDomain granting gives namespace",
        ),
        kept(
            "another team's ServiceAccount, later",
            json!({"serviceAccountName": "gateway"}),
            "no grant of TrustDomain granting gives namespace",
        ),
        default(
            "too long a life, of the default trust domain",
            json!({"certificate": {"duration": "25h"}}),
            "TrustDomain test allows at most 24h",
        ),
    ]
}
