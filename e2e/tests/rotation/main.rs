//! A CA is replaced and nobody notices: a new one is trusted everywhere before it signs, an old one
//! is trusted until nothing that it signed is left.
//!
//! What an agent can hold at a moment is more than what is in its Secret: `Chronicle` keeps every
//! version of everything, and judges all of them against each other.

mod bad_input;
mod clock;
mod commands;
mod kills;
mod time;
mod unreached;

use countersign::api::names::cluster_trust_bundle_name;
use countersign::api::{SlotKind, SlotPhase, TrustDomain};
use countersign_e2e::agents::text_of;
use countersign_e2e::audit::Requests;
use countersign_e2e::chronicle::slot;
use countersign_e2e::{
    Chronicle, Delivered, Namespace, User, World, another_second, holds_for, now, seconds,
};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

/// Of a soak of this many seconds ...
const SOAK: &str = "3s";
/// ... an agent may use up this much. The operator counts whole seconds, and what the chronicle
/// hears it hears late.
const LAG: SignedDuration = SignedDuration::from_secs(1);

/// Before a rotation, at its two steps, and nothing between.
const ROOT_ROTATION: [&str; 3] = [
    "root-1 Active, issuing-1 Active",
    "root-1 Active, root-2 Prepared, issuing-1 Active, issuing-2 Prepared",
    "root-1 Retiring, root-2 Active, issuing-1 Retiring, issuing-2 Active",
];

#[tokio::test]
async fn a_root_is_replaced_and_every_leaf_meets_every_bundle() {
    let world = World::shared().await;
    let labels = json!({"rotates": "root"});
    let ns = Namespace::create_with_labels(&world.server, "root", labels.clone()).await;
    let other = Namespace::create_with_labels(&world.server, "root-other", labels).await;
    let mut spec = spec(&ns, "root-rotation", SOAK);
    spec["bundle"] = json!({"namespaceSelector": {"matchLabels": {"rotates": "root"}}});
    ns.trust_domain("root-rotation", spec).await;
    for (ns, name) in [(&ns, "planner"), (&ns, "tools"), (&other, "reader")] {
        ns.identity(name, json!({"trustDomain": "root-rotation"})).await;
    }
    let chronicle = Chronicle::of(&ns.client, "root-rotation", "root-rotation.test").await;
    settled(&chronicle, ROOT_ROTATION[0], 3).await;
    ns.settled("planner").await;
    ns.settled("tools").await;
    other.settled("reader").await;
    ns.rostered(2).await;
    other.rostered(1).await;
    let before = writes(&ns, "root-rotation", &[&ns, &other]).len();
    let old = ns.secret_of("planner").await;

    change(&ns.client, "root-rotation", json!({"spec": {"ca": {"atLeast": {"root": 2}}}})).await;
    settled(&chronicle, ROOT_ROTATION[2], 3).await;
    for (ns, name) in [(&ns, "planner"), (&ns, "tools"), (&other, "reader")] {
        ns.settled(name).await;
    }
    let history = chronicle.history();
    assert_eq!(history.phases(), ROOT_ROTATION);
    history.judge_slots();
    let tally = history.judge_trust(LAG);
    assert_eq!((tally.leaves, tally.bundles), (6, 2), "{tally:?}");
    // Three old leaves met both bundles. Three new ones met the old bundle never.
    assert_eq!(tally.pairs, 3 * 2 + 3);
    let status = history.status().unwrap();
    assert_eq!(status.bundle.as_ref().unwrap().sequence, 2);
    assert_eq!(status.rotation, None);
    let retiring = slot(status, SlotKind::Root, SlotPhase::Retiring).unwrap();
    assert!(retiring.trusted_until.as_ref().unwrap().0 > now(), "{retiring:?}");

    // Each Secret twice (bundle, then leaf), each identity's status once, each ConfigMap and the
    // ClusterTrustBundle once.
    let written = writes(&ns, "root-rotation", &[&ns, &other]).after(before);
    let mut counts = written.counts();
    let statuses = counts.remove("patch trustdomains/status").unwrap_or_default();
    // Those of the CAs, of the CRLs, and of the counts.
    assert!((3..=14).contains(&statuses), "{statuses} writes of the TrustDomain's status");
    let expected = [
        ("create secrets", 2),
        ("patch agentidentities/status", 3),
        ("patch secrets", 6),
        ("update clustertrustbundles", 1),
        ("update configmaps", 2),
    ];
    assert_eq!(counts, expected.map(|(kind, count)| (kind.to_owned(), count)).into());
    println!("a root rotation with 3 agents: {} writes; {tally:?}", written.len());

    let message = ns.event("planner", "Normal", "Renewed").await;
    assert!(message.contains("AuthorityRetiring"), "{message}");
    let new = ns.secret_of("planner").await;
    assert_ne!(text_of(&new, "tls.key"), text_of(&old, "tls.key"), "with a new key");
    Delivered::read(&new).judge(&format!("spiffe://root-rotation.test/ns/{}/sa/planner", ns.name));
    let condition = condition_of(&ns.client, "root-rotation", "Rotating").await.unwrap();
    assert_eq!((condition.0.as_str(), condition.1.as_str()), ("True", "Retiring"));
    holds_for("nothing more is written", seconds(2), async || {
        let more = writes(&ns, "root-rotation", &[&ns, &other]).after(before + written.len());
        if more.is_empty() { Ok(()) } else { Err(more) }
    })
    .await;
}

#[tokio::test]
async fn an_issuing_ca_is_replaced_under_the_same_root() {
    let ns = World::shared().await.namespace("issuing").await;
    ns.trust_domain("issuing-rotation", spec(&ns, "issuing-rotation", SOAK)).await;
    for name in ["planner", "tools"] {
        ns.identity(name, json!({"trustDomain": "issuing-rotation"})).await;
    }
    let chronicle = Chronicle::of(&ns.client, "issuing-rotation", "issuing-rotation.test").await;
    settled(&chronicle, "root-1 Active, issuing-1 Active", 2).await;
    let bundle = ns.bundle("issuing-rotation").await;
    let old = Delivered::read(&ns.secret_of("planner").await);

    let ask = json!({"spec": {"ca": {"atLeast": {"issuing": 2}}}});
    change(&ns.client, "issuing-rotation", ask).await;
    settled(&chronicle, "root-1 Active, issuing-1 Retiring, issuing-2 Active", 2).await;
    let soaked = "root-1 Active, issuing-1 Active, issuing-2 Prepared";
    assert!(chronicle.history().phases().iter().any(|phases| phases == soaked));
    let history = chronicle.history();
    history.judge_slots();
    let tally = history.judge_trust(SignedDuration::from_hours(1));
    assert_eq!((tally.leaves, tally.bundles, tally.pairs), (4, 1, 4));
    // The new CA has a CRL, and the bundle is not touched.
    let after = ns.bundle("issuing-rotation").await;
    let ca_crt = |map: &ConfigMap| map.data.as_ref().map(|data| data["ca.crt"].clone());
    assert_eq!(ca_crt(&after), ca_crt(&bundle));
    assert_eq!(ns.crls("issuing-rotation").await.len(), 3);
    assert_eq!(history.status().unwrap().bundle.as_ref().unwrap().sequence, 1);
    let new = Delivered::read(&ns.secret_of("planner").await);
    assert_ne!(new.chain[1], old.chain[1]);
    assert_eq!(new.bundle, old.bundle);
}

#[tokio::test]
async fn a_rotation_asked_for_while_one_runs_follows_it() {
    let ns = World::shared().await.namespace("twice").await;
    ns.trust_domain("twice", spec(&ns, "twice", SOAK)).await;
    ns.identity("planner", json!({"trustDomain": "twice"})).await;
    let chronicle = Chronicle::of(&ns.client, "twice", "twice.test").await;
    settled(&chronicle, ROOT_ROTATION[0], 1).await;
    change(&ns.client, "twice", json!({"spec": {"ca": {"atLeast": {"root": 2}}}})).await;
    phases(&chronicle, ROOT_ROTATION[1]).await;
    change(&ns.client, "twice", json!({"spec": {"ca": {"atLeast": {"root": 3}}}})).await;
    let end = "root-1 Retiring, root-2 Retiring, root-3 Active, \
               issuing-1 Retiring, issuing-2 Retiring, issuing-3 Active";
    settled(&chronicle, end, 1).await;
    let history = chronicle.history();
    assert_eq!(history.phases().len(), 5, "{:#?}", history.phases());
    history.judge_slots();
    history.judge_trust(LAG);
    assert_eq!(history.status().unwrap().bundle.as_ref().unwrap().sequence, 3);
}

#[tokio::test]
async fn a_distrusted_root_is_out_at_once_with_all_it_signed() {
    let ns = World::shared().await.namespace("distrust").await;
    ns.trust_domain("distrust", spec(&ns, "distrust", "1h")).await;
    for name in ["planner", "tools"] {
        ns.identity(name, json!({"trustDomain": "distrust"})).await;
    }
    let chronicle = Chronicle::of(&ns.client, "distrust", "distrust.test").await;
    settled(&chronicle, ROOT_ROTATION[0], 2).await;
    let domain = get(&ns.client, "distrust").await.status.unwrap();
    let old = slot(&domain, SlotKind::Root, SlotPhase::Active).unwrap();
    let before = ns.secret_of("planner").await;
    let distrust = json!({"spec": {"ca": {"distrust": [old.key_id]}}});
    change(&ns.client, "distrust", distrust).await;
    settled(&chronicle, "root-2 Active, issuing-2 Active", 2).await;
    let history = chronicle.history();
    let old = old.certificate.as_ref().unwrap();
    for (place, bundle) in history.bundles() {
        assert!(!bundle.contains(old), "{place} still trusts what must not be trusted");
    }
    chronicle
        .until("the old keys are destroyed", seconds(20), |history| {
            let left = history.authorities();
            let new = ["countersign-ca-distrust-issuing-2", "countersign-ca-distrust-root-2"];
            if left.iter().eq(&new) { Ok(()) } else { Err(format!("{left:?}")) }
        })
        .await;
    for name in ["planner", "tools"] {
        ns.issued(name).await;
    }
    let after = ns.secret_of("planner").await;
    assert_ne!(text_of(&after, "tls.key"), text_of(&before, "tls.key"));
    another_second(now()).await;
    assert_eq!(chronicle.history().phases_now(), "root-2 Active, issuing-2 Active");
}

/// A self-signed TrustDomain `<name>.test` whose bundle goes to the test's namespace alone.
fn spec(ns: &Namespace, name: &str, soak: &str) -> Value {
    json!({
        "domain": format!("{name}.test"),
        "authority": {"selfSigned": {}},
        "ca": {"soak": soak},
        "bundle": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": ns.name}}},
    })
}

/// Waits until the CAs are in these phases, and every agent has a leaf of the one that signs.
async fn settled(chronicle: &Chronicle, phases: &str, agents: usize) {
    chronicle
        .until(phases, seconds(60), |history| {
            let now = history.phases_now();
            if now != phases { Err(now) } else { history.is_settled(agents) }
        })
        .await;
}

/// Waits until the CAs are in these phases.
async fn phases(chronicle: &Chronicle, phases: &str) {
    chronicle
        .until(phases, seconds(60), |history| {
            let now = history.phases_now();
            if now == phases { Ok(()) } else { Err(now) }
        })
        .await;
}

/// The operator's writes for a trust domain whose identities are in these namespaces.
fn writes(ns: &Namespace, trust_domain: &str, within: &[&Namespace]) -> Requests {
    let authorities = format!("countersign-ca-{trust_domain}-");
    ns.server.requests_by(User::Operator).writes().filter(|request| {
        within.iter().any(|ns| ns.name == request.namespace)
            || request.name == trust_domain
            || request.name == cluster_trust_bundle_name(trust_domain)
            || request.name.starts_with(&authorities)
    })
}

async fn get(client: &Client, name: &str) -> TrustDomain {
    Api::all(client.clone()).get(name).await.expect("there is such a TrustDomain")
}

async fn change(client: &Client, name: &str, patch: Value) {
    let api: Api<TrustDomain> = Api::all(client.clone());
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.expect("it is changed");
}

/// A condition's status, reason and message.
async fn condition_of(client: &Client, name: &str, kind: &str) -> Option<(String, String, String)> {
    let conditions = get(client, name).await.status?.conditions;
    let condition = conditions.into_iter().find(|condition| condition.type_ == kind)?;
    Some((condition.status, condition.reason, condition.message))
}
