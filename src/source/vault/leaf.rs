//! `Leaf` mode: Vault signs every leaf, for a key that was made here.
//!
//! Vault chooses the serial number and when the life begins. What it gives is judged before it goes
//! anywhere; [`crate::sign::sign`] does what is the same for every authority.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use http::Method;
use rustls_pki_types::CertificateDer;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::Instant;

use super::client::VaultClient;
use super::error::VaultError;
use super::{Answer, VaultSource, nothing_in};
use crate::decide::LeafProfile;
use crate::sign::request::leaf_request;
use crate::sign::{Authority, Chain, PrivateKey, SignError};
use crate::x509;

/// How many signatures are asked of one Vault at a time. More only lengthen its queue.
const AT_ONCE: usize = 16;
/// The same of all together: half of those who may work on identities (`IDENTITIES_AT_ONCE`), so that
/// Vaults which let us wait leave the other half to everybody else.
static ALL_AT_ONCE: Semaphore = Semaphore::const_new(32);

/// An issuing CA in Vault.
pub struct VaultAuthority {
    source: VaultSource,
    chain: Chain,
    role: String,
    /// How Vault calls it, once that is known: its default issuer may be another by now.
    issuer: OnceCell<String>,
    room: Semaphore,
}

/// Where a leaf is asked for.
pub fn path(mount: &str, issuer: &str, role: &str) -> String {
    format!("{mount}/issuer/{issuer}/sign/{role}")
}

impl VaultAuthority {
    /// The issuing CA of this chain, for leaves under this role.
    pub fn new(source: VaultSource, mut chain: Chain, role: String) -> Self {
        chain.facts.signs_elsewhere = true;
        let room = Semaphore::new(AT_ONCE);
        VaultAuthority { source, chain, role, issuer: OnceCell::new(), room }
    }

    async fn ask(
        &self,
        profile: &LeafProfile,
        request: &str,
    ) -> Result<CertificateDer<'static>, VaultError> {
        #[derive(Deserialize)]
        struct Signed {
            certificate: String,
        }
        let vault = self.source.client().await?;
        let issuer = self.issuer.get_or_try_init(|| self.source.id_of(&vault, &self.chain.issuer));
        let path = path(&self.source.0.address.mount, issuer.await?, &self.role);
        let body = json!({
            "csr": request,
            "format": "pem",
            "exclude_cn_from_sans": true,
            "not_after": profile.not_after.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        });
        let answer: Answer<Signed> =
            self.source.ask(&vault, Method::POST, &path, Some(&body)).await?;
        let signed = answer.data.ok_or_else(|| nothing_in(&path))?;
        let unreadable = |error: x509::X509Error| VaultError::Answer {
            path: path.clone(),
            why: error.to_string(),
        };
        let mut certificates = x509::read_pem(signed.certificate.as_bytes()).map_err(unreadable)?;
        Ok(certificates.swap_remove(0))
    }

    /// What is to be done about a certificate that no agent could use.
    fn judge(&self, certificate: &CertificateDer<'_>) -> Result<(), SignError> {
        let role = &self.role;
        let leaf = x509::read_leaf(certificate)?;
        if let Some(defect) = leaf.defect {
            return Err(SignError::Elsewhere(format!(
                "what Vault signed is no X.509-SVID and was thrown away ({defect}): give its role {role} key_usage=DigitalSignature, the default extended key usages, and no names of its own"
            )));
        }
        match leaf.authority_key_id == self.chain.facts.key_id {
            true => Ok(()),
            false => Err(SignError::Elsewhere(format!(
                "Vault signed with the CA {}, not with {}, which is trusted: what it signed was thrown away",
                leaf.authority_key_id, self.chain.facts.key_id
            ))),
        }
    }
}

#[async_trait]
impl Authority for VaultAuthority {
    fn chain(&self) -> &Chain {
        &self.chain
    }

    fn is_busy(&self) -> bool {
        self.room.available_permits() == 0 || ALL_AT_ONCE.available_permits() == 0
    }

    async fn sign(
        &self,
        profile: &LeafProfile,
        key: &PrivateKey,
    ) -> Result<CertificateDer<'static>, SignError> {
        let (Ok(_mine), Ok(_all)) = (self.room.try_acquire(), ALL_AT_ONCE.try_acquire()) else {
            return Err(SignError::Busy);
        };
        let request = leaf_request(profile, key)?;
        match self.ask(profile, &request).await {
            Ok(certificate) => {
                self.source.0.failure.is_over();
                self.judge(&certificate)?;
                Ok(certificate)
            }
            Err(error) => {
                let said = error.to_string();
                // What one identity may not have is no trouble of the others'.
                if !matches!(error, VaultError::NotAllowed { .. }) {
                    self.source.0.failure.note(error);
                }
                Err(SignError::Elsewhere(said))
            }
        }
    }
}

impl VaultSource {
    /// How Vault calls the issuer that has this certificate.
    pub(super) async fn id_of(
        &self,
        vault: &VaultClient,
        certificate: &CertificateDer<'_>,
    ) -> Result<String, VaultError> {
        #[derive(Deserialize)]
        struct Issuers {
            keys: Vec<String>,
        }
        let mount = &self.0.address.mount;
        let path = format!("{mount}/issuers?list=true");
        let named = [self.0.address.issuer.clone()];
        if let Some(id) = self.find(vault, &named, certificate).await? {
            return Ok(id);
        }
        let answer: Answer<Issuers> = self.ask(vault, Method::GET, &path, None).await?;
        let all = answer.data.map(|issuers| issuers.keys).unwrap_or_default();
        self.find(vault, &all, certificate).await?.ok_or_else(|| VaultError::Denied {
            path,
            said: "no issuer there has the certificate of the CA that is trusted now".to_owned(),
        })
    }

    async fn find(
        &self,
        vault: &VaultClient,
        issuers: &[String],
        certificate: &CertificateDer<'_>,
    ) -> Result<Option<String>, VaultError> {
        for issuer in issuers {
            let found = self.certificates_of(vault, issuer).await?;
            let first = x509::read_pem(found.certificate.as_bytes());
            if first.is_ok_and(|first| first[0] == *certificate) {
                return Ok(Some(found.issuer_id.unwrap_or_else(|| issuer.clone())));
            }
        }
        Ok(None)
    }
}

/// What kept Vault from signing a leaf, for the trust domain to tell of.
#[derive(Default)]
pub struct Failure {
    last: Mutex<Option<(Instant, VaultError)>>,
    is_news: AtomicBool,
}

/// An identity that was refused comes again within this time, at first: where none does, what was may
/// be over.
const RECENT: Duration = Duration::from_secs(60);

impl Failure {
    fn note(&self, error: VaultError) {
        if self.lock().replace((Instant::now(), error)).is_none() {
            self.is_news.store(true, Ordering::SeqCst);
        }
    }

    fn is_over(&self) {
        if self.lock().take().is_some() {
            self.is_news.store(true, Ordering::SeqCst);
        }
    }

    /// What went wrong lately, if nothing went right since.
    pub fn recent(&self) -> Option<VaultError> {
        let last = self.lock();
        let (at, error) = last.as_ref()?;
        (at.elapsed() < RECENT).then(|| error.clone())
    }

    /// True if and only if that changed since this was asked last.
    pub fn is_news(&self) -> bool {
        self.is_news.swap(false, Ordering::SeqCst)
    }

    /// An error is whole, whoever panicked.
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(Instant, VaultError)>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
