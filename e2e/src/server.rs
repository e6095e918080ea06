//! A real etcd and a real kube-apiserver as child processes, ready in seconds.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use k8s_openapi::api::coordination::v1::Lease;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt};

use crate::audit::{self, Requests};
use crate::policies::Policies;
use crate::process::{Process, Signal};
use crate::users::{self, User};
use crate::wait::{seconds, wait_for};
use crate::{install, workspace};

/// A running API server with the CRDs, the operator's rights, the admission policies, and a controller manager that
/// collects garbage and makes ServiceAccounts. It goes when this is dropped.
pub struct ApiServer {
    folder: PathBuf,
    /// Further arguments of the API server.
    arguments: Vec<String>,
    etcd_port: u16,
    port: u16,
    // In the order of dropping: nobody talks to what has gone.
    controllers: Mutex<Option<Process>>,
    api_server: Mutex<Option<Process>>,
    etcd: Mutex<Option<Process>>,
}

impl ApiServer {
    /// Starts one on free ports, with an empty store.
    pub async fn start() -> Arc<Self> {
        Self::start_with(Policies::Deny, &[]).await
    }

    /// Starts one whose admission policies do this, with further arguments.
    pub async fn start_with(policies: Policies, arguments: &[&str]) -> Arc<Self> {
        for _ in 0..3 {
            if let Some(server) = Self::try_start(policies, arguments).await {
                return Arc::new(server);
            }
        }
        panic!("somebody took the API server's port three times; see target/e2e");
    }

    /// `None` where another process took a port between choosing and using it.
    async fn try_start(policies: Policies, arguments: &[&str]) -> Option<Self> {
        let server = Self {
            folder: workspace::scratch("apiserver"),
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            etcd_port: workspace::free_port(),
            port: workspace::free_port(),
            controllers: Mutex::default(),
            api_server: Mutex::default(),
            etcd: Mutex::default(),
        };
        server.write_settings();
        server.start_etcd();
        server.start_api_server();
        server.is_ready().await?;
        install::install(&server.client().await, policies).await;
        server.start_controllers();
        Some(server)
    }

    /// A client of the test itself, who may do everything. It belongs to the calling runtime.
    pub async fn client(&self) -> Client {
        self.client_of(User::Admin).await
    }

    /// A client of `user`.
    pub async fn client_of(&self, user: User) -> Client {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig(user)).expect("we wrote it");
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .expect("our kubeconfig is complete");
        Client::try_from(config).expect("our kubeconfig makes a client")
    }

    /// A kubeconfig file of `user`.
    pub fn kubeconfig(&self, user: User) -> PathBuf {
        user.kubeconfig(&self.folder)
    }

    /// kubectl as the test itself.
    pub fn kubectl(&self) -> Command {
        let mut command = Command::new(workspace::tool("kubectl"));
        command.arg("--kubeconfig").arg(self.kubeconfig(User::Admin)).arg("--request-timeout=5s");
        command
    }

    /// The folder of this server's data, logs and kubeconfigs.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What `user` has asked so far.
    pub fn requests_by(&self, user: User) -> Requests {
        audit::requests_by(user, &self.folder.join("audit.log"))
    }

    /// What `user` asks from now on, as it comes.
    pub fn next_requests_by(&self, user: User) -> audit::Tail {
        audit::Tail::of(user, &self.folder.join("audit.log"))
    }

    /// Takes the Lease away from whoever leads, so that the next one leads at once. That a Lease is
    /// respected is `tests/leadership.rs`' matter.
    pub async fn forget_leader(&self) {
        let leases: Api<Lease> =
            Api::namespaced(self.client().await, crate::users::OPERATOR_NAMESPACE);
        wait_for("nobody leads", seconds(60), async || {
            for lease in leases.list(&Default::default()).await? {
                leases.delete(&lease.name_any(), &Default::default()).await?;
            }
            Ok::<_, kube::Error>(())
        })
        .await;
    }

    /// Ends the API server at once; etcd keeps the objects.
    pub fn stop_api_server(&self) {
        self.api_server.lock().expect("no test panics holding this").take();
    }

    /// Starts it again on the same port, and waits until it serves.
    pub async fn restart_api_server(&self) {
        self.stop_api_server();
        self.start_api_server();
        self.is_ready().await.expect("the port is still ours");
    }

    /// Ends etcd at once. The API server answers with errors until it is back.
    pub fn stop_etcd(&self) {
        self.etcd.lock().expect("no test panics holding this").take();
    }

    /// Starts it again on the same data, and waits until the API server serves.
    pub async fn restart_etcd(&self) {
        self.stop_etcd();
        self.start_etcd();
        self.is_ready().await.expect("the API server still runs");
    }

    /// Holds the API server, or lets it run on: connections stay open and nothing answers.
    pub fn signal_api_server(&self, signal: Signal) {
        let held = self.api_server.lock().expect("no test panics holding this");
        held.as_ref().expect("the API server runs").signal(signal);
    }

    fn write_settings(&self) {
        let write = |name: &str, text: &str| {
            std::fs::write(self.folder.join(name), text).expect("the server's folder is writable");
        };
        let key = rcgen::KeyPair::generate().expect("a P-256 key can be made");
        write("service-accounts.key", &key.serialize_pem());
        write("service-accounts.pub", &key.public_key_pem());
        write("tokens.csv", &users::token_file());
        write("audit-policy.yaml", audit::POLICY);
        users::write_kubeconfigs(
            &self.folder,
            &format!("https://127.0.0.1:{}", self.port),
            &self.folder.join("certificates/apiserver.crt"),
        );
    }

    fn start_etcd(&self) {
        let client = format!("http://127.0.0.1:{}", self.etcd_port);
        let mut command = Command::new(workspace::tool("etcd"));
        command
            .arg("--unsafe-no-fsync")
            .arg("--log-level=warn")
            .arg(format!("--data-dir={}", self.folder.join("etcd").display()))
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            // A lone member needs no peers; port 0 is whichever is free.
            .arg("--listen-peer-urls=http://127.0.0.1:0");
        let process = Process::spawn("etcd", command, &self.folder.join("etcd.log"));
        *self.etcd.lock().expect("no test panics holding this") = Some(process);
    }

    fn start_api_server(&self) {
        let file = |name: &str| self.folder.join(name).display().to_string();
        let mut command = Command::new(workspace::tool("kube-apiserver"));
        command
            .arg(format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port))
            .arg("--bind-address=127.0.0.1")
            .arg(format!("--secure-port={}", self.port))
            .arg(format!("--cert-dir={}", file("certificates")))
            .arg("--service-cluster-ip-range=10.96.0.0/16")
            .arg("--service-account-issuer=https://kubernetes.default.svc")
            .arg(format!("--service-account-key-file={}", file("service-accounts.pub")))
            .arg(format!("--service-account-signing-key-file={}", file("service-accounts.key")))
            .arg(format!("--token-auth-file={}", file("tokens.csv")))
            // There is no kubelet, for whom Node is; and it wants kinds that a test may switch off.
            .arg("--authorization-mode=RBAC")
            .arg(format!("--audit-policy-file={}", file("audit-policy.yaml")))
            .arg(format!("--audit-log-path={}", file("audit.log")))
            // Each line is in the file before the next request is answered, so that a test can count.
            .arg("--audit-log-mode=blocking")
            .arg("--audit-log-maxsize=0")
            .arg("--profiling=false")
            .args(&self.arguments);
        let process = Process::spawn("kube-apiserver", command, &self.folder.join("apiserver.log"));
        *self.api_server.lock().expect("no test panics holding this") = Some(process);
    }

    /// Started after the CRDs are there: the garbage collector learns of new kinds only every 30 s.
    fn start_controllers(&self) {
        let kubeconfig = self.kubeconfig(User::Controllers).display().to_string();
        let mut command = Command::new(workspace::tool("kube-controller-manager"));
        command
            .arg(format!("--kubeconfig={kubeconfig}"))
            .arg("--controllers=garbage-collector-controller,namespace-controller,serviceaccount-controller")
            .arg("--leader-elect=false")
            .arg("--secure-port=0");
        let process = Process::spawn(
            "kube-controller-manager",
            command,
            &self.folder.join("controllers.log"),
        );
        *self.controllers.lock().expect("no test panics holding this") = Some(process);
    }

    /// Waits until it serves; `None` where it ends instead.
    async fn is_ready(&self) -> Option<()> {
        wait_for("the API server is ready", seconds(120), async || {
            {
                let mut held = self.api_server.lock().expect("no test panics holding this");
                let process = held.as_mut().expect("it has been started");
                if process.exit_status().is_some() {
                    return match process.log() {
                        log if log.contains("address already in use") => Ok(None),
                        log => panic!("kube-apiserver ended:\n{log}"),
                    };
                }
            }
            if !self.folder.join("certificates/apiserver.crt").exists() {
                return Err("it has made no certificate yet".to_owned());
            }
            let request = http_get("/readyz?verbose");
            match self.client().await.request_text(request).await {
                Ok(_) => Ok(Some(())),
                Err(error) => Err(error.to_string()),
            }
        })
        .await
    }
}

fn http_get(path: &str) -> http::Request<Vec<u8>> {
    http::Request::get(path).body(Vec::new()).expect("a path makes a request")
}
