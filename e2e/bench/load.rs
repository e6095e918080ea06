//! What is put on the API server.

use std::time::{Duration, Instant};

use countersign::api::AgentIdentity;
use countersign_e2e::Namespace;
use futures::stream::{self, StreamExt};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::measure::{ReadySince, is_ready};

/// How many requests are under way at once: what the API server takes the most with.
pub const CONNECTIONS: usize = 64;

/// A bare client applies the identities, and for each writes a Secret and a status as large as the
/// operator's: the same three requests as when an operator does the latter two.
pub async fn bare_client(room: &Namespace, count: u32) -> Duration {
    let identities: Api<AgentIdentity> = room.api();
    let secrets: Api<Secret> = room.api();
    let began = Instant::now();
    stream::iter(0..count)
        .for_each_concurrent(CONNECTIONS, async |number| {
            let name = format!("bare-{number}");
            let identity = identity(room, &name, json!({}));
            let created = identities.create(&PostParams::default(), &identity).await;
            created.expect("the API server takes an identity");
            secrets
                .create(&PostParams::default(), &secret(&name))
                .await
                .expect("the API server takes a Secret");
            identities
                .patch_status(&name, &PatchParams::default(), &Patch::Merge(status(&name)))
                .await
                .expect("the API server takes a status");
        })
        .await;
    began.elapsed()
}

/// Applies identities of this spec at once, and gives the time from the first request to the last that is Ready.
pub async fn applied_at_once(room: &Namespace, count: u32, spec: &Value) -> Duration {
    let identities: Api<AgentIdentity> = room.api();
    let ready = ReadySince::watch(identities.clone()).await;
    let began = Instant::now();
    stream::iter(0..count)
        .for_each_concurrent(CONNECTIONS, async |number| {
            let identity = identity(room, &format!("agent-{number}"), spec.clone());
            let created = identities.create(&PostParams::default(), &identity).await;
            created.expect("the API server takes an identity");
        })
        .await;
    let took = ready.count(count).await.duration_since(began);
    let all = identities.list(&ListParams::default()).await.expect("the API server answers");
    assert!(all.iter().all(is_ready), "all are Ready");
    took
}

/// Secrets that are nobody's business here.
pub async fn unrelated_secrets(room: &Namespace, count: u32) {
    let secrets: Api<Secret> = room.api();
    stream::iter(0..count)
        .for_each_concurrent(8, async |number| {
            let mut secret = Secret::default();
            secret.metadata.name = Some(format!("unrelated-{number}"));
            secret.data = Some([("blob".to_owned(), ByteString(vec![7; 100_000]))].into());
            secrets
                .create(&PostParams::default(), &secret)
                .await
                .expect("the API server takes a Secret");
        })
        .await;
}

fn identity(room: &Namespace, name: &str, spec: Value) -> AgentIdentity {
    serde_json::from_value(room.identity_object(name, spec)).expect("it is well formed")
}

fn secret(name: &str) -> Secret {
    let data = [("tls.crt", 1700), ("tls.key", 241), ("ca.crt", 700)];
    let annotation = "a".repeat(64);
    serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {
            "name": format!("{name}-identity"),
            "annotations": {"bench/a": annotation, "bench/b": annotation, "bench/c": annotation},
        },
        "data": data.map(|(key, size)| (key.to_owned(), ByteString(vec![b'x'; size]))).into_iter().collect::<std::collections::BTreeMap<_, _>>(),
    }))
    .expect("it is well formed")
}

fn status(name: &str) -> Value {
    json!({"status": {
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "Issued", "observedGeneration": 1,
            "lastTransitionTime": "2026-11-24T00:00:00Z", "message": "the certificate is good until 2026-11-24T01:00:00Z",
        }, {
            "type": "PodsLabelled", "status": "True", "reason": "NoPods", "observedGeneration": 1,
            "lastTransitionTime": "2026-11-24T00:00:00Z", "message": "no pod of the ServiceAccount matches",
        }],
        "spiffeId": format!("spiffe://test.countersign.dev/ns/bench-bare-0/sa/{name}"),
        "trustDomain": "test",
        "secretName": format!("{name}-identity"),
        "certificate": {
            "serialNumber": "0123456789abcdef0123456789abcdef", "sha256Fingerprint": "0".repeat(64),
            "notBefore": "2026-11-24T00:00:00Z", "notAfter": "2026-11-24T01:00:00Z", "renewAt": "2026-11-24T00:40:00Z",
            "authorityKeyId": "0".repeat(40), "revision": 1,
        },
        "pods": {"matched": 0, "labelled": 0},
    }})
}
