//! Tables whose rows are sentences.

use std::sync::Arc;

use serde_json::{Value, json};

use super::emit::{ENFORCERS, Output, emit};
use super::plan::{Found, Write, plan};
use super::*;
use crate::api::{AgentAccessPolicy, EnforcerState};
use crate::identity::TrustDomainName;

fn agent(namespace: &str, name: &str, role: &str) -> Agent {
    let domain = TrustDomainName::parse("prod.example.com").unwrap();
    let path = format!("/ns/{namespace}/sa/{name}");
    Agent {
        key: IdentityKey { namespace: namespace.into(), name: name.into() },
        service_account: name.to_owned(),
        role: Some(role.to_owned()),
        spiffe_id: Some(SpiffeId::new(&domain, &path).unwrap()),
        has_whole_account: true,
        is_revoked: false,
        pods: Vec::new(),
    }
}

fn crew() -> Vec<Agent> {
    vec![
        agent("research", "planner", "planner"),
        agent("research", "executor", "executor"),
        agent("research", "search", "tool"),
        agent("research", "files", "tool"),
        agent("lab", "planner", "planner"),
    ]
}

fn policy(name: &str, spec: Value) -> Arc<AccessPolicy> {
    let resource: AgentAccessPolicy = serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "research", "uid": format!("uid-{name}")},
        "spec": spec,
    }))
    .unwrap();
    Arc::new(AccessPolicy::parse(&resource).unwrap())
}

/// `planner` calls `search` by role, `executor` only on 8443.
fn policies() -> Vec<Arc<AccessPolicy>> {
    vec![
        policy("tools", json!({"target": {"role": "tool"}, "from": {"roles": ["planner"]}})),
        policy(
            "search",
            json!({"target": {"identity": "search", "ports": [8443]}, "from": {"identities": [{"name": "executor"}]}}),
        ),
        policy(
            "call",
            json!({"target": {"identity": "executor", "ports": [443]}, "from": {"roles": ["planner"]}, "tools": ["run"]}),
        ),
    ]
}

fn ask(
    set: &AccessSet,
    agents: &Agents,
    from: (&str, &str),
    to: &str,
    question: Question<'_>,
) -> Answer {
    let from = agents.get(from.0, from.1).unwrap();
    let to = IdentityKey { namespace: "research".into(), name: to.into() };
    can(set, agents, &Caller::Identity(from), &to, &question)
}

#[test]
fn may_this_one_call_that_one() {
    let mut crew = crew();
    crew.push(Agent { is_revoked: true, ..agent("research", "thief", "planner") });
    crew.push(Agent { spiffe_id: None, ..agent("research", "nobody", "planner") });
    let agents = Agents::of(crew);
    let set = AccessSet::compile(policies(), &agents);
    let port = |port| Question { port: Some(port), ..Question::default() };
    let tool =
        |tool| Question { port: Some(443), mcp: Some(Mcp::Tool(tool)), ..Question::default() };
    for (what, from, to, question, answer) in [
        ("a role calls", ("research", "planner"), "search", port(80), true),
        (
            "the same role of another namespace does not",
            ("lab", "planner"),
            "search",
            port(80),
            false,
        ),
        (
            "policies add up: another may on one port",
            ("research", "executor"),
            "search",
            port(8443),
            true,
        ),
        ("and on no other", ("research", "executor"), "search", port(80), false),
        ("and not another target", ("research", "executor"), "files", port(8443), false),
        ("whom no policy selects, all may call", ("lab", "planner"), "planner", port(1), true),
        ("a revoked one calls nobody", ("research", "thief"), "search", port(80), false),
        ("nor does one without SPIFFE ID", ("research", "nobody"), "search", port(80), false),
        ("a tool that is named", ("research", "planner"), "executor", tool("run"), true),
        ("a tool that is not", ("research", "planner"), "executor", tool("shell"), false),
    ] {
        let said = ask(&set, &agents, from, to, question);
        assert_eq!(said.is_yes(), answer, "{what}: {said:?}");
    }
    let open = ask(&set, &agents, ("research", "planner"), "executor", Question::default());
    let Answer::Yes(grants) = open else { panic!("{open:?}") };
    assert_eq!(grants[0].only, ["port 443", "MCP with the tools run"]);
    let no = ask(&set, &agents, ("research", "executor"), "search", port(80));
    assert_eq!(
        no,
        Answer::No(vec![
            "policy search: opens port 8443 and not port 80".to_owned(),
            "policy tools: does not name spiffe://prod.example.com/ns/research/sa/executor"
                .to_owned(),
        ])
    );
}

#[test]
fn a_target_only_some_of_whose_pods_are_let_through_is_not() {
    let mut crew = crew();
    crew[2].pods = vec![labels_of([("tier", "1")]), labels_of([("tier", "2")])];
    let agents = Agents::of(crew);
    let one = json!({"target": {"podSelector": {"matchLabels": {"tier": "1"}}}, "from": {"identities": [{"name": "executor"}]}});
    let set = AccessSet::compile([policy("one", one)], &agents);
    let ask = |from| ask(&set, &agents, ("research", from), "search", Question::default()).is_yes();
    assert!(ask("executor"));
    assert!(!ask("planner"), "the pod of tier 1 refuses it");
}

#[test]
fn names_that_match_nothing_are_told() {
    let agents = Agents::of(crew());
    let unmatched =
        |spec| AccessSet::compile([policy("p", spec)], &agents).rules[0].unmatched.clone();
    for (spec, said) in [
        (
            json!({"target": {"role": "tool"}, "from": {"identities": [{"name": "planer"}]}}),
            "there is no AgentIdentity research/planer",
        ),
        (
            json!({"target": {"role": "tool"}, "from": {"roles": ["executor"], "namespaces": ["lab"]}}),
            "no AgentIdentity of lab has the role executor",
        ),
        (
            json!({"target": {"role": "tool"}, "from": {"namespaces": ["moon"]}}),
            "there is no AgentIdentity in moon",
        ),
        (
            json!({"target": {"role": "tool"}, "from": {"spiffeIds": ["spiffe://prod.example.com/ns/moon/sa/a"]}}),
            "no AgentIdentity of this cluster has the ID spiffe://prod.example.com/ns/moon/sa/a",
        ),
        (
            json!({"target": {"role": "spy"}, "from": {"roles": ["planner"]}}),
            "the target: no AgentIdentity of research has the role spy",
        ),
    ] {
        assert_eq!(unmatched(spec), [said]);
    }
    assert!(
        unmatched(
            json!({"target": {"role": "tool"}, "from": {"spiffeIds": ["spiffe://partner/a"]}})
        )
        .is_empty()
    );
}

/// An ID of this cluster falls with its identity, however it is named.
#[test]
fn a_revoked_identity_is_no_source_by_any_name() {
    let mut crew = crew();
    crew[0].is_revoked = true;
    let agents = Agents::of(crew);
    for from in [
        json!({"identities": [{"name": "planner"}]}),
        json!({"roles": ["planner"]}),
        json!({"spiffeIds": ["spiffe://prod.example.com/ns/research/sa/planner"]}),
    ] {
        let spec = json!({"target": {"role": "tool", "ports": [80]}, "from": from, "enforcers": ["NetworkPolicy", "Istio", "Linkerd", "Cilium", "Envoy"]});
        let set = AccessSet::compile([policy("p", spec)], &agents);
        assert!(set.rules[0].callers.is_empty());
        for enforcer in ENFORCERS {
            let text = format!("{:?}", emit(&set, enforcer, true).objects);
            assert!(!text.contains("planner"), "{enforcer:?}: {text}");
        }
    }
}

/// Even where its policy names a role that others have as well, and whether any policy names it or not.
#[test]
fn a_revoked_identity_is_called_by_nobody() {
    let mut crew = crew();
    crew[2].is_revoked = true;
    let agents = Agents::of(crew);
    let set = AccessSet::compile(policies(), &agents);
    let port = Question { port: Some(8443), ..Question::default() };
    let ask = |from, to| ask(&set, &agents, ("research", from), to, port);
    assert_eq!(ask("planner", "search"), Answer::No(vec!["research/search is revoked".to_owned()]));
    assert_eq!(
        ask("executor", "search"),
        Answer::No(vec!["research/search is revoked".to_owned()])
    );
    assert!(ask("planner", "files").is_yes(), "the other tool is called as before");
    let closing = |enforcer| {
        let objects = emit(&set, enforcer, true).objects;
        objects
            .into_iter()
            .filter(|object| object.name == "countersign-revoked")
            .collect::<Vec<_>>()
    };
    for enforcer in [Enforcer::NetworkPolicy, Enforcer::Istio, Enforcer::Cilium] {
        let closing = closing(enforcer);
        assert_eq!(closing.len(), 1, "{enforcer:?}: one for all policies of the namespace");
        let owners: Vec<&str> = closing[0].owners.iter().map(|owner| &*owner.name).collect();
        assert_eq!(
            owners,
            ["call", "search", "tools"],
            "{enforcer:?}: it goes with the last of them"
        );
        let text = closing[0].content.to_string();
        assert!(text.contains("countersign.dev/state\":\"revoked"), "{enforcer:?}: {text}");
    }
    let none = AccessSet::compile([], &agents);
    assert_eq!(emit(&none, Enforcer::NetworkPolicy, true).objects, []);
}

#[test]
fn what_an_enforcer_cannot_say_is_narrower_and_said() {
    let agents = Agents::of(crew());
    let state = |spec: Value, enforcer| {
        let set = AccessSet::compile([policy("p", spec)], &agents);
        let verdict = emit(&set, enforcer, true).verdicts.into_values().next();
        verdict.map(|verdict| verdict.state)
    };
    let spec = |change: Value| {
        let mut spec =
            json!({"target": {"role": "tool", "ports": [80]}, "from": {"roles": ["planner"]}});
        spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        spec
    };
    use crate::api::Enforcer::{Cilium, Envoy, Istio, Linkerd, NetworkPolicy};
    use EnforcerState::{Applied, Delegated, Narrowed, Refused};
    let http = json!({"http": [{"methods": ["GET"]}]});
    let below = json!({"http": [{"paths": ["/exact"]}, {"paths": ["/docs/*"]}]});
    let tools = json!({"tools": ["a"]});
    let with_envoy = json!({"tools": ["a"], "enforcers": ["NetworkPolicy", "Istio", "Cilium", "Linkerd", "Envoy"]});
    let expressions = json!({"target": {"podSelector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}}});
    let foreign = json!({"from": {"spiffeIds": ["spiffe://partner/a"]}});
    for (what, change, states) in [
        ("roles and ports", json!({}), [Applied, Applied, Delegated, Applied, Applied]),
        ("HTTP", http, [Narrowed, Applied, Narrowed, Applied, Applied]),
        // What is below a path is the mesh's path normalization's to say.
        ("HTTP below a path", below, [Narrowed, Delegated, Narrowed, Applied, Applied]),
        ("tools", tools, [Narrowed, Narrowed, Narrowed, Narrowed, Applied]),
        (
            "tools that an Envoy sees to",
            with_envoy,
            [Delegated, Delegated, Delegated, Delegated, Applied],
        ),
        ("pods by expressions", expressions, [Applied, Refused, Refused, Applied, Refused]),
        ("another trust domain", foreign, [Narrowed, Applied, Narrowed, Narrowed, Applied]),
    ] {
        let found = [NetworkPolicy, Istio, Linkerd, Cilium, Envoy]
            .map(|each| state(spec(change.clone()), each).unwrap());
        assert_eq!(found, states, "{what}");
    }
}

/// 1,000 sources, and two policies that name each other's target.
#[test]
fn huge_and_cyclic_policies_compile_and_are_the_same_each_time() {
    let mut crew = crew();
    crew.extend((0..1000).map(|n| agent("research", &format!("worker-{n}"), "worker")));
    let agents = Agents::of(crew);
    let identities: Vec<Value> =
        (0..1000).map(|n| json!({"name": format!("worker-{n}")})).collect();
    let policies = vec![
        policy("huge", json!({"target": {"role": "tool"}, "from": {"identities": identities}})),
        policy(
            "there",
            json!({"target": {"identity": "planner"}, "from": {"identities": [{"name": "executor"}]}}),
        ),
        policy(
            "back",
            json!({"target": {"identity": "executor"}, "from": {"identities": [{"name": "planner"}, {"name": "executor"}]}}),
        ),
    ];
    let mut reversed = policies.clone();
    reversed.reverse();
    let set = AccessSet::compile(policies, &agents);
    assert_eq!(set, AccessSet::compile(reversed, &agents), "the order of policies is nothing");
    assert_eq!(set.rules.iter().map(|rule| rule.callers.len()).max(), Some(1000));
    for enforcer in ENFORCERS {
        for object in emit(&set, enforcer, true).objects {
            let size = object.manifest().to_string().len();
            assert!(size < 1_000_000, "{enforcer:?}: {size} bytes are more than a cluster stores");
        }
    }
}

fn as_found(output: &Output) -> Vec<Found> {
    let found = output.objects.iter().map(|object| Found {
        kind: object.kind,
        name: object.name.clone(),
        resource_version: "7".to_owned(),
        object: object.manifest(),
    });
    found.collect()
}

#[test]
fn only_what_changed_and_is_ours_is_written() {
    let agents = Agents::of(crew());
    let set = AccessSet::compile(policies(), &agents);
    let output = emit(&set, Enforcer::NetworkPolicy, true);
    let ours: BTreeSet<String> =
        ["tools", "search", "call"].map(|name| format!("uid-{name}")).into();
    let none = BTreeSet::new();
    let there = as_found(&output);
    assert_eq!(plan(&output.objects, &there, &ours, &none), [], "at rest");
    assert_eq!(
        plan(&output.objects, &[], &ours, &none).len(),
        4,
        "one each, and what closes revoked pods"
    );

    let mut edited = there.clone();
    edited[0].object["spec"]["podSelector"]["matchLabels"]["app"] = json!("x");
    let writes = plan(&output.objects, &edited, &ours, &none);
    assert!(matches!(&writes[..], [Write::Replace(_, version)] if version == "7"), "{writes:?}");

    let mut labelled = there.clone();
    labelled[0].object["metadata"]["labels"]["team"] = json!("x");
    assert_eq!(plan(&output.objects, &labelled, &ours, &none), [], "others' labels are theirs");

    let mut foreign = there.clone();
    foreign[0].object["metadata"]["ownerReferences"] = json!([]);
    let writes = plan(&output.objects, &foreign, &ours, &none);
    assert!(matches!(&writes[..], [Write::Create(_)]), "it is not overwritten: {writes:?}");
    assert_eq!(plan(&[], &foreign[..1], &ours, &none), [], "nor deleted");
    assert!(matches!(&plan(&[], &there[..1], &ours, &none)[..], [Write::Delete { .. }]));
    assert_eq!(plan(&[], &there, &ours, &ours), [], "what cannot be understood now stays");
}
