//! Reading the CA Secrets of a trust domain.

use kube::Client;

use crate::api::SlotKind;
use crate::api::names::{SLOT_KIND_LABEL, TLS_CRT, TLS_KEY, TRUST_DOMAIN_LABEL};
use crate::decide::slots::SlotSecret;
use crate::sign::Slot;
use crate::wire::{self, SecretObject, WireError};

/// A CA Secret, and the CA in it if it holds one.
pub struct FoundSlot {
    pub facts: SlotSecret,
    pub slot: Option<Slot>,
}

/// Reads every CA Secret of a trust domain.
///
/// # Errors
/// When the API server did not answer.
pub async fn read(
    client: &Client,
    namespace: &str,
    trust_domain: &str,
) -> Result<Vec<FoundSlot>, WireError> {
    let selector = format!("{TRUST_DOMAIN_LABEL}={trust_domain}");
    let mut found: Vec<FoundSlot> = wire::list_secrets(client, namespace, &selector)
        .await?
        .iter()
        .filter_map(|secret| {
            let kind = match secret.metadata.labels.as_ref()?.get(SLOT_KIND_LABEL)?.as_str() {
                "root" => SlotKind::Root,
                "issuing" => SlotKind::Issuing,
                _ => return None,
            };
            Some(understand(secret, kind))
        })
        .collect();
    // Who signed whom can be told only when all are there. Quadratic in a handful.
    let signers: Vec<Option<String>> = found
        .iter()
        .map(|of| {
            let slot = of.slot.as_ref()?;
            found.iter().find_map(|by| slot.signed_by(by.slot.as_ref()))
        })
        .collect();
    for (slot, signer) in found.iter_mut().zip(signers) {
        slot.facts.signed_by = signer;
    }
    Ok(found)
}

fn understand(secret: &SecretObject, kind: SlotKind) -> FoundSlot {
    let file = |name: &str| secret.data.get(name).map(|bytes| bytes.as_slice()).unwrap_or_default();
    let read = Slot::read(file(TLS_CRT), file(TLS_KEY));
    let content = match &read {
        Ok(slot) => Ok(slot.ca.clone()),
        Err(error) => Err(error.to_string()),
    };
    let name = secret.metadata.name.clone().unwrap_or_default();
    FoundSlot { facts: SlotSecret { name, kind, content, signed_by: None }, slot: read.ok() }
}
