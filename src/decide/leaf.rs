//! What to do for one identity now.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::checks::Finding;
use super::ledger::{Ledger, leaf_of};
use super::observed::{Admission, AuthorityFacts, Content, Meta, SecretState, Situation};
use super::{checks, schedule};
use crate::api::KeyAlgorithm;
use crate::api::conditions::{IssueReason, Reason};
use crate::identity::{Identity, MINIMUM_LIFE, SpiffeId};
use crate::x509::{Serial, Sha256};

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
    /// Write the status first: it does not count a certificate that is in the Secret, or says that
    /// the identity is revoked, or (`skip`) the next serial number is revoked already and must be
    /// passed over. Never may two certificates be out that the status does not count.
    Count { skip: bool },
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

/// Everything that a leaf is to say, except its key.
#[derive(Clone, Debug, PartialEq)]
pub struct LeafProfile {
    pub serial: Serial,
    pub spiffe_id: SpiffeId,
    pub dns_names: BTreeSet<String>,
    pub algorithm: KeyAlgorithm,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    /// The issuing CA that is to sign it; any other refuses.
    pub issuer: Sha256,
    /// Where its CRL is (RFC 5280, 4.2.1.13), if the leaf is to say so.
    pub crl_url: Option<String>,
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
        serial: Serial,
        now: Timestamp,
    ) -> Option<Self> {
        let now = schedule::whole_seconds(now);
        let not_after = identity.life.after(now).min(authority.not_after);
        if not_after < MINIMUM_LIFE.after(now) {
            return None;
        }
        Some(LeafProfile {
            serial,
            spiffe_id: spiffe_id.clone(),
            dns_names: identity.dns_names.clone(),
            algorithm: identity.algorithm,
            not_before: schedule::saturating_sub(now, schedule::BACKDATE),
            not_after,
            issuer: authority.issuer,
            crl_url: None,
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
    let finding = unusable(situation)
        .or_else(|| checks::reason_to_issue(identity, spiffe_id, authority, content, now));
    match finding {
        Some((reason, message)) => {
            let ready = standing(situation, spiffe_id, authority);
            let ledger = Ledger::of(&identity.uid, situation.previous);
            let serial = ledger.next();
            let skip = situation.revoked.contains(&serial.to_string());
            let is_behind = leaf_of(situation.secret).is_some_and(|leaf| ledger.is_behind(leaf));
            if skip || is_behind || ledger.is_closed() {
                return Plan { step: Step::Count { skip }, ..Plan::rest(ready) };
            }
            match LeafProfile::new(identity, spiffe_id, authority, serial, now) {
                Some(mut profile) => {
                    profile.crl_url = situation
                        .crl_url
                        .map(|base| format!("{base}/crl/{}.crl", authority.key_id));
                    Plan {
                        step: Step::Issue(IssueOrder { reason, message, profile }),
                        ready,
                        remove: situation.former_secret.map(str::to_owned),
                        next_check: None,
                    }
                }
                None => too_late(situation, ready, authority),
            }
        }
        None => keep(situation, spiffe_id, authority),
    }
}

/// Why a certificate will not do whatever it says: it is revoked, or could not be.
fn unusable(situation: &Situation<'_>) -> Option<Finding> {
    let serial = &leaf_of(situation.secret)?.serial;
    let ledger = Ledger::of(&situation.identity.uid, situation.previous);
    if ledger.revision_of(serial).is_none() {
        let message = format!(
            "the certificate {serial} is not among those that status says were issued, and so could not be revoked"
        );
        return Some((IssueReason::Unrecorded, message));
    }
    let message = || format!("the certificate {serial} is revoked");
    situation.revoked.contains(serial).then(|| (IssueReason::CertificateRevoked, message()))
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
    let finding = unusable(situation).or_else(|| {
        let Situation { identity, now, .. } = *situation;
        checks::reason_not_ready(identity, spiffe_id, Some(authority), content, now)
    });
    match finding {
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
