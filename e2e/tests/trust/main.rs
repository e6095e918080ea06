//! What a trust domain leaves in the cluster besides ConfigMaps and Secrets, and what becomes of it
//! when the TrustDomain goes.

mod cluster_bundle;
mod deletion;

use countersign::api::TrustDomain;
use countersign_e2e::{Namespace, seconds, wait_for};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

/// A self-signed TrustDomain `<name>.test` whose bundle goes to the test's namespace alone.
fn spec(ns: &Namespace, name: &str) -> Value {
    json!({
        "domain": format!("{name}.test"),
        "authority": {"selfSigned": {}},
        "bundle": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": ns.name}}},
    })
}

async fn change(client: &Client, name: &str, patch: Value) {
    let api: Api<TrustDomain> = Api::all(client.clone());
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.expect("it is changed");
}

/// Waits until a condition of a TrustDomain says so, and gives its message.
async fn condition(client: &Client, name: &str, kind: &str, status: &str, reason: &str) -> String {
    let api: Api<TrustDomain> = Api::all(client.clone());
    let what = format!("TrustDomain {name}: {kind} is {status} {reason}");
    wait_for(&what, seconds(30), async || {
        let found = api.get(name).await.map_err(|error| error.to_string())?;
        let conditions = found.status.clone().unwrap_or_default().conditions;
        let found = conditions.iter().find(|condition| condition.type_ == kind);
        match found.filter(|found| found.status == status && found.reason == reason) {
            Some(found) => Ok(found.message.clone()),
            None => Err(format!("{conditions:#?}")),
        }
    })
    .await
}
