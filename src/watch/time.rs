//! What time it is, by this machine's clock and by the API server's.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use crate::decide::clock::{Disagreement, compare};

/// An answer that took longer than this says nothing about now: the process may have been held.
const STALE: Duration = Duration::from_secs(5);
/// When nobody had an answer for longer than this, kubelets may have had none either: what was
/// published before has perhaps not come into volumes. A change of leader takes half of it.
const SILENCE: SignedDuration = SignedDuration::from_secs(30);

/// This machine's clock, held against what the API server says in each answer about the Lease.
///
/// Between two answers the monotonic clock goes on, which no correction of the time of day touches:
/// so a jump is seen at the next question, not at the next answer.
pub struct Timekeeper {
    clock: fn() -> Timestamp,
    bound: SignedDuration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What the API server said, and when that was heard.
    heard: Option<(Timestamp, Instant)>,
    disagreement: Option<Disagreement>,
    contact_since: Option<Timestamp>,
}

impl Timekeeper {
    /// A clock of this machine, and by how much it may differ from the API server's.
    pub fn new(clock: fn() -> Timestamp, bound: SignedDuration) -> Self {
        Timekeeper { clock, bound, state: Mutex::default() }
    }

    /// Takes in the time that an answer carries to a request that was sent then.
    pub fn hear(&self, said: Timestamp, sent: Instant) {
        if sent.elapsed() > STALE {
            return;
        }
        let own = (self.clock)();
        let mut state = self.lock();
        let silent = state.heard.and_then(|(_, at)| SignedDuration::try_from(at.elapsed()).ok());
        if silent.is_some_and(|silent| silent > SILENCE) {
            state.contact_since = Some(said);
        }
        state.heard = Some((said, Instant::now()));
        state.disagreement = compare(own, said, self.bound, state.disagreement);
    }

    /// Now. As long as this machine's clock differs from the API server's beyond the bound it is
    /// the API server's: a decision is never made by a clock that jumped.
    pub fn now(&self) -> Timestamp {
        let own = (self.clock)();
        match self.expected() {
            Some(server) if compare(own, server, self.bound, None).is_some() => server,
            _ => own,
        }
    }

    /// That the two differ, as the last answer showed.
    pub fn disagreement(&self) -> Option<Disagreement> {
        self.lock().disagreement
    }

    /// Takes in when whoever led before last had an answer, as this replica begins to lead. (The
    /// two clocks may differ by what is allowed, which is about as much as a silence.)
    pub fn succeed(&self, last: Timestamp) {
        let now = self.now();
        if now.duration_since(last) > SILENCE {
            self.lock().contact_since = Some(now);
        }
    }

    /// Since when the API server has answered without a pause; None where no pause is known of.
    pub fn contact_since(&self) -> Option<Timestamp> {
        self.lock().contact_since
    }

    /// By how much this machine's clock is ahead of the API server's, give or take a second; None
    /// before the first answer.
    pub fn skew(&self) -> Option<SignedDuration> {
        let own = (self.clock)();
        self.expected().map(|server| own.duration_since(server))
    }

    /// The API server's time now.
    fn expected(&self) -> Option<Timestamp> {
        let (said, at) = self.lock().heard?;
        let passed = SignedDuration::try_from(at.elapsed()).ok()?;
        said.checked_add(passed).ok()
    }

    /// A state is whole between calls, whoever panicked.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicI64, Ordering};

    /// The clock of the one test that moves it.
    static CLOCK: AtomicI64 = AtomicI64::new(0);

    fn clock() -> Timestamp {
        Timestamp::from_second(CLOCK.load(Ordering::SeqCst)).unwrap()
    }

    #[test]
    fn a_silence_is_known_of_from_the_lease_of_whoever_led_before() {
        let at = |seconds: i64| Timestamp::from_second(1_900_000_000 + seconds).unwrap();
        let time = Timekeeper::new(
            || Timestamp::from_second(1_900_000_000).unwrap(),
            SignedDuration::from_secs(60),
        );
        time.hear(at(0), Instant::now());
        for (last, is_known) in [(-15, false), (3600, false), (-31, true)] {
            time.succeed(at(last));
            assert_eq!(time.contact_since().is_some(), is_known, "{last}");
        }
    }

    #[test]
    fn a_clock_that_jumps_is_not_followed_and_told_of_with_the_next_answer() {
        const START: i64 = 1_800_000_000;
        let at = |seconds: i64| Timestamp::from_second(START + seconds).unwrap();
        let set = |seconds: i64| CLOCK.store(START + seconds, Ordering::SeqCst);
        let time = Timekeeper::new(clock, SignedDuration::from_secs(60));
        set(30);
        assert_eq!((time.now(), time.skew()), (at(30), None), "nobody has said anything else");
        time.hear(at(0), Instant::now());
        assert_eq!((time.now(), time.disagreement()), (at(30), None), "within the bound");
        for jump in [-3600, 86_400] {
            set(jump);
            let now = time.now().duration_since(at(0)).as_secs();
            assert!((0..30).contains(&now), "by the API server's: {now}");
            assert_eq!(time.disagreement(), None, "no answer has shown it yet");
            time.hear(at(0), Instant::now());
            assert_eq!(time.disagreement().map(|found| found.skew().as_secs()), Some(jump));
            set(1);
            time.hear(at(0), Instant::now());
            assert_eq!((time.now(), time.disagreement()), (at(1), None), "it was set right");
        }
    }
}
