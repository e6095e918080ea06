//! What certificates look like, field by field. Pure, except for what tells one CA from another.
//!
//! rcgen's defaults run from 1975 to 4096 with a stock subject: every field is set here.

use aws_lc_rs::rand;
use jiff::Timestamp;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CrlDistributionPoint, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType, SerialNumber,
};
use time::OffsetDateTime;

use super::SignError;
use crate::api::SlotKind;
use crate::decide::LeafProfile;
use crate::decide::schedule::{BACKDATE, saturating_sub};
use crate::identity::TrustDomainName;

/// An X.509-SVID (SPIFFE X.509-SVID sections 2 to 4, RFC 5280): one URI SAN, an empty subject (so
/// the SAN is critical), CA:FALSE, digitalSignature alone, and both TLS usages.
pub fn leaf(profile: &LeafProfile) -> Result<CertificateParams, SignError> {
    let mut names = vec![SanType::URI(ia5(profile.spiffe_id.as_str())?)];
    for name in &profile.dns_names {
        names.push(SanType::DnsName(ia5(name)?));
    }
    let serial = SerialNumber::from_slice(profile.serial.as_bytes());
    let mut params = base(serial, profile.not_before, profile.not_after)?;
    params.subject_alt_names = names;
    params.crl_distribution_points = profile
        .crl_url
        .iter()
        .map(|url| CrlDistributionPoint { uris: vec![url.clone()] })
        .collect();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

/// A CA of a trust domain: its own SPIFFE ID without a path, keyCertSign and cRLSign. An issuing
/// CA may have no CA below it.
pub fn ca(
    kind: SlotKind,
    domain: &TrustDomainName,
    now: Timestamp,
    not_after: Timestamp,
) -> Result<CertificateParams, SignError> {
    let serial = SerialNumber::from_slice(&random::<16>()?);
    let mut params = base(serial, saturating_sub(now, BACKDATE), not_after)?;
    let (role, constraints) = match kind {
        SlotKind::Root => ("root", BasicConstraints::Unconstrained),
        SlotKind::Issuing => ("issuing", BasicConstraints::Constrained(0)),
    };
    params.distinguished_name.push(DnType::OrganizationName, ORGANIZATION);
    params.distinguished_name.push(DnType::CommonName, ca_name(domain, role)?);
    params.subject_alt_names = vec![SanType::URI(ia5(&domain.authority_id())?)];
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// The organization in the subject of a CA.
pub const ORGANIZATION: &str = "Countersign";

/// The common name of a new CA. Its subject may not be empty (RFC 5280, 4.1.2.6), and must tell one
/// CA from another: verifiers that find issuers by name would take the wrong one.
pub fn ca_name(domain: &TrustDomainName, role: &str) -> Result<String, SignError> {
    Ok(common_name(domain, role, &crate::x509::hex(&random::<4>()?)))
}

/// At most the 64 characters that X.520 allows a common name; the mark is always whole.
fn common_name(domain: &TrustDomainName, role: &str, mark: &str) -> String {
    let tail = format!(" {role} {mark}");
    let head: String = domain.as_str().chars().take(64 - tail.len()).collect();
    head + &tail
}

fn base(
    serial: SerialNumber,
    not_before: Timestamp,
    not_after: Timestamp,
) -> Result<CertificateParams, SignError> {
    let mut params = CertificateParams::default();
    params.not_before = date(not_before)?;
    params.not_after = date(not_after)?;
    params.serial_number = Some(serial);
    params.distinguished_name = DistinguishedName::new();
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// A CA's serial number has 128 bits from the generator, twice what CA/Browser Forum asks. A leaf's
/// is ordered: see [`crate::x509::Serial`].
fn random<const N: usize>() -> Result<[u8; N], SignError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| SignError::Random)?;
    Ok(bytes)
}

fn date(moment: Timestamp) -> Result<OffsetDateTime, SignError> {
    OffsetDateTime::from_unix_timestamp(moment.as_second())
        .map_err(|error| SignError::Sign(error.to_string()))
}

fn ia5(text: &str) -> Result<Ia5String, SignError> {
    Ia5String::try_from(text).map_err(|error| SignError::Sign(error.to_string()))
}
