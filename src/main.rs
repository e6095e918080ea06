//! The `countersign` program: the operator, and the commands a person types.

use std::process::ExitCode;

use clap::Parser;
use countersign::cli::{Cli, execute};

fn main() -> ExitCode {
    match execute(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("countersign: {error:#}");
            ExitCode::FAILURE
        }
    }
}
