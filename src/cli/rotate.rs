//! `countersign rotate-ca`: asks for a newer CA and follows what the operator makes of it.
//!
//! The command sets one field and nothing else. The rotation is the operator's: it goes on when
//! the command is interrupted, and a second command follows the same one.

mod emergency;
mod progress;
mod request;
mod screen;
#[cfg(test)]
mod tests;

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;

use self::progress::{Agents, Goal, progress};
use self::request::{Request, Wish, request};
use self::screen::Screen;
use super::cluster::{Cluster, Connection, Problem};
use crate::runtime::clock;

/// What to rotate, and how.
#[derive(Args, Debug, Clone)]
pub struct RotateOptions {
    /// The TrustDomain's name
    pub trust_domain: String,
    /// Rotate the issuing CA alone: peers trust its root already, and get its CRL before it signs
    #[arg(long, conflicts_with = "emergency")]
    pub issuing: bool,
    /// Distrust a CA now, without overlap, because its key is in wrong hands
    #[arg(long, requires = "distrust")]
    pub emergency: bool,
    /// The key id of the CA to distrust, as `countersign trust` shows it
    #[arg(long, value_name = "KEY ID", requires = "emergency")]
    pub distrust: Option<String>,
    /// Do not ask whether an emergency is meant
    #[arg(long, requires = "emergency")]
    pub yes: bool,
    /// Ask for the rotation and do not follow it
    #[arg(long)]
    pub no_wait: bool,
    #[command(flatten)]
    pub connection: Connection,
}

/// How often the TrustDomain is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How often the agents are counted in an emergency: it reads all of them.
const COUNT: Duration = Duration::from_secs(5);
/// Somebody else's write between our reading and ours: the operator's own status is one.
const ATTEMPTS: u32 = 20;

/// Asks for a rotation, and follows it.
///
/// # Errors
/// One sentence that says what could not be done, or that it is not followed any more.
pub async fn run(options: RotateOptions) -> anyhow::Result<()> {
    let cluster = Cluster::connect(&options.connection).await?;
    let name = &options.trust_domain;
    let wish = match (&options.distrust, options.issuing) {
        (Some(key_id), _) => Wish::Distrust(request::normal_key_id(key_id)),
        (None, true) => Wish::Issuing,
        (None, false) => Wish::Root,
    };
    let mut screen = Screen::new();
    let Request { goal, say, .. } = ask(&cluster, &options, &wish).await?;
    screen.print(&say)?;
    if options.no_wait {
        screen.print(&format!("`countersign trust {name}` shows how far it has come."))?;
        return Ok(());
    }
    let left = tokio::select! {
        result = follow(&cluster, name, &goal, &mut screen) => return result,
        _ = tokio::signal::ctrl_c() => screen.leave(),
    };
    left?;
    bail!("not followed any more; the rotation goes on, and `countersign trust {name}` shows it")
}

/// Sets the field that asks for it, unless it is set already.
async fn ask(cluster: &Cluster, options: &RotateOptions, wish: &Wish) -> anyhow::Result<Request> {
    let name = &options.trust_domain;
    let mut agreed = None;
    for _ in 0..ATTEMPTS {
        let domain = cluster.trust_domain(name).await?;
        let request = request(&domain, wish).map_err(anyhow::Error::msg)?;
        let Some(change) = &request.change else { return Ok(request) };
        // Who is struck may have changed while the person was reading.
        if let Goal::Distrusted(struck) = &request.goal
            && agreed.as_ref() != Some(struck)
        {
            let identities = cluster.identities().await?;
            let warning = emergency::warning(&domain, struck, &identities, clock::now());
            confirm(options, &warning)?;
            agreed = Some(struck.clone());
            continue;
        }
        match cluster.change(name, change).await {
            Ok(()) => return Ok(request),
            Err(Problem::Conflict(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Problem::Conflict(format!("the TrustDomain {name}")).into())
}

/// Shows what will break, and goes on only if that is meant.
fn confirm(options: &RotateOptions, warning: &str) -> anyhow::Result<()> {
    let mut output = std::io::stdout();
    writeln!(output, "{warning}")?;
    if options.yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        bail!("nothing is changed: there is no terminal to ask on; --yes does it without asking");
    }
    write!(output, "Distrust it now? Write yes to go on: ")?;
    output.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if answer.trim() != "yes" {
        bail!("nothing is changed");
    }
    Ok(())
}

/// Shows every change until the goal is reached.
async fn follow(
    cluster: &Cluster,
    name: &str,
    goal: &Goal,
    screen: &mut Screen,
) -> anyhow::Result<()> {
    let began = Instant::now();
    let mut agents = None;
    let mut counted: Option<Instant> = None;
    loop {
        if let Goal::Distrusted(struck) = goal
            && counted.is_none_or(|at| at.elapsed() >= COUNT)
        {
            match cluster.identities().await {
                Ok(identities) => {
                    let left = emergency::victims(name, struck, &identities, clock::now()).len();
                    agents = Some(Agents { left });
                }
                Err(Problem::Refused(sentence)) => bail!(sentence),
                // The TrustDomain is asked for next, and says the same.
                Err(_) => {}
            }
            counted = Some(Instant::now());
        }
        match cluster.trust_domain(name).await {
            Ok(domain) => {
                let progress = progress(&domain, goal, agents, began.elapsed());
                screen.show(&progress, clock::now())?;
                if progress.is_done {
                    return Ok(());
                }
            }
            Err(Problem::Refused(sentence)) => {
                screen.leave()?;
                bail!(sentence);
            }
            Err(Problem::Away(_) | Problem::Conflict(_)) => {
                screen.away("the API server does not answer; it is asked again, and the rotation waits with it", clock::now())?;
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}
