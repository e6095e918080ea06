//! `vault` with OpenBao: what both modes have in common, and `Intermediate`.

use std::process::Command;

use countersign_e2e::agents::text_of;
use countersign_e2e::corporate::{hand_over, secret_of};
use countersign_e2e::judges::run;
use countersign_e2e::mount::{files_of, write};
use countersign_e2e::vault::Vault;
use countersign_e2e::{Chronicle, Delivered, Namespace, World, workspace};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::{LAG, ROOT_ROTATION, ready, settled, spec};

/// What the operator's token may do in `Intermediate` mode, as docs/authorities.md says.
pub const POLICY: &str = r#"
path "MOUNT/issuer/+/json" { capabilities = ["read"] }
path "MOUNT/issuer/+/sign-intermediate" { capabilities = ["update"] }
"#;

/// The one that the tests of this binary share, except those that stop it.
pub async fn shared() -> &'static Vault {
    static SHARED: OnceCell<Vault> = OnceCell::const_new();
    SHARED.get_or_init(Vault::start).await
}

/// An AppRole of this name that may do what a policy says of the mount of the same name, its secret
/// id in a Secret, and `spec.authority` of a TrustDomain that uses them.
pub async fn authority(vault: &Vault, ns: &Namespace, name: &str, policy: &str) -> Value {
    vault.policy(name, &policy.replace("MOUNT", name)).await;
    let role = vault.app_role(name, "5m").await;
    hand_over(&ns.client, &secret_of(name, json!({"secretId": role.secret_id}))).await;
    json!({
        "server": vault.address,
        "caBundle": vault.ca.certificate,
        "mount": name,
        "auth": {"appRole": {"roleId": role.role_id, "secretIdRef": {"name": name}}},
    })
}

#[tokio::test]
async fn vault_signs_the_issuing_ca_and_a_new_root_there_is_a_rotation_with_overlap() {
    let ns = World::shared().await.namespace("vault-ca").await;
    let vault = shared().await;
    let root = vault.pki("vault-ca").await;
    let authority = authority(vault, &ns, "vault-ca", POLICY).await;
    ns.trust_domain("vault-ca", spec(&ns, "vault-ca", json!({"vault": authority}))).await;
    for name in ["planner", "tools"] {
        ns.identity(name, json!({"trustDomain": "vault-ca"})).await;
    }
    let chronicle = Chronicle::of(&ns.client, "vault-ca", "vault-ca.test").await;
    settled(&chronicle, ROOT_ROTATION[0], 2).await;
    ns.ready("planner").await;
    let held = ns.secret_of("planner").await;
    let id = format!("spiffe://vault-ca.test/ns/{}/sa/planner", ns.name);
    Delivered::read(&held).judge_under(&id, 1);
    assert_eq!(text_of(&held, "ca.crt").trim(), root.trim());
    let folder = workspace::scratch("vault-ca");
    write(&folder, &files_of(&held));
    let file = |name: &str| folder.join(name).display().to_string();
    let mut verify = Command::new("openssl");
    verify.args(["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile"]);
    verify.args([&file("ca.crt"), "-untrusted", &file("tls.crt"), &file("tls.crt")]);
    run(&mut verify, "");
    ready(&ns.client, "vault-ca", "True", "Active").await;

    // Another root there. It is asked for now and then; a touched Secret has it asked at once.
    vault.new_root("vault-ca").await;
    touch(&ns, vault, "vault-ca").await;
    settled(&chronicle, ROOT_ROTATION[2], 2).await;
    let history = chronicle.history();
    assert_eq!(history.phases(), ROOT_ROTATION);
    history.judge_slots();
    let tally = history.judge_trust(LAG);
    assert_eq!((tally.leaves, tally.bundles, tally.pairs), (4, 2, 2 * 2 + 2), "{tally:?}");
}

/// Puts another secret id into the Secret: what reads it is looked at.
pub async fn touch(ns: &Namespace, vault: &Vault, name: &str) {
    let secret_id = vault.secret_id(name).await;
    hand_over(&ns.client, &secret_of(name, json!({"secretId": secret_id}))).await;
}
