//! How the operator runs: flags, each with an environment variable.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::identity::Lifetime;

/// How the operator runs. Every flag has an environment variable.
#[derive(Args, Debug, Clone)]
pub struct RunOptions {
    /// A kubeconfig file; by default what the cluster gives a pod, or else ~/.kube/config
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The operator's own namespace, where CA Secrets and the Lease are kept
    #[arg(long, env = "COUNTERSIGN_NAMESPACE", default_value = "countersign-system")]
    pub namespace: String,
    /// The Lease by which replicas agree on who leads
    #[arg(long, env = "COUNTERSIGN_LEASE_NAME", default_value = "countersign")]
    pub lease_name: String,
    /// This replica's name in the Lease; by default the pod's name or the machine's
    #[arg(long, env = "COUNTERSIGN_REPLICA", value_name = "NAME")]
    pub replica: Option<String>,
    /// Where /healthz, /readyz and /metrics are served
    #[arg(
        long,
        env = "COUNTERSIGN_LISTEN",
        default_value = "[::]:9402",
        value_name = "ADDRESS:PORT"
    )]
    pub listen: SocketAddr,
    /// Where CRLs are served, over plain HTTP, at /crl/<key id>.crl
    #[arg(
        long,
        env = "COUNTERSIGN_CRL_LISTEN",
        default_value = "[::]:9403",
        value_name = "ADDRESS:PORT"
    )]
    pub crl_listen: SocketAddr,
    /// How peers reach that: the CRL distribution point in each certificate begins with this.
    /// Without it certificates have none
    #[arg(long, env = "COUNTERSIGN_CRL_URL", value_name = "URL", value_parser = parse_crl_url)]
    pub crl_url: Option<String>,
    /// How log lines are written
    #[arg(long, env = "COUNTERSIGN_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// What is logged: error, warn, info, debug, trace, or module=level, separated by commas
    #[arg(long, env = "COUNTERSIGN_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
    /// By how much this machine's clock may differ from the API server's before nothing is signed
    #[arg(long, env = "COUNTERSIGN_MAX_CLOCK_SKEW", default_value = "1m", value_name = "DURATION")]
    pub max_clock_skew: Lifetime,
    /// The DNS domain of the cluster
    #[arg(
        long,
        env = "COUNTERSIGN_CLUSTER_DOMAIN",
        default_value = "cluster.local",
        value_name = "DOMAIN"
    )]
    pub cluster_domain: String,
}

/// How log lines are written.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// A URL that can stand in a certificate: plain HTTP, since whoever checks a certificate cannot be
/// asked to check another one first, and ASCII.
fn parse_crl_url(text: &str) -> Result<String, String> {
    let is_printable = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"');
    let has_host = text.strip_prefix("http://").is_some_and(|rest| !rest.is_empty());
    match has_host && is_printable && text.len() <= LONGEST_CRL_URL {
        true => Ok(text.to_owned()),
        false => {
            Err("write a URL such as http://countersign-crl.countersign-system.svc".to_owned())
        }
    }
}

/// It stands in every certificate.
const LONGEST_CRL_URL: usize = 200;

impl RunOptions {
    /// This replica's name in the Lease.
    pub fn replica(&self) -> String {
        let named = self.replica.clone().or_else(|| std::env::var("POD_NAME").ok());
        let machine = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
        named
            .or_else(machine)
            .map(|name| name.trim().to_owned())
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "countersign".to_owned())
    }
}
