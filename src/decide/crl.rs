//! When CRLs are signed, and what stands on them.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::record::{Entries, Entry, reason_code};
use super::schedule::{BACKDATE, saturating_add, saturating_sub, whole_seconds};
use crate::api::{SlotKind, SlotStatus};
use crate::identity::Domain;
use crate::x509::Crl;

/// A CRL to be signed (RFC 5280, section 5).
#[derive(Clone, Debug, PartialEq)]
pub struct CrlOrder {
    /// The Secret of the CA that is to sign it.
    pub slot: String,
    /// Its key id.
    pub key_id: String,
    pub number: u64,
    pub this_update: Timestamp,
    pub next_update: Timestamp,
    pub entries: Vec<Entry>,
}

/// All that is known of a trust domain's CRLs at one moment.
#[derive(Clone, Copy, Debug)]
pub struct CrlSituation<'a> {
    pub domain: &'a Domain,
    pub slots: &'a [SlotStatus],
    /// What is recorded.
    pub entries: &'a Entries,
    /// The CRLs that are published and sound, by the key id of their CA.
    pub published: &'a BTreeMap<String, Crl>,
    /// Who signs the CRL of a CA, by its key id, where that is not the operator.
    pub signers: &'a BTreeMap<String, Signer>,
    /// The highest number that is known to have been given.
    pub number: u64,
    pub now: Timestamp,
}

/// Who signs the CRL of a CA whose key the operator does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signer {
    /// Its authority, which is asked for it.
    Authority,
    /// Somebody who is not asked: whoever keeps a root of an enterprise's own.
    Stranger,
}

/// A CRL is good for its period and this, or the longest life of a leaf where that is more: what
/// was alive when the operator died has ended before its last CRL has, so that a peer that fails
/// closed refuses nobody whom it would not have refused anyway.
const LEAST_MARGIN: SignedDuration = SignedDuration::from_hours(24);

/// The CRLs to sign now, or to have signed. Every CA that is trusted has one, empty or not: peers that
/// check a whole chain refuse everybody for want of one. A stranger is not asked for his.
pub fn decide(situation: &CrlSituation<'_>) -> Vec<CrlOrder> {
    let CrlSituation { domain, slots, published, now, .. } = *situation;
    let now = whole_seconds(now);
    let highest = published.values().map(|crl| crl.number).max().unwrap_or_default();
    // Seconds since 1970, so that the number grows even where every trace of the last is lost.
    let clock = u64::try_from(now.as_second()).unwrap_or_default();
    let number = highest.max(situation.number).saturating_add(1).max(clock);
    let period = domain.crl_period.as_duration();
    let margin = domain.rules.maximum_life.as_duration().max(LEAST_MARGIN);
    slots
        .iter()
        .filter(|slot| situation.signers.get(&slot.key_id) != Some(&Signer::Stranger))
        .filter_map(|slot| {
            let found = published.get(&slot.key_id);
            let is_foreign = situation.signers.contains_key(&slot.key_id);
            let entries = entries_of(situation, slot);
            let is_due = found.is_none_or(|found| {
                let is_stale = saturating_add(found.this_update, period + BACKDATE) <= now;
                is_stale || !has(found, &entries, is_foreign)
            });
            if !is_due {
                return None;
            }
            // Peers whose clocks are behind take it; and it never goes back, whatever the clock does.
            let second = SignedDuration::from_secs(1);
            let after = found.map(|found| saturating_add(found.this_update, second));
            let this_update = saturating_sub(now, BACKDATE).max(after.unwrap_or(Timestamp::MIN));
            Some(CrlOrder {
                slot: slot.name.clone(),
                key_id: slot.key_id.clone(),
                number,
                this_update,
                next_update: saturating_add(now.max(this_update), period + margin),
                entries,
            })
        })
        .collect()
}

/// What of the record stands on every CRL that it is to stand on, of those that are published. A
/// certificate whose CA's CRL is a stranger's, or that nobody trusts any more, waits for no CRL.
pub fn published(
    slots: &[SlotStatus],
    recorded: &Entries,
    published: &BTreeMap<String, Crl>,
    signers: &BTreeMap<String, Signer>,
) -> Entries {
    let lists = |slot: &SlotStatus, entry: &Entry| {
        let crl = published.get(&slot.key_id);
        signers.get(&slot.key_id) == Some(&Signer::Stranger)
            || crl.is_some_and(|crl| crl.entries.contains_key(&entry.key.serial))
    };
    let is_on = |entry: &Entry| {
        let mut slots = slots.iter().filter(|slot| is_of(entry, slot, signers));
        slots.all(|slot| lists(slot, entry))
    };
    let on = recorded.iter().filter(|(_, entry)| is_on(entry));
    on.map(|(key, entry)| (key.clone(), entry.clone())).collect()
}

/// True if and only if an entry need not stand on a CRL any more: it has stood on one that was
/// signed after its certificate had ended (RFC 5280, 3.3).
pub fn is_over(domain: &Domain, entry: &Entry, now: Timestamp) -> bool {
    let period = domain.crl_period.as_duration();
    saturating_add(entry.not_after, period + period) <= now
}

/// What stands on a CA's CRL.
fn entries_of(situation: &CrlSituation<'_>, slot: &SlotStatus) -> Vec<Entry> {
    let mut entries: BTreeMap<&str, &Entry> = BTreeMap::new();
    let is_here = |entry: &&Entry| is_of(entry, slot, situation.signers);
    for entry in situation.entries.values().filter(is_here) {
        entries.insert(&entry.key.serial, entry);
    }
    entries.into_values().cloned().collect()
}

/// True if and only if an entry is to stand on the CRL of this CA.
fn is_of(entry: &Entry, slot: &SlotStatus, signers: &BTreeMap<String, Signer>) -> bool {
    match &entry.key.key_id {
        Some(key_id) => *key_id == slot.key_id,
        // A serial number that a certificate of ours may have: a CA that chooses its own never gave it.
        None => slot.kind == SlotKind::Issuing && !signers.contains_key(&slot.key_id),
    }
}

/// True if and only if everything stands on a CRL that is to. What stands there and need not any
/// more stays until the next. Others give reasons of their own.
fn has(crl: &Crl, entries: &[Entry], is_foreign: bool) -> bool {
    entries.iter().all(|entry| {
        crl.entries
            .get(&entry.key.serial)
            .is_some_and(|(_, code)| is_foreign || *code == reason_code(entry.reason))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{RevocationReason, TrustDomain};
    use crate::decide::record::EntryKey;
    use serde_json::json;

    const NOW: &str = "2026-11-24T12:00:00Z";

    fn slots() -> Vec<SlotStatus> {
        let slot = |(kind, number, key_id): (&str, u32, &str)| {
            serde_json::from_value(json!({
                "name": key_id, "number": number, "kind": kind, "phase": "Active", "keyId": key_id,
                "notAfter": "2027-11-24T12:00:00Z", "since": "2026-11-24T09:00:00Z",
            }))
            .unwrap()
        };
        [("Root", 1, "r"), ("Issuing", 1, "i1"), ("Issuing", 2, "i2")].map(slot).into()
    }

    fn crl(key_id: &str, serials: &[&str]) -> (String, Crl) {
        let at: Timestamp = NOW.parse().unwrap();
        let entries = serials.iter().map(|serial| ((*serial).to_owned(), (at, 1))).collect();
        let key_id = key_id.to_owned();
        let next_update = at + SignedDuration::from_hours(25);
        (key_id.clone(), Crl { number: 1, key_id, this_update: at, next_update, entries })
    }

    fn signers(signers: &[(&str, Signer)]) -> BTreeMap<String, Signer> {
        signers.iter().map(|(key_id, signer)| ((*key_id).to_owned(), *signer)).collect()
    }

    #[test]
    fn what_is_revoked_is_published_once_every_crl_that_is_to_have_it_does() {
        let (none, stranger) = (signers(&[]), signers(&[("r", Signer::Stranger)]));
        let authority = signers(&[("i1", Signer::Authority)]);
        for (what, ca, crls, signers, expected) in [
            ("its CA's CRL has it", Some("i1"), &[("i1", &["7"][..])][..], &none, true),
            ("its CA's CRL lacks it", Some("i1"), &[("i1", &["8"])], &none, false),
            ("another CA's CRL has it", Some("i1"), &[("i2", &["7"])], &none, false),
            ("its CA has no CRL", Some("i1"), &[], &none, false),
            ("its root has no CRL", Some("r"), &[], &none, false),
            ("its root's CRL is a stranger's", Some("r"), &[], &stranger, true),
            ("the authority has not signed one", Some("i1"), &[], &authority, false),
            ("the authority's CRL has it", Some("i1"), &[("i1", &["7"])], &authority, true),
            ("nobody trusts its CA any more", Some("x"), &[], &none, true),
            (
                "one of those that may have signed it lacks it",
                None,
                &[("i1", &["7"])],
                &none,
                false,
            ),
            ("each has it", None, &[("i1", &["7"]), ("i2", &["7"])], &none, true),
            ("the other chooses its own numbers", None, &[("i2", &["7"])], &authority, true),
        ] {
            let at: Timestamp = NOW.parse().unwrap();
            let key = EntryKey { key_id: ca.map(str::to_owned), serial: "7".to_owned() };
            let reason = RevocationReason::KeyCompromise;
            let entry = Entry { key: key.clone(), at, reason, not_after: at };
            let recorded = Entries::from([(key, entry)]);
            let crls = crls.iter().map(|(key_id, serials)| crl(key_id, serials)).collect();
            let on = published(&slots(), &recorded, &crls, signers);
            assert_eq!(!on.is_empty(), expected, "{what}");
        }
    }

    #[test]
    fn a_strangers_crl_is_never_ordered() {
        let resource: TrustDomain = serde_json::from_value(json!({
            "metadata": {"name": "prod", "uid": "t", "creationTimestamp": NOW},
            "spec": {"domain": "prod.example.com", "authority": {"selfSigned": {}}},
        }))
        .unwrap();
        let domain = Domain::parse(&resource).unwrap();
        let (none, stranger) = (signers(&[]), signers(&[("r", Signer::Stranger)]));
        let both = [crl("i1", &[]), crl("i2", &[])];
        for (what, found, signers, expected) in [
            ("every CA is ours", &[][..], &none, &["r", "i1", "i2"][..]),
            ("the root is a stranger's", &[], &stranger, &["i1", "i2"]),
            ("the root is a stranger's and nothing is due", &both, &stranger, &[]),
            ("the root's is missing and it is ours", &both, &none, &["r"]),
        ] {
            let orders = decide(&CrlSituation {
                domain: &domain,
                slots: &slots(),
                entries: &Entries::new(),
                published: &found.iter().cloned().collect(),
                signers,
                number: 0,
                now: NOW.parse().unwrap(),
            });
            let ordered: Vec<&str> = orders.iter().map(|order| order.key_id.as_str()).collect();
            assert_eq!(ordered, expected, "{what}");
        }
    }
}
