//! The benchmark: how fast and how small the operator is, on a real API server.
//!
//! Rates on a machine of another speed mean little, so the operator's is put beside that of a bare
//! client that makes the same writes on the same API server in the same run.

mod load;
mod measure;
mod pods;
mod report;
mod vault;

use clap::Parser;
use countersign_e2e::{ApiServer, Namespace, Operator, Options, User, World, seconds, wait_for};
use serde_json::json;

use load::{CONNECTIONS, applied_at_once, bare_client};
use measure::{Usage, latencies, percentile, writes_of};
use report::{Report, Row};

/// What to measure with.
#[derive(Parser)]
struct Arguments {
    /// How many AgentIdentities are applied at once
    #[arg(long, default_value_t = 2000)]
    identities: u32,
    /// Measure instead what the admission policies cost a pod
    #[arg(long)]
    pods: bool,
    /// Measure instead how fast identities become Ready where OpenBao signs
    #[arg(long)]
    vault: bool,
}

fn main() {
    let Arguments { identities, pods, vault } = Arguments::parse();
    // One thread for the measuring side, so that it takes no more of the machine than it must.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be made");
    if pods {
        return runtime.block_on(pods::measure()).print();
    }
    if vault {
        return runtime.block_on(vault::measure()).print();
    }
    let report = runtime.block_on(measure(identities));
    report.print();
    report.save();
}

/// Waits until the TrustDomain's counts, which follow a second behind, speak of all identities.
async fn counted(server: &ApiServer, ready: u32) {
    let trust_domains: kube::Api<countersign::api::TrustDomain> =
        kube::Api::all(server.client().await);
    wait_for("the TrustDomain counts all identities", seconds(30), async || {
        let found = trust_domains.get("test").await.map_err(|error| error.to_string())?;
        let counts = found.status.and_then(|status| status.identities).unwrap_or_default();
        if counts.ready == ready { Ok(()) } else { Err(format!("{counts:?}")) }
    })
    .await;
}

async fn measure(identities: u32) -> Report {
    let mut report = Report::default();
    let step = |text: &str| eprintln!("bench: {text}");

    step(&format!("a bare client writes {identities} identities with {CONNECTIONS} connections"));
    // An API server of its own, as fresh as the operator's will be: beside an operator, the
    // identities would be its business.
    let server = ApiServer::start().await;
    let bare = bare_client(&Namespace::create(&server, "bench-bare").await, identities).await;
    drop(server);

    step("starting another API server, and an operator");
    let world = World::start().await;
    let server = world.server.clone();
    let small = Usage::of(world.operator.id());

    step(&format!("{identities} AgentIdentities are applied at once"));
    let room = Namespace::create(&server, "bench-many").await;
    room.bundle("test").await;
    let took = applied_at_once(&room, identities, &json!({})).await;
    let rate = f64::from(identities) / took.as_secs_f64();
    let bare_rate = f64::from(identities) / bare.as_secs_f64();
    report.note("bare client", bare_rate, "identities/s");
    report.note("operator", rate, "identities/s");
    report.row(Row::at_least("rate beside the bare client's", rate / bare_rate, "", 0.8));

    let writes = writes_of(&server, &room).len() as f64 / f64::from(identities);
    report.row(Row::at_most("API writes per issuance", writes, "", 2.0));

    step("one AgentIdentity at a time on a quiet API server");
    let room = Namespace::create(&server, "bench-one").await;
    room.bundle("test").await;
    let waits = latencies(&room, 200).await;
    report.row(Row::below("create to Ready, median", percentile(&waits, 50), "ms", 30.0));
    report.row(Row::below("create to Ready, 99th percentile", percentile(&waits, 99), "ms", 150.0));

    step("at rest for 10 s, once the last identity is counted");
    counted(&server, identities + 200).await;
    let before = server.requests_by(User::Operator).writes().len();
    let (cpu, large) = Usage::over(world.operator.id(), seconds(10)).await;
    let at_rest = server.requests_by(User::Operator).writes().after(before).len() as f64;
    report.row(Row::at_most("API writes at rest", at_rest, "", 0.0));
    report.row(Row::below("processor at rest", cpu, "% of a core", 5.0));
    report.row(Row::below("memory", large.resident, "MB", 80.0));
    report.note("memory before the first identity", small.resident, "MB");

    step("100 unrelated Secrets of 100 kB");
    load::unrelated_secrets(&room, 100).await;
    let (_, loaded) = Usage::over(world.operator.id(), seconds(3)).await;
    let grown = (loaded.resident - large.resident).max(0.0);
    report.row(Row::below("memory grown by 10 MB of unrelated Secrets", grown, "MB", 1.0));

    step("a restart");
    assert!(world.operator.stop(seconds(10)).await.success(), "it ends when it is asked to");
    let before = server.requests_by(User::Operator).writes().len();
    let first = Operator::start_leading(&server, Options::replica("again")).await;
    measure::knows(&first, identities + 200).await;
    let (_, again) = Usage::over(first.id(), seconds(5)).await;
    report.note("memory after a restart", again.resident, "MB");
    let restart = server.requests_by(User::Operator).writes().after(before).len() as f64;
    report.row(Row::at_most("API writes for a restart", restart, "", 0.0));

    step("the leader is killed with -9");
    let standby = Operator::start(&server, Options::replica("standby")).await;
    let room = Namespace::create(&server, "bench-kill").await;
    let took = measure::failover(first, &room).await;
    report.row(Row::below("leader killed, next issuance", took.as_secs_f64(), "s", 15.0));
    drop(standby);
    report
}
