//! AgentAccessPolicies: from what a namespace's policies say to objects of every enforcer.
//!
//! A turn is a namespace's, not a policy's: policies add up, and some objects are made of several.

mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Context, Next, is_conflict};
use crate::api::{Enforcer, EnforcerState};
use crate::apply;
use crate::decide::access::emit::{self, ENFORCERS, Kind, Output, Verdict};
use crate::decide::access::plan::{Write, plan};
use crate::decide::access::{AccessSet, emit::kinds};
use crate::identity::{AccessPolicy, PolicyKey};
use crate::observe::access::{agents, found, served};
use crate::telemetry::{EnforcerLabels, ErrorLabels};
use crate::watch::ObjectKey;
use crate::watch::access::PolicyFacts;
use crate::wire::WireError;

const CONTROLLER: &str = "access";
/// After a failure: the API server is gone or refuses, and neither passes in a moment.
const RETRY: Duration = Duration::from_secs(5);
/// After an object could not be written for a reason that is not the API server's: somebody has to
/// do something first.
const AFTER_FAILURE: Duration = Duration::from_secs(20);
/// No watch tells of an enforcer's CRD that comes or goes, nor of its objects that somebody
/// changes. A minute is soon enough for either.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// Identities come in crowds: a namespace's policies are compiled once for those of this while.
const GATHER: Duration = Duration::from_millis(100);
/// What the cluster serves is asked for once in this while, however many namespaces want to know.
const SERVED_FOR: Duration = Duration::from_secs(10);

/// What the cluster serves, as it was last asked.
#[derive(Default)]
pub struct AccessMemory(Mutex<Option<(Instant, BTreeSet<Enforcer>)>>);

/// What could not be written, of a whole enforcer and of single policies.
#[derive(Default)]
struct Failures {
    whole: BTreeMap<Enforcer, String>,
    single: BTreeMap<(Enforcer, PolicyKey), String>,
}

type Policies = Vec<(ObjectKey, Arc<PolicyFacts>)>;

/// Wakes the namespaces whose policies an identity of this namespace may matter to.
pub fn identity_changed(context: &Context, namespace: &str) {
    for (key, facts) in context.view.access_policies.all() {
        if facts.policy.as_ref().is_ok_and(|policy| policy.concerns(namespace)) {
            context.access.wake_after(key.namespace.to_string(), GATHER);
        }
    }
}

/// Wakes every namespace that has policies.
pub fn everything_changed(context: &Context) {
    for (key, _) in context.view.access_policies.all() {
        context.access.wake_after(key.namespace.to_string(), GATHER);
    }
}

/// One turn of a namespace; says when to come back.
pub async fn run(context: &Context, namespace: &str) -> Next {
    let result = context.turn(CONTROLLER, reconcile(context, namespace)).await?;
    match result {
        Ok(next) => next,
        Err(error) if is_conflict(&error) => Some(Duration::from_millis(200)),
        Err(error) => {
            let labels = ErrorLabels { controller: CONTROLLER, kind: error.kind() };
            context.metrics.reconcile_errors.get_or_create(&labels).inc();
            tracing::warn!(namespace, %error, "access policies not done");
            Some(RETRY)
        }
    }
}

async fn reconcile(context: &Context, namespace: &str) -> Result<Next, WireError> {
    // 1. Understand the specs.
    let policies: Policies = policies_of(context, namespace);
    if policies.is_empty() {
        // What was made of them goes with them.
        return Ok(None);
    }
    let understood: Vec<Arc<AccessPolicy>> =
        policies.iter().filter_map(|(_, facts)| facts.policy.clone().ok()).collect();

    // 2. Observe.
    let served = context.access_memory.served(context).await?;
    let agents = agents(&context.view, &understood);
    let mut there = Vec::new();
    let kinds: BTreeSet<Kind> =
        served.iter().flat_map(|enforcer| kinds(*enforcer)).copied().collect();
    let mut failures = Failures::default();
    for kind in kinds {
        match found(&context.client, namespace, kind).await {
            Ok(found) => there.extend(found),
            // The chart can keep an enforcer's objects from the operator.
            Err(error @ WireError::Refused { .. }) => {
                for enforcer in served.iter().filter(|each| emit::kinds(**each).contains(&kind)) {
                    failures.whole.insert(*enforcer, error.to_string());
                }
            }
            // Its CRD went since the cluster was asked.
            Err(WireError::NotFound(_)) => {
                context.access_memory.forget();
                return Ok(Some(Duration::from_secs(1)));
            }
            Err(error) => return Err(error),
        }
    }

    // 3. Decide.
    let set = AccessSet::compile(understood, &agents);
    let outputs = outputs(&set, &served);
    let uids = |keep: fn(&PolicyFacts) -> bool| -> BTreeSet<String> {
        let kept = policies.iter().filter(|(_, facts)| keep(facts));
        kept.map(|(_, facts)| facts.uid.clone()).collect()
    };
    let mut writes = Vec::new();
    for (enforcer, output) in outputs.iter().filter(|(each, _)| !failures.whole.contains_key(each))
    {
        let kinds = emit::kinds(*enforcer);
        let of_it: Vec<_> = there.iter().filter(|f| kinds.contains(&f.kind)).cloned().collect();
        let (ours, kept) = (uids(|_| true), uids(|facts| facts.policy.is_err()));
        let plan = plan(&output.objects, &of_it, &ours, &kept);
        writes.extend(plan.into_iter().map(|write| (*enforcer, write)));
    }

    // 5. Apply. One object that cannot be written keeps no other from being written.
    apply(context, namespace, &writes, &mut failures).await?;

    // 6. Status.
    for (key, facts) in &policies {
        let made =
            report::Made { set: &set, outputs: &outputs, served: &served, failures: &failures };
        report::publish(context, key, facts, &made).await?;
    }
    let is_done = failures.whole.is_empty() && failures.single.is_empty();
    Ok(Some(if is_done { LOOK_AGAIN } else { AFTER_FAILURE }))
}

fn policies_of(context: &Context, namespace: &str) -> Policies {
    let all = context.view.access_policies.all();
    let mut policies: Policies = all
        .into_iter()
        .filter(|(key, facts)| *key.namespace == *namespace && !facts.is_being_deleted)
        .collect();
    policies.sort_by(|(a, _), (b, _)| a.cmp(b));
    policies
}

/// What comes of the set for each enforcer that is served. Envoy is found by being named alone.
fn outputs(set: &AccessSet, served: &BTreeSet<Enforcer>) -> BTreeMap<Enforcer, Output> {
    let mut outputs = BTreeMap::new();
    for enforcer in ENFORCERS {
        if served.contains(&enforcer) {
            outputs.insert(enforcer, emit::emit(set, enforcer, enforcer != Enforcer::Envoy));
        }
    }
    outputs
}

/// Writes, and notes what could not be written and why.
async fn apply(
    context: &Context,
    namespace: &str,
    writes: &[(Enforcer, Write)],
    failures: &mut Failures,
) -> Result<(), WireError> {
    for (enforcer, write) in writes {
        let name = enforcer_name(*enforcer);
        let result = apply::access::write(&context.client, namespace, write).await;
        let outcome = match &result {
            Ok(()) => "written",
            Err(error) => error.kind(),
        };
        let labels = EnforcerLabels { enforcer: name, result: outcome };
        context.metrics.access_writes.get_or_create(&labels).inc();
        let kind = write.kind().kind;
        match (result, write) {
            (Ok(()), write) => {
                tracing::info!(namespace, enforcer = name, kind, write = verb(write), "written");
            }
            (Err(WireError::Conflict(message)), Write::Create(object)) => {
                let name = &object.name;
                let why = format!(
                    "the {kind} {name} is there and is not ours: rename or delete it ({message})"
                );
                failures.note(*enforcer, write, why);
            }
            // Somebody wrote meanwhile: looked at again at once.
            (Err(error @ (WireError::Conflict(_) | WireError::Unreachable(_))), _) => {
                return Err(error);
            }
            (Err(WireError::NotFound(message)), write) => {
                context.access_memory.forget();
                failures.note(*enforcer, write, format!("its API went away: {message}"));
            }
            (Err(error), write) => failures.note(*enforcer, write, error.to_string()),
        }
    }
    Ok(())
}

impl Failures {
    fn note(&mut self, enforcer: Enforcer, write: &Write, why: String) {
        let (Write::Create(object) | Write::Replace(object, _)) = write else {
            self.whole.insert(enforcer, why);
            return;
        };
        for owner in &object.owners {
            self.single.insert((enforcer, owner.clone()), why.clone());
        }
    }

    /// What went wrong with an enforcer's objects of a policy.
    fn of(&self, enforcer: Enforcer, policy: &PolicyKey) -> Option<&String> {
        let single = self.single.get(&(enforcer, policy.clone()));
        single.or_else(|| self.whole.get(&enforcer))
    }
}

fn verb(write: &Write) -> &'static str {
    match write {
        Write::Create(_) => "create",
        Write::Replace(..) => "replace",
        Write::Delete { .. } => "delete",
    }
}

/// As the resource and the metrics have it.
fn enforcer_name(enforcer: Enforcer) -> &'static str {
    match enforcer {
        Enforcer::NetworkPolicy => "NetworkPolicy",
        Enforcer::Istio => "Istio",
        Enforcer::Linkerd => "Linkerd",
        Enforcer::Cilium => "Cilium",
        Enforcer::Envoy => "Envoy",
    }
}

impl AccessMemory {
    async fn served(&self, context: &Context) -> Result<BTreeSet<Enforcer>, WireError> {
        let known = self.lock().clone();
        if let Some((asked, served)) = known.filter(|(asked, _)| asked.elapsed() < SERVED_FOR) {
            tracing::trace!(?asked, "what is served is known");
            return Ok(served);
        }
        let served = served(&context.client).await?;
        *self.lock() = Some((Instant::now(), served.clone()));
        Ok(served)
    }

    fn forget(&self) {
        *self.lock() = None;
    }

    /// What is known is whole between calls, whoever panicked.
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(Instant, BTreeSet<Enforcer>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The worst of what an enforcer has to say, for a policy.
fn judged(verdict: &Verdict, failure: Option<&String>) -> Verdict {
    match failure {
        Some(why) => Verdict { state: EnforcerState::Failed, message: why.clone() },
        None => verdict.clone(),
    }
}
