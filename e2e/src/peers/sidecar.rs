//! Envoy beside an agent: mutual TLS outside, plain connections inside, as a sidecar works.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign::api::names::{ENVOY_IDENTITY, ENVOY_TRUST};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::Member;
use super::tally::Pair;
use crate::process::Process;
use crate::{web, workspace};

/// On a busy machine a handshake may wait long. That is no failure of a certificate.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running one, and the agent behind it.
pub struct Sidecar {
    _process: Process,
    admin: SocketAddr,
    calls: Arc<Mutex<BTreeMap<String, Pair>>>,
    _tasks: JoinSet<()>,
}

impl Sidecar {
    /// Starts both.
    pub async fn start(member: &Member<'_>, folder: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let inside = listener.local_addr().expect("it has an address").port();
        let admin = SocketAddr::from(([127, 0, 0, 1], workspace::free_port()));
        let doors: Vec<u16> = member.crew.iter().map(|_| workspace::free_port()).collect();
        let file = folder.join("envoy.json");
        let text = configuration(member, admin.port(), inside, &doors);
        std::fs::write(&file, text.to_string()).expect("the folder is writable");
        let mut command = Command::new(workspace::tool("envoy"));
        command.arg("--config-path").arg(&file);
        command.args(["--log-level", "info", "--concurrency", "1", "--disable-hot-restart"]);
        let process = Process::spawn("envoy", command, &folder.join("envoy.log"));

        let calls = Arc::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, member.id.to_owned()));
        for ((name, _, id), door) in member.crew.iter().zip(doors) {
            let (name, id) = (String::from(*name), id.clone());
            tasks.spawn(call(door, name, id, member.rate, Arc::clone(&calls)));
        }
        Self { _process: process, admin, calls, _tasks: tasks }
    }

    /// What came of its calls, by whom it called.
    pub fn calls(&self) -> BTreeMap<String, Pair> {
        self.calls.lock().expect("nobody panics while it counts").clone()
    }

    /// What went wrong in TLS and what was resumed, as Envoy itself counts it. (Before it has its
    /// files it refuses everybody without a handshake, and counts that apart.)
    pub async fn faults(&self) -> std::io::Result<Vec<String>> {
        let counts = web::get(self.admin, "/stats?filter=ssl").await?.body;
        let is_fault = |name: &str| {
            name.contains("ssl.fail_")
                || name.ends_with("ssl.connection_error")
                || name.ends_with("ssl.session_reused")
        };
        let faults = counts.lines().filter(|line| match line.split_once(": ") {
            Some((name, count)) => is_fault(name) && count != "0",
            None => false,
        });
        Ok(faults.map(|line| format!("envoy counts {line}")).collect())
    }
}

/// The agent behind Envoy answers whoever was let in. Who that is, Envoy alone knows.
async fn serve(listener: TcpListener, me: String) {
    let answer = json!({
        "i_am": me, "i_accepted": "(Envoy knows)", "with_serial": "", "chained_to": "",
    });
    let answer = format!("{answer}\n");
    let mut under_way = JoinSet::new();
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            under_way.spawn(tokio::time::timeout(PATIENCE, async move {
                let mut stream = BufReader::new(stream);
                let mut line = String::new();
                if stream.read_line(&mut line).await.is_ok() && line == "hello\n" {
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            }));
        }
        while under_way.try_join_next().is_some() {}
    }
}

/// Calls through Envoy for ever: it opens a connection of its own for each.
async fn call(
    door: u16,
    name: String,
    id: String,
    rate: f64,
    calls: Arc<Mutex<BTreeMap<String, Pair>>>,
) {
    let mut turn = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
    turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        turn.tick().await;
        let outcome = tokio::time::timeout(PATIENCE, exchange(door)).await;
        let outcome = match outcome {
            Ok(Ok(answer)) if answer["i_am"] == id => {
                Ok(answer["with_serial"].as_str().unwrap_or_default().to_owned())
            }
            Ok(Ok(answer)) => Err(format!("{name} says {answer}")),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no answer in time".to_owned()),
        };
        let mut calls = calls.lock().expect("nobody panics while it counts");
        calls.entry(name.clone()).or_default().count(outcome);
    }
}

async fn exchange(door: u16) -> std::io::Result<Value> {
    let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", door)).await?);
    stream.write_all(b"hello\n").await?;
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    serde_json::from_str(&line).map_err(|_| std::io::Error::other(format!("answer {line:?}")))
}

/// A listener outside and one inside for each whom it calls. Nothing is resumed: each connection
/// is a full handshake.
fn configuration(member: &Member<'_>, admin: u16, inside: u16, doors: &[u16]) -> Value {
    let ids: Vec<&str> = member.crew.iter().map(|(_, _, id)| id.as_str()).collect();
    let mut outside = listener("outside", member.port, "agent");
    outside["filter_chains"][0]["transport_socket"] = tls(
        "Downstream",
        member.files,
        &ids,
        json!({
            "require_client_certificate": true,
            "disable_stateless_session_resumption": true,
            "disable_stateful_session_resumption": true,
        }),
    );
    let (mut listeners, mut clusters) = (vec![outside], vec![cluster("agent", inside)]);
    for ((name, port, id), door) in member.crew.iter().zip(doors) {
        listeners.push(listener(&format!("to-{name}"), *door, name));
        let mut cluster = cluster(name, *port);
        cluster["transport_socket"] =
            tls("Upstream", member.files, &[id], json!({"max_session_keys": 0}));
        clusters.push(cluster);
    }
    json!({
        "node": {"id": "test", "cluster": "test"},
        "admin": {"address": address(admin)},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    })
}

fn address(port: u16) -> Value {
    json!({"socket_address": {"address": "127.0.0.1", "port_value": port}})
}

/// Whatever connects here goes to a cluster, each over a connection of its own.
fn listener(name: &str, port: u16, cluster: &str) -> Value {
    let proxy = typed(
        "filters.network.tcp_proxy.v3.TcpProxy",
        json!({"stat_prefix": name, "cluster": cluster}),
    );
    let filter = json!({"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy});
    json!({"name": name, "address": address(port), "filter_chains": [{"filters": [filter]}]})
}

fn cluster(name: &str, port: u16) -> Value {
    let endpoint = json!({"endpoint": {"address": address(port)}});
    let assignment = json!({"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]});
    json!({"name": name, "type": "STATIC", "load_assignment": assignment})
}

/// Mutual TLS with one of `ids`, by the files of `mount`.
fn tls(side: &str, mount: &Path, ids: &[&str], more: Value) -> Value {
    let secret = |name: &str, file: &str| {
        let source = json!({"path": mount.join(file), "watched_directory": {"path": mount}});
        let source = json!({"path_config_source": source, "resource_api_version": "V3"});
        json!({"name": name, "sds_config": source})
    };
    let name = |id: &&str| json!({"san_type": "URI", "matcher": {"exact": id}});
    let names: Vec<Value> = ids.iter().map(name).collect();
    let mut context = more;
    context["common_tls_context"] = json!({
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificate_sds_secret_configs": [secret("identity", ENVOY_IDENTITY)],
        "combined_validation_context": {
            "default_validation_context": {"match_typed_subject_alt_names": names},
            "validation_context_sds_secret_config": secret("trust", ENVOY_TRUST),
        },
    });
    let context = typed(&format!("transport_sockets.tls.v3.{side}TlsContext"), context);
    json!({"name": "envoy.transport_sockets.tls", "typed_config": context})
}

fn typed(kind: &str, mut value: Value) -> Value {
    value["@type"] = json!(format!("type.googleapis.com/envoy.extensions.{kind}"));
    value
}
