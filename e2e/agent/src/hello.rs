//! The conversation: `hello`, and an answer that says who is who. One line each way, over mutual TLS.
//!
//! `hello` ends with its answer. Who says `again` is answered the same, and may say it again over the same connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::sign::CertifiedKey;
use rustls_pki_types::ServerName;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::certificate::Facts;
use crate::explain;
use crate::tls;
use crate::verify::{Accepted, Refusal, SharedNotes, Trust, read_notes};

pub const HELLO: &str = "hello";
pub const AGAIN: &str = "again";
const LONGEST_LINE: u64 = 64 * 1024;
const PATIENCE: Duration = Duration::from_secs(5);

/// What a server answers to `hello`, and so its verdict in its own words.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    pub i_am: String,
    pub i_accepted: String,
    pub with_serial: String,
    pub chained_to: String,
}

/// One conversation that succeeded.
pub struct Exchange {
    pub answer: Answer,
    /// The server's certificate, as verified.
    pub peer: Facts,
    pub cipher_suite: String,
    pub sent: usize,
    pub received: usize,
}

/// One that did not, by whose decision.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("no connection: {0}")]
    NotReached(String),
    #[error("we refused the server: {0}")]
    WeRefused(Refusal),
    #[error("the server refused us: {0}")]
    TheyRefused(String),
    #[error("the conversation broke: {0}")]
    Broken(String),
}

/// What a client brings along.
pub struct Caller {
    pub key: Option<Arc<CertifiedKey>>,
    pub trust: Arc<Trust>,
}

/// Connects, shakes hands in full, says hello and reads the answer; in five seconds or not at all.
pub async fn exchange(
    caller: Caller,
    to: &str,
    expect: &str,
    notes: SharedNotes,
) -> Result<Exchange, Failure> {
    tokio::time::timeout(PATIENCE, async {
        let stream = connect(to).await?;
        converse(caller, stream, expect, notes).await
    })
    .await
    .unwrap_or_else(|_| Err(Failure::Broken(format!("no answer within {} s", PATIENCE.as_secs()))))
}

/// Name resolution and TCP.
pub async fn connect(to: &str) -> Result<TcpStream, Failure> {
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host(to)
        .await
        .map_err(|error| Failure::NotReached(format!("{to}: {error}")))?
        .collect();
    let stream = TcpStream::connect(&*addresses)
        .await
        .map_err(|error| Failure::NotReached(format!("{to}: {error}")))?;
    // One line each way: nothing is gained by waiting to fill a packet.
    stream.set_nodelay(true).ok();
    Ok(stream)
}

async fn converse(
    caller: Caller,
    stream: TcpStream,
    expect: &str,
    notes: SharedNotes,
) -> Result<Exchange, Failure> {
    let mut stream = shake_hands(caller, stream, expect, &notes).await?;
    let (sent, received) = say(&mut stream, HELLO, &notes).await?;
    let cipher_suite = stream
        .get_ref()
        .1
        .negotiated_cipher_suite()
        .map_or("?".to_owned(), |suite| format!("{:?}", suite.suite()));
    stream.shutdown().await.ok();

    let answer = serde_json::from_str(&received)
        .map_err(|error| Failure::Broken(format!("an answer that is none: {error}")))?;
    let peer = accepted(&notes)?.peer;
    Ok(Exchange { answer, peer, cipher_suite, sent, received: received.len() })
}

/// One whole handshake over an open connection.
pub async fn shake_hands(
    caller: Caller,
    stream: TcpStream,
    expect: &str,
    notes: &SharedNotes,
) -> Result<TlsStream<TcpStream>, Failure> {
    let config = tls::client(caller.key, caller.trust, expect.to_owned(), notes.clone())
        .map_err(|error| Failure::Broken(error.to_string()))?;
    let address = stream.peer_addr().map_err(|error| Failure::NotReached(error.to_string()))?;
    let connecting =
        TlsConnector::from(Arc::new(config)).connect(ServerName::from(address.ip()), stream);
    connecting.await.map_err(|error| failure_of(&error, notes))
}

/// Says one line, and gives its length and the line that was answered.
pub async fn say(
    stream: &mut TlsStream<TcpStream>,
    words: &str,
    notes: &SharedNotes,
) -> Result<(usize, String), Failure> {
    // In TLS 1.3 a client is done before the server has looked at the client's certificate. A refusal
    // comes as an alert when the client reads, so a write that fails is no verdict: read all the same.
    let line = format!("{words}\n");
    let written = async {
        stream.write_all(line.as_bytes()).await?;
        stream.flush().await
    };
    let _ = written.await;
    let mut answer = String::new();
    let mut reader = BufReader::new(stream).take(LONGEST_LINE);
    reader.read_line(&mut answer).await.map_err(|error| failure_of(&error, notes))?;
    if answer.is_empty() {
        return Err(Failure::TheyRefused("it closed the connection without an answer".to_owned()));
    }
    Ok((line.len(), answer))
}

/// Our own verdict. rustls does not come past a handshake without one; should it ever, nothing was proven.
pub fn accepted(notes: &SharedNotes) -> Result<Accepted, Failure> {
    match read_notes(notes, |notes| notes.verdict.clone()) {
        Some(Ok(accepted)) => Ok(accepted),
        _ => Err(Failure::WeRefused(Refusal::NoCertificate)),
    }
}

/// Our own verdict first: when we refuse, the error that follows is only its echo.
fn failure_of(error: &std::io::Error, notes: &SharedNotes) -> Failure {
    if let Some(Err(refusal)) = read_notes(notes, |notes| notes.verdict.clone()) {
        return Failure::WeRefused(refusal);
    }
    refusal_in(error).unwrap_or_else(|| Failure::Broken(explain::tls(error)))
}

/// Their verdict, if that is what ended the connection.
pub fn refusal_in(error: &std::io::Error) -> Option<Failure> {
    explain::alert_in(error).map(|alert| Failure::TheyRefused(explain::alert(alert)))
}
