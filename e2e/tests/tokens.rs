//! CA keys in a token: the authority `pkcs11` with SoftHSM, and with a TPM 2.0.
//!
//! What is in the token is told by pkcs11-tool, which shares nothing with us but the module. It is not
//! asked while a key is made: in SoftHSM, whose objects are files, one process that looks on can spoil
//! what another writes (its issue 573).

use std::sync::Arc;
use std::time::{Duration, Instant};

use countersign::api::{SlotKind, SlotPhase, TrustDomain};
use countersign_e2e::judges::{self, openssl};
use countersign_e2e::process::Process;
use countersign_e2e::tokens::{HardwareToken, LABEL, PIN, ShownKey};
use countersign_e2e::users::OPERATOR_NAMESPACE;
use countersign_e2e::{
    ApiServer, Chronicle, Delivered, Namespace, Operator, Options, holds_for, seconds, wait_for,
};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

/// All that a key of ours may be.
const ACCESS: &str = "sensitive, always sensitive, never extractable, local";
/// Kills of the making of a key, each a little later than the one before.
const KILLS: usize = 40;
const LAG: SignedDuration = SignedDuration::from_secs(1);

#[tokio::test]
async fn a_softhsm_makes_the_keys_and_signs_and_none_of_them_leaves_it() {
    let token = HardwareToken::softhsm();
    let server = ApiServer::start().await;
    let ns = Namespace::create(&server, "softhsm").await;
    let operator = Operator::start_leading(&server, options(&token, "first")).await;
    put_pin(&ns.client, "hsm-pin", "a wrong one").await;
    ns.trust_domain("hsm", spec(&ns, &token)).await;
    ns.identity("planner", json!({"trustDomain": "hsm"})).await;
    let message = ready(&ns.client, "hsm", "False", "TokenRefused").await;
    assert!(message.contains("refuses the PIN"), "{message}");
    ns.not_ready("planner", "AuthorityNotReady").await;
    holds_for("nothing is made, and the PIN is tried once", seconds(7), async || {
        let tries = operator.log().matches("the PIN is refused").count();
        match (tries, slots(&ns.client, "hsm").await.len()) {
            (1, 0) => Ok(()),
            other => Err(other),
        }
    })
    .await;

    // As `echo` leaves it.
    put_pin(&ns.client, "hsm-pin", &format!("{PIN}\n")).await;
    ready(&ns.client, "hsm", "True", "Active").await;
    let chronicle = Chronicle::of(&ns.client, "hsm", "hsm.test").await;
    settled(&chronicle, "root-1 Active, issuing-1 Active").await;
    ns.settled("planner").await;
    assert_eq!(ends_alike(&ns, &token, ["hsm-issuing-1", "hsm-root-1"]).await, 0);
    for key in token.keys() {
        assert_eq!(key.access, ACCESS, "{key:?}");
    }
    judged_by_openssl(&ns).await;

    // The issuing CA alone, and then the root with it.
    change(&ns.client, json!({"atLeast": {"issuing": 2}})).await;
    settled(&chronicle, "root-1 Active, issuing-1 Retiring, issuing-2 Active").await;
    change(&ns.client, json!({"atLeast": {"root": 2}})).await;
    let end = "root-1 Retiring, root-2 Active, \
               issuing-1 Retiring, issuing-2 Retiring, issuing-3 Active";
    settled(&chronicle, end).await;
    let history = chronicle.history();
    history.judge_slots();
    println!("rotations in a SoftHSM: {:?}", history.judge_trust(LAG));
    judged_by_openssl(&ns).await;

    // What is distrusted is destroyed at once: the Secrets, and the keys in the token.
    let status = get(&ns.client, "hsm").await.status.unwrap();
    let old = status.slots.iter().find(|slot| slot.name.ends_with("root-1")).unwrap();
    change(&ns.client, json!({"distrust": [old.key_id]})).await;
    assert_eq!(ends_alike(&ns, &token, ["hsm-issuing-3", "hsm-root-2"]).await, 0);
    operator.stop(seconds(20)).await;

    // The same keys are found by an operator that never saw them.
    let operator = Operator::start_leading(&server, options(&token, "second")).await;
    ns.identity("late", json!({"trustDomain": "hsm"})).await;
    ns.settled("late").await;
    assert_eq!(ends_alike(&ns, &token, ["hsm-issuing-3", "hsm-root-2"]).await, 0);

    // And with its TrustDomain goes everything, a key that has no Secret yet among it.
    without_a_secret(&ns, &token, &operator, 3).await;
    for name in ["planner", "late"] {
        ns.identities().delete(name, &Default::default()).await.unwrap();
    }
    let api: Api<TrustDomain> = Api::all(ns.client.clone());
    api.delete("hsm", &Default::default()).await.unwrap();
    assert_eq!(ends_alike(&ns, &token, []).await, 0);
}

#[tokio::test]
async fn a_token_that_is_unplugged_takes_no_certificate_with_it() {
    let token = HardwareToken::softhsm();
    let (server, ns, operator) = begun(&token, "unplugged").await;
    ns.settled("planner").await;
    let living = ns.secret_of("planner").await;

    token.unplug();
    let message = ready(&ns.client, "hsm", "False", "AuthorityUnavailable").await;
    assert!(message.contains("1 agents go on"), "{message}");
    ns.identity("late", json!({"trustDomain": "hsm"})).await;
    holds_for("what lives is left alone", seconds(3), async || {
        let planner = ns.secret_of("planner").await;
        let late = ns.secret("late-identity").await;
        if planner == living && late.is_none() { Ok(()) } else { Err((planner, late)) }
    })
    .await;
    let metrics = operator.metrics().await;
    let is_available = metrics.get("countersign_authority_available", &[("trust_domain", "hsm")]);
    assert_eq!(is_available, Some(0.0));

    token.plug_in();
    ready(&ns.client, "hsm", "True", "Active").await;
    ns.settled("late").await;
    assert_eq!(ns.secret_of("planner").await, living);
    assert_eq!(ends_alike(&ns, &token, ["hsm-issuing-1", "hsm-root-1"]).await, 0);

    // Nor does an operator that begins while it is away.
    token.unplug();
    operator.kill();
    server.forget_leader().await;
    let _operator = Operator::start_leading(&server, options(&token, "second")).await;
    ready(&ns.client, "hsm", "False", "AuthorityUnavailable").await;
    assert_eq!(ns.secret_of("planner").await, living);
    token.plug_in();
    ready(&ns.client, "hsm", "True", "Active").await;
    ns.identity("latest", json!({"trustDomain": "hsm"})).await;
    ns.settled("latest").await;
    assert_eq!(ends_alike(&ns, &token, ["hsm-issuing-1", "hsm-root-1"]).await, 0);
}

/// The moment between a key in the token and the Secret that tells of it.
#[tokio::test]
async fn a_key_whose_secret_was_never_written_is_taken_up_by_the_next_operator() {
    let token = HardwareToken::softhsm();
    let (server, ns, operator) = begun(&token, "orphan").await;
    let chronicle = Chronicle::of(&ns.client, "hsm", "hsm.test").await;
    settled(&chronicle, "root-1 Active, issuing-1 Active").await;

    let (verbs, orphan) = without_a_secret(&ns, &token, &operator, 2).await;
    operator.kill();
    server.forget_leader().await;
    assert_eq!(slots(&ns.client, "hsm").await, ["hsm-issuing-1", "hsm-root-1"]);
    may_create_secrets(&ns.client, Some(verbs)).await;

    let operator = Operator::start_leading(&server, options(&token, "second")).await;
    let end = "root-1 Retiring, root-2 Active, issuing-1 Retiring, issuing-2 Active";
    settled(&chronicle, end).await;
    let names = ["hsm-issuing-1", "hsm-issuing-2", "hsm-root-1", "hsm-root-2"];
    assert_eq!(ends_alike(&ns, &token, names).await, 0);
    assert!(token.keys().contains(&orphan), "the same key, not another of its name");
    chronicle.history().judge_slots();

    // Where CAs are not made in the token any more, nobody would take one up: it goes with the last.
    let (verbs, _) = without_a_secret(&ns, &token, &operator, 3).await;
    let authority = json!({"pkcs11": null, "selfSigned": {}});
    merge(&ns.client, json!({"authority": authority})).await;
    may_create_secrets(&ns.client, Some(verbs)).await;
    chronicle
        .until("the operator's own root signs", seconds(90), |history| {
            let now = history.phases_now();
            if now.contains("root-3 Active") { history.is_settled(1) } else { Err(now) }
        })
        .await;
    let status = get(&ns.client, "hsm").await.status.unwrap();
    let roots = status.slots.iter().filter(|slot| slot.kind == SlotKind::Root);
    let retiring = roots.filter(|slot| slot.phase == SlotPhase::Retiring);
    let key_ids: Vec<_> = retiring.map(|slot| slot.key_id.clone()).collect();
    change(&ns.client, json!({"distrust": key_ids})).await;
    assert_eq!(holds(&token, &[]).await, 0);
}

#[tokio::test]
async fn an_operator_that_is_killed_at_every_write_leaves_no_key_behind() {
    let token = HardwareToken::softhsm();
    let (server, ns, operator) = begun(&token, "killed").await;
    let chronicle = Chronicle::of(&ns.client, "hsm", "hsm.test").await;
    settled(&chronicle, "root-1 Active, issuing-1 Active").await;
    ns.settled("planner").await;
    operator.kill();
    server.forget_leader().await;

    let status = get(&ns.client, "hsm").await.status.unwrap();
    let old = status.slots.iter().find(|slot| slot.name.ends_with("root-1")).unwrap();
    change(&ns.client, json!({"distrust": [old.key_id]})).await;
    let mut lives = 0;
    while slots(&ns.client, "hsm").await != ["hsm-issuing-2", "hsm-root-2"] {
        lives += 1;
        assert!(lives < 40, "no end: {:?}", chronicle.history().phases());
        one_life(&server, options(&token, &format!("life-{lives}"))).await;
    }
    let _operator = Operator::start_leading(&server, options(&token, "last")).await;
    settled(&chronicle, "root-2 Active, issuing-2 Active").await;
    ns.settled("planner").await;
    let halves = ends_alike(&ns, &token, ["hsm-issuing-2", "hsm-root-2"]).await;
    println!(
        "a rotation in a SoftHSM, killed after every write: {lives} lives, {halves} halves of keys"
    );
}

/// SoftHSM writes a key in steps. Whatever a kill leaves of one, the next operator has a key.
#[test]
fn a_key_whose_making_is_killed_between_any_two_steps_is_made_all_the_same() {
    let token = HardwareToken::softhsm();
    let names: Vec<String> = (0..KILLS).map(|number| format!("key-{number:02}")).collect();
    for (number, name) in (0..).zip(&names) {
        let before = token.object_files();
        let log = countersign_e2e::workspace::scratch("killed").join("log");
        let mut command = token.program();
        command.args(["--make", name]);
        let mut making = Process::spawn("token", command, &log);
        // The public half is begun, or the private half, and then a moment more each time.
        while token.object_files() < before + 1 + number % 2 && making.exit_status().is_none() {}
        let moment = Instant::now();
        while moment.elapsed() < Duration::from_micros(100) * u32::try_from(number).unwrap() {}
        making.kill();
        judges::run(token.program().args(["--make", name]), "");
    }
    let (whole, halves): (Vec<_>, Vec<_>) = token.keys().into_iter().partition(ShownKey::is_whole);
    let labels: Vec<_> = whole.iter().map(|key| &key.label).collect();
    assert_eq!(labels, names.iter().collect::<Vec<_>>(), "one key each");
    judges::run(token.program().arg("--sweep"), "");
    let left = token.keys();
    assert!(left.iter().all(|half| half.label.is_empty() && !half.is_whole()), "{left:?}");
    println!(
        "killed while making a key: {KILLS} times, {} halves, {} of them without a label",
        halves.len(),
        left.len()
    );
}

#[tokio::test]
async fn a_tpm_makes_the_keys_and_signs() {
    let token = HardwareToken::tpm().await;
    let (_, ns, _operator) = begun(&token, "tpm").await;
    let chronicle = Chronicle::of(&ns.client, "hsm", "hsm.test").await;
    settled(&chronicle, "root-1 Active, issuing-1 Active").await;
    ns.settled("planner").await;
    judged_by_openssl(&ns).await;
    change(&ns.client, json!({"atLeast": {"root": 2}})).await;
    settled(&chronicle, "root-1 Retiring, root-2 Active, issuing-1 Retiring, issuing-2 Active")
        .await;
    chronicle.history().judge_slots();
    println!("a rotation in a TPM: {:?}", chronicle.history().judge_trust(LAG));
    judged_by_openssl(&ns).await;
    // pkcs11-tool cannot be asked: without a resource manager, what the operator loaded fills the
    // TPM's three places. What the Secrets hold says enough: no key.
    for secret in ca_secrets(&ns.client, "hsm").await {
        let data = secret.data.unwrap_or_default();
        assert_eq!(data.keys().collect::<Vec<_>>(), ["tls.crt", "tls.key", "tls.key.uri"]);
        assert!(data["tls.key"].0.is_empty());
    }
}

/// An operator with the token, a TrustDomain whose CA keys are in it, and an agent.
async fn begun(token: &HardwareToken, test: &str) -> (Arc<ApiServer>, Namespace, Operator) {
    let server = ApiServer::start().await;
    let ns = Namespace::create(&server, test).await;
    put_pin(&ns.client, "hsm-pin", PIN).await;
    let operator = Operator::start_leading(&server, options(token, "first")).await;
    ns.trust_domain("hsm", spec(&ns, token)).await;
    ns.identity("planner", json!({"trustDomain": "hsm"})).await;
    (server, ns, operator)
}

fn options(token: &HardwareToken, replica: &str) -> Options {
    Options { environment: token.environment.clone(), ..Options::replica(replica) }
}

fn spec(ns: &Namespace, token: &HardwareToken) -> Value {
    json!({
        "domain": "hsm.test",
        "authority": {"pkcs11": {
            "module": token.module.display().to_string(),
            "tokenLabel": LABEL,
            "pinSecretRef": {"name": "hsm-pin"},
        }},
        "ca": {"soak": "2s"},
        "bundle": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": ns.name}}},
    })
}

async fn put_pin(client: &Client, name: &str, pin: &str) {
    let api: Api<Secret> = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
    let patch = Patch::Apply(json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": name}, "stringData": {"pin": pin},
    }));
    api.patch(name, &PatchParams::apply("test").force(), &patch).await.expect("the PIN is put");
}

async fn get(client: &Client, name: &str) -> TrustDomain {
    Api::all(client.clone()).get(name).await.expect("there is such a TrustDomain")
}

/// Merges a change into spec.ca.
async fn change(client: &Client, ca: Value) {
    merge(client, json!({"ca": ca})).await;
}

/// Merges a change into the spec.
async fn merge(client: &Client, spec: Value) {
    let api: Api<TrustDomain> = Api::all(client.clone());
    let patch = Patch::Merge(json!({"spec": spec}));
    api.patch("hsm", &PatchParams::default(), &patch).await.expect("it is changed");
}

/// Waits until `Ready` says so, and gives its message.
async fn ready(client: &Client, name: &str, status: &str, reason: &str) -> String {
    wait_for(&format!("Ready={status}, {reason}"), seconds(120), async || {
        let conditions = get(client, name).await.status.unwrap_or_default().conditions;
        let found = conditions.into_iter().find(|condition| condition.type_ == "Ready");
        match found {
            Some(found) if found.status == status && found.reason == reason => Ok(found.message),
            other => Err(other),
        }
    })
    .await
}

async fn settled(chronicle: &Chronicle, phases: &str) {
    chronicle
        .until(phases, seconds(90), |history| {
            let now = history.phases_now();
            if now != phases { Err(now) } else { history.is_settled(1) }
        })
        .await;
}

/// The CA Secrets of a trust domain, without what all their names begin with.
async fn slots(client: &Client, trust_domain: &str) -> Vec<String> {
    let mut names: Vec<String> = ca_secrets(client, trust_domain)
        .await
        .iter()
        .map(|secret| secret.name_any().replace("countersign-ca-", ""))
        .collect();
    names.sort();
    names
}

async fn ca_secrets(client: &Client, trust_domain: &str) -> Vec<Secret> {
    let api: Api<Secret> = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
    let list = kube::api::ListParams::default()
        .labels(&format!("countersign.dev/trust-domain={trust_domain}"));
    api.list(&list).await.expect("Secrets are listed").items
}

/// Waits until these CA Secrets are there and no others, and sees that each has its key in the
/// token, by the id that it tells, and that the token has no other keys. Gives how many halves of
/// keys are in it.
async fn ends_alike<const N: usize>(
    ns: &Namespace,
    token: &HardwareToken,
    names: [&str; N],
) -> usize {
    wait_for(&format!("{names:?} alone are there"), seconds(90), async || {
        let found = slots(&ns.client, "hsm").await;
        if found == names { Ok(()) } else { Err(found) }
    })
    .await;
    let mut told = Vec::new();
    for secret in ca_secrets(&ns.client, "hsm").await {
        let data = secret.data.clone().unwrap_or_default();
        assert_eq!(data.keys().collect::<Vec<_>>(), ["tls.crt", "tls.key", "tls.key.uri"]);
        assert!(data["tls.key"].0.is_empty());
        assert!(data.values().all(|file| !String::from_utf8_lossy(&file.0).contains("PRIVATE")));
        let uri = String::from_utf8(data["tls.key.uri"].0.clone()).expect("a URI is text");
        let id = uri.split(";id=").nth(1).and_then(|rest| rest.split(';').next()).expect("an id");
        told.push((secret.name_any(), id.replace('%', "")));
    }
    told.sort();
    holds(token, &told).await
}

/// Waits until the token has these keys, by label and id, and no others. Gives how many halves of
/// keys are in it.
async fn holds(token: &HardwareToken, expected: &[(String, String)]) -> usize {
    wait_for("there is a key for each CA, and no other", seconds(90), async || {
        let (whole, halves): (Vec<_>, Vec<_>) =
            token.keys().into_iter().partition(ShownKey::is_whole);
        let held: Vec<_> = whole.into_iter().map(|key| (key.label, key.id)).collect();
        if held == expected { Ok(halves.len()) } else { Err((held, halves)) }
    })
    .await
}

/// Has a root of this number made, and refuses the Secret that would tell of it. Gives the rights that
/// were taken, and the key.
async fn without_a_secret(
    ns: &Namespace,
    token: &HardwareToken,
    operator: &Operator,
    root: u32,
) -> (Value, ShownKey) {
    let rights = may_create_secrets(&ns.client, None).await;
    let before = operator.log().matches("forbidden").count();
    change(&ns.client, json!({"atLeast": {"root": root}})).await;
    wait_for("its Secret is refused more than once", seconds(60), async || {
        match operator.log().matches("forbidden").count() - before {
            0 | 1 => Err(operator.log()),
            _ => Ok(()),
        }
    })
    .await;
    let keys = token.keys();
    let key = keys.iter().find(|key| key.label.ends_with(&format!("hsm-root-{root}")));
    (rights, key.unwrap_or_else(|| panic!("the key is made before: {keys:?}")).clone())
}

/// OpenSSL says that the agent's certificate is good under the bundle, and by whom it is signed.
async fn judged_by_openssl(ns: &Namespace) {
    ns.settled("planner").await;
    let delivered = Delivered::read(&ns.secret_of("planner").await);
    delivered.judge(&format!("spiffe://hsm.test/ns/{}/sa/planner", ns.name));
    let secret = ns.secret_of("planner").await;
    let file =
        |name: &str| String::from_utf8(secret.data.clone().unwrap()[name].0.clone()).unwrap();
    let folder = countersign_e2e::workspace::scratch("judged");
    let (chain, root) = (folder.join("tls.crt"), folder.join("ca.crt"));
    std::fs::write(&chain, file("tls.crt")).expect("a scratch folder is writable");
    std::fs::write(&root, file("ca.crt")).expect("a scratch folder is writable");
    let (chain, root) = (chain.display().to_string(), root.display().to_string());
    let said = openssl(&["verify", "-CAfile", &root, "-untrusted", &chain, &chain], "");
    assert!(said.contains(": OK"), "{said}");
}

/// Takes the right to create Secrets from the operator, or gives its rights back. Gives the rules
/// that it had.
async fn may_create_secrets(client: &Client, rules: Option<Value>) -> Value {
    let api: Api<ClusterRole> = Api::all(client.clone());
    let role = api.get("countersign").await.expect("the operator has a ClusterRole");
    let before = json!(role.rules.clone());
    let after = rules.unwrap_or_else(|| {
        let mut rules = role.rules.clone().unwrap_or_default();
        for rule in &mut rules {
            let is_of_secrets =
                rule.resources.as_ref().is_some_and(|all| all.iter().any(|one| one == "secrets"));
            if is_of_secrets {
                rule.verbs.retain(|verb| verb != "create");
            }
        }
        json!(rules)
    });
    let mut changed = role;
    changed.rules = serde_json::from_value(after).expect("rules are rules");
    api.replace("countersign", &PostParams::default(), &changed).await.expect("it is replaced");
    before
}

/// One life of an operator: until its first write.
async fn one_life(server: &ApiServer, options: Options) {
    let mut tail = server.next_requests_by(countersign_e2e::User::Operator);
    let operator = Operator::spawn(server, options);
    let until = std::time::Instant::now() + seconds(20);
    // One that finds nothing more to write lives on: whoever calls looks whether all is done.
    while std::time::Instant::now() < until {
        match tail.next_request() {
            Some(request)
                if request.is_write()
                    && request.code < 300
                    && request.resource != "leases"
                    && request.resource != "events" =>
            {
                break;
            }
            Some(_) => {}
            None => tokio::time::sleep(std::time::Duration::from_millis(1)).await,
        }
    }
    operator.kill();
    server.forget_leader().await;
}
