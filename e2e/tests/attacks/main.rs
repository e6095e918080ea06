//! Every way that we know of to forge a label, as those try it who have every right that RBAC can
//! give in a namespace. Each is refused with a sentence, and nothing is written.
//!
//! `cargo test --package countersign-e2e --test attacks -- --nocapture` prints the table.

mod attack;
mod pods;
mod revoking;
mod rows;
mod scene;

use attack::{Attack, Verb};
use countersign_e2e::{User, World};
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};
use pods::pod;
use scene::Scene;
use serde_json::{Value, json};

#[tokio::test]
async fn every_attack_is_refused_and_nothing_is_written() {
    let scene = Scene::set(World::start().await).await;
    let server = scene.room.server.clone();
    let rbac = "rbac.authorization.k8s.io";
    scene.entitle(json!({"kind": "User", "name": "member", "apiGroup": rbac})).await;
    let account =
        json!({"kind": "ServiceAccount", "name": "default", "namespace": scene.room.name});
    scene.entitle(account).await;
    let member = server.client_of(User::Member).await;
    let account = scene.client_of_service_account("default").await;
    let admin = server.client().await;
    let operator = server.client_of(User::Operator).await;

    revoking::prepare(&scene).await;
    let editor = scene.client_of_service_account("editor").await;
    let guard = scene.client_of_service_account("guard").await;

    let before = scene.inventory().await;
    let mut table = Table::default();
    for (who, client) in [
        ("an admin of the namespace", &member),
        ("a ServiceAccount with every right", &account),
        ("a cluster-admin", &admin),
    ] {
        table.refused(who, client, pods::on_pods(&scene)).await;
        table.refused(who, client, rows::on_other_objects(&scene)).await;
        table.refused(who, client, rows::on_identities(&scene)).await;
    }
    for (who, client) in [
        ("an admin of the operator's namespace", &member),
        ("a ServiceAccount with every right there", &account),
    ] {
        table.refused(who, client, rows::on_ca_secrets(&scene)).await;
    }
    table.refused("who may write AgentIdentities", &editor, revoking::rows(&scene)).await;
    let bundle = scene.room.bundle("test").await.data.expect("it has ca.crt");
    let stolen = rows::with_a_stolen_operator_token(&scene, &bundle["ca.crt"]);
    table.refused("the operator's token", &operator, stolen).await;
    table.print();
    assert_eq!(scene.inventory().await, before, "nothing was written");

    honest(&scene, &member).await;
    ignored(&scene, &member).await;
    template(&scene, &member).await;
    revoking::harmless_and_allowed(&scene, &editor, &guard).await;
    ends(&scene, &member, &admin).await;
}

/// What is not forged is not in the way.
async fn honest(scene: &Scene, member: &Client) {
    let pods: Api<Pod> = Api::namespaced(member.clone(), &scene.room.name);
    let (identity, role, state) =
        ("countersign.dev/identity", "countersign.dev/role", "countersign.dev/state");
    for (name, account, labels, wanted) in [
        ("bare", "executor", json!({}), Some(("executor", "active"))),
        (
            "right",
            "executor",
            json!({identity: "executor", role: "executor", state: "active"}),
            Some(("executor", "active")),
        ),
        ("born-revoked", "planner", json!({}), Some(("planner", "revoked"))),
        ("selected", "narrow", json!({"app": "a"}), Some(("narrow", "active"))),
        ("unselected", "narrow", json!({"app": "b"}), None),
        ("nobody", "default", json!({"app": "b"}), None),
    ] {
        let body = serde_json::from_value(pod(account, json!({"name": name, "labels": labels})));
        let made = pods.create(&PostParams::default(), &body.unwrap()).await;
        let made = made.unwrap_or_else(|error| panic!("{name}: {error}"));
        let found = made.labels().get(identity).zip(made.labels().get(state));
        assert_eq!(found.map(|(i, s)| (i.as_str(), s.as_str())), wanted, "{name}");
    }
    let relabelled =
        change(&scene.room.name, "pods/stranger", json!({"metadata": {"labels": {"app": "y"}}}));
    assert_eq!(relabelled.send(member).await.code, 200, "a pod's own labels are its team's");
    let edited =
        change(&scene.room.name, "secrets/foreign", json!({"metadata": {"labels": {"app": "y"}}}));
    assert_eq!(edited.send(member).await.code, 200);
}

/// Subresources that take a pod and look at a part of it: the API server drops the rest.
async fn ignored(scene: &Scene, member: &Client) {
    let ours = |body: &Value| body["metadata"]["labels"]["countersign.dev/state"].clone();
    let forged = json!({"labels": {"countersign.dev/state": "active"}});
    let container = json!([{"name": "debug", "image": "debug", "targetContainerName": "agent"}]);
    for (what, subresource, body) in [
        (
            "an ephemeral container",
            "ephemeralcontainers",
            json!({"metadata": forged, "spec": {"ephemeralContainers": container}}),
        ),
        (
            "a resize",
            "resize",
            json!({"metadata": forged, "spec": {"containers": [{"name": "agent", "resources": {}}]}}),
        ),
    ] {
        let mut attack = change(&scene.room.name, &format!("pods/revoked/{subresource}"), body);
        attack.verb = Verb::Strategic;
        let answer = attack.send(member).await;
        println!("| {what} that relabels the pod | {} | taken without the label |", answer.code);
        assert!(answer.code == 200 || answer.is_refused_by_policy(), "{what}: {answer:?}");
        let pod = scene.room.api::<Pod>().get("revoked").await.unwrap();
        let pod = serde_json::to_value(pod).unwrap();
        assert_eq!(ours(&pod), "revoked", "{what}");
    }
}

/// A workload's template is taken with a warning; its pods are pods like others.
async fn template(scene: &Scene, member: &Client) {
    let labels = json!({"app": "x", "countersign.dev/role": "planner"});
    let template = pod("default", json!({"labels": labels}));
    let selector = json!({"matchLabels": {"app": "x"}});
    let spec = json!({"selector": selector, "template": template});
    let mut named = spec.clone();
    named["serviceName"] = json!("x");
    let mut once = template.clone();
    once["spec"]["restartPolicy"] = json!("Never");
    for (kinds, group, kind, spec) in [
        ("deployments", "apps", "Deployment", spec.clone()),
        ("statefulsets", "apps", "StatefulSet", named),
        ("daemonsets", "apps", "DaemonSet", spec.clone()),
        ("replicasets", "apps", "ReplicaSet", spec),
        ("jobs", "batch", "Job", json!({"template": once})),
        (
            "cronjobs",
            "batch",
            "CronJob",
            json!({"schedule": "0 0 * * *", "jobTemplate": {"spec": {"template": once}}}),
        ),
    ] {
        let answer = Attack {
            what: kind,
            verb: Verb::Post,
            path: format!("/apis/{group}/v1/namespaces/{}/{kinds}", scene.room.name),
            body: json!({"apiVersion": format!("{group}/v1"), "kind": kind, "metadata": {"name": "x"}, "spec": spec}),
            says: "",
        }
        .send(member)
        .await;
        assert_eq!(answer.code, 201, "{kind}: {answer:?}");
        let warnings = answer.warnings.join(" ");
        assert!(
            warnings.contains("the pod template has countersign.dev/role"),
            "{kind}: {warnings}"
        );
        println!(
            "| a {kind}'s template | {} | warned: the pod template has countersign.dev/role |",
            answer.code
        );
    }
}

/// A namespace that ends takes its roster with it.
async fn ends(scene: &Scene, member: &Client, admin: &Client) {
    let rooms: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(admin.clone());
    rooms.delete(&scene.room.name, &Default::default()).await.unwrap();
    revoking::ends(scene, member, admin).await;
    countersign_e2e::gone("the namespace", countersign_e2e::seconds(60), async || {
        rooms.get_opt(&scene.room.name).await.unwrap().map(|room| room.status)
    })
    .await;
}

fn change(namespace: &str, rest: &str, body: Value) -> Attack {
    let path = format!("/api/v1/namespaces/{namespace}/{rest}");
    Attack { what: "", verb: Verb::Merge, path, body, says: "" }
}

/// What was tried, by whom, and what the API server said.
#[derive(Default)]
struct Table(Vec<(String, &'static str, u16, String)>);

impl Table {
    async fn refused(&mut self, who: &str, client: &Client, attacks: Vec<Attack>) {
        for attack in attacks {
            let answer = attack.send(client).await;
            let by_policy = answer.is_refused_by_policy();
            assert!(
                by_policy && answer.message().contains(attack.says),
                "{who}: {}: {answer:#?}",
                attack.what
            );
            self.0.push((who.to_owned(), attack.what, answer.code, answer.message().to_owned()));
        }
    }

    fn print(&self) {
        println!("| who | what is tried | answer | message |\n|---|---|---|---|");
        for (who, what, code, message) in &self.0 {
            println!("| {who} | {what} | {code} | {message} |");
        }
        println!("{} attacks, all refused", self.0.len());
    }
}
