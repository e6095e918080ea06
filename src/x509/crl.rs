//! Reading certificate revocation lists (RFC 5280, section 5).

use std::collections::BTreeMap;

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use super::{X509Error, hex, parse, timestamp};

/// What a CRL says.
#[derive(Clone, Debug, PartialEq)]
pub struct Crl {
    /// The CRL number (RFC 5280, 5.2.3).
    pub number: u64,
    /// The key id of the CA that signed it, lower-case hexadecimal.
    pub key_id: String,
    pub this_update: Timestamp,
    pub next_update: Timestamp,
    /// By serial number in lower-case hexadecimal: when it was revoked, and the reason code of RFC
    /// 5280, 5.3.1 (0 where there is none).
    pub entries: BTreeMap<String, (Timestamp, u8)>,
}

/// True if and only if a CRL was signed with the key of this certificate.
pub fn is_signed_by(der: &[u8], issuer: &CertificateDer<'_>) -> bool {
    let (Ok((_, crl)), Ok(issuer)) = (CertificateRevocationList::from_der(der), parse(issuer))
    else {
        return false;
    };
    crl.verify_signature(issuer.public_key()).is_ok()
}

/// Reads a CRL in DER. It says nothing about the signature.
///
/// # Errors
/// Where it is none, or lacks what every CRL of ours has.
pub fn read_crl(der: &[u8]) -> Result<Crl, X509Error> {
    let broken = |what: &str| X509Error::Crl(what.to_owned());
    let (rest, crl) = CertificateRevocationList::from_der(der)
        .map_err(|error| X509Error::Crl(error.to_string()))?;
    if !rest.is_empty() {
        return Err(broken("bytes follow it"));
    }
    let number = crl.crl_number().ok_or(broken("it has no number"))?;
    let key_id = crl.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => {
            id.key_identifier.as_ref().map(|id| hex(id.0))
        }
        _ => None,
    });
    let entries = crl.iter_revoked_certificates().map(|entry| {
        let reason = entry.reason_code().map(|(_, code)| code.0).unwrap_or_default();
        let serial = hex(entry.raw_serial()).trim_start_matches("00").to_owned();
        (serial, (timestamp(entry.revocation_date.timestamp()), reason))
    });
    Ok(Crl {
        number: number.to_string().parse().map_err(|_| broken("its number is too large"))?,
        key_id: key_id.ok_or(broken("it does not say which CA signed it"))?,
        this_update: timestamp(crl.last_update().timestamp()),
        next_update: crl
            .next_update()
            .map(|time| timestamp(time.timestamp()))
            .ok_or(broken("it does not say when the next one comes"))?,
        entries: entries.collect(),
    })
}
