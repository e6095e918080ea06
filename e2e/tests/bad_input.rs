//! Identities that cannot be issued: each says why in a condition, an Event and a counter, gets no
//! Secret, delays nobody, and is issued as soon as its cause is gone.
//!
//! What the CRD itself refuses is in refusals.rs; what is wrong with a TrustDomain is in
//! trust_domain.rs.

use std::time::Instant;

use countersign_e2e::{Namespace, User, World, another_second, gone, holds_for, seconds, wait_for};
use k8s_openapi::api::core::v1::{Namespace as Room, Secret};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

/// What is wrong, the spec, the condition's reason, pieces of its message.
type Row = (&'static str, Value, &'static str, &'static [&'static str]);

#[tokio::test]
async fn what_cannot_be_is_said_and_nothing_is_issued() {
    // The policies would refuse some of these where they are asked.
    let world = World::lenient().await;
    let ns = world.namespace("bad").await;
    let rows: Vec<Row> = vec![
        ("unknown-domain", json!({"trustDomain": "nowhere"}), "TrustDomainNotFound", &["nowhere"]),
        (
            "too-long",
            json!({"certificate": {"duration": "25h"}}),
            "NotAllowed",
            &["spec.certificate.duration", "25h", "24h"],
        ),
        (
            "foreign-name",
            json!({"dnsNames": ["www.example.com"]}),
            "NotAllowed",
            &["spec.dnsNames", "www.example.com"],
        ),
        (
            "other-namespace",
            json!({"dnsNames": ["planner.kube-system.svc"]}),
            "NotAllowed",
            &["planner.kube-system.svc"],
        ),
        ("short-name", json!({"dnsNames": ["kubernetes"]}), "NotAllowed", &["kubernetes"]),
    ];
    for (name, spec, _, _) in &rows {
        ns.identity(name, spec.clone()).await;
    }
    for (name, _, reason, pieces) in &rows {
        let message = ns.not_ready(name, reason).await;
        for piece in *pieces {
            assert!(message.contains(piece), "{name}: {message:?} does not say {piece:?}");
        }
        let event = ns.event(name, "Warning", reason).await;
        assert!(event.contains(pieces[0]), "{name}: {event}");
        let status = ns.identities().get(name).await.unwrap().status.unwrap();
        assert_eq!(status.certificate, None, "{name}");
    }
    let failures = world.operator.metrics().await.sum("countersign_failures_total", &[]);
    assert!(failures >= rows.len() as f64, "{failures} failures are counted");
    assert!(ns.api::<Secret>().list(&Default::default()).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn a_failure_that_repeats_is_written_once_and_tried_again() {
    let world = World::shared().await;
    let ns = world.namespace("repeats").await;
    ns.bundle("test").await;
    let before = ns.server.requests_by(User::Operator).within(&ns.name).writes().len();
    ns.identity("planner", json!({"trustDomain": "nowhere"})).await;
    ns.not_ready("planner", "TrustDomainNotFound").await;
    holds_for("the status is not written again and again", seconds(5), async || {
        let writes = ns.server.requests_by(User::Operator).within(&ns.name).writes().after(before);
        if writes.len() <= 2 { Ok(()) } else { Err(writes) }
    })
    .await;
}

#[tokio::test]
async fn a_fixed_spec_is_issued_at_once_whatever_the_back_off() {
    let ns = World::shared().await.namespace("fixed").await;
    ns.identity("planner", json!({"trustDomain": "nowhere"})).await;
    ns.not_ready("planner", "TrustDomainNotFound").await;
    // Long enough for the back-off to have grown.
    holds_for("it stays wrong", seconds(6), async || {
        ns.secret("planner-identity").await.map_or(Ok(()), |_| Err("issued"))
    })
    .await;
    let began = Instant::now();
    ns.change_identity("planner", json!({"spec": {"trustDomain": "test"}})).await;
    let identity = ns.ready("planner").await;
    assert!(began.elapsed() < seconds(2), "{:?}", began.elapsed());
    let status = identity.status.unwrap();
    assert_eq!((status.failed_attempts.unwrap_or(0), status.last_failure), (0, None));
    ns.secret_of("planner").await;
}

#[tokio::test]
async fn a_trust_domain_that_comes_later_is_enough() {
    let ns = World::shared().await.namespace("later").await;
    ns.identity("planner", json!({"trustDomain": "comes-later"})).await;
    ns.not_ready("planner", "TrustDomainNotFound").await;
    ns.trust_domain("comes-later", only_here(&ns, "later.countersign.dev", json!({}))).await;
    ns.ready("planner").await;
}

#[tokio::test]
async fn a_namespace_that_is_not_served_gets_nothing_until_it_is() {
    let ns = World::shared().await.namespace("unserved").await;
    let rules = json!({"namespaceSelector": {"matchLabels": {"agents": "welcome"}}});
    ns.trust_domain("selective", only_here(&ns, "selective.countersign.dev", rules)).await;
    ns.identity("planner", json!({"trustDomain": "selective"})).await;
    let message = ns.not_ready("planner", "NamespaceNotAllowed").await;
    assert!(message.contains("selective") && message.contains(&ns.name), "{message}");
    assert_eq!(ns.secret("planner-identity").await, None);
    ns.event("planner", "Warning", "NamespaceNotAllowed").await;

    let labels = json!({"metadata": {"labels": {"agents": "welcome"}}});
    let rooms: Api<Room> = Api::all(ns.client.clone());
    rooms.patch(&ns.name, &PatchParams::default(), &Patch::Merge(labels)).await.unwrap();
    ns.ready("planner").await;
    ns.secret_of("planner").await;
}

#[tokio::test]
async fn a_trust_domains_rules_hold() {
    // The policies would refuse these where they are asked; the operator asks again.
    let ns = World::lenient().await.namespace("rules").await;
    let rules = json!({
        "pathTemplate": "/ns/{namespace}/agent/{name}/{role}",
        "minDuration": "30m", "maxDuration": "2h",
        "allowedKeyAlgorithms": ["ECDSA-P384"],
        "allowedDnsSuffixes": ["agents.example.com"],
    });
    ns.trust_domain("ruled", only_here(&ns, "ruled.countersign.dev", rules)).await;
    let good = json!({
        "trustDomain": "ruled", "role": "planner",
        "certificate": {"keyAlgorithm": "ECDSA-P384", "duration": "2h"},
        "dnsNames": ["planner.agents.example.com", format!("planner.{}.svc.cluster.local", ns.name)],
    });
    let but = |path: &str, value: Value| {
        let mut spec = good.clone();
        *spec.pointer_mut(path).expect("the good spec has it") = value;
        spec
    };
    for (name, spec, piece) in [
        ("too-short", but("/certificate/duration", json!("29m")), "at least 30m"),
        ("too-long", but("/certificate/duration", json!("121m")), "at most 2h"),
        ("algorithm", but("/certificate/keyAlgorithm", json!("Ed25519")), "allowedKeyAlgorithms"),
        ("dns-name", but("/dnsNames/0", json!("agents.example.com")), "agents.example.com"),
        ("no-role", but("/role", Value::Null), "spec.role"),
    ] {
        ns.identity(name, spec).await;
        let message = ns.not_ready(name, "NotAllowed").await;
        assert!(message.contains(piece), "{name}: {message}");
        assert_eq!(ns.secret(&format!("{name}-identity")).await, None, "{name}");
    }
    ns.identity("good", good).await;
    let identity = ns.ready("good").await;
    let id = format!("spiffe://ruled.countersign.dev/ns/{}/agent/good/planner", ns.name);
    countersign_e2e::Delivered::read(&ns.secret_of("good").await).judge(&id);
    assert_eq!(identity.status.unwrap().spiffe_id, Some(id));
}

#[tokio::test]
async fn a_foreign_secret_of_the_name_is_never_touched() {
    // The policies would refuse the one with our label.
    let ns = World::lenient().await.namespace("foreign").await;
    let ours = json!({"countersign.dev/identity": "labelled"});
    for (name, labels) in [("plain", json!({})), ("labelled", ours)] {
        let secret = format!("{name}-identity");
        ns.put(json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": secret, "labels": labels},
            "stringData": {"tls.key": "somebody's own"},
        }))
        .await;
        let before = ns.secret(&secret).await.unwrap();
        ns.identity(name, json!({})).await;
        let message = ns.not_ready(name, "SecretNotOurs").await;
        assert!(message.contains(&secret), "{message}");
        ns.event(name, "Warning", "SecretNotOurs").await;
        holds_for("the Secret is left alone", seconds(3), async || {
            let now = ns.secret(&secret).await;
            if now.as_ref() == Some(&before) { Ok(()) } else { Err(now.map(|s| s.metadata)) }
        })
        .await;

        // The name is free, and the identity takes it by itself.
        ns.delete(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": secret}}))
            .await;
        ns.ready(name).await;
    }
}

#[tokio::test]
async fn two_identities_cannot_share_a_secret() {
    let ns = World::shared().await.namespace("shared-secret").await;
    ns.identity("first", json!({"delivery": {"secretName": "both"}})).await;
    ns.ready("first").await;
    let before = ns.secret("both").await;
    ns.identity("second", json!({"delivery": {"secretName": "both"}})).await;
    ns.not_ready("second", "SecretNotOurs").await;
    assert_eq!(ns.secret("both").await, before);
    ns.ready("first").await;
}

#[tokio::test]
async fn the_older_of_two_identities_with_one_spiffe_id_keeps_it() {
    let ns = World::shared().await.namespace("conflict").await;
    let older = ns.identity("older", json!({"serviceAccountName": "same"})).await;
    ns.ready("older").await;
    another_second(older.creation_timestamp().expect("it was created").0).await;
    let before = ns.secret_of("older").await;
    ns.identity("newer", json!({"serviceAccountName": "same"})).await;
    let message = ns.not_ready("newer", "IdentityConflict").await;
    assert!(message.contains("older"), "the message names the other: {message}");
    ns.event("newer", "Warning", "IdentityConflict").await;
    assert_eq!(ns.secret("newer-identity").await, None);
    ns.ready("older").await;
    assert_eq!(ns.secret_of("older").await, before, "the older one noticed nothing");

    ns.identities().delete("older", &Default::default()).await.unwrap();
    let began = Instant::now();
    let identity = ns.ready("newer").await;
    assert!(began.elapsed() < seconds(3), "the newer took over after {:?}", began.elapsed());
    let id = identity.status.unwrap().spiffe_id.unwrap();
    countersign_e2e::Delivered::read(&ns.secret_of("newer").await).judge(&id);
}

#[tokio::test]
async fn an_identity_that_loses_its_spiffe_id_to_an_older_one_is_renewed_no_more() {
    let ns = World::shared().await.namespace("overtaken").await;
    let older = ns.identity("older", json!({"serviceAccountName": "one"})).await;
    ns.ready("older").await;
    another_second(older.creation_timestamp().expect("it was created").0).await;
    ns.identity("newer", json!({"serviceAccountName": "two"})).await;
    ns.ready("newer").await;
    ns.change_identity("older", json!({"spec": {"serviceAccountName": "two"}})).await;
    ns.ready("older").await;
    ns.not_ready("newer", "IdentityConflict").await;
}

#[tokio::test]
async fn many_bad_identities_delay_no_good_one() {
    let ns = World::shared().await.namespace("crowd").await;
    for number in 0..50 {
        ns.identity(&format!("bad-{number}"), json!({"trustDomain": "nowhere"})).await;
    }
    let began = Instant::now();
    ns.identity("good", json!({})).await;
    ns.ready("good").await;
    assert!(began.elapsed() < seconds(2), "50 bad ones held it for {:?}", began.elapsed());
}

#[tokio::test]
async fn a_deleted_identity_takes_its_secret_along_unless_it_is_to_stay() {
    let ns = World::shared().await.namespace("deletion").await;
    ns.identity("goes", json!({})).await;
    ns.identity("stays", json!({"delivery": {"deletionPolicy": "Orphan"}})).await;
    ns.identity("changes", json!({})).await;
    for name in ["goes", "stays", "changes"] {
        ns.ready(name).await;
    }
    assert!(ns.secret_of("stays").await.owner_references().is_empty());
    let orphan = json!({"spec": {"delivery": {"deletionPolicy": "Orphan"}}});
    let serial = |secret: &Secret| secret.annotations()["countersign.dev/serial"].clone();
    let before = serial(&ns.secret_of("changes").await);
    ns.change_identity("changes", orphan).await;
    wait_for("the owner is taken off", seconds(10), async || {
        let owners = ns.secret_of("changes").await.owner_references().to_vec();
        if owners.is_empty() { Ok(()) } else { Err(owners) }
    })
    .await;
    assert_eq!(serial(&ns.secret_of("changes").await), before, "and nothing was issued");

    for name in ["goes", "stays", "changes"] {
        ns.identities().delete(name, &Default::default()).await.unwrap();
    }
    // What the garbage collector does to the one it would have done to the others by then.
    gone("the Secret of the identity", seconds(40), async || ns.secret("goes-identity").await)
        .await;
    ns.secret_of("stays").await;
    ns.secret_of("changes").await;

    // An identity of the same name takes the orphan over.
    ns.identity("stays", json!({})).await;
    ns.ready("stays").await;
    assert_eq!(ns.secret_of("stays").await.owner_references().len(), 1);
}

/// A TrustDomain that is not the default and publishes its bundle in the test's namespace alone.
fn only_here(ns: &Namespace, domain: &str, rules: Value) -> Value {
    json!({
        "domain": domain,
        "authority": {"selfSigned": {}},
        "identities": rules,
        "bundle": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": ns.name}}},
    })
}
