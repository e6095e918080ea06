//! A revoked identity under policies: it calls nobody and is called by nobody, in what is written for each enforcer and in
//! what `can` says; the others call each other as before, and all of it comes back.

use countersign_e2e::{Namespace, User, World, seconds, wait_for, workspace};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::{Value, json};

use super::{crew, policy, ready};

#[tokio::test]
async fn a_revoked_identity_is_no_source_and_no_target_until_it_is_given_back() {
    let ns = World::shared().await.namespace("cut").await;
    crew(&ns).await;
    ns.rostered(3).await;
    let spec = json!({
        "target": {"role": "tool", "ports": [8443]}, "enforcers": ["NetworkPolicy", "Envoy"],
        "from": {"roles": ["planner"], "identities": [{"name": "executor"}]},
    });
    policy(&ns, "tools", spec).await;
    assert_eq!(callers(&ready(&ns, "tools", "True", "Compiled").await), Some(2));
    let planner = format!("spiffe://test.countersign.dev/ns/{}/sa/planner", ns.name);
    let executor = planner.replace("planner", "executor");
    let open = enforced(&ns).await;
    assert!(open.names("planner") && open.names("executor"), "{open:#?}");
    assert!(open.envoy.contains(&planner) && open.envoy.contains(&executor), "{open:#?}");
    can(&ns, "planner", Ok("yes: policy tools")).await;
    // What closes revoked pods is there before anybody is revoked, and so needs no write then.
    let closing = ns.api::<NetworkPolicy>().get("countersign-revoked").await.unwrap();
    let closed = json!({
        "podSelector": {"matchLabels": {"countersign.dev/state": "revoked"}}, "policyTypes": ["Ingress"],
    });
    assert_eq!(json!(closing.spec), closed);

    // A caller.
    let revoked = json!({"spec": {"revoked": {"reason": "KeyCompromise"}}});
    let back = json!({"spec": {"revoked": null}});
    ns.change_identity("planner", revoked.clone()).await;
    let narrower = until(&ns, "the planner is in nothing", |seen| !seen.says("planner")).await;
    assert!(narrower.names("executor") && narrower.envoy.contains(&executor), "{narrower:#?}");
    can(&ns, "planner", Err("is revoked")).await;
    can(&ns, "executor", Ok("yes: policy tools")).await;
    ns.change_identity("planner", back.clone()).await;
    until(&ns, "the planner is let in again", |seen| *seen == open).await;

    // A target.
    ns.ready("planner").await;
    ns.change_identity("search", revoked).await;
    let shut =
        until(&ns, "the Envoy lets nobody in", |seen| !seen.envoy.contains("spiffe://")).await;
    assert_eq!(shut.network, open.network, "its pods are told by their label");
    let condition =
        json!([{"key": "countersign.dev/state", "operator": "NotIn", "values": ["revoked"]}]);
    assert_eq!(shut.network["podSelector"]["matchExpressions"], condition);
    for from in ["planner", "executor"] {
        can(&ns, from, Err("is revoked")).await;
    }
    ns.change_identity("search", back).await;
    until(&ns, "all is as before", |seen| *seen == open).await;
    ns.ready("search").await;
    can(&ns, "planner", Ok("yes: policy tools")).await;
}

/// What is written for the two enforcers.
#[derive(Debug, PartialEq)]
struct Enforced {
    network: Value,
    envoy: String,
}

impl Enforced {
    /// True if and only if the NetworkPolicy lets in a caller of this name or role.
    fn names(&self, name: &str) -> bool {
        self.network["ingress"].to_string().contains(&format!("\"{name}\""))
    }

    fn says(&self, name: &str) -> bool {
        self.names(name) || self.envoy.contains(&format!("/{name}"))
    }
}

async fn enforced(ns: &Namespace) -> Enforced {
    let network = ns.api::<NetworkPolicy>().get("tools").await.unwrap();
    let envoy = ns.api::<ConfigMap>().get("countersign-access-search").await.unwrap();
    let envoy = envoy.data.unwrap().remove("envoy-access.json").unwrap();
    Enforced { network: json!(network.spec), envoy }
}

async fn until(ns: &Namespace, what: &str, is_so: impl Fn(&Enforced) -> bool) -> Enforced {
    wait_for(what, seconds(30), async || {
        let seen = enforced(ns).await;
        if is_so(&seen) { Ok(seen) } else { Err(format!("{seen:#?}")) }
    })
    .await
}

fn callers(policy: &countersign::api::AgentAccessPolicy) -> Option<i64> {
    serde_json::to_value(policy.status.as_ref()?).ok()?["callers"].as_i64()
}

/// What the program says of a call of search: yes, or no and a piece of why.
async fn can(ns: &Namespace, from: &str, expected: Result<&str, &str>) {
    let kubeconfig = ns.server.kubeconfig(User::Admin);
    let output = tokio::process::Command::new(workspace::built("countersign"))
        .args(["can", &format!("{}/{from}", ns.name), &format!("{}/search", ns.name)])
        .args(["--port", "8443", "--kubeconfig"])
        .arg(kubeconfig)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let (code, piece) = match expected {
        Ok(piece) => (0, piece),
        Err(piece) => (2, piece),
    };
    assert!(output.status.code() == Some(code) && said.contains(piece), "{from}: {output:?}");
}
