//! A TrustDomain that is deleted: held while identities belong to it, and gone whole when it goes.

use std::time::Instant;

use countersign::api::TrustDomain;
use countersign_e2e::users::OPERATOR_NAMESPACE;
use countersign_e2e::{
    Delivered, Namespace, User, World, another_second, gone, now, seconds, wait_for,
};
use k8s_openapi::api::certificates::v1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Secret};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::{change, condition, spec};

fn domains(client: &Client) -> Api<TrustDomain> {
    Api::all(client.clone())
}

/// Every object that a TrustDomain has made for itself, by name.
async fn parts(ns: &Namespace, name: &str) -> Vec<String> {
    let list = ListParams::default().labels(&format!("countersign.dev/trust-domain={name}"));
    let secrets: Api<Secret> = Api::namespaced(ns.client.clone(), OPERATOR_NAMESPACE);
    let maps: Api<ConfigMap> = Api::all(ns.client.clone());
    let bundles: Api<ClusterTrustBundle> = Api::all(ns.client.clone());
    let mut names = Vec::new();
    names.extend(secrets.list(&list).await.unwrap().iter().map(ResourceExt::name_any));
    names.extend(maps.list(&list).await.unwrap().iter().map(ResourceExt::name_any));
    names.extend(bundles.list(&list).await.unwrap().iter().map(ResourceExt::name_any));
    // A CRL's ends with the key id of its CA.
    let crl = format!("countersign-crl-{name}");
    for name in &mut names {
        if name.starts_with(&crl) {
            name.truncate(crl.len());
        }
    }
    names.sort();
    names
}

async fn is_gone(ns: &Namespace, name: &str) {
    let look = async || domains(&ns.client).get_opt(name).await.unwrap().map(|found| found.status);
    gone(&format!("TrustDomain {name}"), seconds(30), look).await;
    assert_eq!(parts(ns, name).await, [""; 0], "it goes when nothing of it is left");
}

#[tokio::test]
async fn one_with_identities_is_held_and_serves_them_until_they_are_gone() {
    let ns = World::shared().await.namespace("held").await;
    ns.trust_domain("held", spec(&ns, "held")).await;
    for name in ["planner", "tools"] {
        ns.identity(name, json!({"trustDomain": "held"})).await;
        ns.ready(name).await;
    }
    let whole = [
        "countersign-ca-held-issuing-1",
        "countersign-ca-held-root-1",
        "countersign-crl-held",
        "countersign-crl-held",
        "countersign-trust-held",
        "countersign.dev:agent:held",
    ];
    assert_eq!(parts(&ns, "held").await, whole);

    // The garbage collector would take all that it owns at once, whatever finalizers there are.
    domains(&ns.client).delete("held", &DeleteParams::foreground()).await.unwrap();
    let reason = "IdentitiesRemain";
    let message = condition(&ns.client, "held", "Deleting", "True", reason).await;
    let (first, second) = (format!("{}/planner", ns.name), format!("{}/tools", ns.name));
    for part in ["2 of its identities", &first, &second, "deletionPolicy: Orphan"] {
        assert!(message.contains(part), "{part:?} in {message}");
    }
    let events: Api<Event> = Api::namespaced(ns.client.clone(), "default");
    wait_for("a Warning Event tells of it", seconds(20), async || {
        let events = events.list(&Default::default()).await.unwrap().items;
        let about = |event: &&Event| event.involved_object.name.as_deref() == Some("held");
        let reasons: Vec<_> = events.iter().filter(about).map(|event| &event.reason).collect();
        if reasons.contains(&&Some(reason.to_owned())) {
            Ok(())
        } else {
            Err(format!("{reasons:?}"))
        }
    })
    .await;
    let before = Delivered::read(&ns.secret_of("planner").await);
    ns.delete(json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "planner-identity"},
    }))
    .await;
    let after = wait_for("it is served as ever", seconds(20), async || {
        let secret = ns.secret("planner-identity").await.ok_or("no Secret")?;
        Ok::<_, &str>(Delivered::read(&secret))
    })
    .await;
    assert_ne!(after.leaf().serial, before.leaf().serial);
    after.judge(&format!("spiffe://held.test/ns/{}/sa/planner", ns.name));
    wait_for("nothing is missing", seconds(20), async || {
        let parts = parts(&ns, "held").await;
        if parts == whole { Ok(()) } else { Err(parts) }
    })
    .await;
    ns.ready("planner").await;
    let writes = || {
        let mine = ns.server.requests_by(User::Operator).writes();
        mine.filter(|request| request.name.contains("held") || request.namespace == ns.name)
    };
    let mut seen = (0, Instant::now());
    wait_for("it comes to rest, and is held without a write", seconds(30), async || {
        let writes = writes();
        if writes.len() != seen.0 {
            seen = (writes.len(), Instant::now());
        }
        if seen.1.elapsed() > seconds(3) { Ok(()) } else { Err(writes.counts()) }
    })
    .await;
    assert!(domains(&ns.client).get_opt("held").await.unwrap().is_some(), "it is held");

    ns.identities().delete("planner", &Default::default()).await.unwrap();
    wait_for("one is named", seconds(20), async || {
        let message = condition(&ns.client, "held", "Deleting", "True", reason).await;
        let right = message.contains("1 of its identities") && !message.contains(&first);
        if right { Ok(()) } else { Err(message) }
    })
    .await;
    ns.identities().delete("tools", &Default::default()).await.unwrap();
    is_gone(&ns, "held").await;
}

#[tokio::test]
async fn one_whose_identities_are_to_be_left_behind_goes_and_they_say_so() {
    let ns = World::shared().await.namespace("orphans").await;
    ns.trust_domain("orphans", spec(&ns, "orphans")).await;
    ns.identity("planner", json!({"trustDomain": "orphans"})).await;
    ns.ready("planner").await;
    let secret = ns.secret_of("planner").await;
    domains(&ns.client).delete("orphans", &Default::default()).await.unwrap();
    condition(&ns.client, "orphans", "Deleting", "True", "IdentitiesRemain").await;
    change(&ns.client, "orphans", json!({"spec": {"deletionPolicy": "Orphan"}})).await;
    is_gone(&ns, "orphans").await;
    let message = ns.not_ready("planner", "TrustDomainNotFound").await;
    assert!(message.contains("orphans"), "{message}");
    assert_eq!(ns.secret_of("planner").await, secret, "it keeps the certificate that it has");

    // Nothing of the former is taken up by one of the same name.
    ns.trust_domain("orphans", spec(&ns, "orphans")).await;
    ns.ready("planner").await;
    let new = Delivered::read(&ns.secret_of("planner").await);
    assert_ne!(new.bundle, Delivered::read(&secret).bundle);
    new.judge(&format!("spiffe://orphans.test/ns/{}/sa/planner", ns.name));
}

#[tokio::test]
async fn one_without_identities_goes_at_once_even_if_its_spec_cannot_be_used() {
    let ns = World::shared().await.namespace("alone").await;
    ns.trust_domain("alone", spec(&ns, "alone")).await;
    condition(&ns.client, "alone", "Ready", "True", "Active").await;
    domains(&ns.client).delete("alone", &Default::default()).await.unwrap();
    is_gone(&ns, "alone").await;

    // A second of one domain signs nothing, and need not be waited for.
    ns.trust_domain("first-of-two", spec(&ns, "two")).await;
    condition(&ns.client, "first-of-two", "Ready", "True", "Active").await;
    another_second(now()).await;
    ns.trust_domain("second-of-two", spec(&ns, "two")).await;
    condition(&ns.client, "second-of-two", "Ready", "False", "DuplicateDomain").await;
    for name in ["second-of-two", "first-of-two"] {
        domains(&ns.client).delete(name, &Default::default()).await.unwrap();
        is_gone(&ns, name).await;
    }
}
