//! The one place that asks what time it is.

use jiff::{Timestamp, Unit};

/// Now, to the second: that is as fine as certificates speak.
pub fn now() -> Timestamp {
    let now = precisely_now();
    now.round(Unit::Second).unwrap_or(now)
}

/// Now, for whoever measures.
#[expect(clippy::disallowed_methods, reason = "this is the agent's one place that asks")]
pub fn precisely_now() -> Timestamp {
    Timestamp::now()
}
