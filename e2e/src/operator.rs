//! The operator, the real program, as a child process beside the test.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::process::{Process, Signal};
use crate::users::{OPERATOR_NAMESPACE, User};
use crate::wait::{seconds, wait_for};
use crate::web::{self, Page};
use crate::{ApiServer, workspace};

/// How to start it.
#[derive(Clone, Debug)]
pub struct Options {
    /// What it calls itself in the Lease.
    pub replica: String,
    /// Further arguments.
    pub arguments: Vec<String>,
    /// Whom the API server takes it for.
    pub user: User,
    /// The log filter.
    pub log: String,
    /// How many seconds have passed for everybody: its clock is ahead by as much, and it is told
    /// not to mind that the API server's is not.
    pub clock_ahead: i64,
    /// What it finds in its environment besides.
    pub environment: Vec<(String, String)>,
    /// By how many seconds its clock alone is wrong. Once this is given, 0 included, the test can
    /// make it jump ([`Operator::set_clock`]).
    pub clock_wrong: Option<i64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            replica: "first".into(),
            arguments: Vec::new(),
            user: User::Operator,
            log: "info,countersign=debug".into(),
            clock_ahead: 0,
            environment: Vec::new(),
            clock_wrong: None,
        }
    }
}

impl Options {
    /// The second of two replicas, and so on.
    pub fn replica(name: &str) -> Self {
        Self { replica: name.into(), ..Self::default() }
    }
}

/// A running operator. It is killed when this is dropped.
pub struct Operator {
    process: Process,
    clock: Option<Clock>,
    address: SocketAddr,
    /// Where it serves CRLs.
    pub crls: SocketAddr,
}

impl Operator {
    /// Starts it and waits until it answers; whether it leads is another matter.
    pub async fn start(server: &ApiServer, options: Options) -> Self {
        let mut operator = Self::spawn(server, options);
        operator.answers().await;
        operator
    }

    /// Starts it and does not wait for anything.
    pub fn spawn(server: &ApiServer, options: Options) -> Self {
        let port = workspace::free_port();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let log = log_file(server, &options.replica);
        let (mut command, clock) = command_with_clock(server, &options);
        command.arg("--listen").arg(address.to_string());
        let crls = SocketAddr::from(([127, 0, 0, 1], workspace::free_port()));
        command.arg("--crl-listen").arg(crls.to_string());
        command.arg("--crl-url").arg(format!("http://{crls}"));
        let process = Process::spawn(&format!("countersign {}", options.replica), command, &log);
        Self { process, clock, address, crls }
    }

    /// Starts it and waits until it acts.
    pub async fn start_leading(server: &ApiServer, options: Options) -> Self {
        let operator = Self::start(server, options).await;
        operator.leads_within(seconds(30)).await;
        operator
    }

    /// A page of its HTTP server.
    pub async fn page(&self, path: &str) -> std::io::Result<Page> {
        web::get(self.address, path).await
    }

    /// Its metrics now.
    pub async fn metrics(&self) -> Metrics {
        let page = self.page("/metrics").await.expect("the operator serves /metrics");
        assert_eq!(page.status, 200, "/metrics: {}", page.body);
        Metrics::parse(&page.body)
    }

    /// Waits until its own gauge says that it leads.
    pub async fn leads_within(&self, limit: Duration) {
        wait_for("the operator leads", limit, async || {
            let page = self.page("/metrics").await.map_err(|error| error.to_string())?;
            match Metrics::parse(&page.body).get("countersign_leader", &[]) {
                Some(1.0) => Ok(()),
                other => Err(format!("countersign_leader is {other:?}; log:\n{}", self.log())),
            }
        })
        .await;
    }

    /// True if and only if its own gauge says that it leads.
    pub async fn leads(&self) -> bool {
        self.metrics().await.get("countersign_leader", &[]) == Some(1.0)
    }

    /// Has its clock jump, and nobody else's: it is ahead by this many seconds, or behind.
    pub fn set_clock(&self, seconds: i64) {
        self.clock.as_ref().expect("Options::clock_wrong was given").set(seconds);
    }

    /// All it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Asks it to end (SIGTERM) and waits for that.
    pub async fn stop(mut self, limit: Duration) -> ExitStatus {
        self.process.signal(Signal::Terminate);
        self.process.exits_within(limit).await
    }

    /// True if and only if it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.process.exit_status().is_some()
    }

    /// Waits until it ends by itself.
    pub async fn exits_within(&mut self, limit: Duration) -> ExitStatus {
        self.process.exits_within(limit).await
    }

    /// Ends it between two instructions (SIGKILL).
    pub fn kill(mut self) {
        self.process.kill();
    }

    /// Holds it: it neither runs nor knows (SIGSTOP).
    pub fn pause(&self) {
        self.process.signal(Signal::Stop);
    }

    /// Lets it run again (SIGCONT).
    pub fn resume(&self) {
        self.process.signal(Signal::Continue);
    }

    async fn answers(&mut self) {
        let address = self.address;
        wait_for("the operator answers /healthz", seconds(30), async || {
            if let Some(status) = self.process.exit_status() {
                panic!("the operator ended ({status}); its log:\n{}", self.process.log());
            }
            match web::get(address, "/healthz").await {
                Ok(page) if page.status == 200 => Ok(()),
                other => Err(format!("{other:?}; log:\n{}", self.process.log())),
            }
        })
        .await;
    }
}

/// The command line of an operator for `server`, without `--listen`.
pub fn command(server: &ApiServer, options: &Options) -> Command {
    command_with_clock(server, options).0
}

fn command_with_clock(server: &ApiServer, options: &Options) -> (Command, Option<Clock>) {
    let mut command = Command::new(workspace::built("countersign"));
    command
        .env_clear()
        .arg("run")
        .arg("--kubeconfig")
        .arg(server.kubeconfig(options.user))
        .args(["--namespace", OPERATOR_NAMESPACE])
        .args(["--replica", &options.replica])
        .args(["--log", &options.log])
        .args(&options.arguments)
        .envs(options.environment.iter().map(|(name, value)| (name, value)));
    if options.clock_ahead != 0 {
        command.args(["--max-clock-skew", "876000h"]);
    }
    let ahead = Some(options.clock_ahead).filter(|ahead| *ahead != 0);
    let clock = options.clock_wrong.or(ahead).map(|off| Clock::of(&mut command, off));
    (command, clock)
}

fn log_file(server: &ApiServer, replica: &str) -> PathBuf {
    server.folder().join(format!("operator-{replica}.log"))
}
