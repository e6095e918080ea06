//! Small models of the enforcers, which read objects as the enforcers do.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use crate::api::Enforcer;
use crate::decide::access::Mcp;
use crate::decide::access::emit::Object;

type Labels = BTreeMap<String, String>;

/// A pod that calls, or a caller from far.
#[derive(Clone, Debug)]
pub struct Source {
    pub namespace: String,
    pub account: Option<String>,
    pub labels: Labels,
    /// The SPIFFE ID in its certificate.
    pub id: Option<String>,
}

/// A call.
#[derive(Debug)]
pub struct Call<'a> {
    pub source: &'a Source,
    pub target: (&'a str, &'a Labels),
    pub port: u16,
    pub method: &'a str,
    pub path: &'a str,
    pub mcp: Mcp<'a>,
}

/// Whether an enforcer with these objects lets a call through; None where none of them is about
/// the target.
pub fn lets_through(enforcer: Enforcer, objects: &[Object], call: &Call<'_>) -> Option<bool> {
    let about: Vec<(&Object, bool)> = objects
        .iter()
        .filter(|object| object.namespace == call.target.0)
        .filter_map(|object| {
            let content = &object.content;
            let lets = match (enforcer, object.kind.kind) {
                (Enforcer::NetworkPolicy, _) => network_policy(content, call),
                (Enforcer::Cilium, _) => cilium(content, call),
                (Enforcer::Istio, "AuthorizationPolicy") => istio(content, call),
                (Enforcer::Linkerd, "Server") => linkerd(object, objects, call),
                (Enforcer::Envoy, _) => envoy(object, call),
                _ => None,
            };
            lets.map(|lets| (object, lets))
        })
        .collect();
    (!about.is_empty()).then(|| {
        let denied = about.iter().any(|(object, _)| denies(object));
        !denied && about.iter().any(|(_, lets)| *lets)
    })
}

/// True if and only if it takes back what others allow, from whoever calls.
fn denies(object: &Object) -> bool {
    let content = &object.content;
    content["action"] == "DENY" && content["rules"] == serde_json::json!([{}])
        || content["ingressDeny"] == serde_json::json!([{"fromEntities": ["all"]}])
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A label selector; nothing selects everything.
fn selects(selector: &Value, labels: &Labels, prefix: &str) -> bool {
    let get = |key: &str| labels.get(key.strip_prefix(prefix).expect("each key has its prefix"));
    let equal = selector["matchLabels"]
        .as_object()
        .into_iter()
        .flatten()
        .all(|(key, value)| get(key).map(String::as_str) == value.as_str());
    equal
        && list(&selector["matchExpressions"]).iter().all(|expression| {
            let value = get(expression["key"].as_str().unwrap());
            let is_in =
                value.is_some_and(|value| list(&expression["values"]).iter().any(|v| v == value));
            match expression["operator"].as_str().unwrap() {
                "In" => is_in,
                "NotIn" => !is_in,
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                other => panic!("no operator {other}"),
            }
        })
}

fn network_policy(spec: &Value, call: &Call<'_>) -> Option<bool> {
    selects(&spec["podSelector"], call.target.1, "").then(|| {
        assert_eq!(spec["policyTypes"], serde_json::json!(["Ingress"]));
        list(&spec["ingress"]).iter().any(|rule| {
            let port = rule["ports"].is_null()
                || list(&rule["ports"]).iter().any(|p| p["port"] == call.port);
            // An absent `from` would be everybody.
            assert!(!list(&rule["from"]).is_empty());
            port && list(&rule["from"]).iter().any(|peer| {
                let name = Labels::from([(
                    "kubernetes.io/metadata.name".to_owned(),
                    call.source.namespace.clone(),
                )]);
                let within = match &peer["namespaceSelector"] {
                    Value::Null => call.source.namespace == call.target.0,
                    selector => selects(selector, &name, ""),
                };
                // A caller from far is no pod.
                within
                    && call.source.account.is_some()
                    && selects(&peer["podSelector"], &call.source.labels, "")
            })
        })
    })
}

fn cilium(spec: &Value, call: &Call<'_>) -> Option<bool> {
    selects(&spec["endpointSelector"], call.target.1, "k8s:").then(|| {
        list(&spec["ingress"]).iter().any(|rule| {
            let mut labels = call.source.labels.clone();
            labels.insert("io.kubernetes.pod.namespace".to_owned(), call.source.namespace.clone());
            let from = list(&rule["fromEndpoints"])
                .iter()
                .any(|s| call.source.account.is_some() && selects(s, &labels, "k8s:"));
            let port = rule["toPorts"].is_null()
                || list(&rule["toPorts"]).iter().any(|to| {
                    let port = list(&to["ports"])
                        .iter()
                        .any(|p| p["port"].as_str() == Some(&call.port.to_string()));
                    let http = to["rules"].is_null()
                        || list(&to["rules"]["http"]).iter().any(|http| {
                            let is = |pattern: &Value, text: &str| {
                                pattern.as_str().is_none_or(|pattern| matches_whole(pattern, text))
                            };
                            is(&http["method"], call.method) && is(&http["path"], call.path)
                        });
                    port && http
                });
            from && port
        })
    })
}

fn istio(spec: &Value, call: &Call<'_>) -> Option<bool> {
    selects(&spec["selector"], call.target.1, "").then(|| {
        let is_allow = spec["action"] == "ALLOW";
        assert!(is_allow || spec["action"] == "DENY");
        is_allow
            && list(&spec["rules"]).iter().any(|rule| {
                let principal =
                    call.source.id.as_deref().and_then(|id| id.strip_prefix("spiffe://"));
                let from = list(&rule["from"]).iter().any(|from| {
                    let principals = list(&from["source"]["principals"]);
                    principal.is_some_and(|id| principals.iter().any(|p| istio_matches(p, id)))
                });
                let to = rule["to"].is_null()
                    || list(&rule["to"]).iter().any(|to| {
                        let has = |key: &str, text: &str| {
                            let values = &to["operation"][key];
                            values.is_null()
                                || list(values).iter().any(|value| istio_matches(value, text))
                        };
                        has("ports", &call.port.to_string())
                            && has("methods", call.method)
                            && has("paths", call.path)
                    });
                from && to
            })
    })
}

/// Istio: `*` alone, at the beginning or at the end.
fn istio_matches(pattern: &Value, text: &str) -> bool {
    let pattern = pattern.as_str().unwrap();
    match (pattern.strip_suffix('*'), pattern.strip_prefix('*')) {
        (Some(start), _) => text.starts_with(start),
        (None, Some(end)) => text.ends_with(end),
        (None, None) => text == pattern,
    }
}

fn linkerd(server: &Object, objects: &[Object], call: &Call<'_>) -> Option<bool> {
    let spec = &server.content;
    (selects(&spec["podSelector"], call.target.1, "") && spec["port"] == call.port).then(|| {
        let name = Value::String(server.name.clone());
        let authorizations = objects.iter().filter(|object| {
            object.kind.kind == "AuthorizationPolicy" && object.content["targetRef"]["name"] == name
        });
        authorizations.into_iter().any(|authorization| {
            let required = list(&authorization.content["requiredAuthenticationRefs"]);
            !required.is_empty()
                && required.iter().all(|reference| {
                    objects
                        .iter()
                        .filter(|object| {
                            object.kind.kind == "MeshTLSAuthentication"
                                && reference["name"] == object.name
                        })
                        .any(|authentication| {
                            list(&authentication.content["identityRefs"]).iter().any(|account| {
                                account["kind"] == "ServiceAccount"
                                    && account["namespace"] == call.source.namespace
                                    && call
                                        .source
                                        .account
                                        .as_ref()
                                        .is_some_and(|name| account["name"] == *name)
                            })
                        })
                })
        })
    })
}

fn envoy(object: &Object, call: &Call<'_>) -> Option<bool> {
    let identity = &call.target.1["countersign.dev/identity"];
    (object.name == format!("countersign-access-{identity}")).then(|| {
        let read = |file: &str| -> Value {
            let text = object.content[file].as_str().unwrap();
            let response: Value = serde_json::from_str(text).unwrap();
            response["resources"][0]["typed_config"].clone()
        };
        let reads_mcp = read("envoy-mcp.json")["traffic_mode"] != "NOOP";
        let rules = read("envoy-access.json")["rules"].clone();
        assert_eq!(rules["action"], "ALLOW");
        rules["policies"].as_object().unwrap().values().any(|policy| {
            list(&policy["permissions"])
                .iter()
                .any(|permission| permits(permission, call, reads_mcp))
                && list(&policy["principals"]).iter().any(|principal| {
                    let id = &principal["authenticated"]["principal_name"]["exact"];
                    assert!(id.is_string());
                    call.source.id.as_deref() == id.as_str()
                })
        })
    })
}

fn permits(permission: &Value, call: &Call<'_>, reads_mcp: bool) -> bool {
    let (kind, value) = permission.as_object().unwrap().iter().next().unwrap();
    match kind.as_str() {
        "any" => value == true,
        "or_rules" => list(&value["rules"]).iter().any(|rule| permits(rule, call, reads_mcp)),
        "and_rules" => list(&value["rules"]).iter().all(|rule| permits(rule, call, reads_mcp)),
        "destination_port" => *value == call.port,
        "header" => {
            assert_eq!(value["name"], ":method");
            envoy_matches(&value["string_match"], call.method)
        }
        "url_path" => envoy_matches(&value["path"], call.path),
        "sourced_metadata" => {
            let matcher = &value["metadata_matcher"];
            assert_eq!(matcher["filter"], "envoy.filters.http.mcp");
            let path: Vec<&str> =
                list(&matcher["path"]).iter().map(|k| k["key"].as_str().unwrap()).collect();
            let found = match (path.as_slice(), call.mcp) {
                (["method"], Mcp::Method(method)) => Some(method),
                (["method"], Mcp::Tool(_)) => Some("tools/call"),
                (["params", "name"], Mcp::Tool(tool)) => Some(tool),
                _ => None,
            };
            reads_mcp
                && found
                    .is_some_and(|found| envoy_matches(&matcher["value"]["string_match"], found))
        }
        other => panic!("no permission {other}"),
    }
}

fn envoy_matches(matcher: &Value, text: &str) -> bool {
    let (kind, value) = matcher.as_object().unwrap().iter().next().unwrap();
    match kind.as_str() {
        "exact" => value == text,
        "prefix" => text.starts_with(value.as_str().unwrap()),
        "safe_regex" => matches_whole(value["regex"].as_str().unwrap(), text),
        other => panic!("no matcher {other}"),
    }
}

fn matches_whole(pattern: &str, text: &str) -> bool {
    // The same few patterns come again for every call.
    thread_local! {
        static COMPILED: RefCell<HashMap<String, regex::Regex>> = RefCell::default();
    }
    COMPILED.with_borrow_mut(|compiled| {
        let compile = || regex::Regex::new(&format!("^(?:{pattern})$")).unwrap();
        compiled.entry(pattern.to_owned()).or_insert_with(compile).is_match(text)
    })
}
