//! The clock of the operator's machine jumps, an hour back and a day forward, and nobody else's does.

use countersign_e2e::agents::{condition_of as condition_of_identity, text_of};
use countersign_e2e::audit::Requests;
use countersign_e2e::{
    ApiServer, Chronicle, Delivered, Namespace, Operator, Options, User, holds_for, now, seconds,
    wait_for,
};
use jiff::SignedDuration;
use serde_json::json;

use super::{LAG, ROOT_ROTATION, change, condition_of, get, phases, settled, spec};

const AN_HOUR_BACK: i64 = -3600;
const A_DAY_FORWARD: i64 = 86_400;

struct Room {
    // Dropped before the server that it talks to.
    operator: Operator,
    ns: Namespace,
    chronicle: Chronicle,
    name: &'static str,
}

impl Room {
    /// A trust domain of its own with one identity, and an operator whose clock can jump.
    async fn of(name: &'static str, soak: &str) -> Self {
        let server = ApiServer::start().await;
        let ns = Namespace::create(&server, name).await;
        let options = Options { clock_wrong: Some(0), ..Options::default() };
        let operator = Operator::start_leading(&server, options).await;
        let mut spec = spec(&ns, name, soak);
        spec["identities"] = json!({"maxDuration": "1h"});
        ns.trust_domain(name, spec).await;
        ns.identity("planner", json!({"trustDomain": name})).await;
        let chronicle = Chronicle::of(&ns.client, name, &format!("{name}.test")).await;
        settled(&chronicle, ROOT_ROTATION[0], 1).await;
        ns.settled("planner").await;
        Self { operator, ns, chronicle, name }
    }

    /// The clock jumps; waits until the trust domain and the identity say so.
    async fn jump(&self, by: i64, says: &str) {
        self.operator.set_clock(by);
        wait_for(
            &format!("the trust domain says {says}"),
            seconds(30),
            async || match condition_of(&self.ns.client, self.name, "Ready").await {
                Some((status, reason, message))
                    if status == "False"
                        && reason == "ClockDisagrees"
                        && message.contains(says) =>
                {
                    Ok(())
                }
                other => Err(other),
            },
        )
        .await;
        wait_for("the identity says so, and is Ready as before", seconds(30), async || {
            let identity = self.ns.identities().get("planner").await.unwrap();
            let ready = condition_of_identity(&identity, "Ready").expect("it has one").clone();
            let right = ready.status == "True" && ready.message.contains(says);
            if right { Ok(()) } else { Err(ready) }
        })
        .await;
        let skew = self.operator.metrics().await.get("countersign_clock_skew_seconds", &[]);
        let skew = skew.expect("it is told");
        assert!((skew - by as f64).abs() < 10.0, "{skew}, not {by}");
    }

    /// Nothing of a trust domain changes while the clocks disagree.
    async fn rests(&self, what: &str) {
        let before = (self.state().await, self.writes());
        holds_for(what, seconds(4), async || {
            let (state, writes) = (self.state().await, self.writes());
            if state != before.0 {
                return Err(format!("{state:#?}, not {:#?}", before.0));
            }
            let more = writes.after(before.1.len());
            if more.is_empty() { Ok(()) } else { Err(format!("{more:#?}")) }
        })
        .await;
    }

    async fn state(&self) -> (Vec<String>, String, String) {
        let history = self.chronicle.history();
        let authorities = history.authorities().into_iter().map(str::to_owned).collect();
        let leaf = text_of(&self.ns.secret_of("planner").await, "tls.crt");
        (authorities, history.phases_now(), leaf)
    }

    fn writes(&self) -> Requests {
        self.ns.server.requests_by(User::Operator).writes()
    }

    async fn is_set_right(&self) {
        self.operator.set_clock(0);
        wait_for("it signs again, by itself", seconds(30), async || {
            match condition_of(&self.ns.client, self.name, "Ready").await {
                Some((status, ..)) if status == "True" => Ok(()),
                other => Err(other),
            }
        })
        .await;
    }
}

#[tokio::test]
async fn at_rest_nothing_is_signed_by_a_clock_that_jumped_and_all_goes_on_when_it_is_right() {
    let room = Room::of("jumps", "10m").await;
    let leaf = text_of(&room.ns.secret_of("planner").await, "tls.crt");
    for (number, (by, says)) in
        [(AN_HOUR_BACK, "1h 0m behind"), (A_DAY_FORWARD, "24h 0m ahead of")].into_iter().enumerate()
    {
        room.jump(by, says).await;
        let late = format!("late-{number}");
        room.ns.identity(&late, json!({"trustDomain": "jumps"})).await;
        let message = room.ns.not_ready(&late, "AuthorityNotReady").await;
        assert!(message.contains(says), "{message}");
        assert_eq!(room.ns.secret(&format!("{late}-identity")).await, None);
        wait_for("the new identity is counted", seconds(20), async || {
            let counts = get(&room.ns.client, "jumps").await.status.unwrap().identities.unwrap();
            if counts.total as usize == number + 2 { Ok(()) } else { Err(counts) }
        })
        .await;
        room.ns.rostered(number as u32 + 2).await;
        room.rests("nothing is signed, nothing written").await;

        room.is_set_right().await;
        room.ns.ready(&late).await;
        let signed = Delivered::read(&room.ns.secret_of(&late).await).leaf();
        let age = now().duration_since(signed.not_before).as_secs();
        assert!((110..200).contains(&age), "backdated by two minutes and no more: {signed:?}");
        assert_eq!(text_of(&room.ns.secret_of("planner").await, "tls.crt"), leaf);
    }
    let failures = [("reason", "ClockDisagrees")];
    let told = room.operator.metrics().await.sum("countersign_failures_total", &failures);
    assert_eq!(told, 2.0, "each jump is told of once");
    room.chronicle.history().judge_slots();
    room.chronicle.history().judge_trust(SignedDuration::from_mins(10));
}

#[tokio::test]
async fn in_a_rotation_no_step_is_taken_by_a_clock_that_jumped() {
    let room = Room::of("jumps-on", "3h").await;
    let at_least = json!({"spec": {"ca": {"atLeast": {"root": 2}}}});
    change(&room.ns.client, "jumps-on", at_least).await;
    phases(&room.chronicle, ROOT_ROTATION[1]).await;
    room.chronicle.until("it soaks", seconds(30), |history| history.is_settled(1)).await;
    // By this clock the soak is over.
    room.jump(A_DAY_FORWARD, "24h 0m ahead of").await;
    room.rests("the new CA does not sign").await;
    room.jump(AN_HOUR_BACK, "1h 0m behind").await;
    room.rests("and does not before its time").await;
    room.is_set_right().await;
    assert_eq!(room.chronicle.history().phases_now(), ROOT_ROTATION[1]);

    change(&room.ns.client, "jumps-on", json!({"spec": {"ca": {"soak": "1s"}}})).await;
    settled(&room.chronicle, ROOT_ROTATION[2], 1).await;
    room.ns.settled("planner").await;
    // By this clock everything that the old CA signed has ended.
    room.jump(A_DAY_FORWARD, "24h 0m ahead of").await;
    room.rests("the old CA is trusted, and its key is there").await;
    room.is_set_right().await;
    let history = room.chronicle.history();
    assert_eq!(history.phases_now(), ROOT_ROTATION[2]);
    assert_eq!(history.authorities().len(), 4);
    history.judge_slots();
    history.judge_trust(LAG);
}
