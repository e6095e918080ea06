//! An operator that is killed right after every write, and started again.

use std::time::{Duration, Instant};

use crate::chronicle::History;
use crate::operator::{Operator, Options};
use crate::users::User;
use crate::wait::seconds;
use crate::{ApiServer, Chronicle};

/// More lives than any rotation has writes.
const LIVES: usize = 80;

/// Operators, one after the other.
pub struct Lives<'a> {
    /// The server they talk to.
    pub server: &'a ApiServer,
    /// What tells whether all is done.
    pub chronicle: &'a Chronicle,
    /// How many there were.
    pub count: usize,
    /// The first ends after one write, the next after two, up to this many, and then again after one.
    pub writes: usize,
}

impl<'a> Lives<'a> {
    /// None yet.
    pub fn of(server: &'a ApiServer, chronicle: &'a Chronicle) -> Self {
        Self { server, chronicle, count: 0, writes: 1 }
    }

    /// Starts one operator after the other and kills each as soon as it has written, until `done`.
    /// Says what each wrote last.
    pub async fn until(
        &mut self,
        clock_ahead: i64,
        done: impl Fn(&History) -> bool,
    ) -> Vec<String> {
        let mut writes = Vec::new();
        while !done(&self.chronicle.history()) {
            self.count += 1;
            assert!(self.count < LIVES, "no end after {LIVES} lives: {writes:#?}");
            let options =
                Options { clock_ahead, ..Options::replica(&format!("life-{}", self.count)) };
            writes.extend(self.live(options, &done).await);
        }
        writes
    }

    /// One life: until its last write, or until there is nothing more to write, or until it ends
    /// by itself, as it does where the API server is away for longer than its Lease lasts.
    async fn live(&self, options: Options, done: impl Fn(&History) -> bool) -> Option<String> {
        let mut tail = self.server.next_requests_by(User::Operator);
        let mut operator = Operator::spawn(self.server, options);
        let mut looks: u32 = 0;
        let limit = Instant::now() + seconds(60);
        let mut left = (self.count - 1) % self.writes;
        let write = loop {
            looks += 1;
            match tail.next_request() {
                Some(request) if request.is_deed() && request.code < 300 && left == 0 => {
                    break Some(request);
                }
                Some(request) if request.is_deed() && request.code < 300 => left -= 1,
                Some(_) => continue,
                None if looks.is_multiple_of(100) && done(&self.chronicle.history()) => break None,
                None if looks.is_multiple_of(100) && operator.has_ended() => break None,
                None => tokio::time::sleep(Duration::from_millis(1)).await,
            }
            let log = || operator.log();
            assert!(Instant::now() < limit, "it writes nothing:\n{}", log());
        };
        operator.kill();
        self.server.forget_leader().await;
        write.map(|request| format!("{} {}", request.kind(), request.name))
    }
}
