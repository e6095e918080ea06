//! `countersign can` and `countersign graph`: who may call whom, from the same compiler that writes
//! the enforcers' objects.

pub mod draw;
#[cfg(test)]
mod tests;

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};

use super::cluster::{Cluster, Connection};
use crate::api::{AgentAccessPolicy, AgentIdentity};
use crate::decide::access::{AccessSet, Agent, Agents, Answer, Caller, Mcp, Question, can};
use crate::identity::{AccessPolicy, Identity, IdentityKey, SpiffeId};

/// The exit code of an answer that is no. 1 is for a question that could not be answered.
const NO: u8 = 2;

/// Who is to call whom.
#[derive(Args, Debug, Clone)]
pub struct CanOptions {
    /// Who calls: <namespace>/<AgentIdentity>, or a SPIFFE ID of another trust domain
    pub from: String,
    /// Who is called: <namespace>/<AgentIdentity>
    pub to: String,
    /// On this TCP port of the target's pods
    #[arg(long)]
    pub port: Option<u16>,
    /// A call of this MCP tool
    #[arg(long)]
    pub tool: Option<String>,
    /// An HTTP request with this method
    #[arg(long)]
    pub method: Option<String>,
    /// An HTTP request to this path
    #[arg(long)]
    pub path: Option<String>,
    #[command(flatten)]
    pub connection: Connection,
}

/// What to draw.
#[derive(Args, Debug, Clone)]
pub struct GraphOptions {
    /// The targets of this namespace alone; by default of all
    #[arg(long, short)]
    pub namespace: Option<String>,
    /// How to draw
    #[arg(long, short, value_enum, default_value_t = Format::Text)]
    pub output: Format,
    #[command(flatten)]
    pub connection: Connection,
}

/// Ways to draw.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    /// For Graphviz
    Dot,
    Mermaid,
    Svg,
}

/// Says yes or no, and why.
///
/// # Errors
/// One sentence: what cannot be read, or who is not there.
pub async fn can_call(options: CanOptions) -> anyhow::Result<ExitCode> {
    let cluster = Cluster::connect(&options.connection).await?;
    let (agents, policies) = read(&cluster).await?;
    let (text, is_yes) = answer(&options, &agents, policies)?;
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(if is_yes { ExitCode::SUCCESS } else { ExitCode::from(NO) })
}

/// Draws who may call whom.
///
/// # Errors
/// One sentence that says what cannot be read.
pub async fn graph(options: GraphOptions) -> anyhow::Result<ExitCode> {
    let cluster = Cluster::connect(&options.connection).await?;
    let (agents, mut policies) = read(&cluster).await?;
    if let Some(namespace) = &options.namespace {
        policies.retain(|policy| policy.key.namespace == *namespace);
    }
    let set = AccessSet::compile(policies, &agents);
    let graph = draw::Graph::of(&set, &agents, options.namespace.as_deref());
    std::io::stdout().write_all(graph.draw(options.output).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

async fn read(cluster: &Cluster) -> anyhow::Result<(Agents, Vec<Arc<AccessPolicy>>)> {
    let identities = cluster.identities().await?;
    let policies = cluster.access_policies().await?;
    Ok((agents_of(&identities), policies.iter().filter_map(parsed).collect()))
}

/// One that cannot be understood lets nobody in, and its own status says so.
fn parsed(policy: &AgentAccessPolicy) -> Option<Arc<AccessPolicy>> {
    AccessPolicy::parse(policy).ok().map(Arc::new)
}

/// Identities as their own statuses tell of them.
pub fn agents_of(identities: &[AgentIdentity]) -> Agents {
    let agents = identities.iter().filter_map(|resource| {
        let identity = Identity::parse(resource).ok()?;
        let status = resource.status.as_ref();
        let id = status.and_then(|status| status.spiffe_id.as_deref()).and_then(SpiffeId::read);
        Some(Agent {
            key: identity.key.clone(),
            service_account: identity.service_account.to_string(),
            role: identity.role.clone(),
            spiffe_id: id,
            has_whole_account: identity.selector.specificity() == 0,
            is_revoked: identity.revoked.is_some(),
            pods: Vec::from_iter(labels_asked_for(resource)),
        })
    });
    Agents::of(agents)
}

/// The labels that its pods have at least.
fn labels_asked_for(
    resource: &AgentIdentity,
) -> Option<std::collections::BTreeMap<String, String>> {
    resource.spec.pod_selector.as_ref()?.match_labels.clone()
}

/// The answer as text, and whether it is yes.
///
/// # Errors
/// When the question names somebody who is not there.
pub fn answer(
    options: &CanOptions,
    agents: &Agents,
    policies: Vec<Arc<AccessPolicy>>,
) -> anyhow::Result<(String, bool)> {
    let to = agent(agents, &options.to)?.key.clone();
    let foreign;
    let from = match options.from.starts_with("spiffe://") {
        true => {
            foreign = SpiffeId::read(&options.from)
                .with_context(|| format!("{} is not a SPIFFE ID", options.from))?;
            match agents.all().find(|agent| agent.spiffe_id.as_ref() == Some(&foreign)) {
                Some(agent) => Caller::Identity(agent),
                None => Caller::Foreign(&foreign),
            }
        }
        false => Caller::Identity(agent(agents, &options.from)?),
    };
    let question = Question {
        port: options.port,
        method: options.method.as_deref(),
        path: options.path.as_deref(),
        mcp: options.tool.as_deref().map(Mcp::Tool),
    };
    let set = AccessSet::compile(policies, agents);
    let answer = can(&set, agents, &from, &to, &question);
    let mut text = String::new();
    match &answer {
        Answer::Open => text.push_str(&format!(
            "yes: no AgentAccessPolicy of {} is about {}, so whoever reaches it may call it\n",
            to.namespace, to.name
        )),
        Answer::Yes(grants) => {
            for grant in grants {
                let only = match grant.only.is_empty() {
                    true => String::new(),
                    false => format!(", for this alone: {}", grant.only.join("; ")),
                };
                text.push_str(&format!("yes: policy {}{only}\n", grant.policy.name));
            }
        }
        Answer::No(whys) => {
            for why in whys {
                text.push_str(&format!("no: {why}\n"));
            }
        }
    }
    Ok((text, answer.is_yes()))
}

fn agent<'a>(agents: &'a Agents, written: &str) -> anyhow::Result<&'a Agent> {
    let Some((namespace, name)) = written.split_once('/') else {
        bail!("{written:?} is nobody: write <namespace>/<AgentIdentity>");
    };
    agents.get(namespace, name).with_context(|| {
        let key = IdentityKey { namespace: namespace.into(), name: name.into() };
        format!("there is no AgentIdentity {key}")
    })
}
