//! One row for each rule of the door, and a storm of odd resources.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::api::TrustDomain;

fn resource(spec: Value) -> AgentIdentity {
    serde_json::from_value(json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "AgentIdentity",
        "metadata": {
            "name": "planner", "namespace": "research", "uid": "u-1", "generation": 3,
            "creationTimestamp": "2026-11-24T10:00:00Z",
        },
        "spec": spec,
    }))
    .unwrap()
}

fn domain(identities: Value) -> Domain {
    let resource: TrustDomain = serde_json::from_value(json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "TrustDomain",
        "metadata": {"name": "prod", "uid": "t-1", "creationTimestamp": "2026-11-24T09:00:00Z"},
        "spec": {"domain": "prod.example.com", "authority": {"selfSigned": {}}, "identities": identities},
    }))
    .unwrap();
    Domain::parse(&resource).unwrap()
}

#[test]
fn a_service_account_is_all_that_an_identity_must_say() {
    let identity = Identity::parse(&resource(json!({"serviceAccountName": "planner"}))).unwrap();
    assert_eq!(identity.life, DEFAULT_LIFE);
    assert_eq!(identity.secret_name, "planner-identity");
    assert_eq!(identity.algorithm, KeyAlgorithm::EcdsaP256);
    assert_eq!(identity.trust_domain, None);
    assert!(identity.selector.matches(&BTreeMap::new()));
}

#[test]
fn each_rule_of_the_spec_has_its_own_refusal() {
    let refusal = |mut spec: Value| {
        spec.as_object_mut().unwrap().entry("serviceAccountName").or_insert(json!("planner"));
        Identity::parse(&resource(spec)).unwrap_err().to_string()
    };
    for (spec, part) in [
        (json!({"certificate": {"duration": "soon"}}), "spec.certificate.duration: \"soon\""),
        (json!({"certificate": {"duration": "4m59s"}}), "write 5m or more"),
        (json!({"certificate": {"renewBefore": "1h"}}), "spec.certificate.renewBefore is 1h"),
        (json!({"serviceAccountName": "Planner"}), "spec.serviceAccountName is \"Planner\""),
        (json!({"role": "a role"}), "spec.role is \"a role\""),
        (json!({"dnsNames": ["*.a.svc"]}), "spec.dnsNames has \"*.a.svc\""),
        (json!({"dnsNames": ["a.svc."]}), "spec.dnsNames has \"a.svc.\""),
        (json!({"delivery": {"secretName": "a_b"}}), "spec.delivery.secretName is \"a_b\""),
        (json!({"delivery": {"formats": ["PKCS12", "PKCS12"]}}), "write each once"),
        (
            json!({"delivery": {"secretTemplate": {"labels": {"countersign.dev/x": "y"}}}}),
            "keys under countersign.dev/",
        ),
        (
            json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "Like", "values": ["b"]}]}}),
            "spec.podSelector",
        ),
        (
            json!({"podSelector": {"matchLabels": {"countersign.dev/role": "planner"}}}),
            "spec.podSelector asks for \"countersign.dev/role\"",
        ),
        (
            json!({"podSelector": {"matchExpressions": [{"key": "countersign.dev/state", "operator": "Exists"}]}}),
            "select by labels of your own",
        ),
    ] {
        let said = refusal(spec.clone());
        assert!(said.contains(part), "{spec}: {said}");
    }
    let mut long = resource(json!({"serviceAccountName": "planner"}));
    long.metadata.name = Some("a".repeat(64));
    assert_eq!(Identity::parse(&long), Err(IdentityError::NameTooLong(64)));
}

#[test]
fn a_trust_domain_admits_what_its_rules_allow_and_says_which_rule_forbids() {
    let labels = BTreeMap::from([("team".to_owned(), "a".to_owned())]);
    let admit = |rules: Value, mut spec: Value| {
        spec.as_object_mut().unwrap().insert("serviceAccountName".into(), json!("planner"));
        let identity = Identity::parse(&resource(spec)).unwrap();
        domain(rules)
            .admit(&identity, &labels, "cluster.local")
            .map(|id| id.to_string())
            .map_err(|refusal| refusal.to_string())
    };
    assert_eq!(
        admit(json!({}), json!({})).unwrap(),
        "spiffe://prod.example.com/ns/research/sa/planner"
    );
    assert_eq!(
        admit(json!({"pathTemplate": "/{namespace}/{name}/{role}"}), json!({"role": "r"})).unwrap(),
        "spiffe://prod.example.com/research/planner/r"
    );
    assert!(
        admit(json!({"allowedDnsSuffixes": ["x.com"]}), json!({"dnsNames": ["a.x.com"]})).is_ok()
    );
    for (rules, spec, part) in [
        (
            json!({"namespaceSelector": {"matchLabels": {"team": "b"}}}),
            json!({}),
            "does not serve namespace research",
        ),
        (json!({"maxDuration": "30m"}), json!({}), "allows at most 30m"),
        (json!({"minDuration": "2h"}), json!({}), "asks for at least 2h"),
        (json!({"allowedKeyAlgorithms": ["Ed25519"]}), json!({}), "allowedKeyAlgorithms"),
        (json!({}), json!({"dnsNames": ["bank.example.com"]}), "has \"bank.example.com\""),
        (json!({"pathTemplate": "/{namespace}/{name}/{role}"}), json!({}), "spec.role"),
    ] {
        let said = admit(rules, spec).unwrap_err();
        assert!(said.contains(part), "{said}");
    }
}

proptest! {
    #[test]
    fn no_resource_is_too_odd(
        account in ".{0,80}", role in proptest::option::of(".{0,80}"), names in prop::collection::vec(".{0,40}", 0..4),
        life in proptest::option::of(".{0,10}"), renew in proptest::option::of("[0-9]{0,3}[hms]?"),
        key in ".{0,40}",
    ) {
        let resource = resource(json!({
            "serviceAccountName": account, "role": role, "dnsNames": names,
            "certificate": {"duration": life, "renewBefore": renew},
            "podSelector": {"matchLabels": {key.clone(): "x"}},
            "delivery": {"secretTemplate": {"labels": {key: "x"}}},
        }));
        if let Ok(identity) = Identity::parse(&resource) {
            prop_assert!(identity.life >= MINIMUM_LIFE);
            prop_assert!(identity.renew_before.is_none_or(|renew| renew < identity.life));
            prop_assert!(identity.dns_names.iter().all(|name| is_dns_name(name)));
            // What the door lets in makes a SPIFFE ID or a clear refusal, never a panic.
            let _ = domain(json!({})).admit(&identity, &BTreeMap::new(), "cluster.local");
        }
    }
}
