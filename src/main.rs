//! The `countersign` program: the operator, and the commands a person types.

use std::process::ExitCode;

use clap::Parser;
use countersign::cli::{Cli, execute};

/// glibc's allocator keeps what a burst of ten thousand issuances leaves behind: 104 MB with it, 63
/// with this one, which gives pages back in the background.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match execute(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Some parsers draw below their sentence what they could not read: it may be a token.
            let text = format!("{error:#}");
            eprintln!("countersign: {}", text.lines().next().unwrap_or_default());
            ExitCode::FAILURE
        }
    }
}
