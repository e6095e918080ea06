//! What to write into a TrustDomain, so that what was wished for happens. Pure.

use serde_json::{Value, json};

use super::emergency::struck;
use super::progress::Goal;
use crate::api::{SlotKind, SlotNumbers, SlotPhase, TrustDomain};
use crate::cli::words::{condition, name_of, names_of, newest, slots};

/// What a person asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Wish {
    /// A newer root CA, and an issuing CA under it.
    Root,
    /// A newer issuing CA under the same root.
    Issuing,
    /// That the CA with this key id is not trusted any more.
    Distrust(String),
}

/// What is to be done about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The merge patch; None where it has been asked for already.
    pub change: Option<Value>,
    /// When it is done.
    pub goal: Goal,
    /// What to tell.
    pub say: String,
}

/// A key id as the status has it, from one as OpenSSL prints it.
pub fn normal_key_id(text: &str) -> String {
    text.trim().replace(':', "").to_lowercase()
}

/// What is to be done about a wish, or a sentence that says why that cannot be.
pub fn request(domain: &TrustDomain, wish: &Wish) -> Result<Request, String> {
    if domain.spec.authority.remote.is_some() {
        return Err(format!(
            "{} is remote: its CAs are somebody else's, who rotates them; the operator takes up what {} gives out",
            name(domain),
            domain.spec.authority.remote.as_ref().map_or("the address", |remote| &remote.url)
        ));
    }
    match wish {
        Wish::Root => newer(domain, SlotKind::Root),
        Wish::Issuing => match newest(domain, SlotKind::Root, SlotPhase::Prepared) {
            // Until the new root signs, nothing else becomes of an issuing CA.
            Some(root) => {
                let number = root.number;
                let say = format!(
                    "{}: a rotation of the root CA is under way, and brings a new issuing CA",
                    name(domain)
                );
                let goal = Goal::Newer { kind: SlotKind::Root, number };
                Ok(Request { change: None, goal, say })
            }
            None => newer(domain, SlotKind::Issuing),
        },
        Wish::Distrust(key_id) => distrust(domain, key_id),
    }
}

fn newer(domain: &TrustDomain, kind: SlotKind) -> Result<Request, String> {
    let Some(active) = newest(domain, kind, SlotPhase::Active) else {
        let why = condition(domain, crate::api::conditions::READY);
        let why = why.map_or("the operator has not looked at it yet", |(_, _, message)| message);
        return Err(format!("{} has no CA that could be rotated: {why}", name(domain)));
    };
    let asked: SlotNumbers = domain.spec.ca.at_least.unwrap_or_default();
    let (field, asked, what) = match kind {
        SlotKind::Root => ("root", asked.root, "root CA"),
        SlotKind::Issuing => ("issuing", asked.issuing, "issuing CA"),
    };
    let prepared = newest(domain, kind, SlotPhase::Prepared).map(|slot| slot.number);
    if let Some(number) = asked.filter(|asked| *asked > active.number).or(prepared) {
        let say = format!("{}: a rotation of the {what} is under way already", name(domain));
        return Ok(Request { change: None, goal: Goal::Newer { kind, number }, say });
    }
    let number = active.number + 1;
    Ok(Request {
        change: Some(patch(domain, json!({"atLeast": {field: number}}))),
        goal: Goal::Newer { kind, number },
        say: format!(
            "{}: a newer {what} than {} is asked for (spec.ca.atLeast.{field}: {number})",
            name(domain),
            name_of(active)
        ),
    })
}

fn distrust(domain: &TrustDomain, key_id: &str) -> Result<Request, String> {
    let struck = struck(slots(domain), key_id);
    let distrusted = &domain.spec.ca.distrust;
    if struck.is_empty() {
        if distrusted.iter().any(|known| known == key_id) {
            return Err(format!(
                "the CA {key_id} of {} is distrusted already, and gone from its bundle",
                name(domain)
            ));
        }
        return Err(format!(
            "{0} has no CA with the key id {key_id:?}: `countersign trust {0}` shows those it has",
            name(domain)
        ));
    }
    let names = names_of(&struck);
    let goal = Goal::Distrusted(struck.iter().map(|slot| slot.key_id.clone()).collect());
    if distrusted.iter().any(|known| known == key_id) {
        let say = format!("{}: told already to distrust {names}", name(domain));
        return Ok(Request { change: None, goal, say });
    }
    let all: Vec<&str> = distrusted.iter().map(String::as_str).chain([key_id]).collect();
    Ok(Request {
        change: Some(patch(domain, json!({"distrust": all}))),
        goal,
        say: format!("{}: told to distrust {names} (spec.ca.distrust)", name(domain)),
    })
}

/// A change of `spec.ca`, good only for the version that it was decided on.
fn patch(domain: &TrustDomain, ca: Value) -> Value {
    let version = domain.metadata.resource_version.as_deref().unwrap_or_default();
    json!({"metadata": {"resourceVersion": version}, "spec": {"ca": ca}})
}

fn name(domain: &TrustDomain) -> &str {
    domain.metadata.name.as_deref().unwrap_or_default()
}
