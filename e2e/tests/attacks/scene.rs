//! Where the attacks happen: identities, a revoked one among them, pods, and things that are
//! nobody's of ours. The operator has done its work and is gone, so that whatever changes was
//! changed by an attack.

use std::collections::BTreeMap;

use countersign::api::{AgentIdentity, AgentRoster};
use countersign_e2e::world::TRUST_DOMAIN;
use countersign_e2e::{Namespace, User, World, seconds, wait_for};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use kube::api::{Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt};
use serde_json::{Value, json};

/// The room, and what stands in it.
pub struct Scene {
    pub room: Namespace,
    /// A namespace without identities, and so without a roster.
    pub empty: Namespace,
    pub roster: Value,
    /// A pod of a revoked identity, and one of no identity, as the API server has them.
    pub revoked: Value,
    pub stranger: Value,
    /// The name of a CA's Secret.
    pub ca: String,
}

/// What there is, and in which version.
pub type Inventory = BTreeMap<String, String>;

impl Scene {
    pub async fn set(world: World) -> Self {
        let room = world.namespace("attacked").await;
        let empty = world.namespace("empty").await;
        empty.service_account("default").await;
        for account in ["default", "planner", "executor", "narrow"] {
            room.service_account(account).await;
        }
        room.identity("planner", json!({"role": "planner"})).await;
        room.identity("executor", json!({"role": "executor"})).await;
        room.identity("narrow", json!({"podSelector": {"matchLabels": {"app": "a"}}})).await;
        granting(&room).await;
        for identity in ["planner", "executor", "narrow", "granted"] {
            room.ready(identity).await;
        }
        room.bundle(TRUST_DOMAIN).await;
        wait_for("all are listed", seconds(10), async || {
            let roster = room.api::<AgentRoster>().get("countersign").await;
            let listed = roster.map(|roster| roster.spec.identities).unwrap_or_default();
            if listed == 4 { Ok(()) } else { Err(listed) }
        })
        .await;
        room.pod("revoked", "planner", json!({})).await;
        room.pod("stranger", "default", json!({"app": "x"})).await;
        room.put(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "foreign"}, "type": "kubernetes.io/tls", "data": {"tls.crt": "", "tls.key": ""}})).await;
        room.put(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "foreign"}, "data": {"a": "b"}})).await;

        let World { operator, server } = world;
        assert!(operator.stop(seconds(10)).await.success());
        let operator = server.client_of(User::Operator).await;
        let revoked = revoke(&room, &operator).await;
        let stranger = room.api::<Pod>().get("stranger").await.unwrap();
        let roster = room.api::<AgentRoster>().get("countersign").await.unwrap();
        let secrets: Api<Secret> = Api::namespaced(room.client.clone(), "countersign-system");
        let cas = secrets.list(&Default::default()).await.unwrap();
        let with_kind = |value| {
            let mut value = serde_json::to_value(value).unwrap();
            value["apiVersion"] = json!("v1");
            value["kind"] = json!("Pod");
            value
        };
        let mut roster = serde_json::to_value(roster).unwrap();
        roster["apiVersion"] = json!("countersign.dev/v1alpha1");
        Scene {
            ca: cas.items[0].name_any(),
            revoked: with_kind(revoked),
            stranger: with_kind(stranger),
            roster,
            room,
            empty,
        }
    }

    /// Every object that an attack could have made or changed.
    pub async fn inventory(&self) -> Inventory {
        let mut all = Inventory::new();
        let client = &self.room.client;
        for namespace in [&*self.room.name, &*self.empty.name, "countersign-system", "kube-system"]
        {
            collect::<Pod>(client, namespace, &mut all).await;
            collect::<Secret>(client, namespace, &mut all).await;
            collect::<ConfigMap>(client, namespace, &mut all).await;
            collect::<AgentRoster>(client, namespace, &mut all).await;
            collect::<AgentIdentity>(client, namespace, &mut all).await;
            collect::<k8s_openapi::api::apps::v1::Deployment>(client, namespace, &mut all).await;
        }
        all
    }

    /// Gives somebody every right in the namespaces of the scene, and in the operator's.
    pub async fn entitle(&self, subject: Value) {
        for namespace in [&*self.room.name, &*self.empty.name, "countersign-system"] {
            let name = subject["name"].as_str().expect("a subject has a name");
            for object in [
                json!({
                    "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
                    "metadata": {"name": "everything", "namespace": namespace},
                    "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}],
                }),
                json!({
                    "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
                    "metadata": {"name": format!("everything-{name}"), "namespace": namespace},
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "everything"},
                    "subjects": [subject],
                }),
            ] {
                countersign_e2e::install::apply(&self.room.client, &object).await;
            }
        }
    }

    /// A client with a token that the API server gave for a ServiceAccount of the room.
    pub async fn client_of_service_account(&self, name: &str) -> Client {
        let request = TokenRequest {
            spec: Some(TokenRequestSpec { expiration_seconds: Some(3600), ..Default::default() }),
            ..Default::default()
        };
        let made = self
            .room
            .api::<ServiceAccount>()
            .create_token_request(name, &PostParams::default(), &request)
            .await
            .expect("a token is given");
        let file = self.room.server.kubeconfig(User::Member);
        let mut kubeconfig = Kubeconfig::read_from(file).expect("the harness wrote it");
        let user = kubeconfig.auth_infos[0].auth_info.as_mut().expect("it has a user");
        let token = made.status.and_then(|status| status.token).expect("it was given");
        user.token = Some(token.into());
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .expect("it is complete");
        Client::try_from(config).expect("it makes a client")
    }
}

/// Does what the operator does when `planner` is revoked.
async fn revoke(room: &Namespace, operator: &Client) -> Pod {
    let mut roster = room.api::<AgentRoster>().get("countersign").await.unwrap();
    roster.spec.accounts.get_mut("planner").expect("it is listed")[0].state = "revoked".into();
    let rosters: Api<AgentRoster> = Api::namespaced(operator.clone(), &room.name);
    rosters.replace("countersign", &PostParams::default(), &roster).await.unwrap();
    let patch = Patch::Merge(json!({"metadata": {"labels": {"countersign.dev/state": "revoked"}}}));
    let pods: Api<Pod> = Api::namespaced(operator.clone(), &room.name);
    pods.patch("revoked", &PatchParams::default(), &patch).await.unwrap()
}

/// A trust domain that grants the room the roles of one team, and an identity under it.
async fn granting(room: &Namespace) {
    let here = json!({"matchLabels": {"kubernetes.io/metadata.name": room.name}});
    let others = json!({"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": [room.name]}]});
    room.trust_domain(
        "granting",
        json!({
            "domain": "granting.countersign.dev", "authority": {"selfSigned": {}},
            "bundle": {"namespaceSelector": here},
            "identities": {
                "minDuration": "30m", "maxDuration": "2h",
                "allowedKeyAlgorithms": ["ECDSA-P256", "ECDSA-P384"],
                "allowedDnsSuffixes": ["agents.example.com"],
                "grants": [
                    {"namespaceSelector": here, "roles": ["writer"], "serviceAccountNames": ["a", "b"]},
                    {"namespaceSelector": others, "roles": ["gateway"]},
                ],
            },
        }),
    )
    .await;
    let service = format!("a.{}.svc", room.name);
    let names = json!([service, format!("{service}.cluster.local"), "a.agents.example.com"]);
    let spec = json!({"serviceAccountName": "a", "role": "writer", "trustDomain": "granting", "dnsNames": names});
    room.identity("granted", spec).await;
}

async fn collect<K>(client: &Client, namespace: &str, all: &mut Inventory)
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
    K::DynamicType: Default,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let kind = K::kind(&Default::default()).into_owned();
    for object in api.list(&Default::default()).await.expect("the API server answers") {
        let version = object.resource_version().unwrap_or_default();
        all.insert(format!("{kind} {namespace}/{}", object.name_any()), version);
    }
}
