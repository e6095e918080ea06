//! What tests do with identities in a namespace, in the words they say it with.

use countersign::api::{AgentIdentity, AgentRoster};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::Namespace;
use crate::install::{api_of, apply};
use crate::wait::{seconds, wait_for};

impl Namespace {
    /// Creates an AgentIdentity; where `spec` names no ServiceAccount it is called as the identity.
    pub async fn identity(&self, name: &str, spec: Value) -> AgentIdentity {
        let object = self.identity_object(name, spec);
        let created: AgentIdentity =
            serde_json::from_value(object).expect("the test wrote a well-formed spec");
        self.identities()
            .create(&PostParams::default(), &created)
            .await
            .unwrap_or_else(|error| panic!("cannot create AgentIdentity {name}: {error}"))
    }

    /// Waits until the namespace's roster lists so many identities: it follows them by a second.
    pub async fn rostered(&self, count: u32) {
        wait_for("the roster lists the identities", seconds(20), async || {
            let rosters = self.api::<AgentRoster>().list(&ListParams::default()).await;
            let rosters = rosters.map_err(|error| error.to_string())?.items;
            let listed = rosters.iter().map(|roster| roster.spec.identities).sum::<u32>();
            if listed == count { Ok(()) } else { Err(format!("{listed} of {count}")) }
        })
        .await;
    }

    /// The object that [`Self::identity`] creates.
    pub fn identity_object(&self, name: &str, mut spec: Value) -> Value {
        if spec.get("serviceAccountName").is_none() {
            spec["serviceAccountName"] = json!(name);
        }
        json!({
            "apiVersion": "countersign.dev/v1alpha1",
            "kind": "AgentIdentity",
            "metadata": {"name": name, "namespace": self.name},
            "spec": spec,
        })
    }

    /// Creates a TrustDomain. It is not the default one, and no namespace's own: call it after the
    /// test, and let its bundle go to the test's namespace alone.
    pub async fn trust_domain(&self, name: &str, spec: Value) {
        let object = json!({
            "apiVersion": "countersign.dev/v1alpha1",
            "kind": "TrustDomain",
            "metadata": {"name": name},
            "spec": spec,
        });
        apply(&self.client, &object).await;
    }

    /// The AgentIdentities here.
    pub fn identities(&self) -> Api<AgentIdentity> {
        self.api()
    }

    /// Merges `patch` into an AgentIdentity.
    pub async fn change_identity(&self, name: &str, patch: Value) -> AgentIdentity {
        self.identities()
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .unwrap_or_else(|error| panic!("cannot change AgentIdentity {name}: {error}"))
    }

    /// Waits until an identity is Ready for its present spec.
    pub async fn ready(&self, name: &str) -> AgentIdentity {
        self.condition(name, "Ready", "True", None).await
    }

    /// Waits until an identity is not Ready for `reason`, and gives the condition's message.
    pub async fn not_ready(&self, name: &str, reason: &str) -> String {
        let identity = self.condition(name, "Ready", "False", Some(reason)).await;
        condition_of(&identity, "Ready").expect("it has just been seen").message.clone()
    }

    /// Waits until a condition of an identity says so for its present spec.
    pub async fn condition(
        &self,
        name: &str,
        kind: &str,
        status: &str,
        reason: Option<&str>,
    ) -> AgentIdentity {
        let what = format!("AgentIdentity {}/{name}: {kind} is {status} {reason:?}", self.name);
        wait_for(&what, seconds(20), async || {
            let identity = self.identities().get(name).await.map_err(|error| error.to_string())?;
            let holds = condition_of(&identity, kind).is_some_and(|condition| {
                condition.status == status
                    && condition.observed_generation == identity.metadata.generation
                    && reason.is_none_or(|reason| condition.reason == reason)
            });
            if holds { Ok(identity) } else { Err(format!("{:#?}", identity.status)) }
        })
        .await
    }

    /// The Secret of that name, if there is one.
    pub async fn secret(&self, name: &str) -> Option<Secret> {
        self.api::<Secret>().get_opt(name).await.expect("the API server answers")
    }

    /// The Secret in which an identity of default settings is delivered.
    pub async fn secret_of(&self, identity: &str) -> Secret {
        let name = countersign::api::names::default_secret_name(identity);
        self.secret(&name).await.unwrap_or_else(|| panic!("there is no Secret {name}"))
    }

    /// Puts an object of any kind here, created or changed.
    pub async fn put(&self, mut object: Value) {
        object["metadata"]["namespace"] = json!(self.name);
        apply(&self.client, &object).await;
    }

    /// Deletes an object of any kind here, as `{"apiVersion", "kind", "metadata": {"name"}}`.
    pub async fn delete(&self, mut object: Value) {
        object["metadata"]["namespace"] = json!(self.name);
        let name = object["metadata"]["name"].as_str().expect("an object has a name").to_owned();
        api_of(&self.client, &object)
            .delete(&name, &Default::default())
            .await
            .unwrap_or_else(|error| panic!("cannot delete {name}: {error}"));
    }

    /// Creates a pod that runs as `service_account`. No kubelet runs it.
    pub async fn pod(&self, name: &str, service_account: &str, labels: Value) -> Pod {
        self.service_account(service_account).await;
        self.put(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": labels},
            "spec": {
                "serviceAccountName": service_account,
                "containers": [{"name": "agent", "image": "agent"}],
            },
        }))
        .await;
        self.api().get(name).await.expect("it has just been created")
    }

    /// Creates a ServiceAccount, without which the API server takes no pod of it.
    pub async fn service_account(&self, name: &str) {
        self.put(json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name},
        }))
        .await;
    }

    /// The ConfigMap with a TrustDomain's bundle here, once it is there.
    pub async fn bundle(&self, trust_domain: &str) -> ConfigMap {
        let name = countersign::api::names::bundle_config_map_name(trust_domain);
        wait_for(&format!("ConfigMap {}/{name}", self.name), seconds(20), async || {
            self.api::<ConfigMap>().get(&name).await.map_err(|error| error.to_string())
        })
        .await
    }

    /// The Events about an object: `(type, reason, message)`, oldest first.
    pub async fn events(&self, object: &str) -> Vec<(String, String, String)> {
        let mut events: Vec<Event> = self
            .api::<Event>()
            .list(&Default::default())
            .await
            .expect("the API server answers")
            .items;
        events.retain(|event| event.involved_object.name.as_deref() == Some(object));
        events.sort_by_key(|event| event.creation_timestamp());
        let text = |value: Option<String>| value.unwrap_or_default();
        events
            .into_iter()
            .map(|event| (text(event.type_), text(event.reason), text(event.message)))
            .collect()
    }

    /// Waits for an Event about an object, and gives its message.
    pub async fn event(&self, object: &str, kind: &str, reason: &str) -> String {
        let what = format!("a {kind} Event {reason} about {}/{object}", self.name);
        wait_for(&what, seconds(20), async || {
            let events = self.events(object).await;
            match events.iter().find(|(k, r, _)| k == kind && r == reason) {
                Some((_, _, message)) => Ok(message.clone()),
                None => Err(events),
            }
        })
        .await
    }
}

/// A condition of an identity.
pub fn condition_of<'a>(identity: &'a AgentIdentity, kind: &str) -> Option<&'a Condition> {
    identity.status.as_ref()?.conditions.iter().find(|condition| condition.type_ == kind)
}

/// A key of a Secret, as text.
pub fn text_of(secret: &Secret, key: &str) -> String {
    let data = secret.data.as_ref().and_then(|data| data.get(key));
    let data = data.unwrap_or_else(|| panic!("{} has no {key}", secret.name_any()));
    String::from_utf8(data.0.clone()).unwrap_or_else(|_| panic!("{key} is not text"))
}
