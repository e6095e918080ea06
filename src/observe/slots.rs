//! Reading the CA Secrets of a trust domain.

use kube::Client;

use crate::api::SlotKind;
use crate::api::names::{
    AUTHORITY_LABEL, KEY_URI, SLOT_KIND_LABEL, TLS_CRT, TLS_KEY, TRUST_DOMAIN_LABEL,
};
use crate::decide::slots::{FoundCa, SlotOrder, SlotSecret};
use crate::identity::AuthorityKind;
use crate::sign::{KeptKey, SignError, Slot};
use crate::wire::{self, SecretObject, WireError};
use crate::x509::write_pem;

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
            let name = secret.metadata.name.as_deref()?;
            let number = SlotOrder::number_of(trust_domain, kind, name)?;
            Some(understand(secret, name, kind, number))
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
        if let Ok(ca) = &mut slot.facts.content {
            ca.signed_by = signer;
        }
    }
    Ok(found)
}

fn understand(secret: &SecretObject, name: &str, kind: SlotKind, number: u32) -> FoundSlot {
    let read = try_read(secret, kind);
    let content = match &read {
        Ok((origin, slot)) => Ok(FoundCa {
            ca: slot.ca.clone(),
            certificate_pem: write_pem([&slot.certificate]),
            origin: *origin,
            signed_by: None,
        }),
        Err(error) => Err(error.clone()),
    };
    FoundSlot {
        facts: SlotSecret { name: name.to_owned(), kind, number, content },
        slot: read.ok().map(|(_, slot)| slot),
    }
}

fn try_read(secret: &SecretObject, kind: SlotKind) -> Result<(AuthorityKind, Slot), String> {
    let label = secret.metadata.labels.as_ref().and_then(|labels| labels.get(AUTHORITY_LABEL));
    let origin = AuthorityKind::of(label.map(String::as_str))
        .ok_or_else(|| format!("its label {AUTHORITY_LABEL} is of another version"))?;
    let file = |name: &str| secret.data.get(name).map(|bytes| bytes.as_slice());
    // Where somebody else keeps the key, or a token does, the file is there and empty.
    let key = match (file(TLS_KEY).filter(|key| !key.is_empty()), file(KEY_URI)) {
        (Some(pem), _) => KeptKey::Pem(pem),
        (None, Some(uri)) => KeptKey::Uri(uri),
        (None, None) => KeptKey::None,
    };
    let slot =
        Slot::read(file(TLS_CRT).unwrap_or_default(), key).map_err(|error| error.to_string())?;
    if slot.key.is_none() && origin.keeps_key(kind) {
        return Err(SignError::NoKey.to_string());
    }
    Ok((origin, slot))
}
