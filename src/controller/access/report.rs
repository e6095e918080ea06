//! The status of a policy, and the one patch that writes it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;

use super::{Context, Failures, enforcer_name, judged};
use crate::api::conditions::{NAMES_FOUND, READY, Reason};
use crate::api::{AgentAccessPolicyStatus, Enforcer, EnforcerState, EnforcerStatus};
use crate::decide::access::emit::{ENFORCERS, Output};
use crate::decide::access::{AccessSet, Rule};
use crate::status::{condition, patch_of};
use crate::watch::ObjectKey;
use crate::watch::access::PolicyFacts;
use crate::wire::{self, WireError};

/// What a turn came to.
pub(super) struct Made<'a> {
    pub set: &'a AccessSet,
    pub outputs: &'a BTreeMap<Enforcer, Output>,
    pub served: &'a BTreeSet<Enforcer>,
    pub failures: &'a Failures,
}

/// Names in a message: more would not be read.
const NAMES_SHOWN: usize = 5;

/// Writes a policy's status where it changed, and tells of what is wrong and new. True if it was
/// written.
pub(super) async fn publish(
    context: &Context,
    key: &ObjectKey,
    facts: &PolicyFacts,
    made: &Made<'_>,
) -> Result<bool, WireError> {
    let status = build(facts, made, context.now());
    if facts.status.as_ref() == Some(&status) {
        return Ok(false);
    }
    let ObjectKey { namespace, name } = key;
    let path = format!(
        "/apis/countersign.dev/v1alpha1/namespaces/{namespace}/agentaccesspolicies/{name}/status"
    );
    let patch = patch_of(&facts.resource_version, facts.status.as_ref(), &status);
    match wire::patch(&context.client, &path, &patch).await {
        Ok(_) | Err(WireError::NotFound(_)) => {}
        Err(error) => return Err(error),
    }
    for (reason, message) in news(facts.status.as_ref(), &status) {
        tracing::warn!(policy = %format!("{namespace}/{name}"), reason, "{message}");
        context.tell(reference(key, facts), true, reason, "Compile", message);
    }
    Ok(true)
}

fn reference(key: &ObjectKey, facts: &PolicyFacts) -> ObjectReference {
    ObjectReference {
        api_version: Some("countersign.dev/v1alpha1".to_owned()),
        kind: Some("AgentAccessPolicy".to_owned()),
        namespace: Some(key.namespace.to_string()),
        name: Some(key.name.to_string()),
        uid: Some(facts.uid.clone()),
        ..ObjectReference::default()
    }
}

/// What is not as it should be and was not said before.
fn news(
    before: Option<&AgentAccessPolicyStatus>,
    now: &AgentAccessPolicyStatus,
) -> Vec<(&'static str, String)> {
    let reasons = [
        Reason::InvalidSpec,
        Reason::NamesUnmatched,
        Reason::Narrowed,
        Reason::NoEnforcer,
        Reason::EnforcerFailed,
    ];
    let said = |kind: &str, message: &str| {
        let conditions = before.map(|status| status.conditions.as_slice()).unwrap_or_default();
        conditions.iter().any(|each| each.type_ == kind && each.message == message)
    };
    let wrong = now.conditions.iter().filter(|condition| condition.status == "False");
    wrong
        .filter(|condition| !said(&condition.type_, &condition.message))
        .filter_map(|condition| {
            let reason = reasons.iter().find(|reason| reason.as_str() == condition.reason)?;
            Some((reason.as_str(), condition.message.clone()))
        })
        .collect()
}

fn build(facts: &PolicyFacts, made: &Made<'_>, now: Timestamp) -> AgentAccessPolicyStatus {
    let previous = facts.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    let say = |kind, is_true, reason, message| {
        condition(previous, kind, is_true, reason, message, facts.generation, now)
    };
    let policy = match &facts.policy {
        Ok(policy) => policy,
        Err(message) => {
            // What was made of it before stays, and so does what was said of that.
            let mut status = facts.status.clone().unwrap_or_default();
            status.conditions = vec![say(READY, false, Reason::InvalidSpec, message.clone())];
            return status;
        }
    };
    let rule = made.set.rules.iter().find(|rule| rule.policy.key == policy.key);
    let enforcers = enforcers(policy, made);
    let (is_ready, reason, message) = readiness(&enforcers);
    let mut conditions = Vec::new();
    if let Some(rule) = rule {
        let (is_true, reason, message) = names(rule);
        conditions.push(say(NAMES_FOUND, is_true, reason, message));
    }
    conditions.push(say(READY, is_ready, reason, message));
    let count = |of: usize| u32::try_from(of).ok();
    AgentAccessPolicyStatus {
        conditions,
        enforcers,
        callers: rule.and_then(|rule| count(rule.callers.len())),
        targets: rule.and_then(|rule| count(rule.targets.len())),
    }
}

fn enforcers(policy: &crate::identity::AccessPolicy, made: &Made<'_>) -> Vec<EnforcerStatus> {
    let mut all = Vec::new();
    for enforcer in ENFORCERS {
        let verdict = made.outputs.get(&enforcer).and_then(|out| out.verdicts.get(&policy.key));
        if let Some(verdict) = verdict {
            let verdict = judged(verdict, made.failures.of(enforcer, &policy.key));
            all.push(EnforcerStatus {
                name: enforcer,
                state: verdict.state,
                message: verdict.message,
            });
        } else if policy.enforcers.contains(&enforcer) && !made.served.contains(&enforcer) {
            all.push(EnforcerStatus {
                name: enforcer,
                state: EnforcerState::NotServed,
                message: "the policy names it, and the cluster does not serve its API: install its CRDs, or take it out of spec.enforcers".to_owned(),
            });
        }
    }
    all
}

fn readiness(enforcers: &[EnforcerStatus]) -> (bool, Reason, String) {
    let of = |states: &[EnforcerState]| -> Vec<String> {
        let of = enforcers.iter().filter(|each| states.contains(&each.state));
        of.map(|each| format!("{}: {}", enforcer_name(each.name), each.message)).collect()
    };
    let failed = of(&[EnforcerState::Failed]);
    if !failed.is_empty() {
        return (false, Reason::EnforcerFailed, failed.join("; "));
    }
    let has = |state| enforcers.iter().any(|each| each.state == state);
    if ![EnforcerState::Applied, EnforcerState::Delegated, EnforcerState::Narrowed]
        .map(has)
        .contains(&true)
    {
        let why = of(&[EnforcerState::Refused, EnforcerState::NotServed]).join("; ");
        return (false, Reason::NoEnforcer, format!("nothing enforces this policy: {why}"));
    }
    let less = of(&[EnforcerState::Narrowed, EnforcerState::Refused, EnforcerState::NotServed]);
    if !less.is_empty() {
        return (false, Reason::Narrowed, less.join("; "));
    }
    let names: Vec<&str> = enforcers.iter().map(|each| enforcer_name(each.name)).collect();
    (true, Reason::Compiled, format!("written for {}", names.join(", ")))
}

fn names(rule: &Rule) -> (bool, Reason, String) {
    let unmatched = &rule.unmatched;
    if unmatched.is_empty() {
        return (true, Reason::EveryNameFound, "every name stands for an AgentIdentity".to_owned());
    }
    let shown = unmatched.iter().take(NAMES_SHOWN).cloned().collect::<Vec<_>>().join("; ");
    let more = match unmatched.len().saturating_sub(NAMES_SHOWN) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    let message =
        format!("{shown}{more}: correct spec, or create them; until then they let nobody in");
    (false, Reason::NamesUnmatched, message)
}
