//! The names that others match on: labels, annotations, object names, Secret keys.
//!
//! Changing one of these breaks policies and manifests that users wrote.

/// Label on pods, Secrets and events of an identity: the AgentIdentity's name.
pub const IDENTITY_LABEL: &str = "countersign.dev/identity";
/// Label on pods: `spec.role`.
pub const ROLE_LABEL: &str = "countersign.dev/role";
/// Label on pods: whether the identity may be spoken to.
pub const STATE_LABEL: &str = "countersign.dev/state";
/// The value of [`STATE_LABEL`] for an identity that stands.
pub const STATE_ACTIVE: &str = "active";
/// The value of [`STATE_LABEL`] for an identity that is revoked: policies deny such pods.
pub const STATE_REVOKED: &str = "revoked";
/// Label on CA Secrets, bundle ConfigMaps and ClusterTrustBundles: the TrustDomain's name.
pub const TRUST_DOMAIN_LABEL: &str = "countersign.dev/trust-domain";
/// Label on CA Secrets: `root` or `issuing`.
pub const SLOT_KIND_LABEL: &str = "countersign.dev/slot-kind";
/// File of a CA Secret whose key is in a token: where it is, a PKCS#11 URI (RFC 7512).
pub const KEY_URI: &str = "tls.key.uri";
/// Label on CA Secrets: the kind of authority that the CA came from, as `spec.authority` names it.
pub const AUTHORITY_LABEL: &str = "countersign.dev/authority";

/// Label on what is made of an AgentAccessPolicy: its name.
pub const ACCESS_POLICY_LABEL: &str = "countersign.dev/access-policy";
/// Label on the same, by which Kubernetes' own tools tell who wrote it.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";

/// Annotation on pods and Secrets: the SPIFFE ID.
pub const SPIFFE_ID_ANNOTATION: &str = "countersign.dev/spiffe-id";
/// Annotation on Secrets: the leaf's serial number, lower-case hexadecimal.
pub const SERIAL_ANNOTATION: &str = "countersign.dev/serial";
/// Annotation on Secrets that were emptied: the serial number of the leaf that was taken out.
pub const TAKEN_OUT_ANNOTATION: &str = "countersign.dev/taken-out";
/// Annotation on Secrets: the leaf's end of life, RFC 3339.
pub const NOT_AFTER_ANNOTATION: &str = "countersign.dev/not-after";
/// Annotation on whatever holds a bundle: SHA-256 of `ca.crt`, lower-case hexadecimal.
pub const BUNDLE_SHA256_ANNOTATION: &str = "countersign.dev/bundle-sha256";
/// Annotation on Secrets: which labels and annotations came from `secretTemplate`, so that one
/// that is taken out of the template can be taken off the Secret.
pub const TEMPLATE_KEYS_ANNOTATION: &str = "countersign.dev/template-keys";
/// Annotation on Secrets with `deletionPolicy: Orphan`, which cannot carry an owner reference:
/// the UID of the AgentIdentity that owns them instead.
pub const ORPHAN_OWNER_ANNOTATION: &str = "countersign.dev/owner-uid";

/// Label on the ConfigMaps of the operator's namespace that record what was revoked, and on those
/// that hold a CRL: the TrustDomain's name.
pub const REVOCATION_LABEL: &str = "countersign.dev/revocation";
/// Annotation on CRL and bundle ConfigMaps: SHA-256 of the CRL, lower-case hexadecimal.
pub const CRL_SHA256_ANNOTATION: &str = "countersign.dev/crl-sha256";
/// The signer of agents' certificates, as Kubernetes' certificates API names signers.
pub const AGENT_SIGNER: &str = "countersign.dev/agent";

/// Finalizer on TrustDomains: identities belong to it, or its CAs' keys are not destroyed yet.
pub const FINALIZER: &str = "countersign.dev/authorities";

/// Annotation on AgentIdentities: who last changed what is revoked, while anything is. An admission
/// policy writes it, and nobody else may.
pub const REVOKED_BY_ANNOTATION: &str = "countersign.dev/revoked-by";

/// Finalizer on AgentIdentities: what was issued to one that is deleted is revoked before it goes.
pub const REVOCATION_FINALIZER: &str = "countersign.dev/revocation";

/// Everything of ours starts with this; a user's template may not.
pub const PREFIX: &str = "countersign.dev/";

/// The leaf, then the issuing CA: what a server or client presents.
pub const TLS_CRT: &str = "tls.crt";
/// The leaf's private key, PKCS#8 PEM.
pub const TLS_KEY: &str = "tls.key";
/// The trust bundle, PEM.
pub const CA_CRT: &str = "ca.crt";
/// `CombinedPEM`: key, leaf and issuing CA in one file.
pub const COMBINED_PEM: &str = "tls-combined.pem";
/// `PKCS12`: the key store.
pub const KEYSTORE_P12: &str = "keystore.p12";
/// `PKCS12`: the key store's password.
pub const KEYSTORE_PASSWORD: &str = "keystore.password";
/// `EnvoySDS`: a discovery response with the certificate and its key.
pub const ENVOY_IDENTITY: &str = "envoy-identity.yaml";
/// `EnvoySDS`: a discovery response with the bundle.
pub const ENVOY_TRUST: &str = "envoy-trust.yaml";
/// `EnvoySDS`: the same, and that nobody is trusted whom `crl.pem` takes back.
pub const ENVOY_TRUST_CRL: &str = "envoy-trust-crl.yaml";
/// Every key that an identity's Secret may hold.
pub const SECRET_KEYS: [&str; 9] = [
    TLS_CRT,
    TLS_KEY,
    CA_CRT,
    COMBINED_PEM,
    KEYSTORE_P12,
    KEYSTORE_PASSWORD,
    ENVOY_IDENTITY,
    ENVOY_TRUST,
    ENVOY_TRUST_CRL,
];

/// What is made of a namespace's AgentAccessPolicies to close the pods of revoked identities. No policy has this name, since what is
/// made of one is called after it.
pub const ACCESS_REVOKED_NAME: &str = "countersign-revoked";

/// In the ConfigMap for an Envoy beside a target: who may call, as `envoy.filters.http.rbac`.
pub const ENVOY_ACCESS: &str = "envoy-access.json";
/// The same: what is read of MCP, as `envoy.filters.http.mcp`.
pub const ENVOY_MCP: &str = "envoy-mcp.json";
/// Those of them that hold the private key or open it.
pub const PRIVATE_KEYS: [&str; 5] =
    [TLS_KEY, COMBINED_PEM, KEYSTORE_P12, KEYSTORE_PASSWORD, ENVOY_IDENTITY];

/// The longest value a label may have, and so the longest name an AgentIdentity may have.
pub const LABEL_VALUE_MAX: usize = 63;

/// The Secret an identity's leaf is delivered in when its spec names none.
pub fn default_secret_name(identity: &str) -> String {
    format!("{identity}-identity")
}

/// The CRLs of a trust domain's CAs in PEM, one after the other.
pub const CRL_PEM: &str = "crl.pem";
/// A record of what was revoked: one certificate a line.
pub const REVOKED_RECORD: &str = "revoked";
/// One CA's CRL in DER.
pub const CRL_DER: &str = "crl.der";

/// A ConfigMap that records what was revoked in a TrustDomain, counted from 0.
pub fn record_name(trust_domain: &str, number: usize) -> String {
    format!("countersign-revoked-{trust_domain}-{number}")
}

/// The ConfigMap that holds the CRL of a TrustDomain's CA.
pub fn crl_name(trust_domain: &str, key_id: &str) -> String {
    // A name of 253 characters holds both.
    format!("countersign-crl-{trust_domain}-{key_id}")
}

/// The ConfigMap that carries a TrustDomain's bundle in each selected namespace.
pub fn bundle_config_map_name(trust_domain: &str) -> String {
    format!("countersign-trust-{trust_domain}")
}

/// The ClusterTrustBundle that carries a TrustDomain's bundle. It begins with the signer's name, as
/// Kubernetes asks; the rest is the TrustDomain's name and not its domain, which may hold
/// characters that no object's name may (`_`).
pub fn cluster_trust_bundle_name(trust_domain: &str) -> String {
    format!("{}:{trust_domain}", AGENT_SIGNER.replace('/', ":"))
}

/// The ConfigMap for an Envoy beside an identity that is a target of an AgentAccessPolicy.
pub fn access_config_map_name(identity: &str) -> String {
    format!("countersign-access-{identity}")
}
