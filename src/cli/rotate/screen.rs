//! The view that a person follows: a line for each change, and on a terminal one below them that
//! is drawn anew each second.

use std::io::{IsTerminal, Result, Stdout, Write};

use jiff::Timestamp;

use super::progress::Progress;
use crate::cli::words::{NextStep, distance};

/// The standard output.
pub struct Screen {
    output: Stdout,
    is_terminal: bool,
    shown: Vec<String>,
}

/// A drawn line must not break: what is broken is not erased.
const TERMINAL: usize = 79;
const ERASE: &str = "\r\x1b[2K";

impl Screen {
    /// One on which nothing is shown yet.
    pub fn new() -> Self {
        let output = std::io::stdout();
        let is_terminal = output.is_terminal();
        Screen { output, is_terminal, shown: Vec::new() }
    }

    /// A line that stands for itself.
    pub fn print(&mut self, text: &str) -> Result<()> {
        writeln!(self.output, "{text}")
    }

    /// Shows what is new.
    pub fn show(&mut self, progress: &Progress, now: Timestamp) -> Result<()> {
        self.leave()?;
        for line in news(&self.shown, &progress.lines) {
            writeln!(self.output, "{}  {line}", time_of_day(now))?;
        }
        self.shown.clone_from(&progress.lines);
        if self.is_terminal && !progress.is_done {
            write!(self.output, "{}", countdown(&progress.next, now))?;
        }
        self.output.flush()
    }

    /// Says that nothing is known at the moment.
    pub fn away(&mut self, why: &str, now: Timestamp) -> Result<()> {
        let line = format!("{:<12}{why}", "waiting");
        self.leave()?;
        if self.shown.last() != Some(&line) {
            writeln!(self.output, "{}  {line}", time_of_day(now))?;
            self.shown.push(line);
        }
        self.output.flush()
    }

    /// Takes the drawn line away.
    pub fn leave(&mut self) -> Result<()> {
        if self.is_terminal { write!(self.output, "{ERASE}") } else { Ok(()) }
    }
}

/// The lines that were not shown before.
pub fn news<'a>(shown: &[String], lines: &'a [String]) -> Vec<&'a str> {
    lines.iter().filter(|line| !shown.contains(line)).map(String::as_str).collect()
}

fn time_of_day(now: Timestamp) -> String {
    now.strftime("%H:%M:%SZ").to_string()
}

/// The next step, and how far away it is.
pub fn countdown(next: &NextStep, now: Timestamp) -> String {
    let text = match next.at {
        Some(at) => format!("           next        {} {}", next.what, distance(at, now)),
        None => format!("           next        {}", next.what),
    };
    text.chars().take(TERMINAL).collect()
}
