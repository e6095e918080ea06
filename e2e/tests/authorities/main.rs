//! Authorities other than the operator itself, each against the real thing.

mod cert_manager;
mod kills;
mod remote;
mod secret;
mod vault;
mod vault_failures;
mod vault_leaf;

use std::process::Command;

use countersign::api::TrustDomain;
use countersign_e2e::judges::run;
use countersign_e2e::mount::{files_of, write};
use countersign_e2e::{Chronicle, Namespace, seconds, wait_for, workspace};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Secret;
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

/// Identities of a TrustDomain, planner and tools, each with a leaf of its first CA.
async fn begun(ns: &Namespace, name: &str) -> Chronicle {
    for agent in ["planner", "tools"] {
        ns.identity(agent, json!({"trustDomain": name})).await;
    }
    let chronicle = Chronicle::of(&ns.client, name, &format!("{name}.test")).await;
    settled(&chronicle, ROOT_ROTATION[0], 2).await;
    chronicle
}

/// Waits until another root has taken over, and judges how it came: two old leaves met both bundles,
/// and two new ones the old bundle never.
async fn judge_root_rotation(chronicle: &Chronicle) {
    settled(chronicle, ROOT_ROTATION[2], 2).await;
    let history = chronicle.history();
    assert_eq!(history.phases(), ROOT_ROTATION);
    history.judge_slots();
    let tally = history.judge_trust(LAG);
    assert_eq!((tally.leaves, tally.bundles, tally.pairs), (4, 2, 2 * 2 + 2), "{tally:?}");
}

/// OpenSSL's verdict on the files of an agent, as strict as it has one.
fn judge_with_openssl(name: &str, held: &Secret) {
    let folder = workspace::scratch(name);
    write(&folder, &files_of(held));
    let file = |name: &str| folder.join(name).display().to_string();
    let mut verify = Command::new("openssl");
    verify.args(["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile"]);
    verify.args([&file("ca.crt"), "-untrusted", &file("tls.crt"), &file("tls.crt")]);
    run(&mut verify, "");
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
