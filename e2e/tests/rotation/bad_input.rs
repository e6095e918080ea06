//! What people and other programs do to a rotation under way.

use countersign::api::{SlotKind, SlotPhase, TrustDomain};
use countersign_e2e::agents::text_of;
use countersign_e2e::chronicle::{History, slot};
use countersign_e2e::users::OPERATOR_NAMESPACE;
use countersign_e2e::{Chronicle, Delivered, Namespace, World, holds_for, seconds, wait_for};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::{LAG, ROOT_ROTATION, SOAK, change, condition_of, get, phases, settled, spec};

/// A soak that no test sees the end of.
const LONG: &str = "1h";

/// A trust domain with one identity, and a chronicle of it.
async fn one(name: &str, soak: &str) -> (Namespace, Chronicle) {
    let ns = World::shared().await.namespace(name).await;
    ns.trust_domain(name, spec(&ns, name, soak)).await;
    ns.identity("planner", json!({"trustDomain": name})).await;
    let chronicle = Chronicle::of(&ns.client, name, &format!("{name}.test")).await;
    settled(&chronicle, ROOT_ROTATION[0], 1).await;
    ns.settled("planner").await;
    (ns, chronicle)
}

async fn ask(ns: &Namespace, name: &str, at_least: Value) {
    change(&ns.client, name, json!({"spec": {"ca": {"atLeast": at_least}}})).await;
}

async fn delete_ca(ns: &Namespace, name: &str) {
    let secrets: Api<Secret> = Api::namespaced(ns.client.clone(), OPERATOR_NAMESPACE);
    secrets.delete(name, &Default::default()).await.expect("there is such a CA");
}

async fn patch_status(ns: &Namespace, name: &str, status: Value) {
    let api: Api<TrustDomain> = Api::all(ns.client.clone());
    let patch = Patch::Merge(json!({"status": status}));
    api.patch_status(name, &PatchParams::default(), &patch).await.expect("the test may");
}

#[tokio::test]
async fn of_two_active_by_hand_the_newer_signs() {
    let (ns, chronicle) = one("two-active", SOAK).await;
    ask(&ns, "two-active", json!({"root": 2})).await;
    settled(&chronicle, ROOT_ROTATION[2], 1).await;
    ns.settled("planner").await;
    let leaf = text_of(&ns.secret_of("planner").await, "tls.crt");
    let mut slots = get(&ns.client, "two-active").await.status.unwrap().slots;
    slots.iter_mut().for_each(|slot| slot.phase = SlotPhase::Active);
    patch_status(&ns, "two-active", json!({"slots": slots})).await;
    chronicle
        .until("the edit is seen and put right", seconds(20), |history| {
            let all = history.phases();
            if all.len() == 5 && all[4] == ROOT_ROTATION[2] && all[3] != all[4] {
                Ok(())
            } else {
                Err(all)
            }
        })
        .await;
    chronicle.history().judge_trust(LAG);
    assert_eq!(text_of(&ns.secret_of("planner").await, "tls.crt"), leaf, "nothing is signed anew");
}

#[tokio::test]
async fn a_prepared_ca_whose_secret_is_gone_is_made_again_under_another_number() {
    let (ns, chronicle) = one("prepared-gone", LONG).await;
    ask(&ns, "prepared-gone", json!({"root": 2})).await;
    phases(&chronicle, ROOT_ROTATION[1]).await;
    delete_ca(&ns, "countersign-ca-prepared-gone-issuing-2").await;
    phases(&chronicle, "root-1 Active, root-2 Prepared, issuing-1 Active, issuing-3 Prepared")
        .await;
    delete_ca(&ns, "countersign-ca-prepared-gone-root-2").await;
    phases(&chronicle, "root-1 Active, root-3 Prepared, issuing-1 Active, issuing-4 Prepared")
        .await;
    chronicle
        .until("the bundle speaks of the new one", seconds(20), |history| history.is_settled(1))
        .await;
    chronicle.history().judge_trust(LAG);
    change(&ns.client, "prepared-gone", json!({"spec": {"ca": {"soak": "1s"}}})).await;
    settled(&chronicle, "root-1 Retiring, root-3 Active, issuing-1 Retiring, issuing-4 Active", 1)
        .await;
    chronicle.history().judge_trust(SignedDuration::ZERO);
}

#[tokio::test]
async fn an_active_issuing_ca_whose_secret_is_gone_is_replaced_when_asked() {
    let (ns, chronicle) = one("issuing-gone", LONG).await;
    delete_ca(&ns, "countersign-ca-issuing-gone-issuing-1").await;
    blocked(&ns, "issuing-gone", "CASecretMissing").await;
    ask(&ns, "issuing-gone", json!({"issuing": 2})).await;
    settled(&chronicle, "root-1 Active, issuing-1 Retiring, issuing-2 Active", 1).await;
    chronicle.history().judge_trust(LAG);
}

#[tokio::test]
async fn an_active_root_whose_secret_is_gone_is_replaced_when_asked() {
    let (ns, chronicle) = one("root-gone", SOAK).await;
    delete_ca(&ns, "countersign-ca-root-gone-root-1").await;
    blocked(&ns, "root-gone", "CASecretMissing").await;
    ask(&ns, "root-gone", json!({"root": 2})).await;
    settled(&chronicle, ROOT_ROTATION[2], 1).await;
    chronicle.history().judge_trust(LAG);
}

#[tokio::test]
async fn a_retiring_ca_whose_secret_is_gone_is_trusted_all_the_same() {
    let (ns, chronicle) = one("retiring-gone", SOAK).await;
    ask(&ns, "retiring-gone", json!({"root": 2})).await;
    settled(&chronicle, ROOT_ROTATION[2], 1).await;
    ns.settled("planner").await;
    let (secret, bundle) = (ns.secret_of("planner").await, ns.bundle("retiring-gone").await);
    for kind in ["root", "issuing"] {
        delete_ca(&ns, &format!("countersign-ca-retiring-gone-{kind}-1")).await;
    }
    chronicle
        .until("both are gone", seconds(20), |history| match history.authorities().len() {
            2 => Ok(()),
            left => Err(left),
        })
        .await;
    holds_for("trust is as it was", seconds(2), async || {
        let same = ns.bundle("retiring-gone").await.data == bundle.data
            && ns.secret_of("planner").await == secret
            && chronicle.history().phases_now() == ROOT_ROTATION[2];
        if same { Ok(()) } else { Err(chronicle.history().phases_now()) }
    })
    .await;
    // A bundle that has to be written anew still holds the retiring root.
    ns.delete(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "countersign-trust-retiring-gone"},
    }))
    .await;
    assert_eq!(ns.bundle("retiring-gone").await.data, bundle.data);
}

#[tokio::test]
async fn a_bundle_that_is_edited_during_a_rotation_is_put_right() {
    let (ns, chronicle) = one("edited", LONG).await;
    let old = ns.bundle("edited").await;
    ask(&ns, "edited", json!({"root": 2})).await;
    phases(&chronicle, ROOT_ROTATION[1]).await;
    chronicle.until("both hold it", seconds(20), |history| history.is_settled(1)).await;
    let new = ns.bundle("edited").await;
    assert_ne!(new.data, old.data);
    let edit = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "countersign-trust-edited"}, "data": old.data,
    });
    ns.put(edit).await;
    wait_for("the ConfigMap is put right", seconds(10), async || {
        let now = ns.bundle("edited").await.data;
        if now == new.data { Ok(()) } else { Err(now) }
    })
    .await;
    let secret = text_of(&ns.secret_of("planner").await, "ca.crt");
    ns.edit("planner", "ca.crt", &old.data.unwrap()["ca.crt"]).await;
    wait_for("the Secret is put right", seconds(10), async || {
        let now = text_of(&ns.secret_of("planner").await, "ca.crt");
        if now == secret { Ok(()) } else { Err(now) }
    })
    .await;
    assert_eq!(chronicle.history().phases_now(), ROOT_ROTATION[1]);
    assert_eq!(get(&ns.client, "edited").await.status.unwrap().bundle.unwrap().sequence, 2);
}

#[tokio::test]
async fn a_target_that_cannot_be_reached_is_named_and_waited_for() {
    let (ns, chronicle) = one("unreached", "1s").await;
    let other = World::shared().await.namespace("unreached-other").await;
    other
        .put(json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "countersign-trust-unreached"}, "data": {"ca.crt": "another's"},
        }))
        .await;
    let rooms = json!({"matchLabels": null, "matchExpressions": [{
        "key": "kubernetes.io/metadata.name", "operator": "In", "values": [ns.name, other.name],
    }]});
    change(&ns.client, "unreached", json!({"spec": {"bundle": {"namespaceSelector": rooms}}}))
        .await;
    ns.patch_secret_of("planner", json!({"immutable": true})).await;
    ask(&ns, "unreached", json!({"root": 2})).await;
    phases(&chronicle, ROOT_ROTATION[1]).await;
    let named = |history: &History| {
        let rotation = history.status().and_then(|status| status.rotation.clone());
        rotation.unwrap_or_default()
    };
    let secret = format!("Secret {}/planner-identity", ns.name);
    let map = format!("namespace {}", other.name);
    chronicle
        .until("both are named", seconds(20), |history| {
            let rotation = named(history);
            let mut unreached = rotation.unreached.clone();
            unreached.sort();
            let both = unreached == [secret.clone(), map.clone()];
            if both && (rotation.targets, rotation.reached) == (4, 2) {
                Ok(())
            } else {
                Err(rotation)
            }
        })
        .await;
    holds_for("the new CA signs nothing", seconds(4), async || {
        let now = chronicle.history().phases_now();
        if now == ROOT_ROTATION[1] { Ok(()) } else { Err(now) }
    })
    .await;
    let (_, reason, message) = condition_of(&ns.client, "unreached", "Rotating").await.unwrap();
    assert_eq!(reason, "Publishing", "{message}");

    // What is immutable can only be deleted; the operator makes another.
    ns.delete(json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "planner-identity"},
    }))
    .await;
    chronicle
        .until("one is named", seconds(20), |history| {
            let rotation = named(history);
            if rotation.unreached == [map.clone()] { Ok(()) } else { Err(rotation) }
        })
        .await;
    other
        .delete(json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "countersign-trust-unreached"},
        }))
        .await;
    settled(&chronicle, ROOT_ROTATION[2], 1).await;
    chronicle.history().judge_slots();
    chronicle.history().judge_trust(SignedDuration::ZERO);
}

#[tokio::test]
async fn a_ca_that_is_shorter_than_its_leaves_cuts_them_and_is_replaced_in_time() {
    let ns = World::shared().await.namespace("short").await;
    let mut spec = spec(&ns, "short", SOAK);
    spec["ca"] = json!({"soak": SOAK, "rootLifetime": "1h", "issuingLifetime": "10m"});
    ns.trust_domain("short", spec).await;
    ns.identity("planner", json!({"trustDomain": "short"})).await;
    let chronicle = Chronicle::of(&ns.client, "short", "short.test").await;
    settled(&chronicle, ROOT_ROTATION[0], 1).await;
    let (_, _, leaf) = ns.issued("planner").await;
    let status = get(&ns.client, "short").await.status.unwrap();
    let end = |kind| slot(&status, kind, SlotPhase::Active).unwrap().not_after.0;
    assert_eq!(leaf.not_after, end(SlotKind::Issuing), "it ends with its CA");
    assert!(end(SlotKind::Issuing) <= end(SlotKind::Root));
    ask(&ns, "short", json!({"root": 2})).await;
    settled(&chronicle, ROOT_ROTATION[2], 1).await;
    let history = chronicle.history();
    history.judge_slots();
    history.judge_trust(LAG);
    let retiring = slot(history.status().unwrap(), SlotKind::Root, SlotPhase::Retiring).unwrap();
    let until = retiring.trusted_until.as_ref().unwrap().0;
    assert!(until >= leaf.not_after && until <= retiring.not_after.0, "{retiring:?}");
    Delivered::read(&ns.secret_of("planner").await)
        .judge(&format!("spiffe://short.test/ns/{}/sa/planner", ns.name));
}

/// Waits until nothing is signed for this reason, and the message says what to do.
async fn blocked(ns: &Namespace, name: &str, reason: &str) {
    wait_for(reason, seconds(20), async || match condition_of(&ns.client, name, "Ready").await {
        Some((status, why, message))
            if status == "False" && why == reason && message.contains("rotate-ca") =>
        {
            Ok(())
        }
        other => Err(other),
    })
    .await;
}
