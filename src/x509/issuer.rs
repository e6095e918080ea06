//! Whether a CA that somebody else made can sign for a trust domain, or the first reason why not.
//!
//! Every rule is one that some verifier holds a peer to: a CA that breaks it would sign
//! certificates which agents then refuse. So it is refused before it signs, with a sentence that
//! says what to do.

use std::fmt;

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, GeneralSubtree, ParsedExtension};
use x509_parser::oid_registry as oid;
use x509_parser::public_key::PublicKey;

use super::{is_signed_by, parse, timestamp};

/// A chain of CAs that is to be judged.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The CA that is to sign leaves, then the intermediates above it, without the root.
    pub chain: &'a [CertificateDer<'static>],
    /// What peers are to trust.
    pub root: &'a CertificateDer<'static>,
    /// How many more CAs there will be between these and a leaf.
    pub below: usize,
}

/// What it is needed for.
#[derive(Clone, Copy, Debug)]
pub struct Purpose<'a> {
    /// The trust domain: the host of every SPIFFE ID.
    pub trust_domain: &'a str,
    /// Suffixes below which leaves may have DNS names.
    pub dns_suffixes: &'a [String],
    /// When the longest leaf that may be asked for now would end.
    pub longest: Timestamp,
    pub now: Timestamp,
}

/// Which certificate of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// By its position from the issuing CA, which is 1.
    Chain(usize),
    Root,
}

/// Why a CA cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Flaw {
    #[error("{0} cannot be read: {1}")]
    Unreadable(Place, String),
    #[error("{0} is not a CA (basicConstraints does not say CA:TRUE): put a CA certificate there")]
    NotCa(Place),
    #[error("{0} may not sign certificates (its key usage lacks keyCertSign)")]
    MayNotSign(Place),
    #[error("{0} has no subject key id, which RFC 5280 asks of every CA")]
    NoKeyId(Place),
    #[error(
        "{place} has a key that verifiers refuse, {key}: take RSA of 2048 bits or more, ECDSA P-256 or P-384"
    )]
    WeakKey { place: Place, key: String },
    #[error(
        "{place} is signed with {algorithm}, which verifiers refuse: have it signed with SHA-256 or better"
    )]
    WeakSignature { place: Place, algorithm: &'static str },
    #[error("{0} expired at {1}: put one that has not")]
    Expired(Place, Timestamp),
    #[error("{0} is not valid before {1}: put one that is, or wait")]
    NotYetValid(Place, Timestamp),
    #[error(
        "{place} ends at {end}, before a certificate of the longest life would ({longest}): put a CA that lives longer, or lower spec.identities.maxDuration"
    )]
    EndsTooSoon { place: Place, end: Timestamp, longest: Timestamp },
    #[error(
        "{0} is not signed by {1}: the issuing CA comes first, and after each certificate the one that signed it"
    )]
    Order(Place, Place),
    #[error("{place} may have {allowed} CAs below it and has {below} (pathLenConstraint)")]
    PathLength { place: Place, allowed: u32, below: usize },
    #[error("the name constraints of {0} forbid the SPIFFE IDs of {1}")]
    ForbidsTrustDomain(Place, String),
    #[error(
        "{0} has name constraints on URIs: rustls, among others, refuses every SPIFFE ID under such a CA"
    )]
    ConstrainsUris(Place),
    #[error(
        "the name constraints of {0} forbid DNS names below {1}, which spec.identities.allowedDnsSuffixes allows: take that out, or put another CA"
    )]
    ForbidsDnsNames(Place, String),
    #[error("{0} is limited to other uses (its extended key usage lacks serverAuth or clientAuth)")]
    OtherUse(Place),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Chain(1) => f.write_str("the issuing CA"),
            Place::Chain(number) => write!(f, "certificate {number} of the chain"),
            Place::Root => f.write_str("the root CA"),
        }
    }
}

/// The first reason why these CAs cannot sign for the purpose, if there is one.
pub fn judge(candidate: &Candidate<'_>, purpose: &Purpose<'_>) -> Result<(), Flaw> {
    let chain = candidate.chain.iter().enumerate();
    let chain = chain.map(|(position, der)| (Place::Chain(position + 1), der));
    let mut read = Vec::new();
    for (place, der) in chain.chain([(Place::Root, candidate.root)]) {
        let certificate = parse(der).map_err(|error| Flaw::Unreadable(place, error.to_string()))?;
        read.push((place, der, certificate));
    }
    for (position, (place, _, certificate)) in read.iter().enumerate() {
        is_ca(*place, certificate, position + candidate.below)?;
        is_strong(*place, certificate)?;
        lives(*place, certificate, purpose)?;
        allows(*place, certificate, purpose)?;
    }
    for pair in read.windows(2) {
        if !is_signed_by(pair[0].1, pair[1].1) || pair[0].2.issuer() != pair[1].2.subject() {
            return Err(Flaw::Order(pair[0].0, pair[1].0));
        }
    }
    Ok(())
}

/// Refuses a signature that no verifier takes, ours included: asked whether it is right, all of
/// them say no.
pub fn judge_signature(place: Place, der: &CertificateDer<'_>) -> Result<(), Flaw> {
    match parse(der).ok().as_ref().and_then(weak_signature) {
        Some(algorithm) => Err(Flaw::WeakSignature { place, algorithm }),
        None => Ok(()),
    }
}

/// True if and only if a certificate says that it was signed with its own key.
pub fn names_itself(der: &CertificateDer<'_>) -> bool {
    parse(der).is_ok_and(|certificate| certificate.subject() == certificate.issuer())
}

/// True if and only if a certificate is signed with its own key: it can be a trust anchor for
/// verifiers that accept no other (OpenSSL, by default).
pub fn is_self_signed(der: &CertificateDer<'_>) -> bool {
    names_itself(der) && is_signed_by(der, der)
}

/// `below` is how many CAs there are between it and a leaf.
fn is_ca(place: Place, certificate: &X509Certificate<'_>, below: usize) -> Result<(), Flaw> {
    let constraints = certificate.basic_constraints().ok().flatten();
    let constraints = constraints.filter(|found| found.value.ca).ok_or(Flaw::NotCa(place))?;
    if let Some(allowed) = constraints.value.path_len_constraint
        && usize::try_from(allowed).is_ok_and(|allowed| allowed < below)
    {
        return Err(Flaw::PathLength { place, allowed, below });
    }
    // A root may lack a key usage, and then all is allowed. One that it has must allow this.
    match certificate.key_usage() {
        Ok(Some(usage)) if usage.value.key_cert_sign() => {}
        Ok(None) if place == Place::Root => {}
        _ => return Err(Flaw::MayNotSign(place)),
    }
    let has_key_id = certificate.extensions().iter().any(|extension| {
        matches!(extension.parsed_extension(), ParsedExtension::SubjectKeyIdentifier(_))
    });
    if has_key_id { Ok(()) } else { Err(Flaw::NoKeyId(place)) }
}

fn is_strong(place: Place, certificate: &X509Certificate<'_>) -> Result<(), Flaw> {
    let weak = |key: String| Err(Flaw::WeakKey { place, key });
    let key = certificate.public_key();
    let algorithm = &key.algorithm.algorithm;
    if *algorithm == oid::OID_SIG_ED25519 {
        // It comes in one strength.
    } else if *algorithm == oid::OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = key.algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok());
        match curve {
            Some(curve) if [oid::OID_EC_P256, oid::OID_NIST_EC_P384].contains(&curve) => {}
            Some(curve) => return weak(format!("ECDSA of the curve {}", name_of_curve(&curve))),
            None => return weak("ECDSA of a curve without a name".to_owned()),
        }
    } else {
        match key.parsed() {
            Ok(PublicKey::RSA(rsa)) if rsa.key_size() >= 2048 => {}
            Ok(PublicKey::RSA(rsa)) => return weak(format!("RSA of {} bits", rsa.key_size())),
            _ => return weak(format!("of the algorithm {algorithm}")),
        }
    }
    Ok(())
}

fn name_of_curve(curve: &oid::Oid<'_>) -> String {
    let id = curve.to_id_string();
    match id.as_str() {
        "1.2.840.10045.3.1.1" => "P-192".to_owned(),
        "1.3.132.0.33" => "P-224".to_owned(),
        "1.3.132.0.35" => "P-521".to_owned(),
        _ => id,
    }
}

fn weak_signature(certificate: &X509Certificate<'_>) -> Option<&'static str> {
    match certificate.signature_algorithm.algorithm.to_id_string().as_str() {
        // sha1WithRSAEncryption, the same in OIW's words, ecdsa-with-SHA1.
        "1.2.840.113549.1.1.5" | "1.3.14.3.2.29" | "1.2.840.10045.4.1" => Some("SHA-1"),
        "1.2.840.113549.1.1.4" => Some("MD5"),
        _ => None,
    }
}

fn lives(
    place: Place,
    certificate: &X509Certificate<'_>,
    purpose: &Purpose<'_>,
) -> Result<(), Flaw> {
    let start = timestamp(certificate.validity().not_before.timestamp());
    let end = timestamp(certificate.validity().not_after.timestamp());
    let longest = purpose.longest;
    if end <= purpose.now {
        Err(Flaw::Expired(place, end))
    } else if start > purpose.now {
        Err(Flaw::NotYetValid(place, start))
    } else if end < longest {
        Err(Flaw::EndsTooSoon { place, end, longest })
    } else {
        Ok(())
    }
}

/// RFC 5280, 4.2.1.10 (name constraints) and 4.2.1.12 (extended key usage, to which verifiers
/// hold leaves whose CA has it).
fn allows(
    place: Place,
    certificate: &X509Certificate<'_>,
    purpose: &Purpose<'_>,
) -> Result<(), Flaw> {
    if let Ok(Some(uses)) = certificate.extended_key_usage()
        && place != Place::Root
        && !(uses.value.client_auth && uses.value.server_auth)
    {
        return Err(Flaw::OtherUse(place));
    }
    let constraints = match certificate.name_constraints() {
        Ok(None) => return Ok(()),
        Ok(Some(constraints)) => constraints.value,
        Err(error) => return Err(Flaw::Unreadable(place, format!("name constraints: {error}"))),
    };
    let (permitted, excluded) = (&constraints.permitted_subtrees, &constraints.excluded_subtrees);
    let (allowed, forbidden) = (bases(permitted, uri_of), bases(excluded, uri_of));
    let host = purpose.trust_domain;
    let covers_host = |base: &String| match base.strip_prefix('.') {
        Some(above) => is_below(host, above),
        None => base == host,
    };
    if forbidden.iter().any(covers_host) || is_left_out(&allowed, covers_host) {
        return Err(Flaw::ForbidsTrustDomain(place, host.to_owned()));
    }
    if !allowed.is_empty() || !forbidden.is_empty() {
        return Err(Flaw::ConstrainsUris(place));
    }
    let (allowed, forbidden) = (bases(permitted, dns_of), bases(excluded, dns_of));
    for suffix in purpose.dns_suffixes {
        let covers = |base: &String| {
            let base = base.trim_start_matches('.');
            base.is_empty() || suffix == base || is_below(suffix, base)
        };
        // A part of what may be asked for must not be forbidden either.
        let touches = |base: &String| covers(base) || is_below(base, suffix);
        if forbidden.iter().any(touches) || is_left_out(&allowed, covers) {
            return Err(Flaw::ForbidsDnsNames(place, suffix.clone()));
        }
    }
    Ok(())
}

type NameOf = for<'a, 'b> fn(&'b GeneralName<'a>) -> Option<&'a str>;

fn bases(subtrees: &Option<Vec<GeneralSubtree<'_>>>, name_of: NameOf) -> Vec<String> {
    let bases = subtrees.iter().flatten().filter_map(|subtree| name_of(&subtree.base));
    bases.map(str::to_ascii_lowercase).collect()
}

fn uri_of<'a>(name: &GeneralName<'a>) -> Option<&'a str> {
    if let GeneralName::URI(host) = name { Some(host) } else { None }
}

fn dns_of<'a>(name: &GeneralName<'a>) -> Option<&'a str> {
    if let GeneralName::DNSName(base) = name { Some(base) } else { None }
}

/// True if and only if some names of this form are permitted, and this is not among them.
fn is_left_out(allowed: &[String], covers: impl Fn(&String) -> bool) -> bool {
    !allowed.is_empty() && !allowed.iter().any(covers)
}

fn is_below(name: &str, suffix: &str) -> bool {
    name.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'))
}
