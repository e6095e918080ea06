//! Who may call whom: policies and identities compiled into one neutral set, which the emitters
//! translate for each enforcer and of which [`can`] answers.
//!
//! What holds, and what every emitter must keep to or stay below:
//! - Whoever is the target of any policy is called by those alone whom some policy names.
//! - Policies add up: one that lets through is enough.
//! - A revoked identity calls nobody and is called by nobody; one that has no SPIFFE ID calls nobody.

pub mod emit;
pub mod plan;
mod question;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::api::Enforcer;
use crate::api::names::{IDENTITY_LABEL, ROLE_LABEL, STATE_ACTIVE, STATE_LABEL, STATE_REVOKED};
use crate::identity::access::{AccessPolicy, Layer7, Target, labels_of};
use crate::identity::{IdentityKey, SpiffeId};

pub use question::{Answer, Caller, Grant, Mcp, Question, can, http_text, ports_text};

/// What MCP needs for a session, beside `tools/call`: let through wherever tools are.
pub const SESSION_METHODS: [&str; 3] = ["initialize", "ping", "tools/list"];
/// Likewise, whatever follows.
pub const SESSION_PREFIX: &str = "notifications/";

/// An identity as policies see it.
#[derive(Clone, Debug, PartialEq)]
pub struct Agent {
    pub key: IdentityKey,
    pub service_account: String,
    pub role: Option<String>,
    /// None where it has none: it is not admitted, or an older identity holds it.
    pub spiffe_id: Option<SpiffeId>,
    /// True if and only if every pod of its ServiceAccount may be its own.
    pub has_whole_account: bool,
    pub is_revoked: bool,
    /// The labels of its pods, where any are known.
    pub pods: Vec<BTreeMap<String, String>>,
}

/// All identities, and the trust domains that vouch for them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Agents {
    by_key: BTreeMap<(String, String), Agent>,
    domains: BTreeSet<String>,
}

/// A policy with its names looked up.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub policy: Arc<AccessPolicy>,
    /// Who may call by it now.
    pub callers: BTreeMap<SpiffeId, Option<IdentityKey>>,
    /// The same by labels, namespace by namespace, for enforcers that see nothing else.
    pub labelled: BTreeMap<String, Labelled>,
    /// SPIFFE IDs of other trust domains, which no label stands for.
    pub foreign: BTreeSet<SpiffeId>,
    /// ServiceAccounts (namespace, name) of which every pod may call: nobody else runs as them.
    pub accounts: BTreeSet<(String, String)>,
    /// Callers that no ServiceAccount of `accounts` stands for.
    pub without_account: BTreeSet<SpiffeId>,
    /// The identities that it is about.
    pub targets: BTreeSet<IdentityKey>,
    /// Those of them that are revoked: they are called by nobody.
    pub revoked: BTreeSet<IdentityKey>,
    /// Names that match nothing, each with what is wrong.
    pub unmatched: Vec<String>,
}

/// Callers of one namespace, by their labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Labelled {
    pub every: bool,
    pub identities: BTreeSet<String>,
    pub roles: BTreeSet<String>,
}

/// What the policies of one namespace come to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AccessSet {
    pub rules: Vec<Rule>,
}

impl Agent {
    /// True if and only if it may call at all.
    pub fn stands(&self) -> bool {
        self.spiffe_id.is_some() && !self.is_revoked
    }

    /// The labels that its pods carry: those that are known, with ours on top; without any, ours.
    pub fn pod_labels(&self) -> Vec<BTreeMap<String, String>> {
        let state = if self.is_revoked { STATE_REVOKED } else { STATE_ACTIVE };
        let mut ours = labels_of([(IDENTITY_LABEL, &*self.key.name), (STATE_LABEL, state)]);
        if let Some(role) = &self.role {
            ours.insert(ROLE_LABEL.to_owned(), role.clone());
        }
        if self.pods.is_empty() {
            return vec![ours];
        }
        let pods = self.pods.iter().cloned();
        pods.map(|mut labels| {
            labels.extend(ours.clone());
            labels
        })
        .collect()
    }
}

impl Agents {
    /// From a list.
    pub fn of(agents: impl IntoIterator<Item = Agent>) -> Self {
        let mut all = Agents::default();
        for agent in agents {
            if let Some(id) = &agent.spiffe_id {
                all.domains.insert(id.trust_domain().to_owned());
            }
            let key = (agent.key.namespace.to_string(), agent.key.name.to_string());
            all.by_key.insert(key, agent);
        }
        all
    }

    /// Trust domains of this cluster, whether an identity has one of their IDs or not.
    pub fn with_domains(mut self, domains: impl IntoIterator<Item = String>) -> Self {
        self.domains.extend(domains);
        self
    }

    /// The identity of this name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Agent> {
        self.by_key.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// All of them, sorted.
    pub fn all(&self) -> impl Iterator<Item = &Agent> {
        self.by_key.values()
    }

    fn within(&self, namespace: &str) -> impl Iterator<Item = &Agent> {
        let from = (namespace.to_owned(), String::new());
        let namespace = namespace.to_owned();
        self.by_key
            .range(from..)
            .map(|(_, agent)| agent)
            .take_while(move |agent| *agent.key.namespace == *namespace)
    }
}

impl AccessSet {
    /// Compiles the policies of a namespace.
    pub fn compile(
        policies: impl IntoIterator<Item = Arc<AccessPolicy>>,
        agents: &Agents,
    ) -> AccessSet {
        let mut rules: Vec<Rule> =
            policies.into_iter().map(|policy| Rule::compile(policy, agents)).collect();
        rules.sort_by(|a, b| a.policy.key.cmp(&b.policy.key));
        AccessSet { rules }
    }

    /// The rules that an enforcer is to enforce: those of policies that ask for it, and those for
    /// the same targets, whose callers it would otherwise cut off.
    pub fn for_enforcer(&self, enforcer: Enforcer, is_found: bool) -> Vec<&Rule> {
        let asks = |rule: &&Rule| match rule.policy.enforcers.is_empty() {
            true => is_found,
            false => rule.policy.enforcers.contains(&enforcer),
        };
        let asking: Vec<&Rule> = self.rules.iter().filter(asks).collect();
        let wanted = |rule: &&Rule| asks(rule) || asking.iter().any(|other| other.overlaps(rule));
        self.rules.iter().filter(wanted).collect()
    }
}

impl Rule {
    fn compile(policy: Arc<AccessPolicy>, agents: &Agents) -> Rule {
        let mut rule = Rule {
            callers: BTreeMap::new(),
            labelled: BTreeMap::new(),
            foreign: BTreeSet::new(),
            accounts: BTreeSet::new(),
            without_account: BTreeSet::new(),
            targets: BTreeSet::new(),
            revoked: BTreeSet::new(),
            unmatched: Vec::new(),
            policy: policy.clone(),
        };
        rule.look_up_target(agents);
        for (namespace, name) in &policy.from.identities {
            match agents.get(namespace, name) {
                None => {
                    rule.unmatched.push(format!("there is no AgentIdentity {namespace}/{name}"))
                }
                Some(agent) => {
                    if rule.let_in(agent) {
                        let labelled = rule.labelled.entry(namespace.clone()).or_default();
                        labelled.identities.insert(name.clone());
                    }
                }
            }
        }
        for (namespace, role) in &policy.from.roles {
            let with_role = |agent: &&Agent| agent.role.as_ref() == Some(role);
            let found: Vec<&Agent> = agents.within(namespace).filter(with_role).collect();
            if found.is_empty() {
                rule.unmatched.push(format!("no AgentIdentity of {namespace} has the role {role}"));
            }
            if found.into_iter().filter(|agent| rule.let_in(agent)).count() > 0 {
                let labelled = rule.labelled.entry(namespace.clone()).or_default();
                labelled.roles.insert(role.clone());
            }
        }
        for namespace in &policy.from.namespaces {
            let found: Vec<&Agent> = agents.within(namespace).collect();
            if found.is_empty() {
                rule.unmatched.push(format!("there is no AgentIdentity in {namespace}"));
            }
            if found.into_iter().filter(|agent| rule.let_in(agent)).count() > 0 {
                rule.labelled.entry(namespace.clone()).or_default().every = true;
            }
        }
        for id in &policy.from.spiffe_ids {
            rule.let_in_by_id(id, agents);
        }
        rule.look_up_accounts(agents);
        rule
    }

    fn look_up_target(&mut self, agents: &Agents) {
        let policy = self.policy.clone();
        let namespace = &policy.key.namespace;
        let meant = |agent: &&Agent| match &policy.target {
            Target::Identity(name) => *agent.key.name == **name,
            Target::Role(role) => agent.role.as_ref() == Some(role),
            Target::Pods(selector, _) => agent.pod_labels().iter().any(|pod| selector.matches(pod)),
        };
        for agent in agents.within(namespace).filter(meant) {
            self.targets.insert(agent.key.clone());
            if agent.is_revoked {
                self.revoked.insert(agent.key.clone());
            }
        }
        if self.targets.is_empty() {
            match &policy.target {
                Target::Identity(name) => {
                    self.unmatched
                        .push(format!("the target: there is no AgentIdentity {namespace}/{name}"));
                }
                Target::Role(role) => {
                    self.unmatched.push(format!(
                        "the target: no AgentIdentity of {namespace} has the role {role}"
                    ));
                }
                // It need not be an identity.
                Target::Pods(..) => {}
            }
        }
    }

    /// Lets an identity in, if it stands. True if it does.
    fn let_in(&mut self, agent: &Agent) -> bool {
        match &agent.spiffe_id {
            Some(id) if !agent.is_revoked => {
                self.callers.insert(id.clone(), Some(agent.key.clone()));
                true
            }
            Some(_) => false,
            None => {
                self.unmatched.push(format!("AgentIdentity {} has no SPIFFE ID", agent.key));
                false
            }
        }
    }

    /// An ID of this cluster is an identity's, and falls with it; another stands for itself.
    fn let_in_by_id(&mut self, id: &SpiffeId, agents: &Agents) {
        if !agents.domains.contains(id.trust_domain()) {
            self.callers.insert(id.clone(), None);
            self.foreign.insert(id.clone());
            return;
        }
        match agents.all().find(|agent| agent.spiffe_id.as_ref() == Some(id)) {
            None => {
                self.unmatched.push(format!("no AgentIdentity of this cluster has the ID {id}"))
            }
            Some(agent) => {
                if self.let_in(agent) {
                    let labelled = self.labelled.entry(agent.key.namespace.to_string());
                    labelled.or_default().identities.insert(agent.key.name.to_string());
                }
            }
        }
    }

    /// A ServiceAccount stands for its callers where all of its pods are some caller's.
    fn look_up_accounts(&mut self, agents: &Agents) {
        let mut accounts: BTreeMap<(String, String), Vec<&Agent>> = BTreeMap::new();
        let namespaces: BTreeSet<String> =
            self.callers.values().flatten().map(|key| key.namespace.to_string()).collect();
        for agent in namespaces.iter().flat_map(|namespace| agents.within(namespace)) {
            let account = (agent.key.namespace.to_string(), agent.service_account.clone());
            accounts.entry(account).or_default().push(agent);
        }
        self.without_account = self.foreign.clone();
        for (account, of) in accounts {
            let calls = |agent: &&&Agent| {
                agent.stands()
                    && agent.spiffe_id.as_ref().is_some_and(|id| self.callers.contains_key(id))
            };
            let calling: Vec<&&Agent> = of.iter().filter(calls).collect();
            if calling.len() == of.len() && calling.iter().any(|agent| agent.has_whole_account) {
                self.accounts.insert(account);
            } else {
                let ids = calling.iter().filter_map(|agent| agent.spiffe_id.clone());
                self.without_account.extend(ids.collect::<Vec<_>>());
            }
        }
    }

    /// True if and only if the rule is about an identity, or about some of its pods.
    pub fn is_about(&self, target: &IdentityKey) -> bool {
        self.targets.contains(target)
    }

    /// True if there may be a pod that both are about.
    pub fn overlaps(&self, other: &Rule) -> bool {
        if self.policy.key.namespace != other.policy.key.namespace {
            return false;
        }
        let by_labels = |rule: &Rule| matches!(rule.policy.target, Target::Pods(..));
        by_labels(self)
            || by_labels(other)
            || self.policy.target == other.policy.target
            || !self.targets.is_disjoint(&other.targets)
    }

    /// What is asked for above TCP.
    pub fn layer7(&self) -> &Layer7 {
        &self.policy.layer7
    }
}

#[cfg(test)]
mod agreement;
#[cfg(test)]
mod tests;
