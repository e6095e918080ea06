//! The rules of an AgentIdentity.

use crate::Row;

/// Each is refused with a sentence.
pub const REFUSED: &[Row] = &[
    ("no ServiceAccount", "{role: planner}", "spec.serviceAccountName: Required value"),
    ("an empty ServiceAccount", "{serviceAccountName: ''}", "should be at least 1 chars long"),
    (
        "a ServiceAccount of no Kubernetes name",
        "{serviceAccountName: Planner_1}",
        "write the name of a ServiceAccount of this namespace: lower-case letters, digits, '-' and '.'",
    ),
    (
        "a trust domain's name of no characters",
        "{serviceAccountName: a, trustDomain: ''}",
        "spec.trustDomain",
    ),
    (
        "a role that is no label value",
        "{serviceAccountName: a, role: 'the planner'}",
        "a role becomes a label's value: at most 63 letters, digits, '-', '_' and '.'",
    ),
    (
        "a role that ends with a dash",
        "{serviceAccountName: a, role: planner-}",
        "a role becomes a label's value",
    ),
    (
        "a role of 64 characters",
        "{serviceAccountName: a, role: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa}",
        "spec.role: Too long: may not be more than 63",
    ),
    (
        "a DNS name with a wildcard",
        "{serviceAccountName: a, dnsNames: ['*.research.svc']}",
        "write a DNS name in lower case without wildcard or trailing dot, such as planner.research.svc",
    ),
    (
        "a DNS name with a trailing dot",
        "{serviceAccountName: a, dnsNames: [a.research.svc.]}",
        "without wildcard or trailing dot",
    ),
    (
        "a DNS name in upper case",
        "{serviceAccountName: a, dnsNames: [A.research.svc]}",
        "in lower case",
    ),
    (
        "a DNS name with an empty label",
        "{serviceAccountName: a, dnsNames: [a..svc]}",
        "write a DNS name",
    ),
    (
        "a DNS name with a newline",
        "{serviceAccountName: a, dnsNames: [\"a.svc\\n\"]}",
        "write a DNS name",
    ),
    (
        "a DNS name twice",
        "{serviceAccountName: a, dnsNames: [a.svc, a.svc]}",
        "spec.dnsNames[1]: Duplicate value",
    ),
    (
        "17 DNS names",
        "{serviceAccountName: a, dnsNames: [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q]}",
        "must have at most 16 items",
    ),
    (
        "a duration under 5 minutes",
        "{serviceAccountName: a, certificate: {duration: 4m59s}}",
        "a certificate lives at least 5m: write 5m or more",
    ),
    (
        "a duration without a unit",
        "{serviceAccountName: a, certificate: {duration: '3600'}}",
        "write a duration in whole hours, minutes and seconds, such as 1h, 90m or 1h30m",
    ),
    (
        "a duration in days",
        "{serviceAccountName: a, certificate: {duration: 1d}}",
        "write a duration in whole hours",
    ),
    (
        "a duration of fractions",
        "{serviceAccountName: a, certificate: {duration: 1.5h}}",
        "write a duration in whole hours",
    ),
    (
        "a negative duration",
        "{serviceAccountName: a, certificate: {duration: -1h}}",
        "write a duration in whole hours",
    ),
    (
        "a duration with a newline",
        "{serviceAccountName: a, certificate: {duration: \"1h\\n\"}}",
        "write a duration in whole hours",
    ),
    (
        "renewBefore as long as duration",
        "{serviceAccountName: a, certificate: {duration: 30m, renewBefore: 30m}}",
        "renewBefore must be shorter than duration (which is 1h where it is not given)",
    ),
    (
        "renewBefore longer than the duration that is not given",
        "{serviceAccountName: a, certificate: {renewBefore: 61m}}",
        "renewBefore must be shorter than duration",
    ),
    (
        "renewBefore under 30 seconds",
        "{serviceAccountName: a, certificate: {renewBefore: 29s}}",
        "renewBefore must leave time to renew: write 30s or more",
    ),
    (
        "a key algorithm nobody knows",
        "{serviceAccountName: a, certificate: {keyAlgorithm: DSA}}",
        "supported values: \"ECDSA-P256\"",
    ),
    (
        "a Secret of no Kubernetes name",
        "{serviceAccountName: a, delivery: {secretName: My_Secret}}",
        "write the name of a Secret: lower-case letters, digits, '-' and '.'",
    ),
    (
        "a delivery that does not work yet",
        "{serviceAccountName: a, delivery: {mode: PodCertificate}}",
        "supported values: \"Secret\"",
    ),
    (
        "a format twice",
        "{serviceAccountName: a, delivery: {formats: [PKCS12, PKCS12]}}",
        "spec.delivery.formats[1]: Duplicate value",
    ),
    (
        "a format nobody knows",
        "{serviceAccountName: a, delivery: {formats: [JKS]}}",
        "supported values: \"CombinedPEM\"",
    ),
    (
        "a deletion policy nobody knows",
        "{serviceAccountName: a, delivery: {deletionPolicy: Keep}}",
        "supported values: \"Delete\"",
    ),
    (
        "a template with a label of ours",
        "{serviceAccountName: a, delivery: {secretTemplate: {labels: {countersign.dev/identity: b}}}}",
        "keys under countersign.dev/ are written by the operator alone; choose a prefix of your own",
    ),
    (
        "a template with an annotation of ours",
        "{serviceAccountName: a, delivery: {secretTemplate: {annotations: {countersign.dev/serial: '1'}}}}",
        "keys under countersign.dev/ are written by the operator alone",
    ),
    (
        "a template with a label value that is none",
        "{serviceAccountName: a, delivery: {secretTemplate: {labels: {team: 'a b'}}}}",
        "a label's value is at most 63 letters, digits, '-', '_' and '.'",
    ),
    (
        "a template with a label key that is none",
        "{serviceAccountName: a, delivery: {secretTemplate: {labels: {'a key': b}}}}",
        "a key is a name of at most 63 letters, digits, '-', '_' and '.'",
    ),
    (
        "a template with an annotation key that is none",
        "{serviceAccountName: a, delivery: {secretTemplate: {annotations: {'/note': b}}}}",
        "a key is a name of at most 63 letters, digits, '-', '_' and '.'",
    ),
    (
        "a selector with In and no value",
        "{serviceAccountName: a, podSelector: {matchExpressions: [{key: app, operator: In}]}}",
        "In and NotIn take at least one value; Exists and DoesNotExist take none",
    ),
    (
        "a selector with Exists and a value",
        "{serviceAccountName: a, podSelector: {matchExpressions: [{key: app, operator: Exists, values: [b]}]}}",
        "In and NotIn take at least one value; Exists and DoesNotExist take none",
    ),
    (
        "a selector with an operator nobody knows",
        "{serviceAccountName: a, podSelector: {matchExpressions: [{key: app, operator: Like, values: [b]}]}}",
        "supported values: \"In\"",
    ),
    (
        "a selector by a label of ours",
        "{serviceAccountName: a, podSelector: {matchLabels: {countersign.dev/identity: b}}}",
        "labels under countersign.dev/ follow from identities; select by labels of your own",
    ),
    (
        "a selector by the absence of a label of ours",
        "{serviceAccountName: a, podSelector: {matchExpressions: [{key: countersign.dev/state, operator: DoesNotExist}]}}",
        "labels under countersign.dev/ follow from identities; select by labels of your own",
    ),
];

/// Each is within the rules.
pub const ACCEPTED: &[(&str, &str)] = &[
    ("the shortest one", "{serviceAccountName: planner}"),
    ("a ServiceAccount with dots", "{serviceAccountName: planner.v2}"),
    ("a role of one letter", "{serviceAccountName: a, role: T}"),
    (
        "everything at once",
        "serviceAccountName: planner
podSelector: {matchLabels: {app: planner}, matchExpressions: [{key: tier, operator: In, values: [a, b]}, {key: canary, operator: DoesNotExist}]}
trustDomain: prod
role: planner
dnsNames: [planner.research.svc, planner.research.svc.cluster.local]
certificate: {duration: 1h30m, renewBefore: 20m, keyAlgorithm: RSA-4096}
delivery:
  mode: Secret
  secretName: planner.tls
  secretTemplate: {labels: {team: research, example.com/tier: ''}, annotations: {example.com/note: 'any text: really'}}
  formats: [CombinedPEM, PKCS12, EnvoySDS]
  deletionPolicy: Orphan",
    ),
    ("the shortest life", "{serviceAccountName: a, certificate: {duration: 5m, renewBefore: 30s}}"),
    ("renewBefore one second under duration", "{serviceAccountName: a, certificate: {duration: 5m, renewBefore: 4m59s}}"),
    ("renewBefore one second under the duration that is not given", "{serviceAccountName: a, certificate: {renewBefore: 59m59s}}"),
    ("a duration in seconds", "{serviceAccountName: a, certificate: {duration: 300s}}"),
];
