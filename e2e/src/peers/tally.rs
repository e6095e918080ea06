//! What came of all the handshakes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use super::CREW;

/// One calls another.
#[derive(Clone, Debug, Default)]
pub struct Pair {
    /// Handshakes since the first that succeeded: before it, somebody was still starting.
    pub tried: u64,
    /// Those that failed.
    pub failed: u64,
    /// Why the last of them did.
    pub last_failure: Option<String>,
    /// The serial numbers of the certificates that were seen: the server's, but where Envoy calls,
    /// its own, as the server tells it. (Of Envoy calling itself nobody tells.)
    pub certificates: BTreeSet<String>,
}

impl Pair {
    /// Counts one call: the serial number of a certificate, or why it failed.
    pub fn count(&mut self, outcome: Result<String, String>) {
        match outcome {
            Ok(serial) => {
                self.tried += 1;
                self.certificates.insert(serial);
            }
            Err(_) if self.tried == 0 => {}
            Err(why) => {
                self.tried += 1;
                self.failed += 1;
                self.last_failure = Some(why);
            }
        }
    }

    /// The same from what an agent reports.
    fn read(calls: &Value) -> Self {
        let number = |name: &str| calls[name].as_u64().unwrap_or_default();
        let peers = calls["peers"].as_array().into_iter().flatten();
        Self {
            tried: number("tried"),
            failed: number("failed"),
            last_failure: Some(&calls["last_failure"])
                .filter(|why| !why.is_null() && *why != "")
                .map(Value::to_string),
            certificates: peers.map(|peer| peer["serial"].to_string()).collect(),
        }
    }
}

/// All pairs, and what the servers say.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// By client and server.
    pub pairs: BTreeMap<(&'static str, &'static str), Pair>,
    /// What servers refused, or Envoy counted as an error, or was resumed; in words.
    pub faults: Vec<String>,
}

impl Tally {
    pub(super) fn take_report(&mut self, client: &'static str, report: &Value) {
        for server in CREW {
            self.pairs.insert((client, server), Pair::read(&report["calls"][server]));
        }
        for fault in ["refused", "resumed"] {
            if report[fault].as_u64().is_some_and(|count| count > 0) {
                self.faults
                    .push(format!("{client} {fault} {}: {}", report[fault], report["refusals"]));
            }
        }
    }

    pub(super) fn take_calls(&mut self, client: &'static str, mut calls: BTreeMap<String, Pair>) {
        for server in CREW {
            self.pairs.insert((client, server), calls.remove(server).unwrap_or_default());
        }
    }

    /// Handshakes of all pairs.
    pub fn tried(&self) -> u64 {
        self.pairs.values().map(|pair| pair.tried).sum()
    }

    /// Those that failed.
    pub fn failed(&self) -> u64 {
        self.pairs.values().map(|pair| pair.failed).sum()
    }

    /// The fewest of any pair.
    pub fn fewest(&self) -> u64 {
        self.pairs.values().map(|pair| pair.tried).min().unwrap_or_default()
    }
}

/// A table: who calls in the rows, who answers in the columns; `tried/failed`.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "    {:<12}", "calls \\ to")?;
        CREW.iter().try_for_each(|server| write!(f, "{server:>12}"))?;
        for client in CREW {
            write!(f, "\n    {client:<12}")?;
            for server in CREW {
                let pair = self.pairs.get(&(client, server)).cloned().unwrap_or_default();
                write!(f, "{:>12}", format!("{}/{}", pair.tried, pair.failed))?;
            }
        }
        Ok(())
    }
}
