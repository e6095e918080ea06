//! AgentAccessPolicies on a real API server: what is written for each enforcer, that it goes with
//! its policy, what is said, and that nothing is written at rest.

mod envoy;
mod istio;
mod judged;
mod published;
mod quarantine;
mod revoked;

use countersign::api::{AgentAccessPolicy, EnforcerState};
use countersign_e2e::{Namespace, User, World, gone, holds_for, seconds, wait_for};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

#[tokio::test]
async fn a_network_policy_is_made_kept_and_goes_with_its_policy() {
    let ns = World::shared().await.namespace("kept").await;
    crew(&ns).await;
    let spec = json!({
        "target": {"role": "tool", "ports": [8443]}, "enforcers": ["NetworkPolicy"],
        "from": {"roles": ["planner"], "identities": [{"name": "executor"}]},
    });
    policy(&ns, "tools", spec).await;
    let status = ready(&ns, "tools", "True", "Compiled").await.status.unwrap();
    assert_eq!((status.callers, status.targets), (Some(2), Some(1)));
    assert_eq!(status.enforcers[0].state, EnforcerState::Applied);
    let made = ns.api::<NetworkPolicy>().get("tools").await.unwrap();
    let active = json!({"countersign.dev/state": "active"});
    let peer = |label: &str, value: &str| {
        json!({"podSelector": {"matchLabels": active, "matchExpressions": [
            {"key": label, "operator": "In", "values": [value]},
        ]}})
    };
    let wanted = json!({
        "podSelector": {"matchLabels": {"countersign.dev/role": "tool"}, "matchExpressions": [
            {"key": "countersign.dev/state", "operator": "NotIn", "values": ["revoked"]},
        ]},
        "policyTypes": ["Ingress"],
        "ingress": [{
            "from": [peer("countersign.dev/identity", "executor"), peer("countersign.dev/role", "planner")],
            "ports": [{"port": 8443, "protocol": "TCP"}],
        }],
    });
    assert_eq!(json!(made.spec), wanted);
    assert_eq!(made.owner_references()[0].kind, "AgentAccessPolicy");

    // Whoever deletes or edits it has it made anew.
    let api = ns.api::<NetworkPolicy>();
    api.delete("tools", &DeleteParams::default()).await.unwrap();
    is_made(&ns, "tools", &wanted).await;
    let open = json!({"metadata": {"labels": {"team": "theirs"}}, "spec": {"ingress": [{}]}});
    api.patch("tools", &PatchParams::default(), &Patch::Merge(open)).await.unwrap();
    is_made(&ns, "tools", &wanted).await;

    // At rest, and when an identity is issued anew, nothing is written for it.
    let before = ns.server.requests_by(User::Operator).len();
    holds_for("nothing is written at rest", seconds(3), async || {
        let writes = ns.server.requests_by(User::Operator).after(before).within(&ns.name).writes();
        // The roster of identities that were just made follows them within a second or two.
        let writes = writes.filter(|request| request.resource != "agentrosters");
        if writes.is_empty() { Ok(()) } else { Err(writes) }
    })
    .await;

    // A caller that goes is let in no more, by a change of this alone.
    ns.identities().delete("executor", &DeleteParams::default()).await.unwrap();
    let mut narrower = wanted.clone();
    narrower["ingress"][0]["from"].as_array_mut().unwrap().remove(0);
    is_made(&ns, "tools", &narrower).await;
    let message = not_found(&ns, "tools").await;
    assert!(
        message.contains(&format!("there is no AgentIdentity {}/executor", ns.name)),
        "{message}"
    );
    ns.event("tools", "Warning", "NamesUnmatched").await;

    ns.api::<AgentAccessPolicy>().delete("tools", &DeleteParams::default()).await.unwrap();
    gone("its NetworkPolicy", seconds(60), async || api.get_opt("tools").await.unwrap()).await;
}

#[tokio::test]
async fn policies_say_what_is_wrong_with_them_and_touch_nothing_of_others() {
    let ns = World::shared().await.namespace("wrong").await;
    let alone = World::shared().await.namespace("wrong-alone").await;
    crew(&ns).await;
    // Somebody else's NetworkPolicy has the name.
    let theirs = json!({"podSelector": {}, "policyTypes": ["Ingress"]});
    ns.put(json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "taken", "labels": {"countersign.dev/access-policy": "taken"}}, "spec": theirs})).await;
    let spec = |change: Value| {
        let mut spec = json!({"target": {"role": "tool", "ports": [80]}, "from": {"roles": ["planner"]}, "enforcers": ["NetworkPolicy"]});
        spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        spec
    };
    for (name, change, reason, piece) in [
        ("taken", json!({}), "EnforcerFailed", "is not ours: rename or delete it"),
        (
            "tooled",
            json!({"tools": ["search"]}),
            "Narrowed",
            "NetworkPolicy cannot see MCP tools, and lets nobody in",
        ),
        (
            "far",
            json!({"from": {"spiffeIds": ["spiffe://partner/a"]}}),
            "Narrowed",
            "spiffe://partner/a left out",
        ),
        (
            "nobody-enforces",
            json!({"enforcers": ["Istio"]}),
            "NoEnforcer",
            "does not serve its API",
        ),
        (
            "by-pods",
            json!({"target": {"podSelector": {"matchLabels": {"app": "x"}}}, "enforcers": ["Envoy"]}),
            "NoEnforcer",
            "made for an identity",
        ),
    ] {
        // An enforcer that acts for one policy gets all for that target: these want to be alone.
        let ns = if reason == "NoEnforcer" { &alone } else { &ns };
        policy(ns, name, spec(change)).await;
        let resource = ready(ns, name, "False", reason).await;
        let message = condition(&resource, "Ready").unwrap().1;
        assert!(message.contains(piece), "{name}: {message}");
        let event = ns.event(name, "Warning", reason).await;
        assert!(event.contains(piece), "{name}: {event}");
    }
    let taken = ns.api::<NetworkPolicy>().get("taken").await.unwrap();
    assert_eq!(json!(taken.spec), theirs, "it is as it was");
    // Nor can somebody touch it who stole the operator's token.
    let thief = ns.server.client_of(User::Operator).await;
    let theirs: kube::Api<NetworkPolicy> = kube::Api::namespaced(thief, &ns.name);
    let refusal = theirs.delete("taken", &DeleteParams::default()).await.unwrap_err().to_string();
    assert!(refusal.contains("writes no network or mesh policy that is not"), "{refusal}");
    // Narrowed is closed, never open.
    let closed = ns.api::<NetworkPolicy>().get("tooled").await.unwrap().spec.unwrap();
    assert_eq!((closed.ingress, closed.policy_types), (None, Some(vec!["Ingress".to_owned()])));
}

/// A planner, an executor and a tool, all of them ready.
async fn crew(ns: &Namespace) {
    for (name, role) in [("planner", "planner"), ("executor", "executor"), ("search", "tool")] {
        ns.identity(name, json!({"role": role})).await;
    }
    for name in ["planner", "executor", "search"] {
        ns.ready(name).await;
    }
}

async fn policy(ns: &Namespace, name: &str, spec: Value) {
    ns.put(json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "AgentAccessPolicy",
        "metadata": {"name": name}, "spec": spec,
    }))
    .await;
}

/// Waits until a policy's Ready condition says so for its present spec.
async fn ready(ns: &Namespace, name: &str, status: &str, reason: &str) -> AgentAccessPolicy {
    wait_for(&format!("policy {name}: Ready is {status}, {reason}"), seconds(40), async || {
        let policy =
            ns.api::<AgentAccessPolicy>().get(name).await.map_err(|error| error.to_string())?;
        let conditions = policy.status.iter().flat_map(|status| &status.conditions);
        let mut ready = conditions.filter(|each| each.type_ == "Ready");
        let holds = ready.any(|each| {
            each.status == status
                && each.reason == reason
                && each.observed_generation == policy.metadata.generation
        });
        if holds { Ok(policy) } else { Err(format!("{:#?}", policy.status)) }
    })
    .await
}

/// The reason and message of a condition.
fn condition(policy: &AgentAccessPolicy, kind: &str) -> Option<(String, String)> {
    let conditions = policy.status.iter().flat_map(|status| &status.conditions);
    let mut found = conditions.filter(|each| each.type_ == kind);
    found.next().map(|each| (each.reason.clone(), each.message.clone()))
}

async fn not_found(ns: &Namespace, name: &str) -> String {
    wait_for(&format!("policy {name} says what it does not find"), seconds(20), async || {
        let policy =
            ns.api::<AgentAccessPolicy>().get(name).await.map_err(|error| error.to_string())?;
        match condition(&policy, "NamesFound") {
            Some((reason, message)) if reason == "NamesUnmatched" => Ok(message),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

async fn is_made(ns: &Namespace, name: &str, wanted: &Value) {
    wait_for(&format!("NetworkPolicy {name} is as it should be"), seconds(20), async || {
        match ns.api::<NetworkPolicy>().get_opt(name).await.map_err(|error| error.to_string())? {
            Some(found) if json!(found.spec) == *wanted => Ok(()),
            found => Err(format!("{:#?}", found.and_then(|found| found.spec))),
        }
    })
    .await;
}
