//! The one place that asks what time it is.

use jiff::{Timestamp, Unit};

/// Now, to the second: that is as fine as certificates speak.
pub fn now() -> Timestamp {
    let now = Timestamp::now();
    now.round(Unit::Second).unwrap_or(now)
}
