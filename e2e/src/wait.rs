//! Waiting for what a test expects, and watching that nothing else happens.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use jiff::Timestamp;

/// `seconds(5)` reads better in a test than `Duration::from_secs(5)`.
pub const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Waits until `condition` gives `Ok`. Its `Err` says what it saw instead; the last one is in the
/// panic's message when `limit` has passed.
pub async fn wait_for<T, E: Debug>(
    what: &str,
    limit: Duration,
    mut condition: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let began = Instant::now();
    let mut pause = Duration::from_millis(5);
    loop {
        let seen = match tokio::time::timeout(limit.max(seconds(1)), condition()).await {
            Ok(Ok(value)) => return value,
            Ok(Err(seen)) => format!("{seen:#?}"),
            Err(_) => "no answer".to_owned(),
        };
        assert!(
            began.elapsed() < limit,
            "waited {limit:?} in vain: {what}\nlast seen: {}",
            seen.replace("\\n", "\n"),
        );
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// Waits until `look` finds nothing any more.
pub async fn gone<T: Debug>(what: &str, limit: Duration, mut look: impl AsyncFnMut() -> Option<T>) {
    wait_for(&format!("{what} is gone"), limit, async || match look().await {
        None => Ok(()),
        Some(found) => Err(Box::new(found)),
    })
    .await;
}

/// Waits until the clock has gone on by a whole second since `then`: the API server tells age by
/// whole seconds.
pub async fn another_second(then: Timestamp) {
    wait_for("another second", seconds(3), async || {
        let passed = now().as_second() - then.as_second();
        if passed > 1 { Ok(()) } else { Err(passed) }
    })
    .await;
}

/// The time. A test may ask; the operator's stages take it as an argument.
#[expect(clippy::disallowed_methods)]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// Panics as soon as `condition` gives an `Err` within `span`: for what must *not* happen.
pub async fn holds_for<E: Debug>(
    what: &str,
    span: Duration,
    mut condition: impl AsyncFnMut() -> Result<(), E>,
) {
    let began = Instant::now();
    while began.elapsed() < span {
        if let Err(seen) = condition().await {
            panic!(
                "did not hold for {span:?} (only {:?}): {what}\nseen: {seen:#?}",
                began.elapsed()
            );
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
