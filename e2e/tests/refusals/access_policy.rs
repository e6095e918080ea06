//! The rules of an AgentAccessPolicy.

use crate::Row;

/// Each is refused with a sentence.
pub const REFUSED: &[Row] = &[
    ("no target", "{from: {roles: [a]}}", "spec.target: Required value"),
    (
        "an empty target",
        "{target: {}, from: {roles: [a]}}",
        "target is exactly one of identity, role and podSelector: write one of them",
    ),
    (
        "two targets",
        "{target: {role: a, identity: b}, from: {roles: [a]}}",
        "target is exactly one of",
    ),
    (
        "a target of every pod",
        "{target: {podSelector: {}}, from: {roles: [a]}}",
        "an empty podSelector is every pod of the namespace",
    ),
    (
        "a target of no labels",
        "{target: {podSelector: {matchLabels: {}}}, from: {roles: [a]}}",
        "an empty podSelector is every pod",
    ),
    ("no from", "{target: {role: a}}", "spec.from: Required value"),
    (
        "an empty from",
        "{target: {role: a}, from: {}}",
        "from names nobody: write identities, roles, namespaces or spiffeIds",
    ),
    (
        "a from of empty lists",
        "{target: {role: a}, from: {roles: [], identities: []}}",
        "from names nobody",
    ),
    (
        "port 0",
        "{target: {role: a, ports: [0]}, from: {roles: [a]}}",
        "write a TCP port: 1 to 65535",
    ),
    (
        "port 65536",
        "{target: {role: a, ports: [65536]}, from: {roles: [a]}}",
        "write a TCP port: 1 to 65535",
    ),
    ("a port twice", "{target: {role: a, ports: [80, 80]}, from: {roles: [a]}}", "Duplicate value"),
    (
        "a role that is a pattern",
        "{target: {role: a}, from: {roles: ['.*']}}",
        "write a role as AgentIdentities have it",
    ),
    (
        "a target role that is a wildcard",
        "{target: {role: '*'}, from: {roles: [a]}}",
        "there are no wildcards",
    ),
    (
        "an identity that is a path",
        "{target: {identity: ../a}, from: {roles: [a]}}",
        "write the name of an AgentIdentity",
    ),
    (
        "a caller in upper case",
        "{target: {role: a}, from: {identities: [{name: Planner}]}}",
        "write the name of an AgentIdentity",
    ),
    (
        "a caller without name",
        "{target: {role: a}, from: {identities: [{namespace: a}]}}",
        "spec.from.identities[0].name: Required value",
    ),
    (
        "a namespace that is a wildcard",
        "{target: {role: a}, from: {namespaces: ['*']}}",
        "write the name of a namespace",
    ),
    (
        "a SPIFFE ID that is none",
        "{target: {role: a}, from: {spiffeIds: [planner]}}",
        "write a SPIFFE ID with a path and without wildcards",
    ),
    (
        "a trust domain as a SPIFFE ID",
        "{target: {role: a}, from: {spiffeIds: ['spiffe://x']}}",
        "write a SPIFFE ID with a path",
    ),
    (
        "a SPIFFE ID with a wildcard",
        "{target: {role: a}, from: {spiffeIds: ['spiffe://x/*']}}",
        "write a SPIFFE ID with a path and without wildcards",
    ),
    (
        "a SPIFFE ID that climbs",
        "{target: {role: a}, from: {spiffeIds: ['spiffe://x/a/../b']}}",
        "write a SPIFFE ID with a path",
    ),
    (
        "a SPIFFE ID with a newline",
        "{target: {role: a}, from: {spiffeIds: [\"spiffe://x/a\\n\"]}}",
        "write a SPIFFE ID with a path",
    ),
    (
        "tools without ports",
        "{target: {role: a}, from: {roles: [a]}, tools: [search]}",
        "write target.ports, the ports on which the target speaks HTTP",
    ),
    (
        "HTTP without ports",
        "{target: {role: a}, from: {roles: [a]}, http: [{methods: [GET]}]}",
        "write target.ports",
    ),
    (
        "HTTP of everything",
        "{target: {role: a, ports: [80]}, from: {roles: [a]}, http: [{}]}",
        "an entry of http without methods and paths is every request",
    ),
    (
        "a method in lower case",
        "{target: {role: a, ports: [80]}, from: {roles: [a]}, http: [{methods: [get]}]}",
        "write an HTTP method in capitals, such as GET",
    ),
    (
        "a method that is a pattern",
        "{target: {role: a, ports: [80]}, from: {roles: [a]}, http: [{methods: ['GET|POST']}]}",
        "write an HTTP method in capitals",
    ),
    (
        "a path that is none",
        "{target: {role: a, ports: [80]}, from: {roles: [a]}, http: [{paths: [a]}]}",
        "write a path of letters",
    ),
    (
        "a path that climbs",
        "{target: {role: a, ports: [80]}, from: {roles: [a]}, http: [{paths: [/a/../b]}]}",
        "no segment that begins with '.'",
    ),
    (
        "a path that is a pattern",
        "{target: {role: a, ports: [80]}, from: {roles: [a]}, http: [{paths: ['/(a|b)']}]}",
        "write a path of letters",
    ),
    (
        "a wildcard within a path",
        "{target: {role: a, ports: [80]}, from: {roles: [a]}, http: [{paths: ['/*/a']}]}",
        "no other wildcards",
    ),
    (
        "an escape in a path",
        "{target: {role: a, ports: [80]}, from: {roles: [a]}, http: [{paths: [/a%2fb]}]}",
        "no %",
    ),
    (
        "a tool that is a pattern",
        "{target: {role: a, ports: [80]}, from: {roles: [a]}, tools: ['.*$']}",
        "write the name of an MCP tool",
    ),
    (
        "an enforcer nobody knows",
        "{target: {role: a}, from: {roles: [a]}, enforcers: [Calico]}",
        "supported values: \"NetworkPolicy\"",
    ),
    (
        "an enforcer twice",
        "{target: {role: a}, from: {roles: [a]}, enforcers: [Istio, Istio]}",
        "Duplicate value",
    ),
];

/// Each is within the rules.
pub const ACCEPTED: &[(&str, &str)] = &[
    ("the shortest one", "{target: {role: tool}, from: {roles: [planner]}}"),
    ("a whole namespace", "{target: {identity: search}, from: {namespaces: [lab]}}"),
    (
        "everything at once",
        "target: {podSelector: {matchLabels: {app: x}, matchExpressions: [{key: tier, operator: Exists}]}, ports: [1, 65535]}
from:
  identities: [{name: planner}, {name: planner.v2, namespace: lab}]
  roles: [planner, A_b.c]
  namespaces: [lab]
  spiffeIds: ['spiffe://partner.example.com/ns/lab/sa/planner']
http: [{methods: [GET, POST], paths: [/, /mcp, /v1.0/search/, /docs/*, '/*']}, {methods: [PUT]}]
tools: [search, read_file, fs/read.v2]
enforcers: [NetworkPolicy, Istio, Linkerd, Cilium, Envoy]
ciliumAuthentication: Required",
    ),
];
