//! Is this peer who I expect? The one question of mutual TLS, asked the same way on both sides.
//!
//! rustls lets a program replace its verifiers, and calls that dangerous, because most that do so check
//! less. These check more: [`judge`] has rustls-webpki verify the chain just as rustls itself would (signatures, times,
//! CA flags, path lengths, extended key usage, at least one certificate of `ca.crt` at its end, and
//! nothing in it that `crl.pem` takes back), and then requires a SPIFFE ID. Only the check of a DNS name is gone, because an agent is known by its
//! SPIFFE ID and not by the address at which it happens to run.

use std::sync::{Arc, Mutex};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::certificate::Facts;
use crate::revocation::Revoked;

/// The certificates of `ca.crt`, how each of them is called, and what `crl.pem` takes back.
pub struct Trust {
    anchors: Vec<TrustAnchor<'static>>,
    names: Vec<String>,
    pub revoked: Revoked,
}

impl Trust {
    pub fn new(ders: &[CertificateDer<'_>], revoked: Revoked) -> anyhow::Result<Self> {
        anyhow::ensure!(!ders.is_empty(), "ca.crt holds no certificate: nobody could be trusted");
        let anchors = ders.iter().map(|der| Ok(anchor_from_trusted_cert(der)?.to_owned()));
        let names = ders.iter().map(|der| Ok(Facts::read(der)?.subject));
        Ok(Self {
            anchors: anchors.collect::<anyhow::Result<_>>()?,
            names: names.collect::<anyhow::Result<_>>()?,
            revoked,
        })
    }

    fn name_of(&self, anchor: &TrustAnchor<'_>) -> String {
        let found = self.anchors.iter().zip(&self.names).find(|(known, _)| *known == anchor);
        found.map_or_else(|| "(unnamed root)".to_owned(), |(_, name)| name.clone())
    }
}

/// Who was proven, and by which root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub peer: Facts,
    pub root: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("it presented no certificate")]
    NoCertificate,
    #[error("its certificate is signed by a CA that is not in ca.crt")]
    UnknownCa,
    #[error("its certificate has expired")]
    Expired,
    #[error("its certificate is not valid yet")]
    NotYet,
    #[error("its certificate is revoked: serial {0} is on crl.pem")]
    Revoked(String),
    #[error("the CA that signed its certificate is revoked, says crl.pem")]
    CaRevoked,
    #[error(
        "crl.pem has expired, so nobody can be told from the revoked: see why it is not renewed"
    )]
    CrlExpired,
    #[error("its chain does not verify: {0}")]
    Chain(webpki::Error),
    #[error("its certificate cannot be read: {0}")]
    Unreadable(String),
    #[error("its certificate names {0} URIs; an identity is exactly one, a SPIFFE ID")]
    NotOneSpiffeId(usize),
    #[error("it is {presented}, which is not {expected}")]
    SomebodyElse { presented: String, expected: String },
}

/// The chain first, the name second: a name in a chain that does not verify means nothing.
pub fn judge(
    trust: &Trust,
    usage: KeyUsage,
    expected: &[String],
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
) -> Result<Accepted, Refusal> {
    let end_entity = EndEntityCert::try_from(leaf).map_err(refusal_of)?;
    let lists = trust.revoked.lists();
    let path = end_entity
        .verify_for_usage(
            algorithms().all,
            &trust.anchors,
            intermediates,
            now,
            usage,
            Revoked::options(&lists),
            None,
        )
        .map_err(|error| match (error, Facts::read(leaf)) {
            (webpki::Error::CertRevoked, Ok(peer)) if trust.revoked.names(leaf) => {
                Refusal::Revoked(peer.serial)
            }
            (error, _) => refusal_of(error),
        })?;

    let peer = Facts::read(leaf).map_err(|error| Refusal::Unreadable(error.to_string()))?;
    let presented = peer.spiffe_id().ok_or(Refusal::NotOneSpiffeId(peer.uris.len()))?.to_owned();
    if !expected.contains(&presented) {
        return Err(Refusal::SomebodyElse { presented, expected: in_words(expected) });
    }
    Ok(Accepted { root: trust.name_of(path.anchor()), peer })
}

/// What one side saw and decided in one handshake, for the log and for people.
#[derive(Default)]
pub struct Notes {
    pub presented: Vec<Facts>,
    pub verdict: Option<Result<Accepted, Refusal>>,
}

pub type SharedNotes = Arc<Mutex<Notes>>;

pub fn read_notes<T>(notes: &SharedNotes, read: impl FnOnce(&Notes) -> T) -> T {
    read(&notes.lock().expect("nothing panics while it holds the notes"))
}

/// Verifies the other side of one connection, and notes what it saw.
pub struct PeerVerifier {
    pub trust: Arc<Trust>,
    pub expected: Vec<String>,
    pub notes: SharedNotes,
}

impl PeerVerifier {
    fn decide(
        &self,
        usage: KeyUsage,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let verdict = judge(&self.trust, usage, &self.expected, leaf, intermediates, now);
        let mut notes = self.notes.lock().expect("nothing panics while it holds the notes");
        notes.presented = std::iter::once(leaf)
            .chain(intermediates)
            .filter_map(|der| Facts::read(der).ok())
            .collect();
        notes.verdict = Some(verdict.clone());
        verdict.map(drop).map_err(Error::from)
    }
}

impl ServerCertVerifier for PeerVerifier {
    /// `server_name` is what was dialled. It proves nothing, so it is not looked at: `expected` is.
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.decide(KeyUsage::server_auth(), leaf, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signature, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

impl ClientCertVerifier for PeerVerifier {
    /// No hints: an agent has one certificate, so there is nothing to choose by.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    /// Said aloud although it is the default: this is the line that makes TLS mutual.
    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.decide(KeyUsage::client_auth(), leaf, intermediates, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signature, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

/// Each becomes the TLS alert that says the same: unknown_ca, certificate_expired, certificate_revoked,
/// access_denied. An expired crl.pem is our own trouble, for which there is certificate_unknown.
impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match &refusal {
            Refusal::NoCertificate => Error::NoCertificatesPresented,
            Refusal::UnknownCa => CertificateError::UnknownIssuer.into(),
            Refusal::Expired => CertificateError::Expired.into(),
            Refusal::NotYet => CertificateError::NotValidYet.into(),
            Refusal::Revoked(_) | Refusal::CaRevoked => CertificateError::Revoked.into(),
            Refusal::SomebodyElse { .. } => CertificateError::ApplicationVerificationFailure.into(),
            Refusal::Unreadable(_) => CertificateError::BadEncoding.into(),
            Refusal::Chain(_) | Refusal::CrlExpired | Refusal::NotOneSpiffeId(_) => {
                CertificateError::Other(rustls::OtherError(Arc::new(refusal))).into()
            }
        }
    }
}

fn refusal_of(error: webpki::Error) -> Refusal {
    match error {
        webpki::Error::UnknownIssuer => Refusal::UnknownCa,
        webpki::Error::CertExpired { .. } => Refusal::Expired,
        webpki::Error::CertNotValidYet { .. } => Refusal::NotYet,
        webpki::Error::CertRevoked => Refusal::CaRevoked,
        webpki::Error::CrlExpired { .. } => Refusal::CrlExpired,
        webpki::Error::BadDer => Refusal::Unreadable("its DER is broken".to_owned()),
        other => Refusal::Chain(other),
    }
}

fn in_words(expected: &[String]) -> String {
    match expected {
        [] => "anybody who may call here".to_owned(),
        [only] => only.clone(),
        many => format!("one of {}", many.join(", ")),
    }
}

/// Unreachable while `tls` offers TLS 1.3 alone; if that ever changes, this refuses.
fn only_tls13() -> Error {
    PeerIncompatible::ServerDoesNotSupportTls12Or13.into()
}

fn algorithms() -> WebPkiSupportedAlgorithms {
    aws_lc_rs::default_provider().signature_verification_algorithms
}

impl std::fmt::Debug for PeerVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerVerifier").field("expected", &self.expected).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
