//! Two replicas, one of which acts: whatever happens to the leader, the other takes over in time,
//! and no two ever write.

use std::sync::Arc;
use std::time::Instant;

use countersign_e2e::users::OPERATOR_NAMESPACE;
use countersign_e2e::world::TRUST_DOMAIN;
use countersign_e2e::{
    ApiServer, Delivered, Namespace, Operator, Options, User, holds_for, now, seconds, wait_for,
};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use serde_json::json;

#[tokio::test]
async fn the_second_replica_waits_and_takes_over_from_one_that_is_killed() {
    let pair = Pair::start("killed").await;
    pair.issues("before").await;
    assert!(!pair.second.leads().await);
    let (server, ns, second) = (pair.server.clone(), pair.ns, pair.second);

    let began = Instant::now();
    pair.first.kill();
    ns.identity("after", json!({})).await;
    wait_for("the second issues", seconds(20), async || {
        ns.secret("after-identity").await.ok_or("not yet")
    })
    .await;
    assert!(began.elapsed() < seconds(15), "{:?}", began.elapsed());
    ns.ready("after").await;
    assert!(second.leads().await);
    assert!(holder(&server).await.starts_with("second"));
    assert_eq!(revision(&ns, "before").await, 1, "a change of leader issues nothing");
}

#[tokio::test]
async fn a_leader_that_is_asked_to_end_hands_over_at_once() {
    let pair = Pair::start("asked").await;
    pair.issues("before").await;
    let (ns, second) = (pair.ns, pair.second);
    let began = Instant::now();
    let status = pair.first.stop(seconds(5)).await;
    assert!(status.success(), "{status}");
    second.leads_within(seconds(5)).await;
    ns.identity("after", json!({})).await;
    ns.ready("after").await;
    assert!(began.elapsed() < seconds(8), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_leader_that_is_held_does_not_act_when_it_comes_back() {
    let pair = Pair::start("held").await;
    pair.issues("before").await;
    let Pair { server, ns, first, second } = pair;

    first.pause();
    let began = Instant::now();
    second.leads_within(seconds(20)).await;
    assert!(began.elapsed() < seconds(18), "{:?}", began.elapsed());
    ns.identity("during", json!({})).await;
    ns.ready("during").await;
    ns.rostered(2).await;

    let writes = server.requests_by(User::Operator).len();
    first.resume();
    // It believes for a moment that it leads: then is when it must write nothing. What it was
    // about to send when it was held does go out, too late: the API server refuses it by its
    // resourceVersion, or gave up on the half of it that had come.
    wait_for("the first sees that it leads no more", seconds(10), async || {
        if first.page("/metrics").await.is_ok() && !first.leads().await {
            Ok(())
        } else {
            Err("leads")
        }
    })
    .await;
    assert!(second.leads().await);
    let after = server.requests_by(User::Operator).after(writes).writes();
    let after = after.filter(|request| ![409, 504].contains(&request.code));
    assert!(after.is_empty(), "written after it came back: {after:#?}");
    assert_eq!((revision(&ns, "before").await, revision(&ns, "during").await), (1, 1));

    ns.identity("after", json!({})).await;
    ns.ready("after").await;
    assert!(holder(&server).await.starts_with("second"));
}

#[tokio::test]
async fn a_leader_that_cannot_renew_stops_before_another_can_start() {
    let pair = Pair::start("cut-off").await;
    pair.issues("before").await;
    let lease = lease(&pair.server).await.spec.unwrap();
    let length = u64::try_from(lease.lease_duration_seconds.unwrap()).unwrap();

    pair.server.stop_api_server();
    let began = Instant::now();
    wait_for("the first stops acting", seconds(length + 5), async || {
        if pair.first.page("/metrics").await.is_ok() && !pair.first.leads().await {
            Ok(())
        } else {
            Err("leads")
        }
    })
    .await;
    assert!(
        began.elapsed() < seconds(length),
        "acted for {:?} of a lease of {length} s",
        began.elapsed()
    );
    assert!(!pair.second.leads().await);
    pair.server.restart_api_server().await;
    wait_for("one of them leads again", seconds(30), async || {
        match (pair.first.leads().await, pair.second.leads().await) {
            (true, false) | (false, true) => Ok(()),
            both => Err(both),
        }
    })
    .await;
    pair.issues("after").await;
    assert_eq!(revision(&pair.ns, "before").await, 1);
}

#[tokio::test]
async fn never_do_both_lead() {
    let pair = Pair::start("never-both").await;
    let api: Api<Lease> = Api::namespaced(pair.ns.client.clone(), OPERATOR_NAMESPACE);
    // A replica that has never seen the Lease takes it for a cluster's first day.
    wait_for("the second has seen the lease", seconds(10), async || {
        let page = pair.second.page("/readyz").await.map_err(|error| error.to_string())?;
        if page.status == 200 { Ok(()) } else { Err(page.body) }
    })
    .await;
    // The lease is taken away from whoever leads, as when somebody meddles.
    for round in 0..2 {
        api.delete("countersign", &Default::default()).await.unwrap();
        let led = wait_for("there is a lease again", seconds(30), async || {
            let both = (pair.first.leads().await, pair.second.leads().await);
            assert_ne!(both, (true, true), "both lead");
            api.get_opt("countersign").await.unwrap().map(|_| both).ok_or(both)
        })
        .await;
        assert_ne!(led, (true, true));
        holds_for("at most one leads", seconds(5), async || {
            let both = (pair.first.leads().await, pair.second.leads().await);
            if both == (true, true) { Err(both) } else { Ok(()) }
        })
        .await;
        pair.issues(&format!("round-{round}")).await;
    }
    for round in 0..2 {
        assert_eq!(revision(&pair.ns, &format!("round-{round}")).await, 1);
    }
}

#[tokio::test]
async fn a_lease_says_who_holds_it_and_is_renewed() {
    let pair = Pair::start("lease").await;
    let spec = lease(&pair.server).await.spec.unwrap();
    assert!(spec.holder_identity.as_ref().unwrap().starts_with("first"), "{spec:?}");
    let age = now().as_second() - spec.renew_time.as_ref().unwrap().0.as_second();
    assert!(age <= i64::from(spec.lease_duration_seconds.unwrap()), "{spec:?}");
    wait_for("it is renewed", seconds(10), async || {
        let now = lease(&pair.server).await.spec.unwrap();
        if now.renew_time > spec.renew_time { Ok(()) } else { Err(now) }
    })
    .await;
}

/// Two replicas, the first of which leads.
struct Pair {
    first: Operator,
    second: Operator,
    ns: Namespace,
    server: Arc<ApiServer>,
}

impl Pair {
    async fn start(test: &str) -> Self {
        let server = ApiServer::start().await;
        let ns = Namespace::create(&server, test).await;
        let spec = json!({"domain": "test.countersign.dev", "default": true, "authority": {"selfSigned": {}}});
        ns.trust_domain(TRUST_DOMAIN, spec).await;
        let first = Operator::start_leading(&server, Options::replica("first")).await;
        let second = Operator::start(&server, Options::replica("second")).await;
        Self { first, second, ns, server }
    }

    async fn issues(&self, name: &str) {
        self.ns.identity(name, json!({})).await;
        let identity = self.ns.ready(name).await;
        let id = identity.status.unwrap().spiffe_id.unwrap();
        Delivered::read(&self.ns.secret_of(name).await).judge(&id);
    }
}

async fn lease(server: &ApiServer) -> Lease {
    let api: Api<Lease> = Api::namespaced(server.client().await, OPERATOR_NAMESPACE);
    api.get("countersign").await.unwrap()
}

async fn holder(server: &ApiServer) -> String {
    lease(server).await.spec.unwrap().holder_identity.unwrap_or_default()
}

async fn revision(ns: &Namespace, name: &str) -> u64 {
    let status = ns.identities().get(name).await.unwrap().status.unwrap();
    status.certificate.unwrap().revision
}
