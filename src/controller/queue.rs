//! Whose turn it is: a queue in which each key stands once, and is never worked on twice at once.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;
use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use kube::runtime::scheduler::{ScheduleRequest, scheduler};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Next;

/// Where keys are put in.
#[derive(Clone, Debug)]
pub struct Queue<K>(UnboundedSender<ScheduleRequest<K>>);

/// Where keys are taken out and worked on.
pub struct Worker<K> {
    queue: Queue<K>,
    requests: UnboundedReceiver<ScheduleRequest<K>>,
}

/// Two ends of a queue.
pub fn queue<K>() -> (Queue<K>, Worker<K>) {
    let (sender, requests) = unbounded();
    let queue = Queue(sender);
    (Queue(queue.0.clone()), Worker { queue, requests })
}

impl<K> Queue<K> {
    /// Has a key worked on as soon as there is room.
    pub fn wake(&self, key: K) {
        self.wake_after(key, Duration::ZERO);
    }

    /// Has a key worked on after a while, or earlier where it was to be.
    pub fn wake_after(&self, key: K, wait: Duration) {
        // Nobody takes out any more: the process is ending.
        let _ = self.0.unbounded_send(ScheduleRequest {
            message: key,
            run_at: Instant::now() + wait.min(LONGEST_WAIT),
        });
    }
}

/// Timers are kept for this long at most; whoever waits longer is looked at in between, which
/// costs nothing where nothing changed.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

impl<K: Clone + Debug + Eq + Hash + Send + Sync + 'static> Worker<K> {
    /// Works on keys, at most `at_once` of them, each with `work`, which says when to come back.
    ///
    /// A key that is woken while it is worked on is worked on again afterwards. A panic ends the
    /// work on one key and is reported; the others go on.
    pub async fn run<F>(self, at_once: usize, work: impl Fn(K) -> F)
    where
        F: Future<Output = Next> + Send + 'static,
    {
        let mut due = scheduler(self.requests);
        let mut running = HashSet::new();
        let mut again = HashSet::new();
        let mut tasks: JoinSet<(K, Next)> = JoinSet::new();
        let mut keys = std::collections::HashMap::new();
        loop {
            tokio::select! {
                Some(key) = due.next(), if running.len() < at_once => {
                    if !running.insert(key.clone()) {
                        again.insert(key);
                        continue;
                    }
                    let job = work(key.clone());
                    let named = key.clone();
                    let handle = tasks.spawn(async move { let next = job.await; (named, next) });
                    keys.insert(handle.id(), key);
                }
                Some(done) = tasks.join_next_with_id() => {
                    let (key, next) = match done {
                        Ok((id, (key, next))) => {
                            keys.remove(&id);
                            (key, next)
                        }
                        Err(error) => {
                            let Some(key) = keys.remove(&error.id()) else { continue };
                            tracing::error!(?key, %error, "a reconciliation panicked; it is tried again");
                            (key, Some(AFTER_PANIC))
                        }
                    };
                    running.remove(&key);
                    if again.remove(&key) {
                        self.queue.wake(key);
                    } else if let Some(wait) = next {
                        self.queue.wake_after(key, wait);
                    }
                }
                else => return,
            }
        }
    }
}

/// A defect will show itself again: often enough to be seen, seldom enough to do no harm.
const AFTER_PANIC: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::{Notify, Semaphore};

    #[tokio::test]
    async fn a_key_is_never_worked_on_twice_at_once_and_no_wake_is_lost() {
        let (queue, worker) = queue::<&'static str>();
        let (started, gate, rounds) =
            (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
        let work = {
            let (started, gate, rounds) = (started.clone(), gate.clone(), rounds.clone());
            move |_| {
                let (started, gate, rounds) = (started.clone(), gate.clone(), rounds.clone());
                async move {
                    rounds.fetch_add(1, Ordering::SeqCst);
                    started.notify_one();
                    gate.acquire().await.unwrap().forget();
                    None
                }
            }
        };
        let running = tokio::spawn(worker.run(8, work));
        queue.wake("a");
        started.notified().await;
        for _ in 0..5 {
            queue.wake("a");
        }
        tokio::task::yield_now().await;
        assert_eq!(rounds.load(Ordering::SeqCst), 1, "it is still being worked on");
        gate.add_permits(1);
        started.notified().await;
        assert_eq!(rounds.load(Ordering::SeqCst), 2, "five wakes are one more round");
        running.abort();
    }

    #[tokio::test]
    async fn one_that_panics_keeps_nobody_else_from_being_worked_on() {
        let (queue, worker) = queue::<u8>();
        let done = Arc::new(Notify::new());
        let work = {
            let done = done.clone();
            move |key| {
                let done = done.clone();
                async move {
                    assert_ne!(key, 1, "a defect");
                    done.notify_one();
                    None
                }
            }
        };
        let running = tokio::spawn(worker.run(1, work));
        queue.wake(1);
        queue.wake(2);
        done.notified().await;
        running.abort();
    }
}
