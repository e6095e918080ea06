//! Which CAs a trust domain has, which are to be made, and whether they can sign.
//!
//! A slot that was once recorded in the status is never silently replaced: peers hold its
//! certificate, and another one under the same name would be a break of trust that nobody asked
//! for. Slots that exist and are not recorded yet are what a crash left between two writes; they
//! are taken up.

use jiff::Timestamp;

use crate::api::conditions::Reason;
use crate::api::{SlotKind, SlotPhase, SlotStatus};
use crate::identity::{Domain, Lifetime};
use crate::x509::Ca;

/// A CA Secret of this trust domain, as it was found.
#[derive(Clone, Debug, PartialEq)]
pub struct SlotSecret {
    pub name: String,
    pub kind: SlotKind,
    /// What stands in it, or why that is not a CA with its key.
    pub content: Result<Ca, String>,
    /// SHA-256 keyed identity of the CA whose signature it carries; its own for a root.
    pub signed_by: Option<String>,
}

/// What to do about a trust domain's CAs.
#[derive(Clone, Debug, PartialEq)]
pub struct SlotPlan {
    /// The next CA to make, if any. Only one at a time: an issuing CA needs its root.
    pub create: Option<SlotOrder>,
    /// The CAs to record.
    pub slots: Vec<SlotStatus>,
    /// The two that sign, or why none does.
    pub chain: Result<ChainNames, Blocked>,
}

/// A CA to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct SlotOrder {
    pub kind: SlotKind,
    /// The Secret's name.
    pub name: String,
    pub life: Lifetime,
    /// The root that is to sign it; None for a root.
    pub parent: Option<String>,
}

/// The Secrets of the CAs that sign.
#[derive(Clone, Debug, PartialEq)]
pub struct ChainNames {
    pub root: String,
    pub issuing: String,
    /// The earlier end of the two.
    pub not_after: Timestamp,
}

/// Why no CA signs.
#[derive(Clone, Debug, PartialEq)]
pub struct Blocked {
    pub reason: Reason,
    pub message: String,
}

/// What to do about a trust domain's CAs now.
pub fn decide(
    domain: &Domain,
    found: &[SlotSecret],
    recorded: &[SlotStatus],
    now: Timestamp,
) -> SlotPlan {
    let mut plan = SlotPlan {
        create: None,
        slots: recorded.to_vec(),
        chain: Err(Blocked {
            reason: Reason::Preparing,
            message: "the CA is being made".to_owned(),
        }),
    };
    let root = match slot(domain, SlotKind::Root, found, recorded) {
        Slot::Good(root, ca) => (root, ca),
        Slot::None => {
            plan.create = Some(SlotOrder::root(domain));
            return plan;
        }
        Slot::Bad(blocked) => {
            plan.chain = Err(blocked);
            return plan;
        }
    };
    let issuing = match slot(domain, SlotKind::Issuing, found, recorded) {
        Slot::Good(issuing, ca) => (issuing, ca),
        Slot::None => {
            plan.create = Some(SlotOrder::issuing(domain, &root.0.name));
            plan.slots = vec![status(root.0, root.1, SlotPhase::Prepared, recorded, now)];
            return plan;
        }
        Slot::Bad(blocked) => {
            plan.chain = Err(blocked);
            return plan;
        }
    };
    if issuing.0.signed_by.as_ref() != Some(&root.1.key_id) {
        plan.chain = Err(invalid(issuing.0, "it was not signed by the root CA"));
        return plan;
    }
    plan.slots = [root, issuing]
        .into_iter()
        .map(|(secret, ca)| status(secret, ca, SlotPhase::Active, recorded, now))
        .collect();
    let not_after = root.1.not_after.min(issuing.1.not_after);
    plan.chain = if not_after <= now {
        Err(Blocked {
            reason: Reason::CaExpired,
            message: format!(
                "the CA expired at {not_after}: nothing is signed; delete the TrustDomain and create it again to start with a new CA, which every peer must come to trust"
            ),
        })
    } else {
        Ok(ChainNames { root: root.0.name.clone(), issuing: issuing.0.name.clone(), not_after })
    };
    plan
}

impl SlotOrder {
    fn root(domain: &Domain) -> Self {
        SlotOrder {
            kind: SlotKind::Root,
            name: format!("countersign-ca-{}-root-1", domain.name),
            life: domain.ca.root_life,
            parent: None,
        }
    }

    fn issuing(domain: &Domain, root: &str) -> Self {
        SlotOrder {
            kind: SlotKind::Issuing,
            name: format!("countersign-ca-{}-issuing-1", domain.name),
            life: domain.ca.issuing_life,
            parent: Some(root.to_owned()),
        }
    }
}

enum Slot<'a> {
    None,
    Good(&'a SlotSecret, &'a Ca),
    Bad(Blocked),
}

fn slot<'a>(
    domain: &Domain,
    kind: SlotKind,
    found: &'a [SlotSecret],
    recorded: &[SlotStatus],
) -> Slot<'a> {
    let record = recorded.iter().find(|slot| slot.kind == kind);
    let secret = match record {
        Some(record) => match found.iter().find(|secret| secret.name == record.name) {
            Some(secret) => secret,
            None => {
                return Slot::Bad(Blocked {
                    reason: Reason::CaSecretMissing,
                    message: format!(
                        "the CA Secret {} is gone and nothing can be signed: restore it from a backup; or delete TrustDomain {} and create it again to start with a new CA, which every peer must come to trust",
                        record.name, domain.name
                    ),
                });
            }
        },
        // The name sorts by number, so that the first is the one made first.
        None => match found.iter().filter(|s| s.kind == kind).min_by_key(|s| s.name.as_str()) {
            Some(secret) => secret,
            None => return Slot::None,
        },
    };
    match &secret.content {
        Err(why) => Slot::Bad(invalid(secret, why)),
        Ok(ca) => match record.filter(|record| record.key_id != ca.key_id) {
            Some(record) => Slot::Bad(invalid(
                secret,
                &format!("its key is {}, and {} was published", ca.key_id, record.key_id),
            )),
            None => Slot::Good(secret, ca),
        },
    }
}

fn invalid(secret: &SlotSecret, why: &str) -> Blocked {
    Blocked {
        reason: Reason::CaSecretInvalid,
        message: format!(
            "the CA Secret {} does not hold what was put into it ({why}) and nothing is signed: delete it and restore it from a backup",
            secret.name
        ),
    }
}

fn status(
    secret: &SlotSecret,
    ca: &Ca,
    phase: SlotPhase,
    recorded: &[SlotStatus],
    now: Timestamp,
) -> SlotStatus {
    let since = recorded
        .iter()
        .find(|slot| slot.name == secret.name && slot.phase == phase)
        .map(|slot| slot.since.clone());
    SlotStatus {
        name: secret.name.clone(),
        kind: secret.kind,
        phase,
        key_id: ca.key_id.clone(),
        not_after: ca.not_after.into(),
        since: since.unwrap_or_else(|| super::schedule::whole_seconds(now).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::TrustDomain;
    use crate::x509::Sha256;
    use jiff::SignedDuration;
    use serde_json::json;

    fn now() -> Timestamp {
        "2026-11-24T12:00:00Z".parse().unwrap()
    }

    fn domain() -> Domain {
        let resource: TrustDomain = serde_json::from_value(json!({
            "metadata": {"name": "prod", "uid": "t", "creationTimestamp": "2026-11-24T09:00:00Z"},
            "spec": {"domain": "prod.example.com", "authority": {"selfSigned": {}}},
        }))
        .unwrap();
        Domain::parse(&resource).unwrap()
    }

    fn secret(kind: SlotKind, key_id: &str, signed_by: &str) -> SlotSecret {
        let name = match kind {
            SlotKind::Root => "countersign-ca-prod-root-1",
            SlotKind::Issuing => "countersign-ca-prod-issuing-1",
        };
        let ca = Ca {
            subject: String::new(),
            fingerprint: Sha256::of(key_id.as_bytes()),
            not_before: now(),
            not_after: now() + SignedDuration::from_hours(10),
            key_id: key_id.to_owned(),
            public_key: Sha256::of(key_id.as_bytes()),
        };
        let signed_by = Some(signed_by.to_owned());
        SlotSecret { name: name.to_owned(), kind, content: Ok(ca), signed_by }
    }

    fn root() -> SlotSecret {
        secret(SlotKind::Root, "r", "r")
    }

    fn issuing() -> SlotSecret {
        secret(SlotKind::Issuing, "i", "r")
    }

    fn recorded() -> Vec<SlotStatus> {
        decide(&domain(), &[root(), issuing()], &[], now()).slots
    }

    fn reason(plan: &SlotPlan) -> Reason {
        plan.chain.as_ref().unwrap_err().reason
    }

    #[test]
    fn a_new_trust_domain_gets_a_root_and_then_an_issuing_ca_under_it() {
        let first = decide(&domain(), &[], &[], now()).create.unwrap();
        assert_eq!((first.kind, first.parent), (SlotKind::Root, None));
        let second = decide(&domain(), &[root()], &[], now()).create.unwrap();
        assert_eq!(second.kind, SlotKind::Issuing);
        assert_eq!(second.parent.as_deref(), Some("countersign-ca-prod-root-1"));
        let done = decide(&domain(), &[root(), issuing()], &[], now());
        assert_eq!(done.create, None);
        assert_eq!(done.chain.unwrap().not_after, now() + SignedDuration::from_hours(10));
        assert!(done.slots.iter().all(|slot| slot.phase == SlotPhase::Active));
    }

    #[test]
    fn a_ca_that_was_recorded_is_never_silently_replaced() {
        let other = || secret(SlotKind::Issuing, "other", "r");
        let unreadable = SlotSecret { content: Err("truncated".to_owned()), ..issuing() };
        let stranger = SlotSecret { signed_by: None, ..issuing() };
        for (sentence, found, expected) in [
            ("both gone", vec![], Reason::CaSecretMissing),
            ("the root gone", vec![issuing()], Reason::CaSecretMissing),
            ("the issuing CA gone", vec![root()], Reason::CaSecretMissing),
            ("another key in its place", vec![root(), other()], Reason::CaSecretInvalid),
            ("truncated", vec![root(), unreadable], Reason::CaSecretInvalid),
            ("signed by a stranger", vec![root(), stranger], Reason::CaSecretInvalid),
        ] {
            let plan = decide(&domain(), &found, &recorded(), now());
            assert_eq!(plan.create, None, "{sentence}");
            assert_eq!(reason(&plan), expected, "{sentence}");
            assert_eq!(plan.slots, recorded(), "{sentence}: the record stays");
        }
    }

    #[test]
    fn an_expired_ca_signs_nothing() {
        let later = now() + SignedDuration::from_hours(10);
        let plan = decide(&domain(), &[root(), issuing()], &recorded(), later);
        assert_eq!(reason(&plan), Reason::CaExpired);
    }

    #[test]
    fn a_record_keeps_its_time() {
        let later = now() + SignedDuration::from_hours(1);
        assert_eq!(decide(&domain(), &[root(), issuing()], &recorded(), later).slots, recorded());
    }
}
