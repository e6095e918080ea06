//! `secret`: issuing CAs that OpenSSL made, in a Secret.

use std::collections::BTreeMap;

use countersign::api::SlotKind;
use countersign_e2e::agents::text_of;
use countersign_e2e::corporate::{
    CA, Ca, ED25519, P256, P384, RSA, Shape, hand_over, secret, secret_of,
};
use countersign_e2e::users::OPERATOR_NAMESPACE;
use countersign_e2e::{Chronicle, Delivered, Namespace, World, holds_for, seconds, wait_for};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::json;

use super::{
    LAG, ROOT_ROTATION, begun, change, get, judge_root_rotation, judge_with_openssl, ready,
    settled, spec,
};

#[tokio::test]
async fn agents_get_certificates_of_a_ca_of_any_algorithm_with_its_whole_chain() {
    let ns = World::shared().await.namespace("corporate").await;
    let algorithms = [("rsa", RSA), ("p256", P256), ("p384", P384), ("ed25519", ED25519)];
    let mut cases = Vec::new();
    for (algorithm, key) in algorithms {
        let root = Ca::root(Shape::of(key));
        let middle = root.under("intermediate", Shape::of(key));
        for (below, count) in [(&root, 1), (&middle, 2)] {
            // One of them under the components of a domain, as Active Directory has it.
            let subject = if count == 2 { "/DC=com/DC=corp/O=Corp" } else { "/O=Corp" };
            let issuing = below.under("issuing", Shape { subject, ..Shape::of(key) });
            let name = format!("corporate-{algorithm}-{count}");
            let chain: &[&Ca] = if count == 2 { &[&issuing, &middle] } else { &[&issuing] };
            hand_over(&ns.client, &secret(&name, chain, Some(&root))).await;
            ns.trust_domain(&name, spec(&ns, &name, json!({"secret": {"name": name}}))).await;
            ns.identity(&name, json!({"trustDomain": name})).await;
            cases.push((name, count, chain[0].certificate.clone(), root.clone()));
        }
    }
    for (name, count, issuing, root) in cases {
        ready(&ns.client, &name, "True", "Active").await;
        ns.ready(&name).await;
        let held = ns.secret_of(&name).await;
        let id = format!("spiffe://{name}.test/ns/{}/sa/{name}", ns.name);
        Delivered::read(&held).judge_under(&id, count);
        assert!(text_of(&held, "tls.crt").contains(issuing.trim()), "{name}: its CA is that one");
        assert_eq!(text_of(&held, "ca.crt").trim(), root.certificate.trim(), "{name}");
        judge_with_openssl(&name, &held);
    }
}

#[tokio::test]
async fn weak_cas_of_openssl_are_refused_with_the_reason_and_taken_when_put_right() {
    let ns = World::shared().await.namespace("refused-ca").await;
    let root = Ca::root(Shape::of(P256));
    let good = root.under("good", Shape::of(P256));
    let weak_rsa: &'static [&'static str] =
        &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"];
    let weak_curve: &'static [&'static str] =
        &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-224"];
    let under = |shape| root.under("issuing", shape);
    let sha1 = under(Shape { options: &["-sha1"], ..Shape::of(P256) });
    let no_ca = "basicConstraints=critical,CA:FALSE\nsubjectKeyIdentifier=hash\n";
    let constrained = format!("{CA}nameConstraints=critical,permitted;URI:.other.example.com\n");
    let purpose = format!("{CA}extendedKeyUsage=codeSigning\n");
    let rows: Vec<(&str, Ca, &str)> = vec![
        ("rsa-1024", under(Shape::of(weak_rsa)), "RSA of 1024 bits"),
        ("p-224", under(Shape::of(weak_curve)), "the curve P-224"),
        ("sha-1", sha1, "signed with SHA-1"),
        ("no-ca", under(Shape { extensions: no_ca, ..Shape::of(P256) }), "is not a CA"),
        ("expired", under(Shape { from: -90_000, days: 1, ..Shape::of(P256) }), "expired at"),
        ("too-early", under(Shape { from: 3600, ..Shape::of(P256) }), "is not valid before"),
        ("too-short", under(Shape { days: 1, ..Shape::of(P256) }), "put a CA that lives longer"),
        (
            "constrained",
            under(Shape { extensions: &constrained, ..Shape::of(P256) }),
            "forbid the SPIFFE IDs of refused-constrained.test",
        ),
        ("purpose", under(Shape { extensions: &purpose, ..Shape::of(P256) }), "other uses"),
    ];
    let mut named = Vec::new();
    for (name, ca, said) in &rows {
        named.push((
            format!("refused-{name}"),
            secret(&format!("refused-{name}"), &[ca], Some(&root)),
            *said,
        ));
    }
    let name = "refused-other-key".to_owned();
    let files =
        json!({"tls.crt": good.certificate, "tls.key": root.key, "ca.crt": root.certificate});
    named.push((name.clone(), secret_of(&name, files), "tls.key is not the key of"));
    let name = "refused-no-root".to_owned();
    named.push((name.clone(), secret(&name, &[&good], None), "put the root into ca.crt"));
    for (name, handed, _) in &named {
        hand_over(&ns.client, handed).await;
        ns.trust_domain(name, spec(&ns, name, json!({"secret": {"name": name}}))).await;
        ns.identity(name, json!({"trustDomain": name})).await;
    }
    for (name, _, said) in &named {
        let message = ready(&ns.client, name, "False", "CARefused").await;
        assert!(message.contains(said), "{name}: {message}");
        assert!(!message.contains("PRIVATE"), "{name}: {message}");
        let message = ns.not_ready(name, "AuthorityNotReady").await;
        assert!(message.contains(said), "{name}: {message}");
        assert!(get(&ns.client, name).await.status.unwrap().slots.is_empty(), "{name}");
    }
    for (name, _, _) in &named {
        hand_over(&ns.client, &secret(name, &[&good], Some(&root))).await;
    }
    for (name, _, _) in &named {
        ready(&ns.client, name, "True", "Active").await;
        ns.ready(name).await;
    }
}

#[tokio::test]
async fn a_changed_secret_is_a_rotation_in_which_every_leaf_meets_every_bundle() {
    let ns = World::shared().await.namespace("changed-ca").await;
    let first = Ca::root(Shape::of(P256));
    let issuing = first.under("issuing", Shape::of(P256));
    hand_over(&ns.client, &secret("changed-ca", &[&issuing], Some(&first))).await;
    ns.trust_domain(
        "changed-ca",
        spec(&ns, "changed-ca", json!({"secret": {"name": "changed-ca"}})),
    )
    .await;
    let chronicle = begun(&ns, "changed-ca").await;
    ns.ready("planner").await;
    ns.ready("tools").await;

    // Another root, with an intermediate.
    let second = Ca::root(Shape::of(P384));
    let middle = second.under("intermediate", Shape::of(P384));
    let issuing = middle.under("issuing", Shape::of(P384));
    hand_over(&ns.client, &secret("changed-ca", &[&issuing, &middle], Some(&second))).await;
    judge_root_rotation(&chronicle).await;
    let held = ns.secret_of("planner").await;
    let id = format!("spiffe://changed-ca.test/ns/{}/sa/planner", ns.name);
    Delivered::read(&held).judge_under(&id, 2);

    // Another issuing CA under the same root: at once.
    let trusted = async || ns.bundle("changed-ca").await.data.unwrap();
    let before = trusted().await;
    let issuing = second.under("issuing", Shape::of(P256));
    hand_over(&ns.client, &secret("changed-ca", &[&issuing], Some(&second))).await;
    let end =
        "root-1 Retiring, root-2 Active, issuing-1 Retiring, issuing-2 Retiring, issuing-3 Active";
    settled(&chronicle, end, 2).await;
    let history = chronicle.history();
    history.judge_slots();
    let tally = history.judge_trust(LAG);
    assert_eq!((tally.leaves, tally.bundles), (6, 2), "{tally:?}");
    let lists =
        |files: &BTreeMap<String, String>| files["crl.pem"].matches("BEGIN X509 CRL").count();
    // Each issuing CA has one; the roots' keys are somebody else's.
    assert_eq!(lists(&before), 2);
    let status = get(&ns.client, "changed-ca").await.status.unwrap();
    let roots = status.slots.iter().filter(|slot| slot.kind == SlotKind::Root);
    let roots: Vec<&String> = roots.map(|slot| &slot.key_id).collect();
    let elsewhere = status.crl.expect("it has CRLs").signed_elsewhere;
    assert_eq!(elsewhere.iter().collect::<Vec<_>>(), roots);
    let published = status.conditions.iter().find(|c| c.type_ == "CRLPublished").unwrap();
    assert_eq!(published.status, "True", "{published:?}");
    assert!(published.message.contains(roots[1]), "{published:?}");
    let after = wait_for("the third issuing CA's CRL is there", seconds(20), async || {
        let files = trusted().await;
        if lists(&files) == 3 { Ok(files) } else { Err(lists(&files)) }
    })
    .await;
    assert_eq!(after["ca.crt"], before["ca.crt"], "whom to trust is not touched");
    println!("a changed Secret, twice: {tally:?}");
}

#[tokio::test]
async fn what_is_taken_away_or_damaged_touches_no_living_certificate() {
    let world = World::shared().await;
    let ns = world.namespace("gone-ca").await;
    let root = Ca::root(Shape::of(P256));
    let issuing = root.under("issuing", Shape::of(P256));
    let handed = secret("gone-ca", &[&issuing], Some(&root));
    ns.trust_domain("gone-ca", spec(&ns, "gone-ca", json!({"secret": {"name": "gone-ca"}}))).await;
    ns.identity("planner", json!({"trustDomain": "gone-ca"})).await;
    let message = ready(&ns.client, "gone-ca", "False", "AuthorityUnavailable").await;
    assert!(
        message.contains("there is no Secret countersign-system/gone-ca: put the issuing CA there"),
        "{message}"
    );
    hand_over(&ns.client, &handed).await;
    ready(&ns.client, "gone-ca", "True", "Active").await;
    ns.ready("planner").await;
    let before = ns.secret_of("planner").await;
    assert_eq!(available(world, "gone-ca").await, Some(1.0));

    let secrets: Api<Secret> = Api::namespaced(ns.client.clone(), OPERATOR_NAMESPACE);
    secrets.delete("gone-ca", &DeleteParams::default()).await.expect("it was there");
    let message = ready(&ns.client, "gone-ca", "False", "AuthorityUnavailable").await;
    assert!(message.contains("Until then the CA"), "{message}");
    assert_eq!(available(world, "gone-ca").await, Some(0.0));
    holds_for("the living certificate stays", seconds(2), async || {
        let now = ns.secret_of("planner").await;
        if now.data == before.data { Ok(()) } else { Err("it was replaced") }
    })
    .await;
    // Who comes now gets one too, of the CA that was taken up before.
    ns.identity("tools", json!({"trustDomain": "gone-ca"})).await;
    ns.ready("tools").await;

    hand_over(&ns.client, &secret_of("gone-ca", json!({"tls.crt": "x", "tls.key": "y"}))).await;
    ready(&ns.client, "gone-ca", "False", "CARefused").await;
    hand_over(&ns.client, &handed).await;
    ready(&ns.client, "gone-ca", "True", "Active").await;
    assert_eq!(ns.secret_of("planner").await.data, before.data, "the same CA: nothing to do");
    let slots = get(&ns.client, "gone-ca").await.status.unwrap().slots;
    assert_eq!(slots.len(), 2, "{slots:?}");
}

#[tokio::test]
async fn another_kind_of_authority_is_a_rotation_too_and_back() {
    let ns = World::shared().await.namespace("other-kind").await;
    let root = Ca::root(Shape::of(P256));
    let issuing = root.under("issuing", Shape::of(P256));
    hand_over(&ns.client, &secret("other-kind", &[&issuing], Some(&root))).await;
    ns.trust_domain("other-kind", spec(&ns, "other-kind", json!({"selfSigned": {}}))).await;
    ns.identity("planner", json!({"trustDomain": "other-kind"})).await;
    let chronicle = Chronicle::of(&ns.client, "other-kind", "other-kind.test").await;
    settled(&chronicle, ROOT_ROTATION[0], 1).await;
    let to_secret =
        json!({"spec": {"authority": {"selfSigned": null, "secret": {"name": "other-kind"}}}});
    change(&ns.client, "other-kind", to_secret).await;
    settled(&chronicle, ROOT_ROTATION[2], 1).await;
    assert!(is_of(&ns, &issuing).await);
    let back = json!({"spec": {"authority": {"selfSigned": {}, "secret": null}}});
    change(&ns.client, "other-kind", back).await;
    let end = "root-1 Retiring, root-2 Retiring, root-3 Active, \
               issuing-1 Retiring, issuing-2 Retiring, issuing-3 Active";
    settled(&chronicle, end, 1).await;
    assert!(!is_of(&ns, &issuing).await);
    let history = chronicle.history();
    history.judge_slots();
    history.judge_trust(LAG);
}

async fn is_of(ns: &Namespace, issuing: &Ca) -> bool {
    text_of(&ns.secret_of("planner").await, "tls.crt").contains(issuing.certificate.trim())
}

async fn available(world: &World, trust_domain: &str) -> Option<f64> {
    let metrics = world.operator.metrics().await;
    metrics.get("countersign_authority_available", &[("trust_domain", trust_domain)])
}
