//! When an open connection must end.
//!
//! A handshake is a decision of one moment. Whoever is revoked later, or expires, or whose CA is no longer trusted, would
//! go on talking over what is open: TLS never asks again. So whoever keeps a connection open asks:
//! each time that ca.crt or crl.pem change, the peer's chain is judged anew; and no connection lives
//! longer than a bound, nor longer than the peer's certificate, for whatever else may have changed.

use std::time::Duration;

use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::time::Instant;
use webpki::KeyUsage;

use crate::certificate::Facts;
use crate::clock;
use crate::material::Current;
use crate::verify::{Refusal, judge};

/// Why a connection is over.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Over {
    #[error("{0}")]
    Refused(Refusal),
    #[error("it has been open for as long as one may be: whoever is still there connects anew")]
    Old,
    #[error("nobody follows our own files any more")]
    Alone,
}

/// The peer of one open connection, as long as it may be.
pub struct Peer {
    current: Current,
    usage: KeyUsage,
    expected: Vec<String>,
    chain: Vec<CertificateDer<'static>>,
    until: Instant,
}

impl Peer {
    /// `chain` as it was accepted a moment ago, by the rules that it will be judged by again. `current` is the very
    /// receiver that the handshake's material was borrowed and marked as seen from: what came since counts as a change.
    pub fn accepted(
        current: Current,
        usage: KeyUsage,
        expected: Vec<String>,
        chain: Option<&[CertificateDer<'_>]>,
        life: Duration,
    ) -> Self {
        let chain: Vec<_> =
            chain.unwrap_or_default().iter().map(|der| der.clone().into_owned()).collect();
        let left = chain.first().and_then(|leaf| Facts::read(leaf).ok()).map(|leaf| {
            let seconds = leaf.not_after.as_second() - clock::now().as_second();
            Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
        });
        let until = Instant::now() + life.min(left.unwrap_or_default());
        Self { current, usage, expected, chain, until }
    }

    /// Waits until the connection must end, and says why. It may be dropped and called again.
    pub async fn is_over(&mut self) -> Over {
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(self.until) => return Over::Old,
                changed = self.current.changed() => {
                    if changed.is_err() {
                        return Over::Alone;
                    }
                }
            }
            let trust = self.current.borrow_and_update().trust.clone();
            let Some((leaf, issuers)) = self.chain.split_first() else {
                return Over::Refused(Refusal::NoCertificate);
            };
            let now = UnixTime::now();
            let verdict = judge(&trust, self.usage, &self.expected, leaf, issuers, now);
            if let Err(refusal) = verdict {
                return Over::Refused(refusal);
            }
        }
    }
}
