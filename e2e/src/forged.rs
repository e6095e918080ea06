//! A trust domain's CAs, made in a moment: what tests stand on that need CRLs of every kind.

use std::collections::BTreeMap;
use std::path::Path;

use countersign::api::ExtraFormat;
use countersign::api::names::ENVOY_TRUST_CRL;
use countersign::sign::formats::render;
use countersign::sign::key::PrivateKey;
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevocationReason, RevokedCertParams, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;

use crate::Delivered;
use crate::delivered::{certificates, leaf_of};
use crate::wait::now;

/// A root and an issuing CA under it, of the same shape as the operator's.
pub struct Forged {
    root_pem: String,
    issuing_pem: String,
    root: Issuer<'static, KeyPair>,
    issuing: Issuer<'static, KeyPair>,
}

/// A leaf with its key, as an agent's volume holds them.
pub struct Leaf {
    /// `tls.crt`: the leaf, then the issuing CA.
    pub chain: String,
    /// `tls.key`.
    pub key: String,
    der: CertificateDer<'static>,
}

impl Forged {
    /// New ones.
    pub fn new(domain: &str) -> Self {
        let (root_params, root_key) = (ca(&format!("{domain} root"), 1), new_key());
        let root_pem = root_params.self_signed(&root_key).expect("it signs").pem();
        let root = Issuer::new(root_params, root_key);
        let (params, key) = (ca(&format!("{domain} issuing"), 0), new_key());
        let issuing_pem = params.signed_by(&key, &root).expect("it signs").pem();
        Self { root_pem, issuing_pem, root, issuing: Issuer::new(params, key) }
    }

    /// A leaf for an hour.
    pub fn leaf(&self, spiffe_id: &str) -> Leaf {
        let mut params = params(3600);
        params.subject_alt_names = vec![SanType::URI(spiffe_id.try_into().expect("ASCII"))];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let key = new_key();
        let leaf = params.signed_by(&key, &self.issuing).expect("it signs");
        Leaf {
            chain: leaf.pem() + &self.issuing_pem,
            key: key.serialize_pem(),
            der: leaf.der().clone(),
        }
    }

    /// `crl.pem`: the root's CRL, which takes back nothing, and the issuing CA's. They end `life`
    /// seconds from now.
    pub fn lists(&self, revoked: &[&Leaf], life: i64) -> String {
        list(&self.root, &[], life) + &list(&self.issuing, revoked, life)
    }

    /// The issuing CA's alone.
    pub fn list_of_issuing(&self, revoked: &[&Leaf], life: i64) -> String {
        list(&self.issuing, revoked, life)
    }

    /// The files of an agent with this leaf in its volume `mount`: those of its Secret as the
    /// operator's own code writes them, and `crl.pem`.
    pub fn files(&self, leaf: &Leaf, lists: &str, mount: &Path) -> BTreeMap<String, Vec<u8>> {
        let key = PrivateKey::from_pem(leaf.key.as_bytes()).expect("rcgen writes PKCS#8");
        let formats = [ExtraFormat::EnvoySds].into();
        let rendered = render(&certificates(&leaf.chain), &key, &self.root_pem, &formats);
        let rendered = rendered.expect("there is nothing wrong with them");
        let mut files: BTreeMap<_, _> =
            rendered.iter().map(|(name, bytes)| (name.to_owned(), bytes.to_vec())).collect();
        // A test has no /var/run/countersign of its own.
        let trust = files.get_mut(ENVOY_TRUST_CRL).expect("EnvoySDS has it");
        let text = String::from_utf8_lossy(trust).into_owned();
        assert_eq!(text.matches("/var/run/countersign").count(), 2, "{text}");
        *trust = text.replace("/var/run/countersign", &mount.display().to_string()).into();
        files.insert("crl.pem".to_owned(), lists.into());
        files
    }

    /// Whoever calls with this leaf.
    pub fn caller(&self, leaf: &Leaf) -> Delivered {
        use rustls_pki_types::pem::PemObject;
        Delivered {
            chain: certificates(&leaf.chain),
            key: rustls_pki_types::PrivateKeyDer::from_pem_slice(leaf.key.as_bytes())
                .expect("rcgen writes PEM"),
            bundle: certificates(&self.root_pem),
        }
    }
}

fn list(issuer: &Issuer<'static, KeyPair>, revoked: &[&Leaf], life: i64) -> String {
    let revoked = revoked.iter().map(|leaf| RevokedCertParams {
        serial_number: serial_of(&leaf.der),
        revocation_time: in_seconds(-1),
        reason_code: Some(RevocationReason::KeyCompromise),
        invalidity_date: None,
    });
    let params = CertificateRevocationListParams {
        this_update: in_seconds(-3600),
        next_update: in_seconds(life),
        crl_number: u64::try_from(now().as_nanosecond()).expect("it is after 1970").into(),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(issuer).expect("it signs").pem().expect("it is PEM")
}

fn serial_of(der: &CertificateDer<'_>) -> SerialNumber {
    let serial = leaf_of(der).serial;
    let serial = format!("{serial:0>width$}", width = serial.len().next_multiple_of(2));
    let byte = |at: usize| u8::from_str_radix(&serial[at..at + 2], 16).expect("hexadecimal");
    (0..serial.len()).step_by(2).map(byte).collect::<Vec<_>>().into()
}

fn ca(name: &str, path_length: u8) -> CertificateParams {
    let mut params = params(86_400);
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// rcgen's own defaults run from 1975 to 4096 under a stock name.
fn params(life: i64) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).expect("no names are no error");
    params.distinguished_name = DistinguishedName::new();
    params.not_before = in_seconds(-7200);
    params.not_after = in_seconds(life);
    params.use_authority_key_identifier_extension = true;
    params
}

fn new_key() -> KeyPair {
    KeyPair::generate().expect("a P-256 key can be made")
}

fn in_seconds(seconds: i64) -> time::OffsetDateTime {
    let at: Timestamp = now();
    time::OffsetDateTime::from_unix_timestamp(at.as_second() + seconds).expect("it is near")
}
