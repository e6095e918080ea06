//! What the CRDs refuse at `kubectl apply`, and the sentence that says what to write instead.
//!
//! Every rule of `src/api` has a row among those refused; what is just within it has one among
//! those accepted. Only the API server runs: nothing here is the operator's word.

mod access_policy;
mod agent_identity;
mod trust_domain;

use countersign_e2e::ApiServer;
use countersign_e2e::install::api_of;
use kube::Client;
use kube::api::{DynamicObject, PostParams};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

/// What is tried, the spec of an otherwise good object as YAML, a piece of the refusal.
type Row = (&'static str, &'static str, &'static str);

#[tokio::test]
async fn a_wrong_agent_identity_is_refused_with_what_to_write_instead() {
    refused("AgentIdentity", agent_identity::REFUSED).await;
}

#[tokio::test]
async fn a_right_agent_identity_is_accepted() {
    accepted("AgentIdentity", agent_identity::ACCEPTED).await;
}

#[tokio::test]
async fn a_wrong_access_policy_is_refused_with_what_to_write_instead() {
    refused("AgentAccessPolicy", access_policy::REFUSED).await;
}

#[tokio::test]
async fn a_right_access_policy_is_accepted_and_so_are_1000_sources() {
    accepted("AgentAccessPolicy", access_policy::ACCEPTED).await;
    let names: Vec<String> = (0..1000).map(|n| format!("{{name: a-{n}}}")).collect();
    let huge = format!("{{target: {{role: a}}, from: {{identities: [{}]}}}}", names.join(", "));
    accepted("AgentAccessPolicy", &[("1,000 sources", &huge)]).await;
}

#[tokio::test]
async fn a_wrong_trust_domain_is_refused_with_what_to_write_instead() {
    refused("TrustDomain", trust_domain::REFUSED).await;
}

#[tokio::test]
async fn a_right_trust_domain_is_accepted() {
    accepted("TrustDomain", trust_domain::ACCEPTED).await;
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
            "AgentAccessPolicy",
            "{target: {role: a}, from: {roles: [a]}}",
            "an AgentAccessPolicy's name is also a label on what is made of it: write at most 63 characters",
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
async fn an_access_policy_is_not_called_as_what_closes_revoked_pods() {
    let client = server().await.client().await;
    let object = named(
        "AgentAccessPolicy",
        "countersign-revoked",
        "{target: {role: a}, from: {roles: [a]}}",
    );
    let refusal = tried(&client, &object).await.unwrap_err();
    assert!(refusal.contains("close revoked pods: write another"), "{refusal}");
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
    if kind != "TrustDomain" {
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
