//! One row for each rule of the door.

use serde_json::{Value, json};

use super::*;

fn resource(spec: Value) -> AgentAccessPolicy {
    serde_json::from_value(json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "AgentAccessPolicy",
        "metadata": {"name": "tools", "namespace": "research", "uid": "u-1"},
        "spec": spec,
    }))
    .unwrap()
}

fn spec(change: Value) -> Value {
    let mut spec = json!({"target": {"role": "tool"}, "from": {"roles": ["planner"]}});
    for (key, value) in change.as_object().unwrap() {
        spec[key] = value.clone();
    }
    spec
}

#[test]
fn each_rule_has_its_own_refusal() {
    let refusal = |change| AccessPolicy::parse(&resource(spec(change))).unwrap_err().to_string();
    for (change, part) in [
        (json!({"target": {}}), "exactly one of identity, role and podSelector"),
        (json!({"target": {"role": "a", "identity": "b"}}), "exactly one of"),
        (json!({"target": {"podSelector": {}}}), "every pod of the namespace"),
        (json!({"target": {"podSelector": {"matchLabels": {}}}}), "every pod of the namespace"),
        (json!({"target": {"role": "tool", "ports": [0]}}), "from 1 to 65535"),
        (json!({"target": {"role": "*"}}), "spec.target.role has \"*\""),
        (json!({"target": {"identity": "a/b"}}), "spec.target.identity has \"a/b\""),
        (json!({"from": {}}), "names nobody"),
        (json!({"from": {"identities": [{"name": "Planner"}]}}), "spec.from.identities has"),
        (json!({"from": {"identities": [{"name": "a", "namespace": "b/../c"}]}}), "b/../c"),
        (json!({"from": {"roles": [".*"]}}), "spec.from.roles has \".*\""),
        (json!({"from": {"namespaces": ["*"]}}), "spec.from.namespaces has \"*\""),
        (json!({"from": {"spiffeIds": ["planner"]}}), "write spiffe://"),
        (json!({"from": {"spiffeIds": ["spiffe://x"]}}), "write spiffe://"),
        (json!({"from": {"spiffeIds": ["spiffe://x/*"]}}), "not the path of a SPIFFE ID"),
        (json!({"from": {"spiffeIds": ["spiffe://x/a/../b"]}}), "not the path of a SPIFFE ID"),
        (json!({"from": {"spiffeIds": ["spiffe://X/a"]}}), "not a trust domain"),
        (json!({"tools": ["search"]}), "write spec.target.ports"),
        (json!({"http": [{"methods": ["GET"]}]}), "write spec.target.ports"),
        (json!({"http": [{}]}), "without methods and paths"),
        (json!({"http": [{"methods": ["get"]}]}), "in capitals"),
        (json!({"http": [{"paths": ["search"]}]}), "the path \"search\""),
        (json!({"http": [{"paths": ["/a*"]}]}), "the path \"/a*\""),
        (json!({"http": [{"paths": ["/*/a"]}]}), "the path \"/*/a\""),
        (json!({"http": [{"paths": ["/a/../b"]}]}), "the path \"/a/../b\""),
        (json!({"http": [{"paths": ["/a//b"]}]}), "the path \"/a//b\""),
        (json!({"http": [{"paths": ["/a%2fb"]}]}), "the path \"/a%2fb\""),
        (json!({"http": [{"paths": ["/(a|b)"]}]}), "the path \"/(a|b)\""),
        (json!({"tools": [".*$"]}), "spec.tools has \".*$\""),
    ] {
        let said = refusal(change);
        assert!(said.contains(part), "{part:?} is not in {said:?}");
    }
}

#[test]
fn a_role_means_this_namespace_unless_namespaces_are_given() {
    let from = |value| AccessPolicy::parse(&resource(spec(json!({"from": value})))).unwrap().from;
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(
        from(json!({"roles": ["planner"]})).roles,
        BTreeSet::from([pair("research", "planner")])
    );
    let elsewhere = from(json!({"roles": ["planner"], "namespaces": ["lab"]}));
    assert_eq!(elsewhere.roles, BTreeSet::from([pair("lab", "planner")]));
    assert!(elsewhere.namespaces.is_empty());
    let all = from(json!({"namespaces": ["lab"]}));
    assert_eq!(all.namespaces, BTreeSet::from(["lab".to_owned()]));
    assert_eq!(
        from(json!({"identities": [{"name": "a"}, {"name": "b", "namespace": "lab"}]})).identities,
        BTreeSet::from([pair("research", "a"), pair("lab", "b")])
    );
}

#[test]
fn what_is_below_a_path_is_told_by_segments() {
    let below = Path::parse("/v1.0/search/*").unwrap();
    let exact = Path::parse("/v1.0/search").unwrap();
    for (path, is_below, is_exact) in [
        ("/v1.0/search", false, true),
        ("/v1.0/search/", true, false),
        ("/v1.0/search/a", true, false),
        ("/v1.0/search/a/b.json", true, false),
        ("/v1.0/search/a/", true, false),
        ("/v1x0/search/a", false, false),
        ("/v1.0/searching", false, false),
        ("/v1.0/search/../admin", false, false),
        ("/v1.0/search/a/../../admin", false, false),
        ("/v1.0/search//a", false, false),
        ("/v1.0/search/%2e%2e/admin", false, false),
        ("/v1.0/search/..", false, false),
        ("/admin?x=/v1.0/search/", false, false),
    ] {
        assert_eq!(below.matches(path), is_below, "{path} below");
        assert_eq!(exact.matches(path), is_exact, "{path} exactly");
    }
    assert_eq!(Path::parse("/*").unwrap(), Path::Below("/".to_owned()));
    assert_eq!(Path::parse("/").unwrap(), Path::Exact("/".to_owned()));
    assert_eq!(exact.regex(), "/v1[.]0/search");
}
