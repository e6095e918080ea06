//! Places that no bundle can be brought to: they are named, waited for an hour, and then a person
//! is asked.

use countersign_e2e::{Chronicle, Namespace, Operator, Options, World, gone, seconds, wait_for};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace as Room, ResourceQuota};
use kube::Api;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::json;

use super::{ROOT_ROTATION, change, condition_of, phases, settled, spec};

/// Beyond the hour that a rotation waits for its targets.
const AN_HOUR: i64 = 3700;
const BUNDLE: &str = "countersign-trust-beyond";

#[tokio::test]
async fn a_quota_and_a_namespace_that_is_held_are_named_and_waited_for_an_hour() {
    let World { operator, server } = World::start().await;
    let labels = json!({"holds": "beyond"});
    let ns = Namespace::create_with_labels(&server, "beyond", labels.clone()).await;
    let full = Namespace::create_with_labels(&server, "full", labels.clone()).await;
    let going = Namespace::create_with_labels(&server, "going", labels).await;
    let mut spec = spec(&ns, "beyond", "1s");
    spec["bundle"] = json!({"namespaceSelector": {"matchLabels": {"holds": "beyond"}}});
    ns.trust_domain("beyond", spec).await;
    for name in ["planner", "tools"] {
        ns.identity(name, json!({"trustDomain": "beyond"})).await;
    }
    let chronicle = Chronicle::of(&ns.client, "beyond", "beyond.test").await;
    settled(&chronicle, ROOT_ROTATION[0], 2).await;
    for place in [&ns, &full, &going] {
        place.bundle("beyond").await;
    }

    full.put(json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"},
        "spec": {"hard": {"count/configmaps": "0"}},
    }))
    .await;
    // What the quota controller would say, which does not run here.
    let none = json!({"count/configmaps": "0"});
    let status = Patch::Merge(json!({"status": {"hard": none, "used": none}}));
    let quota = full.api::<ResourceQuota>();
    quota.patch_status("none", &PatchParams::default(), &status).await.unwrap();
    wait_for("the quota holds", seconds(20), async || {
        let tried = ConfigMap {
            metadata: ObjectMeta { name: Some("tried".to_owned()), ..ObjectMeta::default() },
            ..ConfigMap::default()
        };
        let parameters = PostParams { dry_run: true, ..PostParams::default() };
        let tried = full.api::<ConfigMap>().create(&parameters, &tried).await;
        tried.map_or(Ok(()), |_| Err("it does not"))
    })
    .await;
    // What is there may be changed under a quota; what is deleted cannot come back.
    let config_map =
        |name| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    full.delete(config_map(BUNDLE)).await;
    let mut held = config_map("held");
    held["metadata"]["finalizers"] = json!(["countersign.dev/test"]);
    going.put(held.clone()).await;
    let rooms: Api<Room> = Api::all(ns.client.clone());
    rooms.delete(&going.name, &Default::default()).await.unwrap();
    gone("the bundle of a namespace that is going", seconds(60), async || {
        going.api::<ConfigMap>().get_opt(BUNDLE).await.unwrap()
    })
    .await;
    change(&ns.client, "beyond", json!({"spec": {"ca": {"atLeast": {"root": 2}}}})).await;
    phases(&chronicle, ROOT_ROTATION[1]).await;
    let unreached = [
        format!("namespace {}", full.name),
        format!("namespace {}, which is terminating", going.name),
    ];
    chronicle
        .until("both are named", seconds(60), |history| {
            let rotation = history.status().and_then(|status| status.rotation.clone());
            let rotation = rotation.unwrap_or_default();
            // Three namespaces, the cluster, two Secrets.
            let found = (rotation.targets, rotation.reached, rotation.unreached);
            if found == (6, 4, unreached.to_vec()) { Ok(()) } else { Err(found) }
        })
        .await;

    assert!(operator.stop(seconds(10)).await.success());
    chronicle.clock_ahead(AN_HOUR);
    let options = Options { clock_ahead: AN_HOUR, ..Options::replica("second") };
    let operator = Operator::start_leading(&server, options).await;
    let message = wait_for("it is stalled", seconds(60), async || {
        match condition_of(&ns.client, "beyond", "Rotating").await {
            Some((_, reason, message)) if reason == "Stalled" => Ok(message),
            other => Err(other),
        }
    })
    .await;
    for piece in unreached.iter().map(String::as_str).chain(["whenUnreached: Proceed"]) {
        assert!(message.contains(piece), "{piece:?} in {message}");
    }
    assert_eq!(chronicle.history().phases_now(), ROOT_ROTATION[1], "a person decides");

    full.delete(json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}}))
        .await;
    held["metadata"]["finalizers"] = json!([]);
    going.put(held).await;
    settled(&chronicle, ROOT_ROTATION[2], 2).await;
    let history = chronicle.history();
    history.judge_slots();
    history.judge_trust(jiff::SignedDuration::ZERO);
    let labels = [("reason", "AuthorityRetiring"), ("result", "issued")];
    let issued = operator.metrics().await.sum("countersign_issuances_total", &labels);
    assert_eq!(issued, 2.0, "each agent got one certificate of the new CA");
}
