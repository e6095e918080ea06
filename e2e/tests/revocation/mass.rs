//! `countersign revoke`: one by name, and a thousand at once.

use std::process::Command;
use std::time::Instant;

use countersign::api::AgentIdentity;
use countersign_e2e::crls::serials_of;
use countersign_e2e::{Namespace, User, World, seconds, wait_for, workspace};
use futures::StreamExt;
use kube::api::PostParams;
use serde_json::json;

use super::TEST;

/// An emergency.
const MANY: usize = 1000;

#[tokio::test]
async fn a_person_revokes_one_and_gives_it_back() {
    let ns = World::shared().await.namespace("by-hand").await;
    ns.identity("planner", json!({})).await;
    let leaf = ns.settled("planner").await;
    let (good, said) = typed(&ns, &["revoke", "nobody", "--reason", "KeyCompromise"]);
    assert!(!good && said.contains("there is no AgentIdentity nobody"), "{said}");
    let (good, said) = typed(&ns, &["revoke", "planner", "--reason", "Boredom"]);
    assert!(!good && said.contains("Boredom"), "{said}");
    let (good, said) = typed(&ns, &["revoke", "planner", "--reason", "keycompromise"]);
    assert!(good && said.contains("1 agent revoked"), "{said}");
    ns.condition("planner", "Revoked", "True", None).await;
    assert!(serials_of(&ns.crls(TEST).await).contains(&leaf.serial));
    let (good, said) = typed(&ns, &["revoke", "planner", "--reason", "Superseded"]);
    assert!(good && said.contains("revoked already since"), "{said}");
    let (good, said) = typed(&ns, &["unrevoke", "planner"]);
    assert!(good && said.contains("1 agent given back"), "{said}");
    let again = ns.settled("planner").await;
    assert_ne!(again.serial, leaf.serial);

    let serial = ["revoke", "planner", "--reason", "KeyCompromise", "--serial", &again.serial];
    let (good, said) = typed(&ns, &serial);
    assert!(good && said.contains(&again.serial), "{said}");
    ns.on_crl(TEST, &[again.serial.clone()].into()).await;
    let (good, said) =
        typed(&ns, &["revoke", "planner", "--reason", "KeyCompromise", "--serial", "00"]);
    assert!(!good && said.contains("no living certificate"), "{said}");
}

#[tokio::test]
async fn a_thousand_are_cut_off_at_once() {
    let world = World::start().await;
    let ns = world.namespace("many").await;
    futures::stream::iter(0..MANY)
        .for_each_concurrent(32, |number| {
            let object =
                ns.identity_object(&format!("agent-{number}"), json!({"role": "executor"}));
            let identity: AgentIdentity = serde_json::from_value(object).expect("a good spec");
            let identities = ns.identities();
            async move {
                let created = identities.create(&PostParams::default(), &identity).await;
                created.expect("it is created");
            }
        })
        .await;
    wait_for("all are Ready", seconds(120), async || {
        let ready = count(&ns, "Ready").await;
        if ready == MANY { Ok(()) } else { Err(ready) }
    })
    .await;
    let before = ns.operators_writes().len();
    let (good, said) =
        typed(&ns, &["revoke", "--role", "executor", "--reason", "PrivilegeWithdrawn"]);
    assert!(!good && said.contains("--yes") && said.contains("1000 agents"), "{said}");
    assert_eq!(count(&ns, "Revoked").await, 0);

    let began = Instant::now();
    let flags = ["--role", "executor", "--reason", "PrivilegeWithdrawn", "--yes"];
    let (good, said) = typed(&ns, &[&["revoke"], flags.as_slice()].concat());
    assert!(good && said.contains("1000 agents revoked"), "{said}");
    assert_eq!(count(&ns, "Revoked").await, MANY);
    assert_eq!(serials_of(&ns.crls(TEST).await).len(), MANY);
    let counts = ns.operators_writes().after(before).counts();
    println!("1,000 revoked in {:?}: {counts:?}\n{said}", began.elapsed());
    assert_eq!((counts["patch secrets"], counts["patch agentidentities/status"]), (MANY, MANY));
    assert!(counts["update configmaps"] <= 12, "one write a second and namespace: {counts:?}");
}

async fn count(ns: &Namespace, condition: &str) -> usize {
    let all = ns.identities().list(&Default::default()).await.expect("they are listed");
    let holds = |identity: &&AgentIdentity| {
        let conditions = identity.status.iter().flat_map(|status| &status.conditions);
        conditions.into_iter().any(|c| c.type_ == condition && c.status == "True")
    };
    all.iter().filter(holds).count()
}

/// What a person types, who is in this namespace. True where it ended well, and what it said.
fn typed(ns: &Namespace, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(workspace::built("countersign"));
    command.env_clear().args(arguments).arg("--kubeconfig").arg(ns.server.kubeconfig(User::Admin));
    command.args(["--namespace", &ns.name]);
    let output = command.output().expect("the program runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said)
}
