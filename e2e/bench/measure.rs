//! What is measured, and how.

use std::time::{Duration, Instant};

use countersign::api::AgentIdentity;
use countersign_e2e::audit::Requests;
use countersign_e2e::{ApiServer, Namespace, Operator, User, seconds, wait_for};
use futures::TryStreamExt;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::sync::mpsc;

/// What a process takes of the machine.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Megabytes of memory that are really there.
    pub resident: f64,
    /// Seconds of processor since it began.
    processor: f64,
}

impl Usage {
    /// Now.
    pub fn of(process: u32) -> Self {
        let read = |file: &str| {
            std::fs::read_to_string(format!("/proc/{process}/{file}")).expect("the process runs")
        };
        let status = read("status");
        let kilobytes = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.trim().split(' ').next()?.parse::<f64>().ok())
            .expect("Linux says VmRSS in kB");
        let stat = read("stat");
        // The name may hold spaces; what follows its parenthesis does not. utime and stime are the
        // 14th and 15th field, in hundredths of a second on every Linux.
        let fields: Vec<&str> =
            stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks: f64 =
            [fields[11], fields[12]].iter().filter_map(|t| t.parse::<f64>().ok()).sum();
        Self { resident: kilobytes / 1000.0, processor: ticks / 100.0 }
    }

    /// The percentage of one core taken within `span`, and the usage at its end.
    pub async fn over(process: u32, span: Duration) -> (f64, Self) {
        let before = Self::of(process);
        tokio::time::sleep(span).await;
        let after = Self::of(process);
        ((after.processor - before.processor) / span.as_secs_f64() * 100.0, after)
    }
}

/// A watch that counts the identities which have become Ready.
pub struct ReadySince {
    done: mpsc::UnboundedReceiver<Instant>,
    watching: tokio::task::JoinHandle<()>,
}

impl ReadySince {
    /// Begins to watch a namespace.
    pub async fn watch(identities: Api<AgentIdentity>) -> Self {
        let (tell, done) = mpsc::unbounded_channel();
        let (listed, begun) = tokio::sync::oneshot::channel();
        let watching = tokio::spawn(async move {
            let mut listed = Some(listed);
            let mut seen = std::collections::HashSet::new();
            let stream = watcher(identities, watcher::Config::default()).default_backoff();
            let mut stream = std::pin::pin!(stream);
            while let Ok(Some(event)) = stream.try_next().await {
                match event {
                    watcher::Event::InitDone => drop(listed.take().map(|listed| listed.send(()))),
                    watcher::Event::Apply(identity) | watcher::Event::InitApply(identity)
                        if is_ready(&identity) && seen.insert(identity.name_any()) =>
                    {
                        let _ = tell.send(Instant::now());
                    }
                    _ => {}
                }
            }
        });
        begun.await.expect("the watch begins");
        Self { done, watching }
    }

    /// The moment when so many were Ready.
    pub async fn count(mut self, wanted: u32) -> Instant {
        let mut last = Instant::now();
        for number in 0..wanted {
            let next = tokio::time::timeout(seconds(120), self.done.recv()).await;
            let Ok(Some(when)) = next else {
                panic!("only {number} of {wanted} became Ready in time")
            };
            last = when;
        }
        last
    }

    /// The moment when the next was Ready.
    async fn next(&mut self) -> Instant {
        let next = tokio::time::timeout(seconds(30), self.done.recv()).await;
        next.expect("it becomes Ready in time").expect("the watch goes on")
    }
}

impl Drop for ReadySince {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

/// Milliseconds from the request that creates an identity to the news that it is Ready, in order.
pub async fn latencies(room: &Namespace, count: u32) -> Vec<f64> {
    let mut ready = ReadySince::watch(room.api()).await;
    let mut all = Vec::new();
    for number in 0..count {
        let began = Instant::now();
        room.identity(&format!("agent-{number}"), json!({})).await;
        all.push(ready.next().await.duration_since(began).as_secs_f64() * 1000.0);
    }
    all.sort_by(f64::total_cmp);
    all
}

/// The value that `percent` of them do not exceed.
pub fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted[rank - 1]
}

/// The operator's changes in a namespace, but for the bundle's ConfigMap.
pub fn writes_of(server: &ApiServer, room: &Namespace) -> Requests {
    let writes = server.requests_by(User::Operator).within(&room.name).writes();
    writes.filter(|request| request.resource != "configmaps")
}

/// Waits until the operator has looked at so many identities.
pub async fn knows(operator: &Operator, wanted: u32) {
    wait_for("the operator knows them all", seconds(120), async || {
        let metrics = operator.metrics().await;
        let name = "countersign_certificate_expiration_timestamp_seconds";
        let known = metrics.samples().iter().filter(|sample| sample.name == name).count();
        if known >= wanted as usize { Ok(()) } else { Err(format!("{known} of {wanted}")) }
    })
    .await;
}

/// The time from the death of the leader to the next identity that is Ready.
pub async fn failover(leader: Operator, room: &Namespace) -> Duration {
    let mut ready = ReadySince::watch(room.api()).await;
    let began = Instant::now();
    leader.kill();
    room.identity("next", json!({})).await;
    ready.next().await.duration_since(began)
}

/// True if and only if the status says so.
pub fn is_ready(identity: &AgentIdentity) -> bool {
    countersign_e2e::agents::condition_of(identity, "Ready")
        .is_some_and(|condition| condition.status == "True")
}
