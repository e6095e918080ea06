//! Agents of four TLS libraries that call each other all the time, each call a full handshake:
//!
//! | agent | what it is | its files |
//! |---|---|---|
//! | `rustls` | `e2e/agent` | `tls.crt` and `tls.key` of its Secret, `ca.crt` of the ConfigMap; looks each second |
//! | `go` | `e2e/judges/peer`: crypto/tls and go-spiffe | the same, read for each handshake |
//! | `openssl` | `e2e/judges/peer.py`: Python's ssl | the same, read for each handshake |
//! | `envoy` | a sidecar: mutual TLS outside, plain inside | the `EnvoySDS` files of its Secret; it is told when they change |
//!
//! Each of them calls all four, so there are 16 pairs. Their volumes are renewed at different
//! times ([`volumes`]), and so at most moments of a rotation two sides hold different versions.

mod sidecar;
mod tally;
mod volumes;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use countersign::api::names::TLS_CRT;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::agents::text_of;
use crate::process::Process;
use crate::wait::{seconds, wait_for};
use crate::{Namespace, judges, workspace};

use sidecar::Sidecar;
use volumes::Volumes;

pub use tally::{Pair, Tally};
pub use volumes::LAG;

/// The agents, and their identities.
pub const CREW: [&str; 4] = ["rustls", "go", "openssl", "envoy"];

/// The agents at work, until this is dropped.
pub struct Crew {
    volumes: Volumes,
    status_ports: Vec<u16>,
    sidecar: Sidecar,
    _processes: Vec<Process>,
}

/// What an agent is told: who it is, and whom it meets where.
struct Member<'a> {
    name: &'a str,
    id: &'a str,
    /// Where it answers, over mutual TLS.
    port: u16,
    files: &'a Path,
    /// All of the crew: name, port and SPIFFE ID.
    crew: &'a [(&'a str, u16, String)],
    /// Calls a second to each.
    rate: f64,
}

impl Crew {
    /// Creates their identities in `ns`, in a TrustDomain `<trust_domain>` of that domain.
    pub async fn identities(ns: &Namespace, trust_domain: &str) {
        for name in CREW {
            let mut spec = json!({"trustDomain": trust_domain});
            if name == "envoy" {
                spec["delivery"] = json!({"formats": ["EnvoySDS"]});
            }
            ns.identity(name, spec).await;
        }
    }

    /// Starts them, with what is delivered to them now. Each calls each other `rate` times a
    /// second at most, one call after the other: a busy machine has fewer calls, not a queue.
    pub async fn start(ns: &Arc<Namespace>, trust_domain: &str, domain: &str, rate: f64) -> Self {
        judges::build();
        let folder = ns.server.folder().join(&ns.name);
        let volumes = Volumes::mount(ns, trust_domain, &folder).await;
        let crew = CREW.map(|name| {
            let id = format!("spiffe://{domain}/ns/{}/sa/{name}", ns.name);
            (name, workspace::free_port(), id)
        });
        let member = |number: usize| {
            let (name, port, id) = &crew[number];
            Member { name, id, port: *port, files: volumes.folder(number), crew: &crew, rate }
        };
        let (mut processes, mut status_ports) = (Vec::new(), Vec::new());
        for number in 0..CREW.len() - 1 {
            let (member, status) = (member(number), workspace::free_port());
            let log = folder.join(format!("{}.log", member.name));
            processes.push(Process::spawn(member.name, command(&member, status), &log));
            status_ports.push(status);
        }
        let sidecar = Sidecar::start(&member(CREW.len() - 1), &folder).await;
        Self { volumes, status_ports, sidecar, _processes: processes }
    }

    /// What came of all their calls so far.
    pub async fn tally(&self) -> Tally {
        wait_for("the agents report", seconds(60), async || self.reports().await).await
    }

    /// Waits until each of them has called each this often.
    pub async fn each_tried(&self, least: u64) -> Tally {
        wait_for(&format!("{least} handshakes of each pair"), seconds(120), async || {
            let tally = self.reports().await?;
            if tally.fewest() >= least { Ok(tally) } else { Err(format!("\n{tally}")) }
        })
        .await
    }

    /// Waits until each volume shows this many roots, and every agent must have taken them up.
    pub async fn all_trust(&self, roots: usize) {
        wait_for(&format!("all volumes show {roots} roots"), seconds(60), async || {
            let shown = self.volumes.roots();
            if shown.iter().all(|count| *count == roots) { Ok(()) } else { Err(shown) }
        })
        .await;
    }

    /// Waits until each volume shows the certificate that its Secret holds.
    pub async fn all_hold_what_is_delivered(&self, ns: &Namespace) {
        wait_for("all volumes show what is delivered", seconds(60), async || {
            let chains = self.volumes.chains();
            for (name, chain) in CREW.into_iter().zip(chains) {
                if text_of(&ns.secret_of(name).await, TLS_CRT) != chain {
                    return Err(format!("{name} holds another certificate"));
                }
            }
            Ok(())
        })
        .await;
    }

    async fn reports(&self) -> Result<Tally, String> {
        let mut tally = Tally::default();
        for (name, port) in CREW.into_iter().zip(&self.status_ports) {
            let report = report(*port).await.map_err(|error| format!("{name}: {error}"))?;
            tally.take_report(name, &report);
        }
        tally.take_calls("envoy", self.sidecar.calls());
        let faults = self.sidecar.faults().await.map_err(|error| format!("envoy: {error}"))?;
        tally.faults.extend(faults);
        Ok(tally)
    }
}

fn command(member: &Member<'_>, status: u16) -> Command {
    let mut command = match member.name {
        "rustls" => {
            let mut command = Command::new(workspace::built("agent"));
            command.arg("serve");
            command
        }
        "go" => Command::new(workspace::tool("peer")),
        "openssl" => {
            let mut command = Command::new("python3");
            command.arg(workspace::root().join("e2e/judges/peer.py")).args(["--me", member.id]);
            command
        }
        other => unreachable!("{other} has no such program"),
    };
    command.arg("--identity").arg(member.files).args(["--rate", &member.rate.to_string()]);
    command.args(["--listen", &format!("127.0.0.1:{}", member.port)]);
    command.args(["--status", &format!("127.0.0.1:{status}")]);
    for (name, port, id) in member.crew {
        command.args(["--allow", id, "--call", &format!("{name}=127.0.0.1:{port}={id}")]);
    }
    command
}

/// What an agent tells whoever connects.
async fn report(port: u16) -> std::io::Result<Value> {
    let mut text = String::new();
    TcpStream::connect(("127.0.0.1", port)).await?.read_to_string(&mut text).await?;
    serde_json::from_str(&text).map_err(std::io::Error::other)
}
