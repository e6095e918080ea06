//! Tries to get in without an identity, three ways. Each must be refused.
//!
//! The intruder knows ca.crt (it is public) and checks the server by it, so that what is tried here is
//! the server's judgement alone, and no verifier that accepts anything is needed.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::cli::{Flavour, IntrudeArgs};
use crate::forge::ForgedCa;
use crate::hello::{self, Caller, Failure, HELLO};
use crate::material;
use crate::verify::SharedNotes;

/// A pod's program may start before its network: who has not been reached has not been asked.
const UNTIL_REACHED: Duration = Duration::from_secs(30);

/// How an attempt ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Attempt {
    Refused(String),
    LetIn(String),
}

pub async fn run(identity: &Path, args: IntrudeArgs) -> Result<ExitCode, anyhow::Error> {
    println!("I hold {}, and call {}", in_hand(&args), args.to);
    match once_reached(identity, &args).await? {
        Attempt::Refused(why) => {
            println!("refused, as must be: {why}");
            Ok(ExitCode::SUCCESS)
        }
        Attempt::LetIn(answer) => {
            println!("LET IN, which must not happen. It said: {answer}");
            Ok(ExitCode::FAILURE)
        }
    }
}

async fn once_reached(identity: &Path, args: &IntrudeArgs) -> Result<Attempt, anyhow::Error> {
    let began = Instant::now();
    loop {
        match attempt(identity, args).await {
            Err(error) if began.elapsed() < UNTIL_REACHED && is_not_reached(&error) => {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            ended => return ended,
        }
    }
}

fn is_not_reached(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Failure::NotReached(_)))
}

pub async fn attempt(identity: &Path, args: &IntrudeArgs) -> Result<Attempt, anyhow::Error> {
    let key = match args.flavour {
        Flavour::Nothing => return in_plain_text(&args.to).await,
        Flavour::NoCertificate => None,
        Flavour::OtherCa => {
            Some(forged(args.pretend.as_deref().context("--pretend says whom to forge")?)?)
        }
    };
    let caller = Caller { key, trust: material::load_trust(identity)? };
    match hello::exchange(caller, &args.to, &args.expect, SharedNotes::default()).await {
        Ok(exchange) => Ok(Attempt::LetIn(format!(
            "I am {}, I accepted {}",
            exchange.answer.i_am, exchange.answer.i_accepted
        ))),
        Err(Failure::TheyRefused(why)) => Ok(Attempt::Refused(why)),
        // Not reached, or it is not the server we meant: then nothing was tried, and nothing shown.
        Err(other) => Err(other.into()),
    }
}

async fn in_plain_text(to: &str) -> Result<Attempt, anyhow::Error> {
    let mut stream = hello::connect(to).await?;
    stream.write_all(format!("{HELLO}\n").as_bytes()).await?;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(
        Duration::from_secs(5),
        (&mut stream).take(4096).read_to_end(&mut answer),
    )
    .await;
    Ok(match (read, answer.as_slice()) {
        (Err(_), []) => Attempt::Refused("no answer within 5 s".to_owned()),
        (Ok(Err(error)), []) => Attempt::Refused(error.to_string()),
        (_, []) => Attempt::Refused("it closed the connection without a word".to_owned()),
        // 21 is the record type of an alert: the server speaks TLS and nothing else.
        (_, [21, ..]) => Attempt::Refused(
            "it answers plain text with a TLS alert and closes the connection".to_owned(),
        ),
        (_, words) => Attempt::LetIn(String::from_utf8_lossy(words).into_owned()),
    })
}

fn forged(spiffe_id: &str) -> Result<Arc<CertifiedKey>, anyhow::Error> {
    let leaf = ForgedCa::new("a CA the intruder made")?.leaf(spiffe_id)?;
    Ok(Arc::new(CertifiedKey::from_der(leaf.chain, leaf.key, &aws_lc_rs::default_provider())?))
}

fn in_hand(args: &IntrudeArgs) -> String {
    match (args.flavour, &args.pretend) {
        (Flavour::Nothing, _) => "no identity (so I speak plain text)".to_owned(),
        (Flavour::NoCertificate, _) => "no certificate (but I speak TLS)".to_owned(),
        (Flavour::OtherCa, pretend) => format!(
            "a certificate for {} that a CA of my own signed",
            pretend.as_deref().unwrap_or("nobody")
        ),
    }
}
