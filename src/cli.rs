//! What a person types.

pub mod crd;
pub mod probe;

use std::path::PathBuf;

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
pub fn execute(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Run(options) => {
            runtime::logs::start(options.log_format, &options.log)?;
            rustls::crypto::aws_lc_rs::default_provider()
                .install_default()
                .map_err(|_| anyhow::anyhow!("a crypto provider is already installed"))?;
            tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()?
                .block_on(runtime::run(options))
        }
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
    }
}
