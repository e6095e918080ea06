//! `countersign revoke`: one by name, and a thousand at once.

use std::process::Command;
use std::time::Instant;

use countersign::api::AgentIdentity;
use countersign_e2e::crls::serials_of;
use countersign_e2e::{Namespace, User, World, gone, seconds, wait_for, workspace};
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
async fn whoever_lacks_the_right_is_told_before_anything_is_done() {
    let ns = World::shared().await.namespace("no-right").await;
    ns.identity("planner", json!({"role": "planner"})).await;
    let leaf = ns.settled("planner").await;
    let rbac = "rbac.authorization.k8s.io";
    let bind = async |role: &str| {
        ns.put(json!({
            "apiVersion": format!("{rbac}/v1"), "kind": "RoleBinding", "metadata": {"name": role},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "User", "name": User::Member.name(), "apiGroup": rbac}],
        }))
        .await;
    };
    bind("countersign-view").await;
    bind("countersign-edit").await;
    let member = |arguments: &[&str]| typed_by(User::Member, &ns, arguments);
    let told = "you may not revoke AgentIdentities of namespace";
    let reason = ["--reason", "KeyCompromise"];
    for arguments in [
        &["revoke", "planner"][..],
        &["revoke", "--role", "planner", "--yes"],
        &["revoke", "planner", "--serial", &leaf.serial],
    ] {
        let (good, said) = wait_for("the roles are known", seconds(10), async || {
            let said = member(&[arguments, &reason].concat());
            if said.1.contains("cannot be listed") || said.1.contains("you may not read") {
                Err(said)
            } else {
                Ok(said)
            }
        })
        .await;
        assert!(!good && said.contains(told) && said.contains("countersign-revoker"), "{said}");
    }
    bind("countersign-revoker").await;
    wait_for("it does with the role", seconds(10), async || {
        let (good, said) = member(&["revoke", "planner", "--reason", "KeyCompromise"]);
        if good { Ok(()) } else { Err(said) }
    })
    .await;
    let identity = ns.condition("planner", "Revoked", "True", None).await;
    let conditions = identity.status.unwrap().conditions;
    assert!(conditions.iter().any(|c| c.message.contains(", by member")), "{conditions:?}");
    assert!(!member(&["unrevoke", "planner"]).1.contains(told));
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

    let (good, said) = typed(&ns, &["unrevoke", "--role", "executor", "--yes"]);
    assert!(good && said.contains("1000 agents given back"), "{said}");
    let mut issued = serials_of(&ns.crls(TEST).await);
    issued.extend(current(&ns).await);
    let before = ns.operators_writes().len();
    let began = Instant::now();
    ns.identities().delete_collection(&Default::default(), &Default::default()).await.unwrap();
    gone("the identities", seconds(60), async || {
        let left = ns.identities().list(&Default::default()).await.unwrap().items.len();
        (left > 0).then_some(left)
    })
    .await;
    let counts = ns.operators_writes().after(before).counts();
    println!("1,000 deleted in {:?}: {counts:?}", began.elapsed());
    // Whoever is deleted before a status that counts its certificate is seen may have the number of
    // its next on the CRL too: it is never used then (design/20261124-ledger.md). Such are few.
    let serials = serials_of(&ns.crls(TEST).await);
    assert!(issued.is_subset(&serials), "one that was issued is not revoked");
    assert_eq!(issued.len(), 2 * MANY);
    assert!(serials.len() <= 2 * MANY + MANY / 20, "{} are listed", serials.len());
    assert_eq!(counts["patch agentidentities"], MANY);
    assert!(counts["update configmaps"] <= 30, "one write a second and namespace: {counts:?}");
}

/// The serial numbers of the certificates in use.
async fn current(ns: &Namespace) -> Vec<String> {
    let all = ns.identities().list(&Default::default()).await.expect("they are listed");
    let of = |identity: AgentIdentity| Some(identity.status?.certificate?.serial_number);
    all.into_iter().filter_map(of).collect()
}

async fn count(ns: &Namespace, condition: &str) -> usize {
    let all = ns.identities().list(&Default::default()).await.expect("they are listed");
    let holds = |identity: &&AgentIdentity| {
        let conditions = identity.status.iter().flat_map(|status| &status.conditions);
        conditions.into_iter().any(|c| c.type_ == condition && c.status == "True")
    };
    all.iter().filter(holds).count()
}

/// What an administrator types, who is in this namespace. True where it ended well, and what it said.
fn typed(ns: &Namespace, arguments: &[&str]) -> (bool, String) {
    typed_by(User::Admin, ns, arguments)
}

fn typed_by(user: User, ns: &Namespace, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(workspace::built("countersign"));
    command.env_clear().args(arguments).arg("--kubeconfig").arg(ns.server.kubeconfig(user));
    command.args(["--namespace", &ns.name]);
    let output = command.output().expect("the program runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said)
}
