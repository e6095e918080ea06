//! The resources as they are on the wire: what users type, what the API server stores.
//!
//! Nothing here decides anything. A spec that arrives through these types may still be wrong in
//! ways a schema cannot say; [`crate::identity`] is the one door behind which it cannot.

pub mod access_policy;
pub mod agent_identity;
pub mod agent_roster;
pub mod authority;
pub mod cert_manager;
pub mod conditions;
pub mod names;
pub mod remote;
pub mod schema;
pub mod trust_domain;
pub mod vault;

pub use access_policy::{
    AccessFrom, AccessTarget, AgentAccessPolicy, AgentAccessPolicySpec, AgentAccessPolicyStatus,
    CiliumAuthentication, Enforcer, EnforcerState, EnforcerStatus, HttpRule, IdentityReference,
};
pub use agent_identity::{
    AgentIdentity, AgentIdentitySpec, AgentIdentityStatus, CertificateSpec, CertificateStatus,
    DeletionPolicy, DeliveryMode, DeliverySpec, ExtraFormat, FormerCertificate, KeyAlgorithm,
    LastFailure, PodsStatus, RevocationReason, RevokedCertificate, RevokedSpec, RevokedStatus,
    SecretTemplate,
};
pub use agent_roster::{AgentRoster, AgentRosterSpec, RosterEntry, RosterTerm};
pub use authority::{AuthoritySpec, PinReference, Pkcs11Authority, SecretAuthority, SelfSigned};
pub use cert_manager::{CertManagerAuthority, CertManagerIssuer};
pub use remote::{RemoteAuthority, RemoteCertificate, RemoteFormat, RemoteStatus};
pub use trust_domain::{
    BundleSpec, BundleStatus, CaKeyAlgorithm, CaSpec, CrlStatus, GrantSpec, IdentitiesSpec,
    IdentitiesStatus, RevocationSpec, RotationStatus, SlotKind, SlotNumbers, SlotPhase, SlotStatus,
    TrustDomain, TrustDomainDeletion, TrustDomainSpec, TrustDomainStatus, WhenUnreached,
};
pub use vault::{
    FileReference, VaultAppRoleAuth, VaultAuth, VaultAuthority, VaultKubernetesAuth, VaultMode,
};

/// The API group of every resource.
pub const GROUP: &str = "countersign.dev";
