//! The server's side: whoever is on the list is answered, everybody else is refused and named.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

use crate::counters::Counters;
use crate::explain;
use crate::hello::{Answer, HELLO};
use crate::material::{Current, Material};
use crate::tls;
use crate::verify::{Accepted, SharedNotes, read_notes};

const PATIENCE: Duration = Duration::from_secs(10);
const MOST_AT_ONCE: usize = 1024;

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
                under_way.spawn(attend(
                    stream,
                    from,
                    material,
                    allowed.clone(),
                    counters.clone(),
                ));
            }
            Err(error) => {
                warn!("cannot accept: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        while under_way.try_join_next().is_some() {}
    }
}

async fn attend(
    stream: TcpStream,
    from: SocketAddr,
    material: Arc<Material>,
    allowed: Vec<String>,
    counters: Arc<Counters>,
) {
    let notes = SharedNotes::default();
    let outcome = tokio::time::timeout(
        PATIENCE,
        handshake_and_answer(stream, &material, allowed, &notes),
    )
    .await;
    match outcome.unwrap_or_else(|_| Err("it said nothing for too long".to_owned())) {
        Ok(Some(accepted)) => {
            info!(spiffe_id = accepted.peer.who(), serial = accepted.peer.serial, %from, "accepted");
            counters.accepted(&accepted.peer);
        }
        Ok(None) => debug!(%from, "only knocked: the kubelet's probe"),
        Err(why) => {
            let presented = read_notes(&notes, |notes| {
                notes.presented.first().map(|leaf| leaf.who().to_owned())
            });
            let presented = presented.unwrap_or_else(|| "nothing".to_owned());
            warn!(%from, presented, "refused: {why}");
            counters.refused(from, presented, why);
        }
    }
}

/// `None` where somebody connected and left without a byte.
async fn handshake_and_answer(
    stream: TcpStream,
    material: &Material,
    allowed: Vec<String>,
    notes: &SharedNotes,
) -> Result<Option<Accepted>, String> {
    if stream
        .peek(&mut [0])
        .await
        .map_err(|error| error.to_string())?
        == 0
    {
        return Ok(None);
    }
    stream.set_nodelay(true).ok();
    let config = tls::server(
        material.key.clone(),
        material.trust.clone(),
        allowed,
        notes.clone(),
    )
    .map_err(|error| error.to_string())?;
    let accepting = TlsAcceptor::from(Arc::new(config))
        .accept(stream)
        .into_fallible();
    let mut stream = match accepting.await {
        Ok(stream) => stream,
        Err((error, stream)) => {
            linger(stream).await;
            let refusal = read_notes(notes, |notes| notes.verdict.clone()).and_then(Result::err);
            return Err(refusal.map_or_else(|| explain::tls(&error), |refusal| refusal.to_string()));
        }
    };
    // rustls does not come here without a verdict; should it ever, nobody is answered.
    let Some(Ok(accepted)) = read_notes(notes, |notes| notes.verdict.clone()) else {
        return Err("nothing was proven".to_owned());
    };

    let mut line = String::new();
    BufReader::new(&mut stream)
        .take(128)
        .read_line(&mut line)
        .await
        .map_err(|error| explain::tls(&error))?;
    if line.trim_end() != HELLO {
        return Err(format!("{} did not say {HELLO}", accepted.peer.who()));
    }
    let answer = Answer {
        i_am: material.spiffe_id.clone(),
        i_accepted: accepted.peer.who().to_owned(),
        with_serial: accepted.peer.serial.clone(),
        chained_to: accepted.root.clone(),
    };
    let answer = serde_json::to_string(&answer).map_err(|error| error.to_string())? + "\n";
    stream
        .write_all(answer.as_bytes())
        .await
        .map_err(|error| explain::tls(&error))?;
    stream.shutdown().await.ok();
    Ok(Some(accepted))
}

/// Closing a socket with unread bytes in it resets the connection, and the reset can overtake the alert
/// that says why. So read what is still coming, for a moment, and only then close.
async fn linger(mut stream: TcpStream) {
    stream.shutdown().await.ok();
    let rest = async { while stream.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {} };
    tokio::time::timeout(Duration::from_secs(1), rest)
        .await
        .ok();
}
