//! Fetching a bundle now and then: in the background, so that a server which lets us wait holds up
//! nobody.

use std::time::Duration;

use jiff::Timestamp;

use super::awaited::Awaited;
use super::supply::{doubled_pause, versions};
use crate::api::RemoteStatus;
use crate::api::conditions::Reason;
use crate::controller::{Context, until};
use crate::decide::remote::{BundleRefusal, RemoteBundle, judge, period, succeeds};
use crate::identity::{Domain, RemoteAddress};
use crate::source::Unavailable;
use crate::source::remote::{Answer, fetch};

/// What is remembered of the bundle at one address.
pub struct Polling {
    address: RemoteAddress,
    /// The versions of the Secrets that are read for it.
    versions: Vec<String>,
    asking: Option<Awaited<Heard>>,
    /// The last bundle that could be used, and its ETag.
    fetched: Option<(RemoteBundle, Option<String>)>,
    failure: Option<Unavailable>,
    /// Failures one after the other.
    failures: u32,
    next: Timestamp,
}

type Heard = Result<Answer, Unavailable>;

/// How it stands with the bundle at an address.
pub struct News {
    /// The last bundle that could be used, where one came since the operator began.
    pub fetched: Option<RemoteBundle>,
    /// Why the last attempt gave none.
    pub failure: Option<Unavailable>,
    /// When to come back; None while an answer is waited for, which wakes the trust domain.
    pub next: Option<Duration>,
}

/// Takes what came, and asks again where it is time.
pub fn hear(
    context: &Context,
    domain: &Domain,
    address: &RemoteAddress,
    held: Option<&RemoteStatus>,
    now: Timestamp,
) -> News {
    let versions = versions(context, &domain.authority);
    let mut memory = context.slots.lock();
    let polling = &mut memory.entry(domain.name.clone()).or_default().polling;
    let polling = match polling {
        Some(known) if known.address == *address => known,
        other => other.insert(Polling::new(address, now)),
    };
    if polling.versions != versions {
        // Another Secret may hold the CA that was missing: whatever is under way began without it.
        (polling.versions, polling.asking, polling.next) = (versions, None, now);
    }
    polling.take(held, now);
    if polling.asking.is_none() && polling.next <= now {
        polling.ask(context, domain);
    }
    let next = polling.asking.is_none().then(|| until(polling.next, now));
    News {
        fetched: polling.fetched.as_ref().map(|(bundle, _)| bundle.clone()),
        failure: polling.failure.clone(),
        next,
    }
}

impl Polling {
    fn new(address: &RemoteAddress, now: Timestamp) -> Self {
        Polling {
            address: address.clone(),
            versions: Vec::new(),
            asking: None,
            fetched: None,
            failure: None,
            failures: 0,
            next: now,
        }
    }

    fn ask(&mut self, context: &Context, domain: &Domain) {
        let address = self.address.clone();
        let etag = self.fetched.as_ref().and_then(|(_, etag)| etag.clone());
        let (client, namespace) = (context.client.clone(), context.view.namespace.clone());
        let asking = async move { fetch(&client, &namespace, &address, etag.as_deref()).await };
        self.asking = Some(Awaited::begin(context, &domain.name, asking));
    }

    /// Judges the answer, if it is there.
    fn take(&mut self, held: Option<&RemoteStatus>, now: Timestamp) {
        let Some(heard) = self.asking.as_ref().and_then(Awaited::take) else { return };
        self.asking = None;
        match heard.and_then(|answer| self.judge(answer, held, now)) {
            Ok(()) => (self.failure, self.failures) = (None, 0),
            Err(unavailable) => {
                self.failures = self.failures.saturating_add(1);
                self.failure = Some(unavailable);
            }
        }
        let hint = self.fetched.as_ref().and_then(|(bundle, _)| bundle.refresh_hint);
        let period = period(self.address.period, hint).as_duration();
        // Whoever failed is asked sooner than at the next time, and then less and less often.
        let pause = match self.failures {
            0 => period,
            failures => doubled_pause(failures).min(period),
        };
        self.next = now.saturating_add(pause).unwrap_or(Timestamp::MAX);
    }

    fn judge(
        &mut self,
        answer: Answer,
        held: Option<&RemoteStatus>,
        now: Timestamp,
    ) -> Result<(), Unavailable> {
        let Answer::Bundle { bytes, etag } = answer else { return Ok(()) };
        let url = &self.address.url;
        let refused = |refusal: BundleRefusal| Unavailable {
            reason: Reason::BundleRefused,
            message: format!("the bundle of {url} is not taken: {refusal}"),
        };
        let bundle = judge(&bytes, self.address.format, now).map_err(refused)?;
        succeeds(&bundle, url, held).map_err(refused)?;
        self.fetched = Some((bundle, etag));
        Ok(())
    }
}
