//! The admission policies as they are shipped, and as a first rollout would have them.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::install::{api_of, apply, shipped};
use crate::users::OPERATOR_NAMESPACE;
use crate::wait::{seconds, wait_for};

/// What becomes of a request that a policy is against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policies {
    /// It is refused, as the chart has it by default.
    Deny,
    /// It is written into the audit log: what the chart's `policies.actions: [Audit]` gives. For
    /// tests of what the operator does about things that `Deny` would not let happen.
    Audit,
}

/// Creates the policies of `manifests/install.yaml`, and waits until the API server asks them.
pub async fn install(client: &Client, policies: Policies) {
    let objects = shipped(|kind| kind.contains("AdmissionPolicy"));
    assert!(objects.len() > 10, "manifests/install.yaml has policies and their bindings");
    for mut object in objects {
        if policies == Policies::Audit {
            soften(&mut object);
        }
        apply(client, &object).await;
    }
    if policies == Policies::Deny {
        are_asked(client).await;
    }
}

/// Does what the chart does with `policies.actions: [Audit]`.
fn soften(binding: &mut Value) {
    let spec = &mut binding["spec"];
    if spec["validationActions"] == json!(["Deny"]) {
        spec["validationActions"] = json!(["Audit"]);
        if let Some(param) = spec.get_mut("paramRef") {
            param["parameterNotFoundAction"] = json!("Allow");
        }
    }
}

/// Takes the policies' bindings away: nothing is asked any more.
pub async fn remove_bindings(client: &Client) {
    for object in shipped(|kind| kind.ends_with("AdmissionPolicyBinding")) {
        let name = object["metadata"]["name"].as_str().expect("an object of ours has a name");
        let deleted = api_of(client, &object).delete(name, &DeleteParams::default()).await;
        deleted.unwrap_or_else(|error| panic!("cannot delete {name}: {error}"));
    }
}

/// The API server looks for new policies once a second.
async fn are_asked(client: &Client) {
    let maps = Api::<ConfigMap>::namespaced(client.clone(), OPERATOR_NAMESPACE);
    let forged = serde_json::from_value(json!({
        "metadata": {"name": "forged", "labels": {"countersign.dev/trust-domain": "forged"}},
    }))
    .expect("it is a ConfigMap");
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    wait_for("the policies refuse what they should", seconds(60), async || {
        match maps.create(&dry_run, &forged).await {
            Err(kube::Error::Api(refusal)) if refusal.message.contains("Countersign alone") => {
                Ok(())
            }
            other => Err(format!("{:?}", other.map(|_| "it was taken"))),
        }
    })
    .await;
}
