//! `vault` with OpenBao: what both modes have in common, and `Intermediate`.

use countersign_e2e::agents::text_of;
use countersign_e2e::corporate::{hand_over, secret_of};
use countersign_e2e::vault::{INTERMEDIATE_POLICY, Vault};
use countersign_e2e::{Delivered, Namespace, World};
use serde_json::json;
use tokio::sync::OnceCell;

use super::{begun, judge_root_rotation, judge_with_openssl, ready, spec};

/// The one that the tests of this binary share, except those that stop it.
pub async fn shared() -> &'static Vault {
    static SHARED: OnceCell<Vault> = OnceCell::const_new();
    SHARED.get_or_init(Vault::start).await
}

#[tokio::test]
async fn vault_signs_the_issuing_ca_and_a_new_root_there_is_a_rotation_with_overlap() {
    let ns = World::shared().await.namespace("vault-ca").await;
    let vault = shared().await;
    let root = vault.pki("vault-ca").await;
    let authority = vault.authority(&ns, "vault-ca", INTERMEDIATE_POLICY).await;
    ns.trust_domain("vault-ca", spec(&ns, "vault-ca", json!({"vault": authority}))).await;
    let chronicle = begun(&ns, "vault-ca").await;
    ns.ready("planner").await;
    let held = ns.secret_of("planner").await;
    let id = format!("spiffe://vault-ca.test/ns/{}/sa/planner", ns.name);
    Delivered::read(&held).judge_under(&id, 1);
    assert_eq!(text_of(&held, "ca.crt").trim(), root.trim());
    judge_with_openssl("vault-ca", &held);
    ready(&ns.client, "vault-ca", "True", "Active").await;

    // Another root there. It is asked for now and then; a touched Secret has it asked at once.
    vault.new_root("vault-ca").await;
    touch(&ns, vault, "vault-ca").await;
    judge_root_rotation(&chronicle).await;
}

/// Puts another secret id into the Secret: what reads it is looked at.
pub async fn touch(ns: &Namespace, vault: &Vault, name: &str) {
    let secret_id = vault.secret_id(name).await;
    hand_over(&ns.client, &secret_of(name, json!({"secretId": secret_id}))).await;
}
