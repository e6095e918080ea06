//! Who may call whom, as text, for Graphviz, for Mermaid, and as a picture.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::Format;
use crate::decide::access::{AccessSet, Agents, Rule, http_text, ports_text};

/// Callers, targets, and what is let through between them.
#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    /// Targets with their callers, and what each policy lets through.
    pub targets: BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
    /// Identities that no policy is about.
    pub open: BTreeSet<String>,
}

impl Graph {
    /// The graph of a set; of what is in one namespace alone, where one is given.
    pub fn of(set: &AccessSet, agents: &Agents, namespace: Option<&str>) -> Self {
        let mut graph = Graph { targets: BTreeMap::new(), open: BTreeSet::new() };
        for rule in &set.rules {
            let label = label(rule);
            for target in &rule.targets {
                let callers = graph.targets.entry(target.to_string()).or_default();
                for (id, key) in &rule.callers {
                    let caller = key.as_ref().map_or_else(|| id.to_string(), ToString::to_string);
                    callers.entry(caller).or_default().insert(label.clone());
                }
            }
        }
        let all =
            agents.all().filter(|agent| namespace.is_none_or(|of| of == &*agent.key.namespace));
        let keys = all.map(|agent| agent.key.to_string());
        graph.open = keys.filter(|key| !graph.targets.contains_key(key)).collect();
        graph
    }

    /// Draws it.
    pub fn draw(&self, format: Format) -> String {
        match format {
            Format::Text => self.text(),
            Format::Dot => self.dot(),
            Format::Mermaid => self.mermaid(),
            Format::Svg => self.svg(),
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (target, callers) in &self.targets {
            let _ = writeln!(text, "{target}");
            if callers.is_empty() {
                text.push_str("  <- nobody\n");
            }
            let width = callers.keys().map(String::len).max().unwrap_or_default();
            for (caller, labels) in callers {
                for label in labels {
                    let _ = writeln!(text, "  <- {caller:<width$}  {label}");
                }
            }
        }
        if !self.open.is_empty() {
            text.push_str("no policy is about these, whoever reaches them may call them:\n");
            for open in &self.open {
                let _ = writeln!(text, "  {open}");
            }
        }
        text
    }

    /// Each edge with what it lets through.
    fn edges(&self) -> impl Iterator<Item = (&str, &str, String)> {
        self.targets.iter().flat_map(|(target, callers)| {
            callers.iter().map(move |(caller, labels)| {
                let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
                (caller.as_str(), target.as_str(), labels.join(" | "))
            })
        })
    }

    fn nodes(&self) -> BTreeSet<&str> {
        let callers = self.edges().map(|(caller, _, _)| caller);
        callers.chain(self.targets.keys().map(String::as_str)).collect()
    }

    /// Names have no quotes and no backslashes: the API server refuses those.
    fn dot(&self) -> String {
        let mut text = "digraph access {\n  rankdir=LR;\n  node [shape=box];\n".to_owned();
        for node in self.nodes() {
            let _ = writeln!(text, "  \"{node}\";");
        }
        for open in &self.open {
            let _ = writeln!(text, "  \"{open}\" [style=dashed];");
        }
        for (caller, target, label) in self.edges() {
            let _ = writeln!(text, "  \"{caller}\" -> \"{target}\" [label=\"{label}\"];");
        }
        text + "}\n"
    }

    fn mermaid(&self) -> String {
        let mut text = "flowchart LR\n".to_owned();
        let nodes = self.nodes();
        let id = |node: &str| nodes.iter().position(|each| *each == node).unwrap_or_default();
        for (number, node) in nodes.iter().enumerate() {
            let _ = writeln!(text, "  n{number}[\"{node}\"]");
        }
        for (number, open) in
            self.open.iter().filter(|open| !nodes.contains(open.as_str())).enumerate()
        {
            let _ = writeln!(text, "  o{number}([\"{open}\"])");
        }
        for (caller, target, label) in self.edges() {
            let _ = writeln!(text, "  n{} -->|\"{label}\"| n{}", id(caller), id(target));
        }
        text
    }

    /// Callers at the left, targets at the right, one line for each that may.
    fn svg(&self) -> String {
        let callers: Vec<&str> = self
            .edges()
            .map(|(caller, _, _)| caller)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let targets: Vec<&str> = self.targets.keys().map(String::as_str).collect();
        let rows = callers.len().max(targets.len()).max(1);
        let height = rows * ROW + 2 * MARGIN;
        let row = |position: usize| MARGIN + position * ROW + ROW / 2;
        let mut text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n<title>Who may call whom</title>\n<defs><marker id=\"to\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" orient=\"auto\"><path d=\"M0 0 L8 4 L0 8 z\" fill=\"#446\"/></marker></defs>\n"
        );
        for (caller, target, label) in self.edges() {
            let place = |of: &[&str], name| {
                row(of.iter().position(|each| *each == name).unwrap_or_default())
            };
            let (from, to) = (place(&callers, caller), place(&targets, target));
            let (left, right) = (MARGIN + BOX, WIDTH - MARGIN - BOX);
            let bend = (right - left) / 2;
            let _ = writeln!(
                text,
                "<path d=\"M{left} {from} C{0} {from} {0} {to} {right} {to}\" fill=\"none\" stroke=\"#446\" marker-end=\"url(#to)\"><title>{1} to {2}: {3}</title></path>",
                left + bend,
                escaped(caller),
                escaped(target),
                escaped(&label)
            );
        }
        for (names, left) in [(&callers, MARGIN), (&targets, WIDTH - MARGIN - BOX)] {
            for (position, name) in names.iter().enumerate() {
                let middle = row(position);
                let _ = writeln!(
                    text,
                    "<rect x=\"{left}\" y=\"{}\" width=\"{BOX}\" height=\"28\" rx=\"4\" fill=\"#eef\" stroke=\"#446\"/><text x=\"{}\" y=\"{}\">{}</text>",
                    middle - 14,
                    left + 8,
                    middle + 5,
                    escaped(name)
                );
            }
        }
        text + "</svg>\n"
    }
}

const WIDTH: usize = 900;
const BOX: usize = 300;
const ROW: usize = 44;
const MARGIN: usize = 16;

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// What a policy lets through: its ports, requests, tools, and its name.
fn label(rule: &Rule) -> String {
    let layer7 = rule.layer7();
    let mut parts = vec![ports_text(rule)];
    parts.extend(layer7.http.iter().map(http_text));
    if !layer7.tools.is_empty() {
        let tools: Vec<&str> = layer7.tools.iter().map(String::as_str).collect();
        parts.push(format!("tools {}", tools.join(", ")));
    }
    format!("{} ({})", parts.join("; "), rule.policy.key.name)
}
