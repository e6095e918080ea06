//! One mutual handshake, told in six steps, as it happened.

use std::path::Path;
use std::process::ExitCode;

use jiff::Timestamp;

use crate::certificate::Facts;
use crate::cli::HandshakeArgs;
use crate::clock;
use crate::hello::{self, Caller, Exchange, Failure, HELLO};
use crate::material::Material;
use crate::verify::{Notes, SharedNotes, read_notes};

pub async fn run(identity: &Path, args: HandshakeArgs) -> Result<ExitCode, anyhow::Error> {
    let material = Material::load(identity)?;
    let notes = SharedNotes::default();
    let caller = Caller { key: Some(material.key.clone()), trust: material.trust.clone() };
    let outcome = hello::exchange(caller, &args.to, &args.expect, notes.clone()).await;
    print!("{}", read_notes(&notes, |notes| tell(&args, &material, notes, &outcome)));
    Ok(if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Each step is told only if there is evidence that it took place.
fn tell(
    args: &HandshakeArgs,
    material: &Material,
    notes: &Notes,
    outcome: &Result<Exchange, Failure>,
) -> String {
    let mut story = Story::default();
    if let Err(failure @ Failure::NotReached(_)) = outcome {
        story.line(&failure.to_string());
        return story.text;
    }

    story.step("client hello", &format!("to {}: TLS 1.3 only, nothing resumed", args.to));
    story.more("the server must prove to be", &args.expect);
    if notes.presented.is_empty() {
        story.end(outcome);
        return story.text;
    }

    story.step("server's certificate", "and it asks for the client's");
    story.chain(&notes.presented);

    match &notes.verdict {
        Some(Ok(accepted)) => {
            story.step("client's verdict", "accepted");
            story.more("chains to", &format!("{}, which is in the client's ca.crt", accepted.root));
            story.more("SPIFFE ID", &format!("{}, as expected", accepted.peer.who()));
        }
        Some(Err(refusal)) => {
            story.step("client's verdict", &format!("REFUSED: {refusal}"));
            return story.text;
        }
        None => {
            story.end(outcome);
            return story.text;
        }
    }

    story.step("client's certificate", "with a signature that proves it holds the key");
    story.chain(&own_chain(material));

    let exchange = match outcome {
        Ok(exchange) => exchange,
        Err(Failure::TheyRefused(why)) => {
            story.step("server's verdict", &format!("REFUSED: {why}"));
            return story.text;
        }
        Err(_) => {
            story.end(outcome);
            return story.text;
        }
    };
    story.step("server's verdict", "accepted, in the server's own words:");
    story.more("I am", &exchange.answer.i_am);
    story.more(
        "I accepted",
        &format!("{} with serial {}", exchange.answer.i_accepted, exchange.answer.with_serial),
    );
    story.more("chained to", &exchange.answer.chained_to);

    story.step("application data", &format!("TLS 1.3 with {}", exchange.cipher_suite));
    story.more("sent, encrypted", &format!("{} bytes: {HELLO}", exchange.sent));
    story.more(
        "received, encrypted",
        &format!("{} bytes: the server's own words of step 5", exchange.received),
    );
    story.text
}

fn own_chain(material: &Material) -> Vec<Facts> {
    material.key.cert.iter().filter_map(|der| Facts::read(der).ok()).collect()
}

#[derive(Default)]
struct Story {
    text: String,
    steps: usize,
}

impl Story {
    fn step(&mut self, title: &str, what: &str) {
        self.steps += 1;
        self.line(&format!("{} {title:<22}{what}", self.steps));
    }

    fn more(&mut self, title: &str, what: &str) {
        self.line(&format!("    {title:<28}{what}"));
    }

    fn chain(&mut self, chain: &[Facts]) {
        for (place, facts) in chain.iter().enumerate() {
            if place == 0 {
                self.more("SPIFFE ID", facts.who());
            } else {
                self.more("with the certificate of", facts.subject_or_dash());
            }
            self.more("  serial", &facts.serial);
            self.more(
                "  valid",
                &format!(
                    "{} to {} ({})",
                    facts.not_before,
                    facts.not_after,
                    left(facts.not_after, clock::now())
                ),
            );
            self.more("  issued by", &facts.issuer);
        }
    }

    fn end(&mut self, outcome: &Result<Exchange, Failure>) {
        if let Err(failure) = outcome {
            self.step("the end", &failure.to_string());
        }
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }
}

fn left(until: Timestamp, now: Timestamp) -> String {
    let seconds = until.as_second() - now.as_second();
    match seconds {
        ..0 => "expired".to_owned(),
        0..120 => format!("{seconds} s left"),
        120..7200 => format!("{} min left", seconds / 60),
        7200..172_800 => format!("{} h left", seconds / 3600),
        _ => format!("{} days left", seconds / 86_400),
    }
}
