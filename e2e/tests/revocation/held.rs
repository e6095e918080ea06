//! What holds `Revoked` back: a CRL that is missing or not written, and for how long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use countersign::api::{AgentIdentity, SlotKind, TrustDomain};
use countersign_e2e::agents::{condition_of, text_of};
use countersign_e2e::crls::serials_of;
use countersign_e2e::install::{api_of, apply};
use countersign_e2e::users::OPERATOR_NAMESPACE;
use countersign_e2e::{Namespace, Policies, World, seconds, wait_for};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::TEST;

const BUNDLE: &str = "countersign-trust-test";
/// How long a namespace that cannot be written to is waited for.
const PATIENCE: Duration = seconds(30);

#[tokio::test]
async fn nobody_is_said_to_be_revoked_before_it_is_so() {
    let world = World::start_with(Policies::Audit).await;
    let ns = world.namespace("held").await;
    let other = world.namespace("held-other").await;
    for name in ["planner", "tools"] {
        ns.identity(name, json!({})).await;
    }
    let (planner, tools) = (ns.settled("planner").await, ns.settled("tools").await);
    other.bundle(TEST).await;

    // A CRL that cannot be signed.
    let secrets: Api<Secret> = Api::namespaced(ns.client.clone(), OPERATOR_NAMESPACE);
    let slots = trust_domain(&ns).await.status.expect("it has a status").slots;
    let issuing = slots.iter().find(|slot| slot.kind == SlotKind::Issuing).expect("there is one");
    let mut secret = secrets.get(&issuing.name).await.unwrap();
    secrets.delete(&issuing.name, &Default::default()).await.unwrap();
    says(&ns, "Ready", "False", "CASecretMissing").await;
    revoke(&ns, "planner").await;
    let identity = awaits_crl(&ns, "planner").await;
    let message = &condition_of(&identity, "Revoked").unwrap().message;
    assert!(message.contains("TrustDomain test") && message.contains("since 20"), "{message}");
    assert_eq!(identity.status.unwrap().revoked, None);
    ns.not_ready("planner", "Revoked").await;
    ns.event("planner", "Warning", "CRLAwaited").await;
    says(&ns, "CRLPublished", "False", "CRLNotSigned").await;
    assert_ne!(text_of(&ns.secret_of("planner").await, "tls.key"), "", "it stays until then");
    assert!(!serials_of(&ns.crls(TEST).await).contains(&planner.serial));
    secret.metadata = ObjectMeta {
        labels: secret.metadata.labels.take(),
        annotations: secret.metadata.annotations.take(),
        ..metadata(&issuing.name)
    };
    secrets.create(&PostParams::default(), &secret).await.expect("the CA is restored");
    revoked(&ns, "planner", seconds(20)).await;
    assert!(serials_of(&ns.crls(TEST).await).contains(&planner.serial));
    assert_eq!(text_of(&ns.secret_of("planner").await, "tls.key"), "");
    says(&ns, "CRLPublished", "True", "UpToDate").await;

    // A namespace that cannot be written to: for a while, and not for ever.
    let binding = refuse_config_maps(&other).await;
    let began = Instant::now();
    revoke(&ns, "tools").await;
    ns.on_crl(TEST, &[tools.serial.clone()].into()).await;
    let identity = awaits_crl(&ns, "tools").await;
    let reason = "NamespacesUnreached";
    let message = says(&ns, "CRLPublished", "False", reason).await;
    assert!(message.contains(&other.name) && !message.contains(&ns.name), "{message}");
    assert_ne!(text_of(&ns.secret_of("tools").await, "tls.key"), "");
    revoked(&ns, "tools", PATIENCE + seconds(30)).await;
    assert!(began.elapsed() >= PATIENCE - seconds(1), "after {:?}", began.elapsed());
    println!("a namespace that cannot be written to held it up for {:?}", began.elapsed());
    assert_eq!(identity.uid(), ns.identities().get("tools").await.unwrap().uid());
    assert!(!serials_of(&other.crls(TEST).await).contains(&tools.serial));
    let name = binding["metadata"]["name"].as_str().expect("it has a name");
    api_of(&ns.client, &binding).delete(name, &Default::default()).await.unwrap();
    other.on_crl(TEST, &[tools.serial].into()).await;
    says(&ns, "CRLPublished", "True", "UpToDate").await;
}

#[tokio::test]
async fn a_crl_that_was_not_written_since_somebody_else_wrote_is_not_called_published() {
    let world = World::start_with(Policies::Audit).await;
    let ns = world.namespace("raced").await;
    let names: Vec<String> = (0..6).map(|number| format!("agent-{number}")).collect();
    let mut leaves = Vec::new();
    for name in &names {
        ns.identity(name, json!({})).await;
        leaves.push(ns.settled(name).await);
    }
    let before = ns.operators_writes().len();
    // Somebody touches the ConfigMap all the while: what the operator knows of it is often old.
    let touches = Arc::new(AtomicBool::new(true));
    let bundles: Api<ConfigMap> = ns.api();
    let toucher = tokio::spawn({
        let touches = touches.clone();
        async move {
            for count in 0.. {
                if !touches.load(Ordering::Relaxed) {
                    return count;
                }
                let touch = json!({"metadata": {"annotations": {"touched": count.to_string()}}});
                let touched =
                    bundles.patch(BUNDLE, &PatchParams::default(), &Patch::Merge(touch)).await;
                touched.expect("it is touched");
            }
            0
        }
    });
    for (name, leaf) in names.iter().zip(&leaves) {
        revoke(&ns, name).await;
        revoked(&ns, name, seconds(60)).await;
        let found = serials_of(&ns.crls(TEST).await);
        assert!(found.contains(&leaf.serial), "{name} is called revoked and is not on the CRL");
    }
    touches.store(false, Ordering::Relaxed);
    let touches = toucher.await.unwrap();
    // Each revocation takes the key out after a write of its own of the CRLs, and not before.
    let (mut lists, mut emptied, mut refused) = (0, 0, 0);
    for write in ns.operators_writes().after(before).0 {
        match (write.kind().as_str(), write.code) {
            ("update configmaps", 409) => refused += 1,
            ("update configmaps", 200) => lists += 1,
            ("patch secrets", 200) => {
                emptied += 1;
                assert!(lists >= emptied, "the key of number {emptied} went after {lists} CRLs");
            }
            _ => {}
        }
    }
    assert_eq!(emptied, names.len());
    println!("{touches} touches, {refused} writes of CRLs refused for them");
}

async fn revoke(ns: &Namespace, name: &str) {
    ns.change_identity(name, json!({"spec": {"revoked": {"reason": "KeyCompromise"}}})).await;
}

async fn revoked(ns: &Namespace, name: &str, limit: Duration) {
    wait_for(&format!("{name} is revoked"), limit, async || {
        let identity = ns.identities().get(name).await.map_err(|error| error.to_string())?;
        let condition = condition_of(&identity, "Revoked");
        let is_so = condition.is_some_and(|c| c.status == "True" && c.reason == "Revoked");
        if is_so { Ok(()) } else { Err(format!("{condition:?}")) }
    })
    .await;
}

/// It says so after 15 s.
async fn awaits_crl(ns: &Namespace, name: &str) -> AgentIdentity {
    wait_for(&format!("{name} says that it waits for a CRL"), PATIENCE, async || {
        let identity = ns.identities().get(name).await.map_err(|error| error.to_string())?;
        let condition = condition_of(&identity, "Revoked").cloned();
        let is_so = condition.as_ref().is_some_and(|c| c.reason == "CRLAwaited");
        if is_so { Ok(identity) } else { Err(format!("{condition:?}")) }
    })
    .await
}

async fn trust_domain(ns: &Namespace) -> TrustDomain {
    Api::all(ns.client.clone()).get(TEST).await.expect("it is there")
}

/// Waits until a condition of the TrustDomain says so, and gives its message.
async fn says(ns: &Namespace, kind: &str, status: &str, reason: &str) -> String {
    wait_for(&format!("{kind} is {status} ({reason})"), seconds(30), async || {
        let conditions = trust_domain(ns).await.status.unwrap_or_default().conditions;
        let found = conditions.iter().find(|c| c.type_ == kind).cloned();
        match found {
            Some(c) if c.status == status && c.reason == reason => Ok(c.message),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

/// Has the API server refuse every write of the bundle in a namespace. Gives what ends it.
async fn refuse_config_maps(ns: &Namespace) -> Value {
    let of = "admissionregistration.k8s.io/v1";
    let policy = json!({
        "apiVersion": of, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "test-refuses"},
        "spec": {
            "matchConstraints": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": ns.name}},
                "resourceRules": [{
                    "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"],
                    "operations": ["CREATE", "UPDATE"],
                }],
            },
            "validations": [{"expression": "false", "message": "not here"}],
        },
    });
    let binding = json!({
        "apiVersion": of, "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "test-refuses"},
        "spec": {"policyName": "test-refuses", "validationActions": ["Deny"]},
    });
    apply(&ns.client, &policy).await;
    apply(&ns.client, &binding).await;
    let probe = ConfigMap { metadata: metadata("probe"), ..ConfigMap::default() };
    wait_for("the API server refuses ConfigMaps", seconds(30), async || {
        let dry_run = PostParams { dry_run: true, ..PostParams::default() };
        match ns.api::<ConfigMap>().create(&dry_run, &probe).await {
            Err(error) if error.to_string().contains("not here") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    binding
}

fn metadata(name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), ..Default::default() }
}
