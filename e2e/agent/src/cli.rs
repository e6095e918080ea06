//! What a person, or a pod's manifest, types.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// A small agent that speaks only mutual TLS.
#[derive(Parser)]
#[command(name = "agent", version)]
pub struct Cli {
    /// The directory with tls.crt, tls.key and ca.crt.
    #[arg(long, global = true, env = "AGENT_IDENTITY", default_value = "/var/run/countersign")]
    pub identity: PathBuf,

    /// What to log: error, warn, info, debug.
    #[arg(long, global = true, env = "AGENT_LOG", default_value = "info")]
    pub log: String,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Answer the agents that are allowed, and call others at a steady rate.
    Serve(ServeArgs),
    /// Print the counters of the agent that runs beside this one (through kubectl exec).
    Report(ReportArgs),
    /// Perform one mutual handshake and tell its six steps as they happen.
    Handshake(HandshakeArgs),
    /// Try to get in without an identity. Exit code 0: refused, as must be. 1: let in. 2: could not try.
    Intrude(IntrudeArgs),
    /// Call one tool of an MCP server. Exit code 0 if and only if it answers 200.
    Ask(AskArgs),
    /// Try something over and over until it is refused, or accepted, and print when that was.
    Until(UntilArgs),
    /// Be an MCP tool server in plain HTTP, for an Envoy in the same pod to stand before.
    Mcp(McpArgs),
}

#[derive(Args)]
pub struct ServeArgs {
    /// Where to accept mutual TLS.
    #[arg(long, env = "AGENT_LISTEN", default_value = "0.0.0.0:8443")]
    pub listen: String,

    /// A SPIFFE ID that may call (repeat it, or separate by commas). Without any, nobody may.
    #[arg(long, env = "AGENT_ALLOW", value_delimiter = ',')]
    pub allow: Vec<String>,

    /// An agent to call, as name=host:port=spiffe-id (repeat it, or separate by commas).
    #[arg(long, env = "AGENT_CALL", value_delimiter = ',')]
    pub call: Vec<Target>,

    /// Calls a second to each of them, each a full handshake.
    #[arg(long, env = "AGENT_RATE", default_value_t = 5.0, value_parser = rate)]
    pub rate: f64,

    /// An agent to keep one connection open to, and to call over it, written as for --call.
    #[arg(long, env = "AGENT_KEEP", value_delimiter = ',')]
    pub keep: Vec<Target>,

    /// How long a connection may stay open, in seconds, whoever opened it. It also ends with the peer's certificate,
    /// and at once when the peer is revoked.
    #[arg(long, env = "AGENT_CONNECTION_LIFE", default_value_t = 600)]
    pub connection_life: u32,

    /// Where `agent report` finds the counters: loopback, so that nothing leaves the pod.
    #[arg(long, env = "AGENT_STATUS", default_value = "127.0.0.1:9180")]
    pub status: String,
}

#[derive(Args)]
pub struct ReportArgs {
    #[arg(long, env = "AGENT_STATUS", default_value = "127.0.0.1:9180")]
    pub status: String,

    /// One line of key=value pairs, for scripts without a JSON parser.
    #[arg(long)]
    pub line: bool,
}

#[derive(Args)]
pub struct HandshakeArgs {
    /// The server, as host:port.
    #[arg(long)]
    pub to: String,

    /// The SPIFFE ID that the server must prove.
    #[arg(long)]
    pub expect: String,
}

#[derive(Args)]
pub struct IntrudeArgs {
    /// What the intruder has in its hands.
    #[arg(long = "with", value_enum)]
    pub flavour: Flavour,

    /// The server, as host:port.
    #[arg(long)]
    pub to: String,

    /// The SPIFFE ID of that server.
    #[arg(long)]
    pub expect: String,

    /// The SPIFFE ID that the forged certificate claims (for --with other-ca).
    #[arg(long, required_if_eq("flavour", "other-ca"))]
    pub pretend: Option<String>,
}

#[derive(Args)]
pub struct AskArgs {
    /// The server, as host:port.
    #[arg(long)]
    pub to: String,

    /// The SPIFFE ID that the server must prove.
    #[arg(long)]
    pub expect: String,

    /// The tool to call.
    #[arg(long)]
    pub tool: String,

    /// Present no certificate.
    #[arg(long)]
    pub without_certificate: bool,
}

#[derive(Args)]
pub struct UntilArgs {
    /// What to wait for.
    #[arg(value_enum)]
    pub outcome: Outcome,

    /// The server, as host:port.
    #[arg(long)]
    pub to: String,

    /// The SPIFFE ID that the server must prove. Without it, only a TCP connection is opened.
    #[arg(long)]
    pub expect: Option<String>,

    /// Call this tool of an MCP server.
    #[arg(long, requires = "expect")]
    pub tool: Option<String>,

    /// How long to pause between two tries, in milliseconds.
    #[arg(long, default_value_t = 20)]
    pub every: u32,

    /// How long to try, in seconds.
    #[arg(long, default_value_t = 120)]
    pub within: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Outcome {
    Refused,
    Accepted,
}

#[derive(Args)]
pub struct McpArgs {
    /// Where to listen: loopback, since it asks nobody who they are.
    #[arg(long, env = "AGENT_MCP", default_value = "127.0.0.1:8080")]
    pub listen: String,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Flavour {
    /// No identity and no TLS: plain text, as agents speak that nobody gave a certificate.
    Nothing,
    /// TLS, but no certificate when the server asks for one.
    NoCertificate,
    /// TLS with a certificate for an allowed SPIFFE ID, signed by a CA the intruder made itself.
    OtherCa,
}

/// One agent to call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub name: String,
    pub to: String,
    pub expect: String,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.splitn(3, '=').map(str::trim).map(str::to_owned);
        match (parts.next(), parts.next(), parts.next()) {
            (Some(name), Some(to), Some(expect)) if expect.starts_with("spiffe://") => Ok(Self { name, to, expect }),
            _ => Err("write it as name=host:port=spiffe-id, for example tools=tools:8443=spiffe://example.org/ns/a/sa/tools".into()),
        }
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate <= 1000.0 => Ok(rate),
        _ => Err("write a number of calls a second, above 0 and at most 1000".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_has_a_name_an_address_and_a_spiffe_id() {
        let target: Target = "tools=tools:8443=spiffe://d/ns/research/sa/tools".parse().unwrap();
        assert_eq!(target.to, "tools:8443");
        assert_eq!(target.expect, "spiffe://d/ns/research/sa/tools");
        assert!("tools=tools:8443".parse::<Target>().is_err());
        assert!("tools=tools:8443=tools".parse::<Target>().is_err());
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
