//! How far a rotation has come, as lines to read. Pure.

use std::time::Duration;

use crate::api::{SlotKind, SlotPhase, SlotStatus, TrustDomain};
use crate::cli::words::{
    NextStep, condition, is_stalled, moment, name_of, names_of, newest, next_step, rotation, slots,
};
use crate::decide::slots::awaited;

/// When a rotation is done, as far as this command goes.
#[derive(Clone, Debug, PartialEq)]
pub enum Goal {
    /// A CA of this number, or a newer one, signs.
    Newer { kind: SlotKind, number: u32 },
    /// The CAs with these key ids are gone, and no agent has a certificate under them.
    Distrusted(Vec<String>),
}

/// The agents that an emergency has not helped yet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Agents {
    pub left: usize,
}

/// How far it has come. Nothing in the lines depends on the time of day, so that a line that has
/// changed is news.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// What is so now.
    pub lines: Vec<String>,
    /// What a terminal shows below them, with a countdown.
    pub next: NextStep,
    pub is_done: bool,
}

/// An operator that leads takes a rotation up within a second.
const QUIET: Duration = Duration::from_secs(30);
/// Targets that a line names.
const NAMED: usize = 3;

/// How far a rotation has come, `waited` after it was asked for.
pub fn progress(
    domain: &TrustDomain,
    goal: &Goal,
    agents: Option<Agents>,
    waited: Duration,
) -> Progress {
    let mut lines = Vec::new();
    if let Some((false, reason, message)) = condition(domain, crate::api::conditions::READY)
        && reason != "Preparing"
    {
        lines.push(line("not ready", message));
    }
    let is_done = match goal {
        Goal::Newer { kind, number } => newer(domain, *kind, *number, waited, &mut lines),
        Goal::Distrusted(key_ids) => distrusted(domain, key_ids, agents, waited, &mut lines),
    };
    let is_begun = slots(domain).iter().any(|slot| slot.phase == SlotPhase::Prepared);
    let next = if is_begun || is_done {
        next_step(domain)
    } else {
        NextStep { at: None, what: "the operator takes it up".to_owned() }
    };
    Progress { lines, next, is_done }
}

fn newer(
    domain: &TrustDomain,
    kind: SlotKind,
    number: u32,
    waited: Duration,
    lines: &mut Vec<String>,
) -> bool {
    if let Some(active) =
        newest(domain, kind, SlotPhase::Active).filter(|active| active.number >= number)
    {
        lines.extend(done(domain, active));
        return true;
    }
    lines.push(match newest(domain, kind, SlotPhase::Prepared) {
        Some(prepared) => spreading(domain, prepared),
        None => line("asked", asked(waited)),
    });
    false
}

fn asked(waited: Duration) -> &'static str {
    if waited < QUIET {
        "the operator has not begun yet"
    } else {
        "nothing has happened for 30 s: does an operator run? `kubectl get lease -A` shows who leads"
    }
}

fn spreading(domain: &TrustDomain, prepared: &SlotStatus) -> String {
    let (name, it) = (name_of(prepared), awaited(prepared.kind));
    let Some(rotation) = rotation(domain) else {
        return line("prepared", &format!("{name} (key id {}) signs nothing yet", prepared.key_id));
    };
    let (reached, targets) = (rotation.reached, rotation.targets);
    let named = rotation.unreached.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    let missing = usize::try_from(targets.saturating_sub(reached)).unwrap_or_default();
    let more = match missing.saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    if is_stalled(domain) {
        let by = rotation.proceeds_at.as_ref();
        let by = by.map(|time| format!("; {name} signs from {} anyway", moment(time.0)));
        return line(
            "stalled",
            &format!(
                "{reached} of {targets} targets hold {it}, without {named}{more}: see to them, or set spec.ca.whenUnreached: Proceed{}",
                by.unwrap_or_default()
            ),
        );
    }
    match &rotation.activates_at {
        Some(at) if reached == targets => line(
            "soaking",
            &format!("all {targets} targets hold {it}; {name} signs from {}", moment(at.0)),
        ),
        _ if named.is_empty() => {
            line("publishing", &format!("{reached} of {targets} targets hold {it}"))
        }
        _ => line(
            "publishing",
            &format!("{reached} of {targets} targets hold {it}, without {named}{more}"),
        ),
    }
}

/// The new CA signs: until when is what it replaces trusted?
fn done(domain: &TrustDomain, active: &SlotStatus) -> Vec<String> {
    let mut lines = Vec::new();
    let name = name_of(active);
    let signs = match newest(domain, SlotKind::Issuing, SlotPhase::Active) {
        Some(issuing) if active.kind == SlotKind::Root => {
            format!("{name} (key id {}) and {} sign", active.key_id, name_of(issuing))
        }
        _ => format!("{name} (key id {}) signs", active.key_id),
    };
    lines.push(line("active", &signs));
    let replaced = replaced(domain, active);
    let until = replaced.iter().filter_map(|slot| slot.trusted_until.as_ref()).map(|t| t.0).max();
    if let Some(until) = until {
        let (is, its_keys) =
            if replaced.len() == 1 { ("is", "its key is") } else { ("are", "their keys are") };
        lines.push(line(
            "retiring",
            &format!(
                "{} {is} trusted until {}; {its_keys} destroyed then",
                names_of(&replaced),
                moment(until)
            ),
        ));
        lines.push(line("", "agents get certificates of the new CA by themselves until then"));
    }
    lines
}

/// The CA before this one, as long as it is trusted, and the issuing CAs under it.
fn replaced<'a>(domain: &'a TrustDomain, active: &SlotStatus) -> Vec<&'a SlotStatus> {
    let Some(former) = newest(domain, active.kind, SlotPhase::Retiring) else { return Vec::new() };
    let under = |slot: &&SlotStatus| slot.signed_by.as_ref() == Some(&former.key_id);
    std::iter::once(former).chain(slots(domain).iter().filter(under)).collect()
}

fn distrusted(
    domain: &TrustDomain,
    key_ids: &[String],
    agents: Option<Agents>,
    waited: Duration,
    lines: &mut Vec<String>,
) -> bool {
    let left: Vec<&SlotStatus> =
        slots(domain).iter().filter(|slot| key_ids.contains(&slot.key_id)).collect();
    let signing = newest(domain, SlotKind::Issuing, SlotPhase::Active)
        .filter(|issuing| !key_ids.contains(&issuing.key_id));
    if !left.is_empty() {
        let prepared = newest(domain, SlotKind::Root, SlotPhase::Prepared)
            .filter(|root| !key_ids.contains(&root.key_id));
        lines.push(match prepared {
            Some(root) => spreading(domain, root),
            None => line("asked", asked(waited)),
        });
        return false;
    }
    lines.push(line("distrusted", "it is out of the bundle that the operator publishes"));
    if let Some(issuing) = signing {
        let said = format!("{} (key id {}) signs", name_of(issuing), issuing.key_id);
        lines.push(line("active", &said));
    }
    match agents {
        Some(Agents { left: 0 }) => {
            lines.push(line("agents", "none has a certificate under it any more"));
            signing.is_some()
        }
        Some(Agents { left }) => {
            lines.push(line("agents", &format!("without a new certificate: {left}")));
            false
        }
        None => false,
    }
}

fn line(label: &str, said: &str) -> String {
    format!("{label:<12}{said}")
}
