//! What only time brings: the end of a retired CA, and the hour after which a target that cannot
//! be reached is spoken of. The operator is started again with a clock that is ahead.

use countersign::api::{SlotKind, SlotPhase};
use countersign_e2e::agents::text_of;
use countersign_e2e::chronicle::slot;
use countersign_e2e::{
    Chronicle, Delivered, Namespace, Operator, Options, World, seconds, wait_for,
};
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::{LAG, ROOT_ROTATION, SOAK, change, condition_of, get, phases, settled, spec};

/// Beyond the five minutes of a leaf, and the two that a peer's clock may be behind.
const SEVEN_MINUTES: i64 = 430;
/// Beyond the hour that a rotation waits for its targets.
const AN_HOUR: i64 = 3700;

#[tokio::test]
async fn time_ends_what_is_retired_and_speaks_of_what_is_not_reached() {
    let World { operator, server } = World::start().await;
    let [ends, waits, goes] = [
        Namespace::create(&server, "ends").await,
        Namespace::create(&server, "waits").await,
        Namespace::create(&server, "goes").await,
    ];
    let mut chronicles = Vec::new();
    for ns in [&ends, &waits, &goes] {
        let name = ns.name.rsplit_once('-').unwrap().0;
        let mut spec = spec(ns, name, SOAK);
        spec["identities"] = json!({"maxDuration": "5m"});
        if name == "goes" {
            spec["ca"]["whenUnreached"] = json!("Proceed");
        }
        ns.trust_domain(name, spec).await;
        let five = json!({"trustDomain": name, "certificate": {"duration": "5m"}});
        ns.identity("planner", five).await;
        let chronicle = Chronicle::of(&ns.client, name, &format!("{name}.test")).await;
        settled(&chronicle, ROOT_ROTATION[0], 1).await;
        ns.settled("planner").await;
        chronicles.push(chronicle);
    }
    // A Secret that cannot be changed is a target that cannot be reached.
    for ns in [&waits, &goes] {
        ns.patch_secret_of("planner", json!({"immutable": true})).await;
    }
    for name in ["ends", "waits", "goes"] {
        change(&ends.client, name, json!({"spec": {"ca": {"atLeast": {"root": 2}}}})).await;
    }
    settled(&chronicles[0], ROOT_ROTATION[2], 1).await;
    for chronicle in &chronicles[1..] {
        phases(chronicle, ROOT_ROTATION[1]).await;
    }
    // From here on a leaf may live an hour; what the old CA signed may not.
    change(&ends.client, "ends", json!({"spec": {"identities": {"maxDuration": "1h"}}})).await;
    // The API server judges it by a TrustDomain that it reads a moment later.
    let hour = Patch::Merge(json!({"spec": {"certificate": {"duration": "1h"}}}));
    wait_for("an hour is admitted", seconds(20), async || {
        let changed = ends.identities().patch("planner", &PatchParams::default(), &hour).await;
        changed.map_err(|error| error.to_string())
    })
    .await;
    let long = wait_for("a leaf of an hour", seconds(20), async || {
        let secret = ends.secret_of("planner").await;
        let leaf = Delivered::read(&secret).leaf();
        let life = leaf.not_after.duration_since(leaf.not_before).as_secs();
        if life > 3600 { Ok(secret) } else { Err(life) }
    })
    .await;
    ends.settled("planner").await;

    let operator = restart(&server, operator, "second", SEVEN_MINUTES, &chronicles).await;
    settled(&chronicles[0], "root-2 Active, issuing-2 Active", 1).await;
    chronicles[0]
        .until("the old keys are destroyed", seconds(20), |history| {
            let left = history.authorities();
            let new = ["countersign-ca-ends-issuing-2", "countersign-ca-ends-root-2"];
            let sequence =
                history.status().and_then(|status| status.bundle.as_ref()?.sequence.into());
            if left.iter().eq(&new) && sequence == Some(3) {
                Ok(())
            } else {
                Err(format!("{left:?}, bundle {sequence:?}"))
            }
        })
        .await;
    let after = ends.secret_of("planner").await;
    assert_eq!(text_of(&after, "tls.crt"), text_of(&long, "tls.crt"), "the leaf lives on");
    assert_eq!(Delivered::read(&after).bundle.len(), 1, "one root is trusted");
    let history = chronicles[0].history();
    history.judge_slots();
    history.judge_trust(LAG);
    for chronicle in &chronicles[1..] {
        assert_eq!(chronicle.history().phases_now(), ROOT_ROTATION[1], "still waiting");
    }

    let _operator = restart(&server, operator, "third", AN_HOUR, &chronicles).await;
    phases(&chronicles[2], ROOT_ROTATION[2]).await;
    let message = wait_for("it is said that it is stalled", seconds(20), async || {
        match condition_of(&waits.client, "waits", "Rotating").await {
            Some((status, reason, message)) if status == "True" && reason == "Stalled" => {
                Ok(message)
            }
            other => Err(other),
        }
    })
    .await;
    for piece in ["planner-identity", "whenUnreached: Proceed", &waits.name] {
        assert!(message.contains(piece), "{piece:?} in {message}");
    }
    assert_eq!(chronicles[1].history().phases_now(), ROOT_ROTATION[1], "a person decides");
    let status = get(&waits.client, "waits").await.status.unwrap();
    let proceeds = status.rotation.unwrap().proceeds_at.unwrap().0;
    let old = slot(chronicles[1].history().status().unwrap(), SlotKind::Issuing, SlotPhase::Active)
        .unwrap()
        .not_after
        .0;
    assert!(proceeds < old, "before the old CA ends: {proceeds}, {old}");
    change(&waits.client, "waits", json!({"spec": {"ca": {"whenUnreached": "Proceed"}}})).await;
    phases(&chronicles[1], ROOT_ROTATION[2]).await;
}

async fn restart(
    server: &countersign_e2e::ApiServer,
    operator: Operator,
    replica: &str,
    clock_ahead: i64,
    chronicles: &[Chronicle],
) -> Operator {
    assert!(operator.stop(seconds(10)).await.success());
    chronicles.iter().for_each(|chronicle| chronicle.clock_ahead(clock_ahead));
    let options = Options { clock_ahead, ..Options::replica(replica) };
    Operator::start_leading(server, options).await
}
