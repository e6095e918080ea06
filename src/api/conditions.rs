//! Condition types and their reasons: what `kubectl describe` shows and what alerts match.
//!
//! A reason is part of the API: docs/reference.md lists each with what to do.

/// The condition that says whether a resource does what it is for.
pub const READY: &str = "Ready";
/// The condition that says whether an identity's pods carry its labels.
pub const PODS_LABELLED: &str = "PodsLabelled";
/// The condition that says whether every name in a policy stands for something.
pub const NAMES_FOUND: &str = "NamesFound";
/// The condition of a TrustDomain that is marked default: whether it is the one that counts.
pub const DEFAULT: &str = "Default";
/// The condition of a TrustDomain while its CAs change: what comes next, and when.
pub const ROTATING: &str = "Rotating";
/// The condition that says whether every selected namespace holds the bundle.
pub const BUNDLE_PUBLISHED: &str = "BundlePublished";

/// The condition that says whether an identity is revoked.
pub const REVOKED: &str = "Revoked";
/// The condition that says whether every CA of a trust domain has a CRL that is up to date.
pub const CRL_PUBLISHED: &str = "CRLPublished";
/// The condition of a TrustDomain that was deleted and is held.
pub const DELETING: &str = "Deleting";

/// A reason that a condition can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    // AgentIdentity, Ready=True
    /// The certificate is in the Secret and valid.
    Issued,
    // AgentIdentity, Ready=False
    /// The spec says something that cannot be; the message says which field.
    InvalidSpec,
    /// The TrustDomain named does not exist, or none is marked default.
    TrustDomainNotFound,
    /// The TrustDomain does not serve this namespace.
    NamespaceNotAllowed,
    /// The TrustDomain's rules forbid what the spec asks for.
    NotAllowed,
    /// The TrustDomain is somebody else's, of which only the bundle is known here.
    RemoteTrustDomain,
    /// The TrustDomain cannot sign now.
    AuthorityNotReady,
    /// An older identity has the same SPIFFE ID.
    IdentityConflict,
    /// A Secret of that name exists and is not this identity's.
    SecretNotOurs,
    /// The CA ends too soon for a certificate of the least life.
    AuthorityExpiring,
    /// Signing failed.
    SigningFailed,
    /// The API server did not take a write.
    WriteFailed,
    /// The certificate in the Secret has expired.
    Expired,
    /// The identity is revoked. Of the condition Revoked too.
    Revoked,

    // AgentIdentity, PodsLabelled
    /// Every matching pod carries the labels.
    AllLabelled,
    /// No pod of the ServiceAccount matches.
    NoPods,
    /// Some matching pods do not carry the labels yet.
    Labelling,
    /// Some matching pods belong to another identity, which is more specific or older.
    PodsClaimedByAnother,

    // TrustDomain, Ready
    /// The CA is published and signs.
    Active,
    /// The CA's Secrets are being made or published.
    Preparing,
    /// Another, older TrustDomain has the same domain.
    DuplicateDomain,
    /// A CA Secret that existed is gone.
    CaSecretMissing,
    /// A CA Secret does not hold what was put into it.
    CaSecretInvalid,
    /// The CA has expired.
    CaExpired,
    /// The authority cannot be reached, or has nothing to give.
    AuthorityUnavailable,
    /// The authority has a CA that cannot be used; the message says why.
    CaRefused,
    /// Whoever answers in the authority's place does not prove to be it.
    AuthorityUntrusted,
    /// The authority is there and locked.
    AuthoritySealed,
    /// The authority did not let the operator log in.
    AuthorityLoginRefused,
    /// The authority refuses what it is asked for: a right, a role or an issuer is missing.
    AuthorityDenied,
    /// Somebody has yet to sign what was requested.
    AuthorityPending,
    /// The authority asks for fewer requests.
    AuthorityRateLimited,
    /// The token with the CA's keys is there, and does not do what it is asked.
    TokenRefused,
    /// The bundle of a remote trust domain is held and published.
    Fetched,
    /// What was fetched cannot be used as a bundle; the message says why.
    BundleRefused,
    /// The operator's clock and the API server's differ: nothing is signed by either.
    ClockDisagrees,

    // TrustDomain, Default
    /// Identities that name no trust domain belong to this one.
    IsDefault,
    /// An older TrustDomain is marked default as well, and is the one that counts.
    DuplicateDefault,

    // TrustDomain, Rotating
    /// The new bundle is on its way to every target.
    Publishing,
    /// Every target holds the new bundle; agents are given time to load it.
    Soaking,
    /// Some targets could not be reached, and a person is waited for.
    Stalled,
    /// The new CA signs; the old one is trusted until what it signed has ended.
    Retiring,

    // TrustDomain, Deleting
    /// It was deleted, and identities still belong to it.
    IdentitiesRemain,

    // TrustDomain, BundlePublished
    /// Every selected namespace holds the bundle.
    Published,
    /// Some selected namespaces could not be written to.
    NamespacesUnreached,
    /// Every selected namespace holds the bundle, and the ClusterTrustBundle does not.
    ClusterTrustBundleUnreached,

    // AgentAccessPolicy, Ready
    /// Every enforcer's objects say what the policy says.
    Compiled,
    /// Some let through less.
    Narrowed,
    /// Nothing enforces it.
    NoEnforcer,
    /// An enforcer's objects could not be written.
    EnforcerFailed,

    // AgentAccessPolicy, NamesFound
    /// Every name stands for an identity.
    EveryNameFound,
    /// Some names match nothing.
    NamesUnmatched,

    // TrustDomain, CRLPublished
    /// What is revoked is not on every CRL that it is to be on. Of AgentIdentities.
    CrlAwaited,
    /// Every CA has a CRL that is up to date.
    UpToDate,
    /// What was revoked could not be recorded.
    RecordNotWritten,
    /// A CRL could not be signed or written.
    CrlNotSigned,
}

impl Reason {
    /// The reason as it stands in the condition.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Issued => "Issued",
            Reason::InvalidSpec => "InvalidSpec",
            Reason::TrustDomainNotFound => "TrustDomainNotFound",
            Reason::NamespaceNotAllowed => "NamespaceNotAllowed",
            Reason::NotAllowed => "NotAllowed",
            Reason::RemoteTrustDomain => "RemoteTrustDomain",
            Reason::Fetched => "Fetched",
            Reason::BundleRefused => "BundleRefused",
            Reason::AuthorityNotReady => "AuthorityNotReady",
            Reason::IdentityConflict => "IdentityConflict",
            Reason::SecretNotOurs => "SecretNotOurs",
            Reason::AuthorityExpiring => "AuthorityExpiring",
            Reason::SigningFailed => "SigningFailed",
            Reason::WriteFailed => "WriteFailed",
            Reason::Expired => "Expired",
            Reason::AllLabelled => "AllLabelled",
            Reason::NoPods => "NoPods",
            Reason::Labelling => "Labelling",
            Reason::PodsClaimedByAnother => "PodsClaimedByAnother",
            Reason::Active => "Active",
            Reason::Preparing => "Preparing",
            Reason::DuplicateDefault => "DuplicateDefault",
            Reason::DuplicateDomain => "DuplicateDomain",
            Reason::CaSecretMissing => "CASecretMissing",
            Reason::CaSecretInvalid => "CASecretInvalid",
            Reason::CaExpired => "CAExpired",
            Reason::AuthorityUnavailable => "AuthorityUnavailable",
            Reason::CaRefused => "CARefused",
            Reason::AuthorityUntrusted => "AuthorityUntrusted",
            Reason::AuthoritySealed => "AuthoritySealed",
            Reason::AuthorityLoginRefused => "AuthorityLoginRefused",
            Reason::AuthorityDenied => "AuthorityDenied",
            Reason::AuthorityPending => "AuthorityPending",
            Reason::AuthorityRateLimited => "AuthorityRateLimited",
            Reason::TokenRefused => "TokenRefused",
            Reason::ClockDisagrees => "ClockDisagrees",
            Reason::IsDefault => "IsDefault",
            Reason::Publishing => "Publishing",
            Reason::Soaking => "Soaking",
            Reason::Stalled => "Stalled",
            Reason::Retiring => "Retiring",
            Reason::IdentitiesRemain => "IdentitiesRemain",
            Reason::Published => "Published",
            Reason::NamespacesUnreached => "NamespacesUnreached",
            Reason::Revoked => "Revoked",
            Reason::CrlAwaited => "CRLAwaited",
            Reason::UpToDate => "UpToDate",
            Reason::RecordNotWritten => "RecordNotWritten",
            Reason::CrlNotSigned => "CRLNotSigned",
            Reason::ClusterTrustBundleUnreached => "ClusterTrustBundleUnreached",
            Reason::Compiled => "Compiled",
            Reason::Narrowed => "Narrowed",
            Reason::NoEnforcer => "NoEnforcer",
            Reason::EnforcerFailed => "EnforcerFailed",
            Reason::EveryNameFound => "EveryNameFound",
            Reason::NamesUnmatched => "NamesUnmatched",
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a certificate was issued: the named checks of [`crate::decide::checks`], in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IssueReason {
    /// There is no Secret.
    Missing,
    /// The Secret's certificate or key cannot be read.
    Malformed,
    /// The key is not the certificate's.
    KeyMismatch,
    /// The certificate is not an X.509-SVID of our profile.
    WrongProfile,
    /// The certificate's SPIFFE ID is not this identity's.
    WrongIdentity,
    /// The spec's DNS names, key algorithm or duration have changed.
    SpecChanged,
    /// The certificate does not chain to the bundle or was not signed by the active CA.
    WrongIssuer,
    /// Files asked for are missing, damaged, or not asked for any more.
    WrongFormats,
    /// The certificate has expired.
    Expired,
    /// The time to renew has come.
    NearExpiry,
    /// The CA that signed it is retiring.
    AuthorityRetiring,
    /// That certificate was revoked.
    CertificateRevoked,
    /// The certificate is not among those that the status counts.
    Unrecorded,
}

impl IssueReason {
    /// The reason as it stands in Events and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            IssueReason::Missing => "Missing",
            IssueReason::Malformed => "Malformed",
            IssueReason::KeyMismatch => "KeyMismatch",
            IssueReason::WrongProfile => "WrongProfile",
            IssueReason::WrongIdentity => "WrongIdentity",
            IssueReason::SpecChanged => "SpecChanged",
            IssueReason::WrongIssuer => "WrongIssuer",
            IssueReason::WrongFormats => "WrongFormats",
            IssueReason::Expired => "Expired",
            IssueReason::NearExpiry => "NearExpiry",
            IssueReason::AuthorityRetiring => "AuthorityRetiring",
            IssueReason::CertificateRevoked => "CertificateRevoked",
            IssueReason::Unrecorded => "Unrecorded",
        }
    }
}

impl std::fmt::Display for IssueReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
