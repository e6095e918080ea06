//! From an AgentIdentity to its Secret: what is delivered, when it is issued again, what is left
//! alone, and how few requests that takes.

use std::time::{Duration, Instant};

use countersign_e2e::agents::text_of;
use countersign_e2e::delivered::Leaf;
use countersign_e2e::world::DOMAIN;
use countersign_e2e::{Delivered, Namespace, User, World, gone, holds_for, now, seconds, wait_for};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

#[tokio::test]
async fn an_identity_gets_a_secret_that_strangers_accept() {
    let ns = World::shared().await.namespace("first").await;
    ns.identity("planner", json!({"role": "planner"})).await;
    let (identity, secret, leaf) = issued(&ns, "planner").await;

    assert_eq!(secret.type_.as_deref(), Some("kubernetes.io/tls"));
    assert_eq!(keys(&secret), ["ca.crt", "tls.crt", "tls.key"]);
    assert_eq!(secret.labels()["countersign.dev/identity"], "planner");
    let annotations = secret.annotations();
    assert_eq!(annotations["countersign.dev/spiffe-id"], spiffe_id(&ns, "planner"));
    assert_eq!(annotations["countersign.dev/serial"].trim_start_matches('0'), leaf.serial);
    assert_eq!(annotations["countersign.dev/not-after"], leaf.not_after.to_string());
    assert_eq!(secret.owner_references()[0].uid, identity.uid().unwrap());

    let status = identity.status.unwrap();
    let certificate = status.certificate.unwrap();
    assert_eq!(status.spiffe_id, Some(spiffe_id(&ns, "planner")));
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
        let (identity, _, leaf) = issued(&ns, name).await;
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
    let before = requests(&ns).len();

    ns.identity("planner", json!({})).await;
    let (_, secret, _) = issued(&ns, "planner").await;
    let writes = requests(&ns).after(before);
    assert_eq!(writes.len(), 2, "{writes:#?}");
    assert_eq!(writes.0[0].resource, "secrets", "{writes:#?}");
    assert_eq!(writes.0[1].kind(), "patch agentidentities/status", "{writes:#?}");

    holds_for("nothing is written at rest", seconds(3), async || {
        let writes = requests(&ns).after(before);
        if writes.len() == 2 { Ok(()) } else { Err(writes) }
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
async fn a_deleted_secret_is_back_within_a_second() {
    let ns = World::shared().await.namespace("deleted").await;
    ns.identity("planner", json!({})).await;
    let (_, _, first) = issued(&ns, "planner").await;
    within_a_second("a deleted Secret is back", async || {
        let parameters = DeleteParams::default();
        let old = ns.secret_of("planner").await;
        ns.api::<Secret>().delete("planner-identity", &parameters).await.unwrap();
        let began = Instant::now();
        wait_for("the Secret is back", seconds(10), async || {
            ns.secret("planner-identity").await.filter(|new| new.uid() != old.uid()).ok_or("gone")
        })
        .await;
        began.elapsed()
    })
    .await;
    let second = settled(&ns, "planner").await;
    assert_ne!(second.serial, first.serial, "a new key and certificate");
}

#[tokio::test]
async fn damage_is_repaired_within_a_second_by_a_new_certificate() {
    let ns = World::shared().await.namespace("damaged").await;
    let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
    for (number, (key, value, reason)) in [
        ("tls.crt", "not a certificate".to_owned(), "Malformed"),
        ("tls.key", String::new(), "Malformed"),
        ("tls.key", other, "KeyMismatch"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("agent-{number}");
        ns.identity(&name, json!({})).await;
        let (_, _, first) = issued(&ns, &name).await;
        within_a_second(&format!("{key} is repaired ({reason})"), async || {
            let old = text_of(&edit(&ns, &name, key, &value).await, "tls.crt");
            let began = Instant::now();
            wait_for("it is repaired", seconds(10), async || {
                let secret = ns.secret_of(&name).await;
                let now = text_of(&secret, key);
                if now != value && text_of(&secret, "tls.crt") != old {
                    Ok(())
                } else {
                    Err("not yet")
                }
            })
            .await;
            began.elapsed()
        })
        .await;
        let second = settled(&ns, &name).await;
        assert_ne!(second.serial, first.serial);
        wait_for(&format!("an Event that says {reason}"), seconds(10), async || {
            let events = ns.events(&name).await;
            let said = events.iter().any(|(kind, _, message)| {
                kind == "Normal" && message.contains(reason) && message.contains(&second.serial)
            });
            if said { Ok(()) } else { Err(events) }
        })
        .await;
        let reissued = world_metric(&[("reason", reason)]).await;
        assert!(reissued >= 1.0, "countersign_issuances_total counts reason {reason}");
    }
}

#[tokio::test]
async fn a_changed_bundle_or_annotation_is_put_right_without_a_new_certificate() {
    let ns = World::shared().await.namespace("touched").await;
    ns.identity("planner", json!({})).await;
    let (_, secret, first) = issued(&ns, "planner").await;

    within_a_second("ca.crt is put right", async || {
        edit(&ns, "planner", "ca.crt", "something else").await;
        let began = Instant::now();
        wait_for("ca.crt is right", seconds(10), async || {
            let now = text_of(&ns.secret_of("planner").await, "ca.crt");
            if now == text_of(&secret, "ca.crt") { Ok(()) } else { Err(now) }
        })
        .await;
        began.elapsed()
    })
    .await;
    let patch =
        json!({"metadata": {"annotations": {"countersign.dev/spiffe-id": "spiffe://evil/"}}});
    patch_secret(&ns, "planner-identity", patch).await;
    wait_for("the annotation is right", seconds(10), async || {
        let now = ns.secret_of("planner").await.annotations()["countersign.dev/spiffe-id"].clone();
        if now == spiffe_id(&ns, "planner") { Ok(()) } else { Err(now) }
    })
    .await;
    assert_eq!(settled(&ns, "planner").await.serial, first.serial, "nothing was issued");
}

#[tokio::test]
async fn a_stray_file_is_removed() {
    let ns = World::shared().await.namespace("stray").await;
    ns.identity("planner", json!({})).await;
    issued(&ns, "planner").await;
    edit(&ns, "planner", "tls-combined.pem", "left by somebody").await;
    wait_for("only the files asked for are there", seconds(10), async || {
        let keys = keys(&ns.secret_of("planner").await);
        if keys == ["ca.crt", "tls.crt", "tls.key"] { Ok(()) } else { Err(keys) }
    })
    .await;
    settled(&ns, "planner").await;
}

#[tokio::test]
async fn a_changed_spec_gives_another_certificate_within_a_second() {
    let ns = World::shared().await.namespace("changed").await;
    ns.identity("planner", json!({})).await;
    let (_, _, mut last) = issued(&ns, "planner").await;
    let dns_name = format!("planner.{}.svc", ns.name);
    for change in [
        json!({"dnsNames": [dns_name]}),
        json!({"certificate": {"keyAlgorithm": "ECDSA-P384"}}),
        json!({"certificate": {"duration": "30m"}}),
        json!({"certificate": {"duration": "45m"}}),
        json!({"serviceAccountName": "other"}),
    ] {
        let began = Instant::now();
        ns.change_identity("planner", json!({"spec": change})).await;
        let (_, _, leaf) = issued(&ns, "planner").await;
        let took = began.elapsed();
        assert_ne!(leaf.serial, last.serial, "{change} gives a new certificate");
        assert!(took < seconds(2), "{change} took {took:?}");
        last = leaf;
    }
    assert_eq!(last.dns_names, [dns_name].into());
    assert_eq!(last.uris, [spiffe_id(&ns, "other")]);

    let before = requests(&ns).len();
    ns.change_identity("planner", json!({"spec": {"role": "retrieval"}})).await;
    let (_, _, leaf) = issued(&ns, "planner").await;
    assert_eq!(leaf.serial, last.serial, "a role is not in the certificate");
    let writes = requests(&ns).after(before);
    assert_eq!(writes.counts(), [("patch agentidentities/status".to_owned(), 1)].into());
}

#[tokio::test]
async fn a_new_secret_name_moves_the_certificate() {
    let ns = World::shared().await.namespace("moved").await;
    ns.identity("planner", json!({})).await;
    issued(&ns, "planner").await;
    ns.change_identity("planner", json!({"spec": {"delivery": {"secretName": "elsewhere"}}})).await;
    let identity = ns.ready("planner").await;
    assert_eq!(identity.status.unwrap().secret_name.as_deref(), Some("elsewhere"));
    Delivered::read(&ns.secret("elsewhere").await.unwrap()).judge(&spiffe_id(&ns, "planner"));
    gone("the old Secret", seconds(10), async || ns.secret("planner-identity").await).await;
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
        let (_, secret, _) = issued(&ns, algorithm).await;
        let text = openssl(&["x509", "-noout", "-text"], &text_of(&secret, "tls.crt"));
        assert!(text.contains(says), "{algorithm}: {text}");
    }
}

#[tokio::test]
async fn extra_formats_hold_the_same_key_and_certificate() {
    let ns = World::shared().await.namespace("formats").await;
    let formats = json!(["CombinedPEM", "PKCS12", "EnvoySDS"]);
    ns.identity("planner", json!({"delivery": {"formats": formats}})).await;
    let (_, secret, _) = issued(&ns, "planner").await;
    assert_eq!(
        keys(&secret),
        [
            "ca.crt",
            "envoy-identity.yaml",
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
    edit(&ns, "planner", "tls-combined.pem", "cut sho").await;
    wait_for("the file is whole", seconds(10), async || {
        let secret = ns.secret_of("planner").await;
        let combined = text_of(&secret, "tls-combined.pem");
        if combined.contains(text_of(&secret, "tls.crt").trim()) { Ok(()) } else { Err(combined) }
    })
    .await;
}

#[tokio::test]
async fn a_secrets_template_is_honoured_and_kept_and_others_additions_stay() {
    let ns = World::shared().await.namespace("template").await;
    let template = json!({"labels": {"team": "research", "tier": "1"}, "annotations": {"example.com/note": "ours"}});
    ns.identity("planner", json!({"delivery": {"secretTemplate": template}})).await;
    let (_, secret, first) = issued(&ns, "planner").await;
    assert_eq!(secret.labels()["team"], "research");
    assert_eq!(secret.annotations()["example.com/note"], "ours");

    let patch = json!({"metadata": {
        "labels": {"team": "sales", "somebody": "else"},
        "annotations": {"example.com/note": null, "backup.example.com/keep": "yes"},
    }});
    patch_secret(&ns, "planner-identity", patch).await;
    let is_right = async || {
        let secret = ns.secret_of("planner").await;
        let right = secret.labels().get("team").is_some_and(|team| team == "research")
            && secret.annotations().get("example.com/note").is_some_and(|note| note == "ours");
        if right { Ok(secret) } else { Err(secret.metadata) }
    };
    let secret = wait_for("the template's keys are right again", seconds(10), is_right).await;
    assert_eq!(secret.labels()["somebody"], "else", "another's label stays");
    assert_eq!(
        secret.annotations()["backup.example.com/keep"],
        "yes",
        "another's annotation stays"
    );
    assert_eq!(settled(&ns, "planner").await.serial, first.serial, "nothing was issued");

    let change = json!({"spec": {"delivery": {"secretTemplate": {"labels": {"tier": null}, "annotations": null}}}});
    ns.change_identity("planner", change).await;
    wait_for("what left the template leaves the Secret", seconds(10), async || {
        let secret = ns.secret_of("planner").await;
        let gone = !secret.labels().contains_key("tier")
            && !secret.annotations().contains_key("example.com/note");
        if gone { Ok(()) } else { Err(secret.metadata) }
    })
    .await;
    let secret = ns.secret_of("planner").await;
    assert_eq!((&*secret.labels()["team"], &*secret.labels()["somebody"]), ("research", "else"));
    assert_eq!(settled(&ns, "planner").await.serial, first.serial, "nothing was issued");
}

#[tokio::test]
async fn a_certificate_is_renewed_in_time_with_a_new_key_and_two_writes() {
    let ns = World::shared().await.namespace("renewed").await;
    ns.bundle("test").await;
    let before = requests(&ns).len();
    // 5 minutes less 4 minutes 50: the renewal is due in 10 s at the latest.
    ns.identity("planner", json!({"certificate": {"duration": "5m", "renewBefore": "4m50s"}}))
        .await;
    let (_, first, first_leaf) = issued(&ns, "planner").await;
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
    let leaf = Delivered::read(&second).judge(&spiffe_id(&ns, "planner"));
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
    let counts = requests(&ns).after(before).counts();
    assert_eq!(counts.values().sum::<usize>(), 4, "two writes each: {counts:?}");
}

#[tokio::test]
async fn a_leaf_never_outlives_its_chain() {
    let world = World::shared().await;
    let ns = world.namespace("clamped").await;
    ns.trust_domain("clamped", json!({
        "domain": "clamped.countersign.dev",
        "authority": {"selfSigned": {}},
        "ca": {"rootLifetime": "1h", "issuingLifetime": "30m"},
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
    let (identity, secret, _) = issued(&ns, "planner").await;
    edit(&ns, "planner", "tls.crt", "damage").await;
    wait_for("it is repaired", seconds(10), async || {
        let now = text_of(&ns.secret_of("planner").await, "tls.crt");
        if now == "damage" { Err(now) } else { Ok(()) }
    })
    .await;
    settled(&ns, "planner").await;
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

fn spiffe_id(ns: &Namespace, service_account: &str) -> String {
    format!("spiffe://{DOMAIN}/ns/{}/sa/{service_account}", ns.name)
}

/// Waits until an identity is Ready and judges what it delivered.
async fn issued(ns: &Namespace, name: &str) -> (countersign::api::AgentIdentity, Secret, Leaf) {
    let identity = ns.ready(name).await;
    let secret = ns.secret_of(name).await;
    let leaf = Delivered::read(&secret)
        .judge(identity.status.as_ref().unwrap().spiffe_id.as_ref().unwrap());
    (identity, secret, leaf)
}

/// Waits until the status speaks of the certificate that is in the Secret, and gives it.
async fn settled(ns: &Namespace, name: &str) -> Leaf {
    wait_for("Secret and status agree", seconds(10), async || {
        let identity = ns.ready(name).await;
        let status = identity.status.unwrap();
        let recorded = status.certificate.unwrap().serial_number;
        let secret = ns.secret_of(name).await;
        if secret.annotations()["countersign.dev/serial"] != recorded {
            return Err(recorded);
        }
        Ok(Delivered::read(&secret).judge(&status.spiffe_id.unwrap()))
    })
    .await
}

/// The operator's changes in this namespace.
fn requests(ns: &Namespace) -> countersign_e2e::audit::Requests {
    ns.server.requests_by(User::Operator).within(&ns.name).writes()
}

/// Best of three, since somebody else may have this machine's processors for a moment.
async fn within_a_second(what: &str, mut attempt: impl AsyncFnMut() -> Duration) {
    let mut all = Vec::new();
    for _ in 0..3 {
        all.push(attempt().await);
        if all.last() < Some(&seconds(1)) {
            return;
        }
    }
    panic!("{what}: not within a second, but after {all:?}");
}

async fn edit(ns: &Namespace, identity: &str, key: &str, value: &str) -> Secret {
    let value = ByteString(value.as_bytes().to_vec());
    patch_secret(ns, &format!("{identity}-identity"), json!({"data": {key: value}})).await
}

async fn patch_secret(ns: &Namespace, name: &str, patch: Value) -> Secret {
    ns.api().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap()
}

fn keys(secret: &Secret) -> Vec<String> {
    secret.data.as_ref().unwrap().keys().cloned().collect()
}

async fn versions(ns: &Namespace) -> Vec<(String, Option<String>)> {
    let secrets = ns.api::<Secret>().list(&Default::default()).await.unwrap();
    let identities = ns.identities().list(&Default::default()).await.unwrap();
    let secrets = secrets.iter().map(|s| (s.name_any(), s.resource_version()));
    secrets.chain(identities.iter().map(|i| (i.name_any(), i.resource_version()))).collect()
}

async fn world_metric(labels: &[(&str, &str)]) -> f64 {
    World::shared().await.operator.metrics().await.sum("countersign_issuances_total", labels)
}

fn openssl(arguments: &[&str], input: &str) -> String {
    countersign_e2e::judges::openssl(arguments, input)
}
