//! Access policies, understood: [`AccessPolicy::parse`] is the only door in.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::{PodSelector, SelectorError, SpiffeError, SpiffeId, TrustDomainName};
use super::{is_label_value, is_object_name};
use crate::api::names::{ACCESS_REVOKED_NAME, LABEL_VALUE_MAX};
use crate::api::{AccessFrom, AccessTarget, AgentAccessPolicy, Enforcer, HttpRule};

/// Which AgentAccessPolicy, and which of several that had this name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyKey {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

/// An AgentAccessPolicy whose every field has been understood.
#[derive(Clone, Debug, PartialEq)]
pub struct AccessPolicy {
    pub key: PolicyKey,
    pub target: Target,
    /// The ports that are opened. Empty: all.
    pub ports: BTreeSet<u16>,
    pub from: From,
    pub layer7: Layer7,
    /// The enforcers named. Empty: those that are found.
    pub enforcers: BTreeSet<Enforcer>,
    /// Whether Cilium is to authenticate both ends.
    pub cilium_authentication: bool,
}

/// Who is called, within the policy's namespace.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    Identity(String),
    Role(String),
    /// The selector parsed, to match with, and as it was written, to hand on.
    Pods(PodSelector, LabelSelector),
}

/// Who may call. Namespaces are always spelt out here.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct From {
    /// Namespace and name.
    pub identities: BTreeSet<(String, String)>,
    /// Namespace and role.
    pub roles: BTreeSet<(String, String)>,
    /// Namespaces whose every identity may call.
    pub namespaces: BTreeSet<String>,
    pub spiffe_ids: BTreeSet<SpiffeId>,
}

/// What is let through of what can be seen above TCP. Both empty: everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Layer7 {
    /// One of these must match a request, where there are any.
    pub http: Vec<HttpMatch>,
    /// The MCP tools, where there are any: then nothing but MCP is let through.
    pub tools: BTreeSet<String>,
}

/// HTTP requests.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HttpMatch {
    /// Empty: all.
    pub methods: BTreeSet<String>,
    /// Empty: all.
    pub paths: BTreeSet<Path>,
}

/// Paths of requests, without query.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Path {
    /// This one.
    Exact(String),
    /// Whatever is below: the text ends in `/`.
    Below(String),
}

/// The rule of the spec that an AgentAccessPolicy breaks. The text says what to write.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum AccessError {
    #[error("the object has no {0}; it was not read from an API server")]
    Incomplete(&'static str),
    #[error("metadata.name is {0} characters long and is also a label: write at most 63")]
    NameTooLong(usize),
    #[error(
        "metadata.name is {ACCESS_REVOKED_NAME}, which is the name of what closes revoked pods: write another"
    )]
    NameTaken,
    #[error("spec.target is exactly one of identity, role and podSelector: write one of them")]
    Target,
    #[error("spec.target.podSelector: {0}")]
    Selector(#[from] SelectorError),
    #[error(
        "spec.target.podSelector is empty, which is every pod of the namespace: write matchLabels or matchExpressions"
    )]
    EverySelected,
    #[error("spec.target.ports has {0}: write TCP ports from 1 to 65535, each once")]
    Port(u16),
    #[error("spec.from names nobody: write identities, roles, namespaces or spiffeIds")]
    Nobody,
    #[error("spec.{0} has {1:?}: write a name, without wildcards")]
    Name(&'static str, String),
    #[error("spec.from.spiffeIds: {0}")]
    SpiffeId(#[from] SpiffeError),
    #[error("spec.from.spiffeIds has {0:?}: write spiffe://<trust domain>/<path>")]
    NoSpiffeId(String),
    #[error("spec.http has an entry without methods and paths: write one of them")]
    EveryRequest,
    #[error("spec.http has the method {0:?}: write it in capitals, such as GET")]
    Method(String),
    #[error(
        "spec.http has the path {0:?}: write one such as /search, or /search/* for all below it"
    )]
    Path(String),
    #[error("spec.http and spec.tools are about requests on a port: write spec.target.ports")]
    NoPorts,
}

impl AccessPolicy {
    /// Understands an AgentAccessPolicy, or names the first rule that it breaks.
    pub fn parse(resource: &AgentAccessPolicy) -> Result<Self, AccessError> {
        let metadata = &resource.metadata;
        let part =
            |value: &Option<String>, what| value.clone().ok_or(AccessError::Incomplete(what));
        let key = PolicyKey {
            namespace: part(&metadata.namespace, "metadata.namespace")?,
            name: part(&metadata.name, "metadata.name")?,
            uid: part(&metadata.uid, "metadata.uid")?,
        };
        if key.name.len() > LABEL_VALUE_MAX {
            return Err(AccessError::NameTooLong(key.name.len()));
        }
        if key.name == ACCESS_REVOKED_NAME {
            return Err(AccessError::NameTaken);
        }
        let spec = &resource.spec;
        let ports: BTreeSet<u16> = spec.target.ports.iter().copied().collect();
        if ports.contains(&0) {
            return Err(AccessError::Port(0));
        }
        let layer7 = Layer7 {
            http: parse_http(&spec.http)?,
            tools: spec
                .tools
                .iter()
                .map(|tool| named("tools", tool, is_tool_name))
                .collect::<Result<_, _>>()?,
        };
        if !layer7.is_empty() && ports.is_empty() {
            return Err(AccessError::NoPorts);
        }
        Ok(AccessPolicy {
            target: parse_target(&spec.target)?,
            from: parse_from(&spec.from, &key.namespace)?,
            ports,
            layer7,
            enforcers: spec.enforcers.iter().copied().collect(),
            cilium_authentication: spec.cilium_authentication.is_some(),
            key,
        })
    }

    /// True if and only if an identity of this namespace may matter to the policy.
    pub fn concerns(&self, namespace: &str) -> bool {
        let From { identities, roles, namespaces, spiffe_ids } = &self.from;
        self.key.namespace == namespace
            || namespaces.contains(namespace)
            || identities.iter().chain(roles).any(|(of, _)| of == namespace)
            // One of them may be of this cluster after all.
            || !spiffe_ids.is_empty()
    }

    /// True if and only if the policy names an Envoy to leave to what others cannot see.
    pub fn has_envoy(&self) -> bool {
        self.enforcers.contains(&Enforcer::Envoy)
    }
}

impl Layer7 {
    /// True if and only if nothing above TCP is asked for.
    pub fn is_empty(&self) -> bool {
        self.http.is_empty() && self.tools.is_empty()
    }
}

impl Path {
    fn parse(text: &str) -> Option<Self> {
        let (literal, path): (&str, fn(String) -> Path) = match text.strip_suffix('*') {
            Some(literal) => (literal.strip_suffix('/')?, |text| Path::Below(text + "/")),
            None => (text.strip_suffix('/').unwrap_or(text), Path::Exact),
        };
        let segments = literal.strip_prefix('/').unwrap_or(literal);
        let good = (text.starts_with('/'))
            && (segments.is_empty() || segments.split('/').all(is_plain_segment));
        // An exact path keeps its last slash.
        good.then(|| match text.ends_with('*') {
            true => path(literal.to_owned()),
            false => path(text.to_owned()),
        })
    }

    /// True if and only if a request to this path, given without its query, is meant.
    ///
    /// What is below a path is told segment by segment: a path with `..`, an empty segment or an
    /// escape is below none, since servers do not agree on what such a path is.
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Path::Exact(exact) => path == exact,
            Path::Below(above) => path.strip_prefix(above.as_str()).is_some_and(|rest| {
                let rest = rest.strip_suffix('/').filter(|rest| !rest.is_empty()).unwrap_or(rest);
                rest.is_empty() || rest.split('/').all(is_plain_segment)
            }),
        }
    }

    /// The same as a regular expression for whole paths (RE2 and POSIX extended understand it).
    pub fn regex(&self) -> String {
        match self {
            Path::Exact(exact) => exact.replace('.', "[.]"),
            Path::Below(above) => {
                let segment = "[A-Za-z0-9_~-][A-Za-z0-9._~-]*";
                format!("{}({segment}(/{segment})*/?)?", above.replace('.', "[.]"))
            }
        }
    }

    /// As users write it.
    pub fn written(&self) -> String {
        match self {
            Path::Exact(exact) => exact.clone(),
            Path::Below(above) => format!("{above}*"),
        }
    }
}

fn is_plain_segment(segment: &str) -> bool {
    let unreserved = |b: u8| b.is_ascii_alphanumeric() || b"-_~".contains(&b);
    let bytes = segment.as_bytes();
    !bytes.is_empty() && unreserved(bytes[0]) && bytes.iter().all(|&b| unreserved(b) || b == b'.')
}

fn parse_target(target: &AccessTarget) -> Result<Target, AccessError> {
    match (&target.identity, &target.role, &target.pod_selector) {
        (Some(name), None, None) => {
            named("target.identity", name, is_identity_name).map(Target::Identity)
        }
        (None, Some(role), None) => named("target.role", role, is_label_value).map(Target::Role),
        (None, None, Some(selector)) => {
            let parsed = PodSelector::parse(Some(selector))?;
            if parsed.specificity() == 0 {
                return Err(AccessError::EverySelected);
            }
            // Without the empty parts: what is handed on is the same however it was written.
            let mut selector = selector.clone();
            selector.match_labels = selector.match_labels.filter(|labels| !labels.is_empty());
            selector.match_expressions = selector.match_expressions.filter(|all| !all.is_empty());
            Ok(Target::Pods(parsed, selector))
        }
        _ => Err(AccessError::Target),
    }
}

fn parse_from(from: &AccessFrom, own: &str) -> Result<From, AccessError> {
    let mut parsed = From::default();
    for reference in &from.identities {
        let name = named("from.identities", &reference.name, is_identity_name)?;
        let namespace = reference.namespace.as_deref().unwrap_or(own);
        let namespace = named("from.identities", namespace, super::is_dns_label)?;
        parsed.identities.insert((namespace, name));
    }
    let namespaces = from
        .namespaces
        .iter()
        .map(|namespace| named("from.namespaces", namespace, super::is_dns_label))
        .collect::<Result<BTreeSet<_>, _>>()?;
    let own = BTreeSet::from([own.to_owned()]);
    for role in &from.roles {
        let role = named("from.roles", role, is_label_value)?;
        let of = if namespaces.is_empty() { &own } else { &namespaces };
        parsed.roles.extend(of.iter().map(|namespace| (namespace.clone(), role.clone())));
    }
    if from.roles.is_empty() {
        parsed.namespaces = namespaces;
    }
    for id in &from.spiffe_ids {
        parsed.spiffe_ids.insert(parse_spiffe_id(id)?);
    }
    if parsed == From::default() { Err(AccessError::Nobody) } else { Ok(parsed) }
}

fn parse_spiffe_id(text: &str) -> Result<SpiffeId, AccessError> {
    let rest = text.strip_prefix("spiffe://");
    let split = rest.and_then(|rest| rest.find('/').map(|at| rest.split_at(at)));
    let (domain, path) = split.ok_or_else(|| AccessError::NoSpiffeId(text.to_owned()))?;
    Ok(SpiffeId::new(&TrustDomainName::parse(domain)?, path)?)
}

fn parse_http(rules: &[HttpRule]) -> Result<Vec<HttpMatch>, AccessError> {
    let mut parsed = BTreeSet::new();
    for HttpRule { methods, paths } in rules {
        if methods.is_empty() && paths.is_empty() {
            return Err(AccessError::EveryRequest);
        }
        let is_method =
            |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_uppercase());
        if let Some(method) = methods.iter().find(|method| !is_method(method)) {
            return Err(AccessError::Method(method.clone()));
        }
        parsed.insert(HttpMatch {
            methods: methods.iter().cloned().collect(),
            paths: paths
                .iter()
                .map(|path| Path::parse(path).ok_or_else(|| AccessError::Path(path.clone())))
                .collect::<Result<_, _>>()?,
        });
    }
    Ok(parsed.into_iter().collect())
}

fn named(
    field: &'static str,
    text: &str,
    is_name: impl Fn(&str) -> bool,
) -> Result<String, AccessError> {
    match is_name(text) {
        true => Ok(text.to_owned()),
        false => Err(AccessError::Name(field, text.to_owned())),
    }
}

fn is_identity_name(text: &str) -> bool {
    text.len() <= LABEL_VALUE_MAX && is_object_name(text)
}

fn is_tool_name(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._/-".contains(&b))
}

/// Labels as a map of owned text, for selectors.
pub fn labels_of<'a>(
    pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[cfg(test)]
mod tests;
