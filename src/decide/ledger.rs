//! What was issued to an identity and has not ended: the ledger, which is nowhere written down for
//! its own sake.
//!
//! The serial number of an identity's nth certificate follows from its UID and n. Its status says
//! how many there were, and lists those that live; the status is written after the Secret, so one
//! more may be out, and its serial number is known too. Whatever write a crash comes between, and
//! whatever is deleted by hand meanwhile, no serial number is lost. design/20261124-ledger.md has
//! the argument, the alternatives, and what they cost.

use jiff::{SignedDuration, Timestamp};

use super::observed::{Content, SecretState};
use super::schedule::saturating_add;
use crate::api::names::TAKEN_OUT_ANNOTATION;
use crate::api::{AgentIdentityStatus, CertificateStatus, FormerCertificate};
use crate::x509::{Leaf, Serial};

/// What an identity's status says of its certificates.
#[derive(Clone, Copy, Debug)]
pub struct Ledger<'a> {
    uid: &'a str,
    /// How many certificates are on record.
    pub revision: u64,
    certificate: Option<&'a CertificateStatus>,
    former: &'a [FormerCertificate],
    is_revoked: bool,
    /// False where nobody has written a status yet, or somebody took it away.
    is_begun: bool,
}

/// A certificate that lives, or may live.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Issued {
    /// Lower-case hexadecimal.
    pub serial: String,
    /// The key id of the CA that signed it; None where that is not known.
    pub key_id: Option<String>,
    /// When it ends at the latest.
    pub not_after: Timestamp,
}

/// How many former certificates a status lists one by one. Whoever asks for more in the life of one
/// does it by hand; the oldest are then put together, or a status would outgrow the API server.
const LISTED: usize = 48;

/// How far the number of a certificate is sought where the status is lost: eleven years of a new one
/// every hour and a half. It takes some ten milliseconds.
const SOUGHT: u64 = 1 << 16;

impl<'a> Ledger<'a> {
    /// The ledger of the identity with this UID.
    pub fn of(uid: &'a str, status: Option<&'a AgentIdentityStatus>) -> Self {
        let certificate = status.and_then(|status| status.certificate.as_ref());
        let revision = status.and_then(|status| status.revision);
        Ledger {
            uid,
            revision: revision.unwrap_or_default(),
            certificate,
            former: status.map(|status| status.former.as_slice()).unwrap_or_default(),
            is_revoked: status.is_some_and(|status| status.revoked.is_some()),
            is_begun: revision.is_some(),
        }
    }

    /// The serial number of the next certificate.
    pub fn next(&self) -> Serial {
        Serial::derived(self.uid, self.revision.saturating_add(1))
    }

    /// Which of the identity's certificates has this serial number; None for one that is not
    /// among those that are alive by the status, and not the next.
    pub fn revision_of(&self, serial: &str) -> Option<u64> {
        if let Some(current) = self.certificate.filter(|current| current.serial_number == serial) {
            return Some(current.revision);
        }
        let is_former = |former: &&FormerCertificate| former.serial_number == serial;
        if let Some(former) = self.former.iter().find(is_former) {
            return Some(former.revision);
        }
        let farthest = match self.is_begun {
            true => self.revision.saturating_add(1),
            false => SOUGHT,
        };
        (self.revision + 1..=farthest)
            .find(|revision| Serial::derived(self.uid, *revision).to_string() == serial)
    }

    /// True if and only if the Secret holds a certificate that the status does not count yet.
    pub fn is_behind(&self, leaf: &Leaf) -> bool {
        self.revision_of(&leaf.serial).is_some_and(|revision| revision > self.revision)
    }

    /// Every certificate that lives at `now`, or may: `longest` is the longest life that one can
    /// have been given.
    pub fn alive(
        &self,
        secret: &SecretState,
        longest: SignedDuration,
        now: Timestamp,
    ) -> Vec<Issued> {
        let mut alive = Vec::new();
        for former in self.former {
            for revision in former.revisions() {
                // The listed one may be of before serial numbers were derived.
                let serial = match revision == former.revision {
                    true => former.serial_number.clone(),
                    false => Serial::derived(self.uid, revision).to_string(),
                };
                let key_id = Some(former.authority_key_id.clone());
                alive.push(Issued { serial, key_id, not_after: former.not_after.0 });
            }
        }
        alive.extend(self.certificate.map(|current| Issued {
            serial: current.serial_number.clone(),
            key_id: Some(current.authority_key_id.clone()),
            not_after: current.not_after.0,
        }));
        let next = self.next().to_string();
        let held = leaf_of(secret);
        if let Some(leaf) = held.filter(|leaf| leaf.serial == next) {
            let key_id = Some(leaf.authority_key_id.clone());
            alive.push(Issued { serial: next, key_id, not_after: leaf.not_after });
        } else if !self.is_settled(secret) {
            let not_after = saturating_add(now, longest);
            alive.push(Issued { serial: next, key_id: None, not_after });
        }
        alive.retain(|issued| issued.not_after > now);
        alive
    }

    /// True if and only if the status says that the identity is revoked. It counts everything then;
    /// nothing is signed before it says otherwise.
    pub fn is_closed(&self) -> bool {
        self.is_revoked
    }

    /// True if and only if the next certificate cannot have been written: the status says that the
    /// identity is revoked, or the Secret holds the certificate of the status, or did until it was
    /// emptied, and every certificate takes the place of another.
    fn is_settled(&self, secret: &SecretState) -> bool {
        self.is_closed() || self.is_in(secret)
    }

    fn is_in(&self, secret: &SecretState) -> bool {
        let SecretState::Ours(ours) = secret else { return false };
        let serial = match &ours.content {
            Content::Read(facts) => Some(&facts.leaf.serial),
            Content::Emptied => ours.meta.annotations.get(TAKEN_OUT_ANNOTATION),
            Content::Unreadable(_) => None,
        };
        self.certificate.is_some_and(|current| serial == Some(&current.serial_number))
    }

    /// The former certificates once `current` is the one in use: what was in use joins them, and
    /// what has ended leaves. The same ones where nothing took the place of anything.
    pub fn followed(&self, current: Option<&str>, now: Timestamp) -> Vec<FormerCertificate> {
        let replaced =
            self.certificate.filter(|before| Some(before.serial_number.as_str()) != current);
        let came_back = |former: &FormerCertificate| Some(former.serial_number.as_str()) == current;
        if replaced.is_none() && !self.former.iter().any(came_back) {
            // Time alone is no reason to write a status.
            return self.former.to_vec();
        }
        let mut former = self.former.to_vec();
        former.extend(replaced.map(|before| FormerCertificate {
            serial_number: before.serial_number.clone(),
            not_after: before.not_after.clone(),
            authority_key_id: before.authority_key_id.clone(),
            revision: before.revision,
            reason: before.reason.clone(),
            count: None,
        }));
        former.retain(|former| former.not_after.0 > now && !came_back(former));
        former.sort_by_key(|former| former.revision);
        former.dedup_by(|later, earlier| later.serial_number == earlier.serial_number);
        put_together(self.uid, former)
    }
}

impl FormerCertificate {
    /// The certificates that this stands for.
    fn revisions(&self) -> impl Iterator<Item = u64> {
        let count = self.count.unwrap_or(1).max(1);
        self.revision.saturating_sub(count - 1)..=self.revision
    }
}

/// Puts the oldest together until few enough are listed: those of one CA, one after the other, are
/// as good as one that ends when the last of them does. Serial numbers that another program chose
/// follow from nothing, and stay.
fn put_together(uid: &str, mut former: Vec<FormerCertificate>) -> Vec<FormerCertificate> {
    let is_derived = |former: &FormerCertificate| {
        former.serial_number == Serial::derived(uid, former.revision).to_string()
    };
    while former.len() > LISTED {
        let joins = |pair: &[FormerCertificate]| {
            is_derived(&pair[0])
                && pair[0].authority_key_id == pair[1].authority_key_id
                && pair[1].revisions().next() == Some(pair[0].revision + 1)
        };
        let Some(at) = former.windows(2).position(joins) else { break };
        let older = former.remove(at);
        let newer = &mut former[at];
        newer.count = Some(older.count.unwrap_or(1) + newer.count.unwrap_or(1));
        newer.not_after = newer.not_after.clone().max(older.not_after);
        newer.reason = None;
    }
    former
}

/// The certificate in a Secret of ours.
pub fn leaf_of(secret: &SecretState) -> Option<&Leaf> {
    match secret {
        SecretState::Ours(ours) => match &ours.content {
            Content::Read(facts) => Some(&facts.leaf),
            Content::Unreadable(_) | Content::Emptied => None,
        },
        SecretState::Absent | SecretState::Foreign(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::observed::{Meta, OurSecret};
    use serde_json::json;

    #[test]
    fn a_secret_that_was_emptied_tells_whether_another_certificate_may_be_out() {
        let now: Timestamp = "2026-11-24T12:00:00Z".parse().unwrap();
        let (one, two) = (Serial::derived("u", 1).to_string(), Serial::derived("u", 2).to_string());
        let status: AgentIdentityStatus = serde_json::from_value(json!({
            "revision": 1,
            "certificate": {
                "serialNumber": one, "revision": 1, "authorityKeyId": "aa", "reason": "FirstIssue",
                "sha256Fingerprint": "00", "spiffeId": "spiffe://a/b", "notBefore": "2026-11-24T11:30:00Z",
                "notAfter": "2026-11-24T12:30:00Z", "renewAt": "2026-11-24T12:10:00Z",
            },
        }))
        .unwrap();
        let emptied = |taken_out: Option<&str>| {
            let annotations = taken_out
                .map(|serial| (TAKEN_OUT_ANNOTATION.to_owned(), serial.to_owned()))
                .into_iter()
                .collect();
            let meta = Meta { annotations, ..Meta::default() };
            let resource_version = "1".to_owned();
            SecretState::Ours(Box::new(OurSecret {
                resource_version,
                meta,
                content: Content::Emptied,
            }))
        };
        let cases = [
            ("the one of the status was taken out", emptied(Some(&one)), vec![&one]),
            ("one that no status counts was", emptied(Some(&two)), vec![&one, &two]),
            ("somebody emptied it by hand", emptied(None), vec![&one, &two]),
            ("it was deleted", SecretState::Absent, vec![&one, &two]),
        ];
        for (what, secret, expected) in cases {
            let alive =
                Ledger::of("u", Some(&status)).alive(&secret, SignedDuration::from_hours(1), now);
            let serials: Vec<&String> = alive.iter().map(|issued| &issued.serial).collect();
            assert_eq!(serials, expected, "{what}");
        }
    }
}
