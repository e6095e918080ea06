//! The agent's own certificate, its key and whom it trusts, as they lie in a directory now.
//!
//! The kubelet updates a projected volume by pointing the symlink `..data` at a new directory, about a
//! minute after the Secret or the ConfigMap has changed. [`follow`] looks each second and compares what
//! it reads. It does not use inotify: a watch on a file behind a swapped symlink never fires again, a watch on
//! the directory does not work on every file system a volume may be, and a few small files read each second cost nothing.
//!
//! Whoever starts a handshake takes the [`Material`] of that moment and keeps it to the end, so a
//! rotation never disturbs a handshake or a connection under way: the next one simply takes the new one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tracing::{info, warn};
use zeroize::Zeroizing;

use crate::certificate::Facts;
use crate::revocation::Revoked;
use crate::verify::Trust;

const LOOK_EVERY: Duration = Duration::from_secs(1);

pub struct Material {
    /// The chain to present, and the key that proves it is ours.
    pub key: Arc<CertifiedKey>,
    /// What is in the first certificate of that chain.
    pub me: Facts,
    pub spiffe_id: String,
    pub trust: Arc<Trust>,
}

/// The material of this moment: `borrow().clone()` it once for each handshake.
pub type Current = watch::Receiver<Arc<Material>>;

impl Material {
    pub fn load(directory: &Path) -> anyhow::Result<Self> {
        Self::parse(&Files::read(directory)?)
    }

    fn parse(files: &Files) -> anyhow::Result<Self> {
        anyhow::ensure!(
            !files.chain.trim_ascii().is_empty(),
            "tls.crt is empty: my identity was taken back, and whoever knows of it refuses me"
        );
        let chain = certificates(&files.chain).context("tls.crt")?;
        let leaf = chain.first().context("tls.crt holds no certificate")?;
        let me = Facts::read(leaf).context("tls.crt")?;
        let spiffe_id =
            me.spiffe_id().context("the certificate in tls.crt has no SPIFFE ID")?.to_owned();
        let trust = trust_of(&files.trust, files.revoked.as_deref())?;
        // Not `?` with the error's own text alone: it must never come to print a part of a key.
        let key = PrivateKeyDer::from_pem_slice(&files.key)
            .map_err(|_| anyhow::anyhow!("tls.key holds no PEM private key"))?;
        // This compares the key with the leaf. A volume caught between two versions, or a half-written
        // directory, ends here, and the agent keeps what it has.
        let key = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
            .context("tls.key does not fit tls.crt")?;
        Ok(Self { key: Arc::new(key), me, spiffe_id, trust })
    }
}

/// The bundle alone: what an agent without an identity may read, too.
pub fn load_trust(directory: &Path) -> anyhow::Result<Arc<Trust>> {
    let path = directory.join("ca.crt");
    let trust = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    trust_of(&trust, read_if_there(&directory.join("crl.pem"))?.as_deref())
}

/// Waits for the first material, then follows it for as long as somebody holds the receiver.
pub async fn follow(directory: PathBuf) -> Current {
    let mut look = tokio::time::interval(LOOK_EVERY);
    let mut seen = Seen::default();
    let first = loop {
        look.tick().await;
        if let Some(material) = seen.look(&directory) {
            break material;
        }
    };
    let (publish, current) = watch::channel(Arc::new(first));
    tokio::spawn(async move {
        while !publish.is_closed() {
            look.tick().await;
            if let Some(material) = seen.look(&directory) {
                publish.send_replace(Arc::new(material));
            }
        }
    });
    current
}

/// What was read last, so that a change is acted on once and a fault is logged once.
#[derive(Default)]
pub(crate) struct Seen {
    digest: Option<[u8; 32]>,
    serial: Option<String>,
    /// What crl.pem held, if there was one.
    revoked: Option<Vec<u8>>,
    fault: Option<String>,
}

impl Seen {
    /// New material, if there is any that can be used.
    pub(crate) fn look(&mut self, directory: &Path) -> Option<Material> {
        let loaded = Files::read(directory).and_then(|files| {
            let digest = files.digest();
            if self.digest == Some(digest) {
                return Ok(None);
            }
            anyhow::ensure!(
                self.revoked.is_none() || files.revoked.is_some(),
                "crl.pem is gone: whoever took it away would have the revoked let in again"
            );
            let material = Material::parse(&files)?;
            self.digest = Some(digest);
            Ok(Some((material, files.revoked)))
        });
        match loaded {
            Ok(Some((material, revoked))) => {
                let (serial, trust) = (&material.me.serial, &material.trust);
                if self.serial.as_ref() != Some(serial) {
                    info!(spiffe_id = material.spiffe_id, serial, not_after = %material.me.not_after, "this is my identity now");
                    self.serial = Some(serial.clone());
                }
                if self.revoked != revoked {
                    info!(
                        revoked = trust.revoked.entries,
                        "this is whom I refuse: crl.pem changed"
                    );
                    self.revoked = revoked;
                }
                self.fault = None;
                Some(material)
            }
            Ok(None) => None,
            Err(error) => {
                let fault = format!("{error:#}");
                if self.fault.as_ref() != Some(&fault) {
                    warn!("{fault}; I keep what I have and look again each second");
                    self.fault = Some(fault);
                }
                None
            }
        }
    }
}

struct Files {
    chain: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
    trust: Vec<u8>,
    revoked: Option<Vec<u8>>,
}

impl Files {
    fn read(directory: &Path) -> anyhow::Result<Self> {
        // Follow `..data` once, so that the files are of one version even while it is swapped.
        let data = directory.join("..data");
        let version = if data.exists() { data.canonicalize()? } else { directory.to_owned() };
        let read = |name: &str| {
            std::fs::read(version.join(name))
                .with_context(|| format!("cannot read {}", directory.join(name).display()))
        };
        Ok(Self {
            chain: read("tls.crt")?,
            key: read("tls.key")?.into(),
            trust: read("ca.crt")?,
            revoked: read_if_there(&version.join("crl.pem"))?,
        })
    }

    fn digest(&self) -> [u8; 32] {
        let each = [&self.chain, &*self.key, &self.trust].map(Sha256::digest);
        let revoked = self.revoked.iter().map(Sha256::digest);
        Sha256::digest(each.into_iter().chain(revoked).collect::<Vec<_>>().concat()).into()
    }
}

fn trust_of(pem: &[u8], crl_pem: Option<&[u8]>) -> anyhow::Result<Arc<Trust>> {
    let revoked = match crl_pem {
        Some(pem) => Revoked::from_ders(&lists(pem).context("crl.pem")?).context("crl.pem")?,
        None => Revoked::default(),
    };
    Ok(Arc::new(Trust::new(&certificates(pem).context("ca.crt")?, revoked)?))
}

/// Only a file that is not there is none: one that cannot be read may name somebody.
fn read_if_there(path: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn lists(pem: &[u8]) -> anyhow::Result<Vec<CertificateRevocationListDer<'static>>> {
    Ok(CertificateRevocationListDer::pem_slice_iter(pem).collect::<Result<_, _>>()?)
}

fn certificates(pem: &[u8]) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    Ok(CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>()?)
}
