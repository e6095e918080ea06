//! The API server goes, etcd restarts, writes are refused or collide: the operator recovers by
//! itself, and no identity is issued twice.

use std::time::Instant;

use countersign::api::{SlotKind, TrustDomain};
use countersign_e2e::process::Signal;
use countersign_e2e::world::DOMAIN;
use countersign_e2e::{
    Delivered, Namespace, Operator, Options, User, World, holds_for, seconds, wait_for,
};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{ResourceQuota, Secret};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

#[tokio::test]
async fn the_api_server_is_gone_for_a_minute() {
    let world = World::start().await;
    let ns = world.namespace("outage").await;
    issue(&ns, "before", 5).await;
    let serials = serials(&ns, "before", 5).await;
    let trust_domains: Api<TrustDomain> = Api::all(ns.client.clone());
    soaks(&ns, &trust_domains).await;

    world.server.stop_api_server();
    holds_for("the operator lives on", seconds(60), async || {
        match world.operator.page("/healthz").await {
            Ok(page) if page.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    world.server.restart_api_server().await;
    let (began, back) = (Instant::now(), countersign::runtime::clock::now());
    issue(&ns, "after", 5).await;
    wait_for("kubelets had no answer either: the soak begins anew", seconds(20), async || {
        let found = trust_domains.get("soaks").await.map_err(|error| error.to_string())?;
        let rotation = found.status.as_ref().and_then(|status| status.rotation.clone());
        let since = rotation.as_ref().and_then(|rotation| rotation.reached_since.as_ref());
        // A status keeps whole seconds, and so does what the API server says of the time.
        let back = back - SignedDuration::from_secs(10);
        if since.is_some_and(|since| since.0 > back) {
            Ok(())
        } else {
            Err(format!("{:?}", found.status))
        }
    })
    .await;
    assert!(began.elapsed() < seconds(30), "recovered after {:?}", began.elapsed());
    assert_eq!(self::serials(&ns, "before", 5).await, serials, "nothing was issued twice");
    issued_once(&ns, "after", 5).await;
}

/// A TrustDomain whose next root has been everywhere for a moment.
async fn soaks(ns: &Namespace, trust_domains: &Api<TrustDomain>) {
    let spec = |root: u32| {
        json!({
            "domain": "soaks.test",
            "authority": {"selfSigned": {}},
            "ca": {"soak": "50s", "atLeast": {"root": root}},
            "bundle": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": ns.name}}},
        })
    };
    for (root, phases) in [(1, ["Active"].as_slice()), (2, &["Active", "Prepared"])] {
        ns.trust_domain("soaks", spec(root)).await;
        wait_for("the roots are there", seconds(20), async || {
            let found = trust_domains.get("soaks").await.map_err(|error| error.to_string())?;
            let status = found.status.clone().unwrap_or_default();
            let roots = status.slots.iter().filter(|slot| slot.kind == SlotKind::Root);
            let found: Vec<String> = roots.map(|slot| format!("{:?}", slot.phase)).collect();
            let is_reached =
                status.rotation.is_some_and(|rotation| rotation.reached_since.is_some());
            if found == phases && (root == 1 || is_reached) {
                Ok(())
            } else {
                Err(format!("{found:?}"))
            }
        })
        .await;
    }
}

#[tokio::test]
async fn etcd_restarts_while_identities_come() {
    let world = World::start().await;
    let ns = world.namespace("etcd").await;
    issue(&ns, "before", 3).await;
    let serials = serials(&ns, "before", 3).await;
    for number in 0..10 {
        ns.identity(&format!("during-{number}"), json!({})).await;
    }
    world.server.stop_etcd();
    holds_for("the operator lives on", seconds(5), async || {
        match world.operator.page("/healthz").await {
            Ok(page) if page.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    world.server.restart_etcd().await;
    for number in 0..10 {
        ready_in_time(&ns, &format!("during-{number}")).await;
    }
    issue(&ns, "after", 3).await;
    assert_eq!(self::serials(&ns, "before", 3).await, serials, "nothing was issued twice");
    issued_once(&ns, "during", 10).await;
    issued_once(&ns, "after", 3).await;
}

#[tokio::test]
async fn the_api_server_hangs_and_goes_on() {
    let world = World::start().await;
    let ns = world.namespace("hangs").await;
    issue(&ns, "before", 3).await;
    let serials = serials(&ns, "before", 3).await;
    world.server.signal_api_server(Signal::Stop);
    holds_for("the operator lives on", seconds(20), async || {
        match world.operator.page("/healthz").await {
            Ok(page) if page.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    world.server.signal_api_server(Signal::Continue);
    ns.identity("after-0", json!({})).await;
    ready_in_time(&ns, "after-0").await;
    assert_eq!(self::serials(&ns, "before", 3).await, serials, "nothing was issued twice");
    issued_once(&ns, "after", 1).await;
}

#[tokio::test]
async fn watches_that_break_are_taken_up_again() {
    let world = World::start().await;
    let ns = world.namespace("watches").await;
    issue(&ns, "before", 3).await;
    for round in 0..3 {
        world.server.restart_api_server().await;
        // What happened while nobody watched is seen as well.
        ns.api::<Secret>().delete("before-1-identity", &DeleteParams::default()).await.unwrap();
        wait_for("the deleted Secret is back", seconds(30), async || {
            ns.secret("before-1-identity").await.ok_or(round)
        })
        .await;
    }
    issue(&ns, "after", 3).await;
    issued_once(&ns, "after", 3).await;
    let status = ns.ready("before-0").await.status.unwrap();
    assert_eq!(status.certificate.unwrap().revision, 1, "the others were left alone");
}

#[tokio::test]
async fn somebody_else_writes_all_the_time() {
    let ns = World::shared().await.namespace("meddled").await;
    let meddler = {
        let (identities, secrets) = (ns.identities(), ns.api::<Secret>());
        tokio::spawn(async move {
            for number in 0_u64.. {
                let patch = Patch::Merge(
                    json!({"metadata": {"annotations": {"meddler": number.to_string()}}}),
                );
                let parameters = PatchParams::default();
                let _ = identities.patch("planner", &parameters, &patch).await;
                let _ = secrets.patch("planner-identity", &parameters, &patch).await;
            }
        })
    };
    ns.identity("planner", json!({})).await;
    ns.ready("planner").await;
    let patch = json!({"spec": {"certificate": {"keyAlgorithm": "ECDSA-P384"}}});
    ns.change_identity("planner", patch).await;
    let identity = ns.ready("planner").await;
    let id = identity.status.unwrap().spiffe_id.unwrap();
    let leaf = Delivered::read(&ns.secret_of("planner").await).judge(&id);
    holds_for("nothing is issued because of others' writes", seconds(3), async || {
        let now = Delivered::read(&ns.secret_of("planner").await).leaf();
        if now == leaf { Ok(()) } else { Err(now) }
    })
    .await;
    meddler.abort();
    let status = ns.ready("planner").await.status.unwrap();
    assert_eq!(status.certificate.unwrap().revision, 2, "one issuance for each reason");
}

#[tokio::test]
async fn a_refused_write_is_said_and_tried_again() {
    let ns = World::shared().await.namespace("quota").await;
    let quota = ns.api::<ResourceQuota>();
    ns.put(json!({
        "apiVersion": "v1", "kind": "ResourceQuota",
        "metadata": {"name": "none"}, "spec": {"hard": {"count/secrets": "0"}},
    }))
    .await;
    // What the quota controller would say, which does not run here.
    let status =
        json!({"status": {"hard": {"count/secrets": "0"}, "used": {"count/secrets": "0"}}});
    quota.patch_status("none", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    wait_for("the quota holds", seconds(20), async || {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tried"}});
        let parameters = PostParams { dry_run: true, ..PostParams::default() };
        let tried = serde_json::from_value(secret).unwrap();
        ns.api::<Secret>().create(&parameters, &tried).await.map_or(Ok(()), |_| Err("it does not"))
    })
    .await;
    ns.identity("planner", json!({})).await;
    let message = ns.not_ready("planner", "WriteFailed").await;
    assert!(message.contains("quota"), "the message says what the API server said: {message}");
    ns.event("planner", "Warning", "WriteFailed").await;
    let status = ns.identities().get("planner").await.unwrap().status.unwrap();
    assert!(status.failed_attempts >= Some(1));
    assert_eq!(status.last_failure.unwrap().reason, "WriteFailed");
    assert_eq!(status.certificate, None, "a status never speaks of what was not written");

    ns.delete(json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}}))
        .await;
    let identity = ready_in_time(&ns, "planner").await;
    let status = identity.status.unwrap();
    assert_eq!((status.failed_attempts.unwrap_or(0), status.last_failure), (0, None));
}

#[tokio::test]
async fn a_clock_is_off_by_as_much_as_is_borne() {
    let world = World::start().await;
    let ns = world.namespace("clocks").await;
    issue(&ns, "right", 3).await;
    let World { operator, server } = world;
    assert!(operator.stop(seconds(5)).await.success());
    for (name, ahead) in [("ahead", 55), ("behind", -55)] {
        let before = server.requests_by(User::Operator).len();
        let options = Options { clock_wrong: Some(ahead), ..Options::replica(name) };
        let operator = Operator::start_leading(&server, options).await;
        issue(&ns, name, 1).await;
        // What peers with the right clock, and with one a minute behind it, make of it.
        let delivered = Delivered::read(&ns.secret_of(&format!("{name}-0")).await);
        delivered.judge(&format!("spiffe://{DOMAIN}/ns/{}/sa/{name}-0", ns.name));
        let writes = server.requests_by(User::Operator).after(before).writes();
        let writes = writes.filter(|request| request.resource == "secrets");
        assert_eq!(writes.len(), 1, "the others' certificates are as good as before: {writes:#?}");
        // Its clock says nothing about whose lease it is.
        let standby = Operator::start(&server, Options::replica("right")).await;
        operator.kill();
        standby.leads_within(seconds(15)).await;
        assert!(standby.stop(seconds(5)).await.success());
    }
    issued_once(&ns, "right", 3).await;
}

/// Creates identities and waits until all are Ready.
async fn issue(ns: &Namespace, prefix: &str, count: u32) {
    for number in 0..count {
        ns.identity(&format!("{prefix}-{number}"), json!({})).await;
    }
    for number in 0..count {
        ready_in_time(ns, &format!("{prefix}-{number}")).await;
    }
}

/// Like `ready`, with the time that a back-off and a new lease take.
async fn ready_in_time(ns: &Namespace, name: &str) -> countersign::api::AgentIdentity {
    wait_for(&format!("{name} is Ready after all"), seconds(40), async || {
        let identity = ns.identities().get(name).await.map_err(|error| error.to_string())?;
        let condition = countersign_e2e::agents::condition_of(&identity, "Ready");
        if condition.is_some_and(|condition| condition.status == "True") {
            Ok(identity)
        } else {
            Err(format!("{:#?}", identity.status))
        }
    })
    .await
}

async fn serials(ns: &Namespace, prefix: &str, count: u32) -> Vec<String> {
    let mut serials = Vec::new();
    for number in 0..count {
        let secret = ns.secret_of(&format!("{prefix}-{number}")).await;
        serials.push(secret.annotations()["countersign.dev/serial"].clone());
    }
    serials
}

/// The API server took exactly one write of each Secret.
async fn issued_once(ns: &Namespace, prefix: &str, count: u32) {
    let writes = ns.server.requests_by(User::Operator).within(&ns.name).writes();
    for number in 0..count {
        let name = format!("{prefix}-{number}-identity");
        let taken = writes.clone().filter(|request| {
            request.resource == "secrets" && request.name == name && request.code < 300
        });
        assert_eq!(taken.len(), 1, "{name}: {taken:#?}");
        let status = ns.identities().get(&format!("{prefix}-{number}")).await.unwrap().status;
        assert_eq!(status.unwrap().certificate.unwrap().revision, 1, "{name}");
    }
}
