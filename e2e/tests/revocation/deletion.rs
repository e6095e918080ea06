//! An AgentIdentity that is deleted: what was issued to it is on the CRL before it is gone, and
//! nothing holds it for ever.

use std::collections::BTreeSet;

use countersign::api::AgentIdentity;
use countersign_e2e::agents::text_of;
use countersign_e2e::crls::serials_of;
use countersign_e2e::install::api_of;
use countersign_e2e::{Delivered, Namespace, World, gone, holds_for, seconds, wait_for};
use k8s_openapi::api::core::v1::{Namespace as Room, Secret};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::TEST;

const FINALIZER: &str = "countersign.dev/revocation";

#[tokio::test]
async fn what_was_issued_to_it_is_revoked_before_it_is_gone() {
    let ns = World::shared().await.namespace("deleted").await;
    let created = ns.identity("planner", json!({})).await;
    assert_eq!(created.finalizers(), [FINALIZER], "it has the finalizer from its first moment");
    ns.identity("tools", json!({})).await;
    let first = ns.settled("planner").await;
    let other = ns.settled("tools").await;
    // It has had another certificate before.
    ns.delete(secret("planner-identity")).await;
    let second = wait_for("a second certificate", seconds(20), async || {
        let found = ns.secret("planner-identity").await.map(|secret| Delivered::read(&secret));
        let leaf = found.ok_or("there is none")?.judge(&ns.spiffe_id("planner"));
        if leaf.serial != first.serial { Ok(leaf) } else { Err("it is the first") }
    })
    .await;
    assert_eq!(ns.settled("planner").await.serial, second.serial);
    ns.rostered(2).await;
    let before = ns.operators_writes().len();

    delete(&ns, "planner").await;
    is_gone(&ns, "planner").await;
    let crls = ns.crls(TEST).await;
    let serials = BTreeSet::from([first.serial, second.serial]);
    assert!(serials.is_subset(&serials_of(&crls)), "{serials:?} of {crls:?}");
    assert!(!serials_of(&crls).contains(&other.serial));
    for crl in crls.values() {
        for (serial, (_, reason)) in &crl.entries {
            assert!(!serials.contains(serial) || *reason == 5, "cessationOfOperation: {crl:?}");
        }
    }
    gone("its Secret", seconds(30), async || ns.secret("planner-identity").await).await;
    ns.rostered(1).await;
    let mut counts = ns.operators_writes().after(before).counts();
    // The roster follows within a second: once to say that it is revoked, once without it.
    assert!(counts.remove("update agentrosters").is_some_and(|count| count <= 2));
    let expected = [("patch agentidentities", 1), ("update configmaps", 1)];
    assert_eq!(counts, expected.map(|(kind, count)| (kind.to_owned(), count)).into());
    for event in ["SigningStopped", "CertificatesRevoked"] {
        ns.event("planner", "Normal", event).await;
    }

    // One of the same name is another, and is not revoked.
    ns.identity("planner", json!({})).await;
    let again = ns.settled("planner").await;
    holds_for("it is not on the CRL", seconds(2), async || {
        let found = serials_of(&ns.crls(TEST).await);
        let right = !found.contains(&again.serial) && serials.is_subset(&found);
        if right { Ok(()) } else { Err(found) }
    })
    .await;
}

#[tokio::test]
async fn an_orphan_lives_on_unless_it_is_revoked() {
    let ns = World::shared().await.namespace("orphaned").await;
    let spec = json!({"delivery": {"deletionPolicy": "Orphan"}});
    for name in ["planner", "tools"] {
        ns.identity(name, spec.clone()).await;
    }
    let (kept, revoked) = (ns.settled("planner").await, ns.settled("tools").await);
    let secret = ns.secret_of("planner").await;
    delete(&ns, "planner").await;
    is_gone(&ns, "planner").await;
    // One that is deleted in the moment after it was revoked.
    ns.change_identity("tools", json!({"spec": {"revoked": {"reason": "KeyCompromise"}}})).await;
    delete(&ns, "tools").await;
    is_gone(&ns, "tools").await;
    let crls = ns.on_crl(TEST, &[revoked.serial.clone()].into()).await;
    assert!(!serials_of(&crls).contains(&kept.serial));
    let issuing = crls.values().find(|crl| crl.entries.contains_key(&revoked.serial)).unwrap();
    assert_eq!(issuing.entries[&revoked.serial].1, 1, "keyCompromise");
    assert_eq!(text_of(&ns.secret_of("tools").await, "tls.key"), "", "the key is out");
    assert_eq!(ns.secret_of("planner").await, secret, "nothing of it has changed");
}

#[tokio::test]
async fn nothing_holds_it_for_ever() {
    let world = World::start().await;
    let ns = world.namespace("let-go").await;
    let here = json!({"matchLabels": {"kubernetes.io/metadata.name": ns.name}});
    let spec = |domain: &str, authority| json!({"domain": domain, "authority": authority, "bundle": {"namespaceSelector": here}});
    // A trust domain that is not there, one that never had a CA, and one that is gone since.
    ns.trust_domain("empty", spec("empty.test", json!({"secret": {"name": "nothing"}}))).await;
    ns.trust_domain("gone", spec("gone.test", json!({"selfSigned": {}}))).await;
    for name in ["nowhere", "empty", "gone"] {
        ns.identity(name, json!({"trustDomain": name})).await;
    }
    ns.not_ready("nowhere", "TrustDomainNotFound").await;
    ns.not_ready("empty", "AuthorityNotReady").await;
    ns.ready("gone").await;
    let domain = json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "TrustDomain", "metadata": {"name": "gone"},
    });
    let domains = api_of(&ns.client, &domain);
    let orphan = kube::api::Patch::Merge(json!({"spec": {"deletionPolicy": "Orphan"}}));
    domains.patch("gone", &Default::default(), &orphan).await.unwrap();
    domains.delete("gone", &Default::default()).await.unwrap();
    gone("the TrustDomain", seconds(30), async || domains.get_opt("gone").await.unwrap()).await;
    ns.not_ready("gone", "TrustDomainNotFound").await;
    for name in ["nowhere", "empty", "gone"] {
        delete(&ns, name).await;
        is_gone(&ns, name).await;
    }

    ns.identity("planner", json!({})).await;
    let planner = ns.settled("planner").await;
    // A namespace is gone as soon as it would be without us, and what was in it is revoked.
    let doomed = world.namespace("doomed").await;
    let mut serials = BTreeSet::from([planner.serial]);
    for name in ["one", "two"] {
        doomed.identity(name, json!({})).await;
        serials.insert(doomed.settled(name).await.serial);
    }
    let rooms: Api<Room> = Api::all(ns.client.clone());
    rooms.delete(&doomed.name, &Default::default()).await.unwrap();
    delete(&ns, "planner").await;
    is_gone(&ns, "planner").await;
    gone("the namespace", seconds(60), async || {
        rooms.get_opt(&doomed.name).await.unwrap().map(|room| room.status)
    })
    .await;
    ns.on_crl(TEST, &serials).await;
}

#[tokio::test]
async fn without_the_admission_policy_the_operator_puts_the_finalizer_on_before_it_signs() {
    let world = World::start().await;
    let ns = world.namespace("unmarked").await;
    ns.bundle(TEST).await;
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": "countersign-finalizer"},
    });
    let bindings = api_of(&ns.client, &binding);
    bindings.delete("countersign-finalizer", &Default::default()).await.unwrap();
    let object = ns.identity_object("probe", json!({}));
    let probe: AgentIdentity = serde_json::from_value(object).unwrap();
    wait_for("the API server does without the policy", seconds(30), async || {
        let dry_run = PostParams { dry_run: true, ..PostParams::default() };
        let made = ns.identities().create(&dry_run, &probe).await.unwrap();
        if made.finalizers().is_empty() { Ok(()) } else { Err(made.finalizers().to_vec()) }
    })
    .await;
    let before = ns.operators_writes().len();
    ns.identity("planner", json!({})).await;
    let leaf = ns.settled("planner").await;
    ns.rostered(1).await;
    let writes = ns.operators_writes().after(before);
    let writes = writes.filter(|request| request.resource != "agentrosters");
    let kinds: Vec<String> = writes.0.iter().map(|request| request.kind()).collect();
    let expected = ["patch agentidentities", "create secrets", "patch agentidentities/status"];
    assert_eq!(kinds, expected);
    // Taken off by hand it comes back with the next look, and the identity is revoked all the same.
    ns.change_identity("planner", json!({"metadata": {"finalizers": null}})).await;
    wait_for("the finalizer is back", seconds(20), async || {
        let identity = ns.identities().get("planner").await.map_err(|error| error.to_string())?;
        let is_back = identity.finalizers() == [FINALIZER];
        if is_back { Ok(()) } else { Err("it has none".to_owned()) }
    })
    .await;
    delete(&ns, "planner").await;
    is_gone(&ns, "planner").await;
    assert!(serials_of(&ns.crls(TEST).await).contains(&leaf.serial));
}

async fn delete(ns: &Namespace, name: &str) {
    ns.identities().delete(name, &DeleteParams::default()).await.expect("it is deleted");
}

/// Well within what a deletion waits for at most.
async fn is_gone(ns: &Namespace, name: &str) {
    let look = async || ns.identities().get_opt(name).await.expect("the API server answers");
    gone(&format!("AgentIdentity {name}"), seconds(20), look).await;
}

fn secret(name: &str) -> serde_json::Value {
    let kind = <Secret as kube::Resource>::kind(&());
    json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}})
}
