//! A Secret that is deleted, damaged, edited or out of date is put right within a second, by a new
//! certificate where the old one will not do, and without one where it will.

use std::time::Instant;

use countersign_e2e::agents::text_of;
use countersign_e2e::secrets::{keys, within_a_second};
use countersign_e2e::{Delivered, World, gone, seconds, wait_for};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::DeleteParams;
use serde_json::json;

#[tokio::test]
async fn a_deleted_secret_is_back_within_a_second() {
    let ns = World::shared().await.namespace("deleted").await;
    ns.identity("planner", json!({})).await;
    let (_, _, first) = ns.issued("planner").await;
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
    let second = ns.settled("planner").await;
    assert_ne!(second.serial, first.serial, "a new key and certificate");
}

#[tokio::test]
async fn a_label_that_is_taken_off_is_put_back_and_nothing_is_issued() {
    // The policies would refuse to have our label taken off.
    let ns = World::lenient().await.namespace("unlabelled").await;
    ns.identity("planner", json!({})).await;
    let (identity, right, _) = ns.issued("planner").await;
    for label in [json!(null), json!("somebody-else")] {
        let patch = json!({"metadata": {"labels": {"countersign.dev/identity": label}}});
        ns.patch_secret_of("planner", patch).await;
        wait_for("the label is back", seconds(20), async || {
            let now = ns.secret_of("planner").await;
            if now.labels() == right.labels() { Ok(()) } else { Err(now.metadata) }
        })
        .await;
    }
    let now = ns.secret_of("planner").await;
    assert_eq!((&now.data, now.uid()), (&right.data, right.uid()), "the certificate is as it was");
    let status = ns.ready("planner").await.status;
    assert_eq!(status.unwrap().certificate, identity.status.unwrap().certificate);
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
        let (_, _, first) = ns.issued(&name).await;
        within_a_second(&format!("{key} is repaired ({reason})"), async || {
            let old = text_of(&ns.edit(&name, key, &value).await, "tls.crt");
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
        let second = ns.settled(&name).await;
        assert_ne!(second.serial, first.serial);
        wait_for(&format!("an Event that says {reason}"), seconds(10), async || {
            let events = ns.events(&name).await;
            let said = events.iter().any(|(kind, _, message)| {
                kind == "Normal" && message.contains(reason) && message.contains(&second.serial)
            });
            if said { Ok(()) } else { Err(events) }
        })
        .await;
        let reissued = issued_for(reason).await;
        assert!(reissued >= 1.0, "countersign_issuances_total counts reason {reason}");
    }
}

#[tokio::test]
async fn a_changed_bundle_or_annotation_is_put_right_without_a_new_certificate() {
    // The policies would refuse to have our annotation changed.
    let ns = World::lenient().await.namespace("touched").await;
    ns.identity("planner", json!({})).await;
    let (_, secret, first) = ns.issued("planner").await;

    within_a_second("ca.crt is put right", async || {
        ns.edit("planner", "ca.crt", "something else").await;
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
    ns.patch_secret_of("planner", patch).await;
    wait_for("the annotation is right", seconds(10), async || {
        let now = ns.secret_of("planner").await.annotations()["countersign.dev/spiffe-id"].clone();
        if now == ns.spiffe_id("planner") { Ok(()) } else { Err(now) }
    })
    .await;
    assert_eq!(ns.settled("planner").await.serial, first.serial, "nothing was issued");
}

#[tokio::test]
async fn a_stray_file_is_removed() {
    let ns = World::shared().await.namespace("stray").await;
    ns.identity("planner", json!({})).await;
    ns.issued("planner").await;
    ns.edit("planner", "tls-combined.pem", "left by somebody").await;
    wait_for("only the files asked for are there", seconds(10), async || {
        let keys = keys(&ns.secret_of("planner").await);
        if keys == ["ca.crt", "tls.crt", "tls.key"] { Ok(()) } else { Err(keys) }
    })
    .await;
    ns.settled("planner").await;
}

#[tokio::test]
async fn a_changed_spec_gives_another_certificate_within_a_second() {
    let ns = World::shared().await.namespace("changed").await;
    ns.identity("planner", json!({})).await;
    let (_, _, mut last) = ns.issued("planner").await;
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
        let (_, _, leaf) = ns.issued("planner").await;
        let took = began.elapsed();
        assert_ne!(leaf.serial, last.serial, "{change} gives a new certificate");
        assert!(took < seconds(2), "{change} took {took:?}");
        last = leaf;
    }
    assert_eq!(last.dns_names, [dns_name].into());
    assert_eq!(last.uris, [ns.spiffe_id("other")]);

    let before = ns.operators_writes().len();
    ns.change_identity("planner", json!({"spec": {"role": "retrieval"}})).await;
    let (_, _, leaf) = ns.issued("planner").await;
    assert_eq!(leaf.serial, last.serial, "a role is not in the certificate");
    let mut counts = ns.operators_writes().after(before).counts();
    // What the roster says of it follows within a second, and may follow what was changed before.
    assert!(counts.remove("update agentrosters").is_none_or(|count| count <= 2));
    assert_eq!(counts, [("patch agentidentities/status".to_owned(), 1)].into());
}

#[tokio::test]
async fn a_new_secret_name_moves_the_certificate() {
    let ns = World::shared().await.namespace("moved").await;
    ns.identity("planner", json!({})).await;
    ns.issued("planner").await;
    ns.change_identity("planner", json!({"spec": {"delivery": {"secretName": "elsewhere"}}})).await;
    let identity = ns.ready("planner").await;
    assert_eq!(identity.status.unwrap().secret_name.as_deref(), Some("elsewhere"));
    Delivered::read(&ns.secret("elsewhere").await.unwrap()).judge(&ns.spiffe_id("planner"));
    gone("the old Secret", seconds(10), async || ns.secret("planner-identity").await).await;
}

#[tokio::test]
async fn a_secrets_template_is_honoured_and_kept_and_others_additions_stay() {
    let ns = World::shared().await.namespace("template").await;
    let template = json!({"labels": {"team": "research", "tier": "1"}, "annotations": {"example.com/note": "ours"}});
    ns.identity("planner", json!({"delivery": {"secretTemplate": template}})).await;
    let (_, secret, first) = ns.issued("planner").await;
    assert_eq!(secret.labels()["team"], "research");
    assert_eq!(secret.annotations()["example.com/note"], "ours");

    let patch = json!({"metadata": {
        "labels": {"team": "sales", "somebody": "else"},
        "annotations": {"example.com/note": null, "backup.example.com/keep": "yes"},
    }});
    ns.patch_secret_of("planner", patch).await;
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
    assert_eq!(ns.settled("planner").await.serial, first.serial, "nothing was issued");

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
    assert_eq!(ns.settled("planner").await.serial, first.serial, "nothing was issued");
}

/// How many certificates were issued for this reason.
async fn issued_for(reason: &str) -> f64 {
    let metrics = World::shared().await.operator.metrics().await;
    metrics.sum("countersign_issuances_total", &[("reason", reason), ("result", "issued")])
}
