//! `Intermediate` mode: Vault signs a request for an issuing CA, whose key is made here and stays
//! here.

use http::Method;
use serde_json::json;

use super::client::VaultClient;
use super::error::VaultError;
use super::{Answer, Certificates, VaultSource, in_vault, nothing_in};
use crate::decide::schedule::{BACKDATE, whole_seconds};
use crate::identity::VaultAddress;
use crate::sign::request::CaRequest;
use crate::sign::{ForeignIssuer, Imported, SignError, Slot, profile};
use crate::source::{Making, SourceError};
use crate::x509;

/// Where an issuing CA is asked for.
pub fn path(address: &VaultAddress) -> String {
    let VaultAddress { mount, issuer, .. } = address;
    format!("{mount}/issuer/{issuer}/sign-intermediate")
}

/// The issuing CA that was ordered, signed by Vault's issuer.
pub async fn make(
    source: &VaultSource,
    vault: &VaultClient,
    issuer: &ForeignIssuer,
    making: Making<'_>,
) -> Result<Slot, SourceError> {
    let Making { domain, order, now, .. } = making;
    let root = &issuer.root;
    let request = {
        let domain = domain.clone();
        // An RSA key takes seconds: not on a thread that others wait for.
        let made = tokio::task::spawn_blocking(move || CaRequest::new(&domain));
        made.await.map_err(|error| SignError::Sign(error.to_string()))??
    };
    // Vault would give one that outlives those above it (rule 1).
    let end = order.life.after(whole_seconds(now)).min(issuer.not_after()?);
    let body = json!({
        "csr": request.pem,
        "format": "pem",
        "common_name": request.common_name,
        "organization": profile::ORGANIZATION,
        "uri_sans": request.uri,
        "exclude_cn_from_sans": true,
        "max_path_length": 0,
        "not_after": end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "not_before_duration": BACKDATE.as_secs(),
    });
    let path = path(&source.0.address);
    let answer: Answer<Certificates> = source.ask(vault, Method::POST, &path, Some(&body)).await?;
    let signed = answer.data.ok_or_else(|| nothing_in(&path))?;
    let unusable = |why: String| {
        VaultError::Unusable(format!("the CA that Vault signed at {path} cannot be used: {why}"))
    };
    let imported = Imported::read_signed(&signed.in_order(), None, request.key, domain, now).await;
    let imported = imported.map_err(|refusal| unusable(in_vault(&refusal)))?;
    if imported.root.certificate != root.certificate {
        return Err(SourceError::Changed);
    }
    let issuing = imported.issuing;
    let found = x509::read_ca(&issuing.certificate).map_err(SignError::from)?;
    if found.not_after > end {
        let why = format!("it ends at {}, later than was asked ({end})", found.not_after);
        return Err(unusable(why).into());
    }
    tracing::debug!(trust_domain = domain.name, common_name = request.common_name, %end,
        "Vault signed an issuing CA");
    Ok(issuing)
}
