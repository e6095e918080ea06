//! The quarantine policies that are shipped, against the definitions that the projects publish: every field of them is
//! known, and what is stored is what was sent.

use std::path::PathBuf;

use countersign_e2e::install::{api_of, documents};
use countersign_e2e::{ApiServer, judges, seconds, wait_for, workspace};
use serde_json::{Value, json};

use super::published::serve;

#[tokio::test]
async fn every_quarantine_flavour_is_taken_as_it_is_by_the_projects_definitions() {
    judges::build();
    let server = ApiServer::start().await;
    let client = server.client().await;
    let wanted = ["security.istio.io", "networking.istio.io", "cilium.io", "policy.linkerd.io"];
    serve(&client, &wanted).await;
    let mut taken = Vec::new();
    for flavour in ["networkpolicy", "istio", "linkerd", "cilium"] {
        let file = workspace::root().join(format!("manifests/quarantine/{flavour}.yaml"));
        let text = std::fs::read_to_string(&file).unwrap();
        // A kind is served a moment after its definition is there.
        wait_for(&format!("{flavour} is taken"), seconds(60), async || create(&server, &file))
            .await;
        for mut sent in documents(&text) {
            if !sent["kind"].as_str().unwrap().starts_with("CiliumClusterwide") {
                sent["metadata"]["namespace"] = json!("default");
            }
            let name = sent["metadata"]["name"].as_str().unwrap();
            let spec = api_of(&client, &sent).get(name).await.unwrap().data["spec"].clone();
            assert!(
                holds(&spec, &sent["spec"]),
                "{flavour}: {} was stored as {spec}",
                sent["spec"]
            );
            taken.push(sent["kind"].as_str().unwrap().to_owned());
        }
        // This can fail: the same with one word wrong is refused.
        let wrong = server.folder().join(format!("{flavour}-wrong.yaml"));
        std::fs::write(&wrong, text.replacen("elector:", "elektor:", 1)).unwrap();
        let refusal = create(&server, &wrong).unwrap_err();
        assert!(refusal.contains("unknown field"), "{flavour}: {refusal}");
    }
    let kinds = [
        "NetworkPolicy",
        "AuthorizationPolicy",
        "Sidecar",
        "Server",
        "CiliumClusterwideNetworkPolicy",
    ];
    assert_eq!(taken, kinds);
}

/// As a user does, but what the API server does not know is refused and not dropped.
fn create(server: &ApiServer, file: &PathBuf) -> Result<(), String> {
    let output = server
        .kubectl()
        .args(["apply", "--namespace", "default", "--validate=strict", "--filename"])
        .arg(file)
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// True if and only if everything that was sent is stored. Defaults may have come to it.
fn holds(stored: &Value, sent: &Value) -> bool {
    match (stored, sent) {
        (Value::Object(stored), Value::Object(sent)) => sent
            .iter()
            .all(|(key, value)| stored.get(key).is_some_and(|stored| holds(stored, value))),
        (Value::Array(stored), Value::Array(sent)) => {
            stored.len() == sent.len()
                && stored.iter().zip(sent).all(|(stored, sent)| holds(stored, sent))
        }
        (stored, sent) => stored == sent,
    }
}
