//! `vault` in `Leaf` mode: OpenBao signs every certificate.

use std::collections::BTreeSet;

use countersign::api::AgentIdentity;
use countersign_e2e::corporate::{hand_over, secret_of};
use countersign_e2e::crls::serials_of;
use countersign_e2e::lives::Lives;
use countersign_e2e::vault::Vault;
use countersign_e2e::{
    ApiServer, Chronicle, Delivered, Namespace, Operator, Options, User, World, seconds, wait_for,
};
use http::Method;
use serde_json::{Value, json};

use super::vault::{shared, touch};
use super::{
    LAG, ROOT_ROTATION, begun, judge_root_rotation, judge_with_openssl, ready, settled, spec,
};

/// A TrustDomain of this name whose leaves Vault signs, in a mount of this name.
async fn trust_domain(vault: &Vault, ns: &Namespace, name: &str) {
    let authority = vault.leaf_authority(ns, name).await;
    ns.trust_domain(name, spec(ns, name, json!({"vault": authority}))).await;
}

#[tokio::test]
async fn vault_signs_each_leaf_through_a_rotation_and_revokes_what_is_revoked() {
    let ns = World::shared().await.namespace("vault-leaf").await;
    let vault = shared().await;
    trust_domain(vault, &ns, "vault-leaf").await;
    let dns = format!("planner.{}.svc", ns.name);
    ns.identity("planner", json!({"trustDomain": "vault-leaf", "dnsNames": [dns]})).await;
    ns.identity("tools", json!({"trustDomain": "vault-leaf"})).await;
    let chronicle = Chronicle::of(&ns.client, "vault-leaf", "vault-leaf.test").await;
    settled(&chronicle, ROOT_ROTATION[0], 2).await;
    ns.ready("tools").await;
    let first = ns.settled("planner").await;
    judge(&ns).await;

    // A new root there: the old issuer signs until the new one is trusted everywhere.
    vault.new_root("vault-leaf").await;
    touch(&ns, vault, "vault-leaf").await;
    judge_root_rotation(&chronicle).await;
    let second = judge(&ns).await;
    let other = ns.settled("tools").await.serial;

    // Both that planner had and that live are on the CRLs of the CAs that signed them.
    let revoked = json!({"spec": {"revoked": {"reason": "KeyCompromise"}}});
    ns.change_identity("planner", revoked).await;
    ns.condition("planner", "Revoked", "True", Some("Revoked")).await;
    let wanted = BTreeSet::from([first.serial, second]);
    let crls = ns.on_crl("vault-leaf", &wanted).await;
    assert_eq!(crls.len(), 2, "one of each issuer");
    assert!(!serials_of(&crls).contains(&other), "nothing else is revoked");
}

/// Judges planner's files, and gives the serial number.
async fn judge(ns: &Namespace) -> String {
    let held = ns.secret_of("planner").await;
    let id = format!("spiffe://vault-leaf.test/ns/{}/sa/planner", ns.name);
    let leaf = Delivered::read(&held).judge_under(&id, 1);
    assert_eq!(leaf.dns_names, BTreeSet::from([format!("planner.{}.svc", ns.name)]));
    judge_with_openssl("vault-leaf", &held);
    leaf.serial
}

#[tokio::test]
async fn what_vault_does_not_sign_is_said_and_touches_no_certificate() {
    let ns = World::shared().await.namespace("vault-unsigned").await;
    let vault = shared().await;
    trust_domain(vault, &ns, "vault-unsigned").await;
    ns.identity("planner", json!({"trustDomain": "vault-unsigned"})).await;
    ready(&ns.client, "vault-unsigned", "True", "Active").await;
    ns.ready("planner").await;
    let before = ns.secret_of("planner").await.data;

    // One identity that asks for what the role forbids is alone with it.
    let change = async |but: Value| {
        vault.role_but("vault-unsigned", "agents", "vault-unsigned.test", but).await;
    };
    change(json!({"allow_any_name": false})).await;
    let dns = format!("tools.{}.svc", ns.name);
    ns.identity("tools", json!({"trustDomain": "vault-unsigned", "dnsNames": [dns]})).await;
    let message = ns.not_ready("tools", "SigningFailed").await;
    assert!(message.contains("see that the role allows it"), "{message}");
    ns.identity("executor", json!({"trustDomain": "vault-unsigned"})).await;
    ns.ready("executor").await;
    ready(&ns.client, "vault-unsigned", "True", "Active").await;

    // A role whose certificates no agent could use.
    change(json!({"key_usage": ["DigitalSignature", "KeyEncipherment"]})).await;
    ns.identity("retriever", json!({"trustDomain": "vault-unsigned"})).await;
    let message = ns.not_ready("retriever", "SigningFailed").await;
    assert!(message.contains("give its role agents key_usage=DigitalSignature"), "{message}");

    // Without the role nobody gets one, and the trust domain says so.
    vault.ask(Method::DELETE, "vault-unsigned/roles/agents", Value::Null).await;
    ns.identity("writer", json!({"trustDomain": "vault-unsigned"})).await;
    let message = ready(&ns.client, "vault-unsigned", "False", "AuthorityDenied").await;
    assert!(message.contains("unknown role"), "{message}");
    assert!(
        message.contains("Nothing is signed until then; the certificates of 2 agents"),
        "{message}"
    );
    assert_eq!(ns.secret_of("planner").await.data, before);
    change(json!({})).await;
    for name in ["tools", "retriever", "writer"] {
        ns.ready(name).await;
    }
    ready(&ns.client, "vault-unsigned", "True", "Active").await;
}

/// Sees that an agent's last Secret, which brought it a leaf of the new root, was written after a
/// status that counts that leaf: since the Secret before it there was one.
async fn is_announced(server: &ApiServer, ns: &Namespace, agent: &str) {
    let secret = format!("{agent}-identity");
    wait_for(&format!("the new leaf of {agent} was announced"), seconds(20), async || {
        let writes = server.requests_by(User::Operator).within(&ns.name).writes();
        let writes = writes.filter(|write| {
            write.code < 300
                && (write.resource == "secrets" && write.name == secret
                    || write.kind() == "patch agentidentities/status" && write.name == agent)
        });
        let kinds: Vec<&str> = writes.0.iter().map(|write| write.resource.as_str()).collect();
        let last = kinds.iter().rposition(|kind| *kind == "secrets").unwrap_or_default();
        match kinds[..last].last() {
            Some(&"agentidentities") => Ok(()),
            other => Err(format!("{other:?} before the last Secret: {kinds:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn an_operator_that_is_killed_at_every_write_counts_each_certificate_that_got_out() {
    let World { operator, server } = World::start().await;
    let ns = Namespace::create(&server, "vault-killed").await;
    let vault = shared().await;
    trust_domain(vault, &ns, "vault-killed").await;
    let chronicle = begun(&ns, "vault-killed").await;
    ns.ready("planner").await;
    ns.ready("tools").await;
    operator.kill();

    vault.new_root("vault-killed").await;
    let secret_id = vault.secret_id("vault-killed").await;
    hand_over(&ns.client, &secret_of("vault-killed", json!({"secretId": secret_id}))).await;
    // Killed after its first write each time, none would get further than to announce.
    let mut lives = Lives { writes: 3, ..Lives::of(&server, &chronicle) };
    let writes = lives
        .until(0, |history| {
            history.phases_now() == ROOT_ROTATION[2] && history.is_settled(2).is_ok()
        })
        .await;
    println!("killed after each of these writes: {writes:#?}");
    for agent in ["planner", "tools"] {
        is_announced(&server, &ns, agent).await;
    }
    let history = chronicle.history();
    assert_eq!(history.phases(), ROOT_ROTATION);
    history.judge_slots();
    println!("{:?}, {} lives", history.judge_trust(LAG), lives.count);
    let _operator = Operator::start_leading(&server, Options::replica("last")).await;
    for name in ["planner", "tools"] {
        ns.ready(name).await;
        let serial = ns.settled(name).await.serial;
        let identity: AgentIdentity = ns.api().get(name).await.expect("it is there");
        let status = identity.status.expect("it has a status");
        assert_eq!(status.certificate.map(|current| current.serial_number), Some(serial));
        assert!(!status.former.is_empty(), "what it had before lives, and is counted");
    }
}
