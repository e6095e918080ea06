//! An identity that is revoked is cut off, in order, and stays cut off; nothing else is.

mod deletion;
mod held;
mod http;
mod ledger;
mod mass;
mod times;

use std::collections::BTreeSet;

use countersign::api::{AgentIdentity, AgentIdentityStatus};
use countersign_e2e::agents::{condition_of, text_of};
use countersign_e2e::crls::{self, serials_of};
use countersign_e2e::secrets::keys;
use countersign_e2e::{Namespace, World, holds_for, seconds, wait_for, workspace};
use kube::ResourceExt;
use serde_json::{Value, json};

const TEST: &str = countersign_e2e::world::TRUST_DOMAIN;

#[tokio::test]
async fn an_identity_is_revoked_in_order_and_comes_back_with_another_key() {
    // A world of its own: every write is counted, and others revoke in the shared TrustDomain.
    let world = World::start().await;
    let ns = world.namespace("revoked").await;
    ns.pod("planner-0", "planner", json!({})).await;
    for name in ["planner", "tools"] {
        ns.identity(name, json!({})).await;
    }
    let leaf = ns.settled("planner").await;
    let other = ns.settled("tools").await;
    ns.condition("planner", "PodsLabelled", "True", Some("AllLabelled")).await;
    let before = ns.crls(TEST).await;
    assert_eq!(before.len(), 2, "one of the root, one of the issuing CA");
    ns.rostered(2).await;
    let writes = ns.operators_writes().len();

    let revoked = json!({"reason": "KeyCompromise", "message": "found in a log"});
    ns.change_identity("planner", json!({"spec": {"revoked": revoked}})).await;
    let identity = ns.condition("planner", "Revoked", "True", Some("Revoked")).await;
    ns.not_ready("planner", "Revoked").await;

    // The CRL has it, and none of the other.
    let serials = BTreeSet::from([leaf.serial.clone()]);
    let crls = ns.on_crl(TEST, &serials).await;
    assert!(!serials_of(&crls).contains(&other.serial));
    let issuing = crls.values().find(|crl| crl.entries.contains_key(&leaf.serial)).unwrap();
    assert_eq!(issuing.entries[&leaf.serial].1, 1, "keyCompromise");
    assert!(issuing.number > before[&issuing.key_id].number);
    assert!(issuing.this_update > before[&issuing.key_id].this_update);

    // The Secret has no key, and still says whom to trust.
    let secret = ns.secret_of("planner").await;
    assert_eq!(keys(&secret), ["ca.crt", "tls.crt", "tls.key"]);
    assert_eq!((text_of(&secret, "tls.crt"), text_of(&secret, "tls.key")), <_>::default());
    assert!(text_of(&secret, "ca.crt").contains("BEGIN CERTIFICATE"));
    assert!(!secret.annotations().contains_key("countersign.dev/serial"));

    // The status says which and since when; the pod says it too.
    let status = status_of(&identity);
    let said = status.revoked.as_ref().expect("it says what is revoked");
    assert_eq!(said.serial_numbers, std::slice::from_ref(&leaf.serial));
    assert_eq!((status.certificate.as_ref(), status.revision), (None, Some(1)));
    let message = &condition_of(&identity, "Revoked").unwrap().message;
    assert!(message.contains("found in a log") && message.contains("spec.revoked"), "{message}");
    pod_says(&ns, "planner-0", "revoked").await;

    // One write each, and none to spare. The roster follows within a second.
    let mut counts = ns.operators_writes().after(writes).counts();
    assert!(counts.remove("update agentrosters").is_none_or(|count| count == 1));
    let expected = [
        ("patch agentidentities/status", 1),
        ("patch pods", 1),
        ("patch secrets", 1),
        ("update configmaps", 1),
    ];
    let expected = expected.map(|(kind, count)| (kind.to_owned(), count)).into();
    assert_eq!(counts, expected);
    for event in ["SigningStopped", "PodsRevoked", "CertificatesRevoked", "KeyRemoved", "Revoked"] {
        ns.event("planner", "Normal", event).await;
    }
    let log = world.operator.log();
    let key = format!("{}/planner", ns.name);
    let steps: Vec<&str> = log
        .lines()
        .filter(|line| line.contains(" audit: ") && line.contains(&key))
        .filter_map(|line| line.split("step=\"").nth(1)?.split('"').next())
        .collect();
    let order =
        ["signing-stopped", "pods-labelled", "crl-published", "key-removed", "status-written"];
    assert_eq!(steps, order);

    // Others judge it.
    let folder = workspace::scratch("revoked");
    let (chain, bundle) = (old_chain(&ns, "tools").await, text_of(&secret, "ca.crt"));
    let pem = ns.crl_pem(TEST).await;
    crls::judge(&folder, &pem);
    assert_eq!(crls::openssl_refuses(&folder, &chain, &bundle, &pem), None);

    // Undone: another key and certificate, and the old serial number stays where it is.
    ns.change_identity("planner", json!({"spec": {"revoked": null}})).await;
    let (identity, _, again) = ns.issued("planner").await;
    assert_ne!(again.serial, leaf.serial);
    assert_eq!(status_of(&identity).revoked, None);
    assert_eq!(condition_of(&identity, "Revoked"), None);
    pod_says(&ns, "planner-0", "active").await;
    holds_for("what was revoked stays so", seconds(2), async || {
        let found = serials_of(&ns.crls(TEST).await);
        let right = found.contains(&leaf.serial) && !found.contains(&again.serial);
        if right { Ok(()) } else { Err(found) }
    })
    .await;
    let chain = old_chain(&ns, "planner").await;
    let pem = ns.crl_pem(TEST).await;
    assert_eq!(crls::openssl_refuses(&folder, &chain, &bundle, &pem), None);
}

#[tokio::test]
async fn a_single_certificate_is_revoked_and_another_is_there_at_once() {
    let ns = World::shared().await.namespace("single").await;
    for name in ["planner", "victim"] {
        ns.identity(name, json!({})).await;
    }
    let leaf = ns.settled("planner").await;
    let victim = ns.settled("victim").await;
    let chain = old_chain(&ns, "planner").await;
    let folder = workspace::scratch("single");
    let bundle = text_of(&ns.secret_of("planner").await, "ca.crt");
    let before = ns.crl_pem(TEST).await;
    assert_eq!(crls::openssl_refuses(&folder, &chain, &bundle, &before), None);

    // Whoever may write one identity cannot revoke another's certificate.
    let certificates = json!([{"serialNumber": leaf.serial}, {"serialNumber": victim.serial}]);
    ns.change_identity("planner", json!({"spec": {"revokedCertificates": certificates}})).await;
    let again = wait_for("another certificate", seconds(20), async || {
        let now = ns.settled("planner").await;
        if now.serial != leaf.serial { Ok(now) } else { Err(now.serial) }
    })
    .await;
    let crls = ns.on_crl(TEST, &[leaf.serial.clone()].into()).await;
    let found = serials_of(&crls);
    assert!(!found.contains(&again.serial) && !found.contains(&victim.serial), "{found:?}");
    let pem = ns.crl_pem(TEST).await;
    let said = crls::openssl_refuses(&folder, &chain, &bundle, &pem).expect("it is refused");
    assert!(said.contains("certificate revoked"), "{said}");
    let message = ns.event("planner", "Normal", "Renewed").await;
    assert!(message.contains("CertificateRevoked"), "{message}");
}

#[tokio::test]
async fn what_is_revoked_stays_so_whatever_is_deleted_or_edited_by_hand() {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::Api;
    let world = World::start().await;
    let ns = world.namespace("record").await;
    ns.identity("planner", json!({})).await;
    let leaf = ns.settled("planner").await;
    let serials = BTreeSet::from([leaf.serial.clone()]);
    ns.change_identity("planner", json!({"spec": {"revoked": {"reason": "Superseded"}}})).await;
    ns.condition("planner", "Revoked", "True", None).await;
    let before = ns.on_crl(TEST, &serials).await;
    let own: Api<ConfigMap> =
        Api::namespaced(ns.client.clone(), countersign_e2e::users::OPERATOR_NAMESPACE);
    let record = "countersign-revoked-test-0";
    let holds = async || {
        wait_for("the record is there again", seconds(20), async || {
            let found = own.get(record).await.map_err(|error| error.to_string())?;
            let text = found.data.and_then(|data| data.get("revoked").cloned()).unwrap_or_default();
            if text.contains(&leaf.serial) && !text.contains("rubbish") {
                Ok(())
            } else {
                Err(text)
            }
        })
        .await;
    };
    holds().await;

    own.delete(record, &Default::default()).await.unwrap();
    holds().await;
    let patch = |data: Value| kube::api::Patch::Merge(data);
    let rubbish = patch(json!({"data": {"revoked": "rubbish"}}));
    own.patch(record, &Default::default(), &rubbish).await.unwrap();
    holds().await;

    // A CRL that somebody edited, and all of them gone at once: signed anew, with higher numbers.
    for key_id in before.keys() {
        let name = format!("countersign-crl-test-{key_id}");
        let edit = patch(json!({"binaryData": {"crl.der": "AAAA"}}));
        own.patch(&name, &Default::default(), &edit).await.unwrap();
    }
    let after = wait_for("CRLs that were edited are signed anew", seconds(90), async || {
        let crls = ns.crls(TEST).await;
        let grew = crls.iter().all(|(ca, crl)| crl.number > before[ca].number);
        if grew && crls.len() == 2 { Ok(crls) } else { Err(format!("{crls:?}")) }
    })
    .await;
    assert!(serials.is_subset(&serials_of(&after)));
    for key_id in before.keys() {
        own.delete(&format!("countersign-crl-test-{key_id}"), &Default::default()).await.unwrap();
    }
    wait_for("CRLs that were deleted are signed anew", seconds(90), async || {
        let crls = ns.crls(TEST).await;
        let grew = crls.iter().all(|(ca, crl)| crl.number > after[ca].number);
        if grew && serials.is_subset(&serials_of(&crls)) {
            Ok(())
        } else {
            Err(format!("{crls:?}"))
        }
    })
    .await;
}

fn status_of(identity: &AgentIdentity) -> &AgentIdentityStatus {
    identity.status.as_ref().expect("it has a status")
}

async fn pod_says(ns: &Namespace, pod: &str, state: &str) {
    use k8s_openapi::api::core::v1::Pod;
    wait_for(&format!("{pod} says {state}"), seconds(20), async || {
        let pod: Pod = ns.api().get(pod).await.map_err(|error| error.to_string())?;
        let found = pod.labels().get("countersign.dev/state").cloned();
        if found.as_deref() == Some(state) { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

async fn old_chain(ns: &Namespace, identity: &str) -> String {
    text_of(&ns.secret_of(identity).await, "tls.crt")
}
