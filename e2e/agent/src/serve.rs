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
use webpki::KeyUsage;

use crate::counters::Counters;
use crate::explain;
use crate::hello::{AGAIN, Answer, HELLO};
use crate::lasting::{Over, Peer};
use crate::material::{Current, Material};
use crate::tls;
use crate::verify::{Accepted, SharedNotes, read_notes};

/// How long it waits for a handshake, and then for each line.
const PATIENCE: Duration = Duration::from_secs(10);
const MOST_AT_ONCE: usize = 1024;
const LONGEST_LINE: u64 = 128;

/// Accepts for ever.
pub async fn serve(
    listener: TcpListener,
    current: Current,
    allowed: Vec<String>,
    life: Duration,
    counters: Arc<Counters>,
) {
    let rules = Arc::new(Rules { current, allowed, life });
    let mut under_way = JoinSet::new();
    loop {
        // At the limit it stops accepting until one is through: the backlog waits, nobody is cut off.
        while under_way.len() >= MOST_AT_ONCE {
            under_way.join_next().await;
        }
        match listener.accept().await {
            Ok((stream, from)) => {
                under_way.spawn(attend(stream, from, rules.clone(), counters.clone()));
            }
            Err(error) => {
                warn!("cannot accept: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        while under_way.try_join_next().is_some() {}
    }
}

/// By what every caller is judged.
struct Rules {
    current: Current,
    allowed: Vec<String>,
    life: Duration,
}

/// How a connection ended.
enum Ended {
    Answered(Accepted),
    /// It was open, and we did not go on with it.
    CutOff(Accepted, Over),
    /// Somebody connected and left without a byte: the kubelet's probe.
    Knocked,
    /// We would not have them.
    Refused(String),
    /// They would not have us, or the network failed.
    Broken(String),
}

async fn attend(stream: TcpStream, from: SocketAddr, rules: Arc<Rules>, counters: Arc<Counters>) {
    let notes = SharedNotes::default();
    // The material of this moment, for the whole of this handshake.
    let mut current = rules.current.clone();
    let material = current.borrow_and_update().clone();
    let shaken = patient(shake_hands(stream, &material, rules.allowed.clone(), &notes)).await;
    let ended = match shaken {
        Ok((stream, accepted)) => converse(stream, &material, current, &rules, accepted).await,
        Err(ended) => Err(ended),
    };
    let ended = ended.map_or_else(|ended| ended, Ended::Answered);
    match ended {
        Ended::Answered(Accepted { peer, .. }) => {
            // Once for each certificate: a log line for every call would bury what matters.
            if counters.accepted(&peer) {
                info!(spiffe_id = peer.who(), serial = peer.serial, %from, "accepted");
            } else {
                debug!(spiffe_id = peer.who(), serial = peer.serial, %from, "accepted again");
            }
        }
        Ended::CutOff(Accepted { peer, .. }, Over::Old) => {
            debug!(spiffe_id = peer.who(), %from, "cut off: {}", Over::Old);
        }
        Ended::CutOff(Accepted { peer, .. }, over) => {
            warn!(spiffe_id = peer.who(), serial = peer.serial, %from, "cut off: {over}");
            counters.cut_off(from, peer.who().to_owned(), over.to_string());
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

/// Answers line by line, for as long as the caller asks for it and may be answered.
async fn converse(
    mut stream: TlsStream<TcpStream>,
    material: &Material,
    current: Current,
    rules: &Rules,
    accepted: Accepted,
) -> Result<Accepted, Ended> {
    let mut peer = Peer::accepted(
        current,
        KeyUsage::client_auth(),
        rules.allowed.clone(),
        stream.get_ref().1.peer_certificates(),
        rules.life,
    );
    loop {
        let answered = tokio::select! {
            biased;
            over = peer.is_over() => {
                stream.shutdown().await.ok();
                return Err(Ended::CutOff(accepted, over));
            }
            answered = patient(answer(&mut stream, material, &accepted)) => answered,
        };
        match answered? {
            Next::Another => {}
            Next::Nothing => return Ok(accepted),
        }
    }
}

async fn patient<T>(work: impl Future<Output = Result<T, Ended>>) -> Result<T, Ended> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => done,
        Err(_) => Err(Ended::Broken(format!("nothing more came for {} s", PATIENCE.as_secs()))),
    }
}

/// What a caller may say next.
enum Next {
    Another,
    Nothing,
}

async fn answer(
    stream: &mut TlsStream<TcpStream>,
    material: &Material,
    accepted: &Accepted,
) -> Result<Next, Ended> {
    let broken = |error: std::io::Error| Ended::Broken(explain::tls(&error));
    let mut line = String::new();
    BufReader::new(&mut *stream).take(LONGEST_LINE).read_line(&mut line).await.map_err(broken)?;
    let next = match line.trim_end() {
        HELLO => Next::Nothing,
        AGAIN => Next::Another,
        // Whoever has said `again` hangs up when it pleases.
        "" if line.is_empty() => return Ok(Next::Nothing),
        _ => return Err(Ended::Broken(format!("it did not say {HELLO}"))),
    };
    let answer = Answer {
        i_am: material.spiffe_id.clone(),
        i_accepted: accepted.peer.who().to_owned(),
        with_serial: accepted.peer.serial.clone(),
        chained_to: accepted.root.clone(),
    };
    let answer = serde_json::to_string(&answer).map_err(|error| broken(error.into()))? + "\n";
    stream.write_all(answer.as_bytes()).await.map_err(broken)?;
    match next {
        Next::Another => stream.flush().await.map_err(broken)?,
        Next::Nothing => stream.shutdown().await.map_err(broken)?,
    }
    Ok(next)
}

/// Closing a socket with unread bytes in it resets the connection, and the reset can overtake the alert
/// that says why. So read what is still coming, for a moment, and only then close.
async fn linger(mut stream: TcpStream) {
    stream.shutdown().await.ok();
    let rest = async { while stream.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {} };
    tokio::time::timeout(Duration::from_secs(1), rest).await.ok();
}
