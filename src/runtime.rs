//! The program around the controllers: who leads, what is served, how it starts and ends.

pub mod clock;
pub mod crl;
pub mod events;
pub mod lease;
pub mod logs;
pub mod metrics;
pub mod options;
pub mod server;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kube::Client;
use prometheus_client::registry::Registry;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::controller::{self, Context, Queues, access, pace::Pace, queue::queue, trust_domain};
use crate::identity::IdentityKey;
use crate::observe::{Book, Memory, View};
use crate::sign::forge::Forge;
use crate::telemetry::{self, Metrics, Outbox, ResourceLabels};
use crate::watch::time::Timekeeper;

pub use options::RunOptions;

use lease::{Elector, Leadership};
use metrics::Stage;

/// Secrets whose `ca.crt` is written anew, a second. Ten thousand take three and a half minutes,
/// during which both bundles are good; the API server has as many again to spare for others.
const BUNDLE_WRITES_A_SECOND: u32 = 50;

/// Certificates of a retiring CA that are replaced a second. Nobody is in a hurry: the old ones are
/// good until they end.
const REISSUES_A_SECOND: u32 = 50;

/// Identities that are looked at a second after a start, of those that were Ready. Each costs one
/// read of a Secret; whoever is not Ready, or due, does not wait behind them.
const FIRST_LOOKS_A_SECOND: u32 = 500;

/// How long the end may take: the lease is given back, and nothing else is waited for.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Runs the operator until it is told to stop.
///
/// # Errors
/// One sentence: what cannot be read, bound or started. An API server that cannot be reached is
/// not among them: it is waited for.
pub async fn run(options: RunOptions) -> anyhow::Result<()> {
    let client = connect(&options).await?;
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let stage = Stage::default();
    registry.register_collector(Box::new(stage.clone()));
    let bound = options.max_clock_skew.as_duration();
    let time = Arc::new(Timekeeper::new(clock::now, bound));
    stage.watch(time.clone());
    let elector = Elector::new(
        client.clone(),
        &options.namespace,
        &options.lease_name,
        &options.replica(),
        time.clone(),
    );
    let contact = elector.contact();
    let listener = server::bind(options.listen).await?;
    let served = server::serve(listener, Arc::new(registry), contact);
    let crl_listener = crl::bind(options.crl_listen).await?;
    let shelf = crl::Shelf::default();
    let crls_served = crl::serve(crl_listener, shelf.clone());
    let labels = ResourceLabels { resource: "configmaps" };
    let watch_errors = metrics.watch_errors.get_or_create(&labels).clone();
    let crls_followed = crl::follow(client.clone(), &options.namespace, &shelf, watch_errors);
    let (outbox, inbox) = telemetry::outbox(&metrics);
    let events = events::send(client.clone(), inbox, metrics.events_sent.clone());
    let leading = lead(&options, &client, &elector, &metrics, &outbox, &stage, &time);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), listen = %options.listen,
        namespace = options.namespace, replica = elector.holder(), "started");
    let result = tokio::select! {
        result = served => result.context("the HTTP server ended"),
        result = crls_served => result.context("the HTTP server of CRLs ended"),
        () = crls_followed => Err(anyhow::anyhow!("the watch of CRLs ended")),
        () = events => Err(anyhow::anyhow!("the sender of Events ended")),
        () = leading => Err(anyhow::anyhow!("the election ended")),
        signal = asked_to_stop() => signal,
    };
    // The controllers are gone with the future above; only now may another lead.
    if tokio::time::timeout(LAST_WORDS, elector.release()).await.is_err() {
        tracing::warn!("the lease could not be given back; it runs out by itself");
    }
    tracing::info!("stopped");
    result
}

async fn connect(options: &RunOptions) -> anyhow::Result<Client> {
    let config = match &options.kubeconfig {
        Some(path) => {
            let read = kube::config::Kubeconfig::read_from(path)
                .with_context(|| format!("the kubeconfig {} cannot be read", path.display()))?;
            kube::Config::from_custom_kubeconfig(read, &Default::default())
                .await
                .with_context(|| format!("the kubeconfig {} cannot be used", path.display()))?
        }
        None => kube::Config::infer()
            .await
            .context("no API server is configured: run inside a cluster, or give --kubeconfig")?,
    };
    Client::try_from(config).context("the connection to the API server cannot be set up")
}

/// Waits to lead, leads, and begins again when the lease is lost.
async fn lead(
    options: &RunOptions,
    client: &Client,
    elector: &Elector,
    metrics: &Metrics,
    outbox: &Outbox,
    stage: &Stage,
    time: &Arc<Timekeeper>,
) {
    loop {
        let leadership = elector.acquire().await;
        tracing::info!(lease = options.lease_name, "leading");
        metrics.leader.set(1);
        let (context, queues, keys_done) =
            assemble(options, client, metrics, outbox, leadership.clone(), time.clone());
        stage.enter(context.clone());
        let forward_keys = async {
            let mut keys_done = keys_done;
            while let Some(identity) = keys_done.recv().await {
                context.identities.wake(identity);
            }
        };
        tokio::select! {
            () = controller::run(context.clone(), queues) => tracing::error!("the controllers ended"),
            () = forward_keys => tracing::error!("the key forge ended"),
            () = elector.keep(&leadership) => tracing::warn!("the lease is lost: standing by"),
        }
        stage.leave();
        metrics.leader.set(0);
    }
}

/// Everything a leader needs, from nothing: what an earlier term knew may be out of date.
fn assemble(
    options: &RunOptions,
    client: &Client,
    metrics: &Metrics,
    outbox: &Outbox,
    leadership: Leadership,
    time: Arc<Timekeeper>,
) -> (Arc<Context>, Queues, mpsc::UnboundedReceiver<IdentityKey>) {
    let (done, keys_done) = mpsc::unbounded_channel();
    let (identities, identities_worker) = queue();
    let (pods, pods_worker) = queue();
    let (pod_reads, pod_reads_worker) = queue();
    let (trust_domains, trust_domains_worker) = queue();
    let (rosters, rosters_worker) = queue();
    let (access, access_worker) = queue();
    let context = Context {
        client: client.clone(),
        view: View {
            namespace: options.namespace.clone(),
            cluster_domain: options.cluster_domain.clone(),
            ..View::default()
        },
        memory: Memory::default(),
        book: Book::default(),
        forge: Forge::start(done),
        crl_url: options.crl_url.as_deref().map(|url| url.trim_end_matches('/').to_owned()),
        time,
        may_act: Box::new(move || leadership.holds()),
        metrics: metrics.clone(),
        outbox: outbox.clone(),
        bundle_pace: Pace::per_second(BUNDLE_WRITES_A_SECOND),
        reissue_pace: Pace::per_second(REISSUES_A_SECOND),
        slots: trust_domain::SlotMemory::default(),
        identities,
        first_looks: Pace::per_second(FIRST_LOOKS_A_SECOND),
        pods,
        pod_reads,
        trust_domains,
        rosters,
        roster_writes: controller::roster::LastWrites::default(),
        access,
        access_memory: access::AccessMemory::default(),
    };
    let queues = Queues {
        identities: identities_worker,
        pods: pods_worker,
        pod_reads: pod_reads_worker,
        trust_domains: trust_domains_worker,
        rosters: rosters_worker,
        access: access_worker,
    };
    (Arc::new(context), queues, keys_done)
}

async fn asked_to_stop() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be handled")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be handled")?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
        _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
    }
    Ok(())
}
