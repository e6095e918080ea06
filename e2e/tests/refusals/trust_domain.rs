//! The rules of a TrustDomain.

use crate::Row;

/// Each is refused with a sentence.
pub const REFUSED: &[Row] = &[
    ("no domain", "{authority: {selfSigned: {}}}", "spec.domain: Required value"),
    (
        "a domain in upper case",
        "{domain: Prod.example.com, authority: {selfSigned: {}}}",
        "write a trust domain as SPIFFE has it: lower-case letters, digits, '.', '-' and '_', such as prod.example.com",
    ),
    (
        "a domain with a scheme",
        "{domain: 'spiffe://prod', authority: {selfSigned: {}}}",
        "write a trust domain as SPIFFE has it",
    ),
    ("no authority", "{domain: prod.example.com}", "spec.authority: Required value"),
    (
        "an empty authority",
        "{domain: prod.example.com, authority: {}}",
        "name exactly one authority: write selfSigned: {}, ",
    ),
    (
        "two authorities",
        "{domain: d, authority: {selfSigned: {}, secret: {name: corporate-ca}}}",
        "name exactly one authority",
    ),
    (
        "a Secret without a name",
        "{domain: d, authority: {secret: {}}}",
        "spec.authority.secret.name: Required value",
    ),
    (
        "a Secret's name that is none",
        "{domain: d, authority: {secret: {name: Corporate/CA}}}",
        "write a Secret's name: lower-case letters, digits, '-' and '.', such as corporate-ca",
    ),
    (
        "a Secret of the operator's own",
        "{domain: d, authority: {secret: {name: countersign-ca-prod-issuing-1}}}",
        "Secrets whose names begin with countersign-ca- are the operator's own",
    ),
    (
        "a remote bundle without TLS",
        "{domain: d, authority: {remote: {url: 'http://partner.example/bundle', format: PEM}}}",
        "write an address with https and without user or fragment, such as https://spire.partner.example/bundle",
    ),
    (
        "a remote bundle behind a password",
        "{domain: d, authority: {remote: {url: 'https://me:secret@partner.example/bundle', format: PEM}}}",
        "write an address with https and without user or fragment",
    ),
    (
        "a remote bundle of no known format",
        "{domain: d, authority: {remote: {url: 'https://partner.example/bundle', format: DER}}}",
        "supported values: \"PEM\", \"SPIFFE\"",
    ),
    (
        "a remote bundle from a server for which two vouch",
        "{domain: d, authority: {remote: {url: 'https://partner.example/bundle', format: PEM, caSecretRef: {name: a}, caConfigMapRef: {name: b}}}}",
        "name at most one place of the CA certificates that the server's own certificate is checked with",
    ),
    (
        "a remote bundle that is fetched all the time",
        "{domain: d, authority: {remote: {url: 'https://partner.example/bundle', format: PEM, refreshPeriod: 1s}}}",
        "a bundle is fetched at most every 10s and at least every 24h",
    ),
    (
        "a remote trust domain for identities that name none",
        "{domain: d, default: true, authority: {remote: {url: 'https://partner.example/bundle', format: PEM}}}",
        "no CA signs in a remote trust domain, so it cannot be the one of identities that name none",
    ),
    (
        "an issuer of cert-manager's by a name that none has",
        "{domain: d, authority: {certManager: {issuerRef: {name: 'a/b'}}}}",
        "write the name of an issuer: lower-case letters",
    ),
    (
        "a Vault without TLS",
        "{domain: d, authority: {vault: {server: 'http://v:8200', caSecretRef: {name: a}, auth: {appRole: {roleId: r, secretIdRef: {name: b}}}}}}",
        "write Vault's address with https and without a path, such as https://vault.vault.svc:8200",
    ),
    (
        "a Vault with a path",
        "{domain: d, authority: {vault: {server: 'https://v:8200/v1', caSecretRef: {name: a}, auth: {appRole: {roleId: r, secretIdRef: {name: b}}}}}}",
        "write Vault's address with https and without a path",
    ),
    (
        "a Vault that nobody vouches for",
        "{domain: d, authority: {vault: {server: 'https://v:8200', auth: {appRole: {roleId: r, secretIdRef: {name: b}}}}}}",
        "name exactly one place of the CA certificates that Vault's own certificate is checked with: caBundle, caSecretRef or caConfigMapRef",
    ),
    (
        "a Vault's mount that leads elsewhere",
        "{domain: d, authority: {vault: {server: 'https://v:8200', caSecretRef: {name: a}, auth: {appRole: {roleId: r, secretIdRef: {name: b}}}, mount: 'pki/../sys'}}}",
        "write the path of a mount without a slash at either end, such as pki or teams/pki",
    ),
    (
        "a Vault that signs leaves without a role",
        "{domain: d, authority: {vault: {server: 'https://v:8200', caSecretRef: {name: a}, auth: {appRole: {roleId: r, secretIdRef: {name: b}}}, mode: Leaf}}}",
        "mode: Leaf needs a role, under which Vault signs; mode: Intermediate takes none",
    ),
    (
        "a Vault that signs CAs with a role",
        "{domain: d, authority: {vault: {server: 'https://v:8200', caSecretRef: {name: a}, auth: {appRole: {roleId: r, secretIdRef: {name: b}}}, role: agents}}}",
        "mode: Leaf needs a role, under which Vault signs; mode: Intermediate takes none",
    ),
    (
        "a Vault's role that is none",
        "{domain: d, authority: {vault: {server: 'https://v:8200', caSecretRef: {name: a}, auth: {appRole: {roleId: r, secretIdRef: {name: b}}}, mode: Leaf, role: 'a/b'}}}",
        "write a name as Vault has it: letters, digits, '-', '_' and '.'",
    ),
    (
        "a Vault's namespace with a slash at its end",
        "{domain: d, authority: {vault: {server: 'https://v:8200', caSecretRef: {name: a}, auth: {appRole: {roleId: r, secretIdRef: {name: b}}}, namespace: 'teams/'}}}",
        "write the path of a Vault namespace without a slash at either end, such as teams/research",
    ),
    (
        "a Vault without a login",
        "{domain: d, authority: {vault: {server: 'https://v:8200', caSecretRef: {name: a}, auth: {}}}}",
        "name exactly one way to log in: kubernetes: {role: ...}, or appRole: {roleId: ..., secretIdRef: {name: ...}}",
    ),
    (
        "a root CA of minutes",
        "{domain: d, authority: {selfSigned: {}}, ca: {rootLifetime: 59m, issuingLifetime: 30m}}",
        "a root CA lives at least 1h: write 1h or more",
    ),
    (
        "an issuing CA of 9 minutes",
        "{domain: d, authority: {selfSigned: {}}, ca: {issuingLifetime: 9m}}",
        "an issuing CA lives at least 10m: write 10m or more",
    ),
    (
        "an issuing CA that outlives its root",
        "{domain: d, authority: {selfSigned: {}}, ca: {rootLifetime: 2h, issuingLifetime: 3h}}",
        "issuingLifetime (8760h where it is not given) must not be longer than rootLifetime (87600h where it is not given)",
    ),
    (
        "a root that the issuing CA of default life outlives",
        "{domain: d, authority: {selfSigned: {}}, ca: {rootLifetime: 24h}}",
        "issuingLifetime (8760h where it is not given) must not be longer",
    ),
    (
        "an issuing CA that ends while its successor soaks",
        "{domain: d, authority: {selfSigned: {}}, ca: {issuingLifetime: 59m}}",
        "issuingLifetime (8760h where it is not given) must be at least six times soak (10m where it is not given)",
    ),
    (
        "a soak that the issuing CA does not live through",
        "{domain: d, authority: {selfSigned: {}}, ca: {issuingLifetime: 24h, soak: 5h}}",
        "write a longer issuingLifetime or a shorter soak",
    ),
    (
        "a word for what to do with identities that there is not",
        "{domain: d, authority: {selfSigned: {}}, deletionPolicy: Delete}",
        "supported values: \"Hold\", \"Orphan\"",
    ),
    (
        "a CA key that Envoy refuses",
        "{domain: d, authority: {selfSigned: {}}, ca: {keyAlgorithm: Ed25519}}",
        "supported values: \"ECDSA-P256\"",
    ),
    (
        "a shortest life over the longest",
        "{domain: d, authority: {selfSigned: {}}, identities: {minDuration: 2h, maxDuration: 1h}}",
        "minDuration (5m where it is not given) must not be longer than maxDuration (24h where it is not given)",
    ),
    (
        "a shortest life over the longest that is not given",
        "{domain: d, authority: {selfSigned: {}}, identities: {minDuration: 25h}}",
        "must not be longer than maxDuration",
    ),
    (
        "a shortest life under 5 minutes",
        "{domain: d, authority: {selfSigned: {}}, identities: {minDuration: 1m}}",
        "a certificate lives at least 5m: write 5m or more",
    ),
    (
        "a longest life under 5 minutes",
        "{domain: d, authority: {selfSigned: {}}, identities: {minDuration: 5m, maxDuration: 1m}}",
        "a certificate lives at least 5m: write 5m or more",
    ),
    (
        "a path without a leading slash",
        "{domain: d, authority: {selfSigned: {}}, identities: {pathTemplate: 'ns/{namespace}/{name}'}}",
        "write a path of segments from letters, digits, '.', '-', '_' and the placeholders",
    ),
    (
        "a path with an unknown placeholder",
        "{domain: d, authority: {selfSigned: {}}, identities: {pathTemplate: '/ns/{namespace}/{name}/{pod}'}}",
        "write a path of segments",
    ),
    (
        "a path with a trailing slash",
        "{domain: d, authority: {selfSigned: {}}, identities: {pathTemplate: '/ns/{namespace}/{name}/'}}",
        "write a path of segments",
    ),
    (
        "a path with dots for a segment",
        "{domain: d, authority: {selfSigned: {}}, identities: {pathTemplate: '/../{namespace}/{name}'}}",
        "the segments . and .. are no part of a SPIFFE ID: write a path of segments that have names",
    ),
    (
        "a path that ends in a dot",
        "{domain: d, authority: {selfSigned: {}}, identities: {pathTemplate: '/{namespace}/{name}/.'}}",
        "the segments . and .. are no part of a SPIFFE ID",
    ),
    (
        "a path without the namespace",
        "{domain: d, authority: {selfSigned: {}}, identities: {pathTemplate: '/agent/{name}'}}",
        "the path must have {namespace}, and {serviceAccount} or {name}, as whole segments",
    ),
    (
        "a path in which two namespaces can meet",
        "{domain: d, authority: {selfSigned: {}}, identities: {pathTemplate: '/{namespace}{name}'}}",
        "the path must have {namespace}, and {serviceAccount} or {name}, as whole segments",
    ),
    (
        "a path without a name",
        "{domain: d, authority: {selfSigned: {}}, identities: {pathTemplate: '/ns/{namespace}/{role}'}}",
        "the path must have {namespace}, and {serviceAccount} or {name}, as whole segments",
    ),
    (
        "a key algorithm twice",
        "{domain: d, authority: {selfSigned: {}}, identities: {allowedKeyAlgorithms: [Ed25519, Ed25519]}}",
        "allowedKeyAlgorithms[1]: Duplicate value",
    ),
    (
        "a DNS suffix with a leading dot",
        "{domain: d, authority: {selfSigned: {}}, identities: {allowedDnsSuffixes: [.example.com]}}",
        "write a DNS suffix in lower case without a leading dot, such as agents.example.com",
    ),
    (
        "a selector with NotIn and no value",
        "{domain: d, authority: {selfSigned: {}}, identities: {namespaceSelector: {matchExpressions: [{key: a, operator: NotIn}]}}}",
        "In and NotIn take at least one value",
    ),
    (
        "a bundle selector with DoesNotExist and a value",
        "{domain: d, authority: {selfSigned: {}}, bundle: {namespaceSelector: {matchExpressions: [{key: a, operator: DoesNotExist, values: [b]}]}}}",
        "In and NotIn take at least one value",
    ),
];

/// Each is within the rules.
pub const ACCEPTED: &[(&str, &str)] = &[
    ("the shortest one", "{domain: prod.example.com, authority: {selfSigned: {}}}"),
    ("a CA in a Secret", "{domain: prod.example.com, authority: {secret: {name: corporate-ca}}}"),
    (
        "everything at once",
        "domain: prod_1.example-2.com
default: true
authority: {selfSigned: {}}
ca: {rootLifetime: 48h, issuingLifetime: 24h, keyAlgorithm: RSA-3072}
identities:
  namespaceSelector: {matchLabels: {agents: 'yes'}}
  pathTemplate: /ns/{namespace}/sa/{serviceAccount}/agent/{name}/{role}
  minDuration: 5m
  maxDuration: 12h
  allowedKeyAlgorithms: [ECDSA-P256, Ed25519]
  allowedDnsSuffixes: [agents.example.com]
deletionPolicy: Orphan
bundle: {namespaceSelector: {}, clusterTrustBundle: false}",
    ),
    (
        "a path with a role beside whole segments",
        "{domain: d, authority: {selfSigned: {}}, identities: {pathTemplate: '/{namespace}/{name}/is-{role}.v1'}}",
    ),
    (
        "an issuing CA that lives as long as its root",
        "{domain: d, authority: {selfSigned: {}}, ca: {rootLifetime: 1h, issuingLifetime: 1h}}",
    ),
    (
        "the shortest issuing CA",
        "{domain: d, authority: {selfSigned: {}}, ca: {rootLifetime: 1h, issuingLifetime: 10m, soak: 100s}}",
    ),
];
