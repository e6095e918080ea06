//! The server's side: whoever is on the list is answered, everybody else is refused and named.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, info, warn};

use crate::counters::Counters;
use crate::explain;
use crate::hello::{Answer, HELLO};
use crate::material::{Current, Material};
use crate::tls;
use crate::verify::{Accepted, SharedNotes, read_notes};

const PATIENCE: Duration = Duration::from_secs(10);
const MOST_AT_ONCE: usize = 1024;
const LONGEST_LINE: u64 = 128;

/// Accepts for ever.
pub async fn serve(
    listener: TcpListener,
    current: Current,
    allowed: Vec<String>,
    counters: Arc<Counters>,
) {
    let mut under_way = JoinSet::new();
    loop {
        // At the limit it stops accepting until one is through: the backlog waits, nobody is cut off.
        while under_way.len() >= MOST_AT_ONCE {
            under_way.join_next().await;
        }
        match listener.accept().await {
            Ok((stream, from)) => {
                // The material of this moment, for the whole of this connection.
                let material = current.borrow().clone();
                under_way.spawn(attend(stream, from, material, allowed.clone(), counters.clone()));
            }
            Err(error) => {
                warn!("cannot accept: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        while under_way.try_join_next().is_some() {}
    }
}

/// How a connection ended.
enum Ended {
    Answered(Accepted),
    /// Somebody connected and left without a byte: the kubelet's probe.
    Knocked,
    /// We would not have them.
    Refused(String),
    /// They would not have us, or the network failed.
    Broken(String),
}

async fn attend(
    stream: TcpStream,
    from: SocketAddr,
    material: Arc<Material>,
    allowed: Vec<String>,
    counters: Arc<Counters>,
) {
    let notes = SharedNotes::default();
    let attended = async {
        let (stream, accepted) = shake_hands(stream, &material, allowed, &notes).await?;
        answer(stream, &material, &accepted)
            .await
            .map_err(|error| Ended::Broken(explain::tls(&error)))?;
        Ok(accepted)
    };
    let ended = match tokio::time::timeout(PATIENCE, attended).await {
        Ok(Ok(accepted)) => Ended::Answered(accepted),
        Ok(Err(ended)) => ended,
        Err(_) => Ended::Broken(format!("nothing more came for {} s", PATIENCE.as_secs())),
    };
    match ended {
        Ended::Answered(Accepted { peer, .. }) => {
            // Once for each certificate: a log line for every call would bury what matters.
            if counters.accepted(&peer) {
                info!(spiffe_id = peer.who(), serial = peer.serial, %from, "accepted");
            } else {
                debug!(spiffe_id = peer.who(), serial = peer.serial, %from, "accepted again");
            }
        }
        Ended::Knocked => debug!(%from, "only knocked"),
        Ended::Broken(why) => warn!(%from, "no conversation: {why}"),
        Ended::Refused(why) => {
            let presented = read_notes(&notes, |notes| {
                notes.presented.first().map(|leaf| leaf.who().to_owned())
            });
            let presented = presented.unwrap_or_else(|| "no certificate".to_owned());
            warn!(%from, presented, "refused: {why}");
            counters.refused(from, presented, why);
        }
    }
}

async fn shake_hands(
    stream: TcpStream,
    material: &Material,
    allowed: Vec<String>,
    notes: &SharedNotes,
) -> Result<(TlsStream<TcpStream>, Accepted), Ended> {
    match stream.peek(&mut [0]).await {
        Ok(0) => return Err(Ended::Knocked),
        Ok(_) => {}
        Err(error) => return Err(Ended::Broken(error.to_string())),
    }
    stream.set_nodelay(true).ok();
    let config = tls::server(material.key.clone(), material.trust.clone(), allowed, notes.clone())
        .map_err(|error| Ended::Broken(error.to_string()))?;
    let accepting = TlsAcceptor::from(Arc::new(config)).accept(stream).into_fallible();
    let accepted = accepting.await;
    let verdict = read_notes(notes, |notes| notes.verdict.clone());
    match (accepted, verdict) {
        (Ok(stream), Some(Ok(accepted))) => Ok((stream, accepted)),
        // rustls does not come here without a verdict; should it ever, nobody is answered.
        (Ok(_), _) => Err(Ended::Refused("nothing was proven".to_owned())),
        (Err((error, stream)), verdict) => {
            linger(stream).await;
            Err(match verdict {
                Some(Err(refusal)) => Ended::Refused(refusal.to_string()),
                _ if explain::is_their_doing(&error) => Ended::Broken(explain::tls(&error)),
                _ => Ended::Refused(explain::tls(&error)),
            })
        }
    }
}

async fn answer(
    mut stream: TlsStream<TcpStream>,
    material: &Material,
    accepted: &Accepted,
) -> std::io::Result<()> {
    let mut line = String::new();
    BufReader::new(&mut stream).take(LONGEST_LINE).read_line(&mut line).await?;
    if line.trim_end() != HELLO {
        return Err(std::io::Error::other(format!("it did not say {HELLO}")));
    }
    let answer = Answer {
        i_am: material.spiffe_id.clone(),
        i_accepted: accepted.peer.who().to_owned(),
        with_serial: accepted.peer.serial.clone(),
        chained_to: accepted.root.clone(),
    };
    let answer = serde_json::to_string(&answer)? + "\n";
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

/// Closing a socket with unread bytes in it resets the connection, and the reset can overtake the alert
/// that says why. So read what is still coming, for a moment, and only then close.
async fn linger(mut stream: TcpStream) {
    stream.shutdown().await.ok();
    let rest = async { while stream.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {} };
    tokio::time::timeout(Duration::from_secs(1), rest).await.ok();
}
