//! The roster of a namespace: what it lists, how often it is written, and that pods are labelled
//! by it as they are made.

use std::collections::BTreeMap;

use countersign::api::{AgentRoster, RosterEntry, RosterTerm};
use countersign_e2e::{
    Namespace, Operator, Options, User, World, another_second, gone, holds_for, seconds, wait_for,
};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;

#[tokio::test]
async fn a_pod_has_its_labels_in_the_answer_to_its_creation() {
    let ns = World::shared().await.namespace("stamped").await;
    let tier = json!({"matchExpressions": [{"key": "tier", "operator": "In", "values": ["1", "2"]}, {"key": "canary", "operator": "DoesNotExist"}]});
    ns.identity("planner", json!({"role": "planner"})).await;
    ns.identity("narrow", json!({"serviceAccountName": "other", "podSelector": tier})).await;
    listed(&ns, &["narrow", "planner"]).await;

    ns.service_account("planner").await;
    ns.service_account("other").await;
    let labels = [
        ("countersign.dev/identity", "planner"),
        ("countersign.dev/role", "planner"),
        ("countersign.dev/state", "active"),
    ];
    let pod = born(&ns, "bare", "planner", json!(null)).await;
    assert_eq!(pod.labels(), &owned(&labels));
    assert_eq!(pod.annotations()["countersign.dev/spiffe-id"], ns.spiffe_id("planner"));
    let pod = born(&ns, "labelled", "planner", json!({"app": "a"})).await;
    assert_eq!(pod.labels().len(), 4);

    for (name, labels, is_narrow) in [
        ("tier-1", json!({"tier": "1"}), true),
        ("tier-3", json!({"tier": "3"}), false),
        ("tierless", json!({}), false),
        ("canary", json!({"tier": "1", "canary": ""}), false),
    ] {
        let pod = born(&ns, name, "other", labels).await;
        let identity = pod.labels().get("countersign.dev/identity").map(String::as_str);
        assert_eq!(identity, is_narrow.then_some("narrow"), "{name}");
        assert!(!pod.labels().contains_key("countersign.dev/role"), "{name}");
    }
    let writes = ns.server.requests_by(User::Operator).within(&ns.name).writes();
    let writes = writes.filter(|request| request.resource == "pods");
    assert!(writes.is_empty(), "nothing is left for the operator to do: {writes:?}");
}

#[tokio::test]
async fn a_roster_lists_those_that_have_their_spiffe_id_and_goes_with_the_last() {
    let ns = World::shared().await.namespace("listed").await;
    let selector = json!({"matchLabels": {"app": "a"}});
    ns.identity("old", json!({"serviceAccountName": "a", "role": "r", "podSelector": selector}))
        .await;
    let old = ns.ready("old").await;
    another_second(old.creation_timestamp().unwrap().0).await;
    ns.identity("same", json!({"serviceAccountName": "a"})).await;
    ns.not_ready("same", "IdentityConflict").await;
    ns.identity("unserved", json!({"trustDomain": "nowhere"})).await;
    ns.not_ready("unserved", "TrustDomainNotFound").await;
    let roster = listed(&ns, &["old"]).await;
    assert_eq!((&roster.spec.from, &roster.spec.to, roster.spec.identities), (&None, &None, 1));
    let entry = RosterEntry {
        identity: "old".into(),
        role: Some("r".into()),
        state: "active".into(),
        spiffe_id: ns.spiffe_id("a"),
        selector: vec![RosterTerm {
            key: "app".into(),
            operator: "In".into(),
            values: vec!["a".into()],
        }],
    };
    assert_eq!(roster.spec.accounts, BTreeMap::from([("a".to_owned(), vec![entry])]));

    // The next in line takes its place.
    ns.identities().delete("old", &Default::default()).await.unwrap();
    listed(&ns, &["same"]).await;
    ns.identities().delete("same", &Default::default()).await.unwrap();
    gone("the roster", seconds(10), async || {
        ns.api::<AgentRoster>().list(&Default::default()).await.unwrap().items.into_iter().next()
    })
    .await;
}

#[tokio::test]
async fn a_burst_is_a_write_a_second_and_rest_and_a_restart_are_none() {
    let world = World::start().await;
    let ns = world.namespace("burst").await;
    ns.bundle("test").await;
    let began = std::time::Instant::now();
    for number in 0..60 {
        ns.identity(&format!("agent-{number}"), json!({})).await;
    }
    for number in 0..60 {
        ns.ready(&format!("agent-{number}")).await;
    }
    wait_for("all are listed", seconds(10), async || {
        let listed = names(&ns).await.len();
        if listed == 60 { Ok(()) } else { Err(listed) }
    })
    .await;
    let most = began.elapsed().as_secs() as usize + 2;
    let writes = roster_writes(&ns);
    assert!(writes <= most, "{writes} writes within {:?}", began.elapsed());
    holds_for("no write at rest", seconds(3), async || {
        if roster_writes(&ns) == writes { Ok(()) } else { Err(roster_writes(&ns)) }
    })
    .await;

    let World { operator, server } = world;
    assert!(operator.stop(seconds(10)).await.success());
    let before = server.requests_by(User::Operator).writes().len();
    let _again = Operator::start_leading(&server, Options::replica("again")).await;
    holds_for("no write after a restart", seconds(5), async || {
        let writes = server.requests_by(User::Operator).writes().after(before);
        if writes.is_empty() { Ok(()) } else { Err(writes) }
    })
    .await;
    // It knows what it has found: the next change is one write.
    ns.identity("one-more", json!({})).await;
    wait_for("it is listed", seconds(10), async || {
        let names = names(&ns).await;
        if names.len() == 61 { Ok(()) } else { Err(names) }
    })
    .await;
    // The audit log has a request's line when it has been answered, which is after a list shows it.
    wait_for("that was one write", seconds(5), async || {
        let more = roster_writes(&ns) - writes;
        if more == 1 { Ok(()) } else { Err(more) }
    })
    .await;
}

#[tokio::test]
async fn pods_start_while_the_operator_is_down() {
    let world = World::start().await;
    let ns = world.namespace("down").await;
    ns.identity("planner", json!({})).await;
    ns.service_account("planner").await;
    listed(&ns, &["planner"]).await;
    assert!(world.operator.stop(seconds(10)).await.success());
    let pod = born(&ns, "pod", "planner", json!({})).await;
    assert_eq!(pod.labels()["countersign.dev/identity"], "planner");
    let stranger = born(&ns, "stranger", "default", json!({})).await;
    assert!(stranger.labels().is_empty());
}

/// Creates a pod of a ServiceAccount that exists, and gives what the API server answered.
async fn born(ns: &Namespace, name: &str, account: &str, labels: serde_json::Value) -> Pod {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"serviceAccountName": account, "containers": [{"name": "agent", "image": "agent"}]},
    });
    if !labels.is_null() {
        pod["metadata"]["labels"] = labels;
    }
    let pod = serde_json::from_value(pod).unwrap();
    if account == "default" {
        ns.service_account("default").await;
    }
    ns.api::<Pod>().create(&Default::default(), &pod).await.unwrap()
}

async fn names(ns: &Namespace) -> Vec<String> {
    let rosters = ns.api::<AgentRoster>().list(&Default::default()).await.unwrap().items;
    let entries = rosters.iter().flat_map(|roster| roster.spec.accounts.values().flatten());
    let mut names: Vec<String> = entries.map(|entry| entry.identity.clone()).collect();
    names.sort();
    names
}

/// Waits until these identities and no others are listed.
async fn listed(ns: &Namespace, wanted: &[&str]) -> AgentRoster {
    wait_for(&format!("the roster lists {wanted:?}"), seconds(10), async || {
        let names = names(ns).await;
        if names == wanted { Ok(()) } else { Err(names) }
    })
    .await;
    ns.api::<AgentRoster>().get("countersign").await.unwrap()
}

fn roster_writes(ns: &Namespace) -> usize {
    let writes = ns.server.requests_by(User::Operator).within(&ns.name).writes();
    writes.filter(|request| request.resource == "agentrosters").len()
}

fn owned(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}
