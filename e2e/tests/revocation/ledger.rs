//! Nothing issued is forgotten: the operator is killed right after every write, Secrets are deleted
//! by hand in between, and every certificate that an agent can have read is revoked in the end.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use countersign_e2e::agents::condition_of;
use countersign_e2e::audit::Request;
use countersign_e2e::crls::{self, serials_of};
use countersign_e2e::{ApiServer, Namespace, Operator, Options, User, World, seconds, wait_for};
use kube::ResourceExt;
use serde_json::json;

use super::TEST;

/// More lives than a revocation has writes.
const LIVES: usize = 30;

#[tokio::test]
async fn an_operator_that_is_killed_at_every_write_forgets_no_certificate() {
    let World { operator, server } = World::start().await;
    let ns = Namespace::create(&server, "ledger").await;
    ns.identity("first", json!({})).await;
    ns.settled("first").await;
    ns.pod("planner-0", "planner", json!({})).await;
    operator.kill();
    server.forget_leader().await;
    ns.identity("planner", json!({})).await;

    // An agent reads what is in its Secret as soon as it is there; then the operator dies, and half
    // of the time somebody deletes the Secret before another takes over.
    let mut seen = BTreeSet::new();
    let mut count = 0;
    let mut next = |name: &str| {
        count += 1;
        Options::replica(&format!("{name}-{count}"))
    };
    for round in 0..6 {
        let is_issuance =
            |request: &Request| request.resource == "secrets" && request.namespace == ns.name;
        live(&server, next("issues"), is_issuance, async || false).await;
        let secret = ns.secret_of("planner").await;
        let serial = secret.annotations()["countersign.dev/serial"].clone();
        seen.insert(serial.clone());
        let delete = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": secret.name_any()},
        });
        match round {
            // The status does not count what the agent has read.
            1 | 2 | 4 => ns.delete(delete).await,
            // It does, since another operator came to write it.
            _ => {
                let is_status =
                    |request: &Request| request.kind() == "patch agentidentities/status";
                let is_counted = async || {
                    let identity = ns.identities().get("planner").await.expect("it is there");
                    let certificate = identity.status.and_then(|status| status.certificate);
                    certificate.is_some_and(|certificate| certificate.serial_number == serial)
                };
                // Its status has other news too, and each life ends with the first.
                while !is_counted().await {
                    live(&server, next("counts"), is_status, is_counted).await;
                }
                ns.delete(delete).await;
            }
        }
    }
    assert!(
        seen.len() >= 3,
        "a certificate that the status counts is never issued again: {seen:?}"
    );

    // What is lost from the status by hand is found again.
    ns.change_identity("planner", json!({"spec": {"revoked": {"reason": "KeyCompromise"}}})).await;
    let is_revoked = async || {
        let identity = ns.identities().get("planner").await.expect("it is there");
        condition_of(&identity, "Revoked").is_some_and(|condition| condition.status == "True")
    };
    let mut writes = Vec::new();
    while !is_revoked().await {
        assert!(writes.len() < LIVES, "no end after {LIVES} lives: {writes:#?}");
        let write = live(&server, next("revokes"), |_| true, is_revoked).await;
        writes.extend(write.map(|write| format!("{} {}", write.kind(), write.name)));
    }
    println!("killed after each of {} writes of a revocation: {writes:#?}", writes.len());
    let crls = ns.crls(TEST).await;
    let found = serials_of(&crls);
    assert!(seen.is_subset(&found), "{seen:#?} were read, {found:#?} are on the CRL");
    let folder = countersign_e2e::workspace::scratch("ledger");
    crls::judge(&folder, &ns.crl_pem(TEST).await);

    // Undone: a serial number that is on the CRL is not used for what comes now.
    ns.change_identity("planner", json!({"spec": {"revoked": null}})).await;
    let operator = Operator::start_leading(&server, Options::replica("last")).await;
    let leaf = ns.settled("planner").await;
    wait_for("the CRL has what it had", seconds(10), async || {
        let now = serials_of(&ns.crls(TEST).await);
        if seen.is_subset(&now) && !now.contains(&leaf.serial) { Ok(()) } else { Err(now) }
    })
    .await;

    // Deleted, with the operator killed at every write: it is on the CRL before it is gone.
    operator.kill();
    server.forget_leader().await;
    ns.identities().delete("planner", &Default::default()).await.expect("it is deleted");
    let is_gone = async || ns.identities().get_opt("planner").await.expect("an answer").is_none();
    let mut writes = Vec::new();
    while !is_gone().await {
        assert!(writes.len() < LIVES, "no end after {LIVES} lives: {writes:#?}");
        let write = live(&server, next("deletes"), |_| true, is_gone).await;
        writes.extend(write.map(|write| format!("{} {}", write.kind(), write.name)));
        if is_gone().await {
            let found = serials_of(&ns.crls(TEST).await);
            assert!(found.contains(&leaf.serial), "{} of {found:?}", leaf.serial);
        }
    }
    println!("killed after each of {} writes of a deletion: {writes:#?}", writes.len());
}

/// One life: until its first write of that kind, or until `is_done`.
async fn live(
    server: &ApiServer,
    options: Options,
    kind: impl Fn(&Request) -> bool,
    is_done: impl AsyncFn() -> bool,
) -> Option<Request> {
    let mut tail = server.next_requests_by(User::Operator);
    let operator = Operator::spawn(server, options);
    let limit = Instant::now() + seconds(60);
    let mut looks: u32 = 0;
    let write = loop {
        looks += 1;
        match tail.next_request() {
            Some(request) if request.is_deed() && request.code < 300 && kind(&request) => {
                break Some(request);
            }
            Some(_) => continue,
            None if looks.is_multiple_of(100) && is_done().await => break None,
            None => tokio::time::sleep(Duration::from_millis(1)).await,
        }
        assert!(Instant::now() < limit, "it writes nothing:\n{}", operator.log());
    };
    operator.kill();
    server.forget_leader().await;
    write
}
