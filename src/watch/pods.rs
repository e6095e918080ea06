//! Pods, as little of them as will do, and only those that matter.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use kube::api::ObjectMeta;
use serde::{Deserialize, Serialize};

use super::{Change, ObjectKey};
use crate::api::names::{IDENTITY_LABEL, ROLE_LABEL, SPIFFE_ID_ANNOTATION, STATE_LABEL};

/// The parts of a pod that are read off the wire: everything else is skipped unread.
#[derive(kube::Resource, Clone, Debug, Default, Serialize, Deserialize)]
#[resource(inherit = "k8s_openapi::api::core::v1::Pod")]
pub struct Pod {
    #[serde(default)]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: PodSpec,
}

/// What metadata lacks.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpec {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<String>,
}

/// What is kept of a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct PodFacts {
    pub resource_version: String,
    pub service_account: String,
    pub labels: BTreeMap<String, String>,
    /// Our annotation alone.
    pub annotations: BTreeMap<String, String>,
}

/// Pods by ServiceAccount: those of ServiceAccounts that have identities.
#[derive(Debug, Default)]
pub struct PodIndex(Mutex<Accounts>);

#[derive(Debug, Default)]
struct Accounts {
    kept: HashMap<ObjectKey, HashSet<ObjectKey>>,
    /// ServiceAccounts that have, or had, pods of which nothing was kept.
    unread: HashSet<ObjectKey>,
}

impl PodFacts {
    /// What is kept of a pod; None of one that is going away, which nobody need label.
    pub fn of(pod: Pod) -> Option<Self> {
        if pod.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let mut annotations = pod.metadata.annotations.unwrap_or_default();
        annotations.retain(|key, _| key == SPIFFE_ID_ANNOTATION);
        Some(PodFacts {
            resource_version: pod.metadata.resource_version.unwrap_or_default(),
            // The API server fills in "default" itself; a pod without is not from there.
            service_account: pod.spec.service_account_name.unwrap_or_default(),
            labels: pod.metadata.labels.unwrap_or_default(),
            annotations,
        })
    }

    /// True if and only if the pod carries a label or annotation of ours.
    pub fn is_marked(&self) -> bool {
        !self.annotations.is_empty()
            || [IDENTITY_LABEL, ROLE_LABEL, STATE_LABEL]
                .iter()
                .any(|key| self.labels.contains_key(*key))
    }
}

impl PodIndex {
    /// Takes in what became of a pod. Returns the ServiceAccount it belongs to.
    pub fn take(&self, change: &Change<PodFacts>) -> ObjectKey {
        let (key, facts, present) = match change {
            Change::Set { key, new, .. } => (key, new, true),
            Change::Gone { key, old } => (key, old, false),
        };
        let account = ObjectKey::new(key.namespace.clone(), facts.service_account.as_str());
        let index = &mut self.lock().kept;
        if present {
            index.entry(account.clone()).or_default().insert(key.clone());
        } else if let Some(pods) = index.get_mut(&account) {
            pods.remove(key);
            if pods.is_empty() {
                index.remove(&account);
            }
        }
        account
    }

    /// The pods of a ServiceAccount.
    pub fn of_account(&self, account: &ObjectKey) -> Vec<ObjectKey> {
        self.lock().kept.get(account).into_iter().flatten().cloned().collect()
    }

    /// Notes that a ServiceAccount has a pod of which nothing is kept.
    pub fn note_unread(&self, account: ObjectKey) {
        self.lock().unread.insert(account);
    }

    /// Notes that the pods of a ServiceAccount have been read.
    pub fn note_read(&self, account: &ObjectKey) {
        self.lock().unread.remove(account);
    }

    /// True if and only if a ServiceAccount may have pods of which nothing was kept.
    pub fn is_unread(&self, account: &ObjectKey) -> bool {
        self.lock().unread.contains(account)
    }

    /// The index is whole between calls, whoever panicked.
    fn lock(&self) -> std::sync::MutexGuard<'_, Accounts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
