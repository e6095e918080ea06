//! The one place that asks the system what time it is. Everywhere else the time is an argument,
//! so that a decision can be tested at any moment and repeated.

use jiff::Timestamp;

/// Now.
#[allow(clippy::disallowed_methods, reason = "this is the place")]
pub fn now() -> Timestamp {
    Timestamp::now()
}
