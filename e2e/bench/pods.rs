//! What the admission policies cost: pods created a second, with them and without.

use std::time::{Duration, Instant};

use countersign_e2e::policies::remove_bindings;
use countersign_e2e::{ApiServer, Namespace, World, seconds, wait_for};
use futures::stream::{self, StreamExt};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};
use std::sync::Arc;

use crate::load::applied_at_once;
use crate::report::Report;

/// A cluster of the size that is asked about: 5,000 identities.
const NAMESPACES: u32 = 100;
const PER_NAMESPACE: u32 = 50;
/// Namespaces beside them that have many identities.
const LARGE: u32 = 500;
/// Clients that create pods at once, and for how long each case goes on.
const CLIENTS: usize = 8;
const SPAN: Duration = Duration::from_secs(10);

/// Measures it on one API server, and takes the policies away in between.
pub async fn measure() -> Report {
    let mut report = Report::default();
    let step = |text: &str| eprintln!("bench: {text}");
    let World { operator, server } = World::start().await;

    step(&format!("{NAMESPACES} namespaces with {PER_NAMESPACE} AgentIdentities each"));
    let mut rooms = Vec::new();
    for number in 0..NAMESPACES {
        rooms.push(room(&server, &format!("pods-{number}"), PER_NAMESPACE).await);
    }
    let large = [room(&server, "pods-large", LARGE).await];
    let bare = [Namespace::create(&server, "pods-bare").await];
    service_account(&bare[0]).await;
    // What it would label by itself is none of this.
    drop(operator);

    step("pods with the policies");
    report.note("no identity in the namespace", rate(&bare).await, "pods/s");
    report.note("50 in the namespace, 5,500 in the cluster", rate(&rooms).await, "pods/s");
    report.note("500 in the namespace", rate(&large).await, "pods/s");

    step("pods without the policies");
    let client = server.client().await;
    remove_bindings(&client).await;
    wait_for("no policy is asked any more", seconds(60), async || {
        let forged = json!({"countersign.dev/identity": "nobody"});
        let params = PostParams { dry_run: true, ..PostParams::default() };
        let tried = bare[0].api::<Pod>().create(&params, &pod("forged", forged)).await;
        tried.map(drop).map_err(|error| error.to_string())
    })
    .await;
    report.note("no policies", rate(&rooms).await, "pods/s");
    report
}

/// A namespace with identities of one ServiceAccount each, and one that pods run as.
async fn room(server: &Arc<ApiServer>, name: &str, identities: u32) -> Namespace {
    let room = Namespace::create(server, name).await;
    service_account(&room).await;
    applied_at_once(&room, identities, &json!({})).await;
    room.rostered(identities).await;
    room
}

async fn service_account(room: &Namespace) {
    let accounts: Api<ServiceAccount> = room.api();
    let account = serde_json::from_value(json!({"metadata": {"name": "agent-0"}}));
    accounts
        .create(&PostParams::default(), &account.expect("it is well formed"))
        .await
        .expect("the API server takes a ServiceAccount");
}

fn pod(name: &str, labels: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "serviceAccountName": "agent-0",
            "containers": [{"name": "agent", "image": "agent"}],
        },
    }))
    .expect("it is well formed")
}

/// Pods created a second, in one namespace after the other.
async fn rate(rooms: &[Namespace]) -> f64 {
    let began = Instant::now();
    let numbers = stream::iter(0usize..).take_while(|_| std::future::ready(began.elapsed() < SPAN));
    let created = numbers
        .map(async |number| {
            let pods: Api<Pod> = rooms[number % rooms.len()].api();
            let name = format!("agent-{}-{number}", began.elapsed().as_nanos());
            let created =
                pods.create(&PostParams::default(), &pod(&name, json!({"app": "a"}))).await;
            created.expect("the API server takes a pod");
        })
        .buffer_unordered(CLIENTS)
        .count()
        .await;
    created as f64 / began.elapsed().as_secs_f64()
}
