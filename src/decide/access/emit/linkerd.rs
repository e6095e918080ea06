//! `policy.linkerd.io` Server, MeshTLSAuthentication and AuthorizationPolicy.
//!
//! Linkerd enforces by port: a Server is one port of some pods, and of two Servers for one port of
//! a pod only one counts. So there is one for each identity and port, made of all policies at once.
//! It tells callers by their ServiceAccounts.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::{Kind, Object, Output, Sight, Verdict, left_out, sight, verdict};
use crate::api::EnforcerState;
use crate::api::names::IDENTITY_LABEL;
use crate::decide::access::Rule;
use crate::identity::IdentityKey;
use crate::identity::access::{PolicyKey, Target};

const GROUP: &str = "policy.linkerd.io";
const SERVER: Kind =
    Kind { group: GROUP, version: "v1beta3", kind: "Server", plural: "servers", content: "spec" };
const AUTHENTICATION: Kind = Kind {
    group: GROUP,
    version: "v1alpha1",
    kind: "MeshTLSAuthentication",
    plural: "meshtlsauthentications",
    content: "spec",
};
const AUTHORIZATION: Kind = Kind {
    group: GROUP,
    version: "v1alpha1",
    kind: "AuthorizationPolicy",
    plural: "authorizationpolicies",
    content: "spec",
};

/// What is written.
pub const KINDS: [Kind; 3] = [SERVER, AUTHENTICATION, AUTHORIZATION];

const BY_ACCOUNT: &str =
    "Linkerd tells callers by ServiceAccount, and others may run as theirs, or they have none here";

#[derive(Default)]
struct Door {
    owners: BTreeSet<PolicyKey>,
    accounts: BTreeSet<(String, String)>,
}

/// Three objects for each identity and port, and two less where nobody may call.
pub fn emit(rules: &[&Rule]) -> Output {
    let mut output = Output::default();
    let mut doors: BTreeMap<(&IdentityKey, u16), Door> = BTreeMap::new();
    for rule in rules {
        let key = rule.policy.key.clone();
        if let Some(message) = refusal(rule) {
            output.verdicts.insert(key, Verdict::new(EnforcerState::Refused, message));
            continue;
        }
        let sight = sight(rule, false, "Linkerd");
        for target in &rule.targets {
            for &port in &rule.policy.ports {
                let door = doors.entry((target, port)).or_default();
                door.owners.insert(key.clone());
                if !matches!(sight, Sight::Blind(_)) && !rule.revoked.contains(target) {
                    door.accounts.extend(rule.accounts.iter().cloned());
                }
            }
        }
        let narrower = left_out(rule.without_account.iter(), BY_ACCOUNT).into_iter().collect();
        let mut verdict = verdict(&sight, narrower, "");
        if verdict.state == EnforcerState::Applied {
            verdict.state = EnforcerState::Delegated;
        }
        let others = "ports that the policy does not name are left to Linkerd's default: set config.linkerd.io/default-inbound-policy: deny on the target's pods to close them";
        let before =
            if verdict.message.is_empty() { String::new() } else { verdict.message + "; " };
        verdict.message = format!("{before}{others}");
        output.verdicts.insert(key, verdict);
    }
    for ((target, port), door) in doors {
        output.objects.extend(door.objects(target, port));
    }
    output
}

fn refusal(rule: &Rule) -> Option<&'static str> {
    match rule.policy.target {
        Target::Pods(..) => Some(
            "of two Linkerd Servers for one port only one counts, so none is made for pod labels: write an identity or a role as the target",
        ),
        _ if rule.policy.ports.is_empty() => {
            Some("a Linkerd Server is one port: write spec.target.ports")
        }
        _ => None,
    }
}

impl Door {
    fn objects(self, target: &IdentityKey, port: u16) -> Vec<Object> {
        let name = format!("countersign-{}-{port}", target.name);
        let owners: Vec<PolicyKey> = self.owners.into_iter().collect();
        let object = |kind, content| Object {
            kind,
            namespace: target.namespace.to_string(),
            name: name.clone(),
            owners: owners.clone(),
            content,
        };
        let labels = json!({"matchLabels": {IDENTITY_LABEL: &*target.name}});
        // The last two are Linkerd's defaults, written out so that what is stored is what is sent.
        let server = json!({
            "podSelector": labels, "port": port, "proxyProtocol": "unknown", "accessPolicy": "deny",
        });
        let mut objects = vec![object(SERVER, server)];
        if self.accounts.is_empty() {
            return objects;
        }
        let account = |(namespace, name): &(String, String)| json!({"kind": "ServiceAccount", "namespace": namespace, "name": name});
        let accounts: Vec<_> = self.accounts.iter().map(account).collect();
        objects.push(object(AUTHENTICATION, json!({"identityRefs": accounts})));
        let server = json!({"group": GROUP, "kind": "Server", "name": name});
        let authentication = json!({"group": GROUP, "kind": "MeshTLSAuthentication", "name": name});
        objects.push(object(
            AUTHORIZATION,
            json!({"targetRef": server, "requiredAuthenticationRefs": [authentication]}),
        ));
        objects
    }
}
