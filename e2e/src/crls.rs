//! What tests do with CRLs: find them, read them, have others judge them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use countersign::x509::{Crl, read_crl};
use k8s_openapi::api::core::v1::ConfigMap;
use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::PemObject;

use crate::wait::{seconds, wait_for};
use crate::{Namespace, judges};

/// The CRLs of a trust domain as one namespace has them, by the key id of their CA.
pub type Crls = BTreeMap<String, Crl>;

impl Namespace {
    /// The CRLs in this namespace's trust ConfigMap now, in the order in which they stand there.
    pub async fn crl_pem(&self, trust_domain: &str) -> String {
        let config_map: ConfigMap = self.bundle(trust_domain).await;
        config_map.data.and_then(|mut data| data.remove("crl.pem")).unwrap_or_default()
    }

    /// The same, read.
    pub async fn crls(&self, trust_domain: &str) -> Crls {
        read(&self.crl_pem(trust_domain).await)
    }

    /// Waits until all of these serial numbers stand on a CRL here, and gives the CRLs.
    pub async fn on_crl(&self, trust_domain: &str, serials: &BTreeSet<String>) -> Crls {
        let what = format!("{serials:?} on a CRL in {}", self.name);
        wait_for(&what, seconds(20), async || {
            let crls = self.crls(trust_domain).await;
            let found = serials_of(&crls);
            if serials.is_subset(&found) { Ok(crls) } else { Err(found) }
        })
        .await
    }
}

/// Reads `crl.pem`.
pub fn read(pem: &str) -> Crls {
    ders(pem)
        .iter()
        .map(|der| read_crl(der).unwrap_or_else(|error| panic!("{error}: {pem}")))
        .map(|crl| (crl.key_id.clone(), crl))
        .collect()
}

/// The CRLs of a PEM text in DER.
pub fn ders(pem: &str) -> Vec<CertificateRevocationListDer<'static>> {
    CertificateRevocationListDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .expect("crl.pem is PEM")
}

/// Every serial number that stands on one of them.
pub fn serials_of(crls: &Crls) -> BTreeSet<String> {
    crls.values().flat_map(|crl| crl.entries.keys().cloned()).collect()
}

/// OpenSSL's word on a leaf with the issuing CA behind it: a bundle, every CRL of the chain at hand.
/// None where it takes it, else what it says.
pub fn openssl_refuses(folder: &Path, chain: &str, bundle: &str, crls: &str) -> Option<String> {
    for (name, text) in [("chain.pem", chain), ("ca.pem", bundle), ("crl.pem", crls)] {
        std::fs::write(folder.join(name), text).expect("a file can be written");
    }
    let output = Command::new("openssl")
        .current_dir(folder)
        .args(["verify", "-crl_check_all", "-CAfile", "ca.pem", "-CRLfile", "crl.pem"])
        .args(["-untrusted", "chain.pem", "chain.pem"])
        .output()
        .expect("OpenSSL can be run");
    let said = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    (!output.status.success()).then_some(said)
}

/// Each CRL in a file of its own, judged by pkilint.
pub fn judge(folder: &Path, pem: &str) {
    judges::build();
    for (number, der) in ders(pem).iter().enumerate() {
        let file = folder.join(format!("{number}.crl"));
        std::fs::write(&file, der).expect("a file can be written");
        assert_eq!(judges::pkilint_crl(&file), Vec::<String>::new(), "{pem}");
    }
}
