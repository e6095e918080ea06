//! Programs of others, and our own agent, that serve mutual TLS from the files of one volume and
//! refuse whom its `crl.pem` takes back:
//!
//! | reader | sees a changed `crl.pem` |
//! |---|---|
//! | `Rustls` | looks each second (e2e/agent) |
//! | `Go`, `GoSpiffe`, `Python` | read it for each handshake (e2e/judges/refuser) |
//! | `Envoy` | watches the directory |
//! | `Nginx` | on SIGHUP |
//! | `OpenSsl` | `s_server` reads it at its start alone |

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::Delivered;
use crate::envoy::{self, client};
use crate::process::{Process, Signal};
use crate::workspace;

/// On a busy machine an answer may take long.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Our agent: rustls and webpki.
    Rustls,
    /// `openssl s_server -crl_check_all`.
    OpenSsl,
    /// Python's ssl, which is OpenSSL, checking leaves alone.
    Python,
    /// crypto/tls with the check that docs/revocation.md shows.
    Go,
    /// go-spiffe with the same.
    GoSpiffe,
    /// Envoy, with `envoy-trust-crl.yaml`.
    Envoy,
    /// nginx, with `ssl_crl`.
    Nginx,
}

/// All of them.
pub const KINDS: [Kind; 7] =
    [Kind::Rustls, Kind::OpenSsl, Kind::Python, Kind::Go, Kind::GoSpiffe, Kind::Envoy, Kind::Nginx];

/// What became of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was answered.
    Served,
    /// It was refused, in the words that came.
    Refused(String),
    /// Nobody listens.
    NotReached,
}

/// A running one.
pub struct Reader {
    /// What it is.
    pub kind: Kind,
    port: u16,
    mount: PathBuf,
    folder: PathBuf,
    process: Process,
}

impl Reader {
    /// Starts one that reads `mount` and keeps its own files in `folder`. Those who may call ours
    /// are `allowed`; the others ask for no name.
    pub fn start(kind: Kind, folder: &Path, mount: &Path, allowed: &[&str]) -> Self {
        let folder = folder.join(format!("{kind:?}"));
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        let port = workspace::free_port();
        if kind == Kind::Rustls {
            std::fs::write(folder.join("allowed"), allowed.join(",")).expect("it is writable");
        }
        let process = spawn(kind, &folder, mount, port);
        Self { kind, port, mount: mount.to_owned(), folder, process }
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What its keeper does when the volume has changed; most do it themselves.
    pub fn tell(&mut self) {
        match self.kind {
            Kind::Nginx => self.process.signal(Signal::Reload),
            Kind::OpenSsl => {
                self.process.kill();
                self.process = spawn(self.kind, &self.folder, &self.mount, self.port);
            }
            _ => {}
        }
    }

    /// Calls it once over a new connection.
    pub async fn verdict(&self, caller: &Delivered) -> Verdict {
        match tokio::time::timeout(PATIENCE, self.call(caller)).await {
            Ok(Ok(answer)) if answer.contains("200") || answer.contains("i_accepted") => {
                Verdict::Served
            }
            // nginx completes the handshake and says so in HTTP.
            Ok(Ok(answer)) if answer.is_empty() || answer.contains(" 400 ") => {
                Verdict::Refused(answer.lines().next().unwrap_or("no answer").to_owned())
            }
            Ok(Ok(answer)) => panic!("{:?}: that is no verdict: {answer}", self.kind),
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                Verdict::NotReached
            }
            Ok(Err(error)) => {
                let words = error.to_string();
                assert!(!words.contains("ProtocolVersion"), "{:?}: {words}", self.kind);
                Verdict::Refused(words)
            }
            Err(_) => Verdict::NotReached,
        }
    }

    async fn call(&self, caller: &Delivered) -> io::Result<String> {
        let mut config = client(&caller.bundle)
            .with_client_auth_cert(caller.chain.clone(), caller.key.clone_key())
            .map_err(io::Error::other)?;
        config.resumption = Resumption::disabled();
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let name = ServerName::try_from("localhost").expect("it is a name");
        let mut tls = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        let words = match self.kind {
            Kind::Rustls => "hello\n",
            _ => "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        };
        // The refusal comes when we read; a write may fail before it.
        let _ = tls.write_all(words.as_bytes()).await;
        let mut answer = Vec::new();
        match tls.read_to_end(&mut answer).await {
            Err(error) if answer.is_empty() => Err(error),
            _ => Ok(String::from_utf8_lossy(&answer).into_owned()),
        }
    }

    /// Waits until `expected` is what `caller` gets, and says how long that took.
    pub async fn comes_to(&self, caller: &Delivered, expected: fn(&Verdict) -> bool) -> Duration {
        let began = Instant::now();
        loop {
            let verdict = self.verdict(caller).await;
            let took = began.elapsed();
            if expected(&verdict) {
                return took;
            }
            assert!(took < 2 * PATIENCE, "{:?} does not come to it: {verdict:?}", self.kind);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

impl Reader {
    /// Waits until `caller` is refused for good: twenty times running. Says how long it took to the
    /// first of them. (nginx's old worker may answer once more beside the new one.)
    pub async fn comes_to_refuse(&self, caller: &Delivered) -> Duration {
        let began = Instant::now();
        loop {
            self.comes_to(caller, Verdict::is_refused).await;
            let took = began.elapsed();
            let mut refused = 1;
            while refused < 20 && self.verdict(caller).await.is_refused() {
                refused += 1;
            }
            if refused == 20 {
                return took;
            }
            assert!(took < 2 * PATIENCE, "{:?} refuses, and then does not", self.kind);
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // nginx's workers outlive a master that is killed.
        if self.kind == Kind::Nginx {
            self.process.signal(Signal::Terminate);
            let began = Instant::now();
            while self.process.exit_status().is_none() && began.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

impl Verdict {
    /// True if and only if it was answered.
    pub fn is_served(&self) -> bool {
        *self == Self::Served
    }

    /// True if and only if somebody listened and refused.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Refused(_))
    }
}

fn spawn(kind: Kind, folder: &Path, mount: &Path, port: u16) -> Process {
    let file = |name: &str| mount.join(name);
    let here = format!("127.0.0.1:{port}");
    let refuser = workspace::root().join("e2e/judges/refuser/refuser.py");
    let mut command = match kind {
        Kind::Rustls => {
            let mut command = Command::new(workspace::built("agent"));
            let allowed = std::fs::read_to_string(folder.join("allowed")).expect("it was written");
            command.arg("--identity").arg(mount).args(["serve", "--listen", &here]);
            command.args(["--allow", &allowed]);
            command.args(["--status", &format!("127.0.0.1:{}", workspace::free_port())]);
            command
        }
        Kind::OpenSsl => {
            // -CRL takes one list; what -CAfile names may hold certificates and lists.
            let trust = folder.join("trust.pem");
            let both = ["ca.crt", "crl.pem"].map(|name| std::fs::read(file(name)).expect("a file"));
            std::fs::write(&trust, both.concat()).expect("it is writable");
            let mut command = Command::new("openssl");
            command.args(["s_server", "-accept", &here, "-www", "-no_ticket", "-naccept", "1000"]);
            command.args(["-Verify", "3", "-verify_return_error", "-crl_check_all"]);
            command.arg("-CAfile").arg(trust).arg("-cert").arg(file("tls.crt"));
            command.arg("-cert_chain").arg(file("tls.crt")).arg("-key").arg(file("tls.key"));
            command
        }
        Kind::Python => {
            let mut command = Command::new("python3");
            command.arg(refuser).arg(mount).arg(port.to_string());
            command
        }
        Kind::Go | Kind::GoSpiffe => {
            let mut command = Command::new(workspace::tool("refuser"));
            command.arg(if kind == Kind::Go { "serve" } else { "spiffe" }).arg(mount).arg(&here);
            command
        }
        Kind::Envoy => {
            let configuration = folder.join("envoy.yaml");
            let setup = envoy::Setup { trust: "envoy-trust-crl.yaml", ..Default::default() };
            let text = envoy::configuration(port, mount, &setup);
            std::fs::write(&configuration, text).expect("it is writable");
            let mut command = Command::new(workspace::tool("envoy"));
            command.arg("--config-path").arg(configuration);
            command.args(["--log-level", "info", "--concurrency", "1", "--disable-hot-restart"]);
            command
        }
        Kind::Nginx => {
            let configuration = folder.join("nginx.conf");
            std::fs::write(&configuration, nginx(folder, mount, port)).expect("it is writable");
            let mut command = Command::new(workspace::tool("nginx"));
            command.arg("-e").arg("stderr").arg("-p").arg(folder).arg("-c").arg(configuration);
            command
        }
    };
    command.env_remove("COUNTERSIGN_LOG");
    Process::spawn(&format!("{kind:?}"), command, &folder.join("log"))
}

/// Sessions are neither stored nor handed out: a resumed one would not be checked again.
fn nginx(folder: &Path, mount: &Path, port: u16) -> String {
    let (folder, mount) = (folder.display(), mount.display());
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("  {kind}_temp_path {folder}/{kind};\n"))
        .collect();
    format!(
        "daemon off;
pid {folder}/pid;
worker_processes 1;
events {{}}
http {{
  access_log off;
{temporary}  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {mount}/tls.crt;
    ssl_certificate_key {mount}/tls.key;
    ssl_client_certificate {mount}/ca.crt;
    ssl_crl {mount}/crl.pem;
    ssl_verify_client on;
    ssl_verify_depth 2;
    ssl_protocols TLSv1.3;
    ssl_session_cache off;
    ssl_session_tickets off;
    return 200 hello;
  }}
}}
"
    )
}
