//! What a trust domain's authority has to give, and what is said while it gives nothing.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::asking;
use crate::api::conditions::Reason;
use crate::api::names::{NOT_AFTER_ANNOTATION, SPIFFE_ID_ANNOTATION};
use crate::controller::{Context, until};
use crate::decide::schedule::saturating_add;
use crate::decide::slots::{Blocked, Supply};
use crate::identity::{AuthoritySource, Domain};
use crate::sign::Chain;
use crate::source::{self, CaSource, Unavailable};

/// How long what an authority offers is believed without asking it again. A Secret that changed
/// is heard of at once; that a CA came too near its end is not.
const BELIEVED: SignedDuration = SignedDuration::from_mins(10);
/// The same for what is asked for every leaf: that it went away is to be seen soon.
const BELIEVED_BRIEFLY: SignedDuration = SignedDuration::from_secs(30);
/// The first pause after an authority gave nothing; each is twice the one before.
const FIRST_PAUSE: SignedDuration = SignedDuration::from_secs(5);
/// The longest: what was put right is seen within this time, if no watch tells of it.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_mins(5);

/// What an authority last had to give.
#[derive(Clone)]
pub struct Stocktaking {
    /// The source, and of what it is one.
    source: Arc<dyn CaSource>,
    domain: Domain,
    /// The versions of the Secrets that it reads.
    versions: Vec<String>,
    result: Result<Supply, Unavailable>,
    /// Failures one after the other.
    failures: u32,
    /// The same of CAs that were ordered: an authority may answer, and yet make none.
    withheld: u32,
    ask_again: Option<Timestamp>,
}

/// What an authority has to give now.
pub struct Stock {
    pub source: Arc<dyn CaSource>,
    pub supply: Supply,
    pub ask_again_in: Option<Duration>,
    unavailable: Option<Unavailable>,
}

/// Asks the authority, or remembers what it said.
pub async fn observe(context: &Context, domain: &Domain) -> Stock {
    let now = context.now();
    let versions = versions(context, &domain.authority);
    let known = context.slots.lock().get(&domain.name).and_then(|known| known.stock.clone());
    let known = known.filter(|known| known.domain.authority == domain.authority);
    let is_news = known.as_ref().is_none_or(|known| {
        let is_due = known.ask_again.is_some_and(|moment| moment <= now);
        let has_news = known.source.has_news();
        known.versions != versions || known.domain != *domain || is_due || has_news
    });
    let taken = match known {
        Some(known) if !is_news => known,
        known => {
            let source = match &known {
                Some(known) => known.source.clone(),
                None => source_of(context, domain),
            };
            let result = match source.is_far_away() {
                false => Some(ask(&*source, domain, now).await),
                true => asking::hear(context, &source, domain, &versions, now),
            };
            let Some(result) = result else { return Stock::until_it_answers(source, known) };
            let before = known.filter(|known| known.versions == versions);
            let taken = take(source, domain, versions, result, before, now);
            if let Err(unavailable) = &taken.result {
                tracing::debug!(trust_domain = domain.name, reason = %unavailable.reason,
                    "the authority gives nothing: {}", unavailable.message);
            }
            let mut memory = context.slots.lock();
            memory.entry(domain.name.clone()).or_default().stock = Some(taken.clone());
            taken
        }
    };
    let (supply, unavailable) = match taken.result {
        Ok(supply) => (supply, None),
        Err(unavailable) => (Supply::Missing, Some(unavailable)),
    };
    let ask_again_in = taken.ask_again.map(|moment| until(moment, now));
    Stock { source: taken.source, supply, ask_again_in, unavailable }
}

/// The source that is being asked for the first time, or a new one.
fn source_of(context: &Context, domain: &Domain) -> Arc<dyn CaSource> {
    asking::asked(context, domain)
        .unwrap_or_else(|| source::of(&domain.authority, &context.client, &context.view.namespace))
}

/// The source of a trust domain's authority, once that was asked what it has to give.
pub fn known_source(context: &Context, domain: &Domain) -> Option<Arc<dyn CaSource>> {
    let memory = context.slots.lock();
    let known = memory.get(&domain.name)?.stock.as_ref()?;
    (known.domain.authority == domain.authority).then(|| known.source.clone())
}

/// A CA that was ordered was had: whatever kept others from being had is over.
pub fn given(context: &Context, domain: &Domain) {
    if let Some(remembered) = context.slots.lock().get_mut(&domain.name)
        && let Some(stock) = &mut remembered.stock
    {
        stock.withheld = 0;
    }
}

/// A CA that was ordered could not be had: nothing is ordered before the authority is asked again.
pub fn withheld(context: &Context, domain: &Domain, stock: Stock, why: Unavailable) -> Stock {
    let now = context.now();
    let mut ask_again_in = stock.ask_again_in;
    if let Some(remembered) = context.slots.lock().get_mut(&domain.name)
        && let Some(known) = &mut remembered.stock
    {
        known.withheld = known.withheld.saturating_add(1);
        known.result = Err(why.clone());
        known.ask_again = Some(saturating_add(now, pause(&*known.source, known.withheld)));
        ask_again_in = known.ask_again.map(|moment| until(moment, now));
    }
    tracing::warn!(trust_domain = domain.name, reason = %why.reason, "no CA was made: {}", why.message);
    Stock { supply: Supply::Missing, unavailable: Some(why), ask_again_in, ..stock }
}

/// How long to wait after this many failures in a row.
fn pause(source: &dyn CaSource, failures: u32) -> SignedDuration {
    let asked_for = source.asks_for_time().unwrap_or_default();
    doubled_pause(failures).max(asked_for.try_into().unwrap_or(LONGEST_PAUSE))
}

/// The same where nothing is asked for.
pub(super) fn doubled_pause(failures: u32) -> SignedDuration {
    let doubled = FIRST_PAUSE * 2_i32.pow(failures.saturating_sub(1).min(10));
    doubled.min(LONGEST_PAUSE)
}

/// What is distrusted is not taken, whoever offers it.
pub(super) async fn ask(
    source: &dyn CaSource,
    domain: &Domain,
    now: Timestamp,
) -> Result<Supply, Unavailable> {
    let supply = source.supply(domain, now).await?;
    match &supply {
        Supply::Offered(offer) => match offer.distrusted(&domain.ca.distrust) {
            None => Ok(supply),
            Some(key_id) => Err(Unavailable {
                reason: Reason::CaRefused,
                message: format!(
                    "the authority offers the CA {key_id}, which spec.ca.distrust says is not to be trusted: give the authority another CA"
                ),
            }),
        },
        _ => Ok(supply),
    }
}

fn take(
    source: Arc<dyn CaSource>,
    domain: &Domain,
    versions: Vec<String>,
    result: Result<Supply, Unavailable>,
    before: Option<Stocktaking>,
    now: Timestamp,
) -> Stocktaking {
    let withheld = before.as_ref().map_or(0, |before| before.withheld);
    let failures = match &result {
        Ok(_) => 0,
        Err(_) => before.map_or(0, |before| before.failures).saturating_add(1),
    };
    let wait = match &result {
        Ok(_) if source.is_asked_for_every_leaf() => Some(BELIEVED_BRIEFLY),
        Ok(Supply::Made) => None,
        Ok(_) => Some(BELIEVED),
        Err(_) => Some(pause(&*source, failures)),
    };
    let ask_again = wait.map(|wait| saturating_add(now, wait));
    let domain = domain.clone();
    Stocktaking { source, domain, versions, result, failures, withheld, ask_again }
}

impl Stock {
    /// While an answer is waited for, what the authority said before holds.
    fn until_it_answers(source: Arc<dyn CaSource>, known: Option<Stocktaking>) -> Self {
        let (supply, unavailable) = match known.map(|known| known.result) {
            Some(Ok(supply)) => (supply, None),
            Some(Err(unavailable)) => (Supply::Missing, Some(unavailable)),
            None => (Supply::Missing, None),
        };
        Stock { source, supply, ask_again_in: None, unavailable }
    }

    /// True if and only if the authority gives what it is to give.
    pub fn is_available(&self) -> bool {
        self.unavailable.is_none()
    }

    /// What `Ready` says where the authority gives nothing, and a CA that it gave before signs on.
    pub fn while_signing(
        &self,
        context: &Context,
        domain: &Domain,
        chain: &Chain,
    ) -> Option<Unavailable> {
        let Unavailable { reason, message } = self.unavailable.clone()?;
        if self.source.is_asked_for_every_leaf() {
            let lasting = lasting(context, domain);
            let message = format!("{message}. Nothing is signed until then{lasting}");
            return Some(Unavailable { reason, message });
        }
        let (key_id, end) = (&chain.facts.key_id, chain.facts.not_after);
        let message = format!(
            "{message}. Until then the CA {key_id}, which was taken up before, signs, at most until {end}"
        );
        Some(Unavailable { reason, message })
    }

    /// What is said where nothing signs.
    pub fn blocked(&self, context: &Context, domain: &Domain, blocked: &Blocked) -> Blocked {
        let Some(Unavailable { reason, message }) = &self.unavailable else {
            return blocked.clone();
        };
        let message = match blocked.reason {
            Reason::Preparing => message.clone(),
            _ => format!("{}; and {message}", blocked.message),
        };
        let message =
            format!("{message}. Nothing is signed until then{}", lasting(context, domain));
        Blocked { reason: *reason, message }
    }
}

/// How long the certificates that there are still last.
fn lasting(context: &Context, domain: &Domain) -> String {
    let prefix = format!("{}/", domain.domain.authority_id());
    let now = context.now();
    let mut ends: Vec<Timestamp> = Vec::new();
    for (_, facts) in context.view.secrets.all() {
        let meta = facts.meta.unpack();
        let annotation = |name: &str| meta.annotations.get(name);
        if annotation(SPIFFE_ID_ANNOTATION).is_some_and(|id| id.starts_with(&prefix)) {
            ends.extend(
                annotation(NOT_AFTER_ANNOTATION).and_then(|end| end.parse::<Timestamp>().ok()),
            );
        }
    }
    ends.retain(|end| *end > now);
    match (ends.iter().min(), ends.iter().max()) {
        (Some(first), Some(last)) => format!(
            "; the certificates of {} agents go on, the first until {first}, the last until {last}",
            ends.len()
        ),
        _ => String::new(),
    }
}

/// The versions of the Secrets of the operator's namespace that an authority reads.
pub(super) fn versions(context: &Context, authority: &AuthoritySource) -> Vec<String> {
    let mut versions: Vec<String> = context
        .view
        .slots
        .all()
        .into_iter()
        .filter(|(key, _)| authority.reads(&key.name))
        .map(|(_, version)| version.resource_version.clone())
        .collect();
    versions.sort();
    versions
}
