//! How long the operator's own part of a revocation takes: a table, from the API server's audit log.

use countersign_e2e::{User, World};
use jiff::Timestamp;
use serde_json::json;

#[tokio::test]
async fn the_steps_of_a_revocation_come_in_order_and_take_so_long() {
    let ns = World::shared().await.namespace("times").await;
    ns.pod("planner-0", "planner", json!({})).await;
    ns.identity("planner", json!({})).await;
    ns.settled("planner").await;
    ns.condition("planner", "PodsLabelled", "True", Some("AllLabelled")).await;
    let before = ns.operators_writes().len();
    ns.change_identity("planner", json!({"spec": {"revoked": {"reason": "KeyCompromise"}}})).await;
    ns.condition("planner", "Revoked", "True", Some("Revoked")).await;

    let asked = ns.server.requests_by(User::Admin).within(&ns.name);
    let asked = asked.filter(|request| request.kind() == "patch agentidentities").0;
    let began: Timestamp = asked.last().expect("somebody revoked it").time.parse().unwrap();
    let writes = ns.operators_writes().after(before).0;
    let mut last = began;
    println!("from `spec.revoked` at the API server, in milliseconds:");
    for (kind, what) in [
        ("patch pods", "the pod's label"),
        ("update configmaps", "crl.pem in the namespace's ConfigMap"),
        ("patch secrets", "the key is out of the Secret"),
        ("patch agentidentities/status", "Revoked"),
    ] {
        let found = writes.iter().find(|write| write.kind() == kind && write.code == 200);
        let at: Timestamp = found.unwrap_or_else(|| panic!("no {kind}")).time.parse().unwrap();
        assert!(at >= last, "{what} comes before what is to come first");
        println!("{:>6}  {what}", at.duration_since(began).as_millis());
        last = at;
    }
}
