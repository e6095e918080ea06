//! Labels come to the pods they belong to, and go from those they do not. No kubelet runs the
//! pods: all of this is between the operator and the API server.

use std::collections::BTreeMap;

use countersign::api::PodsStatus;
use countersign_e2e::agents::condition_of;
use countersign_e2e::world::DOMAIN;
use countersign_e2e::{Namespace, User, World, another_second, holds_for, seconds, wait_for};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

#[tokio::test]
async fn pods_of_the_service_account_carry_the_identity() {
    let ns = World::shared().await.namespace("labelled").await;
    ns.pod("before", "planner", json!({"app": "planner"})).await;
    ns.identity("thinker", json!({"serviceAccountName": "planner", "role": "planner"})).await;
    ns.ready("thinker").await;
    ns.pod("after", "planner", json!({})).await;
    ns.pod("stranger", "other", json!({"app": "planner"})).await;

    for pod in ["before", "after"] {
        carries(&ns, pod, "thinker", Some("planner")).await;
        let annotation = ns.api::<Pod>().get(pod).await.unwrap();
        let id = format!("spiffe://{DOMAIN}/ns/{}/sa/planner", ns.name);
        assert_eq!(annotation.annotations()["countersign.dev/spiffe-id"], id);
    }
    counts(&ns, "thinker", 2, 2).await;
    ns.condition("thinker", "PodsLabelled", "True", Some("AllLabelled")).await;
    assert_eq!(ours(&ns, "stranger").await, BTreeMap::new());
    let pod = ns.api::<Pod>().get("before").await.unwrap();
    assert_eq!(pod.labels()["app"], "planner", "the pod's own labels stay");
}

#[tokio::test]
async fn an_identity_without_pods_says_so() {
    let ns = World::shared().await.namespace("no-pods").await;
    ns.identity("planner", json!({})).await;
    ns.ready("planner").await;
    ns.condition("planner", "PodsLabelled", "True", Some("NoPods")).await;
    counts(&ns, "planner", 0, 0).await;
}

#[tokio::test]
async fn a_selector_narrows_and_labels_follow_the_pods_own() {
    let ns = World::shared().await.namespace("selected").await;
    let selector = json!({"matchLabels": {"app": "planner"}, "matchExpressions": [{"key": "canary", "operator": "DoesNotExist"}]});
    ns.identity("planner", json!({"podSelector": selector})).await;
    ns.pod("in", "planner", json!({"app": "planner"})).await;
    ns.pod("out", "planner", json!({"app": "other"})).await;
    ns.pod("canary", "planner", json!({"app": "planner", "canary": "yes"})).await;
    carries(&ns, "in", "planner", None).await;
    counts(&ns, "planner", 1, 1).await;
    assert_eq!(ours(&ns, "out").await, BTreeMap::new());
    assert_eq!(ours(&ns, "canary").await, BTreeMap::new());

    // Out of the selector, and back.
    relabel(&ns, "in", json!({"app": "other"})).await;
    carries_nothing(&ns, "in").await;
    counts(&ns, "planner", 0, 0).await;
    relabel(&ns, "in", json!({"app": "planner"})).await;
    carries(&ns, "in", "planner", None).await;
}

#[tokio::test]
async fn labels_go_with_what_they_stood_for() {
    let ns = World::shared().await.namespace("gone").await;
    ns.pod("pod", "planner", json!({})).await;
    ns.identity("planner", json!({"role": "planner"})).await;
    carries(&ns, "pod", "planner", Some("planner")).await;

    ns.change_identity("planner", json!({"spec": {"role": "retrieval"}})).await;
    carries(&ns, "pod", "planner", Some("retrieval")).await;
    ns.change_identity("planner", json!({"spec": {"role": null}})).await;
    carries(&ns, "pod", "planner", None).await;
    ns.change_identity("planner", json!({"spec": {"serviceAccountName": "other"}})).await;
    carries_nothing(&ns, "pod").await;
    ns.change_identity("planner", json!({"spec": {"serviceAccountName": "planner"}})).await;
    carries(&ns, "pod", "planner", None).await;
    ns.identities().delete("planner", &Default::default()).await.unwrap();
    carries_nothing(&ns, "pod").await;
}

#[tokio::test]
async fn labels_put_on_by_others_do_not_last() {
    // The policies would refuse all of this; where they only tell of it, the operator sets it right.
    let ns = World::lenient().await.namespace("forged").await;
    ns.identity("planner", json!({"role": "planner"})).await;
    ns.ready("planner").await;
    let forged = json!({
        "countersign.dev/identity": "planner", "countersign.dev/role": "planner", "countersign.dev/state": "active",
    });
    ns.pod("forger", "other", forged.clone()).await;
    carries_nothing(&ns, "forger").await;

    ns.pod("honest", "planner", json!({})).await;
    carries(&ns, "honest", "planner", Some("planner")).await;
    relabel(&ns, "honest", json!({"countersign.dev/role": "admin", "countersign.dev/state": null}))
        .await;
    carries(&ns, "honest", "planner", Some("planner")).await;
    relabel(&ns, "honest", json!({"countersign.dev/identity": null})).await;
    carries(&ns, "honest", "planner", Some("planner")).await;

    // A namespace without any identity is no place to be somebody either.
    let empty = World::lenient().await.namespace("forged-elsewhere").await;
    empty.pod("forger", "other", forged).await;
    carries_nothing(&empty, "forger").await;
}

#[tokio::test]
async fn of_two_identities_the_more_specific_has_the_pod() {
    let ns = World::shared().await.namespace("specific").await;
    let path = json!({"pathTemplate": "/ns/{namespace}/agent/{name}"});
    ns.trust_domain(
        "by-name",
        json!({"domain": "by-name.countersign.dev", "authority": {"selfSigned": {}}, "identities": path, "bundle": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": ns.name}}}}),
    )
    .await;
    let spec = |selector: Value| {
        let mut spec = json!({"serviceAccountName": "crew", "trustDomain": "by-name"});
        if !selector.is_null() {
            spec["podSelector"] = selector;
        }
        spec
    };
    ns.identity("all", spec(Value::Null)).await;
    ns.pod("planner", "crew", json!({"app": "planner"})).await;
    ns.pod("other", "crew", json!({})).await;
    carries(&ns, "planner", "all", None).await;
    counts(&ns, "all", 2, 2).await;

    ns.identity("specific", spec(json!({"matchLabels": {"app": "planner"}}))).await;
    carries(&ns, "planner", "specific", None).await;
    carries(&ns, "other", "all", None).await;
    counts(&ns, "specific", 1, 1).await;
    counts(&ns, "all", 2, 1).await;
    let identity = ns.condition("all", "PodsLabelled", "False", Some("PodsClaimedByAnother")).await;
    let message = &condition_of(&identity, "PodsLabelled").unwrap().message;
    assert!(message.contains("specific"), "the message names the other identity: {message}");

    // As specific, and newer: the older keeps the pod.
    wait_for_another_second(&ns, "specific").await;
    ns.identity("newer", spec(json!({"matchLabels": {"app": "planner"}}))).await;
    ns.condition("newer", "PodsLabelled", "False", Some("PodsClaimedByAnother")).await;
    counts(&ns, "newer", 1, 0).await;
    carries(&ns, "planner", "specific", None).await;

    ns.identities().delete("specific", &Default::default()).await.unwrap();
    carries(&ns, "planner", "newer", None).await;
    counts(&ns, "newer", 1, 1).await;
}

#[tokio::test]
async fn a_pod_takes_one_write_and_rest_takes_none() {
    let ns = World::shared().await.namespace("one-write").await;
    // Before there is an identity, and so before there is a roster: the policies label the others.
    ns.pod("pod", "planner", json!({})).await;
    ns.identity("planner", json!({"role": "planner"})).await;
    ns.ready("planner").await;
    carries(&ns, "pod", "planner", Some("planner")).await;
    counts(&ns, "planner", 1, 1).await;
    holds_for("the pod is written once", seconds(3), async || {
        let writes = ns.server.requests_by(User::Operator).within(&ns.name).writes();
        let writes = writes.filter(|request| request.resource == "pods");
        if writes.len() == 1 { Ok(()) } else { Err(writes) }
    })
    .await;
}

#[tokio::test]
async fn a_hundred_pods_are_labelled_and_counted() {
    let ns = World::shared().await.namespace("hundred").await;
    ns.identity("worker", json!({})).await;
    for number in 0..100 {
        ns.pod(&format!("worker-{number}"), "worker", json!({})).await;
    }
    counts(&ns, "worker", 100, 100).await;
    let pods = ns.api::<Pod>().list(&Default::default()).await.unwrap();
    assert!(pods.iter().all(|pod| pod.labels()["countersign.dev/identity"] == "worker"));
    let statuses = ns.server.requests_by(User::Operator).within(&ns.name).writes();
    let statuses = statuses.filter(|request| request.subresource == "status").len();
    assert!(statuses < 30, "{statuses} writes of one status: a count is a summary");
}

async fn carries(ns: &Namespace, pod: &str, identity: &str, role: Option<&str>) {
    let mut wanted = BTreeMap::from([
        ("countersign.dev/identity".to_owned(), identity.to_owned()),
        ("countersign.dev/state".to_owned(), "active".to_owned()),
    ]);
    if let Some(role) = role {
        wanted.insert("countersign.dev/role".to_owned(), role.to_owned());
    }
    wait_for(&format!("pod {pod} carries {wanted:?}"), seconds(10), async || {
        let labels = ours(ns, pod).await;
        if labels == wanted { Ok(()) } else { Err(labels) }
    })
    .await;
}

async fn carries_nothing(ns: &Namespace, pod: &str) {
    wait_for(&format!("pod {pod} carries nothing of ours"), seconds(10), async || {
        let object = ns.api::<Pod>().get(pod).await.unwrap();
        let annotated = object.annotations().keys().any(|key| key.starts_with("countersign.dev/"));
        let labels = ours(ns, pod).await;
        if labels.is_empty() && !annotated { Ok(()) } else { Err(object.metadata) }
    })
    .await;
}

async fn ours(ns: &Namespace, pod: &str) -> BTreeMap<String, String> {
    let pod = ns.api::<Pod>().get(pod).await.unwrap();
    let labels = pod.labels().clone().into_iter();
    labels.filter(|(key, _)| key.starts_with("countersign.dev/")).collect()
}

async fn counts(ns: &Namespace, identity: &str, matched: u32, labelled: u32) {
    let wanted = PodsStatus { matched, labelled };
    wait_for(&format!("{identity} counts {wanted:?}"), seconds(20), async || {
        let status = ns.identities().get(identity).await.unwrap().status.unwrap_or_default();
        if status.pods == Some(wanted) { Ok(()) } else { Err(status.pods) }
    })
    .await;
}

async fn relabel(ns: &Namespace, pod: &str, labels: Value) {
    let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
    ns.api::<Pod>().patch(pod, &PatchParams::default(), &patch).await.unwrap();
}

async fn wait_for_another_second(ns: &Namespace, identity: &str) {
    let created = ns.identities().get(identity).await.unwrap().creation_timestamp().unwrap().0;
    another_second(created).await;
}
