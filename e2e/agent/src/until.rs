//! Tries the same thing over and over, until it ends otherwise than at first: when exactly was somebody cut off, or let in again?
//!
//! It says `watching` once what is to end has been seen to be so, and at the end the moment, in milliseconds since 1970, and
//! the reason. One odd outcome is no verdict: the moment is that of the first of three in a row.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::time::MissedTickBehavior;

use crate::ask::{call_tool, caller};
use crate::cli::{Outcome, UntilArgs};
use crate::clock;
use crate::hello;
use crate::material::Material;
use crate::verify::SharedNotes;

/// So many in a row are a verdict.
const IN_A_ROW: u32 = 3;
/// A packet that is dropped is answered by nobody.
const PATIENCE: Duration = Duration::from_millis(500);

pub async fn run(identity: &Path, args: UntilArgs) -> Result<ExitCode, anyhow::Error> {
    let began = Instant::now();
    let mut turn = tokio::time::interval(Duration::from_millis(args.every.into()));
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watch = Watch::new(args.outcome);
    let mut last = String::new();
    while began.elapsed() < Duration::from_secs(args.within.into()) {
        turn.tick().await;
        let outcome = attempt(identity, &args).await;
        let at = clock::precisely_now();
        match watch.saw(at, outcome.is_ok()) {
            Step::Watching => println!("watching"),
            Step::Nothing => {}
            Step::Over(at) => {
                println!("{} {}", at.as_millisecond(), said(&outcome));
                return Ok(ExitCode::SUCCESS);
            }
        }
        last = said(&outcome).to_owned();
    }
    println!("not within {} s; the last try: {last}", args.within);
    Ok(ExitCode::FAILURE)
}

fn said(outcome: &Result<String, String>) -> &str {
    match outcome {
        Ok(said) | Err(said) => said,
    }
}

async fn attempt(identity: &Path, args: &UntilArgs) -> Result<String, String> {
    let Some(expect) = &args.expect else {
        let knock = tokio::time::timeout(PATIENCE, hello::connect(&args.to)).await;
        return match knock {
            Ok(Ok(_)) => Ok("connected".to_owned()),
            Ok(Err(failure)) => Err(failure.to_string()),
            Err(_) => Err(format!("no answer within {} ms", PATIENCE.as_millis())),
        };
    };
    // The files are read for each try: what is measured is when they changed.
    let material = Material::load(identity).map_err(|error| format!("{error:#}"))?;
    match &args.tool {
        None => hello::exchange(caller(&material), &args.to, expect, SharedNotes::default())
            .await
            .map(|exchange| format!("accepted serial {}", exchange.peer.serial))
            .map_err(|failure| failure.to_string()),
        Some(tool) => match call_tool(caller(&material), &args.to, expect, tool).await {
            Ok(reply) if reply.status == 200 => Ok(reply.text),
            Ok(reply) => Err(format!("{} {}", reply.status, reply.text)),
            Err(failure) => Err(failure.to_string()),
        },
    }
}

/// What was seen so far.
struct Watch {
    wanted: Outcome,
    /// Whether the opposite was seen, without which nothing can end.
    is_watching: bool,
    since: Option<Timestamp>,
    in_a_row: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    Watching,
    Over(Timestamp),
}

impl Watch {
    fn new(wanted: Outcome) -> Self {
        Self { wanted, is_watching: false, since: None, in_a_row: 0 }
    }

    fn saw(&mut self, at: Timestamp, succeeded: bool) -> Step {
        let is_as_wanted = succeeded == (self.wanted == Outcome::Accepted);
        if !is_as_wanted {
            (self.since, self.in_a_row) = (None, 0);
            let is_first = !self.is_watching;
            self.is_watching = true;
            return if is_first { Step::Watching } else { Step::Nothing };
        }
        if !self.is_watching {
            return Step::Nothing;
        }
        let since = *self.since.get_or_insert(at);
        self.in_a_row += 1;
        if self.in_a_row < IN_A_ROW { Step::Nothing } else { Step::Over(since) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_over_at_the_first_of_three_in_a_row_after_the_opposite_was_seen() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut watch = Watch::new(Outcome::Refused);
        let mut saw = |second, succeeded| watch.saw(at(second), succeeded);
        for second in 0..5 {
            assert_eq!(saw(second, false), Step::Nothing, "it was never let in");
        }
        assert_eq!(saw(5, true), Step::Watching);
        assert_eq!(saw(6, true), Step::Nothing);
        assert_eq!(saw(7, false), Step::Nothing);
        assert_eq!(saw(8, true), Step::Nothing, "one refusal is none");
        assert_eq!(saw(9, false), Step::Nothing);
        assert_eq!(saw(10, false), Step::Nothing);
        assert_eq!(saw(11, false), Step::Over(at(9)));
    }
}
