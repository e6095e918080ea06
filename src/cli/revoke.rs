//! `countersign revoke` and `unrevoke`: cuts agents off, and gives them back.
//!
//! The commands set one field of each identity and nothing else. What follows is the operator's:
//! it goes on when the command is interrupted.

mod selection;

use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::{Args, ValueEnum};
use futures::{StreamExt, TryStreamExt};
use serde_json::{Value, json};

use self::selection::{Name, Wish, is_done, name_of, select, summary};
use super::cluster::{Cluster, Connection, Problem};
use super::words::count;
use crate::api::{AgentIdentity, RevocationReason};

/// Whom to revoke, and why.
#[derive(Args, Debug, Clone)]
pub struct RevokeOptions {
    #[command(flatten)]
    pub who: Who,
    /// What stands on the CRL
    #[arg(long, value_enum, ignore_case = true)]
    pub reason: Reason,
    /// For people: in status, Events and the audit log
    #[arg(long, value_name = "TEXT")]
    pub message: Option<String>,
    /// Revoke one certificate of the identity alone, by its serial number: the identity gets another
    #[arg(long, value_name = "SERIAL", conflicts_with_all = ["all_in", "role", "selector"])]
    pub serial: Option<String>,
    #[command(flatten)]
    pub how: How,
}

/// Whom to give back.
#[derive(Args, Debug, Clone)]
pub struct UnrevokeOptions {
    #[command(flatten)]
    pub who: Who,
    #[command(flatten)]
    pub how: How,
}

/// Which identities.
#[derive(Args, Debug, Clone)]
pub struct Who {
    /// The AgentIdentity's name
    #[arg(required_unless_present_any = ["all_in", "role", "selector"], conflicts_with_all = ["all_in", "role", "selector"])]
    pub name: Option<String>,
    /// Its namespace; with --role or --selector, by default all namespaces
    #[arg(long, short, value_name = "NAMESPACE", conflicts_with = "all_in")]
    pub namespace: Option<String>,
    /// Every identity of this namespace
    #[arg(long, value_name = "NAMESPACE")]
    pub all_in: Option<String>,
    /// Every identity of this role
    #[arg(long)]
    pub role: Option<String>,
    /// Every identity whose labels match
    #[arg(long, short = 'l', value_name = "LABELS")]
    pub selector: Option<String>,
}

/// How it is done.
#[derive(Args, Debug, Clone)]
pub struct How {
    /// Do not ask whether many are meant
    #[arg(long)]
    pub yes: bool,
    /// Do not wait until the operator has done it
    #[arg(long)]
    pub no_wait: bool,
    #[command(flatten)]
    pub connection: Connection,
}

/// The reasons of RFC 5280, section 5.3.1, that fit an agent's certificate.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
#[value(rename_all = "PascalCase")]
pub enum Reason {
    Unspecified,
    KeyCompromise,
    #[value(name = "CACompromise")]
    CaCompromise,
    AffiliationChanged,
    Superseded,
    CessationOfOperation,
    PrivilegeWithdrawn,
}

impl From<Reason> for RevocationReason {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Unspecified => RevocationReason::Unspecified,
            Reason::KeyCompromise => RevocationReason::KeyCompromise,
            Reason::CaCompromise => RevocationReason::CaCompromise,
            Reason::AffiliationChanged => RevocationReason::AffiliationChanged,
            Reason::Superseded => RevocationReason::Superseded,
            Reason::CessationOfOperation => RevocationReason::CessationOfOperation,
            Reason::PrivilegeWithdrawn => RevocationReason::PrivilegeWithdrawn,
        }
    }
}

/// Changes under way at once: what an API server answers without a queue.
const AT_ONCE: usize = 64;
/// How often the identities are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// The operator records once a second and writes each namespace once; it may be taking over.
const PATIENCE: Duration = Duration::from_secs(60);
/// Somebody else's write between our reading and ours.
const ATTEMPTS: u32 = 20;

/// Revokes.
///
/// # Errors
/// One sentence that says what could not be done, or was not seen to be done.
pub async fn revoke(options: RevokeOptions) -> anyhow::Result<()> {
    let cluster = Cluster::connect(&options.how.connection).await?;
    let reason = RevocationReason::from(options.reason);
    if let (Some(serial), Some(name)) = (&options.serial, &options.who.name) {
        return revoke_serial(&cluster, &options, name, serial, reason).await;
    }
    let change = json!({"spec": {"revoked": {"reason": reason, "message": options.message}}});
    run(&cluster, &options.who, &options.how, Wish::Revoke, &change).await
}

/// Gives back.
///
/// # Errors
/// One sentence that says what could not be done, or was not seen to be done.
pub async fn unrevoke(options: UnrevokeOptions) -> anyhow::Result<()> {
    let cluster = Cluster::connect(&options.how.connection).await?;
    let change = json!({"spec": {"revoked": null}});
    run(&cluster, &options.who, &options.how, Wish::GiveBack, &change).await
}

async fn run(
    cluster: &Cluster,
    who: &Who,
    how: &How,
    wish: Wish,
    change: &Value,
) -> anyhow::Result<()> {
    let found = find(cluster, who).await?;
    let selected = select(&found, who.role.as_deref(), wish);
    if selected.is_empty() {
        println!("{}", nothing_to_do(&found, wish));
        return Ok(());
    }
    let namespaces = selected.iter().map(|identity| name_of(identity).0).collect();
    entitled(cluster, namespaces).await?;
    if who.name.is_none() {
        println!("{}", summary(&selected, wish));
        confirm(how, selected.len())?;
    }
    let names: Vec<Name> = selected.iter().map(|identity| name_of(identity)).collect();
    let began = Instant::now();
    let results: Vec<(Name, Result<AgentIdentity, Problem>)> = futures::stream::iter(names)
        .map(|(namespace, name)| async move {
            let result = cluster.change_identity(&namespace, &name, change).await;
            ((namespace, name), result)
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let mut waiting = BTreeSet::new();
    let mut refused = Vec::new();
    for (name, result) in results {
        match result {
            Ok(_) => drop(waiting.insert(name)),
            Err(problem) => refused.push(problem),
        }
    }
    let asked = waiting.len();
    if !how.no_wait {
        wait(cluster, who, wish, &mut waiting).await?;
    }
    let done = match wish {
        Wish::Revoke => "revoked",
        Wish::GiveBack => "given back",
    };
    if how.no_wait {
        println!("{} asked to be {done}; the operator goes on", count(asked, "agent"));
    } else {
        let seconds = began.elapsed().as_secs_f64();
        println!("{} {done} in {seconds:.1} s", count(asked - waiting.len(), "agent"));
    }
    if let Some(first) = refused.first() {
        bail!("{} could not be changed: {first}", count(refused.len(), "agent"));
    }
    if let Some((namespace, name)) = waiting.first() {
        bail!(
            "{} not {done} within {} s, such as {namespace}/{name}: see its conditions and whether the operator runs; it goes on by itself",
            count(waiting.len(), "agent"),
            PATIENCE.as_secs()
        );
    }
    Ok(())
}

/// Goes on only if whoever asks may revoke in these namespaces. The API server would refuse each
/// change; of many, some would be done and some not.
async fn entitled(cluster: &Cluster, namespaces: BTreeSet<String>) -> anyhow::Result<()> {
    if namespaces.len() > 1 && cluster.may_revoke(None).await? {
        return Ok(());
    }
    let checks = futures::stream::iter(&namespaces).map(async |namespace| {
        let is_allowed = cluster.may_revoke(Some(namespace)).await;
        is_allowed.map(|is_allowed| (!is_allowed).then_some(namespace))
    });
    let lacking: Vec<Option<&String>> = checks.buffer_unordered(AT_ONCE).try_collect().await?;
    if let Some(namespace) = lacking.into_iter().flatten().min() {
        bail!(
            "you may not revoke AgentIdentities of namespace {namespace}, or give them back: it wants the verb revoke on agentidentities.countersign.dev, which the ClusterRole countersign-revoker has. Nothing is changed"
        );
    }
    Ok(())
}

async fn find(cluster: &Cluster, who: &Who) -> Result<Vec<AgentIdentity>, Problem> {
    match (&who.name, &who.all_in) {
        (Some(name), _) => {
            let namespace = who.namespace.as_deref().unwrap_or(cluster.default_namespace());
            Ok(vec![cluster.identity(namespace, name).await?])
        }
        (None, Some(namespace)) => {
            cluster.identities_in(Some(namespace), who.selector.as_deref()).await
        }
        (None, None) => {
            cluster.identities_in(who.namespace.as_deref(), who.selector.as_deref()).await
        }
    }
}

fn nothing_to_do(found: &[AgentIdentity], wish: Wish) -> String {
    match (wish, found) {
        (Wish::Revoke, [one]) => {
            let since = one.status.as_ref().and_then(|status| status.revoked.as_ref());
            let since = since.map(|revoked| format!(" since {}", revoked.since.0));
            let (namespace, name) = name_of(one);
            format!("{namespace}/{name} is revoked already{}", since.unwrap_or_default())
        }
        (Wish::GiveBack, [one]) => {
            let (namespace, name) = name_of(one);
            format!("{namespace}/{name} is not revoked")
        }
        (Wish::Revoke, _) => "nobody is left to revoke there".to_owned(),
        (Wish::GiveBack, _) => "nobody is revoked there".to_owned(),
    }
}

/// Goes on only if that is meant.
fn confirm(how: &How, number: usize) -> anyhow::Result<()> {
    if how.yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        bail!("nothing is changed: there is no terminal to ask on; --yes does it without asking");
    }
    let mut output = std::io::stdout();
    write!(output, "Write {number} to go on: ")?;
    output.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if answer.trim() != number.to_string() {
        bail!("nothing is changed");
    }
    Ok(())
}

/// Waits until the operator has done what was asked, and leaves those for which it has not.
async fn wait(
    cluster: &Cluster,
    who: &Who,
    wish: Wish,
    waiting: &mut BTreeSet<Name>,
) -> Result<(), Problem> {
    let began = Instant::now();
    while !waiting.is_empty() && began.elapsed() < PATIENCE {
        tokio::time::sleep(LOOK).await;
        let found = match find(cluster, who).await {
            Ok(found) => found,
            Err(Problem::Away(_)) => continue,
            Err(problem) => return Err(problem),
        };
        let is_waited_for = |name: &Name| {
            found.iter().any(|identity| name_of(identity) == *name && !is_done(identity, wish))
        };
        waiting.retain(is_waited_for);
    }
    Ok(())
}

async fn revoke_serial(
    cluster: &Cluster,
    options: &RevokeOptions,
    name: &str,
    serial: &str,
    reason: RevocationReason,
) -> anyhow::Result<()> {
    let namespace = options.who.namespace.as_deref().unwrap_or(cluster.default_namespace());
    let serial = serial.replace(':', "").to_lowercase();
    entitled(cluster, BTreeSet::from([namespace.to_owned()])).await?;
    for _ in 0..ATTEMPTS {
        let identity = cluster.identity(namespace, name).await?;
        let status = identity.status.as_ref();
        let current = status.and_then(|status| status.certificate.as_ref());
        let is_known = current.is_some_and(|current| current.serial_number == serial)
            || status.is_some_and(|s| s.former.iter().any(|f| f.serial_number == serial));
        if !is_known {
            bail!(
                "{serial} is no living certificate of {namespace}/{name}: see status.certificate and status.former"
            );
        }
        let mut all = identity.spec.revoked_certificates.clone();
        if all.iter().any(|revoked| revoked.serial_number == serial) {
            println!("the certificate {serial} is revoked already");
            return Ok(());
        }
        // What has ended need not be named any more.
        all.retain(|revoked| {
            let serial = &revoked.serial_number;
            current.is_some_and(|current| current.serial_number == *serial)
                || status.is_some_and(|s| s.former.iter().any(|f| f.serial_number == *serial))
        });
        let mut all = serde_json::to_value(all)?;
        if let Some(list) = all.as_array_mut() {
            list.push(json!({"serialNumber": serial, "reason": reason}));
        }
        let change = json!({
            "metadata": {"resourceVersion": identity.metadata.resource_version},
            "spec": {"revokedCertificates": all},
        });
        match cluster.change_identity(namespace, name, &change).await {
            Ok(_) => {
                println!("the certificate {serial} of {namespace}/{name} is to be revoked");
                return Ok(());
            }
            Err(Problem::Conflict(_)) => {}
            Err(problem) => return Err(problem.into()),
        }
    }
    Err(Problem::Conflict(format!("the AgentIdentity {namespace}/{name}")).into())
}
