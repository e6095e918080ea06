//! `agent`: an AI agent with everything left out but its identity.
//!
//! It holds a certificate that Countersign issued, follows every rotation of it, and talks to other
//! agents over mutual TLS alone. The demo and the cluster test run it; read it to see what an agent of
//! your own has to do, which is three files:
//!
//! ```text
//! material   load tls.crt, tls.key, ca.crt, crl.pem; notice when they change
//! verify     is this peer who I expect? (chain to ca.crt, not on crl.pem, then the SPIFFE ID)
//! tls        the two of them as rustls configurations: TLS 1.3, both sides show a certificate
//! ```
//!
//! and a fourth, `lasting`, for agents that keep connections open.
//!
//! The rest is what makes it watchable: `serve`, `call` and `keep` speak, `counters` count, `report` prints them,
//! `handshake` tells one handshake step by step, `intrude` tries to get in without an identity, `ask` calls a tool of an MCP server,
//! `until` tells when somebody was cut off or let in, and `mcp` is a tool server that leaves all of this to an Envoy.

mod ask;
mod call;
mod certificate;
mod cli;
mod clock;
mod counters;
#[cfg(test)]
mod end_to_end;
mod explain;
mod forge;
mod handshake;
mod hello;
mod intrude;
mod keep;
mod lasting;
mod material;
mod mcp;
mod report;
mod revocation;
mod run;
mod serve;
mod tls;
mod until;
mod verify;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log(&cli.log);
    let outcome = match cli.command {
        Command::Serve(args) => run::run(&cli.identity, args).await,
        Command::Report(args) => report::run(args).await,
        Command::Handshake(args) => handshake::run(&cli.identity, args).await,
        Command::Intrude(args) => intrude::run(&cli.identity, args).await,
        Command::Ask(args) => ask::run(&cli.identity, args).await,
        Command::Until(args) => until::run(&cli.identity, args).await,
        Command::Mcp(args) => mcp::run(args).await,
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("agent: {error:#}");
        ExitCode::from(2)
    })
}

fn start_log(filter: &str) {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(false)
        .init();
}
