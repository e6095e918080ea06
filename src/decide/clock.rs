//! Whether this machine's clock can be believed.
//!
//! A certificate is a statement about time. A clock that jumped would sign what is not valid yet or
//! has long ended, replace what is good, and end CAs that others need. So it is held against the
//! API server's; where the two differ by more than networks and whole seconds explain, nobody can
//! tell which is right, and nothing is signed until they agree.

use jiff::{SignedDuration, Timestamp};

use crate::api::conditions::Reason;
use crate::decide::schedule::whole_seconds;
use crate::decide::slots::Blocked;

/// Two clocks that differ, as they stood when it was noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disagreement {
    pub own: Timestamp,
    pub server: Timestamp,
}

impl Disagreement {
    /// By how much this machine's clock is ahead of the API server's; negative where it is behind.
    pub fn skew(&self) -> SignedDuration {
        self.own.duration_since(self.server)
    }

    /// Why nothing is signed, for a TrustDomain.
    pub fn blocked(&self) -> Blocked {
        let skew = self.skew();
        let side = if skew.is_negative() { "behind" } else { "ahead of" };
        let message = format!(
            "the clock of the operator's machine is {} {side} the API server's (noticed when the one said {} and the other {}), and nothing is signed and no CA changed until they agree: see to the time service (NTP) of the two machines",
            words(skew.abs()),
            whole_seconds(self.own),
            whole_seconds(self.server)
        );
        Blocked { reason: Reason::ClockDisagrees, message }
    }
}

/// Holds the two clocks against each other. One that still disagrees by about as much as before is
/// the same disagreement, so that nothing is told twice.
pub fn compare(
    own: Timestamp,
    server: Timestamp,
    bound: SignedDuration,
    before: Option<Disagreement>,
) -> Option<Disagreement> {
    let found = Disagreement { own, server };
    if found.skew().abs() <= bound {
        return None;
    }
    before.filter(|before| (before.skew() - found.skew()).abs() <= bound).or(Some(found))
}

/// To the nearest minute: an answer's time is cut to whole seconds, and came a moment ago.
fn words(skew: SignedDuration) -> String {
    let minutes = (skew.as_secs() + 30) / 60;
    match (minutes / 60, minutes % 60) {
        (0, minutes) => format!("{minutes}m"),
        (hours, minutes) => format!("{hours}h {minutes}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: SignedDuration = SignedDuration::from_secs(60);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap_or_default()
    }

    fn ahead(seconds: i64) -> Disagreement {
        Disagreement { own: at(seconds), server: at(0) }
    }

    #[test]
    fn clocks_disagree_beyond_the_bound_and_that_is_told_once() {
        for (what, own, server, before, expected) in [
            ("the same", 0, 0, None, None),
            ("a minute ahead", 60, 0, None, None),
            ("a minute behind", 0, 60, None, None),
            ("a second more ahead", 61, 0, None, Some(ahead(61))),
            ("a second more behind", -61, 0, None, Some(ahead(-61))),
            ("an hour behind", -3600, 0, None, Some(ahead(-3600))),
            ("a day ahead", 86_400, 0, None, Some(ahead(86_400))),
            ("still a day ahead, later", 86_401, 2, Some(ahead(86_400)), Some(ahead(86_400))),
            ("first a day, then an hour", 3600, 0, Some(ahead(86_400)), Some(ahead(3600))),
            ("set right", 7, 6, Some(ahead(86_400)), None),
        ] {
            assert_eq!(compare(at(own), at(server), BOUND, before), expected, "{what}");
        }
    }

    #[test]
    fn the_message_has_both_times_and_what_to_do() {
        let late =
            Disagreement { server: at(0), own: at(-3600) + SignedDuration::from_millis(600) };
        let Blocked { reason, message } = late.blocked();
        assert_eq!(reason, Reason::ClockDisagrees);
        let times = ["1h 0m behind", "2027-01-15T07:00:00Z", "2027-01-15T08:00:00Z", "NTP"];
        for part in times {
            assert!(message.contains(part), "{part} in {message}");
        }
        assert!(ahead(86_461).blocked().message.contains("24h 1m ahead of"));
    }
}
