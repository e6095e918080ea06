//! `vault`: the PKI engine of HashiCorp Vault or of OpenBao signs our issuing CAs, or every leaf.
//!
//! The root of the issuer that the spec names is what peers are to trust; another one there is a
//! rotation, with overlap, as for every kind. What comes back is judged before it goes anywhere, as
//! if a stranger had sent it.

mod client;
mod error;
mod intermediate;
mod leaf;
mod login;
mod revocation;
mod session;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use http::Method;
use jiff::Timestamp;
use kube::Client;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use zeroize::Zeroizing;

use super::{CaSource, Making, SourceError, Unavailable, files};
use crate::api::SlotKind;
use crate::decide::crl::CrlOrder;
use crate::decide::slots::{Offer, OfferedIssuing, Supply};
use crate::identity::{Domain, VaultAddress, VaultWork};
use crate::sign::{Authority, Chain, ForeignIssuer, Refusal, SignError, Slot};
use crate::x509;
use client::{Ask, VaultClient};
use error::VaultError;
use leaf::Failure;
use login::Credentials;
use session::Session;

/// A Vault, by its address. Copies share its connections and its login.
#[derive(Clone)]
pub struct VaultSource(Arc<Inner>);

struct Inner {
    kube: Client,
    /// The operator's own.
    namespace: String,
    address: VaultAddress,
    /// The client, and the CA certificates that it was made with.
    client: Mutex<Option<(Vec<u8>, VaultClient)>>,
    session: Session,
    failure: Failure,
}

/// What most answers hold.
#[derive(Deserialize)]
struct Answer<T> {
    data: Option<T>,
}

/// Certificates in PEM: one, and those above it.
#[derive(Deserialize)]
struct Certificates {
    certificate: String,
    #[serde(default)]
    ca_chain: Option<Vec<String>>,
    #[serde(default)]
    issuer_id: Option<String>,
}

impl VaultSource {
    /// The Vault of this address.
    pub fn new(kube: Client, namespace: String, address: VaultAddress) -> Self {
        let (client, session, failure) = Default::default();
        VaultSource(Arc::new(Inner { kube, namespace, address, client, session, failure }))
    }

    /// A client that believes whom the spec says now.
    async fn client(&self) -> Result<VaultClient, VaultError> {
        let (kube, namespace) = (&self.0.kube, &self.0.namespace);
        let pem = files::trusted(kube, namespace, &self.0.address.trust).await?;
        let mut known = self.0.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, client)) = &*known
            && *of == pem
        {
            return Ok(client.clone());
        }
        let trusted = x509::read_pem(&pem).map_err(|error| {
            VaultError::Setting(format!("the CA certificates for Vault cannot be read: {error}"))
        })?;
        let VaultAddress { server, namespace, .. } = &self.0.address;
        let client = VaultClient::new(server, namespace.as_deref(), &trusted)?;
        *known = Some((pem, client.clone()));
        Ok(client)
    }

    /// Asks something, logged in. A token that Vault does not take any more is got anew once.
    async fn ask<T: DeserializeOwned>(
        &self,
        vault: &VaultClient,
        method: Method,
        path: &str,
        body: Option<&serde_json::Value>,
    ) -> Result<T, VaultError> {
        let credentials = Credentials {
            vault,
            kube: &self.0.kube,
            namespace: &self.0.namespace,
            login: &self.0.address.login,
        };
        let token = self.0.session.token(&credentials).await?;
        let ask = |token| {
            let body = body.map(|body| Zeroizing::new(body.to_string().into_bytes()));
            vault.ask(Ask { method: method.clone(), path, token: Some(token), body })
        };
        match ask(&token).await {
            // Vault says the same of a token that has ended and of one that may not.
            Err(VaultError::Denied { .. }) => {
                self.0.session.forget(&token).await;
                let token = self.0.session.token(&credentials).await?;
                ask(&token).await
            }
            other => other,
        }
    }

    /// The issuer that the spec names, as it is now.
    async fn issuer(
        &self,
        vault: &VaultClient,
        domain: &Domain,
        now: Timestamp,
    ) -> Result<ForeignIssuer, VaultError> {
        let VaultAddress { mount, issuer, work, .. } = &self.0.address;
        let certificates = self.certificates_of(vault, issuer).await?;
        let below = match work {
            VaultWork::IssuingCas => 1,
            VaultWork::Leaves { .. } => 0,
        };
        ForeignIssuer::read(&certificates.in_order(), below, domain, now).map_err(|refusal| {
            VaultError::Unusable(format!(
                "the issuer {issuer} of Vault's {mount} cannot be used: {}",
                in_vault(&refusal)
            ))
        })
    }

    /// The certificates of an issuer, by its name or id.
    async fn certificates_of(
        &self,
        vault: &VaultClient,
        issuer: &str,
    ) -> Result<Certificates, VaultError> {
        let path = format!("{}/issuer/{issuer}/json", self.0.address.mount);
        let answer: Answer<Certificates> = self.ask(vault, Method::GET, &path, None).await?;
        answer.data.ok_or_else(|| nothing_in(&path))
    }

    /// Sees that the token may do what it will be needed for, where Vault tells.
    async fn may(&self, vault: &VaultClient, path: &str) -> Result<(), VaultError> {
        #[derive(Deserialize)]
        struct Capabilities {
            capabilities: Vec<String>,
        }
        let asked = Some(json!({"paths": [path]}));
        let asked = self.ask(vault, Method::POST, "sys/capabilities-self", asked.as_ref()).await;
        let found = match asked {
            Ok(Answer { data: Some(Capabilities { capabilities }) }) => capabilities,
            // Not every token may ask what it may.
            Ok(_) | Err(VaultError::Denied { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        match found.iter().any(|one| ["root", "update", "sudo"].contains(&one.as_str())) {
            true => Ok(()),
            false => Err(VaultError::Denied {
                path: path.to_owned(),
                said: format!("the token may: {}", found.join(", ")),
            }),
        }
    }
}

#[async_trait]
impl CaSource for VaultSource {
    async fn supply(&self, domain: &Domain, now: Timestamp) -> Result<Supply, Unavailable> {
        let vault = self.client().await?;
        let issuer = self.issuer(&vault, domain, now).await?;
        let root = issuer.root();
        match &self.0.address.work {
            VaultWork::IssuingCas => {
                self.may(&vault, &intermediate::path(&self.0.address)).await?;
                Ok(Supply::Offered(Offer { root, issuing: None }))
            }
            VaultWork::Leaves { role } => {
                let VaultAddress { mount, issuer: name, .. } = &self.0.address;
                self.may(&vault, &leaf::path(mount, name, role)).await?;
                if let Some(failure) = self.0.failure.recent() {
                    return Err(failure.into());
                }
                let issuing = issuer.issuing().map_err(|error| {
                    VaultError::Unusable(format!("the issuer {name} cannot be used: {error}"))
                })?;
                let (key_id, fingerprint) = (issuing.ca.key_id, issuing.ca.fingerprint);
                let issuing = Some(OfferedIssuing { key_id, fingerprint });
                Ok(Supply::Offered(Offer { root, issuing }))
            }
        }
    }

    async fn make(&self, making: Making<'_>) -> Result<Slot, SourceError> {
        let vault = self.client().await?;
        let issuer = self.issuer(&vault, making.domain, making.now).await?;
        let is_under = |parent: &Slot| parent.certificate == issuer.root.certificate;
        match (making.order.kind, &self.0.address.work) {
            (SlotKind::Root, _) => Ok(issuer.root),
            _ if !making.parent.as_ref().is_none_or(is_under) => Err(SourceError::Changed),
            (SlotKind::Issuing, VaultWork::IssuingCas) => {
                intermediate::make(self, &vault, &issuer, making).await
            }
            (SlotKind::Issuing, VaultWork::Leaves { .. }) => Ok(issuer.issuing()?),
        }
    }

    fn authority(&self, chain: Chain, issuing: Slot) -> Result<Box<dyn Authority>, SignError> {
        match &self.0.address.work {
            VaultWork::IssuingCas => super::signing_with(chain, issuing),
            VaultWork::Leaves { role } => {
                Ok(Box::new(leaf::VaultAuthority::new(self.clone(), chain, role.clone())))
            }
        }
    }

    fn is_far_away(&self) -> bool {
        true
    }

    fn is_asked_for_every_leaf(&self) -> bool {
        matches!(self.0.address.work, VaultWork::Leaves { .. })
    }

    fn has_news(&self) -> bool {
        self.0.failure.is_news()
    }

    async fn crl(&self, issuing: &Slot, order: &CrlOrder) -> Result<Option<Vec<u8>>, Unavailable> {
        match self.0.address.work {
            VaultWork::IssuingCas => Ok(None),
            VaultWork::Leaves { .. } => Ok(Some(revocation::crl(self, issuing, order).await?)),
        }
    }

    fn asks_for_time(&self) -> Option<Duration> {
        let known = self.0.client.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().and_then(|(_, client)| client.pause_left())
    }
}

impl Certificates {
    /// The certificate, and those above it, each once.
    fn in_order(&self) -> String {
        let mut all: Vec<&str> = vec![self.certificate.trim()];
        for certificate in self.ca_chain.iter().flatten().map(|pem| pem.trim()) {
            if !all.contains(&certificate) {
                all.push(certificate);
            }
        }
        all.join("\n")
    }
}

fn nothing_in(path: &str) -> VaultError {
    VaultError::Answer { path: path.to_owned(), why: "it holds no data".to_owned() }
}

/// What is to be done about a refusal, where a CA is Vault's.
fn in_vault(refusal: &Refusal) -> String {
    match refusal {
        Refusal::NoRoot(place) => format!(
            "the root CA is missing: {place} is not self-signed, and the engine does not know what signed it: import the certificates above it (vault write pki/issuers/import/cert), up to the root"
        ),
        Refusal::OtherKey => "it is not for the key that was asked for".to_owned(),
        other => other.to_string(),
    }
}
