//! The watches: what each resource wakes.

use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{ListParams, PartialObjectMeta};
use kube::core::DeserializeGuard;
use kube::runtime::watcher::{self, Config, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, ResourceExt};

use super::{Context, access};
use crate::api::names::{
    ACCESS_POLICY_LABEL, IDENTITY_LABEL, REVOCATION_LABEL, TRUST_DOMAIN_LABEL,
};
use crate::api::{AgentAccessPolicy, AgentIdentity, AgentRoster, TrustDomain};
use crate::identity::{AuthoritySource, IdentityKey};
use crate::observe::identity_of_secret;
use crate::observe::view::{
    Object, RevocationObject, SecretFacts, SlotVersion, bundle_facts, namespace_facts, roster_facts,
};
use crate::telemetry::ResourceLabels;
use crate::watch::access::PolicyFacts;
use crate::watch::agents::AgentFacts;
use crate::watch::pods::{Pod, PodFacts};
use crate::watch::{Change, ObjectKey, drive};

/// Keeps every mirror up to date, and wakes whom each change concerns. Does not end by itself.
pub async fn run(context: Arc<Context>) {
    let context = &*context;
    tokio::join!(
        trust_domains(context),
        namespaces(context),
        slots(context),
        bundles(context),
        revocations(context),
        super::cluster_bundles::run(context),
        secrets(context),
        identities(context),
        pods(context),
        rosters(context),
        access_policies(context),
        network_policies(context),
    );
}

/// Takes in what a watch says, and begins it again when it breaks.
pub(super) async fn follow<K: kube::Resource>(
    context: &Context,
    resource: &'static str,
    stream: impl Stream<Item = Result<Event<K>, watcher::Error>>,
    take: impl FnMut(Event<K>),
) {
    let labels = ResourceLabels { resource };
    let errors = context.metrics.watch_errors.get_or_create(&labels).clone();
    drive(resource, errors, stream.default_backoff(), take).await;
}

async fn trust_domains(context: &Context) {
    let api = Api::<DeserializeGuard<TrustDomain>>::all(context.client.clone());
    follow(context, "trustdomains", watch(api, Config::default()), |event| {
        for change in context.view.trust_domains.take(event, |object| Some(Object::of(object))) {
            let (Change::Set { key, .. } | Change::Gone { key, .. }) = change;
            // Which is the default, and which domain is taken, concerns the others too.
            for (other, _) in context.view.trust_domains.all() {
                context.trust_domains.wake(other.name.to_string());
            }
            context.trust_domains.wake(key.name.to_string());
        }
    })
    .await;
}

async fn namespaces(context: &Context) {
    let api = Api::<PartialObjectMeta<Namespace>>::all(context.client.clone());
    let stream = watch(api, Config::default());
    follow(context, "namespaces", stream, |event| {
        let project = |namespace: PartialObjectMeta<Namespace>| Some(namespace_facts(namespace));
        for change in context.view.namespaces.take(event, project) {
            let (Change::Set { key, .. } | Change::Gone { key, .. }) = change;
            for (trust_domain, _) in context.view.trust_domains.all() {
                context.trust_domains.wake(trust_domain.name.to_string());
            }
            // Its labels may decide whether its identities are served.
            for (identity, _) in context.view.identities.all() {
                if identity.namespace == key.name {
                    context.identities.wake(identity.into());
                }
            }
            for (pod, _) in context.view.pods.all() {
                if pod.namespace == key.name {
                    context.pods.wake(pod);
                }
            }
            context.rosters.wake(key.name);
        }
    })
    .await;
}

async fn slots(context: &Context) {
    let api = Api::<PartialObjectMeta<Secret>>::namespaced(
        context.client.clone(),
        &context.view.namespace,
    );
    // All of them: those that authorities read carry no label of ours, and are few.
    follow(context, "secrets", watch(api, Config::default()), |event| {
        let project = |secret: PartialObjectMeta<Secret>| {
            Some(SlotVersion {
                trust_domain: secret.labels().get(TRUST_DOMAIN_LABEL).cloned().unwrap_or_default(),
                resource_version: secret.resource_version().unwrap_or_default(),
            })
        };
        for change in context.view.slots.take(event, project) {
            let (Change::Set { key, new: version, .. } | Change::Gone { key, old: version }) =
                change;
            if !version.trust_domain.is_empty() {
                context.trust_domains.wake(version.trust_domain.clone());
            }
            for name in readers_of(context, &key) {
                context.trust_domains.wake(name);
            }
        }
    })
    .await;
}

/// The TrustDomains whose authority reads this Secret.
fn readers_of(context: &Context, secret: &ObjectKey) -> Vec<String> {
    let all = context.view.trust_domains.all();
    let reads = |object: &Object<TrustDomain>| match object {
        Object::Read(resource) => AuthoritySource::parse(&resource.spec.authority)
            .is_ok_and(|authority| authority.reads(&secret.name)),
        Object::Unreadable { .. } => false,
    };
    all.into_iter()
        .filter(|(_, object)| reads(object))
        .map(|(key, _)| key.name.to_string())
        .collect()
}

async fn bundles(context: &Context) {
    let api = Api::<ConfigMap>::all(context.client.clone());
    let stream = watch(api, Config::default().labels(TRUST_DOMAIN_LABEL));
    follow(context, "configmaps", stream, |event| {
        for change in context.view.bundles.take(event, |object| Some(bundle_facts(object))) {
            let (Change::Set { key, .. } | Change::Gone { key, .. }) = change;
            if let Some(trust_domain) = key.name.strip_prefix("countersign-trust-") {
                context.trust_domains.wake(trust_domain.to_owned());
            }
        }
    })
    .await;
}

async fn revocations(context: &Context) {
    let api = Api::<ConfigMap>::namespaced(context.client.clone(), &context.view.namespace);
    let stream = watch(api, Config::default().labels(REVOCATION_LABEL));
    follow(context, "configmaps", stream, |event| {
        let project = |object: ConfigMap| RevocationObject::of(&object);
        for change in context.view.revocations.take(event, project) {
            let (key, object, version) = match &change {
                Change::Set { key, new, .. } => (key, new, Some(new.resource_version())),
                Change::Gone { key, old } => (key, old, None),
            };
            context.book.confirm(object.trust_domain(), &key.name, version);
            context.trust_domains.wake(object.trust_domain().to_owned());
        }
    })
    .await;
}

async fn rosters(context: &Context) {
    let api = Api::<DeserializeGuard<AgentRoster>>::all(context.client.clone());
    follow(context, "agentrosters", watch(api, Config::default()), |event| {
        for change in context.view.rosters.take(event, |object| Some(roster_facts(object))) {
            let (Change::Set { key, .. } | Change::Gone { key, .. }) = change;
            context.rosters.wake(key.namespace);
        }
    })
    .await;
}

async fn secrets(context: &Context) {
    let api = Api::<PartialObjectMeta<Secret>>::all(context.client.clone());
    let stream = watch(api, Config::default().labels(IDENTITY_LABEL));
    let mut listed_before = false;
    follow(context, "secrets", stream, |event| {
        let relisted =
            matches!(event, Event::InitDone) && std::mem::replace(&mut listed_before, true);
        for change in context.view.secrets.take(event, |secret| Some(SecretFacts::of(secret))) {
            let (facts, version) = match &change {
                Change::Set { new, .. } => (new, Some(new.resource_version.as_str())),
                Change::Gone { old, .. } => (old, None),
            };
            let (Change::Set { key, .. } | Change::Gone { key, .. }) = &change;
            let named = identity_of_secret(key, facts);
            // Whoever it was of until now may have to take it back.
            if let Change::Set { old: Some(old), .. } = &change
                && let Some(former) = identity_of_secret(key, old)
                && named.as_ref() != Some(&former)
            {
                context.identities.wake(former);
            }
            let Some(identity) = named else { continue };
            context.memory.confirm_secret(&identity, version);
            // What this replica wrote itself is no news.
            if version.is_none_or(|version| context.memory.content(&identity, version).is_none()) {
                context.identities.wake(identity);
            }
        }
        if relisted {
            for identity in context.memory.give_up_waiting() {
                context.identities.wake(identity);
            }
        }
    })
    .await;
}

async fn identities(context: &Context) {
    // Claims cannot be told before the trust domains are known.
    context.view.domains.wait_until_loaded().await;
    let api = Api::<DeserializeGuard<AgentIdentity>>::all(context.client.clone());
    follow(context, "agentidentities", watch(api, Config::default()), |event| {
        for change in context.view.identities.take(event, |object| Some(AgentFacts::of(object))) {
            take_identity(context, change);
        }
    })
    .await;
}

async fn access_policies(context: &Context) {
    let api = Api::<DeserializeGuard<AgentAccessPolicy>>::all(context.client.clone());
    follow(context, "agentaccesspolicies", watch(api, Config::default()), |event| {
        for change in context.view.access_policies.take(event, |guard| Some(PolicyFacts::of(guard)))
        {
            let (Change::Set { key, .. } | Change::Gone { key, .. }) = change;
            context.access.wake(key.namespace.to_string());
        }
    })
    .await;
}

/// The one kind made of policies that every cluster has: whoever deletes or changes one of ours
/// has it made anew at once.
async fn network_policies(context: &Context) {
    let api = Api::<PartialObjectMeta<NetworkPolicy>>::all(context.client.clone());
    let stream = watch(api, Config::default().labels(ACCESS_POLICY_LABEL));
    follow(context, "networkpolicies", stream, |event| {
        if let Event::Apply(object) | Event::Delete(object) = event {
            context.access.wake(object.namespace().unwrap_or_default());
        }
    })
    .await;
}

fn take_identity(context: &Context, change: Change<AgentFacts>) {
    let (Change::Set { key, .. } | Change::Gone { key, .. }) = &change;
    let is_status_alone = match &change {
        Change::Set { old: Some(old), new, .. } => {
            old.identity == new.identity && old.is_being_deleted == new.is_being_deleted
        }
        _ => false,
    };
    let namespace = key.namespace.clone();
    take_identity_in(context, change);
    if !is_status_alone {
        access::identity_changed(context, &namespace);
    }
}

fn take_identity_in(context: &Context, change: Change<AgentFacts>) {
    match change {
        Change::Gone { key, old } => {
            let key = IdentityKey::from(key);
            context.memory.forget(&key);
            context.forge.forget(&key);
            context.wake(context.view.census.remove(&key));
            drop(old);
        }
        Change::Set { key, old, new } => {
            let key = IdentityKey::from(key);
            // It was deleted and made again under the same name.
            if old.is_some_and(|old| old.uid() != new.uid()) {
                context.memory.forget(&key);
            }
            let wait = first_look(context, &new);
            let concerned =
                context.view.census.set(key.clone(), new.clone(), &context.view.domains);
            for account in &concerned.accounts {
                if context.view.pod_index.is_unread(account) {
                    context.pod_reads.wake(account.clone());
                }
            }
            context.wake(concerned);
            // A status that this replica wrote is no news.
            if let Some(wait) = wait {
                context.identities.wake_after(key, wait);
            } else if !context.memory.confirm_status(&key, &new.resource_version) {
                context.identities.wake(key);
            }
        }
    }
}

/// How long an identity may wait that a start has just listed. None for at once: it is not Ready,
/// its renewal is due, or this is not the start.
fn first_look(context: &Context, facts: &AgentFacts) -> Option<Duration> {
    let now = context.now();
    let is_due = facts.schedule.is_none_or(|(_, renew_at)| renew_at <= now);
    let is_urgent = is_due || !facts.is_ready || facts.is_being_deleted;
    if context.view.identities.is_ready() || is_urgent {
        return None;
    }
    Some(context.first_looks.wait_once(now))
}

async fn pods(context: &Context) {
    // Which pods matter cannot be told before the identities are known.
    context.view.identities.wait_until_ready().await;
    let api = Api::<Pod>::all(context.client.clone());
    follow(context, "pods", watch(api, Config::default()), |event| {
        let changes = context.view.pods.take(event, |pod| keep(context, pod));
        take_pods(context, changes);
    })
    .await;
}

/// What is kept of a pod: nothing where its ServiceAccount has no identity and it carries no label
/// of ours, except that the ServiceAccount has pods.
fn keep(context: &Context, pod: Pod) -> Option<PodFacts> {
    let namespace = pod.namespace().unwrap_or_default();
    let facts = PodFacts::of(pod)?;
    let account = ObjectKey::new(namespace, facts.service_account.as_str());
    if facts.is_marked() || !context.view.census.of_account(&account).is_empty() {
        return Some(facts);
    }
    context.view.pod_index.note_unread(account);
    None
}

fn take_pods(context: &Context, changes: Vec<Change<PodFacts>>) {
    for change in changes {
        let account = context.view.pod_index.take(&change);
        context.recount_pods(&account);
        if let Change::Set { key, .. } = change {
            context.pods.wake(key);
        }
    }
}

/// Reads the pods of a ServiceAccount that has got its first identity, which were not kept while
/// it had none.
pub async fn read_pods(context: &Context, account: &ObjectKey) -> super::Next {
    let ObjectKey { namespace, name } = account;
    let api = Api::<Pod>::namespaced(context.client.clone(), namespace);
    let params = ListParams::default().fields(&format!("spec.serviceAccountName={name}"));
    match api.list(&params).await {
        Ok(list) => {
            context.view.pod_index.note_read(account);
            for pod in list.items {
                let key = ObjectKey::of(&pod);
                if let Some(facts) = PodFacts::of(pod) {
                    take_pods(context, context.view.pods.put_if_absent(key, facts));
                }
            }
            None
        }
        Err(error) => {
            tracing::warn!(%namespace, account = %name, %error, "its pods could not be listed");
            Some(Duration::from_secs(5))
        }
    }
}
