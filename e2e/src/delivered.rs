//! What an agent finds in its Secret, read and judged without the operator's own code: x509-parser
//! reads, rustls-webpki and rustls judge.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

use crate::agents::text_of;
use crate::wait::now;

/// The files of a Secret.
pub struct Delivered {
    /// The leaf, then the issuing CA.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
    /// What to trust.
    pub bundle: Vec<CertificateDer<'static>>,
}

/// What the leaf says about itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Leaf {
    /// Lower-case hexadecimal without leading zeros.
    pub serial: String,
    /// URI SANs.
    pub uris: Vec<String>,
    /// DNS SANs.
    pub dns_names: BTreeSet<String>,
    /// Valid from.
    pub not_before: Timestamp,
    /// Valid until.
    pub not_after: Timestamp,
}

impl Delivered {
    /// Reads a Secret. Panics where it is not what an agent could load.
    pub fn read(secret: &Secret) -> Self {
        let text = |key| text_of(secret, key);
        assert!(
            text("tls.key").starts_with("-----BEGIN PRIVATE KEY-----"),
            "tls.key is not PKCS#8"
        );
        Self {
            chain: certificates(&text("tls.crt")),
            key: PrivateKeyDer::from_pem_slice(text("tls.key").as_bytes()).expect("tls.key is PEM"),
            bundle: certificates(&text("ca.crt")),
        }
    }

    /// Reads the same from a folder.
    pub fn read_folder(folder: &Path) -> Self {
        let text = |name| std::fs::read_to_string(folder.join(name)).expect("it was written there");
        Self {
            chain: certificates(&text("tls.crt")),
            key: PrivateKeyDer::from_pem_slice(text("tls.key").as_bytes()).expect("it is PEM"),
            bundle: certificates(&text("ca.crt")),
        }
    }

    /// The leaf.
    pub fn leaf(&self) -> Leaf {
        leaf_of(&self.chain[0])
    }

    /// The earliest end of any certificate of the chain and the bundle but the leaf's own.
    pub fn authority_ends(&self) -> Timestamp {
        let authorities = self.chain[1..].iter().chain(&self.bundle);
        authorities
            .map(|der| moment(parse(der).validity().not_after.timestamp()))
            .min()
            .expect("there is a CA")
    }

    /// Judges everything that holds for every leaf of ours.
    pub fn judge(&self, spiffe_id: &str) -> Leaf {
        self.judge_under(spiffe_id, 1)
    }

    /// The same for a leaf under this many CAs beside the root.
    pub fn judge_under(&self, spiffe_id: &str, authorities: usize) -> Leaf {
        let leaf = self.leaf();
        assert_eq!(leaf.uris, [spiffe_id], "an X.509-SVID has exactly one URI SAN");
        let count = self.chain.len() - 1;
        assert_eq!(count, authorities, "tls.crt is the leaf, then each CA but the root");
        self.judge_profile();
        self.judge_key();
        // Now, and by the clock of a peer that is a minute behind.
        for behind in [0, 60] {
            let now = now().as_second() - behind;
            verify(&self.chain, &self.bundle, now).unwrap_or_else(|error| {
                panic!("the chain does not hold for a clock {behind} s behind: {error}")
            });
        }
        assert!(leaf.not_after <= self.authority_ends(), "the leaf outlives its chain");
        leaf
    }

    fn judge_profile(&self) {
        let certificate = parse(&self.chain[0]);
        let constraints = certificate.basic_constraints().expect("it parses").expect("constraints");
        assert!(!constraints.value.ca, "a leaf is never a CA");
        let usage = certificate.key_usage().expect("it parses").expect("a key usage");
        assert!(usage.critical, "key usage is critical");
        assert_eq!(usage.value.flags, 1, "digitalSignature alone");
        let purposes =
            certificate.extended_key_usage().expect("it parses").expect("purposes").value;
        assert!(purposes.client_auth && purposes.server_auth && !purposes.any, "{purposes:?}");
        let serial = certificate.raw_serial();
        // Ours have 16 octets; 20 are the most that RFC 5280 allows, and what Vault gives.
        assert!((14..=20).contains(&serial.len()), "128 bits of serial or more: {serial:02x?}");
        let has = |oid: &str| certificate.extensions().iter().any(|e| e.oid.to_id_string() == oid);
        assert!(has("2.5.29.35") && has("2.5.29.14"), "authority and subject key ids");
    }

    fn judge_key(&self) {
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&self.key)
            .expect("rustls takes tls.key");
        CertifiedKey::new(self.chain.clone(), key)
            .keys_match()
            .expect("tls.key is the key of the leaf in tls.crt");
    }
}

/// Judges a chain at a moment, for both ends of a connection.
pub fn verify(
    chain: &[CertificateDer<'_>],
    bundle: &[CertificateDer<'_>],
    at: i64,
) -> Result<(), webpki::Error> {
    let leaf = webpki::EndEntityCert::try_from(&chain[0])?;
    let anchors =
        bundle.iter().map(webpki::anchor_from_trusted_cert).collect::<Result<Vec<_>, _>>()?;
    let at = UnixTime::since_unix_epoch(Duration::from_secs(at.unsigned_abs()));
    for usage in [webpki::KeyUsage::server_auth(), webpki::KeyUsage::client_auth()] {
        leaf.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &anchors,
            &chain[1..],
            at,
            usage,
            None,
            None,
        )?;
    }
    Ok(())
}

/// What a leaf says about itself.
pub fn leaf_of(der: &CertificateDer<'_>) -> Leaf {
    let certificate = parse(der);
    let mut leaf = Leaf {
        serial: octets_of(&format!("{:x}", certificate.tbs_certificate.serial)),
        uris: Vec::new(),
        dns_names: BTreeSet::new(),
        not_before: moment(certificate.validity().not_before.timestamp()),
        not_after: moment(certificate.validity().not_after.timestamp()),
    };
    let names = certificate.subject_alternative_name().expect("the SAN parses").expect("a SAN");
    assert!(names.critical || !certificate.subject().as_raw().is_empty(), "SAN not critical");
    for name in &names.value.general_names {
        match name {
            GeneralName::URI(uri) => leaf.uris.push((*uri).to_owned()),
            GeneralName::DNSName(name) => drop(leaf.dns_names.insert((*name).to_owned())),
            other => panic!("a SAN of another kind: {other:?}"),
        }
    }
    leaf
}

/// The key id of the CA that signed a certificate, in lower-case hexadecimal, as it says itself.
pub fn authority_key_id(der: &CertificateDer<'_>) -> String {
    let certificate = parse(der);
    let id =
        certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.clone(),
            _ => None,
        });
    id.expect("it names its CA").0.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The certificates of a PEM text, at least one.
pub fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    let all: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .expect("the text is PEM");
    assert!(!all.is_empty(), "there is no certificate in: {pem}");
    all
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> X509Certificate<'a> {
    X509Certificate::from_der(der).expect("a certificate parses").1
}

fn moment(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("a certificate's time is within jiff's")
}

/// Whole octets: a number whose first digit is zero is written without it.
fn octets_of(hex: &str) -> String {
    if hex.len().is_multiple_of(2) { hex.to_owned() } else { format!("0{hex}") }
}
