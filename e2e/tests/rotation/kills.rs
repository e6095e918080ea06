//! The operator is killed right after every write of a rotation.

use std::time::Duration;

use countersign::api::{SlotKind, SlotPhase};
use countersign_e2e::chronicle::{History, slot};
use countersign_e2e::{ApiServer, Chronicle, Operator, Options, User, World, seconds};
use serde_json::json;

use super::{LAG, ROOT_ROTATION, SOAK, change, settled, spec};

/// More lives than a rotation has writes.
const LIVES: usize = 60;

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
    let mut lives = Lives { server: &server, chronicle: &chronicle, count: 0 };
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

    // And once more, in a hurry.
    let root = slot(history.status().unwrap(), SlotKind::Root, SlotPhase::Active).unwrap();
    let (key, old) = (root.key_id.clone(), root.certificate.clone().unwrap());
    change(&ns.client, "killed", json!({"spec": {"ca": {"distrust": [key]}}})).await;
    let writes = lives
        .until(430, |history| {
            history.phases_now() == "root-3 Active, issuing-3 Active"
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

struct Lives<'a> {
    server: &'a ApiServer,
    chronicle: &'a Chronicle,
    count: usize,
}

impl Lives<'_> {
    /// Starts one operator after the other and kills each as soon as it has written, until `done`.
    /// Says what each wrote first.
    async fn until(&mut self, clock_ahead: i64, done: impl Fn(&History) -> bool) -> Vec<String> {
        let mut writes = Vec::new();
        while !done(&self.chronicle.history()) {
            self.count += 1;
            assert!(self.count < LIVES, "no end after {LIVES} lives: {writes:#?}");
            let options =
                Options { clock_ahead, ..Options::replica(&format!("life-{}", self.count)) };
            writes.extend(self.live(options, &done).await);
        }
        writes
    }

    /// One life: until its first write, or until there is nothing more to write.
    async fn live(&self, options: Options, done: impl Fn(&History) -> bool) -> Option<String> {
        let mut tail = self.server.next_requests_by(User::Operator);
        let operator = Operator::spawn(self.server, options);
        let mut looks: u32 = 0;
        let limit = std::time::Instant::now() + seconds(60);
        let write = loop {
            looks += 1;
            match tail.next_request() {
                Some(request)
                    if request.is_write()
                        && request.code < 300
                        && request.resource != "leases"
                        && request.resource != "events" =>
                {
                    break Some(request);
                }
                Some(_) => continue,
                None if looks.is_multiple_of(100) && done(&self.chronicle.history()) => break None,
                None => tokio::time::sleep(Duration::from_millis(1)).await,
            }
            let log = || operator.log();
            assert!(std::time::Instant::now() < limit, "it writes nothing:\n{}", log());
        };
        operator.kill();
        self.server.forget_leader().await;
        write.map(|request| format!("{} {}", request.kind(), request.name))
    }
}
