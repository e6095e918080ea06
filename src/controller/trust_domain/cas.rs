//! The CAs of a trust domain: reading them, making them, and taking them up as what signs.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Failure;
use super::asking::Asking;
use super::polling::Polling;
use super::supply::Stocktaking;
use crate::api::{SlotKind, SlotPhase, SlotStatus, TrustDomain};
use crate::apply;
use crate::controller::Context;
use crate::decide::slots::{ChainNames, SlotOrder, SlotSecret, bundle_of};
use crate::identity::{AuthoritySource, Domain, TokenAddress};
use crate::observe::slots::{FoundSlot, read};
use crate::sign::{Chain, Retirable, SharedKey, SignError, Slot};
use crate::source::pkcs11::Pkcs11Error;
use crate::source::{self, CaSource, Making, SourceError};

/// What is remembered of each trust domain's CAs.
#[derive(Default)]
pub struct SlotMemory(Mutex<HashMap<String, Remembered>>);

#[derive(Default)]
pub(super) struct Remembered {
    /// The CA Secrets as they were last read, and their versions then, so that a turn that has
    /// nothing to do with them does not read keys again.
    read: Option<(BTreeMap<String, String>, Vec<SlotSecret>)>,
    /// What signs, and for which slots it was put together.
    authority: Option<(Vec<SlotStatus>, Arc<Retirable>)>,
    /// What its authority last had to give.
    pub(super) stock: Option<Stocktaking>,
    /// Its authority, while an answer is waited for.
    pub(super) asking: Option<Asking>,
    /// The bundle that is fetched now and then, where there is no CA.
    pub(super) polling: Option<Polling>,
}

/// The CA Secrets of a trust domain.
pub async fn found(context: &Context, domain: &Domain) -> Result<Vec<SlotSecret>, Failure> {
    let versions: BTreeMap<String, String> = context
        .view
        .slots
        .all()
        .into_iter()
        .filter(|(_, version)| version.trust_domain == domain.name)
        .map(|(key, version)| (key.name.to_string(), version.resource_version.clone()))
        .collect();
    if let Some(remembered) = context.slots.lock().get(&domain.name)
        && let Some((known, facts)) = &remembered.read
        && *known == versions
    {
        return Ok(facts.clone());
    }
    let found = read(&context.client, &context.view.namespace, &domain.name).await?;
    let facts: Vec<SlotSecret> = found.into_iter().map(|found| found.facts).collect();
    let mut memory = context.slots.lock();
    let remembered = memory.entry(domain.name.clone()).or_default();
    // Where the mirror is behind what was read, its versions say nothing about it: it might come
    // to the same ones again, by hearing of a Secret and of its end before the next turn.
    let is_behind = !versions.keys().eq(facts.iter().map(|secret| &secret.name));
    remembered.read = (!is_behind).then(|| (versions, facts.clone()));
    // Another version may hold another key.
    remembered.authority = None;
    Ok(facts)
}

/// Makes the CA that was ordered, and keeps it.
pub async fn make(
    context: &Context,
    source: &dyn CaSource,
    domain: &Domain,
    order: &SlotOrder,
) -> Result<(), Failure> {
    let namespace = &context.view.namespace;
    let parent = match &order.parent {
        None => None,
        Some(name) => Some(take(&mut slots(context, domain).await?, name)?),
    };
    let slot = source.make(Making { domain, order, parent, now: context.now() }).await?;
    tracing::info!(trust_domain = domain.name, secret = order.name, key_id = slot.ca.key_id,
        authority = domain.authority.kind().as_str(), until = %slot.ca.not_after, "a CA is taken up");
    apply::slots::create(&context.client, namespace, domain, order, &slot).await?;
    context.slots.forget_read(&domain.name);
    Ok(())
}

/// What signs: the CAs of these names, with the bundle of the recorded slots.
pub async fn authority(
    context: &Context,
    source: &dyn CaSource,
    domain: &Domain,
    names: &ChainNames,
    slots: &[SlotStatus],
) -> Result<Arc<Retirable>, Failure> {
    if let Some(remembered) = context.slots.lock().get(&domain.name)
        && let Some((known, authority)) = &remembered.authority
        && known == slots
    {
        return Ok(authority.clone());
    }
    let mut found = self::slots(context, domain).await?;
    let root = take(&mut found, &names.root)?;
    let issuing = take(&mut found, &names.issuing)?;
    let retiring = slots
        .iter()
        .filter(|slot| slot.kind == SlotKind::Issuing && slot.phase == SlotPhase::Retiring)
        .map(|slot| slot.key_id.clone())
        .collect();
    let chain = Chain::new(&issuing, &root.ca, bundle_of(slots), retiring)?;
    let authority = Arc::new(Retirable::new(source.authority(chain, issuing)?));
    let mut memory = context.slots.lock();
    let remembered = memory.entry(domain.name.clone()).or_default();
    let former = remembered.authority.replace((slots.to_vec(), authority.clone()));
    if let Some((_, former)) = former {
        former.retire();
    }
    Ok(authority)
}

/// Destroys a CA that nothing needs any more: its key where that is elsewhere, and then its Secret,
/// which alone tells of the key.
pub async fn destroy(context: &Context, domain: &Domain, name: &str) -> Result<(), Failure> {
    let mut slots = slots(context, domain).await?;
    let slot = slots.remove(name);
    if let Some(token) = slot.as_ref().and_then(token_of)
        && domain.authority != AuthoritySource::Pkcs11(token.clone())
    {
        // Keys are not made there any more: what was made, and has no Secret, is looked for with those
        // that have one. Its name may be another CA's by now, with a key elsewhere.
        let in_token = slots.into_iter().filter(|(_, slot)| token_of(slot).is_some());
        let kept = in_token.map(|(name, _)| name).collect();
        sweep(context, &token, &domain.uid, kept).await.map_err(|error| key_stays(name, &error))?;
    }
    destroy_slot(context, name, slot).await
}

/// Destroys what tokens hold for a TrustDomain that goes: those of its CAs, and the one in which the
/// next would have been made.
pub async fn sweep_all(
    context: &Context,
    resource: &TrustDomain,
    found: &[FoundSlot],
) -> Result<(), Failure> {
    let uid = resource.metadata.uid.as_deref().unwrap_or_default();
    let mut swept: Vec<TokenAddress> = Vec::new();
    for FoundSlot { facts, slot } in found {
        if let Some(token) = slot.as_ref().and_then(token_of)
            && !swept.contains(&token)
        {
            let done = sweep(context, &token, uid, Vec::new()).await;
            done.map_err(|error| key_stays(&facts.name, &error))?;
            swept.push(token);
        }
    }
    if let Ok(AuthoritySource::Pkcs11(token)) = AuthoritySource::parse(&resource.spec.authority)
        && !swept.contains(&token)
        && let Err(error) = sweep(context, &token, uid, Vec::new()).await
    {
        // No CA tells of it, and it may never have been there: a wrong label is no reason to stay.
        tracing::info!(token = token.label, %error, "it is not searched for keys without a CA");
    }
    Ok(())
}

async fn sweep(
    context: &Context,
    token: &TokenAddress,
    uid: &str,
    kept: Vec<String>,
) -> Result<(), Pkcs11Error> {
    source::pkcs11::sweep(&context.client, &context.view.namespace, token, uid, kept).await
}

fn key_stays(name: &str, error: &Pkcs11Error) -> SourceError {
    SourceError::KeyStays { name: name.to_owned(), why: error.to_string() }
}

fn token_of(slot: &Slot) -> Option<TokenAddress> {
    let key = slot.key.as_ref()?.in_token()?;
    Some(key.reference().token.clone())
}

/// The same for a CA that was read, if there was one in the Secret of this name.
pub async fn destroy_slot(
    context: &Context,
    name: &str,
    slot: Option<Slot>,
) -> Result<(), Failure> {
    let (client, namespace) = (&context.client, &context.view.namespace);
    let key = slot.and_then(|slot| slot.key);
    if let Some(key) = key.as_ref().and_then(SharedKey::in_token) {
        let destroyed = source::pkcs11::destroy(client, namespace, key.reference()).await;
        destroyed.map_err(|error| key_stays(name, &error))?;
    }
    Ok(apply::slots::destroy(client, namespace, name).await?)
}

/// The CAs with their keys, by the names of their Secrets.
pub(super) async fn slots(
    context: &Context,
    domain: &Domain,
) -> Result<HashMap<String, Slot>, Failure> {
    let found = read(&context.client, &context.view.namespace, &domain.name).await?;
    Ok(found.into_iter().filter_map(|found| Some((found.facts.name, found.slot?))).collect())
}

fn take(slots: &mut HashMap<String, Slot>, name: &str) -> Result<Slot, SignError> {
    slots
        .remove(name)
        .ok_or_else(|| SignError::Sign(format!("the CA Secret {name} is not there any more")))
}

impl SlotMemory {
    /// Forgets a trust domain that is gone.
    pub fn forget(&self, trust_domain: &str) {
        if let Some(Remembered { authority: Some((_, authority)), .. }) =
            self.lock().remove(trust_domain)
        {
            authority.retire();
        }
    }

    /// Ends the signing of what signs now, before anybody is told that something else does.
    pub fn retire(&self, trust_domain: &str) {
        if let Some(remembered) = self.lock().get_mut(trust_domain)
            && let Some((_, authority)) = remembered.authority.take()
        {
            authority.retire();
        }
    }

    fn forget_read(&self, trust_domain: &str) {
        if let Some(remembered) = self.lock().get_mut(trust_domain) {
            remembered.read = None;
        }
    }

    /// Remembered CAs are whole between calls, whoever panicked.
    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<String, Remembered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
