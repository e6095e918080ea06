//! `countersign trust` and `countersign rotate-ca`, the program that a person types.

use std::process::{Command, Output};

use countersign_e2e::process::{Process, Signal};
use countersign_e2e::{Chronicle, Namespace, User, World, seconds, wait_for, workspace};
use serde_json::json;

use super::{ROOT_ROTATION, change, get, phases, settled, spec};

/// The program with these arguments, as somebody who may do everything.
fn countersign(ns: &Namespace, arguments: &[&str]) -> Command {
    let mut command = Command::new(workspace::built("countersign"));
    command.env_clear().args(arguments).arg("--kubeconfig").arg(ns.server.kubeconfig(User::Admin));
    command
}

/// What it prints, where it ends with 0 and says nothing of a failure.
async fn prints(ns: &Namespace, arguments: &[&str]) -> String {
    let output = ends(ns, arguments).await;
    let (said, failure) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && failure.is_empty(), "{arguments:?}: {failure}\n{said}");
    said
}

/// The one sentence of a failure, and 1.
async fn fails(ns: &Namespace, arguments: &[&str]) -> String {
    let output = ends(ns, arguments).await;
    let failure = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {failure}");
    assert!(failure.starts_with("countersign: ") && failure.lines().count() == 1, "{failure}");
    failure
}

async fn ends(ns: &Namespace, arguments: &[&str]) -> Output {
    let mut command = countersign(ns, arguments);
    command.stdin(std::process::Stdio::null());
    let run = tokio::task::spawn_blocking(move || command.output());
    let output = tokio::time::timeout(seconds(90), run).await.expect("it ends");
    output.expect("it is not aborted").expect("the program can be started")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn a_person_rotates_a_ca_and_follows_it() {
    let ns = World::shared().await.namespace("typed").await;
    ns.trust_domain("typed", spec(&ns, "typed", "1h")).await;
    ns.identity("planner", json!({"trustDomain": "typed"})).await;
    let chronicle = Chronicle::of(&ns.client, "typed", "typed.test").await;
    settled(&chronicle, ROOT_ROTATION[0], 1).await;

    let failure = fails(&ns, &["trust", "nobody"]).await;
    assert!(failure.contains("nobody"), "{failure}");
    let failure = fails(&ns, &["rotate-ca", "nobody"]).await;
    assert!(failure.contains("nobody"), "{failure}");
    wait_for("its identity is counted", seconds(20), async || {
        let counts = get(&ns.client, "typed").await.status.and_then(|status| status.identities);
        if counts.is_some_and(|counts| counts.ready == 1) { Ok(()) } else { Err(counts) }
    })
    .await;
    let drawn = prints(&ns, &["trust", "typed"]).await;
    for part in ["spiffe://typed.test", "root 1 ", "issuing 1 ", "sequence 1", "of them ready 1"] {
        assert!(drawn.contains(part), "{part:?} in\n{drawn}");
    }
    assert!(!drawn.contains("Prepared"), "{drawn}");

    let asked = prints(&ns, &["rotate-ca", "typed", "--no-wait"]).await;
    assert!(asked.contains("countersign trust typed"), "{asked}");
    let at_least = get(&ns.client, "typed").await.spec.ca.at_least.expect("it was asked for");
    assert_eq!((at_least.root, at_least.issuing), (Some(2), None));
    phases(&chronicle, ROOT_ROTATION[1]).await;
    wait_for("it draws the new root in a new bundle", seconds(20), async || {
        let drawn = prints(&ns, &["trust", "typed"]).await;
        let parts = ["root 2 ", "Prepared", "sequence 2"];
        if parts.iter().all(|part| drawn.contains(part)) { Ok(()) } else { Err(drawn) }
    })
    .await;

    // Typed again, it follows the one that runs; Ctrl-C ends the following and nothing else.
    let log = ns.server.folder().join("rotate-ca.log");
    let mut following =
        Process::spawn("rotate-ca", countersign(&ns, &["rotate-ca", "typed"]), &log);
    wait_for("it shows that the new bundle soaks", seconds(60), async || {
        let shown = following.log();
        if shown.contains("soaking") { Ok(()) } else { Err(shown) }
    })
    .await;
    following.signal(Signal::Interrupt);
    let status = following.exits_within(seconds(10)).await;
    let shown = following.log();
    assert_eq!(status.code(), Some(1), "{shown}");
    let last = shown.lines().last().unwrap_or_default();
    assert!(last.starts_with("countersign: ") && last.contains("the rotation goes on"), "{shown}");
    assert_eq!(
        get(&ns.client, "typed").await.spec.ca.at_least,
        Some(at_least),
        "it asked for no more"
    );
    assert_eq!(chronicle.history().phases_now(), ROOT_ROTATION[1]);

    change(&ns.client, "typed", json!({"spec": {"ca": {"soak": "1s"}}})).await;
    let shown = prints(&ns, &["rotate-ca", "typed"]).await;
    assert!(shown.contains("root 2"), "{shown}");
    settled(&chronicle, ROOT_ROTATION[2], 1).await;
}

#[tokio::test]
async fn a_ca_is_distrusted_only_by_somebody_who_means_it() {
    let ns = World::shared().await.namespace("meant").await;
    ns.trust_domain("meant", spec(&ns, "meant", "1h")).await;
    ns.identity("planner", json!({"trustDomain": "meant"})).await;
    let chronicle = Chronicle::of(&ns.client, "meant", "meant.test").await;
    settled(&chronicle, ROOT_ROTATION[0], 1).await;
    let slots = get(&ns.client, "meant").await.status.unwrap().slots;
    let key = slots[0].key_id.clone();
    let emergency = ["rotate-ca", "meant", "--emergency", "--distrust", &key];

    let output = ends(&ns, &emergency).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("--yes"), "{}", text(&output.stderr));
    let warning = text(&output.stdout);
    assert!(warning.contains('1') && warning.contains("refused"), "{warning}");
    let domain = get(&ns.client, "meant").await;
    assert_eq!((domain.spec.ca.distrust, domain.status.unwrap().slots), (Vec::new(), slots));

    let shown = prints(&ns, &[&emergency[..], &["--yes"]].concat()).await;
    assert!(shown.contains("distrusted"), "{shown}");
    assert_eq!(get(&ns.client, "meant").await.spec.ca.distrust, [key]);
    settled(&chronicle, "root-2 Active, issuing-2 Active", 1).await;
}
