//! What access policies are decided on: the identities as they stand, what the cluster serves, and
//! the objects that are there.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::{Api, Client};

use super::View;
use crate::api::Enforcer;
use crate::api::names::ACCESS_POLICY_LABEL;
use crate::decide::access::emit::{ENFORCERS, Kind, kinds};
use crate::decide::access::plan::Found;
use crate::decide::access::{Agent, Agents};
use crate::identity::{AccessPolicy, Identity, IdentityKey, SpiffeId};
use crate::watch::ObjectKey;
use crate::wire::WireError;

/// The identities that matter to these policies.
pub fn agents(view: &View, policies: &[Arc<AccessPolicy>]) -> Agents {
    // Asked once a namespace: there are fewer of them than of identities.
    let mut known = HashMap::<Arc<str>, bool>::new();
    let mut concerns = |namespace: &Arc<str>| {
        let ask = || policies.iter().any(|policy| policy.concerns(namespace));
        *known.entry(namespace.clone()).or_insert_with(ask)
    };
    let agents = view.identities.all().into_iter().filter_map(|(key, facts)| {
        let identity = facts.identity.as_ref().ok()?;
        (concerns(&key.namespace) && !facts.is_being_deleted).then(|| agent(view, identity))
    });
    let agents: Vec<Agent> = agents.collect();
    let domains = view.domains.all();
    Agents::of(agents)
        .with_domains(domains.iter().map(|state| state.domain.domain.as_str().to_owned()))
}

fn agent(view: &View, identity: &Arc<Identity>) -> Agent {
    let account = ObjectKey::new(identity.key.namespace.clone(), identity.service_account.clone());
    let labels_of = |pod: ObjectKey| {
        let pod = view.pods.get(&pod)?;
        identity.selector.matches(&pod.labels).then(|| pod.labels.clone())
    };
    Agent {
        key: identity.key.clone(),
        service_account: identity.service_account.to_string(),
        role: identity.role.clone(),
        spiffe_id: claim(view, &account, &identity.key),
        has_whole_account: identity.selector.specificity() == 0,
        is_revoked: identity.revoked.is_some(),
        pods: view.pod_index.of_account(&account).into_iter().filter_map(labels_of).collect(),
    }
}

fn claim(view: &View, account: &ObjectKey, key: &IdentityKey) -> Option<SpiffeId> {
    let candidates = view.candidates(account);
    candidates.into_iter().find(|(identity, _)| identity.key == *key).map(|(_, id)| id)
}

/// The enforcers whose every kind the cluster serves. Envoy needs nothing of it.
///
/// # Errors
/// When the API server does not say.
pub async fn served(client: &Client) -> Result<BTreeSet<Enforcer>, WireError> {
    let mut served = BTreeSet::new();
    for enforcer in ENFORCERS {
        let mut has_all = true;
        for kind in kinds(enforcer) {
            has_all = has_all && serves(client, kind).await?;
        }
        if has_all {
            served.insert(enforcer);
        }
    }
    Ok(served)
}

async fn serves(client: &Client, kind: &Kind) -> Result<bool, WireError> {
    // What Kubernetes itself has need not be asked for.
    if matches!(kind.group, "" | "networking.k8s.io") {
        return Ok(true);
    }
    match client.list_api_group_resources(&kind.api_version()).await.map_err(WireError::from) {
        Ok(list) => Ok(list.resources.iter().any(|resource| resource.name == kind.plural)),
        Err(WireError::NotFound(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The objects of a kind in a namespace that have our label.
///
/// # Errors
/// When they cannot be listed.
pub async fn found(client: &Client, namespace: &str, kind: Kind) -> Result<Vec<Found>, WireError> {
    let params = ListParams::default().labels(ACCESS_POLICY_LABEL);
    let list = api(client, namespace, kind).list(&params).await?;
    let found = list.items.into_iter().map(|mut object| {
        object.metadata.managed_fields = None;
        Found {
            kind,
            name: object.metadata.name.clone().unwrap_or_default(),
            resource_version: object.metadata.resource_version.clone().unwrap_or_default(),
            object: serde_json::to_value(object).unwrap_or_default(),
        }
    });
    Ok(found.collect())
}

/// The API of a kind in a namespace.
pub fn api(client: &Client, namespace: &str, kind: Kind) -> Api<DynamicObject> {
    let resource = ApiResource {
        group: kind.group.to_owned(),
        version: kind.version.to_owned(),
        api_version: kind.api_version(),
        kind: kind.kind.to_owned(),
        plural: kind.plural.to_owned(),
    };
    Api::namespaced_with(client.clone(), namespace, &resource)
}
