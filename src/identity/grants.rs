//! Who may ask for which roles and ServiceAccounts: a TrustDomain's `identities.grants`.

use std::collections::{BTreeMap, BTreeSet};

use super::{Identity, PodSelector, SelectorError};
use crate::api::GrantSpec;

/// What the identities of some namespaces may ask for.
#[derive(Clone, Debug, PartialEq)]
pub struct Grant {
    /// The namespaces, by their labels.
    pub namespaces: PodSelector,
    /// None is any role.
    pub roles: Option<BTreeSet<String>>,
    /// None is any ServiceAccount.
    pub accounts: Option<BTreeSet<String>>,
}

impl Grant {
    /// Understands a grant. A list that is not given, or empty, is no restriction.
    pub fn parse(spec: &GrantSpec) -> Result<Self, SelectorError> {
        let set = |list: &[String]| (!list.is_empty()).then(|| list.iter().cloned().collect());
        Ok(Grant {
            namespaces: PodSelector::parse(spec.namespace_selector.as_ref())?,
            roles: set(&spec.roles),
            accounts: set(&spec.service_account_names),
        })
    }

    /// True if and only if an identity of a namespace with these labels may be what it asks to be.
    /// One without a role asks for none.
    pub fn covers(&self, identity: &Identity, namespace_labels: &BTreeMap<String, String>) -> bool {
        let among = |set: &Option<BTreeSet<String>>, asked: &str| {
            set.as_ref().is_none_or(|set| set.contains(asked))
        };
        self.namespaces.matches(namespace_labels)
            && among(&self.accounts, &identity.service_account)
            && identity.role.as_deref().is_none_or(|role| among(&self.roles, role))
    }
}

/// What an identity asks to be, in words.
pub fn asked(identity: &Identity) -> String {
    let account = &identity.service_account;
    match &identity.role {
        Some(role) => format!("ServiceAccount {account} and the role {role}"),
        None => format!("ServiceAccount {account}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::AgentIdentity;
    use serde_json::{Value, json};

    fn identity(account: &str, role: Option<&str>) -> Identity {
        let resource: AgentIdentity = serde_json::from_value(json!({
            "metadata": {
                "name": "a", "namespace": "n", "uid": "u", "creationTimestamp": "2026-11-24T10:00:00Z",
            },
            "spec": {"serviceAccountName": account, "role": role},
        }))
        .unwrap();
        Identity::parse(&resource).unwrap()
    }

    #[test]
    fn a_grant_is_by_namespace_role_and_service_account() {
        let team =
            json!({"namespaceSelector": {"matchLabels": {"team": "a"}}, "roles": ["planner"]});
        let account = json!({"serviceAccountNames": ["gateway"]});
        let rows: [(&str, &Value, Identity, &str, bool); 7] = [
            ("its role", &team, identity("x", Some("planner")), "a", true),
            ("no role at all", &team, identity("x", None), "a", true),
            ("another role", &team, identity("x", Some("admin")), "a", false),
            ("another team's role", &team, identity("x", Some("planner")), "b", false),
            ("its ServiceAccount", &account, identity("gateway", Some("any")), "b", true),
            ("another ServiceAccount", &account, identity("x", None), "b", false),
            ("nothing is restricted", &json!({}), identity("x", Some("any")), "b", true),
        ];
        for (what, grant, identity, team, covered) in rows {
            let spec: GrantSpec = serde_json::from_value(grant.clone()).unwrap();
            let labels = BTreeMap::from([("team".to_owned(), team.to_owned())]);
            assert_eq!(Grant::parse(&spec).unwrap().covers(&identity, &labels), covered, "{what}");
        }
    }
}
