//! What a person types.

pub mod crd;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

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
    /// Print the CustomResourceDefinitions
    Crd {
        /// Write one file for each into this folder instead
        #[arg(long, value_name = "FOLDER")]
        output: Option<PathBuf>,
    },
}

/// Does what was typed.
///
/// # Errors
/// One sentence that says what could not be done.
pub fn execute(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Crd { output: None } => print!("{}", crd::stream()),
        Command::Crd { output: Some(folder) } => {
            for (name, yaml) in crd::files() {
                std::fs::write(folder.join(name), yaml)?;
            }
        }
    }
    Ok(())
}
