//! What the commands read and write of AgentIdentities.

use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::{Cluster, PAGE, Problem};
use crate::api::AgentIdentity;

impl Cluster {
    /// The namespace that is meant where none is given.
    pub fn default_namespace(&self) -> &str {
        self.client.default_namespace()
    }

    /// The AgentIdentity of this name.
    ///
    /// # Errors
    /// When there is none, and when it cannot be read.
    pub async fn identity(&self, namespace: &str, name: &str) -> Result<AgentIdentity, Problem> {
        let api = Api::<AgentIdentity>::namespaced(self.client.clone(), namespace);
        api.get(name).await.map_err(|error| problem(error, "read", namespace, name))
    }

    /// The identities of a namespace, or of all, that a label selector matches.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn identities_in(
        &self,
        namespace: Option<&str>,
        selector: Option<&str>,
    ) -> Result<Vec<AgentIdentity>, Problem> {
        let api: Api<AgentIdentity> = match namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        let mut found = Vec::new();
        let mut page = ListParams::default().limit(PAGE);
        page.label_selector = selector.map(str::to_owned);
        loop {
            let list = match api.list(&page).await {
                Ok(list) => list,
                Err(kube::Error::Api(status)) if (400..429).contains(&status.code) => {
                    let message = &status.message;
                    return Err(Problem::Refused(format!(
                        "the AgentIdentities cannot be listed: {message}"
                    )));
                }
                Err(error) => return Err(Problem::Away(error.to_string())),
            };
            found.extend(list.items);
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => return Ok(found),
            }
        }
    }

    /// Whether whoever asks has the verb `revoke` on AgentIdentities of a namespace, or of all.
    ///
    /// # Errors
    /// When the API server does not say.
    pub async fn may_revoke(&self, namespace: Option<&str>) -> Result<bool, Problem> {
        let review: SelfSubjectAccessReview = serde_json::from_value(json!({
            "metadata": {},
            "spec": {"resourceAttributes": {
                "group": "countersign.dev", "resource": "agentidentities",
                "verb": "revoke", "namespace": namespace,
            }},
        }))
        .map_err(|error| Problem::Refused(error.to_string()))?;
        let api = Api::<SelfSubjectAccessReview>::all(self.client.clone());
        match api.create(&PostParams::default(), &review).await {
            Ok(review) => Ok(review.status.is_some_and(|status| status.allowed)),
            Err(error) => Err(Problem::Away(error.to_string())),
        }
    }

    /// Merges a change into an AgentIdentity.
    ///
    /// # Errors
    /// When the API server does not take it, or (where the change carries a resourceVersion) it was
    /// changed since it was read.
    pub async fn change_identity(
        &self,
        namespace: &str,
        name: &str,
        change: &Value,
    ) -> Result<AgentIdentity, Problem> {
        let api = Api::<AgentIdentity>::namespaced(self.client.clone(), namespace);
        let parameters =
            PatchParams { field_manager: Some("countersign-cli".to_owned()), ..Default::default() };
        let changed = api.patch(name, &parameters, &Patch::Merge(change)).await;
        changed.map_err(|error| problem(error, "change", namespace, name))
    }
}

fn problem(error: kube::Error, verb: &str, namespace: &str, name: &str) -> Problem {
    let what = format!("the AgentIdentity {namespace}/{name}");
    match error {
        kube::Error::Api(status) => match status.code {
            401 => {
                Problem::Refused(format!("the API server does not know you: {}", status.message))
            }
            403 => Problem::Refused(format!("you may not {verb} {what}: {}", status.message)),
            404 => Problem::Refused(format!(
                "there is no AgentIdentity {name} in namespace {namespace}"
            )),
            409 => Problem::Conflict(what),
            429 | 500.. => Problem::Away(status.message.clone()),
            _ => Problem::Refused(format!(
                "the API server did not take the change of {what}: {}",
                status.message
            )),
        },
        other => Problem::Away(other.to_string()),
    }
}
