//! Certificate signing requests (PKCS#10, RFC 2986): what is asked of those who sign for us.

use rcgen::string::Ia5String;
use rcgen::{CertificateParams, DistinguishedName, DnType, SanType};

use super::ca_key::SharedKey;
use super::key::PrivateKey;
use super::{SignError, profile};
use crate::decide::LeafProfile;
use crate::identity::Domain;

/// A request for an issuing CA, and the new key that it is for.
pub struct CaRequest {
    pub key: SharedKey,
    /// The common name in its subject, beside [`profile::ORGANIZATION`].
    pub common_name: String,
    /// Its URI SAN: the trust domain's own SPIFFE ID.
    pub uri: String,
    pub pem: String,
}

impl CaRequest {
    /// A request with a new key. An RSA key takes seconds.
    pub fn new(domain: &Domain) -> Result<Self, SignError> {
        let key = SharedKey::new(PrivateKey::generate_for_ca(domain.ca.algorithm)?);
        let common_name = profile::ca_name(&domain.domain, "issuing")?;
        let uri = domain.domain.authority_id();
        let mut params = empty();
        params.distinguished_name.push(DnType::OrganizationName, profile::ORGANIZATION);
        params.distinguished_name.push(DnType::CommonName, common_name.as_str());
        params.subject_alt_names = vec![SanType::URI(ia5(&uri)?)];
        let request = params.serialize_request(&key).map_err(broken)?;
        let pem = request.pem().map_err(broken)?;
        Ok(CaRequest { key, common_name, uri, pem })
    }
}

/// A request for a leaf of this profile, as far as a request can say it: the key and the names.
pub fn leaf_request(profile: &LeafProfile, key: &PrivateKey) -> Result<String, SignError> {
    let mut params = empty();
    params.subject_alt_names = vec![SanType::URI(ia5(profile.spiffe_id.as_str())?)];
    for name in &profile.dns_names {
        params.subject_alt_names.push(SanType::DnsName(ia5(name)?));
    }
    let request = params.serialize_request(key.pair()).map_err(broken)?;
    request.pem().map_err(broken)
}

/// rcgen writes nothing into a request that is not set here.
fn empty() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
}

fn ia5(text: &str) -> Result<Ia5String, SignError> {
    Ia5String::try_from(text).map_err(|error| SignError::Sign(error.to_string()))
}

fn broken(error: rcgen::Error) -> SignError {
    SignError::Sign(error.to_string())
}
