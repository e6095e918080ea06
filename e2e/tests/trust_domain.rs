//! The CAs and the bundle: how they come to be, that they are kept, and that nothing is signed
//! where they are not what they were.

use std::time::Instant;

use countersign::api::{SlotKind, SlotPhase, TrustDomain};
use countersign_e2e::delivered::certificates;
use countersign_e2e::judges::openssl;
use countersign_e2e::users::OPERATOR_NAMESPACE;
use countersign_e2e::{
    ApiServer, Delivered, Namespace, Operator, World, another_second, gone, holds_for, seconds,
    wait_for,
};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace as Room, Secret};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

#[tokio::test]
async fn a_trust_domain_has_a_root_and_an_issuing_ca_each_in_a_secret_of_its_own() {
    let world = World::shared().await;
    let ns = world.namespace("slots").await;
    let domain = condition(&ns.client, "test", "Ready", "True", "Active").await;
    let status = domain.status.unwrap();
    let slot = |kind| status.slots.iter().find(|slot| slot.kind == kind).expect("there is one");
    let (root, issuing) = (slot(SlotKind::Root), slot(SlotKind::Issuing));
    assert_eq!(status.slots.len(), 2);
    assert_eq!((root.phase, issuing.phase), (SlotPhase::Active, SlotPhase::Active));

    let secrets: Api<Secret> = Api::namespaced(ns.client.clone(), OPERATOR_NAMESPACE);
    for (slot, kind, says) in
        [(root, "root", "CA:TRUE"), (issuing, "issuing", "CA:TRUE, pathlen:0")]
    {
        let secret = secrets.get(&slot.name).await.unwrap();
        assert_eq!(secret.immutable, Some(true), "{kind}: never overwritten");
        assert_eq!(secret.labels()["countersign.dev/trust-domain"], "test");
        assert_eq!(secret.labels()["countersign.dev/slot-kind"], kind);
        let pem = certificate_of(&secret);
        let text = openssl(&["x509", "-noout", "-text"], &pem);
        assert!(text.contains(says), "{kind}: {text}");
        assert!(text.contains("URI:spiffe://test.countersign.dev\n"), "{kind}: {text}");
        let key_id: String = slot.key_id.to_uppercase();
        assert!(text.replace(':', "").contains(&key_id), "{kind} {key_id}: {text}");
    }

    let bundle = ns.bundle("test").await.data.unwrap()["ca.crt"].clone();
    assert_eq!(certificates(&bundle).len(), 1, "the root alone is trusted");
    let published = status.bundle.unwrap();
    assert_eq!(published.sha256, hex(&Sha256::digest(&bundle)));
    assert_eq!(published.sequence, 1);
    condition(&ns.client, "test", "BundlePublished", "True", "Published").await;
}

#[tokio::test]
async fn the_bundle_is_in_the_selected_namespaces_and_in_no_other() {
    let ns = World::shared().await.namespace("selected").await;
    let selector = json!({"matchLabels": {"wants": ns.name}});
    ns.trust_domain(
        "selecting",
        json!({
            "domain": "selecting.countersign.dev", "authority": {"selfSigned": {}},
            "bundle": {"namespaceSelector": selector},
        }),
    )
    .await;
    condition(&ns.client, "selecting", "Ready", "True", "Active").await;
    assert_eq!(bundle_of(&ns, "selecting").await, None);

    relabel(&ns, json!({"wants": ns.name})).await;
    let map = ns.bundle("selecting").await;
    let data = map.data.as_ref().unwrap();
    assert_eq!(data.keys().collect::<Vec<_>>(), ["ca.crt", "crl.pem"]);
    assert_eq!(map.labels()["countersign.dev/trust-domain"], "selecting");
    let digest = hex(&Sha256::digest(&data["ca.crt"]));
    assert_eq!(map.annotations()["countersign.dev/bundle-sha256"], digest);

    let labels = json!({"wants": ns.name});
    let later = Namespace::create_with_labels(&ns.server, "selected-later", labels).await;
    assert_eq!(later.bundle("selecting").await.data, map.data);

    relabel(&ns, json!({"wants": null})).await;
    gone("the bundle of a namespace without the label", seconds(10), async || {
        bundle_of(&ns, "selecting").await
    })
    .await;
}

#[tokio::test]
async fn a_bundle_that_is_edited_or_deleted_is_put_right() {
    // The policies would refuse the change of our annotation.
    let ns = World::lenient().await.namespace("edited").await;
    let right = ns.bundle("test").await;
    let name = right.name_any();
    let maps: Api<ConfigMap> = ns.api();
    for edit in [
        json!({"data": {"ca.crt": "an evil CA"}}),
        json!({"data": {"ca.crt": null}}),
        json!({"data": {"evil.crt": "another file"}}),
        json!({"binaryData": {"ca2.crt": "AAAA"}}),
        json!({"metadata": {"annotations": {"countersign.dev/bundle-sha256": "0"}}}),
        json!({"data": {"crl.pem": "an old list"}}),
        json!({"data": {"crl.pem": null}}),
        json!({"metadata": {"annotations": {"countersign.dev/crl-sha256": "0"}}}),
        json!({"metadata": {"labels": {"countersign.dev/trust-domain": null}}}),
    ] {
        let began = Instant::now();
        maps.patch(&name, &PatchParams::default(), &Patch::Merge(edit.clone())).await.unwrap();
        wait_for(&format!("{edit} is put right"), seconds(10), async || {
            let map = maps.get(&name).await.unwrap();
            let same = map.data == right.data
                && map.binary_data.is_none()
                && map.annotations() == right.annotations()
                && map.labels() == right.labels();
            if same { Ok(()) } else { Err(map) }
        })
        .await;
        assert!(began.elapsed() < seconds(2), "{edit}: {:?}", began.elapsed());
    }
    maps.delete(&name, &Default::default()).await.unwrap();
    assert_eq!(ns.bundle("test").await.data, right.data);
}

#[tokio::test]
async fn a_foreign_config_map_of_the_name_is_left_alone_and_said() {
    let ns = World::shared().await.namespace("foreign").await;
    ns.put(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "countersign-trust-hindered"}, "data": {"ca.crt": "somebody's own"},
    }))
    .await;
    let before = bundle_of(&ns, "hindered").await;
    ns.trust_domain("hindered", here(&ns, "hindered.countersign.dev")).await;
    let domain =
        condition(&ns.client, "hindered", "BundlePublished", "False", "NamespacesUnreached").await;
    let message = message_of(&domain, "BundlePublished");
    assert!(message.contains(&ns.name), "the message names the namespace: {message}");
    assert_eq!(bundle_of(&ns, "hindered").await, before);

    ns.delete(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "countersign-trust-hindered"},
    }))
    .await;
    condition(&ns.client, "hindered", "BundlePublished", "True", "Published").await;
}

#[tokio::test]
async fn identities_are_counted() {
    // The policies would refuse the bad one.
    let ns = World::lenient().await.namespace("counted").await;
    ns.trust_domain("counting", here(&ns, "counting.countersign.dev")).await;
    let counts = |total: u32, ready: u32| {
        let client = ns.client.clone();
        async move {
            wait_for(&format!("{ready} of {total}"), seconds(10), async || {
                let status = get(&client, "counting").await.status.unwrap_or_default();
                match status.identities {
                    Some(counts) if (counts.total, counts.ready) == (total, ready) => Ok(()),
                    other => Err(other),
                }
            })
            .await;
        }
    };
    for name in ["a", "b", "c"] {
        ns.identity(name, json!({"trustDomain": "counting"})).await;
    }
    ns.identity("bad", json!({"trustDomain": "counting", "dnsNames": ["example.com"]})).await;
    counts(4, 3).await;
    ns.identities().delete("bad", &Default::default()).await.unwrap();
    ns.identities().delete("c", &Default::default()).await.unwrap();
    counts(2, 2).await;
    ns.change_identity("b", json!({"spec": {"trustDomain": "test"}})).await;
    ns.ready("b").await;
    counts(1, 1).await;
}

#[tokio::test]
async fn of_two_defaults_the_older_counts_and_the_newer_says_so() {
    let server = ApiServer::start().await;
    let ns = Namespace::create(&server, "defaults").await;
    let marked = |name: &str| {
        let mut spec = here(&ns, &format!("{name}.countersign.dev"));
        spec["default"] = json!(true);
        spec
    };
    let _operator = Operator::start_leading(&server, Default::default()).await;
    ns.identity("planner", json!({})).await;
    ns.not_ready("planner", "TrustDomainNotFound").await;
    ns.event("planner", "Warning", "TrustDomainNotFound").await;

    ns.trust_domain("older", marked("older")).await;
    let older = condition(&ns.client, "older", "Default", "True", "IsDefault").await;
    ns.ready("planner").await;
    let leaf = ns.secret_of("planner").await;
    another_second(older.creation_timestamp().unwrap().0).await;
    ns.trust_domain("newer", marked("newer")).await;
    let newer = condition(&ns.client, "newer", "Default", "False", "DuplicateDefault").await;
    let message = message_of(&newer, "Default");
    assert!(message.contains("older"), "the message names the other: {message}");
    condition(&ns.client, "newer", "Ready", "True", "Active").await;
    condition(&ns.client, "older", "Default", "True", "IsDefault").await;
    ns.identity("names-newer", json!({"trustDomain": "newer"})).await;
    ns.ready("names-newer").await;
    assert_eq!(ns.secret_of("planner").await, leaf, "marking another breaks nobody");

    change(&ns.client, "older", json!({"spec": {"default": false}})).await;
    condition(&ns.client, "newer", "Default", "True", "IsDefault").await;
    let id = format!("spiffe://newer.countersign.dev/ns/{}/sa/planner", ns.name);
    wait_for("the identity belongs to the other", seconds(10), async || {
        let status = ns.ready("planner").await.status.unwrap();
        if status.spiffe_id.as_ref() == Some(&id) { Ok(()) } else { Err(status.spiffe_id) }
    })
    .await;
    Delivered::read(&ns.secret_of("planner").await).judge(&id);
}

#[tokio::test]
async fn of_two_with_one_domain_the_older_signs() {
    let ns = World::shared().await.namespace("same-domain").await;
    ns.trust_domain("same-older", here(&ns, "same.countersign.dev")).await;
    let older = condition(&ns.client, "same-older", "Ready", "True", "Active").await;
    another_second(older.creation_timestamp().unwrap().0).await;
    ns.trust_domain("same-newer", here(&ns, "same.countersign.dev")).await;
    let newer = condition(&ns.client, "same-newer", "Ready", "False", "DuplicateDomain").await;
    assert!(message_of(&newer, "Ready").contains("same-older"));
    ns.identity("planner", json!({"trustDomain": "same-newer"})).await;
    ns.not_ready("planner", "AuthorityNotReady").await;
    assert_eq!(ns.secret("planner-identity").await, None);
    condition(&ns.client, "same-older", "Ready", "True", "Active").await;
}

#[tokio::test]
async fn without_its_issuing_ca_nothing_is_signed_until_it_is_restored() {
    broken_ca("issuing-gone", SlotKind::Issuing, "CASecretMissing", |_| None).await;
}

#[tokio::test]
async fn without_its_root_nothing_is_signed_until_it_is_restored() {
    broken_ca("root-gone", SlotKind::Root, "CASecretMissing", |_| None).await;
}

#[tokio::test]
async fn a_truncated_ca_signs_nothing() {
    broken_ca("truncated", SlotKind::Issuing, "CASecretInvalid", |mut secret| {
        let data = secret.data.as_mut().unwrap();
        for value in data.values_mut() {
            value.0.truncate(value.0.len() / 2);
        }
        Some(secret)
    })
    .await;
}

#[tokio::test]
async fn a_ca_secret_without_its_files_signs_nothing() {
    broken_ca("emptied", SlotKind::Issuing, "CASecretInvalid", |mut secret| {
        for value in secret.data.as_mut().unwrap().values_mut() {
            value.0.clear();
        }
        Some(secret)
    })
    .await;
}

#[tokio::test]
async fn a_ca_with_a_foreign_key_signs_nothing() {
    broken_ca("foreign-key", SlotKind::Issuing, "CASecretInvalid", |mut secret| {
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        secret.data.as_mut().unwrap().insert("tls.key".into(), k8s_openapi::ByteString(key.into()));
        Some(secret)
    })
    .await;
}

#[tokio::test]
async fn another_ca_in_the_place_of_ours_signs_nothing() {
    broken_ca("foreign-ca", SlotKind::Issuing, "CASecretInvalid", |mut secret| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
        parameters.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        let certificate = parameters.self_signed(&key).unwrap().pem();
        let data = secret.data.as_mut().unwrap();
        data.insert("tls.crt".into(), k8s_openapi::ByteString(certificate.into()));
        data.insert("tls.key".into(), k8s_openapi::ByteString(key.serialize_pem().into()));
        Some(secret)
    })
    .await;
}

/// Replaces a CA Secret by what `damage` makes of it (by nothing, for `None`), and checks that the
/// TrustDomain says `reason`, that nothing is signed, that what was signed is left alone, that the
/// operator makes no CA by itself, and that all goes on when the Secret is restored.
async fn broken_ca(
    name: &str,
    kind: SlotKind,
    reason: &str,
    damage: impl FnOnce(Secret) -> Option<Secret>,
) {
    let ns = World::shared().await.namespace(name).await;
    ns.trust_domain(name, here(&ns, &format!("{name}.countersign.dev"))).await;
    ns.identity("old", json!({"trustDomain": name})).await;
    ns.ready("old").await;
    let leaf = ns.secret_of("old").await;
    let bundle = ns.bundle(name).await;
    let status = get(&ns.client, name).await.status.unwrap();
    let slot = status.slots.iter().find(|slot| slot.kind == kind).expect("there is one").clone();

    let secrets: Api<Secret> = Api::namespaced(ns.client.clone(), OPERATOR_NAMESPACE);
    let good = secrets.get(&slot.name).await.unwrap();
    replace(&secrets, &slot.name, damage(blank(&good))).await;

    let domain = condition(&ns.client, name, "Ready", "False", reason).await;
    let message = message_of(&domain, "Ready");
    assert!(message.contains(&slot.name), "the message names the Secret: {message}");
    ns.identity("new", json!({"trustDomain": name})).await;
    ns.not_ready("new", "AuthorityNotReady").await;
    ns.event("new", "Warning", "AuthorityNotReady").await;
    let damaged = secrets.get_opt(&slot.name).await.unwrap();
    holds_for(
        "nothing is signed, nothing made, the old leaf and bundle stand",
        seconds(3),
        async || {
            if let Some(secret) = ns.secret("new-identity").await {
                return Err(format!("signed {:?}", secret.metadata));
            }
            if ns.secret_of("old").await != leaf {
                return Err("the old leaf was touched".to_owned());
            }
            if ns.bundle(name).await.data != bundle.data {
                return Err("the bundle was changed".to_owned());
            }
            let now = secrets.get_opt(&slot.name).await.unwrap();
            if now != damaged {
                Err(format!("a CA was made: {:?}", now.map(|s| s.metadata)))
            } else {
                Ok(())
            }
        },
    )
    .await;
    let old = ns.identities().get("old").await.unwrap();
    let condition_now = countersign_e2e::agents::condition_of(&old, "Ready").unwrap();
    assert_eq!(condition_now.status, "True", "what was issued is still good: {condition_now:?}");

    replace(&secrets, &slot.name, Some(blank(&good))).await;
    condition(&ns.client, name, "Ready", "True", "Active").await;
    ns.ready("new").await;
    let new = Delivered::read(&ns.secret_of("new").await);
    new.judge(&format!("spiffe://{name}.countersign.dev/ns/{}/sa/new", ns.name));
    let old = Delivered::read(&leaf);
    assert_eq!(new.chain[1], old.chain[1], "by the same CA");
    assert_eq!(ns.secret_of("old").await, leaf, "and the old leaf is as it was");
}

/// A Secret as a backup has it.
fn blank(secret: &Secret) -> Secret {
    let mut copy = secret.clone();
    copy.metadata.resource_version = None;
    copy.metadata.uid = None;
    copy.metadata.creation_timestamp = None;
    copy.metadata.managed_fields = None;
    copy
}

async fn replace(secrets: &Api<Secret>, name: &str, with: Option<Secret>) {
    if secrets.get_opt(name).await.unwrap().is_some() {
        secrets.delete(name, &Default::default()).await.unwrap();
        gone(name, seconds(5), async || secrets.get_opt(name).await.unwrap()).await;
    }
    if let Some(secret) = with {
        secrets.create(&PostParams::default(), &secret).await.unwrap();
    }
}

/// A TrustDomain that publishes its bundle in the test's namespace alone.
fn here(ns: &Namespace, domain: &str) -> Value {
    json!({
        "domain": domain,
        "authority": {"selfSigned": {}},
        "bundle": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": ns.name}}},
    })
}

async fn condition(
    client: &Client,
    name: &str,
    kind: &str,
    status: &str,
    reason: &str,
) -> TrustDomain {
    wait_for(&format!("TrustDomain {name}: {kind} is {status} {reason}"), seconds(20), async || {
        let domain = get(client, name).await;
        let conditions = domain.status.iter().flat_map(|status| &status.conditions);
        let holds = conditions.into_iter().any(|condition| {
            condition.type_ == kind
                && condition.status == status
                && condition.reason == reason
                && condition.observed_generation == domain.metadata.generation
        });
        if holds { Ok(domain) } else { Err(domain.status) }
    })
    .await
}

fn message_of(domain: &TrustDomain, kind: &str) -> String {
    let conditions = &domain.status.as_ref().expect("it has a status").conditions;
    conditions.iter().find(|condition| condition.type_ == kind).expect("it has it").message.clone()
}

async fn get(client: &Client, name: &str) -> TrustDomain {
    Api::all(client.clone()).get(name).await.unwrap()
}

async fn change(client: &Client, name: &str, patch: Value) {
    let api: Api<TrustDomain> = Api::all(client.clone());
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

async fn relabel(ns: &Namespace, labels: Value) {
    let rooms: Api<Room> = Api::all(ns.client.clone());
    let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
    rooms.patch(&ns.name, &PatchParams::default(), &patch).await.unwrap();
}

async fn bundle_of(ns: &Namespace, trust_domain: &str) -> Option<ConfigMap> {
    ns.api().get_opt(&format!("countersign-trust-{trust_domain}")).await.unwrap()
}

fn certificate_of(secret: &Secret) -> String {
    let pem = secret.data.as_ref().unwrap()["tls.crt"].0.clone();
    String::from_utf8(pem).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
