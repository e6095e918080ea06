//! `countersign trust`: a trust domain's CAs, its bundle, and what happens to them next.

#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::io::Write as _;

use clap::Args;
use jiff::Timestamp;

use super::cluster::{Cluster, Connection};
use super::words::{WIDTH, condition, distance, moment, name_of, next_step, rotation, slots, wrap};
use crate::api::conditions::{BUNDLE_PUBLISHED, DELETING, READY, ROTATING};
use crate::api::{SlotKind, SlotPhase, SlotStatus, TrustDomain};
use crate::runtime::clock;

/// What to draw.
#[derive(Args, Debug, Clone)]
pub struct TrustOptions {
    /// The TrustDomain's name
    pub trust_domain: String,
    #[command(flatten)]
    pub connection: Connection,
}

/// Draws a trust domain.
///
/// # Errors
/// One sentence that says why it cannot be read.
pub async fn run(options: TrustOptions) -> anyhow::Result<()> {
    let cluster = Cluster::connect(&options.connection).await?;
    let domain = cluster.trust_domain(&options.trust_domain).await?;
    std::io::stdout().write_all(draw(&domain, clock::now()).as_bytes())?;
    Ok(())
}

/// The least width of the names at the left.
const NAMES: usize = 15;

/// A trust domain as text, of at most [`WIDTH`] columns where its own names allow that.
pub fn draw(domain: &TrustDomain, now: Timestamp) -> String {
    let name = domain.metadata.name.as_deref().unwrap_or_default();
    let mut text = format!("{name}   spiffe://{}\n\n", domain.spec.domain);
    let rows = tree(slots(domain));
    let longest = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or_default();
    let width = (longest + 2).max(NAMES);
    for row in &rows {
        let Row { name, below, slot } = row;
        let phase = phase_of(slot);
        let said = life_of(slot, now);
        let _ = writeln!(text, "  {name:<width$}{phase:<10}{said}");
        let _ = writeln!(text, "  {below:<width$}key id {}", slot.key_id);
    }
    let remote = domain.status.as_ref().and_then(|status| status.remote.as_ref());
    for (position, root) in remote.iter().flat_map(|remote| &remote.certificates).enumerate() {
        let name = format!("root {}", position + 1);
        let end = root.not_after.0;
        let said = format!("ends {}, {}", moment(end), distance(end, now));
        let _ = writeln!(text, "  {name:<width$}{said}");
        let _ = writeln!(text, "  {:<width$}{}", "", wrap(&root.subject, width + 2, WIDTH));
    }
    if domain.spec.authority.remote.is_some() {
        if remote.is_none() {
            text.push_str("  There is no bundle yet.\n");
        }
    } else if rows.is_empty() {
        text.push_str("  There is no CA yet.\n");
    }
    text.push('\n');
    for (label, said) in facts(domain, now) {
        let _ = writeln!(text, "  {label:<width$}{}", wrap(&said, width + 2, WIDTH));
    }
    text
}

struct Row<'a> {
    name: String,
    /// What stands below the name, to draw the line on.
    below: &'static str,
    slot: &'a SlotStatus,
}

/// Each root, and below it the issuing CAs that it signed.
fn tree(slots: &[SlotStatus]) -> Vec<Row<'_>> {
    let of = |kind: SlotKind| slots.iter().filter(move |slot| slot.kind == kind);
    let mut rows = Vec::new();
    for root in of(SlotKind::Root) {
        let under: Vec<&SlotStatus> = of(SlotKind::Issuing)
            .filter(|issuing| issuing.signed_by.as_ref() == Some(&root.key_id))
            .collect();
        let below = if under.is_empty() { "" } else { "│" };
        rows.push(Row { name: name_of(root), below, slot: root });
        for (position, slot) in under.iter().enumerate() {
            let is_last = position + 1 == under.len();
            let (branch, below) = if is_last { ("└─", "") } else { ("├─", "│") };
            rows.push(Row { name: format!("{branch} {}", name_of(slot)), below, slot });
        }
    }
    let has_root = |issuing: &SlotStatus| {
        of(SlotKind::Root).any(|root| issuing.signed_by.as_ref() == Some(&root.key_id))
    };
    for slot in of(SlotKind::Issuing).filter(|issuing| !has_root(issuing)) {
        rows.push(Row { name: name_of(slot), below: "", slot });
    }
    rows
}

fn phase_of(slot: &SlotStatus) -> &'static str {
    match slot.phase {
        SlotPhase::Prepared => "Prepared",
        SlotPhase::Active => "Active",
        SlotPhase::Retiring => "Retiring",
    }
}

fn life_of(slot: &SlotStatus, now: Timestamp) -> String {
    let dated = |time: Timestamp| format!("{}, {}", moment(time), distance(time, now));
    match (slot.phase, &slot.trusted_until) {
        (SlotPhase::Prepared, _) => format!("signs nothing yet; ends {}", dated(slot.not_after.0)),
        (SlotPhase::Active, _) => format!("signs; ends {}", dated(slot.not_after.0)),
        (SlotPhase::Retiring, Some(until)) => {
            format!("signs nothing more; trusted until {}", dated(until.0))
        }
        (SlotPhase::Retiring, None) => "signs nothing more".to_owned(),
    }
}

/// What there is to say besides the CAs.
fn facts(domain: &TrustDomain, now: Timestamp) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    let status = domain.status.clone().unwrap_or_default();
    if let Some(remote) = &status.remote {
        let since = remote.since.0;
        facts.push(("from", remote.url.clone()));
        facts.push(("since", format!("{}, {}", moment(since), distance(since, now))));
        if let Some(sequence) = remote.sequence {
            facts.push(("", format!("its own sequence {sequence}")));
        }
    }
    match &status.bundle {
        Some(bundle) => {
            facts.push(("bundle", format!("sequence {}", bundle.sequence)));
            facts.push(("", format!("sha256 {}", bundle.sha256)));
        }
        None => facts.push(("bundle", "is not published yet".to_owned())),
    }
    if let Some(rotation) = rotation(domain) {
        let said = format!("{} of {} targets hold it", rotation.reached, rotation.targets);
        facts.push(("reached", said));
        let missing = rotation.targets.saturating_sub(rotation.reached);
        let named = u32::try_from(rotation.unreached.len()).unwrap_or(u32::MAX);
        for (position, target) in rotation.unreached.iter().enumerate().filter(|_| missing > 0) {
            let label = if position == 0 { "not reached" } else { "" };
            facts.push((label, target.clone()));
        }
        if named > 0 && missing > named {
            facts.push(("", format!("and {} more", missing - named)));
        }
    }
    // While a rotation is under way, only what is wrong adds to its numbers.
    match condition(domain, BUNDLE_PUBLISHED) {
        Some((true, _, message)) if rotation(domain).is_none() => {
            facts.push(("reached", message.to_owned()));
        }
        Some((false, _, message)) => facts.push(("unpublished", message.to_owned())),
        _ => {}
    }
    if let Some((_, reason, message)) = condition(domain, ROTATING) {
        facts.push(("rotating", format!("{reason}: {message}")));
    }
    if let Some((_, _, message)) = condition(domain, DELETING) {
        facts.push(("deleted", message.to_owned()));
    }
    if domain.spec.authority.remote.is_none() {
        facts.push(("next", next_of(domain, now)));
    }
    for key_id in &domain.spec.ca.distrust {
        facts.push(("distrusted", format!("key id {key_id}")));
    }
    if let Some(identities) = status.identities {
        facts.push((
            "identities",
            format!("{}, of them ready {}", identities.total, identities.ready),
        ));
    }
    match condition(domain, READY) {
        Some((true, _, message)) => facts.push(("ready", message.to_owned())),
        Some((false, reason, message)) => facts.push(("not ready", format!("{reason}: {message}"))),
        None => facts.push(("not ready", "the operator has not looked at it yet".to_owned())),
    }
    facts
}

fn next_of(domain: &TrustDomain, now: Timestamp) -> String {
    let next = next_step(domain);
    let when = next.at.map(|at| format!("{}, {}: ", moment(at), distance(at, now)));
    format!("{}{}", when.unwrap_or_default(), next.what)
}
