//! What each user asked of the API server, from the server's own audit log.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::Path;

use serde_json::Value;

use crate::users::User;

/// The audit policy: every request of everybody but the cluster's own parts, without bodies.
pub const POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, users: [\"system:apiserver\", \"controllers\", \"system:anonymous\"]}
- {level: Metadata}
";

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete` ...
    pub verb: String,
    /// The plural name, such as `secrets`; empty for a path that is no resource.
    pub resource: String,
    /// `status` and the like, or empty.
    pub subresource: String,
    /// The namespace, or empty.
    pub namespace: String,
    /// The object's name, or empty.
    pub name: String,
    /// The answer's status code.
    pub code: u16,
    /// When it arrived, RFC 3339 with microseconds: sorts as text.
    pub time: String,
}

impl Request {
    /// `update leases`, `patch agentidentities/status`: the request without its object.
    pub fn kind(&self) -> String {
        let slash = if self.subresource.is_empty() { "" } else { "/" };
        format!("{} {}{slash}{}", self.verb, self.resource, self.subresource)
    }

    /// True if and only if it asks for a change.
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }

    /// True if and only if it asks for a change beside the Lease (the operator's heartbeat) and
    /// Events (best effort).
    pub fn is_deed(&self) -> bool {
        self.is_write() && self.resource != "leases" && self.resource != "events"
    }
}

/// Some requests, in the order of the log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Requests(pub Vec<Request>);

impl Requests {
    /// Those that `keep` says.
    pub fn filter(self, keep: impl FnMut(&Request) -> bool) -> Self {
        Self(self.0.into_iter().filter(keep).collect())
    }

    /// Those within a namespace.
    pub fn within(self, namespace: &str) -> Self {
        self.filter(|request| request.namespace == namespace)
    }

    /// The changes, but for the Lease and Events.
    pub fn writes(self) -> Self {
        self.filter(Request::is_deed)
    }

    /// Those that arrived after the first `seen`: `let before = requests.len()` marks a moment.
    pub fn after(self, seen: usize) -> Self {
        Self(self.0.into_iter().skip(seen).collect())
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if and only if there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many of each kind, such as `{"create secrets": 1, "patch agentidentities/status": 1}`.
    pub fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for request in &self.0 {
            *counts.entry(request.kind()).or_default() += 1;
        }
        counts
    }
}

/// Reads the requests of `user`. A request is written when it has been answered, a watch when it
/// has begun; each counts once.
pub fn requests_by(user: User, log: &Path) -> Requests {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let mut seen = HashSet::new();
    let requests = text
        .lines()
        .filter(|line| line.contains(user.name()))
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|event| is_by(user, event))
        .filter(|event| seen.insert(event["auditID"].to_string()))
        .map(|event| request(&event))
        .collect();
    Requests(requests)
}

/// The same, line by line as they come, for a test that acts on each.
pub struct Tail {
    user: User,
    log: BufReader<File>,
    line: String,
}

impl Tail {
    /// Begins with the next request.
    pub fn of(user: User, log: &Path) -> Self {
        let mut file = File::open(log).expect("the API server has an audit log");
        file.seek(SeekFrom::End(0)).expect("a file can be sought");
        Self { user, log: BufReader::new(file), line: String::new() }
    }

    /// The next request, if there is one by now.
    pub fn next_request(&mut self) -> Option<Request> {
        loop {
            let read = self.log.read_line(&mut self.line).expect("the audit log can be read");
            // The end of a line may not be written yet.
            if read == 0 || !self.line.ends_with('\n') {
                return None;
            }
            let line = std::mem::take(&mut self.line);
            let event = line.contains(self.user.name()).then(|| serde_json::from_str(&line));
            if let Some(Ok(event)) = event
                && is_by(self.user, &event)
            {
                return Some(request(&event));
            }
        }
    }
}

fn is_by(user: User, event: &Value) -> bool {
    event["user"]["username"] == user.name()
}

fn request(event: &Value) -> Request {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let object = &event["objectRef"];
    Request {
        verb: text(&event["verb"]),
        resource: text(&object["resource"]),
        subresource: text(&object["subresource"]),
        namespace: text(&object["namespace"]),
        name: text(&object["name"]),
        code: event["responseStatus"]["code"].as_u64().unwrap_or_default() as u16,
        time: text(&event["requestReceivedTimestamp"]),
    }
}
