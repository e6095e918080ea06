//! Sends Kubernetes Events, at a bounded rate and never in anybody's way.

use std::time::Duration;

use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use prometheus_client::metrics::counter::Counter;

use super::clock;
use crate::telemetry::{Inbox, Notice};

/// Twenty a second: what an API server does not notice, and more than a person reads.
const INTERVAL: Duration = Duration::from_millis(50);

/// An Event's note may be this long (events.k8s.io/v1).
const LONGEST_NOTE: usize = 1024;

/// Sends what is handed in until every outbox is gone.
pub async fn send(client: Client, mut inbox: Inbox, sent: Counter) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while let Some(notice) = inbox.take().await {
        ticks.tick().await;
        let event = event(notice, MicroTime(clock::now()));
        let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
        let api: Api<Event> = Api::namespaced(client.clone(), namespace);
        let params = PostParams::default();
        let publish = api.create(&params, &event);
        match tokio::time::timeout(PATIENCE, publish).await {
            Ok(Ok(_)) => {
                sent.inc();
            }
            Ok(Err(error)) => tracing::debug!(%error, "an Event was not taken"),
            Err(_) => tracing::debug!("an Event was not taken in time"),
        }
    }
}

/// One Event a notice: kube's Recorder would fold two with the same reason into one, with the text
/// of the first, and the serial number of the second certificate would be nowhere.
fn event(notice: Notice, now: MicroTime) -> Event {
    // Events about what has no namespace go into this one, as Kubernetes has it.
    let namespace = notice.object.namespace.clone().unwrap_or_else(|| "default".to_owned());
    let name = notice.object.name.as_deref().unwrap_or_default();
    Event {
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            namespace: Some(namespace),
            ..ObjectMeta::default()
        },
        event_time: Some(now),
        type_: Some(if notice.is_failure { "Warning" } else { "Normal" }.to_owned()),
        reason: Some(notice.reason.to_owned()),
        action: Some(notice.action.to_owned()),
        note: Some(shortened(notice.note)),
        regarding: Some(notice.object),
        reporting_controller: Some(REPORTER.to_owned()),
        reporting_instance: Some(REPORTER.to_owned()),
        ..Event::default()
    }
}

const REPORTER: &str = "countersign";

/// An Event is worth no longer wait.
const PATIENCE: Duration = Duration::from_secs(5);

fn shortened(note: String) -> String {
    if note.len() <= LONGEST_NOTE {
        return note;
    }
    let end = (0..=LONGEST_NOTE - 3).rev().find(|&at| note.is_char_boundary(at)).unwrap_or(0);
    format!("{}...", &note[..end])
}
