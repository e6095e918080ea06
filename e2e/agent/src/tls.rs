//! Material and verifier as rustls configurations. Both sides: TLS 1.3 alone, a certificate each, and
//! nothing remembered between two connections.
//!
//! A resumed session would skip the certificates, so it would outlive a rotation. Agents that
//! call rarely lose little without it, and here every handshake that is counted is a full one.

use std::sync::Arc;

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::aws_lc_rs;
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ServerConfig, SignatureScheme};

use crate::verify::{PeerVerifier, SharedNotes, Trust};

pub fn server(
    key: Arc<CertifiedKey>,
    trust: Arc<Trust>,
    allowed: Vec<String>,
    notes: SharedNotes,
) -> Result<ServerConfig, rustls::Error> {
    let verifier = PeerVerifier { trust, expected: allowed, notes };
    let mut config = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Without a key it presents no certificate, which is what an intruder has to try.
pub fn client(
    key: Option<Arc<CertifiedKey>>,
    trust: Arc<Trust>,
    expected: String,
    notes: SharedNotes,
) -> Result<ClientConfig, rustls::Error> {
    let verifier = PeerVerifier { trust, expected: vec![expected], notes };
    let builder = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        // `dangerous` is rustls's word for any verifier not its own: `verify` says what ours checks.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match key {
        Some(key) => builder.with_client_cert_resolver(Arc::new(Always(key))),
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    // The address dialled is nobody's identity, so the server is not told it either.
    config.enable_sni = false;
    Ok(config)
}

/// Presents the certificate whatever the server hints at: a refusal then has a name in it.
#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesClientCert for Always {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
