//! How the commands speak of CAs and of moments: pure, so that a test can read along.

use jiff::{SignedDuration, Timestamp};

use crate::api::{RotationStatus, SlotKind, SlotPhase, SlotStatus, TrustDomain};
use crate::decide::slots::awaited;

/// The width that output is made for.
pub const WIDTH: usize = 100;

/// The next thing that will happen to a trust domain's CAs.
#[derive(Clone, Debug, PartialEq)]
pub struct NextStep {
    /// When; None where it waits for something else than time.
    pub at: Option<Timestamp>,
    /// A sentence without its stop.
    pub what: String,
}

/// The CAs that the status speaks of.
pub fn slots(domain: &TrustDomain) -> &[SlotStatus] {
    domain.status.as_ref().map(|status| status.slots.as_slice()).unwrap_or_default()
}

/// How far a new root has come, while there is one.
pub fn rotation(domain: &TrustDomain) -> Option<&RotationStatus> {
    domain.status.as_ref()?.rotation.as_ref()
}

/// The newest CA of a kind that is in a phase.
pub fn newest(domain: &TrustDomain, kind: SlotKind, phase: SlotPhase) -> Option<&SlotStatus> {
    slots(domain)
        .iter()
        .filter(|slot| slot.kind == kind && slot.phase == phase)
        .max_by_key(|slot| slot.number)
}

/// The reason and message of a condition, and whether it is true.
pub fn condition<'a>(domain: &'a TrustDomain, kind: &str) -> Option<(bool, &'a str, &'a str)> {
    let conditions = &domain.status.as_ref()?.conditions;
    let found = conditions.iter().find(|condition| condition.type_ == kind)?;
    Some((found.status == "True", found.reason.as_str(), found.message.as_str()))
}

/// `root 2`.
pub fn name_of(slot: &SlotStatus) -> String {
    match slot.kind {
        SlotKind::Root => format!("root {}", slot.number),
        SlotKind::Issuing => format!("issuing {}", slot.number),
    }
}

/// `root 1, issuing 1 and issuing 2`.
pub fn names_of(slots: &[&SlotStatus]) -> String {
    let names: Vec<String> = slots.iter().map(|slot| name_of(slot)).collect();
    match names.as_slice() {
        [] => "nothing".to_owned(),
        [one] => one.clone(),
        [before @ .., last] => format!("{} and {last}", before.join(", ")),
    }
}

/// `1 agent`, `2 agents`.
pub fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// `2026-11-24 22:40:05Z`.
pub fn moment(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// `in 9m 51s`, `now`, `3m 2s ago`.
pub fn distance(time: Timestamp, now: Timestamp) -> String {
    let seconds = time.duration_since(now).as_secs();
    match seconds {
        0 => "now".to_owned(),
        1.. => format!("in {}", length(seconds)),
        _ => format!("{} ago", length(-seconds)),
    }
}

/// The two units that matter.
fn length(seconds: i64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (3.., _, _) => format!("{days}d"),
        (1.., _, _) => format!("{days}d {hours}h"),
        (0, 1.., _) => format!("{hours}h {minutes}m"),
        (0, 0, 1..) => format!("{minutes}m {}s", seconds % 60),
        _ => format!("{seconds}s"),
    }
}

/// A text in lines, of which those after the first begin with `indent` spaces. A word that is
/// longer than a line stays whole.
pub fn wrap(text: &str, indent: usize, width: usize) -> String {
    let mut wrapped = String::new();
    let mut column = indent;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if column > indent && column + 1 + length > width {
            wrapped.push('\n');
            wrapped.push_str(&" ".repeat(indent));
            column = indent;
        } else if column > indent {
            wrapped.push(' ');
            column += 1;
        }
        wrapped.push_str(word);
        column += length;
    }
    wrapped
}

/// The next thing that will happen to a trust domain's CAs.
pub fn next_step(domain: &TrustDomain) -> NextStep {
    let prepared = |kind| newest(domain, kind, SlotPhase::Prepared);
    if let Some(next) = prepared(SlotKind::Root).or_else(|| prepared(SlotKind::Issuing)) {
        return activation(domain, next);
    }
    if let Some(step) = retirement(domain) {
        return step;
    }
    let due = [SlotKind::Root, SlotKind::Issuing]
        .into_iter()
        .filter_map(|kind| newest(domain, kind, SlotPhase::Active))
        .map(|slot| (due(slot), slot))
        .min_by_key(|(at, _)| *at);
    let Some((at, slot)) = due else {
        return NextStep { at: None, what: "the operator makes the first CA".to_owned() };
    };
    let kind = match slot.kind {
        SlotKind::Root => "root",
        SlotKind::Issuing => "issuing",
    };
    let what = format!("a newer {kind} CA is made, since a third of this one's life is left");
    NextStep { at: Some(at), what }
}

fn activation(domain: &TrustDomain, next: &SlotStatus) -> NextStep {
    let name = name_of(next);
    let Some(rotation) = rotation(domain) else {
        return NextStep { at: None, what: format!("{name} is published to every target") };
    };
    if is_stalled(domain) {
        let at = rotation.proceeds_at.as_ref().map(|time| time.0);
        return NextStep { at, what: format!("{name} signs, whoever is not reached") };
    }
    match &rotation.activates_at {
        Some(at) if rotation.reached == rotation.targets => {
            NextStep { at: Some(at.0), what: format!("{name} signs") }
        }
        _ => {
            let soak = domain.spec.ca.soak.as_deref().unwrap_or("10m");
            let it = awaited(next.kind);
            let what = format!("{name} signs {soak} after every target holds {it}");
            NextStep { at: None, what }
        }
    }
}

fn retirement(domain: &TrustDomain) -> Option<NextStep> {
    let until = |slot: &SlotStatus| slot.trusted_until.as_ref().map(|time| time.0);
    let retiring: Vec<&SlotStatus> =
        slots(domain).iter().filter(|slot| slot.phase == SlotPhase::Retiring).collect();
    let at = retiring.iter().filter_map(|slot| until(slot)).min()?;
    let together: Vec<&SlotStatus> =
        retiring.into_iter().filter(|slot| until(slot) == Some(at)).collect();
    let names = names_of(&together);
    let bundle = together.iter().any(|slot| slot.kind == SlotKind::Root);
    let what = match (bundle, together.len()) {
        (false, 1) => format!("the key of {names} is destroyed"),
        (false, _) => format!("the keys of {names} are destroyed"),
        (true, 1) => format!("{names} leaves the bundle and its key is destroyed"),
        (true, _) => format!("{names} are not trusted any more and their keys are destroyed"),
    };
    Some(NextStep { at: Some(at), what })
}

/// Whether a rotation waits for a person.
pub fn is_stalled(domain: &TrustDomain) -> bool {
    let rotating = condition(domain, crate::api::conditions::ROTATING);
    rotating.is_some_and(|(_, reason, _)| reason == "Stalled")
}

/// About when a CA is replaced: it is Active for nearly all of its life.
fn due(slot: &SlotStatus) -> Timestamp {
    let life = slot.not_after.0.duration_since(slot.since.0).as_secs();
    let left = SignedDuration::from_secs(life.max(0) / 3);
    slot.not_after.0.saturating_sub(left).unwrap_or(slot.not_after.0)
}

#[cfg(test)]
pub mod tests;
