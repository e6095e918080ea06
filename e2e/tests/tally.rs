//! No handshake fails: rustls, Go, OpenSSL and Envoy call each other all the time, while root and
//! issuing CA are replaced, the operator is killed after every write of that, and the API server
//! is killed and started.

use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use countersign::api::TrustDomain;
use countersign_e2e::chronicle::History;
use countersign_e2e::lives::Lives;
use countersign_e2e::peers::{self, CREW, Crew, Tally};
use countersign_e2e::{Chronicle, Namespace, World, seconds, workspace};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

/// Calls a second of each pair, of which there are 16.
const RATE: f64 = 15.0;
/// The operator counts whole seconds, volumes and agents lag by up to four, and the machine may be
/// busy.
const SOAK: &str = "10s";
/// What each pair must have tried in the end. A rate would say more of the machine.
const LEAST: u64 = 100;

const BEFORE: &str = "root-1 Active, issuing-1 Active";
const PREPARED: &str = "root-1 Active, root-2 Prepared, issuing-1 Active, issuing-2 Prepared";
const ROOT_REPLACED: &str = "root-1 Retiring, root-2 Active, issuing-1 Retiring, issuing-2 Active";
const ALL_REPLACED: &str = "root-1 Retiring, root-2 Active, \
                            issuing-1 Retiring, issuing-2 Retiring, issuing-3 Active";

#[tokio::test]
async fn no_handshake_fails_while_cas_change_and_operator_and_api_server_are_killed() {
    let World { operator, server } = World::start().await;
    let ns = Arc::new(Namespace::create(&server, "tally").await);
    ns.trust_domain(
        "tally",
        json!({
            "domain": "tally.test",
            "authority": {"selfSigned": {}},
            "ca": {"soak": SOAK},
            "bundle": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": ns.name}}},
        }),
    )
    .await;
    Crew::identities(&ns, "tally").await;
    let chronicle = Chronicle::of(&ns.client, "tally", "tally.test").await;
    chronicle.until(BEFORE, seconds(60), |history| is_at(history, BEFORE)).await;
    for name in CREW {
        ns.settled(name).await;
    }
    let crew = Crew::start(&ns, "tally", "tally.test", RATE).await;
    let began = crew.each_tried(20).await;
    let quiet = Span::since(&began);
    let before = crew.each_tried(60).await;
    let quiet = quiet.rate(&before);

    operator.kill();
    server.forget_leader().await;
    let span = Span::since(&before);
    ask(&ns, json!({"root": 2})).await;
    let mut lives = Lives::of(&server, &chronicle);
    // While it soaks, an operator waits for the next step, and the API server goes under it.
    let (of_root, ()) =
        tokio::join!(lives.until(0, |history| is_at(history, ROOT_REPLACED).is_ok()), async {
            chronicle.until(PREPARED, seconds(120), soaks).await;
            crew.all_trust(2).await;
            server.restart_api_server().await;
        });
    crew.all_hold_what_is_delivered(&ns).await;

    ask(&ns, json!({"root": 2, "issuing": 3})).await;
    let of_issuing = lives.until(0, |history| is_at(history, ALL_REPLACED).is_ok()).await;
    crew.all_hold_what_is_delivered(&ns).await;
    let in_all = crew.tally().await;
    let busy = span.rate(&in_all);
    let tally = crew.each_tried(in_all.fewest() + LEAST).await;

    // Not println, which a test that passes prints nothing of: these numbers are meant to be read.
    let _ = writeln!(
        std::io::stderr(),
        "\nthe operator killed after {} writes of a root rotation and {} of an issuing rotation, \
         the API server once:\n{tally}\n    handshakes tried {}, failed {}; {quiet:.0}/s before, \
         {busy:.0}/s meanwhile",
        of_root.len(),
        of_issuing.len(),
        tally.tried(),
        tally.failed(),
    );
    let history = chronicle.history();
    history.judge_slots();
    println!("    {:?}", history.judge_trust(peers::LAG.try_into().expect("it is short")));
    assert_eq!(tally.faults, Vec::<String>::new());
    for ((client, server), pair) in &tally.pairs {
        assert_eq!(pair.failed, 0, "{client} calls {server}: {pair:?}");
        // The first, that of the new root, that of the new issuing CA.
        let is_told = (*client, *server) != ("envoy", "envoy");
        assert!(!is_told || pair.certificates.len() >= 3, "{client} calls {server}: {pair:?}");
    }
}

/// What two of them read their files with is in the README, word for word.
#[test]
fn the_examples_of_the_readme_are_what_is_tested() {
    let read = |path: &str| {
        std::fs::read_to_string(workspace::root().join(path)).expect("it is in the checkout")
    };
    let readme = read("README.md");
    for (path, from, to) in [
        ("e2e/judges/peer/files.go", "// Files reads the identity", None),
        ("e2e/judges/peer.py", "def version(", Some("\n\n\nclass Counters")),
    ] {
        let text = read(path);
        let (_, rest) = text.split_once(from).unwrap_or_else(|| panic!("{path} has no {from:?}"));
        let example = to.map_or(rest, |to| rest.split_once(to).expect("its end is there").0);
        assert!(
            readme.contains(&format!("{from}{}", example.trim_end())),
            "README.md and {path} differ: write the same in both"
        );
    }
}

/// Every CA is in its phase, and all hold what they must.
fn is_at(history: &History, phases: &str) -> Result<(), String> {
    let now = history.phases_now();
    if now != phases { Err(now) } else { history.is_settled(CREW.len()) }
}

/// The new root is in every bundle, and signs nothing yet.
fn soaks(history: &History) -> Result<(), String> {
    let now = history.phases_now();
    let roots = |bundle: &&str| bundle.matches("-BEGIN").count();
    let all = history.bundles().values().all(|bundle| roots(bundle) == 2);
    if now == PREPARED && all { Ok(()) } else { Err(now) }
}

async fn ask(ns: &Namespace, at_least: Value) {
    let api: Api<TrustDomain> = Api::all(ns.client.clone());
    let patch = Patch::Merge(json!({"spec": {"ca": {"atLeast": at_least}}}));
    api.patch("tally", &PatchParams::default(), &patch).await.expect("it is changed");
}

/// How many handshakes a second there were.
struct Span {
    began: Instant,
    tried: u64,
}

impl Span {
    fn since(tally: &Tally) -> Self {
        Self { began: Instant::now(), tried: tally.tried() }
    }

    fn rate(&self, tally: &Tally) -> f64 {
        (tally.tried() - self.tried) as f64 / self.began.elapsed().as_secs_f64()
    }
}
