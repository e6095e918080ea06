//! Asking an authority that is another program: in the background, so that one which lets us wait
//! holds up no other trust domain, and no revocation in its own.

use std::sync::Arc;

use jiff::Timestamp;

use super::awaited::Awaited;
use super::supply::ask;
use crate::controller::Context;
use crate::decide::slots::Supply;
use crate::identity::Domain;
use crate::source::{CaSource, Unavailable};

/// An answer that is waited for. Whoever drops it waits no more.
pub struct Asking {
    source: Arc<dyn CaSource>,
    /// What was asked, and of which versions of the Secrets that it reads.
    domain: Domain,
    versions: Vec<String>,
    answer: Awaited<Answer>,
}

type Answer = Result<Supply, Unavailable>;

/// The source of this trust domain's authority, where it is being asked.
pub fn asked(context: &Context, domain: &Domain) -> Option<Arc<dyn CaSource>> {
    let memory = context.slots.lock();
    let asking = memory.get(&domain.name)?.asking.as_ref()?;
    (asking.domain.authority == domain.authority).then(|| asking.source.clone())
}

/// The answer, if it is there. Else it is asked for, and the trust domain is woken when it comes.
pub fn hear(
    context: &Context,
    source: &Arc<dyn CaSource>,
    domain: &Domain,
    versions: &[String],
    now: Timestamp,
) -> Option<Answer> {
    let mut memory = context.slots.lock();
    let remembered = memory.entry(domain.name.clone()).or_default();
    if let Some(asking) = &remembered.asking
        && asking.domain == *domain
        && asking.versions == versions
    {
        let answer = asking.answer.take()?;
        remembered.asking = None;
        return Some(answer);
    }
    let (asked, of) = (source.clone(), domain.clone());
    let asking = async move { ask(&*asked, &of, now).await };
    remembered.asking = Some(Asking {
        source: source.clone(),
        domain: domain.clone(),
        versions: versions.to_vec(),
        answer: Awaited::begin(context, &domain.name, asking),
    });
    None
}
