use serde_json::json;

use super::draw::Graph;
use super::*;

fn identity(namespace: &str, name: &str, role: &str, revoked: bool) -> AgentIdentity {
    let mut resource = json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "AgentIdentity",
        "metadata": {"name": name, "namespace": namespace, "uid": name, "creationTimestamp": "2026-11-24T10:00:00Z"},
        "spec": {"serviceAccountName": name, "role": role},
        "status": {"spiffeId": format!("spiffe://prod/ns/{namespace}/sa/{name}")},
    });
    if revoked {
        resource["spec"]["revoked"] = json!({"reason": "KeyCompromise"});
    }
    serde_json::from_value(resource).unwrap()
}

fn crew() -> (Agents, Vec<Arc<AccessPolicy>>) {
    let agents = agents_of(&[
        identity("research", "planner", "planner", false),
        identity("research", "thief", "planner", true),
        identity("research", "search", "tool", false),
    ]);
    let policy: AgentAccessPolicy = serde_json::from_value(json!({
        "metadata": {"name": "tools", "namespace": "research", "uid": "u"},
        "spec": {
            "target": {"role": "tool", "ports": [8443]}, "tools": ["search"],
            "from": {"roles": ["planner"], "spiffeIds": ["spiffe://partner/a"]},
        },
    }))
    .unwrap();
    (agents, vec![parsed(&policy).unwrap()])
}

fn asked(arguments: &[&str]) -> anyhow::Result<(String, bool)> {
    use clap::Parser;
    #[derive(Parser)]
    struct Asked {
        #[command(flatten)]
        options: CanOptions,
    }
    let options = Asked::parse_from(std::iter::once(&"can").chain(arguments)).options;
    let (agents, policies) = crew();
    answer(&options, &agents, policies)
}

#[test]
fn a_question_is_answered_with_why() {
    for (arguments, said) in [
        (
            &["research/planner", "research/search", "--port", "8443", "--tool", "search"][..],
            "yes: policy tools\n",
        ),
        (
            &["research/planner", "research/search"],
            "yes: policy tools, for this alone: port 8443; MCP with the tools search\n",
        ),
        (
            &["spiffe://partner/a", "research/search", "--port", "8443", "--tool", "search"],
            "yes: policy tools\n",
        ),
        (
            &["research/planner", "research/search", "--tool", "rm"],
            "no: policy tools: lets through MCP with the tools search alone\n",
        ),
        (&["research/thief", "research/search"], "no: research/thief is revoked\n"),
        (
            &["spiffe://prod/ns/research/sa/thief", "research/search"],
            "no: research/thief is revoked\n",
        ),
        (
            &["spiffe://partner/b", "research/search"],
            "no: policy tools: does not name spiffe://partner/b\n",
        ),
        (
            &["research/search", "research/planner"],
            "yes: no AgentAccessPolicy of research is about planner, so whoever reaches it may call it\n",
        ),
    ] {
        let (text, is_yes) = asked(arguments).unwrap();
        assert_eq!(text, said);
        assert_eq!(is_yes, said.starts_with("yes"));
    }
    for (arguments, said) in [
        (
            ["planner", "research/search"],
            "\"planner\" is nobody: write <namespace>/<AgentIdentity>",
        ),
        (["research/planer", "research/search"], "there is no AgentIdentity research/planer"),
        (["spiffe://X/a", "research/search"], "spiffe://X/a is not a SPIFFE ID"),
    ] {
        assert_eq!(asked(&arguments).unwrap_err().to_string(), said);
    }
}

#[test]
fn a_graph_is_drawn_four_ways() {
    let (agents, policies) = crew();
    let set = AccessSet::compile(policies, &agents);
    let graph = Graph::of(&set, &agents, None);
    assert_eq!(
        graph.draw(Format::Text),
        "research/search
  <- research/planner    port 8443; tools search (tools)
  <- spiffe://partner/a  port 8443; tools search (tools)
no policy is about these, whoever reaches them may call them:
  research/planner
  research/thief
"
    );
    let dot = graph.draw(Format::Dot);
    assert!(dot.contains("\"research/planner\" -> \"research/search\" [label=\"port 8443; tools search (tools)\"];"), "{dot}");
    let mermaid = graph.draw(Format::Mermaid);
    assert!(mermaid.contains("n0 -->|\"port 8443; tools search (tools)\"| n1"), "{mermaid}");
    let svg = graph.draw(Format::Svg);
    assert_eq!((svg.matches("<rect").count(), svg.matches("marker-end").count()), (3, 2), "{svg}");
}
