//! What to do for one identity now.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::observed::{Admission, AuthorityFacts, Content, Meta, SecretState, Situation};
use super::{checks, schedule};
use crate::api::KeyAlgorithm;
use crate::api::conditions::{IssueReason, Reason};
use crate::identity::{Identity, MINIMUM_LIFE, SpiffeId};
use crate::x509::Sha256;

/// What to do, what `Ready` says if nothing goes wrong, and when to look again.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub step: Step,
    /// What `Ready` says where the step writes no certificate.
    pub ready: Ready,
    /// A Secret of ours under a former name, to be deleted once the present one is right.
    pub remove: Option<String>,
    /// When time alone can change the plan.
    pub next_check: Option<Timestamp>,
}

/// What to write.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The Secret is right, or may not be touched.
    Nothing,
    /// Sign a certificate and write it.
    Issue(IssueOrder),
    /// The certificate is right; the bundle beside it, or labels and annotations, are not.
    Adjust { rewrite_bundle: bool },
}

/// A certificate to be signed, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct IssueOrder {
    pub reason: IssueReason,
    pub message: String,
    pub profile: LeafProfile,
}

/// Everything that a leaf is to say, except its key and serial number.
#[derive(Clone, Debug, PartialEq)]
pub struct LeafProfile {
    pub spiffe_id: SpiffeId,
    pub dns_names: BTreeSet<String>,
    pub algorithm: KeyAlgorithm,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    /// The issuing CA that is to sign it; any other refuses.
    pub issuer: Sha256,
}

/// What the condition `Ready` says.
#[derive(Clone, Debug, PartialEq)]
pub enum Ready {
    Yes { message: String },
    No { reason: Reason, message: String },
}

/// What to do for one identity now.
pub fn decide(situation: &Situation<'_>) -> Plan {
    match situation.admission {
        Admission::Refused { reason, message } => Plan::rest(Ready::no(*reason, message.clone())),
        Admission::Waiting { spiffe_id, bundle, reason, message } => {
            wait(situation, spiffe_id.as_ref(), *bundle, *reason, message)
        }
        Admission::Admitted { spiffe_id, authority } => serve(situation, spiffe_id, authority),
    }
}

impl Plan {
    /// Do nothing until something changes.
    fn rest(ready: Ready) -> Self {
        Plan { step: Step::Nothing, ready, remove: None, next_check: None }
    }
}

impl Ready {
    fn no(reason: Reason, message: impl Into<String>) -> Self {
        Ready::No { reason, message: message.into() }
    }
}

impl LeafProfile {
    /// The leaf to sign now: never longer than its chain (rule 1). None where less than the
    /// minimum life would be left.
    pub fn new(
        identity: &Identity,
        spiffe_id: &SpiffeId,
        authority: &AuthorityFacts,
        now: Timestamp,
    ) -> Option<Self> {
        let now = schedule::whole_seconds(now);
        let not_after = identity.life.after(now).min(authority.not_after);
        if not_after < MINIMUM_LIFE.after(now) {
            return None;
        }
        Some(LeafProfile {
            spiffe_id: spiffe_id.clone(),
            dns_names: identity.dns_names.clone(),
            algorithm: identity.algorithm,
            not_before: schedule::saturating_sub(now, schedule::BACKDATE),
            not_after,
            issuer: authority.issuer,
        })
    }
}

/// The CA cannot sign: what is there stands until it expires, and nothing is written but the
/// bundle beside it.
fn wait(
    situation: &Situation<'_>,
    spiffe_id: Option<&SpiffeId>,
    bundle: Option<Sha256>,
    reason: Reason,
    message: &str,
) -> Plan {
    let (Some(spiffe_id), Some(content)) = (spiffe_id, content_of(situation)) else {
        return Plan::rest(Ready::no(reason, message));
    };
    let flaw =
        checks::reason_not_ready(situation.identity, spiffe_id, None, Some(content), situation.now);
    match (flaw, content) {
        (None, Content::Read(facts)) => Plan {
            step: match bundle.is_some() && facts.bundle != bundle {
                true => Step::Adjust { rewrite_bundle: true },
                false => Step::Nothing,
            },
            next_check: Some(facts.leaf.not_after),
            ..Plan::rest(Ready::Yes {
                message: format!(
                    "the certificate is good until {}, and cannot be renewed now: {message}",
                    facts.leaf.not_after
                ),
            })
        },
        _ => Plan::rest(Ready::no(reason, message)),
    }
}

/// The CA signs: issue if a check fires, else see that the rest of the Secret is right.
fn serve(situation: &Situation<'_>, spiffe_id: &SpiffeId, authority: &AuthorityFacts) -> Plan {
    let Situation { identity, now, .. } = *situation;
    if let SecretState::Foreign(why) = situation.secret {
        return Plan::rest(Ready::no(Reason::SecretNotOurs, why.clone()));
    }
    let content = content_of(situation);
    match checks::reason_to_issue(identity, spiffe_id, authority, content, now) {
        Some((reason, message)) => {
            let ready = standing(situation, spiffe_id, authority);
            match LeafProfile::new(identity, spiffe_id, authority, now) {
                Some(profile) => Plan {
                    step: Step::Issue(IssueOrder { reason, message, profile }),
                    ready,
                    remove: situation.former_secret.map(str::to_owned),
                    next_check: None,
                },
                None => too_late(situation, ready, authority),
            }
        }
        None => keep(situation, spiffe_id, authority),
    }
}

/// The certificate that is there is right.
fn keep(situation: &Situation<'_>, spiffe_id: &SpiffeId, authority: &AuthorityFacts) -> Plan {
    let (SecretState::Ours(secret), Some(Content::Read(facts))) =
        (situation.secret, content_of(situation))
    else {
        unreachable!("no check fired, so there is a certificate that can be read")
    };
    let identity = situation.identity;
    let rewrite_bundle = facts.bundle != Some(authority.bundle);
    let desired = Meta::desired(identity, spiffe_id.as_str(), &facts.leaf, authority.bundle);
    let step = if rewrite_bundle || !secret.meta.has(&desired) {
        Step::Adjust { rewrite_bundle }
    } else {
        Step::Nothing
    };
    Plan {
        step,
        ready: Ready::Yes { message: good_until(&facts.leaf.not_after) },
        remove: situation.former_secret.map(str::to_owned),
        next_check: Some(schedule::renew_at(identity, &facts.leaf)),
    }
}

/// A certificate is due and the CA would cut it too short: nothing is signed.
fn too_late(situation: &Situation<'_>, standing: Ready, authority: &AuthorityFacts) -> Plan {
    let end = authority.not_after;
    let message = format!(
        "the CA {} ends at {end}, which leaves less than {MINIMUM_LIFE} for a certificate: nothing is signed until the TrustDomain has a CA that lives longer",
        authority.key_id
    );
    let next_check = match content_of(situation) {
        Some(Content::Read(facts)) if facts.leaf.not_after > situation.now => {
            Some(facts.leaf.not_after)
        }
        _ => None,
    };
    let ready = match standing {
        Ready::Yes { .. } => Ready::Yes { message },
        Ready::No { .. } => Ready::no(Reason::AuthorityExpiring, message),
    };
    Plan { next_check, ..Plan::rest(ready) }
}

/// What `Ready` says of what is there now.
fn standing(situation: &Situation<'_>, spiffe_id: &SpiffeId, authority: &AuthorityFacts) -> Ready {
    let content = content_of(situation);
    match checks::reason_not_ready(
        situation.identity,
        spiffe_id,
        Some(authority),
        content,
        situation.now,
    ) {
        None => match content {
            Some(Content::Read(facts)) => Ready::Yes { message: good_until(&facts.leaf.not_after) },
            _ => Ready::no(Reason::SigningFailed, "there is no certificate yet"),
        },
        Some((IssueReason::Expired, message)) => Ready::no(Reason::Expired, message),
        Some((_, message)) => Ready::no(Reason::SigningFailed, message),
    }
}

/// What `Ready` says of a certificate that is good.
pub fn good_until(not_after: &Timestamp) -> String {
    format!("the certificate is good until {not_after}")
}

fn content_of<'a>(situation: &'a Situation<'_>) -> Option<&'a Content> {
    match situation.secret {
        SecretState::Ours(secret) => Some(&secret.content),
        SecretState::Absent | SecretState::Foreign(_) => None,
    }
}
