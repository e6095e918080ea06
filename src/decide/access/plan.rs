//! From the objects that should be there and those that are to what is to be written.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::emit::{Kind, Object};
use crate::api::names::{ACCESS_POLICY_LABEL, MANAGED_BY_LABEL};

/// An object that is there, with our label.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    pub kind: Kind,
    pub name: String,
    pub resource_version: String,
    /// All of it, as the API server sent it.
    pub object: Value,
}

/// A write.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    Create(Object),
    /// Of this version.
    Replace(Object, String),
    Delete {
        kind: Kind,
        name: String,
        resource_version: String,
    },
}

impl Write {
    /// The kind of the object.
    pub fn kind(&self) -> Kind {
        match self {
            Write::Create(object) | Write::Replace(object, _) => object.kind,
            Write::Delete { kind, .. } => *kind,
        }
    }
}

/// What to write. What is found and not owned by a policy of ours is never touched; what is owned
/// by one that cannot be understood (`kept`, by UID) stays, or its target would stand open.
///
/// What lets less through comes with what lets more: an object that is there for a new reason is
/// written before the one that it takes the place of is deleted.
pub fn plan(
    wanted: &[Object],
    found: &[Found],
    ours: &BTreeSet<String>,
    kept: &BTreeSet<String>,
) -> Vec<Write> {
    let owners = |found: &Found| -> Vec<String> {
        let references = found.object["metadata"]["ownerReferences"].as_array();
        references
            .into_iter()
            .flatten()
            .filter(|owner| owner["kind"] == "AgentAccessPolicy")
            .filter_map(|owner| owner["uid"].as_str().map(str::to_owned))
            .collect()
    };
    let there: BTreeMap<(Kind, &str), &Found> =
        found.iter().map(|found| ((found.kind, found.name.as_str()), found)).collect();
    let mut writes = Vec::new();
    let mut names = BTreeSet::new();
    for object in wanted {
        names.insert((object.kind, object.name.as_str()));
        match there.get(&(object.kind, object.name.as_str())) {
            None => writes.push(Write::Create(object.clone())),
            Some(found) if !owners(found).iter().any(|uid| ours.contains(uid)) => {
                // Creating fails, and says whose it is not.
                writes.push(Write::Create(object.clone()));
            }
            Some(found) if is_same(object, &found.object) => {}
            Some(found) => {
                writes.push(Write::Replace(object.clone(), found.resource_version.clone()));
            }
        }
    }
    for found in found {
        let owners = owners(found);
        let is_ours = owners.iter().any(|uid| ours.contains(uid));
        let is_kept = owners.iter().any(|uid| kept.contains(uid));
        if is_ours && !is_kept && !names.contains(&(found.kind, found.name.as_str())) {
            writes.push(Write::Delete {
                kind: found.kind,
                name: found.name.clone(),
                resource_version: found.resource_version.clone(),
            });
        }
    }
    writes
}

/// True if and only if the object is what it should be. Labels and annotations that others put on
/// are theirs.
fn is_same(wanted: &Object, found: &Value) -> bool {
    let manifest = wanted.manifest();
    let label = |object: &Value, key: &str| object["metadata"]["labels"][key].clone();
    let owners = |object: &Value| {
        let references = object["metadata"]["ownerReferences"].as_array();
        references
            .into_iter()
            .flatten()
            .map(|owner| (owner["uid"].to_string(), owner["controller"] == true))
            .collect::<BTreeSet<_>>()
    };
    found[wanted.kind.content] == wanted.content
        && [MANAGED_BY_LABEL, ACCESS_POLICY_LABEL]
            .iter()
            .all(|key| label(found, key) == label(&manifest, key))
        && owners(found) == owners(&manifest)
}
