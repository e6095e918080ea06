//! Turns at a bounded rate: each key is given a moment, and comes back at it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// Gives out turns, so many a second.
#[derive(Debug)]
pub struct Pace<K> {
    interval: SignedDuration,
    state: Mutex<State<K>>,
}

#[derive(Debug)]
struct State<K> {
    turns: HashMap<K, Timestamp>,
    next: Timestamp,
}

impl<K: Eq + Hash> Pace<K> {
    /// A pace of this many turns a second.
    pub fn per_second(turns: u32) -> Self {
        Pace {
            interval: SignedDuration::from_nanos(1_000_000_000 / i64::from(turns.max(1))),
            state: Mutex::new(State { turns: HashMap::new(), next: Timestamp::MIN }),
        }
    }

    /// None if and only if it is this key's turn now; else how long to wait until it is. Whoever
    /// asks again too early keeps its turn.
    pub fn wait(&self, key: K, now: Timestamp) -> Option<Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = match state.turns.get(&key) {
            Some(turn) => *turn,
            None => state.give_turn(self.interval, now),
        };
        if turn <= now {
            state.turns.remove(&key);
            return None;
        }
        state.turns.insert(key, turn);
        Some(super::until(turn, now))
    }

    /// How long to wait for a turn that whoever asks comes back for without asking again.
    pub fn wait_once(&self, now: Timestamp) -> Duration {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        super::until(state.give_turn(self.interval, now), now)
    }
}

impl<K> State<K> {
    fn give_turn(&mut self, interval: SignedDuration, now: Timestamp) -> Timestamp {
        let turn = self.next.max(now);
        self.next = turn.saturating_add(interval).unwrap_or(Timestamp::MAX);
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_given_at_the_pace_and_kept() {
        let pace = Pace::per_second(10);
        let start: Timestamp = "2026-11-24T10:00:00Z".parse().unwrap();
        let at = |ms| start + SignedDuration::from_millis(ms);
        assert_eq!(pace.wait("a", start), None);
        let wait = pace.wait("b", start).unwrap();
        assert!(wait >= Duration::from_millis(100) && wait < Duration::from_millis(120));
        assert!(pace.wait("c", start).unwrap() >= Duration::from_millis(200));
        assert!(pace.wait("b", at(50)).is_some(), "too early, and its turn is kept");
        assert_eq!(pace.wait("b", at(100)), None);
        assert_eq!(pace.wait("c", at(500)), None);
        assert_eq!(pace.wait("d", at(600)), None, "an idle pace owes nobody a wait");
    }
}
