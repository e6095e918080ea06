//! What happened, by peer and by serial, so that a rotation is visible from both ends.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Mutex;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::certificate::Facts;
use crate::cli::Target;
use crate::clock;
use crate::material::Material;

/// An agent may run for months: each list keeps the newest.
const KEEP: usize = 20;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    pub spiffe_id: String,
    pub started: Timestamp,
    /// The identity now, and those before it; `loads` counts the certificates taken up since the start.
    pub identity: Facts,
    pub loads: u64,
    pub serials: VecDeque<Held>,
    /// How many certificates crl.pem takes back.
    pub revoked: usize,
    pub calls: BTreeMap<String, Calls>,
    pub kept: BTreeMap<String, Kept>,
    pub handshakes_accepted: u64,
    pub accepted: VecDeque<Met>,
    pub refused: u64,
    pub refusals: VecDeque<Refused>,
    /// Callers whose open connection was ended, because they may no longer call.
    pub cut_off: u64,
    pub cuts: VecDeque<Refused>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Held {
    pub serial: String,
    pub since: Timestamp,
    pub not_after: Timestamp,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Calls {
    pub to: String,
    pub expect: String,
    /// Handshakes tried and failed since the first that succeeded.
    pub tried: u64,
    pub failed: u64,
    /// Tries before that, while the other agent was still starting.
    pub before_first_success: u64,
    pub last_failure: Option<Failed>,
    pub peers: VecDeque<Met>,
}

/// Connections that stay open to one agent, one after the other.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Kept {
    pub to: String,
    pub expect: String,
    pub open: bool,
    pub opened: u64,
    pub said: u64,
    /// How the last of them ended, or the last try to open one.
    pub last_end: Option<Failed>,
}

/// How a connection that was to stay open ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It was as old as one may be.
    Due,
    /// The other side may no longer be spoken to.
    Ours(String),
    Theirs(String),
    NotOpened(String),
}

impl End {
    fn why(&self) -> &str {
        match self {
            Self::Due => "it was as old as one may be",
            Self::Ours(why) | Self::Theirs(why) | Self::NotOpened(why) => why,
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failed {
    pub at: Timestamp,
    pub why: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Met {
    pub spiffe_id: String,
    pub serial: String,
    pub fingerprint: String,
    pub first: Timestamp,
    pub last: Timestamp,
    pub handshakes: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Refused {
    pub at: Timestamp,
    pub from: String,
    pub presented: String,
    pub why: String,
}

pub struct Counters(Mutex<Report>);

impl Counters {
    pub fn new(material: &Material, targets: &[Target], keep: &[Target]) -> Self {
        let calls = targets.iter().map(|target| {
            let (to, expect) = (target.to.clone(), target.expect.clone());
            (
                target.name.clone(),
                Calls {
                    to,
                    expect,
                    tried: 0,
                    failed: 0,
                    before_first_success: 0,
                    last_failure: None,
                    peers: VecDeque::new(),
                },
            )
        });
        let kept = keep.iter().map(|target| {
            let (to, expect) = (target.to.clone(), target.expect.clone());
            (target.name.clone(), Kept { to, expect, ..Kept::default() })
        });
        let counters = Self(Mutex::new(Report {
            spiffe_id: material.spiffe_id.clone(),
            started: clock::now(),
            identity: material.me.clone(),
            loads: 0,
            serials: VecDeque::new(),
            revoked: 0,
            calls: calls.collect(),
            kept: kept.collect(),
            handshakes_accepted: 0,
            accepted: VecDeque::new(),
            refused: 0,
            refusals: VecDeque::new(),
            cut_off: 0,
            cuts: VecDeque::new(),
        }));
        counters.holds(material);
        counters
    }

    pub fn report(&self) -> Report {
        self.change(|report| report.clone())
    }

    /// The agent took up a certificate, or only a new ca.crt beside the one it had.
    pub fn holds(&self, material: &Material) {
        let me = material.me.clone();
        self.change(|report| {
            if report.serials.back().is_none_or(|held| held.serial != me.serial) {
                report.loads += 1;
                push(
                    &mut report.serials,
                    Held {
                        serial: me.serial.clone(),
                        since: clock::now(),
                        not_after: me.not_after,
                    },
                );
            }
            report.spiffe_id = material.spiffe_id.clone();
            report.identity = me;
            report.revoked = material.trust.revoked.entries;
        });
    }

    /// True if and only if this certificate was not seen before.
    pub fn accepted(&self, peer: &Facts) -> bool {
        self.change(|report| {
            report.handshakes_accepted += 1;
            meet(&mut report.accepted, peer)
        })
    }

    pub fn refused(&self, from: SocketAddr, presented: String, why: String) {
        self.change(|report| {
            report.refused += 1;
            push(
                &mut report.refusals,
                Refused { at: clock::now(), from: from.to_string(), presented, why },
            );
        });
    }

    /// A caller was good enough when its connection began, and is no longer.
    pub fn cut_off(&self, from: SocketAddr, presented: String, why: String) {
        self.change(|report| {
            report.cut_off += 1;
            let from = from.to_string();
            push(&mut report.cuts, Refused { at: clock::now(), from, presented, why });
        });
    }

    /// A line was answered. The first one is what tells that the connection is open: in TLS 1.3 a client is done before
    /// the server has looked at its certificate.
    pub fn said(&self, name: &str) {
        self.change_kept(name, |kept| {
            kept.opened += u64::from(!kept.open);
            kept.open = true;
            kept.said += 1;
        });
    }

    pub fn kept(&self, name: &str, end: &End) {
        self.change_kept(name, |kept| {
            kept.open = false;
            kept.last_end = Some(Failed { at: clock::now(), why: end.why().to_owned() });
        });
    }

    pub fn called(&self, name: &str, peer: &Facts) {
        self.change_calls(name, |calls| {
            calls.tried += 1;
            meet(&mut calls.peers, peer);
        });
    }

    pub fn call_failed(&self, name: &str, why: &str) {
        self.change_calls(name, |calls| {
            if calls.tried == 0 {
                calls.before_first_success += 1;
                return;
            }
            calls.tried += 1;
            calls.failed += 1;
            calls.last_failure = Some(Failed { at: clock::now(), why: why.to_owned() });
        });
    }

    fn change_calls(&self, name: &str, change: impl FnOnce(&mut Calls)) {
        self.change(|report| {
            if let Some(calls) = report.calls.get_mut(name) {
                change(calls);
            }
        });
    }

    fn change_kept(&self, name: &str, change: impl FnOnce(&mut Kept)) {
        self.change(|report| {
            if let Some(kept) = report.kept.get_mut(name) {
                change(kept);
            }
        });
    }

    fn change<T>(&self, change: impl FnOnce(&mut Report) -> T) -> T {
        change(&mut self.0.lock().expect("nothing panics while it counts"))
    }
}

impl Report {
    pub fn tried(&self) -> u64 {
        self.calls.values().map(|calls| calls.tried).sum()
    }

    pub fn failed(&self) -> u64 {
        self.calls.values().map(|calls| calls.failed).sum()
    }
}

/// True if and only if it is new in the list.
fn meet(list: &mut VecDeque<Met>, peer: &Facts) -> bool {
    let now = clock::now();
    if let Some(met) = list.iter_mut().rev().find(|met| met.fingerprint == peer.fingerprint) {
        met.handshakes += 1;
        met.last = now;
        return false;
    }
    let (spiffe_id, serial, fingerprint) =
        (peer.who().to_owned(), peer.serial.clone(), peer.fingerprint.clone());
    push(list, Met { spiffe_id, serial, fingerprint, first: now, last: now, handshakes: 1 });
    true
}

fn push<T>(list: &mut VecDeque<T>, item: T) {
    if list.len() == KEEP {
        list.pop_front();
    }
    list.push_back(item);
}
