//! `remote`: the bundle of somebody else's trust domain, over HTTPS, and all that can be wrong with it.

use std::process::Command;

use countersign::api::TrustDomain;
use countersign_e2e::corporate::{Ca, P256, Shape, hand_over, secret_of};
use countersign_e2e::judges::run;
use countersign_e2e::partner::{Answer, Partner};
use countersign_e2e::users::OPERATOR_NAMESPACE;
use countersign_e2e::{Namespace, Operator, Options, World, now, seconds, wait_for, workspace};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::{get, ready, spec};

fn root() -> Ca {
    Ca::root(Shape::of(P256))
}

/// A SPIFFE bundle with these roots, and a key for JWTs.
fn spiffe(roots: &[&Ca], sequence: u64) -> String {
    let mut keys = vec![json!({"use": "jwt-svid", "kty": "EC", "kid": "k", "crv": "P-256"})];
    for root in roots {
        let lines = root.certificate.lines().filter(|line| !line.starts_with('-'));
        keys.push(json!({"use": "x509-svid", "kty": "EC", "x5c": [lines.collect::<String>()]}));
    }
    json!({"keys": keys, "spiffe_sequence": sequence, "spiffe_refresh_hint": 10}).to_string()
}

/// Waits until `ca.crt` of the test's namespace is this.
async fn published(ns: &Namespace, name: &str, roots: &[&Ca]) {
    let expected: String = roots.iter().map(|root| root.certificate.as_str()).collect();
    wait_for(&format!("the bundle of {name} is published"), seconds(60), async || {
        match bundle(ns, name).await {
            Some(found) if found == expected => Ok(()),
            other => Err(other),
        }
    })
    .await;
}

async fn bundle(ns: &Namespace, name: &str) -> Option<String> {
    let api: Api<ConfigMap> = ns.api();
    let found = api.get_opt(&format!("countersign-trust-{name}")).await.expect("it can be asked");
    found?.data?.remove("ca.crt")
}

/// Waits until Ready has this reason and a message with this in it.
async fn says(client: &Client, name: &str, status: &str, reason: &str, text: &str) -> String {
    wait_for(&format!("TrustDomain {name} says {text:?}"), seconds(60), async || {
        let message = ready(client, name, status, reason).await;
        if message.contains(text) { Ok(message) } else { Err(message) }
    })
    .await
}

/// Puts the server's CA into its Secret, in such a way that it changes: the bundle is fetched at once.
async fn touch(ns: &Namespace, name: &str, ca: &str) {
    let moment = now().as_nanosecond().to_string();
    hand_over(&ns.client, &secret_of(name, json!({"ca.crt": ca, "touched": moment}))).await;
}

async fn available(operator: &Operator, name: &str) -> Option<f64> {
    operator.metrics().await.get("countersign_authority_available", &[("trust_domain", name)])
}

#[tokio::test]
async fn a_bundle_is_fetched_and_published_and_follows_what_the_server_gives_out() {
    let world = World::shared().await;
    let ns = world.namespace("remote-pem").await;
    let (one, two) = (root(), root());
    let partner = Partner::start(format!("# our root\n{}", one.certificate)).await;
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "remote-pem", "namespace": OPERATOR_NAMESPACE},
        "data": {"partner.pem": partner.ca.certificate},
    });
    countersign_e2e::install::apply(&ns.client, &map).await;
    let authority = json!({"remote": {
        "url": partner.url, "format": "PEM", "refreshPeriod": "10s",
        "caConfigMapRef": {"name": "remote-pem", "key": "partner.pem"},
    }});
    ns.trust_domain("remote-pem", spec(&ns, "remote-pem", authority)).await;
    let message = ready(&ns.client, "remote-pem", "True", "Fetched").await;
    assert!(message.contains(&partner.url) && message.ends_with(": 1 CA certificate"), "{message}");
    published(&ns, "remote-pem", &[&one]).await;
    assert_eq!(available(&world.operator, "remote-pem").await, Some(1.0));

    // No CA signs here: no identity belongs to it, and there is no CA's Secret.
    ns.identity("planner", json!({"trustDomain": "remote-pem"})).await;
    let message = ns.not_ready("planner", "RemoteTrustDomain").await;
    assert!(message.contains("Name a trust domain that has a CA"), "{message}");
    let secrets: Api<Secret> = ns.api();
    assert_eq!(secrets.list(&ListParams::default()).await.unwrap().items.len(), 0);
    let own: Api<Secret> = Api::namespaced(ns.client.clone(), OPERATOR_NAMESPACE);
    let own = own.list(&ListParams::default()).await.unwrap().items;
    let name = |secret: &Secret| secret.metadata.name.clone().unwrap_or_default();
    assert!(!own.iter().any(|secret| name(secret).starts_with("countersign-ca-remote-pem-")));

    // OpenSSL takes what is published for what it is.
    let folder = workspace::scratch("remote-pem");
    let file = |name: &str| folder.join(name).display().to_string();
    let leaf = one.under("agent", Shape { extensions: "", ..Shape::of(P256) });
    std::fs::write(file("leaf.crt"), &leaf.certificate).unwrap();
    std::fs::write(file("ca.crt"), bundle(&ns, "remote-pem").await.unwrap()).unwrap();
    run(
        Command::new("openssl").args(["verify", "-CAfile", &file("ca.crt"), &file("leaf.crt")]),
        "",
    );

    // While the server says that it is the same, nothing is written.
    let settled = get(&ns.client, "remote-pem").await;
    let (_, before) = partner.requests();
    wait_for("the bundle is asked for twice more", seconds(60), async || {
        let (requests, unchanged) = partner.requests();
        if unchanged >= before + 2 { Ok(()) } else { Err((requests, unchanged)) }
    })
    .await;
    let same = get(&ns.client, "remote-pem").await;
    let ready_of = |domain: &TrustDomain| {
        let status = domain.status.clone().unwrap();
        (status.conditions, status.bundle, status.remote, status.slots)
    };
    assert_eq!(ready_of(&same), ready_of(&settled));

    // Another bundle takes its place.
    partner.answers(Answer::Page(one.certificate.clone() + &two.certificate));
    published(&ns, "remote-pem", &[&one, &two]).await;
    wait_for("the second bundle is the second", seconds(30), async || {
        let status = get(&ns.client, "remote-pem").await.status.unwrap();
        let sequence = status.bundle.unwrap().sequence;
        let held = status.remote.unwrap().certificates.len();
        if (sequence, held) == (2, 2) { Ok(()) } else { Err((sequence, held)) }
    })
    .await;
}

#[tokio::test]
async fn of_a_spiffe_bundle_the_x509_keys_are_trusted_and_an_older_one_is_not_taken() {
    let ns = World::shared().await.namespace("remote-spiffe").await;
    let (one, two) = (root(), root());
    let partner = Partner::start(spiffe(&[&one], 5)).await;
    let authority = json!({"remote": {
        "url": partner.url, "format": "SPIFFE", "caBundle": partner.ca.certificate,
    }});
    ns.trust_domain("remote-spiffe", spec(&ns, "remote-spiffe", authority)).await;
    ready(&ns.client, "remote-spiffe", "True", "Fetched").await;
    published(&ns, "remote-spiffe", &[&one]).await;
    let held = get(&ns.client, "remote-spiffe").await.status.unwrap().remote.unwrap();
    assert_eq!(held.sequence, Some(5));

    // It asks to be fetched every 10 s, and gives out an old one.
    partner.answers(Answer::Page(spiffe(&[&two], 4)));
    let text = "its sequence is 4, and that of the bundle held is 5";
    says(&ns.client, "remote-spiffe", "False", "BundleRefused", text).await;
    published(&ns, "remote-spiffe", &[&one]).await;
    partner.answers(Answer::Page(spiffe(&[&one, &two], 6)));
    ready(&ns.client, "remote-spiffe", "True", "Fetched").await;
    published(&ns, "remote-spiffe", &[&one, &two]).await;
}

#[tokio::test]
async fn whatever_a_server_gives_in_place_of_a_bundle_the_last_one_stays() {
    let world = World::shared().await;
    let ns = world.namespace("remote-failures").await;
    let (one, name) = (root(), "remote-failures");
    let partner = Partner::start(one.certificate.clone()).await;
    touch(&ns, name, &partner.ca.certificate).await;
    let authority = |place: Value| {
        let mut remote = json!({"url": partner.url, "format": "PEM"});
        for (key, value) in place.as_object().unwrap() {
            remote[key] = value.clone();
        }
        json!({"remote": remote})
    };
    let secret = authority(json!({"caSecretRef": {"name": name}}));
    ns.trust_domain(name, spec(&ns, name, secret)).await;
    // Nobody in the operator's image vouches for the same server.
    ns.trust_domain("remote-roots", spec(&ns, "remote-roots", authority(json!({})))).await;
    ready(&ns.client, name, "True", "Fetched").await;
    published(&ns, name, &[&one]).await;
    let before = get(&ns.client, name).await.status.unwrap();
    let text = "does not prove who it is";
    let message = says(&ns.client, "remote-roots", "False", "AuthorityUntrusted", text).await;
    assert!(message.ends_with("Until then there is no bundle to publish"), "{message}");
    assert_eq!(bundle(&ns, "remote-roots").await, None);
    assert_eq!(available(&world.operator, "remote-roots").await, Some(0.0));

    let leaf = one.under("agent", Shape { extensions: "", ..Shape::of(P256) });
    let ended = Ca::root(Shape { from: -3 * 86_400, days: 1, ..Shape::of(P256) });
    let page = |text: &str| Answer::Page(text.to_owned());
    let rows = [
        (
            Answer::Status("500 Internal Server Error", "X: y"),
            "AuthorityUnavailable",
            "answers 500",
        ),
        (page("<html>welcome</html>"), "BundleRefused", "it has no CA certificate"),
        (
            Answer::Status("302 Found", "Location: https://elsewhere.example/"),
            "AuthorityUnavailable",
            "sends to https://elsewhere.example/: no redirect is followed",
        ),
        (page(""), "BundleRefused", "it has no CA certificate"),
        (page(&"-".repeat(600 << 10)), "AuthorityUnavailable", "gives more than 512 KiB"),
        (
            page(&(one.certificate.clone() + &leaf.certificate)),
            "BundleRefused",
            "certificate 2 of it is no root",
        ),
        (page(&ended.certificate), "BundleRefused", "all its CA certificates have expired"),
        (Answer::Drip, "AuthorityUnavailable", "no whole answer within 10s"),
    ];
    for (answer, reason, text) in rows {
        let is_slow = matches!(answer, Answer::Drip);
        partner.answers(answer);
        touch(&ns, name, &partner.ca.certificate).await;
        if is_slow {
            // Whoever lets us wait holds up nobody else.
            let began = now();
            ns.identity("elsewhere", json!({})).await;
            ns.ready("elsewhere").await;
            println!("another's identity took {:?} meanwhile", now().duration_since(began));
        }
        let message = says(&ns.client, name, "False", reason, text).await;
        assert!(
            message.contains(" stays published; its last CA certificate ends at "),
            "{message}"
        );
        assert_eq!(bundle(&ns, name).await.as_deref(), Some(one.certificate.as_str()), "{text}");
    }
    assert_eq!(available(&world.operator, name).await, Some(0.0));
    partner.answers(page(&one.certificate));
    touch(&ns, name, &root().certificate).await;
    says(&ns.client, name, "False", "AuthorityUntrusted", "does not prove who it is").await;
    let own: Api<Secret> = Api::namespaced(ns.client.clone(), OPERATOR_NAMESPACE);
    own.delete(name, &DeleteParams::default()).await.unwrap();
    let text = "with the file ca.crt: put it there";
    says(&ns.client, name, "False", "AuthorityUnavailable", text).await;
    touch(&ns, name, &partner.ca.certificate).await;
    ready(&ns.client, name, "True", "Fetched").await;
    assert_eq!(available(&world.operator, name).await, Some(1.0));
    let after = get(&ns.client, name).await.status.unwrap();
    assert_eq!((after.bundle, after.remote), (before.bundle, before.remote));
}

#[tokio::test]
async fn a_restart_without_the_server_publishes_what_was_held_and_says_so() {
    let World { operator, server } = World::start().await;
    let ns = Namespace::create(&server, "remote-restart").await;
    let (one, name) = (root(), "remote-restart");
    let partner = Partner::start(spiffe(&[&one], 3)).await;
    let authority = json!({"remote": {
        "url": partner.url, "format": "SPIFFE", "caBundle": partner.ca.certificate,
    }});
    ns.trust_domain(name, spec(&ns, name, authority)).await;
    ready(&ns.client, name, "True", "Fetched").await;
    published(&ns, name, &[&one]).await;
    let before = get(&ns.client, name).await.status.unwrap();
    operator.kill();
    partner.stop().await;
    let maps: Api<ConfigMap> = ns.api();
    maps.delete(&format!("countersign-trust-{name}"), &DeleteParams::default()).await.unwrap();

    let _operator = Operator::start_leading(&server, Options::replica("after")).await;
    published(&ns, name, &[&one]).await;
    let text = "cannot be reached";
    let message = says(&ns.client, name, "False", "AuthorityUnavailable", text).await;
    assert!(message.contains(" stays published"), "{message}");
    let after = get(&ns.client, name).await.status.unwrap();
    assert_eq!((after.bundle, after.remote), (before.bundle, before.remote));
}

#[tokio::test]
async fn remote_and_what_signs_do_not_take_each_others_place() {
    let ns = World::shared().await.namespace("remote-kind").await;
    let partner = Partner::start(root().certificate).await;
    let remote = json!({"url": partner.url, "format": "PEM", "caBundle": partner.ca.certificate});
    let signs = spec(&ns, "kind-signs", json!({"selfSigned": {}}));
    ns.trust_domain("kind-signs", signs).await;
    let trusts = spec(&ns, "kind-trusts", json!({"remote": remote.clone()}));
    ns.trust_domain("kind-trusts", trusts).await;
    ready(&ns.client, "kind-signs", "True", "Active").await;
    ready(&ns.client, "kind-trusts", "True", "Fetched").await;
    let api: Api<TrustDomain> = Api::all(ns.client.clone());
    for (name, authority) in [
        ("kind-signs", json!({"selfSigned": null, "remote": remote})),
        ("kind-trusts", json!({"selfSigned": {}, "remote": null})),
    ] {
        let patch = Patch::Merge(json!({"spec": {"authority": authority}}));
        let refused = api.patch(name, &PatchParams::default(), &patch).await.unwrap_err();
        assert!(
            refused.to_string().contains("cannot take each other's place"),
            "{name}: {refused}"
        );
    }
    ready(&ns.client, "kind-signs", "True", "Active").await;
    ready(&ns.client, "kind-trusts", "True", "Fetched").await;
}
