//! A trust domain without a CA: its bundle is fetched, recorded, and published from the record.
//!
//! It is recorded before it is published, as CAs are: so a restart finds what agents hold,
//! whatever has become of the server, and nothing is published that could be forgotten.

use std::time::Duration;

use jiff::Timestamp;

use super::polling::{self, News};
use super::report::{Report, publish};
use super::spread::spread;
use super::{Failure, RETRY, install};
use crate::api::conditions::Reason;
use crate::api::{RemoteStatus, TrustDomain};
use crate::controller::{Context, Next, until};
use crate::decide::remote::{bundle_of, record};
use crate::decide::slots::Blocked;
use crate::identity::{Domain, RemoteAddress};
use crate::source::Unavailable;
use crate::x509::Sha256;

/// One turn of a remote trust domain.
pub async fn serve(
    context: &Context,
    resource: &TrustDomain,
    domain: &Domain,
    address: &RemoteAddress,
    mut report: Report,
) -> Result<Next, Failure> {
    let now = report.now;
    let held = report.status.remote.take();
    // A clock that jumped ends no certificate: until it is right, what is held is what is held.
    let disagreement = context.time.disagreement();
    let news = match &disagreement {
        None => polling::hear(context, domain, address, held.as_ref(), now),
        Some(_) => News { fetched: None, failure: None, next: Some(RETRY) },
    };
    report.status.remote = match &disagreement {
        None => record(held.as_ref(), news.fetched.as_ref(), &address.url, now),
        Some(_) => held.clone(),
    };
    if report.status.remote != held {
        if let Some(held) = &report.status.remote {
            tracing::info!(
                trust_domain = domain.name,
                url = held.url,
                sequence = held.sequence,
                certificates = held.certificates.len(),
                "another bundle is taken up"
            );
        }
        if report.status.bundle.is_none() {
            report.not_ready(Reason::Preparing, "the bundle is being published".to_owned());
        }
        publish(context, resource, report).await?;
        return Ok(Some(Duration::ZERO));
    }

    let bundle_pem = held.as_ref().map(bundle_of).unwrap_or_default();
    let mut next = news.next;
    if let Some(held) = &held {
        let spread = spread(context, domain, &bundle_pem, "").await;
        report.bundle(Sha256::of(bundle_pem.as_bytes()));
        report.published(&spread.failed, &spread.cluster);
        let failed = spread.is_incomplete().then_some(RETRY);
        let ends = held.certificates.iter().map(|root| root.not_after.0);
        let end = ends.filter(|end| *end > now).min().map(|end| until(end, now));
        next = next.into_iter().chain(failed).chain(end).min();
    }
    let failure = match &disagreement {
        Some(disagreement) => Some(disagreement.blocked()),
        None => failure(held.as_ref(), news.failure.as_ref(), address, now),
    };
    let is_available = failure.is_none();
    match (failure, &held) {
        (Some(Blocked { reason, message }), _) => report.not_ready(reason, message),
        (None, Some(held)) => report.fetched(held),
        (None, None) => report.not_ready(
            Reason::Preparing,
            format!("the bundle of {} is being fetched", address.url),
        ),
    }
    // Identities are refused for what the trust domain is, before they come to this.
    let no_ca = Blocked {
        reason: Reason::RemoteTrustDomain,
        message: "no CA signs here for a remote trust domain".to_owned(),
    };
    install(context, domain, Err(no_ca), is_available, &bundle_pem);
    publish(context, resource, report).await?;
    Ok(next)
}

/// What is wrong, and what still holds.
fn failure(
    held: Option<&RemoteStatus>,
    failure: Option<&Unavailable>,
    address: &RemoteAddress,
    now: Timestamp,
) -> Option<Blocked> {
    let last = held.and_then(|held| held.certificates.iter().map(|root| root.not_after.0).max());
    match (failure, held, last) {
        (failure, Some(_), Some(last)) if last <= now => {
            let why = failure.map(|failure| format!(", and {}", failure.message));
            let message = format!(
                "every CA certificate of the bundle that is held has expired, the last at {last}{}: see that {} gives out a new one",
                why.unwrap_or_default(),
                address.url
            );
            Some(Blocked { reason: Reason::CaExpired, message })
        }
        (Some(Unavailable { reason, message }), Some(held), Some(last)) => {
            let since = held.since.0;
            let message = format!(
                "{message}. Until then the bundle of {since} stays published; its last CA certificate ends at {last}"
            );
            Some(Blocked { reason: *reason, message })
        }
        (Some(Unavailable { reason, message }), _, _) => {
            let message = format!("{message}. Until then there is no bundle to publish");
            Some(Blocked { reason: *reason, message })
        }
        (None, _, _) => None,
    }
}
