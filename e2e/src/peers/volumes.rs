//! What is delivered to agents, brought into their volumes as a kubelet does, but sooner.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use countersign::api::names::{
    CA_CRT, ENVOY_TRUST, TLS_CRT, TLS_KEY, bundle_config_map_name, default_secret_name,
};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, ResourceExt};

use super::CREW;
use crate::Namespace;
use crate::mount::{Files, Mount, files_of, files_of_map};

/// How long after a change the volume of each of the crew shows it: of the Secret, and of the
/// ConfigMap. No two are alike, so that everybody meets peers of other versions.
const LAGS: [(Duration, Duration); CREW.len()] = [
    (Duration::ZERO, Duration::from_millis(1600)),
    (Duration::from_millis(1200), Duration::ZERO),
    (Duration::from_millis(400), Duration::from_millis(2000)),
    (Duration::from_millis(800), Duration::ZERO),
];

/// The longest of them, the second after which an agent looks again, and one more.
pub const LAG: Duration = Duration::from_secs(4);

/// How often the API server is asked.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The volumes, renewed until this is dropped.
pub struct Volumes {
    folders: Vec<PathBuf>,
    feeder: tokio::task::JoinHandle<()>,
}

impl Drop for Volumes {
    fn drop(&mut self) {
        self.feeder.abort();
    }
}

impl Volumes {
    /// One for each of the crew, with what is delivered now.
    pub async fn mount(ns: &Arc<Namespace>, trust_domain: &str, folder: &Path) -> Self {
        let delivered = Delivered::look(ns, trust_domain).await.expect("the API server answers");
        let mut volumes = Vec::new();
        for (name, lags) in CREW.into_iter().zip(LAGS) {
            let (secret, trust) = delivered.of(name).expect("all of the crew have credentials");
            let mount = Mount::of(folder.join(name), shown(name, &secret, &trust));
            let (secret, trust) = (Source::new(lags.0, secret), Source::new(lags.1, trust));
            volumes.push(Volume { name, mount, secret, trust });
        }
        let folders = volumes.iter().map(|volume| volume.mount.folder.clone()).collect();
        let (ns, trust_domain) = (Arc::clone(ns), trust_domain.to_owned());
        let feeder = tokio::spawn(async move {
            let mut look = tokio::time::interval(LOOK_EVERY);
            loop {
                look.tick().await;
                // The API server may be away for a while: a kubelet, too, keeps what it has.
                let delivered = Delivered::look(&ns, &trust_domain).await;
                volumes.iter_mut().for_each(|volume| volume.bring(delivered.as_ref()));
            }
        });
        Self { folders, feeder }
    }

    /// Where an agent finds its files.
    pub fn folder(&self, number: usize) -> &Path {
        &self.folders[number]
    }

    /// How many roots each of the crew trusts, as far as its volume says.
    pub fn roots(&self) -> Vec<usize> {
        let count = |folder: &PathBuf, name| {
            let text = std::fs::read_to_string(folder.join(name)).ok()?;
            Some(text.matches("-BEGIN").count())
        };
        let of = |folder| count(folder, ENVOY_TRUST).or_else(|| count(folder, CA_CRT));
        self.folders.iter().map(|folder| of(folder).unwrap_or_default()).collect()
    }

    /// What `tls.crt` is in each volume.
    pub fn chains(&self) -> Vec<String> {
        let read = |folder: &PathBuf| std::fs::read_to_string(folder.join(TLS_CRT));
        self.folders.iter().map(|folder| read(folder).unwrap_or_default()).collect()
    }
}

/// Every Secret of the crew, and the ConfigMap with the bundle.
struct Delivered {
    secrets: Vec<Secret>,
    trust: Files,
}

impl Delivered {
    async fn look(ns: &Namespace, trust_domain: &str) -> Option<Self> {
        let (secrets, maps): (Api<Secret>, Api<ConfigMap>) = (ns.api(), ns.api());
        let secrets = secrets.list(&Default::default()).await.ok()?.items;
        let map = maps.get(&bundle_config_map_name(trust_domain)).await.ok()?;
        Some(Self { secrets, trust: files_of_map(&map) })
    }

    fn of(&self, name: &str) -> Option<(Files, Files)> {
        let name = default_secret_name(name);
        let secret = self.secrets.iter().find(|secret| secret.name_any() == name)?;
        Some((files_of(secret), self.trust.clone()))
    }
}

struct Volume {
    name: &'static str,
    mount: Mount,
    secret: Source,
    trust: Source,
}

impl Volume {
    fn bring(&mut self, delivered: Option<&Delivered>) {
        if let Some((secret, trust)) = delivered.and_then(|delivered| delivered.of(self.name)) {
            self.secret.hear(secret);
            self.trust.hear(trust);
        }
        let (secret, trust) = (self.secret.now(), self.trust.now());
        self.mount.update(shown(self.name, secret, trust));
    }
}

/// A projected volume of the two, as README.md says. Envoy's files are all in the Secret.
fn shown(name: &str, secret: &Files, trust: &Files) -> Files {
    if name == "envoy" {
        return secret.clone();
    }
    let take = |files: &Files, name: &str| (name.to_owned(), files[name].clone());
    Files::from([take(secret, TLS_CRT), take(secret, TLS_KEY), take(trust, CA_CRT)])
}

/// The versions of an object: what is shown, and what is going to be.
struct Source {
    lag: Duration,
    now: Files,
    coming: VecDeque<(Instant, Files)>,
}

impl Source {
    fn new(lag: Duration, now: Files) -> Self {
        Self { lag, now, coming: VecDeque::new() }
    }

    fn hear(&mut self, files: Files) {
        if *self.coming.back().map_or(&self.now, |(_, last)| last) != files {
            self.coming.push_back((Instant::now(), files));
        }
    }

    fn now(&mut self) -> &Files {
        while let Some((_, files)) =
            self.coming.pop_front_if(|(heard, _)| heard.elapsed() >= self.lag)
        {
            self.now = files;
        }
        &self.now
    }
}
