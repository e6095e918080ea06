//! The record of what was revoked: who is on it, how it is written down, and in which ConfigMaps.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;

use crate::api::RevocationReason;

/// Which certificate: the CA that signed it, and its serial number. No key id means that it is not
/// known which of the issuing CAs would have signed it: it goes on the CRL of each.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryKey {
    pub key_id: Option<String>,
    /// Lower-case hexadecimal.
    pub serial: String,
}

/// A certificate that is revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: EntryKey,
    /// When it was revoked, in whole seconds.
    pub at: Timestamp,
    pub reason: RevocationReason,
    /// When it ends, or would have at the latest, in whole seconds.
    pub not_after: Timestamp,
}

/// Entries, each once. Whoever was there first stays: its time and reason are what peers saw.
pub type Entries = BTreeMap<EntryKey, Entry>;

/// One of the ConfigMaps that hold the record.
#[derive(Clone, Debug, PartialEq)]
pub struct Shard {
    pub resource_version: String,
    pub entries: Entries,
    /// False where it holds something that is no entry, and so was written by somebody else.
    pub is_sound: bool,
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardWrite {
    pub number: usize,
    /// The version that is replaced; None where there is nothing.
    pub replaces: Option<String>,
    pub entries: Entries,
}

/// A line that is no entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no entry of a revocation record: {0:?}")]
pub struct EntryError(String);

/// Entries of one ConfigMap. A line has at most 130 characters, and the API server takes a
/// megabyte: this leaves room for metadata.
pub const SHARD_CAPACITY: usize = 7_500;

/// The codes of RFC 5280, section 5.3.1.
const REASONS: [(RevocationReason, u8); 7] = [
    (RevocationReason::Unspecified, 0),
    (RevocationReason::KeyCompromise, 1),
    (RevocationReason::CaCompromise, 2),
    (RevocationReason::AffiliationChanged, 3),
    (RevocationReason::Superseded, 4),
    (RevocationReason::CessationOfOperation, 5),
    (RevocationReason::PrivilegeWithdrawn, 9),
];

/// The code of a reason in a CRL (RFC 5280, 5.3.1).
pub fn reason_code(reason: RevocationReason) -> u8 {
    REASONS.iter().find(|(known, _)| *known == reason).map(|(_, code)| *code).unwrap_or_default()
}

impl fmt::Display for Entry {
    /// `<serial> <revoked at> <reason code> <not after> <key id or *>`, times in Unix seconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, not_after) = (self.at.as_second(), self.not_after.as_second());
        let key_id = self.key.key_id.as_deref().unwrap_or("*");
        let code = reason_code(self.reason);
        write!(f, "{} {at} {code} {not_after} {key_id}", self.key.serial)
    }
}

impl FromStr for Entry {
    type Err = EntryError;

    fn from_str(line: &str) -> Result<Self, EntryError> {
        let error = || EntryError(line.chars().take(160).collect());
        let mut words = line.split(' ');
        let mut word = || words.next().ok_or_else(error);
        let (serial, at, code, not_after, key_id) = (word()?, word()?, word()?, word()?, word()?);
        let moment = |text: &str| {
            text.parse().ok().and_then(|s| Timestamp::from_second(s).ok()).ok_or_else(error)
        };
        let code: u8 = code.parse().map_err(|_| error())?;
        let reason = REASONS.iter().find(|(_, known)| *known == code).ok_or_else(error)?.0;
        // A serial number has at most 20 octets (RFC 5280, 4.1.2.2), a key id of ours as many.
        let is_hex = |text: &str| {
            (2..=64).contains(&text.len())
                && text.len().is_multiple_of(2)
                && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        let key_id = (key_id != "*").then(|| key_id.to_owned());
        if words.next().is_some()
            || !is_hex(serial)
            || serial.len() > 40
            || !key_id.as_deref().is_none_or(is_hex)
        {
            return Err(error());
        }
        let key = EntryKey { key_id, serial: serial.to_owned() };
        Ok(Entry { key, at: moment(at)?, reason, not_after: moment(not_after)? })
    }
}

/// What a ConfigMap of the record holds. Lines that are no entries are left out, and said.
pub fn read(text: &str) -> (Entries, bool) {
    let (mut entries, mut is_sound) = (Entries::new(), true);
    for line in text.lines() {
        match line.parse::<Entry>() {
            Ok(entry) => drop(entries.insert(entry.key.clone(), entry)),
            Err(_) => is_sound = false,
        }
    }
    (entries, is_sound)
}

/// Entries as a ConfigMap holds them.
pub fn write(entries: &Entries) -> String {
    let mut text = String::with_capacity(entries.len() * 110);
    for entry in entries.values() {
        use fmt::Write;
        let _ = writeln!(text, "{entry}");
    }
    text
}

/// What to write so that every entry stands in the record and nothing else does. `over` tells which
/// entries need not stand there any more: they leave with a write that is made anyway, or
/// (`tidy`) with one of their own.
pub fn plan(
    shards: &BTreeMap<usize, Shard>,
    wanted: &Entries,
    over: impl Fn(&Entry) -> bool,
    tidy: bool,
) -> Vec<ShardWrite> {
    let held: BTreeSet<&EntryKey> =
        shards.values().flat_map(|shard| shard.entries.keys()).collect();
    let mut missing = wanted.values().filter(|e| !held.contains(&e.key) && !over(e)).peekable();
    let mut writes = Vec::new();
    let mut number = 0;
    while number <= shards.keys().next_back().copied().unwrap_or_default()
        || missing.peek().is_some()
    {
        let shard = shards.get(&number);
        let mut entries = shard.map(|shard| shard.entries.clone()).unwrap_or_default();
        let before = entries.len();
        let has_room = before < SHARD_CAPACITY;
        let is_damaged = shard.is_some_and(|shard| !shard.is_sound);
        if is_damaged || tidy || (has_room && missing.peek().is_some()) {
            entries.retain(|_, entry| !over(entry));
            let left = entries.len();
            while entries.len() < SHARD_CAPACITY {
                let Some(entry) = missing.next() else { break };
                entries.insert(entry.key.clone(), entry.clone());
            }
            if is_damaged || entries.len() != left || left != before {
                let replaces = shard.map(|shard| shard.resource_version.clone());
                writes.push(ShardWrite { number, replaces, entries });
            }
        }
        number += 1;
    }
    writes
}
