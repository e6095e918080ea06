//! How fast identities become Ready where OpenBao signs: the issuing CA alone, or every leaf.

use countersign::api::TrustDomain;
use countersign_e2e::vault::{INTERMEDIATE_POLICY, Vault};
use countersign_e2e::{Namespace, World, seconds, wait_for};
use serde_json::{Value, json};

use crate::load::applied_at_once;
use crate::report::Report;

/// Enough for some seconds in either mode.
const IDENTITIES: u32 = 500;

/// Measures both modes with one OpenBao, one after the other.
pub async fn measure() -> Report {
    let mut report = Report::default();
    let world = World::start().await;
    let vault = Vault::start().await;
    for name in ["rate-intermediate", "rate-leaf"] {
        eprintln!("bench: {IDENTITIES} AgentIdentities of {name}");
        let room = Namespace::create(&world.server, name).await;
        let authority = if name == "rate-leaf" {
            vault.leaf_authority(&room, name).await
        } else {
            vault.pki(name).await;
            vault.authority(&room, name, INTERMEDIATE_POLICY).await
        };
        signs(&room, name, authority).await;
        let spec = json!({"trustDomain": name});
        let took = applied_at_once(&room, IDENTITIES, &spec).await;
        report.note(name, f64::from(IDENTITIES) / took.as_secs_f64(), "identities/s");
    }
    report
}

/// A TrustDomain of this authority, as soon as it is Ready.
async fn signs(room: &Namespace, name: &str, authority: Value) {
    let spec = json!({
        "domain": format!("{name}.test"),
        "authority": {"vault": authority},
        "bundle": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": room.name}}},
    });
    room.trust_domain(name, spec).await;
    let trust_domains: kube::Api<TrustDomain> = kube::Api::all(room.client.clone());
    wait_for("its authority signs", seconds(60), async || {
        let found = trust_domains.get(name).await.map_err(|error| error.to_string())?;
        let conditions = found.status.unwrap_or_default().conditions;
        let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
        match ready.is_some_and(|ready| ready.status == "True") {
            true => Ok(()),
            false => Err(format!("{ready:?}")),
        }
    })
    .await;
}
