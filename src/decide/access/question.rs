//! May this one call that one? With the reason, from the set that the enforcers are given.

use super::{AccessSet, Agent, Agents, Rule, SESSION_METHODS, SESSION_PREFIX};
use crate::identity::access::{HttpMatch, Layer7, Path, PolicyKey, Target};
use crate::identity::{IdentityKey, SpiffeId};

/// Who calls.
#[derive(Clone, Debug, PartialEq)]
pub enum Caller<'a> {
    Identity(&'a Agent),
    /// Of another trust domain.
    Foreign(&'a SpiffeId),
}

/// A call. What is None is left open: the answer then says for what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Question<'a> {
    pub port: Option<u16>,
    pub method: Option<&'a str>,
    /// Without query.
    pub path: Option<&'a str>,
    pub mcp: Option<Mcp<'a>>,
}

/// What a request is to MCP.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mcp<'a> {
    /// No message of MCP.
    None,
    /// A message with this method, and not `tools/call`.
    Method(&'a str),
    /// A call of this tool.
    Tool(&'a str),
}

/// The answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// No policy is about the target: whoever reaches it may call it.
    Open,
    /// These policies let it through.
    Yes(Vec<Grant>),
    /// Nothing does; each with why not.
    No(Vec<String>),
}

/// A policy that lets a call through.
#[derive(Clone, Debug, PartialEq)]
pub struct Grant {
    pub policy: PolicyKey,
    /// For what alone it holds, of what the question left open. Empty: for all.
    pub only: Vec<String>,
}

impl Answer {
    /// True if and only if the call is let through.
    pub fn is_yes(&self) -> bool {
        !matches!(self, Answer::No(_))
    }
}

/// May `from` call `to`? A target some of whose pods are not let through is not, and a revoked one is called by nobody,
/// whether a policy is about it or not: whoever looks its certificate up refuses it.
pub fn can(
    set: &AccessSet,
    agents: &Agents,
    from: &Caller<'_>,
    to: &IdentityKey,
    question: &Question<'_>,
) -> Answer {
    let Some(target) = agents.get(&to.namespace, &to.name) else {
        return Answer::No(vec![format!("there is no AgentIdentity {to}")]);
    };
    if target.is_revoked {
        return Answer::No(vec![format!("{to} is revoked")]);
    }
    let id = match from {
        Caller::Identity(agent) if agent.is_revoked => {
            return Answer::No(vec![format!("{} is revoked", agent.key)]);
        }
        Caller::Identity(agent) => match &agent.spiffe_id {
            Some(id) => id,
            None => return Answer::No(vec![format!("{} has no SPIFFE ID", agent.key)]),
        },
        Caller::Foreign(id) => *id,
    };
    let pods = target.pod_labels();
    let mut answer = Answer::Open;
    for pod in &pods {
        let about: Vec<&Rule> = set
            .rules
            .iter()
            .filter(|rule| {
                *rule.policy.key.namespace == *to.namespace && selects(rule, target, pod)
            })
            .collect();
        if about.is_empty() {
            continue;
        }
        let mut grants = Vec::new();
        let mut whys = Vec::new();
        for rule in about {
            match judge(rule, id, question) {
                Ok(grant) => grants.push(grant),
                Err(why) => whys.push(format!("policy {}: {why}", rule.policy.key.name)),
            }
        }
        if grants.is_empty() {
            return Answer::No(whys);
        }
        if answer == Answer::Open {
            answer = Answer::Yes(grants);
        }
    }
    answer
}

fn selects(rule: &Rule, target: &Agent, pod: &std::collections::BTreeMap<String, String>) -> bool {
    match &rule.policy.target {
        Target::Identity(name) => *target.key.name == **name,
        Target::Role(role) => target.role.as_ref() == Some(role),
        Target::Pods(selector, _) => selector.matches(pod),
    }
}

fn judge(rule: &Rule, id: &SpiffeId, question: &Question<'_>) -> Result<Grant, String> {
    if !rule.callers.contains_key(id) {
        return Err(format!("does not name {id}"));
    }
    let mut only = Vec::new();
    let ports = &rule.policy.ports;
    match question.port {
        Some(port) if !ports.is_empty() && !ports.contains(&port) => {
            return Err(format!("opens {} and not port {port}", ports_text(rule)));
        }
        None if !ports.is_empty() => only.push(ports_text(rule)),
        _ => {}
    }
    let Layer7 { http, tools } = rule.layer7();
    if !http.is_empty() {
        if !http.iter().any(|http| matches(http, question)) {
            let said: Vec<String> = http.iter().map(http_text).collect();
            return Err(format!("lets through {} alone", said.join("; ")));
        }
        if question.method.is_none() || question.path.is_none() {
            only.extend(http.iter().filter(|http| matches(http, question)).map(http_text));
        }
    }
    if !tools.is_empty() {
        let said = || tools.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let is_let_through = match question.mcp {
            None => {
                only.push(format!("MCP with the tools {}", said()));
                true
            }
            Some(Mcp::None) => false,
            Some(Mcp::Method(method)) => {
                SESSION_METHODS.contains(&method) || method.starts_with(SESSION_PREFIX)
            }
            Some(Mcp::Tool(tool)) => tools.contains(tool),
        };
        if !is_let_through {
            return Err(format!("lets through MCP with the tools {} alone", said()));
        }
    }
    Ok(Grant { policy: rule.policy.key.clone(), only })
}

fn matches(http: &HttpMatch, question: &Question<'_>) -> bool {
    let HttpMatch { methods, paths } = http;
    let method = question.method.is_none_or(|m| methods.is_empty() || methods.contains(m));
    let path = |path| paths.is_empty() || paths.iter().any(|each: &Path| each.matches(path));
    method && question.path.is_none_or(path)
}

/// `port 8443`, `ports 80, 8443`, or `all ports`.
pub fn ports_text(rule: &Rule) -> String {
    let ports: Vec<String> = rule.policy.ports.iter().map(u16::to_string).collect();
    match ports.len() {
        0 => "all ports".to_owned(),
        1 => format!("port {}", ports[0]),
        _ => format!("ports {}", ports.join(", ")),
    }
}

/// `GET, POST /search, /docs/*`.
pub fn http_text(http: &HttpMatch) -> String {
    let methods: Vec<&str> = http.methods.iter().map(String::as_str).collect();
    let paths: Vec<String> = http.paths.iter().map(Path::written).collect();
    let parts = [methods.join(", "), paths.join(", ")];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}
