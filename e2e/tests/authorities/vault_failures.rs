//! Everything that Vault may not do, each with its own reason, and none of it at the cost of a
//! certificate that is there.

use countersign_e2e::corporate::{Ca, P256, Shape, hand_over, secret_of};
use countersign_e2e::vault::{INTERMEDIATE_POLICY, Vault};
use countersign_e2e::{World, holds_for, now, seconds, wait_for};
use http::Method;
use serde_json::{Value, json};

use super::vault::{shared, touch};
use super::{change, get, ready, spec};

#[tokio::test]
async fn each_thing_that_vault_refuses_has_a_reason_of_its_own_and_passes_when_it_is_put_right() {
    let ns = World::shared().await.namespace("vault-refusals").await;
    let vault = shared().await;
    let names = ["vault-denied", "vault-login", "vault-quota", "vault-tls", "vault-mount"];
    let mut specs = Vec::new();
    for name in names {
        vault.pki(name).await;
        let policy = match name {
            "vault-denied" => "path \"MOUNT/issuer/+/json\" { capabilities = [\"read\"] }",
            _ => INTERMEDIATE_POLICY,
        };
        specs.push(vault.authority(&ns, name, policy).await);
    }
    let revoked = json!({"secret_id": vault.secret_id("vault-login").await});
    let path = "auth/approle/role/vault-login/secret-id/destroy";
    vault.ask(Method::POST, path, revoked.clone()).await;
    let revoked = secret_of("vault-login", json!({"secretId": revoked["secret_id"]}));
    hand_over(&ns.client, &revoked).await;
    let quota = json!({"path": "vault-quota/", "rate": 0.1, "interval": "10s"});
    vault.ask(Method::POST, "sys/quotas/rate-limit/vault-quota", quota).await;
    specs[3]["caBundle"] = json!(Ca::root(Shape::of(P256)).certificate);
    specs[4]["mount"] = json!("no-such-mount");
    for (name, authority) in names.iter().zip(&specs) {
        ns.trust_domain(name, spec(&ns, name, json!({"vault": authority}))).await;
        ns.identity(name, json!({"trustDomain": name})).await;
    }
    let rows = [
        ("AuthorityDenied", "allows `update` on that path"),
        ("AuthorityLoginRefused", "put a secret id that holds into the Secret"),
        ("AuthorityRateLimited", "nothing is asked of it for"),
        ("AuthorityUntrusted", "does not prove who it is"),
        ("AuthorityDenied", "see that mount, issuer and role are there"),
    ];
    for (name, (reason, said)) in names.iter().zip(rows) {
        let message = ready(&ns.client, name, "False", reason).await;
        assert!(message.contains(said), "{name}: {message}");
        wait_for("the identity says it too", seconds(20), async || {
            let message = ns.not_ready(name, "AuthorityNotReady").await;
            if message.contains(said) { Ok(()) } else { Err(message) }
        })
        .await;
    }

    let policy = INTERMEDIATE_POLICY.replace("MOUNT", "vault-denied");
    vault.policy("vault-denied", &policy).await;
    touch(&ns, vault, "vault-denied").await;
    touch(&ns, vault, "vault-login").await;
    vault.ask(Method::DELETE, "sys/quotas/rate-limit/vault-quota", Value::Null).await;
    let ca = json!({"spec": {"authority": {"vault": {"caBundle": vault.ca.certificate}}}});
    change(&ns.client, "vault-tls", ca).await;
    let mount = json!({"spec": {"authority": {"vault": {"mount": "vault-mount"}}}});
    change(&ns.client, "vault-mount", mount).await;
    for name in names {
        ready(&ns.client, name, "True", "Active").await;
        ns.ready(name).await;
    }
}

#[tokio::test]
async fn a_vault_that_is_sealed_or_says_nothing_touches_no_certificate_and_holds_up_nobody_else() {
    let world = World::shared().await;
    let ns = world.namespace("vault-sealed").await;
    let vault = Vault::start().await;
    vault.pki("vault-sealed").await;
    let authority = vault.authority(&ns, "vault-sealed", INTERMEDIATE_POLICY).await;
    ns.trust_domain("vault-sealed", spec(&ns, "vault-sealed", json!({"vault": authority}))).await;
    ns.identity("planner", json!({"trustDomain": "vault-sealed"})).await;
    ready(&ns.client, "vault-sealed", "True", "Active").await;
    ns.ready("planner").await;
    let before = ns.secret_of("planner").await;
    let slots = get(&ns.client, "vault-sealed").await.status.unwrap().slots;

    vault.seal().await;
    // Another secret id in the Secret has it asked at once.
    let other = secret_of("vault-sealed", json!({"secretId": "another"}));
    hand_over(&ns.client, &other).await;
    let message = ready(&ns.client, "vault-sealed", "False", "AuthoritySealed").await;
    assert!(message.contains("unseal it. Until then the CA"), "{message}");
    assert!(message.contains("which was taken up before, signs"), "{message}");
    // What it signed before goes on signing.
    ns.identity("tools", json!({"trustDomain": "vault-sealed"})).await;
    ns.ready("tools").await;
    vault.unseal().await;
    touch(&ns, &vault, "vault-sealed").await;
    ready(&ns.client, "vault-sealed", "True", "Active").await;

    // Its port takes connections, and nothing answers. Whoever asks it waits for seconds.
    vault.pause();
    let third = secret_of("vault-sealed", json!({"secretId": "a third"}));
    hand_over(&ns.client, &third).await;
    let began = now();
    ns.identity("elsewhere", json!({})).await;
    ns.ready("elsewhere").await;
    let took = now().duration_since(began);
    let message = ready(&ns.client, "vault-sealed", "False", "AuthorityUnavailable").await;
    assert!(message.contains("no answer within 10s"), "{message}");
    println!(
        "an identity of another trust domain was Ready after {took:?}, while Vault said nothing"
    );
    vault.resume();
    touch(&ns, &vault, "vault-sealed").await;
    ready(&ns.client, "vault-sealed", "True", "Active").await;
    holds_for("no certificate changed", seconds(1), async || {
        match ns.secret_of("planner").await.data == before.data {
            true => Ok(()),
            false => Err("its files changed"),
        }
    })
    .await;
    assert_eq!(get(&ns.client, "vault-sealed").await.status.unwrap().slots, slots);
}

#[tokio::test]
async fn the_operator_logs_in_with_a_token_of_its_own_service_account() {
    let world = World::shared().await;
    let ns = world.namespace("vault-kubernetes").await;
    let vault = shared().await;
    vault.pki("vault-kubernetes").await;
    vault
        .policy("vault-kubernetes", &INTERMEDIATE_POLICY.replace("MOUNT", "vault-kubernetes"))
        .await;
    vault.kubernetes(&world.server, "vault-kubernetes").await;
    let ca = secret_of("vault-ca-file", json!({"vault.pem": vault.ca.certificate}));
    hand_over(&ns.client, &ca).await;
    let authority = json!({
        "server": vault.address,
        "caSecretRef": {"name": "vault-ca-file", "key": "vault.pem"},
        "mount": "vault-kubernetes",
        "auth": {"kubernetes": {"role": "vault-kubernetes", "audience": "vault"}},
    });
    ns.trust_domain("vault-kubernetes", spec(&ns, "vault-kubernetes", json!({"vault": authority})))
        .await;
    ns.identity("planner", json!({"trustDomain": "vault-kubernetes"})).await;
    ready(&ns.client, "vault-kubernetes", "True", "Active").await;
    ns.ready("planner").await;

    let role =
        json!({"spec": {"authority": {"vault": {"auth": {"kubernetes": {"role": "nobody"}}}}}});
    change(&ns.client, "vault-kubernetes", role).await;
    let message = ready(&ns.client, "vault-kubernetes", "False", "AuthorityLoginRefused").await;
    assert!(message.contains("is for the operator's ServiceAccount"), "{message}");
}
