//! Agents, the real program, that shake hands all the time while CAs change and the operator dies.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use countersign_e2e::mount::Mount;
use countersign_e2e::process::Process;
use countersign_e2e::{
    Chronicle, Delivered, Namespace, Operator, Options, World, seconds, wait_for, workspace,
};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::{ROOT_ROTATION, change, phases, settled, spec};

const AGENTS: [&str; 3] = ["planner", "tools", "reader"];
/// Calls a second of each agent to each other: six times this in all, each a full handshake.
const RATE: &str = "35";
/// The operator counts whole seconds, an agent looks each second, and this machine is busy.
const SOAK: &str = "6s";

#[tokio::test]
async fn no_handshake_fails_while_cas_change_and_the_operator_is_killed() {
    let World { operator, server } = World::start().await;
    let ns = Arc::new(Namespace::create(&server, "tally").await);
    ns.trust_domain("tally", spec(&ns, "tally", SOAK)).await;
    for name in AGENTS {
        ns.identity(name, json!({"trustDomain": "tally"})).await;
    }
    let chronicle = Chronicle::of(&ns.client, "tally", "tally.test").await;
    settled(&chronicle, ROOT_ROTATION[0], 3).await;
    let agents = Agents::start(&ns).await;
    agents.each_tried(20).await;

    change(&ns.client, "tally", json!({"spec": {"ca": {"atLeast": {"root": 2}}}})).await;
    phases(&chronicle, ROOT_ROTATION[1]).await;
    operator.kill();
    server.forget_leader().await;
    let operator = Operator::start_leading(&server, Options::replica("second")).await;
    settled(&chronicle, ROOT_ROTATION[2], 3).await;
    operator.kill();
    server.forget_leader().await;
    agents.all_hold_what_is_delivered().await;

    let ask = json!({"spec": {"ca": {"atLeast": {"root": 2, "issuing": 3}}}});
    change(&ns.client, "tally", ask).await;
    let _operator = Operator::start_leading(&server, Options::replica("third")).await;
    let end = "root-1 Retiring, root-2 Active, \
               issuing-1 Retiring, issuing-2 Retiring, issuing-3 Active";
    settled(&chronicle, end, 3).await;
    agents.all_hold_what_is_delivered().await;
    let before = agents.tried().await;
    agents.each_tried(before / 6 + 100).await;

    let mut tried = 0;
    for report in agents.reports().await.expect("the agents answer") {
        assert_eq!(report["refused"], 0, "{report:#}");
        for (name, calls) in report["calls"].as_object().expect("it calls") {
            assert_eq!(calls["failed"], 0, "{name}: {report:#}");
            tried += calls["tried"].as_u64().expect("a number");
        }
    }
    println!(
        "a root rotation, an issuing rotation, the operator killed twice: {tried} handshakes tried, 0 failed"
    );
}

struct Agents {
    ns: Arc<Namespace>,
    status_ports: Vec<u16>,
    _feeder: Feeder,
    _processes: Vec<Process>,
}

/// Brings what is delivered to the agents, as a kubelet does but sooner, until it is dropped.
struct Feeder(tokio::task::JoinHandle<()>);

impl Drop for Feeder {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Agents {
    async fn start(ns: &Arc<Namespace>) -> Self {
        let folder = ns.server.folder().join(&ns.name);
        let mut mounts = BTreeMap::new();
        for name in AGENTS {
            let secret = ns.secret_of(name).await;
            let version = secret.metadata.resource_version.clone();
            mounts.insert(name, (Mount::of(folder.join(name), &secret), version));
        }
        let ids = AGENTS.map(|name| format!("spiffe://tally.test/ns/{}/sa/{name}", ns.name));
        let ports = AGENTS.map(|_| workspace::free_port());
        let status_ports = AGENTS.map(|_| workspace::free_port());
        let mut processes = Vec::new();
        for (me, name) in AGENTS.into_iter().enumerate() {
            let mut command = Command::new(workspace::built("agent"));
            command.env_clear().arg("--identity").arg(&mounts[name].0.folder).arg("serve");
            command.args(["--listen", &format!("127.0.0.1:{}", ports[me])]);
            command.args(["--status", &format!("127.0.0.1:{}", status_ports[me])]);
            command.args(["--rate", RATE]);
            for other in (0..AGENTS.len()).filter(|other| *other != me) {
                let (name, port, id) = (AGENTS[other], ports[other], &ids[other]);
                command.args(["--allow", id]);
                command.args(["--call", &format!("{name}=127.0.0.1:{port}={id}")]);
            }
            let log = folder.join(format!("{name}.log"));
            processes.push(Process::spawn(&format!("agent {name}"), command, &log));
        }
        let feeder = Feeder(tokio::spawn(feed(Arc::clone(ns), mounts)));
        let (ns, status_ports) = (Arc::clone(ns), status_ports.to_vec());
        Self { ns, status_ports, _feeder: feeder, _processes: processes }
    }

    async fn reports(&self) -> std::io::Result<Vec<Value>> {
        let mut reports = Vec::new();
        for port in &self.status_ports {
            let mut text = String::new();
            let mut stream = TcpStream::connect(("127.0.0.1", *port)).await?;
            stream.read_to_string(&mut text).await?;
            reports.push(serde_json::from_str(&text).map_err(std::io::Error::other)?);
        }
        Ok(reports)
    }

    async fn tried(&self) -> u64 {
        let reports = self.reports().await.expect("the agents answer");
        reports.iter().flat_map(calls).sum()
    }

    /// Waits until each agent has called each other this often.
    async fn each_tried(&self, least: u64) {
        wait_for(&format!("{least} handshakes of each pair"), seconds(60), async || {
            let reports = self.reports().await.map_err(|error| error.to_string())?;
            let least_tried = reports.iter().flat_map(calls).min();
            if least_tried >= Some(least) { Ok(()) } else { Err(format!("{least_tried:?}")) }
        })
        .await;
    }

    async fn all_hold_what_is_delivered(&self) {
        for (name, port) in AGENTS.iter().zip(0..) {
            wait_for(&format!("{name} has taken up what is delivered"), seconds(20), async || {
                let serial = Delivered::read(&self.ns.secret_of(name).await).leaf().serial;
                let reports = self.reports().await.map_err(|error| error.to_string())?;
                let held = reports[port]["identity"]["serial"].as_str().unwrap_or_default();
                let held = held.replace(':', "").trim_start_matches('0').to_lowercase();
                if held == serial { Ok(()) } else { Err(format!("{held}, not {serial}")) }
            })
            .await;
        }
    }
}

fn calls(report: &Value) -> Vec<u64> {
    let calls = report["calls"].as_object().expect("it calls");
    calls.values().map(|calls| calls["tried"].as_u64().unwrap_or_default()).collect()
}

async fn feed(ns: Arc<Namespace>, mut mounts: BTreeMap<&str, (Mount, Option<String>)>) {
    let mut look = tokio::time::interval(Duration::from_millis(100));
    loop {
        look.tick().await;
        for (name, (mount, version)) in &mut mounts {
            let secret = ns.secret_of(name).await;
            if secret.metadata.resource_version != *version {
                version.clone_from(&secret.metadata.resource_version);
                mount.update(&secret);
            }
        }
    }
}
