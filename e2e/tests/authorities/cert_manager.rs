//! `certManager` with the CRD that cert-manager publishes. Cert-manager itself is not there: the
//! signer's part is played by [`Signer`], as cert-manager's API says that a signer answers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign_e2e::agents::text_of;
use countersign_e2e::corporate::{Ca, P256, P384, Shape};
use countersign_e2e::install::{apply, documents};
use countersign_e2e::judges;
use countersign_e2e::users::OPERATOR_NAMESPACE;
use countersign_e2e::{Delivered, Namespace, World, holds_for, seconds, wait_for, workspace};
use k8s_openapi::ByteString;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tokio::task::AbortHandle;

use super::{begun, change, get, judge_root_rotation, judge_with_openssl, ready, spec};

/// What a signer does with the requests of an issuer.
#[derive(Clone)]
enum Answer {
    Wait,
    /// From an hour ago, so that it can be taken up at once.
    Sign(Ca),
    /// From now on, as cert-manager does.
    JustNow(Ca),
    /// Without `status.ca`.
    WithoutRoot(Ca),
    /// For ten years, whatever was asked.
    ForLonger(Ca),
    /// A certificate for a key of its own.
    OtherKey(Ca),
    Deny,
    Fail,
}

/// Answers the requests of some issuers, and keeps them to be looked at.
struct Signer {
    answers: Arc<Mutex<BTreeMap<String, Answer>>>,
    seen: Arc<Mutex<Vec<DynamicObject>>>,
    task: AbortHandle,
}

impl Drop for Signer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Signer {
    fn start(client: &Client) -> Self {
        let (answers, seen) = <(Arc<Mutex<BTreeMap<_, _>>>, Arc<Mutex<Vec<_>>>)>::default();
        let task = tokio::spawn(work(client.clone(), answers.clone(), seen.clone())).abort_handle();
        Signer { answers, seen, task }
    }

    fn answer(&self, issuer: &str, answer: Answer) {
        self.answers.lock().unwrap().insert(issuer.to_owned(), answer);
    }

    /// The requests of an issuer that were answered.
    fn seen(&self, issuer: &str) -> Vec<DynamicObject> {
        let seen = self.seen.lock().unwrap();
        let of = |one: &&DynamicObject| one.data["spec"]["issuerRef"]["name"] == issuer;
        seen.iter().filter(of).cloned().collect()
    }
}

async fn work(
    client: Client,
    answers: Arc<Mutex<BTreeMap<String, Answer>>>,
    seen: Arc<Mutex<Vec<DynamicObject>>>,
) {
    let requests = requests(&client);
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let Ok(found) = requests.list(&Default::default()).await else { continue };
        for request in found.items.into_iter().filter(|found| found.data.get("status").is_none()) {
            let issuer = request.data["spec"]["issuerRef"]["name"].as_str().unwrap();
            let answer = answers.lock().unwrap().get(issuer).cloned();
            let Some(status) = answer.and_then(|answer| status(&answer, &request)) else {
                continue;
            };
            let name = request.metadata.name.clone().unwrap();
            let patch = Patch::Merge(json!({"status": status}));
            // One that was removed meanwhile needs no answer.
            if requests.patch_status(&name, &PatchParams::default(), &patch).await.is_ok() {
                seen.lock().unwrap().push(request);
            }
        }
    }
}

/// The status that a signer gives a request; none where it lets it wait.
fn status(answer: &Answer, request: &DynamicObject) -> Option<Value> {
    let condition = |kind: &str, status: &str, reason: &str| json!({"type": kind, "status": status, "reason": reason, "message": "says the signer"});
    let approved = condition("Approved", "True", "test");
    let signed = |ca: &Ca, csr: &str, days: u32, root: Option<&Ca>| {
        let from = if matches!(answer, Answer::JustNow(_)) { 0 } else { -3600 };
        let shape = Shape { days, from, ..Shape::of(P256) };
        let mut status = json!({
            "conditions": [approved, condition("Ready", "True", "Issued")],
            "certificate": encoded(&ca.sign(csr, shape)),
        });
        if let Some(root) = root {
            status["ca"] = encoded(&root.certificate);
        }
        Some(status)
    };
    let csr: ByteString = serde_json::from_value(request.data["spec"]["request"].clone()).unwrap();
    let csr = String::from_utf8(csr.0).expect("it is PEM");
    let duration = request.data["spec"]["duration"].as_str().unwrap();
    let asked = duration.trim_end_matches('s').parse::<u32>().expect("in seconds") / 86_400;
    match answer {
        Answer::Wait => None,
        Answer::Sign(ca) | Answer::JustNow(ca) => signed(ca, &csr, asked, Some(ca)),
        Answer::WithoutRoot(ca) => signed(ca, &csr, asked, None),
        Answer::ForLonger(ca) => signed(ca, &csr, 3650, Some(ca)),
        Answer::OtherKey(ca) => {
            let other = ca.under("other", Shape { days: 300, ..Shape::of(P256) });
            let mut status = signed(ca, &csr, asked, Some(ca))?;
            status["certificate"] = encoded(&other.certificate);
            Some(status)
        }
        Answer::Deny => Some(json!({"conditions": [
            condition("Denied", "True", "policy"), condition("Ready", "False", "Denied"),
        ]})),
        Answer::Fail => {
            Some(json!({"conditions": [approved, condition("Ready", "False", "Failed")]}))
        }
    }
}

/// Base64, as the API has bytes.
fn encoded(text: &str) -> Value {
    json!(ByteString(text.as_bytes().to_vec()))
}

fn requests(client: &Client) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("cert-manager.io", "v1", "CertificateRequest");
    let kind = ApiResource::from_gvk(&kind);
    Api::namespaced_with(client.clone(), OPERATOR_NAMESPACE, &kind)
}

/// The CRD, which comes once a TrustDomain has missed it.
async fn cert_manager(ns: &Namespace) {
    static THERE: OnceCell<()> = OnceCell::const_new();
    let bring = async || {
        judges::build();
        ns.trust_domain("cm-absent", spec(ns, "cm-absent", authority("nobody"))).await;
        let message = ready(&ns.client, "cm-absent", "False", "AuthorityUnavailable").await;
        assert!(message.contains("no CertificateRequests: install cert-manager"), "{message}");
        let file = workspace::tool("enforcer-crds").join("cert-manager.yaml");
        for crd in documents(&std::fs::read_to_string(file).expect("crds.sh brought it")) {
            apply(&ns.client, &crd).await;
        }
        wait_for("CertificateRequests are served", seconds(60), async || {
            requests(&ns.client).list(&Default::default()).await.map(drop)
        })
        .await;
    };
    THERE.get_or_init(bring).await;
}

fn authority(issuer: &str) -> Value {
    json!({"certManager": {"issuerRef": {"name": issuer, "kind": "ClusterIssuer"}}})
}

/// Waits until nothing is requested for this TrustDomain any more.
async fn nothing_requested(ns: &Namespace, name: &str) {
    let of = format!("countersign-{name}-issuing");
    wait_for("what is taken up is removed", seconds(20), async || {
        let found = requests(&ns.client).get_opt(&of).await.map_err(|error| error.to_string())?;
        found.map_or(Ok(()), |found| Err(found.data.to_string()))
    })
    .await;
}

#[tokio::test]
async fn an_issuer_of_cert_managers_signs_the_issuing_ca_and_its_new_root_is_a_rotation() {
    let ns = World::shared().await.namespace("cm-ca").await;
    cert_manager(&ns).await;
    let signer = Signer::start(&ns.client);
    let first = Ca::root(Shape::of(P256));
    signer.answer("cm-ca", Answer::Sign(first.clone()));
    ns.trust_domain("cm-ca", spec(&ns, "cm-ca", authority("cm-ca"))).await;
    let chronicle = begun(&ns, "cm-ca").await;
    ready(&ns.client, "cm-ca", "True", "Active").await;
    nothing_requested(&ns, "cm-ca").await;

    let seen = signer.seen("cm-ca");
    assert_eq!(seen.len(), 1, "one CA, one request");
    let asked = &seen[0].data["spec"];
    assert_eq!(asked["isCA"], true);
    assert_eq!(asked["usages"], json!(["cert sign", "crl sign"]));
    let issuer = json!({"name": "cm-ca", "kind": "ClusterIssuer", "group": "cert-manager.io"});
    assert_eq!(asked["issuerRef"], issuer);
    assert_eq!(seen[0].metadata.owner_references.as_ref().unwrap()[0].kind, "TrustDomain");

    ns.ready("planner").await;
    let held = ns.secret_of("planner").await;
    let id = format!("spiffe://cm-ca.test/ns/{}/sa/planner", ns.name);
    Delivered::read(&held).judge_under(&id, 1);
    assert_eq!(text_of(&held, "ca.crt").trim(), first.certificate.trim());
    judge_with_openssl("cm-ca", &held);

    // The issuer has another root by now. It is seen when the next issuing CA is asked for.
    signer.answer("cm-ca", Answer::Sign(Ca::root(Shape::of(P384))));
    change(&ns.client, "cm-ca", json!({"spec": {"ca": {"atLeast": {"issuing": 2}}}})).await;
    judge_root_rotation(&chronicle).await;
    nothing_requested(&ns, "cm-ca").await;
    assert_eq!(signer.seen("cm-ca").len(), 2);
}

#[tokio::test]
async fn what_is_not_signed_has_a_reason_of_its_own_and_what_is_signed_wrongly_is_refused() {
    let ns = World::shared().await.namespace("cm-refusals").await;
    cert_manager(&ns).await;
    let signer = Signer::start(&ns.client);
    let root = Ca::root(Shape::of(P256));
    let rows = [
        ("cm-waits", Answer::Wait, "AuthorityPending", "see that it is approved"),
        ("cm-denied", Answer::Deny, "AuthorityDenied", "policy: says the signer"),
        ("cm-failed", Answer::Fail, "AuthorityDenied", "Failed: says the signer"),
        ("cm-no-root", Answer::WithoutRoot(root.clone()), "CARefused", "put the root into ca.crt"),
        ("cm-longer", Answer::ForLonger(root.clone()), "CARefused", "later than was asked"),
        ("cm-other-key", Answer::OtherKey(root.clone()), "CARefused", "not for the key"),
    ];
    let fresh = "cm-fresh";
    signer.answer(fresh, Answer::JustNow(root.clone()));
    ns.trust_domain(fresh, spec(&ns, fresh, authority(fresh))).await;
    // What an operator left behind that has died since, and took the key along.
    let left = json!({
        "apiVersion": "cert-manager.io/v1", "kind": "CertificateRequest",
        "metadata": {
            "name": "countersign-cm-waits-issuing", "namespace": OPERATOR_NAMESPACE,
            "labels": {"countersign.dev/trust-domain": "cm-waits"},
            "ownerReferences": [{
                "apiVersion": "countersign.dev/v1alpha1", "kind": "TrustDomain",
                "name": "cm-waits", "uid": "of-before", "controller": true,
            }],
        },
        "spec": {"request": encoded("of before"), "issuerRef": {"name": "nobody"}},
    });
    apply(&ns.client, &left).await;
    for (name, answer, ..) in &rows {
        signer.answer(name, answer.clone());
        ns.trust_domain(name, spec(&ns, name, authority(name))).await;
        ns.identity(name, json!({"trustDomain": name})).await;
    }
    for (name, _, reason, said) in &rows {
        let message = ready(&ns.client, name, "False", reason).await;
        assert!(message.contains(said), "{name}: {message}");
        assert!(get(&ns.client, name).await.status.unwrap().slots.is_empty(), "{name}");
        ns.not_ready(name, "AuthorityNotReady").await;
        signer.answer(name, Answer::Sign(root.clone()));
    }
    let message = ready(&ns.client, fresh, "False", "AuthorityPending").await;
    assert!(message.contains("is signed, and taken up at"), "{message}");
    assert_eq!(signer.seen(fresh).len(), 1, "it is not asked for again meanwhile");
    for (name, ..) in &rows {
        ready(&ns.client, name, "True", "Active").await;
        ns.ready(name).await;
        nothing_requested(&ns, name).await;
    }
    assert_eq!(signer.seen("cm-waits").len(), 1, "the request that waited was signed");

    // The next one is denied: what is there goes on, and who comes now is served.
    let before = ns.secret_of("cm-waits").await;
    signer.answer("cm-waits", Answer::Deny);
    change(&ns.client, "cm-waits", json!({"spec": {"ca": {"atLeast": {"issuing": 2}}}})).await;
    let message = ready(&ns.client, "cm-waits", "False", "AuthorityDenied").await;
    assert!(message.contains("Until then the CA"), "{message}");
    ns.identity("tools", json!({"trustDomain": "cm-waits"})).await;
    ns.ready("tools").await;
    holds_for("the living certificate stays", seconds(1), async || {
        let now = ns.secret_of("cm-waits").await;
        if now.data == before.data { Ok(()) } else { Err("it was replaced") }
    })
    .await;
}
