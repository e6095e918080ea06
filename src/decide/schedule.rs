//! When to renew, when to try again. Every moment is a whole second, as a status keeps it:
//! a finer one would be lost on the way through the API server, and a renewal queued early.

use jiff::{SignedDuration, Timestamp};

use crate::identity::Identity;
use crate::x509::{Leaf, Sha256};

/// How far in the past a leaf's life begins, so that peers whose clocks are behind accept it.
///
/// Kubernetes asks nodes to keep time, not how well: a minute off is seen, two are not. It must
/// stay under the five minutes that a Pod Certificate's notBefore may differ from the API
/// server's clock.
pub const BACKDATE: SignedDuration = SignedDuration::from_secs(2 * 60);

/// How far the life of a leaf may be from what was asked where another program signs it: that
/// begins a life when its own clock and settings say (Vault's `not_before_duration` is 30 s by default). It
/// ends when it was asked to.
pub const ELSEWHERE_LEEWAY: SignedDuration = SignedDuration::from_secs(5 * 60);

/// The part of the time until renewal by which renewals are spread, so that ten thousand
/// identities made in one minute are not renewed in one: a tenth.
const JITTER_PARTS: i64 = 10;

/// The first pause after a failure. Most failures pass within it: a conflict, a leader that changed.
const FIRST_RETRY: SignedDuration = SignedDuration::from_secs(1);
/// The longest pause after failures, while the certificate has much life left.
const LONGEST_RETRY: SignedDuration = SignedDuration::from_secs(5 * 60);

/// The life that a leaf was issued with: from when it was signed to its end.
pub fn issued_life(leaf: &Leaf) -> SignedDuration {
    leaf.not_after.duration_since(leaf.not_before) - BACKDATE
}

/// When the certificate in this Secret is to be renewed: `renewBefore` ahead of its end (a third
/// of the life that was really issued where none is given, or where the life came out shorter),
/// and up to a tenth of the time until then earlier, by a hash of who and which certificate.
pub fn renew_at(identity: &Identity, leaf: &Leaf) -> Timestamp {
    let life = issued_life(leaf);
    let third = SignedDuration::from_secs(life.as_secs() / 3);
    let before = identity
        .renew_before
        .map(|before| before.as_duration())
        .filter(|before| *before < life)
        .unwrap_or(third);
    let wait = (life - before).as_secs().max(0);
    let jitter = (wait / JITTER_PARTS)
        .checked_mul(i64::from(hash(&identity.uid, &leaf.serial)))
        .unwrap_or_default()
        >> 16;
    saturating_sub(leaf.not_after, before + SignedDuration::from_secs(jitter))
}

/// How long to wait after this many failures in a row: seconds at first, doubling, and never
/// longer than a tenth of the life that the certificate has left.
pub fn retry_after(failures: u32, life_left: Option<SignedDuration>) -> SignedDuration {
    let doubled = FIRST_RETRY.as_secs() << failures.saturating_sub(1).min(16);
    let pause = SignedDuration::from_secs(doubled).min(LONGEST_RETRY);
    match life_left {
        Some(left) if left > SignedDuration::ZERO => {
            pause.min(SignedDuration::from_secs(left.as_secs() / 10)).max(FIRST_RETRY)
        }
        _ => pause,
    }
}

/// The moment without its fraction of a second.
pub fn whole_seconds(moment: Timestamp) -> Timestamp {
    Timestamp::from_second(moment.as_second()).unwrap_or(moment)
}

/// `moment - duration`, stopping at the start of time.
pub fn saturating_sub(moment: Timestamp, duration: SignedDuration) -> Timestamp {
    moment.saturating_sub(duration).unwrap_or(Timestamp::MIN)
}

/// `moment + duration`, stopping at the end of time.
pub fn saturating_add(moment: Timestamp, duration: SignedDuration) -> Timestamp {
    moment.saturating_add(duration).unwrap_or(Timestamp::MAX)
}

/// Sixteen bits that are the same for the same object and certificate, after a restart too.
fn hash(uid: &str, serial: &str) -> u16 {
    let digest = Sha256::of(format!("{uid}/{serial}").as_bytes()).to_string();
    u16::from_str_radix(&digest[..4], 16).unwrap_or_default()
}
