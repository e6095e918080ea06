//! Operators that are killed right after their first write, one after the other.

use std::time::Duration;

use crate::chronicle::History;
use crate::{ApiServer, Chronicle, Operator, Options, User, seconds};

/// More lives than a rotation has writes.
const LIVES: usize = 60;

/// The lives of operators beside one API server, one after the other.
pub struct Lives<'a> {
    server: &'a ApiServer,
    chronicle: &'a Chronicle,
    /// How many there were.
    pub count: usize,
}

impl<'a> Lives<'a> {
    /// None yet.
    pub fn of(server: &'a ApiServer, chronicle: &'a Chronicle) -> Self {
        Lives { server, chronicle, count: 0 }
    }

    /// Starts one operator after the other and kills each as soon as it has written, until `done`.
    /// Says what each wrote first.
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

    /// One life: until its first write, or until there is nothing more to write.
    async fn live(&self, options: Options, done: impl Fn(&History) -> bool) -> Option<String> {
        let mut tail = self.server.next_requests_by(User::Operator);
        let operator = Operator::spawn(self.server, options);
        let mut looks: u32 = 0;
        let limit = std::time::Instant::now() + seconds(60);
        let write = loop {
            looks += 1;
            match tail.next_request() {
                Some(request)
                    if request.is_write()
                        && request.code < 300
                        && request.resource != "leases"
                        && request.resource != "events" =>
                {
                    break Some(request);
                }
                Some(_) => continue,
                None if looks.is_multiple_of(100) && done(&self.chronicle.history()) => break None,
                None => tokio::time::sleep(Duration::from_millis(1)).await,
            }
            let log = || operator.log();
            assert!(std::time::Instant::now() < limit, "it writes nothing:\n{}", log());
        };
        operator.kill();
        self.server.forget_leader().await;
        write.map(|request| format!("{} {}", request.kind(), request.name))
    }
}
