//! Authorities other than the operator itself, each against the real thing.

mod cert_manager;
mod kills;
mod remote;
mod secret;
mod vault;
mod vault_failures;
mod vault_leaf;
mod vault_rate;

use countersign::api::TrustDomain;
use countersign_e2e::{Chronicle, Namespace, seconds, wait_for};
use jiff::SignedDuration;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

/// Of a soak of this many seconds ...
const SOAK: &str = "3s";
/// ... an agent may use up this much.
const LAG: SignedDuration = SignedDuration::from_secs(1);

const ROOT_ROTATION: [&str; 3] = [
    "root-1 Active, issuing-1 Active",
    "root-1 Active, root-2 Prepared, issuing-1 Active, issuing-2 Prepared",
    "root-1 Retiring, root-2 Active, issuing-1 Retiring, issuing-2 Active",
];

/// A TrustDomain `<name>.test` of this authority whose bundle goes to the test's namespace alone.
fn spec(ns: &Namespace, name: &str, authority: Value) -> Value {
    json!({
        "domain": format!("{name}.test"),
        "authority": authority,
        "ca": {"soak": SOAK},
        "bundle": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": ns.name}}},
    })
}

/// Waits until the TrustDomain's condition Ready says so, and gives its message.
async fn ready(client: &Client, name: &str, status: &str, reason: &str) -> String {
    wait_for(&format!("TrustDomain {name} is {reason}"), seconds(60), async || {
        let domain = get(client, name).await;
        let conditions = domain.status.map(|status| status.conditions).unwrap_or_default();
        let found = conditions.into_iter().find(|condition| condition.type_ == "Ready");
        let found = found.ok_or("there is no condition yet".to_owned())?;
        match (found.status == status, found.reason == reason) {
            (true, true) => Ok(found.message),
            _ => Err(format!("{} {}: {}", found.status, found.reason, found.message)),
        }
    })
    .await
}

/// Waits until the CAs are in these phases, and every agent has a leaf of the one that signs.
async fn settled(chronicle: &Chronicle, phases: &str, agents: usize) {
    chronicle
        .until(phases, seconds(90), |history| {
            let now = history.phases_now();
            if now != phases { Err(now) } else { history.is_settled(agents) }
        })
        .await;
}

async fn get(client: &Client, name: &str) -> TrustDomain {
    Api::all(client.clone()).get(name).await.expect("there is such a TrustDomain")
}

async fn change(client: &Client, name: &str, patch: Value) {
    let api: Api<TrustDomain> = Api::all(client.clone());
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.expect("it is changed");
}
