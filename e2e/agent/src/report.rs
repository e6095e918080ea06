//! Prints what the agent beside this one has counted. Its image holds no shell and no curl, so that
//! `kubectl exec` needs a command of its own: `kubectl exec deploy/planner -- agent report`.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::cli::ReportArgs;
use crate::counters::Report;

pub async fn run(args: ReportArgs) -> Result<ExitCode, anyhow::Error> {
    let text = tokio::time::timeout(Duration::from_secs(5), read(&args.status))
        .await
        .context("the agent did not answer within 5 s")??;
    let text = if args.line { line(&serde_json::from_str(&text)?) } else { text };
    // Whoever reads it may stop early (`| head`): that is no fault.
    let _ = writeln!(std::io::stdout(), "{text}");
    Ok(ExitCode::SUCCESS)
}

async fn read(status: &str) -> Result<String, anyhow::Error> {
    let mut stream = TcpStream::connect(status).await.with_context(|| {
        format!("no agent reports at {status}: is it running, and does it have an identity yet?")
    })?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

/// Pairs that a shell can split at spaces: no value has one in it.
fn line(report: &Report) -> String {
    let before = report.calls.values().map(|calls| calls.before_first_success).sum::<u64>();
    let each = report.calls.iter().map(|(name, calls)| {
        format!(" tried_{name}={} failed_{name}={}", calls.tried, calls.failed)
    });
    let mut line = format!(
        "spiffe_id={} serial={} not_after={} loads={} tried={} failed={} before_first_success={before} accepted={} refused={} revoked={} cut_off={} started={}",
        report.spiffe_id,
        report.identity.serial,
        report.identity.not_after,
        report.loads,
        report.tried(),
        report.failed(),
        report.handshakes_accepted,
        report.refused,
        report.revoked,
        report.cut_off,
        report.started,
    );
    line.extend(each);
    line
}
