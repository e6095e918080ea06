//! Somebody else's trust domain: a small HTTPS server that gives out its bundle, or does not.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::corporate::{Ca, P256, Shape};

/// What it answers to everybody.
#[derive(Clone)]
pub enum Answer {
    /// A page with an ETag; 304 to whoever has it.
    Page(String),
    /// This status, and this header.
    Status(&'static str, &'static str),
    /// A head and then, now and then, a byte.
    Drip,
}

/// A running server. It ends with the runtime of the test that started it.
pub struct Partner {
    /// `https://127.0.0.1:.../bundle`
    pub url: String,
    /// The CA under which its certificate is.
    pub ca: Ca,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

struct State {
    answer: Answer,
    requests: usize,
    unchanged: usize,
}

impl Partner {
    /// Starts one that gives out this page.
    pub async fn start(page: String) -> Self {
        let ca = Ca::root(Shape::of(P256));
        let extensions = "basicConstraints=critical,CA:FALSE\n\
                          keyUsage=critical,digitalSignature\n\
                          subjectAltName=IP:127.0.0.1\n";
        let own = ca.under("partner", Shape { extensions, ..Shape::of(P256) });
        let chain =
            CertificateDer::pem_slice_iter(own.certificate.as_bytes()).collect::<Result<_, _>>();
        let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).expect("OpenSSL made it");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_no_client_auth()
            .with_single_cert(chain.expect("OpenSSL made it"), key)
            .expect("the key is the certificate's");
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await;
        let listener = listener.expect("there is a free port");
        let address = listener.local_addr().expect("it is bound");
        let state = State { answer: Answer::Page(page), requests: 0, unchanged: 0 };
        let state = Arc::new(Mutex::new(state));
        let task =
            tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(config)), state.clone()));
        Partner { url: format!("https://{address}/bundle"), ca, state, task }
    }

    /// What it answers from now on.
    pub fn answers(&self, answer: Answer) {
        self.state.lock().expect("nobody panicked").answer = answer;
    }

    /// The requests that it has answered, and how many of them with 304.
    pub fn requests(&self) -> (usize, usize) {
        let state = self.state.lock().expect("nobody panicked");
        (state.requests, state.unchanged)
    }

    /// Ends it: its port is closed when this returns.
    pub async fn stop(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, state: Arc<Mutex<State>>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (tls, state) = (tls.clone(), state.clone());
        // Whoever does not trust it, or goes away early, is no reason to end.
        tokio::spawn(async move { answer(stream, tls, state).await.ok() });
    }
}

async fn answer(
    stream: TcpStream,
    tls: TlsAcceptor,
    state: Arc<Mutex<State>>,
) -> std::io::Result<()> {
    let mut stream = tls.accept(stream).await?;
    let mut request = String::new();
    while !request.ends_with("\r\n\r\n") {
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        request.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    let answer = {
        let mut state = state.lock().expect("nobody panicked");
        state.requests += 1;
        state.answer.clone()
    };
    let text = match answer {
        Answer::Page(page) => {
            let etag: String =
                Sha256::digest(&page).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            if request.contains(&format!("if-none-match: \"{etag}\"\r\n")) {
                state.lock().expect("nobody panicked").unchanged += 1;
                "HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n".to_owned()
            } else {
                format!(
                    "HTTP/1.1 200 OK\r\nETag: \"{etag}\"\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}",
                    page.len()
                )
            }
        }
        Answer::Status(status, header) => {
            format!(
                "HTTP/1.1 {status}\r\n{header}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
        }
        Answer::Drip => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n").await?;
            loop {
                stream.write_all(b"-").await?;
                stream.flush().await?;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    };
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}
