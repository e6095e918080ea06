//! The operator is killed right after every write of a rotation to another CA of somebody else's.

use countersign_e2e::corporate::{Ca, P256, Shape, hand_over, secret};
use countersign_e2e::lives::Lives;
use countersign_e2e::{Namespace, Operator, Options, World};
use serde_json::json;

use super::{LAG, ROOT_ROTATION, begun, spec};

#[tokio::test]
async fn an_operator_that_is_killed_at_every_write_takes_the_new_ca_up_once() {
    let World { operator, server } = World::start().await;
    let ns = Namespace::create(&server, "killed-ca").await;
    let first = Ca::root(Shape::of(P256));
    let issuing = first.under("issuing", Shape::of(P256));
    hand_over(&ns.client, &secret("killed-ca", &[&issuing], Some(&first))).await;
    let authority = json!({"secret": {"name": "killed-ca"}});
    ns.trust_domain("killed-ca", spec(&ns, "killed-ca", authority)).await;
    let chronicle = begun(&ns, "killed-ca").await;
    for name in ["planner", "tools"] {
        ns.ready(name).await;
    }
    operator.kill();

    let second = Ca::root(Shape::of(P256));
    let middle = second.under("intermediate", Shape::of(P256));
    let issuing = middle.under("issuing", Shape::of(P256));
    hand_over(&ns.client, &secret("killed-ca", &[&issuing, &middle], Some(&second))).await;
    let mut lives = Lives::of(&server, &chronicle);
    let writes = lives
        .until(0, |history| {
            history.phases_now() == ROOT_ROTATION[2] && history.is_settled(2).is_ok()
        })
        .await;
    println!("killed after each of {} writes: {writes:#?}", writes.len());
    assert!(writes.len() >= 8, "two CAs, two statuses, a ConfigMap, three Secrets: {writes:#?}");
    let history = chronicle.history();
    assert_eq!(history.phases(), ROOT_ROTATION);
    history.judge_slots();
    let tally = history.judge_trust(LAG);
    println!("{tally:?}, {} lives", lives.count);
    assert_eq!(history.authorities().len(), 4, "each was taken up once");
    let _operator = Operator::start_leading(&server, Options::replica("last")).await;
    for name in ["planner", "tools"] {
        ns.ready(name).await;
    }
}
