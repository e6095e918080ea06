//! The operator is killed right after every write of a rotation.

use countersign::api::{SlotKind, SlotPhase};
use countersign_e2e::chronicle::slot;
use countersign_e2e::lives::Lives;
use countersign_e2e::{Chronicle, Operator, Options, World};
use serde_json::json;

use super::{LAG, ROOT_ROTATION, SOAK, change, settled, spec};

#[tokio::test]
async fn an_operator_that_is_killed_at_every_write_loses_nothing() {
    let World { operator, server } = World::start().await;
    let ns = countersign_e2e::Namespace::create(&server, "killed").await;
    let mut spec = spec(&ns, "killed", SOAK);
    spec["identities"] = json!({"maxDuration": "5m"});
    ns.trust_domain("killed", spec).await;
    let life = json!({"trustDomain": "killed", "certificate": {"duration": "5m"}});
    for name in ["planner", "tools"] {
        ns.identity(name, life.clone()).await;
    }
    let chronicle = Chronicle::of(&ns.client, "killed", "killed.test").await;
    settled(&chronicle, ROOT_ROTATION[0], 2).await;
    ns.settled("planner").await;
    ns.settled("tools").await;
    operator.kill();

    change(&ns.client, "killed", json!({"spec": {"ca": {"atLeast": {"root": 2}}}})).await;
    let mut lives = Lives::of(&server, &chronicle);
    let writes = lives
        .until(0, |history| {
            history.phases_now() == ROOT_ROTATION[2] && history.is_settled(2).is_ok()
        })
        .await;
    println!("killed after each of {} writes of a root rotation: {writes:#?}", writes.len());
    let history = chronicle.history();
    assert_eq!(history.phases(), ROOT_ROTATION);
    assert!(writes.len() >= 8, "two CAs, two statuses, a ConfigMap, three Secrets: {writes:#?}");

    // Seven minutes on, whatever the old CA signed has ended.
    chronicle.clock_ahead(430);
    let writes = lives
        .until(430, |history| {
            history.phases_now() == "root-2 Active, issuing-2 Active"
                && history.is_settled(2).is_ok()
                && history.authorities().len() == 2
        })
        .await;
    println!("killed after each of {} writes of its end: {writes:#?}", writes.len());

    let history = chronicle.history();
    history.judge_slots();
    let tally = history.judge_trust(LAG);
    println!("{tally:?}, {} lives", lives.count);
    let left: Vec<&str> = history.authorities().into_iter().collect();
    assert_eq!(left, ["countersign-ca-killed-issuing-2", "countersign-ca-killed-root-2"]);
    assert_eq!(history.status().unwrap().bundle.as_ref().unwrap().sequence, 3);

    // The issuing CA alone: its root is in every bundle already.
    change(&ns.client, "killed", json!({"spec": {"ca": {"atLeast": {"root": 2, "issuing": 3}}}}))
        .await;
    let end = "root-2 Active, issuing-2 Retiring, issuing-3 Active";
    let writes = lives
        .until(430, |history| history.phases_now() == end && history.is_settled(2).is_ok())
        .await;
    println!("killed after each of {} writes of an issuing rotation: {writes:#?}", writes.len());
    assert!(writes.len() >= 4, "a CA, a status, two Secrets: {writes:#?}");
    let history = chronicle.history();
    history.judge_slots();
    history.judge_trust(LAG);
    assert_eq!(history.status().unwrap().bundle.as_ref().unwrap().sequence, 3, "no bundle changed");

    // And once more, in a hurry.
    let root = slot(history.status().unwrap(), SlotKind::Root, SlotPhase::Active).unwrap();
    let (key, old) = (root.key_id.clone(), root.certificate.clone().unwrap());
    change(&ns.client, "killed", json!({"spec": {"ca": {"distrust": [key]}}})).await;
    let writes = lives
        .until(430, |history| {
            history.phases_now() == "root-3 Active, issuing-4 Active"
                && history.is_settled(2).is_ok()
                && history.authorities().len() == 2
        })
        .await;
    println!("killed after each of {} writes of an emergency: {writes:#?}", writes.len());
    let history = chronicle.history();
    assert!(history.bundles().values().all(|bundle| !bundle.contains(&old)));
    let ahead = Options { clock_ahead: 430, ..Options::replica("last") };
    let _operator = Operator::start_leading(&server, ahead).await;
    for name in ["planner", "tools"] {
        ns.ready(name).await;
    }
}
