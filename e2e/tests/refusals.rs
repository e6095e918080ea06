//! What the CRDs refuse at `kubectl apply`, and the sentence that says what to write instead.
//!
//! Every rule of `src/api` has a row; a row for what is just within the rule stands in
//! [`accepted`]. Only the API server runs: nothing here is the operator's word.

use countersign_e2e::ApiServer;
use countersign_e2e::install::api_of;
use kube::Client;
use kube::api::{DynamicObject, PostParams};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

/// What is tried, the spec of an otherwise good object as YAML, a piece of the refusal.
type Row = (&'static str, &'static str, &'static str);

const IDENTITIES_REFUSED: &[Row] = &[
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
];

const IDENTITIES_ACCEPTED: &[(&str, &str)] = &[
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

const TRUST_DOMAINS_REFUSED: &[Row] = &[
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
        "name exactly one authority: write selfSigned: {}",
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

const TRUST_DOMAINS_ACCEPTED: &[(&str, &str)] = &[
    ("the shortest one", "{domain: prod.example.com, authority: {selfSigned: {}}}"),
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
bundle: {namespaceSelector: {}}",
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
        "{domain: d, authority: {selfSigned: {}}, ca: {rootLifetime: 1h, issuingLifetime: 10m}}",
    ),
];

#[tokio::test]
async fn a_wrong_agent_identity_is_refused_with_what_to_write_instead() {
    refused("AgentIdentity", IDENTITIES_REFUSED).await;
}

#[tokio::test]
async fn a_right_agent_identity_is_accepted() {
    accepted("AgentIdentity", IDENTITIES_ACCEPTED).await;
}

#[tokio::test]
async fn a_wrong_trust_domain_is_refused_with_what_to_write_instead() {
    refused("TrustDomain", TRUST_DOMAINS_REFUSED).await;
}

#[tokio::test]
async fn a_right_trust_domain_is_accepted() {
    accepted("TrustDomain", TRUST_DOMAINS_ACCEPTED).await;
}

#[tokio::test]
async fn a_name_that_is_too_long_for_a_label_is_refused() {
    let client = server().await.client().await;
    for (kind, spec, sentence) in [
        (
            "AgentIdentity",
            "{serviceAccountName: a}",
            "an AgentIdentity's name is also a label on its pods: write at most 63 characters",
        ),
        (
            "TrustDomain",
            "{domain: d, authority: {selfSigned: {}}}",
            "a TrustDomain's name is also a label: write at most 63 characters",
        ),
    ] {
        assert_eq!(tried(&client, &named(kind, &"a".repeat(63), spec)).await, Ok(()));
        let refusal = tried(&client, &named(kind, &"a".repeat(64), spec)).await.unwrap_err();
        assert!(refusal.contains(sentence), "{kind}: {refusal}");
    }
}

#[tokio::test]
async fn a_trust_domain_cannot_be_renamed() {
    let client = server().await.client().await;
    let mut object = named(
        "TrustDomain",
        "immutable",
        "{domain: before.example.com, authority: {selfSigned: {}}}",
    );
    let api = api_of(&client, &object);
    let created = api.create(&PostParams::default(), &typed(&object)).await.unwrap();

    object["metadata"]["resourceVersion"] = json!(created.metadata.resource_version);
    object["spec"]["default"] = json!(true);
    let replaced = api.replace("immutable", &PostParams::default(), &typed(&object)).await.unwrap();

    object["metadata"]["resourceVersion"] = json!(replaced.metadata.resource_version);
    object["spec"]["domain"] = json!("after.example.com");
    let refusal = api
        .replace("immutable", &PostParams::default(), &typed(&object))
        .await
        .unwrap_err()
        .to_string();
    let sentence = "a trust domain's domain cannot be changed: create another TrustDomain and move identities to it";
    assert!(refusal.contains(sentence), "{refusal}");
    assert_eq!(api.get("immutable").await.unwrap().data["spec"]["domain"], "before.example.com");
}

#[tokio::test]
async fn kubectl_shows_the_resources_by_their_short_names_and_category() {
    let server = server().await;
    for (name, columns) in [
        ("agid", ["NAME", "READY", "SPIFFE ID", "SECRET", "EXPIRES", "RENEWS", "AGE"].as_slice()),
        ("td", ["NAME", "DOMAIN", "DEFAULT", "READY", "IDENTITIES", "ISSUED", "AGE"].as_slice()),
    ] {
        let kind = if name == "td" { "TrustDomain" } else { "AgentIdentity" };
        let spec = if name == "td" {
            "{domain: d, authority: {selfSigned: {}}}"
        } else {
            "{serviceAccountName: a}"
        };
        let object = named(kind, "shown", spec);
        let client = server.client().await;
        let _ = api_of(&client, &object).create(&PostParams::default(), &typed(&object)).await;
        let output = server.kubectl().args(["get", name]).output().unwrap();
        let table = String::from_utf8(output.stdout).unwrap();
        let header: Vec<&str> = table
            .lines()
            .next()
            .unwrap_or_default()
            .split("   ")
            .map(str::trim)
            .filter(|c| !c.is_empty())
            .collect();
        assert_eq!(header, columns, "{table}");
        let all = server.kubectl().args(["get", "countersign"]).output().unwrap();
        let all = String::from_utf8(all.stdout).unwrap();
        assert!(all.contains(&format!("{}.countersign.dev/shown", kind.to_lowercase())), "{all}");
    }
}

async fn refused(kind: &str, rows: &[Row]) {
    let client = server().await.client().await;
    let mut wrong = Vec::new();
    for (what, spec, sentence) in rows {
        match tried(&client, &named(kind, "tried", spec)).await {
            Ok(()) => wrong.push(format!("{what}: accepted")),
            Err(refusal) if refusal.contains(sentence) => {}
            Err(refusal) => wrong
                .push(format!("{what}: refused with\n    {refusal}\n  and not\n    {sentence}")),
        }
    }
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}

async fn accepted(kind: &str, rows: &[(&str, &str)]) {
    let client = server().await.client().await;
    for (what, spec) in rows {
        assert_eq!(tried(&client, &named(kind, "tried", spec)).await, Ok(()), "{what}");
    }
}

/// Creates without storing. The error is the API server's message.
async fn tried(client: &Client, object: &Value) -> Result<(), String> {
    let parameters = PostParams { dry_run: true, ..PostParams::default() };
    match api_of(client, object).create(&parameters, &typed(object)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) => Err(status.message.clone()),
        Err(other) => panic!("no answer: {other}"),
    }
}

fn named(kind: &str, name: &str, spec: &str) -> Value {
    let spec: Value = serde_yaml::from_str(spec).unwrap_or_else(|error| panic!("{spec}: {error}"));
    let mut object = json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec,
    });
    if kind == "AgentIdentity" {
        object["metadata"]["namespace"] = json!("default");
    }
    object
}

fn typed(object: &Value) -> DynamicObject {
    serde_json::from_value(object.clone()).expect("it has a name and a kind")
}

async fn server() -> &'static std::sync::Arc<ApiServer> {
    static SERVER: OnceCell<std::sync::Arc<ApiServer>> = OnceCell::const_new();
    SERVER.get_or_init(ApiServer::start).await
}
