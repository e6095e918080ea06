//! The whole agent: hold an identity, answer, call, count.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::call::call;
use crate::cli::ServeArgs;
use crate::counters::Counters;
use crate::keep::keep;
use crate::material::{self, Current};
use crate::serve::serve;

/// How long it still answers after SIGTERM: Services drop a pod a moment after it is told to go.
const FAREWELL: Duration = Duration::from_secs(3);

pub async fn run(identity: &Path, args: ServeArgs) -> Result<ExitCode, anyhow::Error> {
    // As process 1 of a container a signal without a handler is ignored, so ask for it first of all.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let current = tokio::select! {
        current = material::follow(identity.to_owned()) => current,
        _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
        _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
    };

    // A list in YAML is easily folded at its commas, which leaves spaces.
    let allow: Vec<_> = args.allow.iter().map(|id| id.trim().to_owned()).collect();
    let counters = Arc::new(Counters::new(&current.borrow(), &args.call, &args.keep));
    // It listens only now: an open port means that there is an identity, and so the pod is ready.
    let listener = TcpListener::bind(&args.listen)
        .await
        .with_context(|| format!("cannot listen at {}", args.listen))?;
    let status = TcpListener::bind(&args.status)
        .await
        .with_context(|| format!("cannot listen at {}", args.status))?;
    info!(listen = args.listen, ?allow, "I answer these and refuse everybody else");

    let mut tasks = JoinSet::new();
    let life = Duration::from_secs(args.connection_life.into());
    tasks.spawn(serve(listener, current.clone(), allow, life, counters.clone()));
    tasks.spawn(show(status, counters.clone()));
    tasks.spawn(remember(current.clone(), counters.clone()));
    let mut callers = JoinSet::new();
    for target in args.call {
        callers.spawn(call(target, args.rate, current.clone(), counters.clone()));
    }
    for target in args.keep {
        callers.spawn(keep(target, args.rate, life, current.clone(), counters.clone()));
    }

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
        // None of them ever ends by itself: if one does, so does the agent, and the pod is started anew.
        ended = tasks.join_next() => anyhow::bail!("a task of the agent ended: {ended:?}"),
    }
    info!("told to go: I call nobody any more and answer for {} s", FAREWELL.as_secs());
    callers.shutdown().await;
    tokio::time::sleep(FAREWELL).await;
    Ok(ExitCode::SUCCESS)
}

/// Writes the counters, as JSON, to whoever connects. Loopback only, so plain.
async fn show(listener: TcpListener, counters: Arc<Counters>) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        match serde_json::to_vec_pretty(&counters.report()) {
            Ok(report) => {
                drop(tokio::time::timeout(Duration::from_secs(2), stream.write_all(&report)).await)
            }
            Err(error) => warn!("cannot write the report: {error}"),
        }
    }
}

/// Notes each certificate that the agent takes up.
pub(crate) async fn remember(mut current: Current, counters: Arc<Counters>) {
    loop {
        if current.changed().await.is_err() {
            // The one that follows the files is gone: without it the identity would quietly expire.
            return;
        }
        counters.holds(&current.borrow_and_update().clone());
    }
}
