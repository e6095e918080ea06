//! The one place that asks what time it is.

use jiff::{Timestamp, Unit};

/// Now, to the second: that is as fine as certificates speak.
#[expect(clippy::disallowed_methods, reason = "this is the agent's one place that asks")]
pub fn now() -> Timestamp {
    let now = Timestamp::now();
    now.round(Unit::Second).unwrap_or(now)
}
