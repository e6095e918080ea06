//! The operator, the real program, as a child process beside the test.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use crate::metrics::Metrics;
use crate::process::{Process, Signal};
use crate::users::{OPERATOR_NAMESPACE, User};
use crate::wait::{seconds, wait_for};
use crate::web::{self, Page};
use crate::{ApiServer, clock, workspace};

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
    /// By how many seconds its clock is ahead.
    pub clock_ahead: i64,
    /// What it finds in its environment besides.
    pub environment: Vec<(String, String)>,
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
    address: SocketAddr,
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
        let mut command = command(server, &options);
        command.arg("--listen").arg(address.to_string());
        let process = Process::spawn(&format!("countersign {}", options.replica), command, &log);
        Self { process, address }
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
        clock::set_off(&mut command, options.clock_ahead);
    }
    command
}

fn log_file(server: &ApiServer, replica: &str) -> PathBuf {
    server.folder().join(format!("operator-{replica}.log"))
}
