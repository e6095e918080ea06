//! `security.istio.io/v1` AuthorizationPolicy and PeerAuthentication.

use serde_json::{Value, json};

use super::{
    Kind, Output, Sight, Verdict, object_of, object_of_revoked, revoked_labels, sight,
    target_labels, verdict,
};
use crate::api::EnforcerState;
use crate::decide::access::Rule;
use crate::identity::access::{HttpMatch, Path};

const AUTHORIZATION: Kind = Kind {
    group: "security.istio.io",
    version: "v1",
    kind: "AuthorizationPolicy",
    plural: "authorizationpolicies",
    content: "spec",
};
const PEERS: Kind = Kind {
    group: "security.istio.io",
    version: "v1",
    kind: "PeerAuthentication",
    plural: "peerauthentications",
    content: "spec",
};

/// Istio has prefixes and no regular expressions. Its Envoys take `..` out of a path before they compare it, but leave `%2F` as it is, unless
/// told otherwise for the whole mesh.
const PREFIXES: &str = "written; Istio takes what is below a path for a prefix, and leaves it to its MeshConfig what /below/..%2Fbeside is: \
    set pathNormalization.normalization to DECODE_AND_MERGE_SLASHES there";

/// What is written.
pub const KINDS: [Kind; 2] = [AUTHORIZATION, PEERS];

/// One of each a policy, called after it. Without a rule, ALLOW lets nobody in. One more denies calls to revoked pods: DENY wins.
pub fn emit(rules: &[&Rule]) -> Output {
    let mut output = Output::default();
    let mut written = Vec::new();
    for &rule in rules {
        let Some(labels) = target_labels(&rule.policy.target) else {
            let message = "Istio selects pods by matchLabels alone: write the target without matchExpressions";
            let verdict = Verdict::new(EnforcerState::Refused, message);
            output.verdicts.insert(rule.policy.key.clone(), verdict);
            continue;
        };
        written.push(rule);
        let sight = sight(rule, true, "Istio");
        let selector = json!({"matchLabels": labels});
        let mut spec = json!({"selector": selector, "action": "ALLOW"});
        if !matches!(sight, Sight::Blind(_)) && !rule.callers.is_empty() {
            spec["rules"] = json!([allowed(rule)]);
        }
        output.objects.push(object_of(rule, AUTHORIZATION, spec));
        let strict = json!({"selector": selector, "mtls": {"mode": "STRICT"}});
        output.objects.push(object_of(rule, PEERS, strict));
        let mut verdict = verdict(&sight, Vec::new(), "written");
        if matches!(sight, Sight::All) && rule.layer7().http.iter().any(has_prefix) {
            verdict = Verdict::new(EnforcerState::Delegated, PREFIXES);
        }
        output.verdicts.insert(rule.policy.key.clone(), verdict);
    }
    // One rule that says nothing matches everything.
    let selector = json!({"matchLabels": revoked_labels("")});
    let denied = json!({"selector": selector, "action": "DENY", "rules": [{}]});
    output.objects.extend(object_of_revoked(&written, AUTHORIZATION, denied));
    output
}

fn allowed(rule: &Rule) -> Value {
    // Istio writes a principal without its scheme.
    let principals: Vec<&str> =
        rule.callers.keys().map(|id| id.as_str().trim_start_matches("spiffe://")).collect();
    let mut allowed = json!({"from": [{"source": {"principals": principals}}]});
    let ports: Vec<String> = rule.policy.ports.iter().map(u16::to_string).collect();
    let http = &rule.layer7().http;
    if !http.is_empty() {
        let to = |http| json!({"operation": operation(&ports, http)});
        allowed["to"] = http.iter().map(to).collect();
    } else if !ports.is_empty() {
        allowed["to"] = json!([{"operation": {"ports": ports}}]);
    }
    allowed
}

fn has_prefix(http: &HttpMatch) -> bool {
    http.paths.iter().any(|path| matches!(path, Path::Below(_)))
}

fn operation(ports: &[String], http: &HttpMatch) -> Value {
    let mut operation = json!({"ports": ports});
    if !http.methods.is_empty() {
        operation["methods"] = json!(http.methods);
    }
    if !http.paths.is_empty() {
        operation["paths"] = http.paths.iter().map(Path::written).collect();
    }
    operation
}
