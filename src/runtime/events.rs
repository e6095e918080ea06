//! Sends Kubernetes Events, at a bounded rate and never in anybody's way.

use std::time::Duration;

use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use prometheus_client::metrics::counter::Counter;

use crate::telemetry::Inbox;

/// Twenty a second: what an API server does not notice, and more than a person reads.
const INTERVAL: Duration = Duration::from_millis(50);

/// An Event's note may be this long (events.k8s.io/v1).
const LONGEST_NOTE: usize = 1024;

/// Sends what is handed in until every outbox is gone.
pub async fn send(client: Client, mut inbox: Inbox, sent: Counter) {
    let reporter = Reporter { controller: "countersign".to_owned(), instance: None };
    let recorder = Recorder::new(client, reporter);
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while let Some(notice) = inbox.take().await {
        ticks.tick().await;
        let event = Event {
            type_: if notice.is_failure { EventType::Warning } else { EventType::Normal },
            reason: notice.reason.to_owned(),
            note: Some(shortened(notice.note)),
            action: notice.action.to_owned(),
            secondary: None,
        };
        let publish = recorder.publish(&event, &notice.object);
        match tokio::time::timeout(PATIENCE, publish).await {
            Ok(Ok(())) => {
                sent.inc();
            }
            Ok(Err(error)) => tracing::debug!(%error, "an Event was not taken"),
            Err(_) => tracing::debug!("an Event was not taken in time"),
        }
    }
}

/// An Event is worth no longer wait.
const PATIENCE: Duration = Duration::from_secs(5);

fn shortened(note: String) -> String {
    if note.len() <= LONGEST_NOTE {
        return note;
    }
    let end = (0..=LONGEST_NOTE - 3).rev().find(|&at| note.is_char_boundary(at)).unwrap_or(0);
    format!("{}...", &note[..end])
}
