//! The ordered chain of named checks: the first that fires is the reason to issue.
//!
//! "Is it ready?" is the same chain with [`expired`] in place of [`near_expiry`], so that the two
//! questions can never come to disagree.

use jiff::{SignedDuration, Timestamp};

use super::observed::{AuthorityFacts, Content, ContentFacts};
use super::schedule;
use crate::api::conditions::IssueReason;
use crate::identity::{Identity, SpiffeId};

/// Why what is there will not do: a name, and a sentence for people.
pub type Finding = (IssueReason, String);

/// The first reason to issue a certificate in place of the one that is there, if any.
pub fn reason_to_issue(
    identity: &Identity,
    spiffe_id: &SpiffeId,
    authority: &AuthorityFacts,
    content: Option<&Content>,
    now: Timestamp,
) -> Option<Finding> {
    let facts = match readable(content) {
        Ok(facts) => facts,
        Err(finding) => return Some(finding),
    };
    sound(identity, spiffe_id, Some(authority), facts)
        .or_else(|| near_expiry(identity, facts, now))
        .or_else(|| authority_retiring(authority, facts))
}

/// The first reason why the identity cannot be used with what is there, if any.
///
/// `authority` is None while the CA cannot be asked: what it signed is good until it expires.
pub fn reason_not_ready(
    identity: &Identity,
    spiffe_id: &SpiffeId,
    authority: Option<&AuthorityFacts>,
    content: Option<&Content>,
    now: Timestamp,
) -> Option<Finding> {
    let facts = match readable(content) {
        Ok(facts) => facts,
        Err(finding) => return Some(finding),
    };
    sound(identity, spiffe_id, authority, facts).or_else(|| expired(facts, now))
}

fn readable(content: Option<&Content>) -> Result<&ContentFacts, Finding> {
    match content {
        None => Err((IssueReason::Missing, "there is no Secret".to_owned())),
        Some(Content::Emptied) => {
            Err((IssueReason::Missing, "the Secret holds no certificate".to_owned()))
        }
        Some(Content::Unreadable(why)) => Err((IssueReason::Malformed, why.clone())),
        Some(Content::Read(facts)) => Ok(facts),
    }
}

/// Everything but time.
fn sound(
    identity: &Identity,
    spiffe_id: &SpiffeId,
    authority: Option<&AuthorityFacts>,
    facts: &ContentFacts,
) -> Option<Finding> {
    key_mismatch(facts)
        .or_else(|| wrong_profile(facts))
        .or_else(|| wrong_identity(spiffe_id, facts))
        .or_else(|| authority.and_then(|authority| wrong_issuer(authority, facts)))
        .or_else(|| spec_changed(identity, authority, facts))
        .or_else(|| wrong_formats(identity, facts))
}

fn key_mismatch(facts: &ContentFacts) -> Option<Finding> {
    (!facts.key_matches).then(|| {
        (
            IssueReason::KeyMismatch,
            "tls.key is not the key of the certificate in tls.crt".to_owned(),
        )
    })
}

fn wrong_profile(facts: &ContentFacts) -> Option<Finding> {
    let defect = facts.leaf.defect?;
    Some((IssueReason::WrongProfile, format!("the certificate is no X.509-SVID: {defect}")))
}

fn wrong_identity(spiffe_id: &SpiffeId, facts: &ContentFacts) -> Option<Finding> {
    let found = facts.leaf.uris.first().map(String::as_str).unwrap_or_default();
    (found != spiffe_id.as_str()).then(|| {
        (IssueReason::WrongIdentity, format!("the certificate is of {found}, not of {spiffe_id}"))
    })
}

fn spec_changed(
    identity: &Identity,
    authority: Option<&AuthorityFacts>,
    facts: &ContentFacts,
) -> Option<Finding> {
    let leaf = &facts.leaf;
    let life = schedule::issued_life(leaf);
    // A life shorter than asked for is the CA's doing where the two end together. Of another CA
    // than the active one that is not known.
    let cut_short = life < identity.life.as_duration()
        && authority.is_none_or(|authority| {
            leaf.not_after >= authority.not_after || facts.issuer != Some(authority.issuer)
        });
    let what = if leaf.dns_names != identity.dns_names {
        "DNS names"
    } else if leaf.algorithm != Some(identity.algorithm) {
        "key algorithm"
    } else if !is_as_asked(life, identity, authority) && !cut_short {
        "duration"
    } else {
        return None;
    };
    Some((IssueReason::SpecChanged, format!("the spec asks for another {what}")))
}

/// True if and only if a leaf lives as long as the spec asks, as exactly as who signed it can say.
fn is_as_asked(
    life: SignedDuration,
    identity: &Identity,
    authority: Option<&AuthorityFacts>,
) -> bool {
    let leeway = match authority {
        Some(authority) if authority.signs_elsewhere => schedule::ELSEWHERE_LEEWAY,
        _ => SignedDuration::ZERO,
    };
    (life - identity.life.as_duration()).abs() <= leeway
}

fn wrong_formats(identity: &Identity, facts: &ContentFacts) -> Option<Finding> {
    (!facts.strays.is_empty() || facts.formats != identity.formats).then(|| {
        let message = "the files in the Secret are not those of spec.delivery.formats";
        (IssueReason::WrongFormats, message.to_owned())
    })
}

fn wrong_issuer(authority: &AuthorityFacts, facts: &ContentFacts) -> Option<Finding> {
    (facts.issuer != Some(authority.issuer) && !is_retiring(authority, facts)).then(|| {
        (
            IssueReason::WrongIssuer,
            format!("the certificate was not signed by the active CA {}", authority.key_id),
        )
    })
}

fn authority_retiring(authority: &AuthorityFacts, facts: &ContentFacts) -> Option<Finding> {
    (facts.issuer != Some(authority.issuer)).then(|| {
        let (old, new) = (&facts.leaf.authority_key_id, &authority.key_id);
        (
            IssueReason::AuthorityRetiring,
            format!("the CA {old} that signed it is retiring, and {new} signs now"),
        )
    })
}

/// True if and only if the certificate really was signed by a CA, and that one is retiring.
fn is_retiring(authority: &AuthorityFacts, facts: &ContentFacts) -> bool {
    facts.issuer.is_some() && authority.retiring.contains(&facts.leaf.authority_key_id)
}

fn expired(facts: &ContentFacts, now: Timestamp) -> Option<Finding> {
    (now >= facts.leaf.not_after).then(|| {
        (IssueReason::Expired, format!("the certificate expired at {}", facts.leaf.not_after))
    })
}

fn near_expiry(identity: &Identity, facts: &ContentFacts, now: Timestamp) -> Option<Finding> {
    if let Some(finding) = expired(facts, now) {
        return Some(finding);
    }
    let renew_at = schedule::renew_at(identity, &facts.leaf);
    (now >= renew_at).then(|| {
        let end = facts.leaf.not_after;
        (
            IssueReason::NearExpiry,
            format!("the certificate ends at {end}; its renewal was due at {renew_at}"),
        )
    })
}
