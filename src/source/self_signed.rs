//! `selfSigned`: the operator makes a root, and an issuing CA under it.

use async_trait::async_trait;
use jiff::Timestamp;

use super::{CaSource, Making, SourceError, Unavailable};
use crate::decide::slots::Supply;
use crate::identity::Domain;
use crate::sign::{SignError, Slot};

/// The operator itself.
pub struct SelfSigned;

#[async_trait]
impl CaSource for SelfSigned {
    async fn supply(&self, _: &Domain, _: Timestamp) -> Result<Supply, Unavailable> {
        Ok(Supply::Made)
    }

    async fn make(&self, making: Making<'_>) -> Result<Slot, SourceError> {
        let Making { domain, order, parent, now } = making;
        let (domain, order) = (domain.clone(), order.clone());
        // An RSA key takes seconds: not on a thread that others wait for.
        let made =
            tokio::task::spawn_blocking(move || Slot::make(&domain, &order, parent.as_ref(), now));
        Ok(made.await.map_err(|error| SignError::Sign(error.to_string()))??)
    }
}
