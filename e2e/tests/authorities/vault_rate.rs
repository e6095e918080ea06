//! How fast certificates are signed with Vault. Measured by hand, on a machine that does nothing
//! else: `cargo test --workspace --test authorities -- --ignored --nocapture vault_rate`.

use std::time::Instant;

use countersign::api::AgentIdentity;
use countersign_e2e::{World, seconds, wait_for};
use kube::api::{ListParams, PostParams};
use serde_json::json;

use super::ready;
use super::vault::{POLICY, authority, shared};
use super::vault_leaf::trust_domain;

const IDENTITIES: usize = 500;

#[tokio::test]
#[ignore = "a measurement"]
async fn five_hundred_identities_in_each_mode() {
    let world = World::shared().await;
    let vault = shared().await;
    for name in ["rate-intermediate", "rate-leaf"] {
        let ns = world.namespace(name).await;
        if name == "rate-leaf" {
            trust_domain(vault, &ns, name).await;
        } else {
            vault.pki(name).await;
            let authority = authority(vault, &ns, name, POLICY).await;
            ns.trust_domain(name, super::spec(&ns, name, json!({"vault": authority}))).await;
        }
        ready(&ns.client, name, "True", "Active").await;
        let began = Instant::now();
        let create = (0..IDENTITIES).map(|number| {
            let ns = &ns;
            async move {
                let identity: AgentIdentity = serde_json::from_value(json!({
                    "apiVersion": "countersign.dev/v1alpha1", "kind": "AgentIdentity",
                    "metadata": {"name": format!("agent-{number}"), "namespace": ns.name},
                    "spec": {"serviceAccountName": format!("agent-{number}"), "trustDomain": name},
                }))
                .expect("it is an identity");
                ns.api().create(&PostParams::default(), &identity).await.expect("it is created");
            }
        });
        futures::future::join_all(create).await;
        let created = began.elapsed();
        wait_for("all are Ready", seconds(300), async || {
            let api = ns.api::<AgentIdentity>();
            let all = api.list(&ListParams::default()).await.map_err(|error| error.to_string())?;
            let status = |identity: &AgentIdentity| identity.status.clone().unwrap_or_default();
            let done = all.items.iter().filter(|one| status(one).certificate.is_some()).count();
            if done == IDENTITIES { Ok(()) } else { Err(format!("{done}")) }
        })
        .await;
        let took = began.elapsed();
        println!(
            "{name}: created in {created:?}, all Ready after {took:?}: {:.0} a second",
            IDENTITIES as f64 / took.as_secs_f64()
        );
    }
}
