//! The files of an identity's Secret: rendering them, and telling whether they are whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use base64::Engine;
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use super::SignError;
use super::key::PrivateKey;
use crate::api::ExtraFormat;
use crate::api::names::{
    CA_CRT, COMBINED_PEM, ENVOY_IDENTITY, ENVOY_TRUST, ENVOY_TRUST_CRL, KEYSTORE_P12,
    KEYSTORE_PASSWORD, TLS_CRT, TLS_KEY,
};

/// Rounds of the key store's password hash. The password is 144 random bits, which no number of
/// rounds makes stronger; this many is what old readers expect at least.
const KEYSTORE_ROUNDS: u64 = 2048;

/// A Secret's files. They print nothing and clear themselves.
#[derive(Clone, Default, PartialEq)]
pub struct Files(BTreeMap<&'static str, Zeroizing<Vec<u8>>>);

impl Files {
    /// The files by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        self.0.iter().map(|(name, bytes)| (*name, bytes.as_slice()))
    }

    fn put(&mut self, name: &'static str, bytes: impl Into<Vec<u8>>) {
        self.0.insert(name, Zeroizing::new(bytes.into()));
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Every file for a new certificate.
pub fn render(
    chain: &[CertificateDer<'_>],
    key: &PrivateKey,
    bundle_pem: &str,
    formats: &BTreeSet<ExtraFormat>,
) -> Result<Files, SignError> {
    let mut files = Files::default();
    let certificates = crate::x509::write_pem(chain);
    let key_pem = key.to_pem();
    for format in formats {
        match format {
            ExtraFormat::CombinedPem => {
                files.0.insert(COMBINED_PEM, combined(key_pem.as_bytes(), certificates.as_bytes()));
            }
            ExtraFormat::Pkcs12 => {
                let (store, password) = key_store(chain, key)?;
                files.put(KEYSTORE_P12, store);
                files.0.insert(KEYSTORE_PASSWORD, password);
            }
            ExtraFormat::EnvoySds => {
                files.0.insert(
                    ENVOY_IDENTITY,
                    envoy_identity(certificates.as_bytes(), key_pem.as_bytes()),
                );
            }
        }
    }
    files.put(TLS_CRT, certificates);
    files.0.insert(TLS_KEY, Zeroizing::new(key_pem.as_bytes().to_vec()));
    for (name, bytes) in render_bundle(bundle_pem, formats).0 {
        files.0.insert(name, bytes);
    }
    Ok(files)
}

/// The files that change when the bundle alone does.
pub fn render_bundle(bundle_pem: &str, formats: &BTreeSet<ExtraFormat>) -> Files {
    let mut files = Files::default();
    files.put(CA_CRT, bundle_pem);
    if formats.contains(&ExtraFormat::EnvoySds) {
        files.put(ENVOY_TRUST, envoy_trust(bundle_pem.as_bytes()));
        files.put(ENVOY_TRUST_CRL, envoy_trust_crl(bundle_pem.as_bytes()));
    }
    files
}

/// Which extra formats are whole and agree with tls.crt, tls.key and ca.crt, and the files that
/// belong to none of them.
pub fn inspect(
    data: &BTreeMap<String, Zeroizing<Vec<u8>>>,
    key: &PrivateKey,
) -> (BTreeSet<ExtraFormat>, BTreeSet<String>) {
    let file = |name: &str| data.get(name).map(|bytes| bytes.as_slice());
    let (certificates, key_pem) =
        (file(TLS_CRT).unwrap_or_default(), file(TLS_KEY).unwrap_or_default());
    let mut formats = BTreeSet::new();
    let mut known = vec![TLS_CRT, TLS_KEY, CA_CRT];
    if file(COMBINED_PEM).is_some_and(|found| found == combined(key_pem, certificates).as_slice()) {
        formats.insert(ExtraFormat::CombinedPem);
        known.push(COMBINED_PEM);
    }
    if let (Some(store), Some(password)) = (file(KEYSTORE_P12), file(KEYSTORE_PASSWORD))
        && key_store_holds(store, password, key)
    {
        formats.insert(ExtraFormat::Pkcs12);
        known.extend([KEYSTORE_P12, KEYSTORE_PASSWORD]);
    }
    let bundle_pem = file(CA_CRT).unwrap_or_default();
    if file(ENVOY_IDENTITY) == Some(envoy_identity(certificates, key_pem).as_slice())
        && file(ENVOY_TRUST) == Some(envoy_trust(bundle_pem).as_bytes())
        && file(ENVOY_TRUST_CRL) == Some(envoy_trust_crl(bundle_pem).as_bytes())
    {
        formats.insert(ExtraFormat::EnvoySds);
        known.extend([ENVOY_IDENTITY, ENVOY_TRUST, ENVOY_TRUST_CRL]);
    }
    let strays = data.keys().filter(|name| !known.contains(&name.as_str())).cloned().collect();
    (formats, strays)
}

fn combined(key_pem: &[u8], certificates: &[u8]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new([key_pem, certificates].concat())
}

fn key_store(
    chain: &[CertificateDer<'_>],
    key: &PrivateKey,
) -> Result<(Vec<u8>, Zeroizing<Vec<u8>>), SignError> {
    use p12_keystore::{Certificate, KeyStore, KeyStoreEntry, PrivateKeyChain};
    let broken = |error: p12_keystore::error::Error| SignError::KeyStore(error.to_string());
    let mut secret = Zeroizing::new([0; 18]);
    aws_lc_rs::rand::fill(&mut *secret).map_err(|_| SignError::Random)?;
    let password = Zeroizing::new(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(*secret));
    let certificates = chain
        .iter()
        .map(|certificate| Certificate::from_der(certificate).map_err(broken))
        .collect::<Result<Vec<_>, _>>()?;
    let mut store = KeyStore::new();
    let id = [1];
    store.add_entry(
        "identity",
        KeyStoreEntry::PrivateKeyChain(PrivateKeyChain::new(key.as_der(), id, certificates)),
    );
    let bytes = store
        .writer(&password)
        .encryption_iterations(KEYSTORE_ROUNDS)
        .mac_iterations(KEYSTORE_ROUNDS)
        .write()
        .map_err(broken)?;
    Ok((bytes, Zeroizing::new(password.as_bytes().to_vec())))
}

fn key_store_holds(store: &[u8], password: &[u8], key: &PrivateKey) -> bool {
    let Ok(password) = std::str::from_utf8(password) else { return false };
    let Ok(store) = p12_keystore::KeyStore::from_pkcs12(store, password) else { return false };
    store.private_key_chain().is_some_and(|(_, chain)| chain.key() == key.as_der())
}

/// A discovery response with the certificate and its key inside, so that Envoy never sees one
/// without the other. Envoy's JSON is YAML too; the name ends in .yaml because Envoy reads the
/// format off it.
fn envoy_identity(certificates: &[u8], key_pem: &[u8]) -> Zeroizing<Vec<u8>> {
    let text = |bytes| Zeroizing::new(String::from_utf8_lossy(bytes).into_owned());
    let (certificates, key_pem) = (text(certificates), text(key_pem));
    let mut response =
        Zeroizing::new(String::with_capacity(2 * (certificates.len() + key_pem.len()) + 512));
    response.push_str("resources:\n- \"@type\": ");
    response.push_str(ENVOY_SECRET);
    response.push_str("\n  name: identity\n  tls_certificate:\n    certificate_chain:\n");
    push_inline(&mut response, &certificates);
    response.push_str("    private_key:\n");
    push_inline(&mut response, &key_pem);
    Zeroizing::new(response.as_bytes().to_vec())
}

/// A discovery response with the bundle.
fn envoy_trust(bundle_pem: &[u8]) -> String {
    let mut response = format!(
        "resources:\n- \"@type\": {ENVOY_SECRET}\n  name: trust\n  validation_context:\n    trusted_ca:\n"
    );
    push_inline(&mut response, &String::from_utf8_lossy(bundle_pem));
    response
}

/// The same, with the CRLs that the ConfigMap brings into the same volume.
///
/// A file of its own and not a part of the other: Envoy refuses everybody when the file that it is told
/// to read is not there, or is older than it may be. So only whoever asks for it has it, and the others'
/// volumes and the trust domains whose CAs sign no CRL go on as they are. The CRLs themselves are not
/// in here, lest each of them be a write for every agent.
fn envoy_trust_crl(bundle_pem: &[u8]) -> String {
    let trust = envoy_trust(bundle_pem);
    // `watched_directory`, since the kubelet swaps a link in it and never writes the file.
    format!(
        "{trust}    crl: {{filename: {MOUNTED}/crl.pem}}\n    watched_directory: {{path: {MOUNTED}}}\n"
    )
}

/// Where the README has agents mount their volume.
const MOUNTED: &str = "/var/run/countersign";

const ENVOY_SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

fn push_inline(response: &mut String, text: &str) {
    response.push_str("      inline_string: |\n");
    for line in text.lines() {
        response.push_str("        ");
        response.push_str(line);
        response.push('\n');
    }
}
