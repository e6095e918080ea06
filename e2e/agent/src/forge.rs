//! A CA of one's own: what an intruder makes in a second, and what the tests stand on.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};

use crate::clock;

/// A root, and an issuing CA under it that signs: the same shape as the operator's.
pub struct ForgedCa {
    #[cfg_attr(not(test), expect(dead_code, reason = "only a test trusts a forged root"))]
    pub root: CertificateDer<'static>,
    intermediate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    #[cfg_attr(not(test), expect(dead_code, reason = "only a test believes a forged CRL"))]
    root_issuer: Issuer<'static, KeyPair>,
}

pub struct ForgedLeaf {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

impl ForgedCa {
    pub fn new(name: &str) -> Result<Self, rcgen::Error> {
        let (root_key, root_params) = (KeyPair::generate()?, ca(&format!("{name}, root"), 1)?);
        let root = root_params.self_signed(&root_key)?.der().clone();
        let root_issuer = Issuer::new(root_params, root_key);
        let (key, params) = (KeyPair::generate()?, ca(&format!("{name}, issuing"), 0)?);
        let intermediate = params.signed_by(&key, &root_issuer)?.der().clone();
        Ok(Self { root, intermediate, issuer: Issuer::new(params, key), root_issuer })
    }

    /// A leaf as Countersign makes them, for an hour.
    pub fn leaf(&self, spiffe_id: &str) -> Result<ForgedLeaf, rcgen::Error> {
        self.leaf_with(&[spiffe_id], |_| {})
    }

    pub fn leaf_with(
        &self,
        uris: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Result<ForgedLeaf, rcgen::Error> {
        let mut params = params(Duration::hours(1))?;
        params.subject_alt_names = uris
            .iter()
            .map(|uri| Ok(SanType::URI((*uri).try_into()?)))
            .collect::<Result<_, rcgen::Error>>()?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        change(&mut params);
        let key = KeyPair::generate()?;
        let leaf = params.signed_by(&key, &self.issuer)?.der().clone();
        Ok(ForgedLeaf {
            chain: vec![leaf, self.intermediate.clone()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        })
    }
}

#[cfg(test)]
impl ForgedCa {
    /// The root's CRL, which takes back the issuing CA or nothing, and the issuing CA's, which takes back these leaves.
    pub fn lists(
        &self,
        issuing_too: bool,
        leaves: &[&ForgedLeaf],
        life: Duration,
    ) -> Vec<rustls_pki_types::CertificateRevocationListDer<'static>> {
        let issuing = issuing_too.then_some(&self.intermediate);
        let leaves = leaves.iter().map(|leaf| &leaf.chain[0]);
        [list(&self.root_issuer, issuing.into_iter(), life), list(&self.issuer, leaves, life)]
            .into()
    }
}

#[cfg(test)]
fn list<'a>(
    issuer: &Issuer<'static, KeyPair>,
    revoked: impl Iterator<Item = &'a CertificateDer<'static>>,
    life: Duration,
) -> rustls_pki_types::CertificateRevocationListDer<'static> {
    use x509_parser::prelude::{FromDer, X509Certificate};
    let now = OffsetDateTime::from_unix_timestamp(clock::now().as_second()).unwrap();
    let revoked = revoked.map(|der| rcgen::RevokedCertParams {
        serial_number: X509Certificate::from_der(der).unwrap().1.raw_serial().to_vec().into(),
        revocation_time: now,
        reason_code: Some(rcgen::RevocationReason::KeyCompromise),
        invalidity_date: None,
    });
    let params = rcgen::CertificateRevocationListParams {
        this_update: now - Duration::minutes(1),
        next_update: now + life,
        crl_number: 1.into(),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    params.signed_by(issuer).unwrap().der().clone()
}

fn ca(name: &str, path_length: u8) -> Result<CertificateParams, rcgen::Error> {
    let mut params = params(Duration::days(1))?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// rcgen's own defaults run from 1975 to 4096 under a stock name.
fn params(life: Duration) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    let now = OffsetDateTime::from_unix_timestamp(clock::now().as_second())
        .unwrap_or(OffsetDateTime::UNIX_EPOCH);
    params.distinguished_name = DistinguishedName::new();
    params.not_before = now - Duration::minutes(1);
    params.not_after = now + life;
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}
