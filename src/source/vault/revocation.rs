//! Revoking in `Leaf` mode: the CA's key is Vault's, and so is its CRL.

use http::Method;
use serde::Deserialize;
use serde_json::json;

use super::client::Ask;
use super::error::VaultError;
use super::{Answer, VaultSource};
use crate::decide::crl::CrlOrder;
use crate::sign::Slot;
use crate::x509;

/// Has Vault revoke what is ordered, and gives the CRL that says so.
pub async fn crl(
    source: &VaultSource,
    issuing: &Slot,
    order: &CrlOrder,
) -> Result<Vec<u8>, VaultError> {
    #[derive(Deserialize)]
    struct Revoked {}
    let vault = source.client().await?;
    let mount = &source.0.address.mount;
    let issuer = source.id_of(&vault, &issuing.certificate).await?;
    let path = format!("{mount}/issuer/{issuer}/crl/der");
    let fetch = || async {
        let ask = Ask { method: Method::GET, path: &path, token: None, body: None };
        let der = vault.ask_for_bytes(ask).await?.to_vec();
        let unusable = |why: String| {
            VaultError::Unusable(format!(
                "the CRL of Vault's issuer {issuer} cannot be used: {why}"
            ))
        };
        let crl = x509::read_crl(&der).map_err(|error| unusable(error.to_string()))?;
        match x509::crl::is_signed_by(&der, &issuing.certificate) {
            true => Ok((der, crl)),
            false => Err(unusable("that CA did not sign it".to_owned())),
        }
    };
    let (mut der, mut crl) = fetch().await?;
    let missing = |crl: &x509::Crl| {
        let serials = order.entries.iter().map(|entry| entry.key.serial.clone());
        serials.filter(|serial| !crl.entries.contains_key(serial)).collect::<Vec<String>>()
    };
    let wanted = missing(&crl);
    for serial in &wanted {
        let body = json!({"serial_number": in_pairs(serial)});
        let path = format!("{mount}/revoke");
        let _: Answer<Revoked> = source.ask(&vault, Method::POST, &path, Some(&body)).await?;
    }
    if !wanted.is_empty() {
        (der, crl) = fetch().await?;
    }
    match missing(&crl).as_slice() {
        [] => Ok(der),
        missing => Err(VaultError::Unusable(format!(
            "the CRL of Vault's issuer {issuer} does not list {} yet: see that its CRL is not disabled, and that the role stores what it signs (no_store=false)",
            missing.join(", ")
        ))),
    }
}

/// A serial number as Vault writes it: `0a:1b:2c`.
fn in_pairs(serial: &str) -> String {
    let padded = match serial.len().is_multiple_of(2) {
        true => serial.to_owned(),
        false => format!("0{serial}"),
    };
    let pairs: Vec<&str> = (0..padded.len()).step_by(2).map(|at| &padded[at..at + 2]).collect();
    pairs.join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serial_numbers_are_written_as_vault_does() {
        assert_eq!(in_pairs("0a1b2c"), "0a:1b:2c");
        assert_eq!(in_pairs("a1b2c"), "0a:1b:2c");
    }
}
