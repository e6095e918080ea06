//! Rosters: for each namespace with identities, which of them the pods of each ServiceAccount
//! may carry. The admission policies look it up there.
//!
//! A namespace's roster is written at most once a second, and only when it changed: a burst of
//! identities costs one write a second, and a start none.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{Context, Next, is_conflict, until};
use crate::apply;
use crate::decide::pods::Candidate;
use crate::decide::roster::{LARGEST_PART, draw_up, plan};
use crate::telemetry::ErrorLabels;
use crate::watch::ObjectKey;
use crate::wire::WireError;

const CONTROLLER: &str = "roster";

/// Between two writes of one namespace's roster. Every policy's copy of it is replaced with each.
const INTERVAL: SignedDuration = SignedDuration::from_secs(1);
/// After a refusal: the CRD may come, the API server may come back.
const RETRY: Duration = Duration::from_secs(10);
/// After a conflict. The watch brings what the write conflicted with in less.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// When each namespace's roster was last written.
#[derive(Debug, Default)]
pub struct LastWrites(Mutex<HashMap<Arc<str>, Timestamp>>);

/// One turn of a namespace's roster; says when to come back.
pub async fn run(context: &Context, namespace: &Arc<str>) -> Next {
    let result = context.turn(CONTROLLER, reconcile(context, namespace)).await?;
    match result {
        Ok(next) => next,
        Err(error) if is_conflict(&error) => Some(LOOK_AGAIN),
        Err(error) => {
            let labels = ErrorLabels { controller: CONTROLLER, kind: error.kind() };
            context.metrics.reconcile_errors.get_or_create(&labels).inc();
            tracing::warn!(%namespace, %error, "its roster is not written");
            Some(RETRY)
        }
    }
}

async fn reconcile(context: &Context, namespace: &Arc<str>) -> Result<Next, WireError> {
    let now = context.now();
    // 2. Observe. What is in a namespace that ends goes with it, and nothing can be made there.
    let room = context.view.namespaces.get(&ObjectKey::new("", namespace.clone()));
    if room.is_none_or(|room| room.terminating) {
        return Ok(None);
    }
    if let Some(turn) = context.roster_writes.next_turn(namespace, now) {
        return Ok(Some(until(turn, now)));
    }
    let view = &context.view;
    let accounts: Vec<_> = view
        .census
        .accounts_of(namespace)
        .into_iter()
        .map(|account| (view.candidates(&account), account.name))
        .collect();
    let found: BTreeMap<_, _> = view
        .rosters
        .within(namespace)
        .into_iter()
        .map(|(key, facts)| (key.name.to_string(), (*facts).clone()))
        .collect();

    // 3. Decide.
    let mut listed = BTreeMap::<&str, Vec<Candidate<'_>>>::new();
    for (candidates, account) in &accounts {
        let candidates = candidates
            .iter()
            .map(|(identity, spiffe_id)| Candidate { identity, spiffe_id })
            .collect();
        listed.insert(account, candidates);
    }
    let writes = plan(draw_up(&listed, LARGEST_PART), &found);
    if writes.is_empty() {
        return Ok(None);
    }

    // 5. Apply, in the order of the plan.
    context.roster_writes.note(namespace, now);
    for write in &writes {
        apply::roster::write(&context.client, namespace, write).await?;
    }
    tracing::debug!(%namespace, writes = writes.len(), "its roster is written");
    Ok(None)
}

impl LastWrites {
    /// None if and only if the namespace's roster may be written now; else when.
    fn next_turn(&self, namespace: &str, now: Timestamp) -> Option<Timestamp> {
        let writes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = writes.get(namespace)?.saturating_add(INTERVAL).unwrap_or(now);
        // A last write in the future is a clock that was set back: nobody waits for that.
        (turn > now && turn.duration_since(now) <= INTERVAL).then_some(turn)
    }

    fn note(&self, namespace: &Arc<str>, now: Timestamp) {
        let mut writes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        writes.retain(|_, last| now.duration_since(*last).abs() < INTERVAL);
        writes.insert(namespace.clone(), now);
    }
}
