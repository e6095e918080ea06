//! The client's side of a connection that stays open: say `again` at a steady rate over it, end it as
//! soon as the other side may no longer be spoken to, and begin anew.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::MissedTickBehavior;
use tokio_rustls::client::TlsStream;
use tracing::{info, warn};
use webpki::KeyUsage;

use crate::cli::Target;
use crate::counters::{Counters, End};
use crate::hello::{self, AGAIN, Caller, Failure};
use crate::lasting::{Over, Peer};
use crate::material::Current;
use crate::verify::SharedNotes;

/// How long one side waits for the other's next line.
const PATIENCE: Duration = Duration::from_secs(5);

/// Keeps one connection, and another after it, for ever.
pub async fn keep(
    target: Target,
    rate: f64,
    life: Duration,
    current: Current,
    counters: Arc<Counters>,
) {
    let mut turn = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last_end = None;
    loop {
        turn.tick().await;
        let notes = SharedNotes::default();
        let began = tokio::time::Instant::now();
        let mut current = current.clone();
        let end = match open(&target, &mut current, &notes).await {
            Ok(mut stream) => {
                let chain = stream.get_ref().1.peer_certificates();
                let expected = vec![target.expect.clone()];
                let usage = KeyUsage::server_auth();
                let mut peer = Peer::accepted(current, usage, expected, chain, life);
                loop {
                    tokio::select! {
                        biased;
                        over = peer.is_over() => break ended_by_us(over),
                        () = async { turn.tick().await; } => {}
                    }
                    let said = tokio::select! {
                        biased;
                        over = peer.is_over() => break ended_by_us(over),
                        said = say(&mut stream, &notes) => said,
                    };
                    match said {
                        Ok(()) => counters.said(&target.name),
                        Err(failure) => break End::Theirs(failure.to_string()),
                    }
                }
            }
            Err(failure) => End::NotOpened(failure.to_string()),
        };
        counters.kept(&target.name, &end);
        if last_end.as_ref() != Some(&end) {
            let after = format!("{} ms", began.elapsed().as_millis());
            match &end {
                End::Due => {
                    info!(to = target.to, after, "the connection to {} is old", target.name)
                }
                End::Ours(why) => {
                    warn!(to = target.to, after, "I end the connection to {}: {why}", target.name);
                }
                End::Theirs(why) | End::NotOpened(why) => {
                    warn!(to = target.to, after, "no connection to {}: {why}", target.name);
                }
            }
            last_end = Some(end);
        }
    }
}

fn ended_by_us(over: Over) -> End {
    match over {
        Over::Old => End::Due,
        other => End::Ours(other.to_string()),
    }
}

async fn open(
    target: &Target,
    current: &mut Current,
    notes: &SharedNotes,
) -> Result<TlsStream<TcpStream>, Failure> {
    let material = current.borrow_and_update().clone();
    let caller = Caller { key: Some(material.key.clone()), trust: material.trust.clone() };
    let opening = async {
        let stream = hello::connect(&target.to).await?;
        hello::shake_hands(caller, stream, &target.expect, notes).await
    };
    within(PATIENCE, opening).await
}

async fn say(stream: &mut TlsStream<TcpStream>, notes: &SharedNotes) -> Result<(), Failure> {
    within(PATIENCE, hello::say(stream, AGAIN, notes)).await.map(drop)
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let late = || Failure::Broken(format!("no answer within {} s", limit.as_secs()));
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(late()))
}
