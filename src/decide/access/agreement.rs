//! Whatever `can` says, every emitter agrees with: on random policies and identities, its objects
//! are read by a small model of the enforcer that shares no code with it.
//!
//! An emitter may let through less where it says so. It may let through more only where it leaves
//! the rest to an Envoy that the policy names: then both together let through what `can` says.

mod models;
mod random;

use proptest::prelude::*;
use serde_json::Value;

use super::emit::{ENFORCERS, Object, Output, Verdict, emit};
use super::*;
use crate::api::{AgentAccessPolicy, EnforcerState};
use crate::identity::TrustDomainName;
use models::{Call, Source, lets_through};
use random::{PORTS, agent, parse, policy};

/// Every request that random policies could tell apart.
fn requests() -> Vec<(&'static str, &'static str, Mcp<'static>)> {
    let mut requests = Vec::new();
    for method in ["GET", "POST", "PUT"] {
        for path in ["/mcp", "/v1.0/a/b", "/v1x0/a", "/v1.0", "/open/", "/"] {
            requests.push((method, path, Mcp::None));
        }
    }
    for mcp in [
        Mcp::Tool("search"),
        Mcp::Tool("read.file"),
        Mcp::Tool("readxfile"),
        Mcp::Method("initialize"),
        Mcp::Method("notifications/initialized"),
        Mcp::Method("resources/read"),
    ] {
        requests.push(("POST", "/mcp", mcp));
        requests.push(("POST", "/v1.0/mcp", mcp));
    }
    requests
}

/// The pods that call: those of each identity, and for each ServiceAccount one that is nobody's.
fn sources<'a>(agents: &'a Agents, foreign: &'a SpiffeId) -> Vec<(Option<Caller<'a>>, Source)> {
    let mut sources = vec![(
        Some(Caller::Foreign(foreign)),
        Source {
            namespace: "far".into(),
            account: None,
            labels: BTreeMap::new(),
            id: Some(foreign.to_string()),
        },
    )];
    for agent in agents.all() {
        let labels = match agent.spiffe_id {
            Some(_) => agent.pod_labels().remove(0),
            None => agent.pods[0].clone(),
        };
        let source = Source {
            namespace: agent.key.namespace.to_string(),
            account: Some(agent.service_account.clone()),
            labels,
            id: agent.spiffe_id.as_ref().map(ToString::to_string),
        };
        sources.push((Some(Caller::Identity(agent)), source.clone()));
        if !agents.all().any(|other| {
            other.key.namespace == agent.key.namespace
                && other.service_account == agent.service_account
                && other.has_whole_account
        }) {
            sources.push((None, Source { labels: BTreeMap::new(), id: None, ..source }));
        }
    }
    sources
}

fn check(agents: Vec<Agent>, specs: Vec<Value>) {
    let agents = Agents::of(agents);
    let policies = specs.iter().enumerate().map(|(number, spec)| parse(number, spec));
    let set = AccessSet::compile(policies, &agents);
    let outputs: Vec<(crate::api::Enforcer, Output)> =
        ENFORCERS.into_iter().map(|enforcer| (enforcer, emit(&set, enforcer, true))).collect();
    let envoy: &[Object] = &outputs.last().unwrap().1.objects;
    let foreign = SpiffeId::new(&TrustDomainName::parse("partner").unwrap(), "/ns/x/sa/y").unwrap();
    for (caller, source) in sources(&agents, &foreign) {
        for target in agents.all().filter(|agent| &*agent.key.namespace == "a") {
            let labels = target.pod_labels().remove(0);
            for port in PORTS {
                for (method, path, mcp) in requests() {
                    let question = Question {
                        port: Some(port),
                        method: Some(method),
                        path: Some(path),
                        mcp: Some(mcp),
                    };
                    let answer = match &caller {
                        Some(caller) => can(&set, &agents, caller, &target.key, &question),
                        None => Answer::No(Vec::new()),
                    };
                    // A revoked one may be closed whatever is about it.
                    let is_open = set.rules.iter().all(|rule| !rule.is_about(&target.key))
                        && !target.is_revoked;
                    let call =
                        Call { source: &source, target: ("a", &labels), port, method, path, mcp };
                    for (enforcer, output) in &outputs {
                        let said = lets_through(*enforcer, &output.objects, &call);
                        let verdicts: Vec<&Verdict> = set
                            .rules
                            .iter()
                            .filter(|rule| rule.is_about(&target.key))
                            .filter_map(|rule| output.verdicts.get(&rule.policy.key))
                            .collect();
                        let states: Vec<EnforcerState> =
                            verdicts.iter().map(|verdict| verdict.state).collect();
                        let context = || {
                            format!(
                                "{enforcer:?} says {said:?}, can says {answer:?}: {call:?}\n{states:?}\n{specs:#?}"
                            )
                        };
                        let Some(said) = said else { continue };
                        assert!(
                            !is_open,
                            "nothing is closed that no policy is about: {}",
                            context()
                        );
                        let less = states.iter().any(|state| {
                            matches!(state, EnforcerState::Narrowed | EnforcerState::Refused)
                        });
                        let with_envoy = verdicts
                            .iter()
                            .any(|verdict| verdict.message.contains("leaves those to the Envoy"))
                            && lets_through(crate::api::Enforcer::Envoy, envoy, &call)
                                == Some(false);
                        assert!(!said || answer.is_yes() || with_envoy, "more: {}", context());
                        assert!(said || !answer.is_yes() || less, "less, silently: {}", context());
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]
    #[test]
    fn every_emitter_agrees_with_can(
        agents in prop::collection::vec(agent(), 1..7),
        specs in prop::collection::vec(policy(), 1..4),
    ) {
        check(agents, specs);
    }
}
