//! The client's side: call one agent at a steady rate, each time with a full handshake, and count.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

use crate::cli::Target;
use crate::counters::Counters;
use crate::hello::{self, Caller};
use crate::material::Current;
use crate::verify::SharedNotes;

/// Calls for ever.
pub async fn call(target: Target, rate: f64, current: Current, counters: Arc<Counters>) {
    let mut turn = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut spoken_to = None;
    let mut last_fault = None;
    loop {
        turn.tick().await;
        let material = current.borrow().clone();
        let caller = Caller { key: Some(material.key.clone()), trust: material.trust.clone() };
        match hello::exchange(caller, &target.to, &target.expect, SharedNotes::default()).await {
            Ok(exchange) => {
                counters.called(&target.name, &exchange.peer);
                if spoken_to.as_ref() != Some(&exchange.peer.serial) {
                    info!(
                        spiffe_id = exchange.peer.who(),
                        serial = exchange.peer.serial,
                        to = target.to,
                        "{} is who I expect",
                        target.name
                    );
                    spoken_to = Some(exchange.peer.serial);
                }
                last_fault = None;
            }
            Err(failure) => {
                let fault = failure.to_string();
                counters.call_failed(&target.name, &fault);
                if last_fault.as_ref() != Some(&fault) {
                    warn!(to = target.to, "cannot talk to {}: {fault}", target.name);
                    last_fault = Some(fault);
                }
            }
        }
    }
}
