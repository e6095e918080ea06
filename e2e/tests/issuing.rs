//! From an AgentIdentity to its Secret: what is delivered, when it is issued again, what is left
//! alone, and how few requests that takes.

use std::time::Instant;

use countersign_e2e::agents::text_of;
use countersign_e2e::audit::{Request, Requests};
use countersign_e2e::judges::openssl;
use countersign_e2e::secrets::keys;
use countersign_e2e::{Delivered, Namespace, User, World, holds_for, now, seconds, wait_for};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use serde_json::{Value, json};

#[tokio::test]
async fn an_identity_gets_a_secret_that_strangers_accept() {
    let ns = World::shared().await.namespace("first").await;
    ns.identity("planner", json!({"role": "planner"})).await;
    let (identity, secret, leaf) = ns.issued("planner").await;

    assert_eq!(secret.type_.as_deref(), Some("kubernetes.io/tls"));
    assert_eq!(keys(&secret), ["ca.crt", "tls.crt", "tls.key"]);
    assert_eq!(secret.labels()["countersign.dev/identity"], "planner");
    let annotations = secret.annotations();
    assert_eq!(annotations["countersign.dev/spiffe-id"], ns.spiffe_id("planner"));
    assert_eq!(annotations["countersign.dev/serial"].trim_start_matches('0'), leaf.serial);
    assert_eq!(annotations["countersign.dev/not-after"], leaf.not_after.to_string());
    assert_eq!(secret.owner_references()[0].uid, identity.uid().unwrap());

    let status = identity.status.unwrap();
    let certificate = status.certificate.unwrap();
    assert_eq!(status.spiffe_id, Some(ns.spiffe_id("planner")));
    assert_eq!(status.trust_domain.as_deref(), Some("test"));
    assert_eq!(status.secret_name.as_deref(), Some("planner-identity"));
    assert_eq!(certificate.serial_number.trim_start_matches('0'), leaf.serial);
    assert_eq!(
        (certificate.not_before.0, certificate.not_after.0),
        (leaf.not_before, leaf.not_after)
    );
    assert_eq!(certificate.revision, 1);
    assert_eq!((status.failed_attempts.unwrap_or(0), status.last_failure), (0, None));
    let event = ns.event("planner", "Normal", "Issued").await;
    assert!(event.contains("Missing") && event.contains(&leaf.serial), "{event}");
    assert_eq!(ns.api::<Secret>().list(&Default::default()).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn a_life_is_as_long_as_the_spec_says_and_renewed_in_its_last_third() {
    let ns = World::shared().await.namespace("life").await;
    for (name, certificate, life, renew_from, renew_to) in [
        ("default", json!({}), 3600, 2100, 2400),
        ("short", json!({"duration": "10m"}), 600, 350, 400),
        ("early", json!({"duration": "2h", "renewBefore": "90m"}), 7200, 1080, 1800),
        ("long", json!({"duration": "24h"}), 86400, 50400, 57600),
    ] {
        ns.identity(name, json!({"certificate": certificate})).await;
        let (identity, _, leaf) = ns.issued(name).await;
        let now = now().as_second();
        let left = leaf.not_after.as_second() - now;
        assert!((life - 30..=life).contains(&left), "{name}: {left} s are left of {life}");
        let certificate = identity.status.unwrap().certificate.unwrap();
        let renewed_after =
            life - (leaf.not_after.as_second() - certificate.renew_at.0.as_second());
        assert!(
            (renew_from..=renew_to).contains(&renewed_after),
            "{name}: renewed {renewed_after} s after issuing"
        );
    }
}

#[tokio::test]
async fn an_issuance_takes_two_writes_and_rest_takes_none() {
    let world = World::shared().await;
    let ns = world.namespace("two-writes").await;
    ns.bundle("test").await;
    let before = ns.operators_writes().len();

    ns.identity("planner", json!({})).await;
    let (_, secret, _) = ns.issued("planner").await;
    // The namespace's roster is beside an issuance: one write for all identities of a second.
    let is_roster = |writes: &Requests| writes.counts().get("create agentrosters") == Some(&1);
    wait_for("the roster lists it", seconds(10), async || {
        let writes = ns.operators_writes().after(before);
        if is_roster(&writes) { Ok(()) } else { Err(writes) }
    })
    .await;
    holds_for("nothing is written at rest", seconds(3), async || {
        let writes = ns.operators_writes().after(before);
        let kinds: Vec<String> = writes.0.iter().map(Request::kind).collect();
        let kinds: Vec<&str> = kinds
            .iter()
            .map(String::as_str)
            .filter(|kind| *kind != "create agentrosters")
            .collect();
        let is_so = kinds == ["create secrets", "patch agentidentities/status"];
        if is_so && writes.len() == 3 { Ok(()) } else { Err(writes) }
    })
    .await;
    let after = ns.secret_of("planner").await;
    assert_eq!(after.metadata.resource_version, secret.metadata.resource_version);
}

#[tokio::test]
async fn a_restart_writes_nothing() {
    let world = World::start().await;
    let ns = world.namespace("restart").await;
    for number in 0..20 {
        ns.identity(&format!("agent-{number}"), json!({})).await;
    }
    for number in 0..20 {
        ns.ready(&format!("agent-{number}")).await;
    }
    wait_for("the TrustDomain's summary", seconds(10), async || {
        let api: kube::Api<countersign::api::TrustDomain> = kube::Api::all(ns.client.clone());
        let status = api.get("test").await.unwrap().status.unwrap_or_default();
        match status.identities {
            Some(counts) if (counts.total, counts.ready) == (20, 20) => Ok(()),
            other => Err(other),
        }
    })
    .await;
    ns.rostered(20).await;
    let versions = versions(&ns).await;
    assert!(world.operator.stop(seconds(5)).await.success());
    let before = world.server.requests_by(User::Operator).len();

    let operator =
        countersign_e2e::Operator::start_leading(&world.server, Default::default()).await;
    wait_for("the new operator has looked at all of them", seconds(20), async || {
        let metrics = operator.metrics().await;
        let known = metrics.sum("countersign_certificate_expiration_timestamp_seconds", &[]);
        let count = metrics
            .samples()
            .iter()
            .filter(|s| s.name == "countersign_certificate_expiration_timestamp_seconds")
            .count();
        if count == 20 { Ok(()) } else { Err((count, known)) }
    })
    .await;
    holds_for("nothing is written after a restart", seconds(3), async || {
        let writes = world.server.requests_by(User::Operator).after(before).writes();
        if writes.is_empty() { Ok(()) } else { Err(writes) }
    })
    .await;
    assert_eq!(self::versions(&ns).await, versions);
}

#[tokio::test]
async fn every_key_algorithm_is_issued_and_a_slow_one_holds_nobody() {
    let ns = World::shared().await.namespace("algorithms").await;
    for number in 0..4 {
        let spec = json!({"certificate": {"keyAlgorithm": "RSA-4096"}});
        ns.identity(&format!("slow-{number}"), spec).await;
    }
    for algorithm in ["ECDSA-P256", "ECDSA-P384", "Ed25519", "RSA-2048", "RSA-3072", "RSA-4096"] {
        let name = algorithm.to_lowercase();
        ns.identity(&name, json!({"certificate": {"keyAlgorithm": algorithm}})).await;
    }
    let began = Instant::now();
    ns.identity("quick", json!({})).await;
    ns.ready("quick").await;
    assert!(began.elapsed() < seconds(2), "RSA keys held an ECDSA one for {:?}", began.elapsed());
    for (algorithm, says) in [
        ("ecdsa-p256", "prime256v1"),
        ("ecdsa-p384", "secp384r1"),
        ("ed25519", "ED25519"),
        ("rsa-2048", "(2048 bit"),
        ("rsa-3072", "(3072 bit"),
        ("rsa-4096", "(4096 bit"),
    ] {
        let (_, secret, _) = ns.issued(algorithm).await;
        let text = openssl(&["x509", "-noout", "-text"], &text_of(&secret, "tls.crt"));
        assert!(text.contains(says), "{algorithm}: {text}");
    }
}

#[tokio::test]
async fn extra_formats_hold_the_same_key_and_certificate() {
    let ns = World::shared().await.namespace("formats").await;
    let formats = json!(["CombinedPEM", "PKCS12", "EnvoySDS"]);
    ns.identity("planner", json!({"delivery": {"formats": formats}})).await;
    let (_, secret, _) = ns.issued("planner").await;
    assert_eq!(
        keys(&secret),
        [
            "ca.crt",
            "envoy-identity.yaml",
            "envoy-trust-crl.yaml",
            "envoy-trust.yaml",
            "keystore.p12",
            "keystore.password",
            "tls-combined.pem",
            "tls.crt",
            "tls.key",
        ]
    );
    let (certificate, key) = (text_of(&secret, "tls.crt"), text_of(&secret, "tls.key"));
    let combined = text_of(&secret, "tls-combined.pem");
    assert!(combined.contains(certificate.trim()) && combined.contains(key.trim()));

    let folder = ns.server.folder().join(&ns.name);
    std::fs::create_dir_all(&folder).unwrap();
    let store = folder.join("keystore.p12");
    std::fs::write(&store, &secret.data.as_ref().unwrap()["keystore.p12"].0).unwrap();
    let password = format!("pass:{}", text_of(&secret, "keystore.password").trim());
    let opened =
        openssl(&["pkcs12", "-in", store.to_str().unwrap(), "-passin", &password, "-nodes"], "");
    let opened = Delivered {
        chain: countersign_e2e::delivered::certificates(&opened),
        key: rustls_pki_types::pem::PemObject::from_pem_slice(opened.as_bytes()).unwrap(),
        bundle: Vec::new(),
    };
    let delivered = Delivered::read(&secret);
    assert_eq!(opened.chain[0], delivered.chain[0]);
    assert_eq!(opened.key, delivered.key);

    for (file, needle) in
        [("envoy-identity.yaml", &certificate), ("envoy-trust.yaml", &text_of(&secret, "ca.crt"))]
    {
        let yaml: Value = serde_yaml::from_str(&text_of(&secret, file)).unwrap();
        assert_eq!(yaml["resources"].as_array().unwrap().len(), 1, "{file}");
        let inline = yaml.to_string().replace("\\n", "\n");
        assert!(inline.contains(needle.trim()), "{file}: {inline}");
    }

    // A format that is not asked for any more goes; one that is damaged is repaired.
    ns.change_identity("planner", json!({"spec": {"delivery": {"formats": ["CombinedPEM"]}}}))
        .await;
    ns.ready("planner").await;
    assert_eq!(
        keys(&ns.secret_of("planner").await),
        ["ca.crt", "tls-combined.pem", "tls.crt", "tls.key"]
    );
    ns.edit("planner", "tls-combined.pem", "cut sho").await;
    wait_for("the file is whole", seconds(10), async || {
        let secret = ns.secret_of("planner").await;
        let combined = text_of(&secret, "tls-combined.pem");
        if combined.contains(text_of(&secret, "tls.crt").trim()) { Ok(()) } else { Err(combined) }
    })
    .await;
}

#[tokio::test]
async fn a_certificate_is_renewed_in_time_with_a_new_key_and_two_writes() {
    let ns = World::shared().await.namespace("renewed").await;
    ns.bundle("test").await;
    let before = ns.operators_writes().len();
    // 5 minutes less 4 minutes 50: the renewal is due in 10 s at the latest.
    ns.identity("planner", json!({"certificate": {"duration": "5m", "renewBefore": "4m50s"}}))
        .await;
    let (_, first, first_leaf) = ns.issued("planner").await;
    let second = wait_for("a renewal", seconds(20), async || {
        let secret = ns.secret_of("planner").await;
        if text_of(&secret, "tls.crt") == text_of(&first, "tls.crt") {
            Err("the old one")
        } else {
            Ok(secret)
        }
    })
    .await;
    let renewed_at = now().as_second();
    let leaf = Delivered::read(&second).judge(&ns.spiffe_id("planner"));
    assert!(renewed_at <= first_leaf.not_after.as_second() - 288, "not later than renewBefore");
    assert_ne!(text_of(&second, "tls.key"), text_of(&first, "tls.key"), "a new key every time");
    assert!(leaf.not_after > first_leaf.not_after);
    assert_eq!(second.uid(), first.uid(), "the Secret is written in place");
    let event = ns.event("planner", "Normal", "Renewed").await;
    assert!(event.contains("NearExpiry") && event.contains(&leaf.serial), "{event}");
    wait_for("the status follows", seconds(5), async || {
        let status = ns.identities().get("planner").await.unwrap().status.unwrap();
        let certificate = status.certificate.unwrap();
        if certificate.revision == 2 { Ok(()) } else { Err(certificate) }
    })
    .await;
    let counts = ns.operators_writes().after(before).counts();
    let wanted = [
        ("create agentrosters", 1), // for the namespace, whoever is issued what
        ("create secrets", 1),
        ("patch agentidentities/status", 2),
        ("patch secrets", 1),
    ];
    let wanted = wanted.map(|(kind, count)| (kind.to_owned(), count)).into();
    assert_eq!(counts, wanted, "two writes each");
}

#[tokio::test]
async fn a_leaf_never_outlives_its_chain() {
    let world = World::shared().await;
    let ns = world.namespace("clamped").await;
    ns.trust_domain("clamped", json!({
        "domain": "clamped.countersign.dev",
        "authority": {"selfSigned": {}},
        "ca": {"rootLifetime": "1h", "issuingLifetime": "30m", "soak": "5m"},
        "bundle": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": ns.name}}},
    }))
    .await;
    ns.identity("planner", json!({"trustDomain": "clamped", "certificate": {"duration": "1h"}}))
        .await;
    let identity = ns.ready("planner").await;
    let delivered = Delivered::read(&ns.secret_of("planner").await);
    let leaf =
        delivered.judge(&format!("spiffe://clamped.countersign.dev/ns/{}/sa/planner", ns.name));
    let left = leaf.not_after.as_second() - now().as_second();
    assert!((1500..=1800).contains(&left), "{left} s are left");
    let renew_at = identity.status.unwrap().certificate.unwrap().renew_at.0;
    assert!(renew_at < leaf.not_after && renew_at > now(), "renewed within its real life");
    holds_for("a life that the CA shortened is no reason to issue", seconds(2), async || {
        let now = Delivered::read(&ns.secret_of("planner").await).leaf();
        if now.serial == leaf.serial { Ok(()) } else { Err(now) }
    })
    .await;
}

#[tokio::test]
async fn no_key_is_in_logs_events_or_statuses() {
    let world = World::shared().await;
    let ns = world.namespace("quiet").await;
    ns.identity("planner", json!({"delivery": {"formats": ["PKCS12"]}})).await;
    let (identity, secret, _) = ns.issued("planner").await;
    ns.edit("planner", "tls.crt", "damage").await;
    wait_for("it is repaired", seconds(10), async || {
        let now = text_of(&ns.secret_of("planner").await, "tls.crt");
        if now == "damage" { Err(now) } else { Ok(()) }
    })
    .await;
    ns.settled("planner").await;
    let seen = format!(
        "{}{:?}{}{}",
        world.operator.log(),
        ns.events("planner").await,
        serde_json::to_string(&identity).unwrap(),
        world.operator.page("/metrics").await.unwrap().body,
    );
    let password = text_of(&secret, "keystore.password");
    let key = text_of(&secret, "tls.key");
    for secret in ["PRIVATE KEY", password.trim(), key.lines().nth(1).unwrap()] {
        assert!(!seen.contains(secret), "a secret is in the operator's words");
    }
}

async fn versions(ns: &Namespace) -> Vec<(String, Option<String>)> {
    let secrets = ns.api::<Secret>().list(&Default::default()).await.unwrap();
    let identities = ns.identities().list(&Default::default()).await.unwrap();
    let secrets = secrets.iter().map(|s| (s.name_any(), s.resource_version()));
    secrets.chain(identities.iter().map(|i| (i.name_any(), i.resource_version()))).collect()
}
