//! `secret`: an issuing CA with its key, which somebody else puts into a Secret of the operator's
//! namespace.
//!
//! It is copied into CA Secrets of our own before it signs. So a Secret that is changed, damaged or
//! deleted takes nothing away from what signs now: another CA in it is one that comes next.

use async_trait::async_trait;
use jiff::Timestamp;
use kube::Client;

use super::{CaSource, Making, SourceError, Unavailable};
use crate::api::SlotKind;
use crate::api::conditions::Reason;
use crate::decide::slots::{Offer, Supply};
use crate::identity::Domain;
use crate::sign::{Imported, Slot};
use crate::wire;

/// A Secret, by name.
pub struct SecretSource {
    pub client: Client,
    /// The operator's own.
    pub namespace: String,
    pub name: String,
}

impl SecretSource {
    async fn read(&self, domain: &Domain, now: Timestamp) -> Result<Imported, Unavailable> {
        let (namespace, name) = (&self.namespace, &self.name);
        let unavailable = |message| Unavailable { reason: Reason::AuthorityUnavailable, message };
        let secret = wire::get_secret(&self.client, namespace, name).await.map_err(|error| {
            unavailable(format!("Secret {namespace}/{name} could not be read: {error}"))
        })?;
        let Some(secret) = secret else {
            return Err(unavailable(format!(
                "there is no Secret {namespace}/{name}: put the issuing CA there, with its chain in tls.crt, its key in tls.key and the root in ca.crt"
            )));
        };
        Imported::read(&secret.data, domain, now).await.map_err(|refusal| Unavailable {
            reason: Reason::CaRefused,
            message: format!("the CA in Secret {namespace}/{name} cannot be used: {refusal}"),
        })
    }
}

#[async_trait]
impl CaSource for SecretSource {
    async fn supply(&self, domain: &Domain, now: Timestamp) -> Result<Supply, Unavailable> {
        Ok(Supply::Offered(self.read(domain, now).await?.offer()))
    }

    async fn make(&self, making: Making<'_>) -> Result<Slot, SourceError> {
        let Making { domain, order, parent, now } = making;
        let imported = self.read(domain, now).await;
        let imported = imported.map_err(|error| SourceError::Unavailable(error.message))?;
        let Offer { root, .. } = imported.offer();
        let is_under_it = parent.is_none_or(|parent| {
            crate::x509::write_pem([&parent.certificate]) == root.certificate_pem
        });
        match order.kind {
            SlotKind::Issuing if !is_under_it => Err(SourceError::Changed),
            kind => Ok(imported.into_slot(kind)),
        }
    }
}
