//! Signing CRLs (RFC 5280, section 5): version 2, complete, with a number and the CA's key id.

use jiff::Timestamp;
use rcgen::{
    CertificateRevocationListParams, KeyIdMethod, RevocationReason as Code, RevokedCertParams,
    SerialNumber,
};
use time::OffsetDateTime;

use super::issuer_name::ExactIssuer;
use super::{SignError, Slot};
use crate::api::RevocationReason;
use crate::decide::crl::CrlOrder;
use crate::x509::{self, X509Error};

/// Signs a CRL, and reads it back before handing it on.
///
/// # Errors
/// Where the CA is another, or what was signed is not what was ordered.
pub fn crl(slot: &Slot, order: &CrlOrder) -> Result<Vec<u8>, SignError> {
    if slot.ca.key_id != order.key_id {
        return Err(SignError::OtherAuthority);
    }
    let this_update = date(order.this_update)?;
    let mut revoked_certs = Vec::with_capacity(order.entries.len());
    for entry in &order.entries {
        revoked_certs.push(RevokedCertParams {
            serial_number: SerialNumber::from_slice(&octets(&entry.key.serial)?),
            // The list is backdated, and what it tells of is not of after it.
            revocation_time: date(entry.at)?.min(this_update),
            reason_code: Some(code(entry.reason)),
            invalidity_date: None,
        });
    }
    let params = CertificateRevocationListParams {
        this_update,
        next_update: date(order.next_update)?,
        crl_number: SerialNumber::from_slice(&order.number.to_be_bytes()),
        issuing_distribution_point: None,
        revoked_certs,
        // rcgen would work it out from the key; verifiers compare it with the certificate's own.
        key_identifier_method: KeyIdMethod::PreSpecified(octets(&slot.ca.key_id)?),
    };
    let key = slot.key.clone().ok_or(SignError::NoKey)?;
    let der = ExactIssuer::new(&slot.certificate, key)?.sign_crl(params)?;
    let read = x509::read_crl(&der)?;
    let is_sound = (read.number, &read.key_id, read.this_update, read.next_update)
        == (order.number, &order.key_id, order.this_update, order.next_update)
        && read.entries.len() == order.entries.len();
    if !is_sound {
        return Err(SignError::Unsound("the CRL is not the one that was ordered".to_owned()));
    }
    Ok(der)
}

fn code(reason: RevocationReason) -> Code {
    match reason {
        RevocationReason::Unspecified => Code::Unspecified,
        RevocationReason::KeyCompromise => Code::KeyCompromise,
        RevocationReason::CaCompromise => Code::CaCompromise,
        RevocationReason::AffiliationChanged => Code::AffiliationChanged,
        RevocationReason::Superseded => Code::Superseded,
        RevocationReason::CessationOfOperation => Code::CessationOfOperation,
        RevocationReason::PrivilegeWithdrawn => Code::PrivilegeWithdrawn,
    }
}

fn octets(hex: &str) -> Result<Vec<u8>, SignError> {
    x509::unhex(hex).ok_or_else(|| X509Error::Crl(format!("{hex} is not hexadecimal")).into())
}

fn date(moment: Timestamp) -> Result<OffsetDateTime, SignError> {
    OffsetDateTime::from_unix_timestamp(moment.as_second())
        .map_err(|error| SignError::Sign(error.to_string()))
}
