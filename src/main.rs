//! The `countersign` program: the operator, and the commands a person types.

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use countersign::cli::{Cli, execute, sentence};

/// glibc's allocator keeps what a burst of ten thousand issuances leaves behind: 104 MB with it, 63
/// with this one, which gives pages back in the background.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // --help, --version and no command at all are answered with what clap prints.
        Err(help)
            if !help.use_stderr()
                || help.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand =>
        {
            help.exit()
        }
        Err(error) => return fail(&sentence(&error.to_string())),
    };
    match execute(cli) {
        Ok(code) => code,
        Err(error) => fail(&format!("{error:#}")),
    }
}

/// Some parsers draw below their sentence what they could not read: it may be a token.
fn fail(why: &str) -> ExitCode {
    eprintln!("countersign: {}", why.lines().next().unwrap_or_default());
    ExitCode::FAILURE
}
