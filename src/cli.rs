//! What a person types.

pub mod access;
pub mod cluster;
pub mod crd;
pub mod probe;
pub mod revoke;
pub mod rotate;
pub mod trust;
pub mod words;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::runtime::{self, RunOptions};

/// Identities of their own for AI agents on Kubernetes.
#[derive(Parser, Debug)]
#[command(name = "countersign", version, about, long_about = None)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run the operator
    Run(RunOptions),
    /// Print the CustomResourceDefinitions
    Crd {
        /// Write one file for each into this folder instead
        #[arg(long, value_name = "FOLDER")]
        output: Option<PathBuf>,
    },
    /// Draw a trust domain: its CAs, its bundle, and what happens next
    Trust(trust::TrustOptions),
    /// Replace a trust domain's CA without breaking trust, and follow how it goes
    RotateCa(rotate::RotateOptions),
    /// Say whether one agent may call another, and why: ends with 0 for yes and 2 for no
    Can(access::CanOptions),
    /// Draw who may call whom
    Graph(access::GraphOptions),
    /// Cut agents off: nothing is signed for them, their pods say so, their certificates are revoked
    Revoke(revoke::RevokeOptions),
    /// Give agents that were cut off a new key and certificate
    Unrevoke(revoke::UnrevokeOptions),
    /// Get an http URL and fail where it does not answer with success
    Probe {
        /// Such as http://localhost:9402/readyz
        url: String,
    },
}

/// Does what was typed.
///
/// # Errors
/// One sentence that says what could not be done.
pub fn execute(cli: Cli) -> anyhow::Result<ExitCode> {
    let done = match cli.command {
        Command::Can(options) => return wait_for(access::can_call(options)),
        Command::Graph(options) => return wait_for(access::graph(options)),
        Command::Run(options) => {
            runtime::logs::start(options.log_format, &options.log)?;
            install_crypto()?;
            tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()?
                .block_on(runtime::run(options))
        }
        Command::Trust(options) => wait_for(trust::run(options)),
        Command::RotateCa(options) => wait_for(rotate::run(options)),
        Command::Revoke(options) => wait_for(revoke::revoke(options)),
        Command::Unrevoke(options) => wait_for(revoke::unrevoke(options)),
        Command::Crd { output: None } => {
            print!("{}", crd::stream());
            Ok(())
        }
        Command::Crd { output: Some(folder) } => {
            for (name, yaml) in crd::files() {
                std::fs::write(folder.join(name), yaml)?;
            }
            Ok(())
        }
        Command::Probe { url } => probe::probe(&url),
    };
    done.map(|()| ExitCode::SUCCESS)
}

/// Does what a person waits for.
fn wait_for<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    install_crypto()?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

fn install_crypto() -> anyhow::Result<()> {
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a crypto provider is already installed"))
}

/// What clap says of a wrong command line, in one sentence: its first paragraph, without the usage
/// that `--help` prints better.
pub fn sentence(said: &str) -> String {
    let first: Vec<&str> =
        said.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    let first = first.join(" ");
    format!("{}; --help tells what can be typed", first.trim_start_matches("error: "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn a_wrong_command_line_is_one_sentence() {
        for (typed, part) in [
            (vec!["countersign", "run", "--nonsense"], "unexpected argument '--nonsense'"),
            (vec!["countersign", "run", "--listen", "nowhere"], "'nowhere'"),
            (vec!["countersign", "dance"], "'dance'"),
            (vec!["countersign", "probe"], "<URL>"),
        ] {
            let said = sentence(&Cli::try_parse_from(&typed).unwrap_err().to_string());
            assert!(
                said.contains(part) && !said.contains('\n') && !said.contains("error:"),
                "{said}"
            );
        }
    }
}
