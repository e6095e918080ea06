//! Taking over an issuing CA that somebody else made: its files become a chain and a key, or the
//! one reason why they cannot.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jiff::Timestamp;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::authority::{Authority, Chain, LocalAuthority};
use super::ca_key::SharedKey;
use super::key::{KeyError, PrivateKey};
use super::slot::Slot;
use super::{SignError, judge};
use crate::api::names::{CA_CRT, TLS_CRT, TLS_KEY};
use crate::api::{KeyAlgorithm, SlotKind};
use crate::decide::LeafProfile;
use crate::decide::schedule::{BACKDATE, saturating_sub, whole_seconds};
use crate::decide::slots::{Offer, OfferedIssuing, OfferedRoot};
use crate::identity::{Domain, MINIMUM_LIFE, SpiffeId};
use crate::x509::issuer::{self, Candidate, Flaw, Place, Purpose};
use crate::x509::{self, Serial, X509Error};

/// An issuing CA with its key, and the root above it.
#[derive(Debug)]
pub struct Imported {
    pub root: Slot,
    pub issuing: Slot,
}

/// Why an issuing CA cannot be taken over. The text says what to do.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    #[error("there is no {0}: put {what} there", what = meaning(.0))]
    Missing(&'static str),
    #[error("{0} cannot be read: {1}")]
    Certificates(&'static str, X509Error),
    #[error("tls.key holds no private key that can be read; one with a passphrase cannot be")]
    NoKey,
    #[error("tls.key holds {0} private keys: put the issuing CA's there and no other")]
    ManyKeys(usize),
    #[error("tls.key is not the key of the issuing CA: put that CA's key there")]
    OtherKey,
    #[error("tls.key: {0}")]
    Key(#[from] KeyError),
    #[error(
        "the root CA is missing: {0} is not self-signed, and ca.crt does not hold the self-signed certificate that signed it: put the root into ca.crt"
    )]
    NoRoot(Place),
    #[error(transparent)]
    Flaw(#[from] Flaw),
    #[error("a certificate under this CA would not hold up: {0}")]
    Unsound(#[from] SignError),
}

fn meaning(file: &str) -> &'static str {
    match file {
        TLS_KEY => "the issuing CA's private key",
        _ => "the issuing CA's certificate, then the intermediates above it",
    }
}

impl Imported {
    /// Understands files in the layout of cert-manager's CA issuer: `tls.crt` (the issuing CA,
    /// then each certificate that signed the one before it, with or without the root), `tls.key`,
    /// and `ca.crt` (the root) where `tls.crt` does not end with it.
    pub async fn read(
        files: &BTreeMap<String, Zeroizing<Vec<u8>>>,
        domain: &Domain,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        let (chain, root) = read_chain(files)?;
        judge_chain(&chain, &root, 0, domain, now)?;
        // Last, since a key that is too weak cannot even be read.
        let key = read_key(files)?;
        Imported::assemble(chain, root, SharedKey::new(key), domain, now).await
    }

    /// Takes over what somebody signed for a key of ours: the certificate, then those above it, up to
    /// the root, which may be handed over beside them.
    pub async fn read_signed(
        chain_pem: &str,
        root_pem: Option<&str>,
        key: SharedKey,
        domain: &Domain,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        let mut files = chain_file(chain_pem);
        if let Some(pem) = root_pem {
            files.insert(CA_CRT.to_owned(), Zeroizing::new(pem.as_bytes().to_vec()));
        }
        let (chain, root) = read_chain(&files)?;
        judge_chain(&chain, &root, 0, domain, now)?;
        Imported::assemble(chain, root, key, domain, now).await
    }

    async fn assemble(
        chain: Certificates,
        root: CertificateDer<'static>,
        key: SharedKey,
        domain: &Domain,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        let root = Slot::new(vec![root], None)?;
        if x509::read_ca(&chain[0]).map_err(SignError::from)?.public_key != key.public_key() {
            return Err(Refusal::OtherKey);
        }
        let issuing = Slot::new(chain, Some(key))?;
        let imported = Imported { root, issuing };
        imported.try_out(domain, now).await?;
        Ok(imported)
    }

    /// What the authority offers, without the key.
    pub fn offer(&self) -> Offer {
        Offer {
            root: offered(&self.root),
            issuing: Some(OfferedIssuing {
                key_id: self.issuing.ca.key_id.clone(),
                fingerprint: self.issuing.ca.fingerprint,
            }),
        }
    }

    /// The CA of this kind.
    pub fn into_slot(self, kind: SlotKind) -> Slot {
        match kind {
            SlotKind::Root => self.root,
            SlotKind::Issuing => self.issuing,
        }
    }

    /// Signs a certificate that goes nowhere, and has it judged as a peer would: what no rule
    /// names is found here.
    async fn try_out(&self, domain: &Domain, now: Timestamp) -> Result<(), SignError> {
        let bundle = x509::write_pem([&self.root.certificate]);
        let chain = Chain::new(&self.issuing, &self.root.ca, bundle, Vec::new())?;
        let key = self.issuing.key.clone().ok_or(SignError::NoKey)?;
        let authority = LocalAuthority::new(chain, key)?;
        let spiffe_id = SpiffeId::new(&domain.domain, "/trial")
            .map_err(|error| SignError::Sign(error.to_string()))?;
        let now = whole_seconds(now);
        let profile = LeafProfile {
            serial: Serial::derived("trial", 1),
            crl_url: None,
            spiffe_id,
            dns_names: Default::default(),
            algorithm: KeyAlgorithm::EcdsaP256,
            not_before: saturating_sub(now, BACKDATE),
            not_after: MINIMUM_LIFE.after(now),
            issuer: self.issuing.ca.fingerprint,
        };
        let leaf_key = PrivateKey::generate(profile.algorithm)?;
        let certificate = authority.sign(&profile, &leaf_key).await?;
        judge(&x509::read_leaf(&certificate)?, &profile, &leaf_key, false)?;
        let chain = authority.chain();
        x509::verify_chain(&chain.presented_with(certificate), &chain.roots, now)?;
        Ok(())
    }
}

/// An issuer that somebody else keeps, with everything above it.
#[derive(Clone, Debug)]
pub struct ForeignIssuer {
    pub root: Slot,
    /// The issuer itself and those above it, without the root.
    pub chain: Vec<CertificateDer<'static>>,
}

impl ForeignIssuer {
    /// Understands an issuer's certificate and those above it, up to the root, and judges whether
    /// `below` CAs under it could sign for the trust domain.
    pub fn read(
        chain_pem: &str,
        below: usize,
        domain: &Domain,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        let (mut chain, root) = read_chain(&chain_file(chain_pem))?;
        // A root that signs leaves itself is its own issuing CA, and is told of twice; one that
        // signs CAs is not among them.
        if below > 0 {
            chain.retain(|certificate| *certificate != root);
        }
        judge_chain(&chain, &root, below, domain, now)?;
        Ok(ForeignIssuer { root: Slot::new(vec![root], None)?, chain })
    }

    /// The root, as the authority offers it.
    pub fn root(&self) -> OfferedRoot {
        offered(&self.root)
    }

    /// The issuer itself, as an issuing CA without a key.
    pub fn issuing(&self) -> Result<Slot, SignError> {
        Slot::new(self.chain.clone(), None)
    }

    /// The earliest end of any of its certificates.
    pub fn not_after(&self) -> Result<Timestamp, SignError> {
        let mut end = self.root.ca.not_after;
        for certificate in &self.chain {
            end = end.min(x509::read_ca(certificate)?.not_after);
        }
        Ok(end)
    }
}

fn offered(root: &Slot) -> OfferedRoot {
    OfferedRoot {
        key_id: root.ca.key_id.clone(),
        certificate_pem: x509::write_pem([&root.certificate]),
    }
}

/// Whether these CAs can sign for a trust domain with `below` more between them and its leaves.
fn judge_chain(
    chain: &[CertificateDer<'static>],
    root: &CertificateDer<'static>,
    below: usize,
    domain: &Domain,
    now: Timestamp,
) -> Result<(), Flaw> {
    let candidate = Candidate { chain, root, below };
    issuer::judge(
        &candidate,
        &Purpose {
            trust_domain: domain.domain.as_str(),
            dns_suffixes: &domain.rules.dns_suffixes,
            longest: domain.rules.maximum_life.after(whole_seconds(now)),
            now,
        },
    )
}

fn chain_file(pem: &str) -> BTreeMap<String, Zeroizing<Vec<u8>>> {
    BTreeMap::from([(TLS_CRT.to_owned(), Zeroizing::new(pem.as_bytes().to_vec()))])
}

fn read_key(files: &BTreeMap<String, Zeroizing<Vec<u8>>>) -> Result<PrivateKey, Refusal> {
    let pem = files.get(TLS_KEY).ok_or(Refusal::Missing(TLS_KEY))?;
    // An error of the reader may quote what it read: none of them is passed on.
    let mut keys: Vec<PrivateKeyDer<'_>> =
        PrivateKeyDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| Refusal::NoKey)?;
    match keys.len() {
        0 => Err(Refusal::NoKey),
        1 => Ok(PrivateKey::from_foreign_der(&keys.remove(0))?),
        count => Err(Refusal::ManyKeys(count)),
    }
}

type Certificates = Vec<CertificateDer<'static>>;

/// The chain without its root, and the root.
fn read_chain(
    files: &BTreeMap<String, Zeroizing<Vec<u8>>>,
) -> Result<(Certificates, CertificateDer<'static>), Refusal> {
    let read = |name: &'static str, bytes: &[u8]| {
        x509::read_pem(bytes).map_err(|error| Refusal::Certificates(name, error))
    };
    let mut chain = read(TLS_CRT, files.get(TLS_CRT).ok_or(Refusal::Missing(TLS_CRT))?)?;
    for (position, certificate) in chain.iter().enumerate() {
        issuer::judge_signature(Place::Chain(position + 1), certificate)?;
    }
    for (position, pair) in chain.windows(2).enumerate() {
        if !x509::is_signed_by(&pair[0], &pair[1]) {
            let (below, above) = (Place::Chain(position + 1), Place::Chain(position + 2));
            return Err(Flaw::Order(below, above).into());
        }
    }
    let top = &chain[chain.len() - 1];
    if issuer::is_self_signed(top) {
        let root = top.clone();
        // A root that signs leaves itself is its own issuing CA.
        if chain.len() > 1 {
            chain.pop();
        }
        return Ok((chain, root));
    }
    let others = match files.get(CA_CRT).filter(|bytes| !bytes.trim_ascii().is_empty()) {
        Some(bytes) => read(CA_CRT, bytes)?,
        None => Vec::new(),
    };
    for root in others.iter().filter(|certificate| issuer::names_itself(certificate)) {
        issuer::judge_signature(Place::Root, root)?;
    }
    let signed_top = |root: &&CertificateDer<'static>| x509::is_signed_by(top, root);
    let mut roots = others.iter().filter(|certificate| issuer::is_self_signed(certificate));
    match roots.find(signed_top) {
        Some(root) => Ok((chain, root.clone())),
        None => Err(Refusal::NoRoot(Place::Chain(chain.len()))),
    }
}
