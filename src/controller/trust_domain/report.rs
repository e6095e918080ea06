//! The status of a TrustDomain in the making, and the one patch that writes it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use kube::Resource;

use super::Failure;
use super::cluster::ClusterSpread;
use super::revocation::Revocation;
use crate::api::conditions::{
    BUNDLE_PUBLISHED, CRL_PUBLISHED, DEFAULT, DELETING, READY, ROTATING, Reason,
};
use crate::api::{BundleStatus, RemoteStatus, TrustDomain, TrustDomainStatus};
use crate::controller::{Context, some_of};
use crate::decide::schedule::whole_seconds;
use crate::decide::slots::SlotPlan;
use crate::identity::Domain;
use crate::sign::Chain;
use crate::status::{condition, patch_of};
use crate::wire::{self, WireError};
use crate::x509::Sha256;

/// A status in the making, on top of the one that is there.
pub struct Report {
    pub status: TrustDomainStatus,
    generation: i64,
    /// When the turn began.
    pub now: Timestamp,
    failure: Option<(Reason, String)>,
}

impl Report {
    /// Begins with the status that is there.
    pub fn new(resource: &TrustDomain, now: Timestamp) -> Self {
        Report {
            status: resource.status.clone().unwrap_or_default(),
            generation: resource.metadata.generation.unwrap_or_default(),
            now,
            failure: None,
        }
    }

    fn set(&mut self, kind: &str, is_true: bool, reason: Reason, message: String) {
        let conditions = &mut self.status.conditions;
        let new = condition(conditions, kind, is_true, reason, message, self.generation, self.now);
        conditions.retain(|condition| condition.type_ != kind);
        conditions.push(new);
        conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
    }

    /// Nothing signs, and why.
    pub fn not_ready(&mut self, reason: Reason, message: String) {
        self.failure = Some((reason, message.clone()));
        self.set(READY, false, reason, message);
    }

    /// It was deleted, and these identities still belong to it; None where it was not.
    pub fn deleting(&mut self, identities: Option<&BTreeSet<String>>) {
        let Some(identities) = identities else {
            return self.status.conditions.retain(|condition| condition.type_ != DELETING);
        };
        let message = format!(
            "it was deleted and is held, since {} of its identities are left ({}): delete them, or name another trust domain in their spec.trustDomain; or set spec.deletionPolicy: Orphan, and they keep their certificates until these end and get no others. Until then it serves them",
            identities.len(),
            some_of(identities)
        );
        // Told of once, not once for each identity that goes.
        if !self.status.conditions.iter().any(|condition| condition.type_ == DELETING) {
            self.failure = Some((Reason::IdentitiesRemain, message.clone()));
        }
        self.set(DELETING, true, Reason::IdentitiesRemain, message);
    }

    /// The CAs, and how far a rotation has come.
    pub fn slots(&mut self, plan: &SlotPlan) {
        self.status.slots = plan.slots.clone();
        self.status.rotation = plan.rotation.clone();
        match &plan.news {
            Some((reason, message)) => {
                self.set(ROTATING, true, *reason, message.clone());
                if *reason == Reason::Stalled {
                    self.failure = Some((*reason, message.clone()));
                }
            }
            None => self.status.conditions.retain(|condition| condition.type_ != ROTATING),
        }
    }

    /// The bundle that is published now. Its number only grows.
    pub fn bundle(&mut self, bundle: Sha256) {
        let sha256 = bundle.to_string();
        let sequence = match &self.status.bundle {
            Some(bundle) if bundle.sha256 == sha256 => bundle.sequence,
            Some(bundle) => bundle.sequence + 1,
            None => 1,
        };
        self.status.bundle = Some(BundleStatus { sha256, sequence });
    }

    /// The CRLs that are published.
    pub fn crls(&mut self, revocation: &Revocation, unreached: &BTreeMap<String, Timestamp>) {
        if let Some(status) = &revocation.status {
            let mut status = status.clone();
            let before = self.status.crl.as_ref().map(|crl| crl.number).unwrap_or_default();
            status.number = status.number.max(before);
            self.status.crl = Some(status);
        }
        match &revocation.failure {
            Some((reason, message)) => {
                self.failure = Some((*reason, message.clone()));
                self.set(CRL_PUBLISHED, false, *reason, message.clone());
            }
            None if !unreached.is_empty() => {
                let names = unreached.keys().cloned().collect();
                let first = unreached.values().min().copied().unwrap_or(self.now);
                let message = format!(
                    "crl.pem could not be written to {}, the first of them since {}: what is revoked is said to be so 30 s later without them. See BundlePublished",
                    some_of(&names),
                    whole_seconds(first)
                );
                self.set(CRL_PUBLISHED, false, Reason::NamespacesUnreached, message);
            }
            None => {
                let but = match revocation.signed_elsewhere.as_slice() {
                    [] => String::new(),
                    elsewhere => format!(
                        ", but for {}, whose keys are not Countersign's: crl.pem lacks theirs, and readers that look for a CRL of every CA need them from where they are published",
                        elsewhere.join(", ")
                    ),
                };
                let message = format!("every CA has a CRL that is up to date{but}");
                self.set(CRL_PUBLISHED, true, Reason::UpToDate, message);
            }
        }
    }

    /// A CA signs.
    pub fn active(&mut self, chain: &Chain) {
        let (key_id, end) = (&chain.facts.key_id, chain.facts.not_after);
        self.set(READY, true, Reason::Active, format!("the CA {key_id} signs until {end}"));
    }

    /// The bundle of a remote trust domain is held.
    pub fn fetched(&mut self, held: &RemoteStatus) {
        let count = held.certificates.len();
        let certificates = if count == 1 { "certificate" } else { "certificates" };
        let (url, since) = (&held.url, held.since.0);
        let message = format!(
            "the bundle of {url} is trusted as it is since {since}: {count} CA {certificates}"
        );
        self.set(READY, true, Reason::Fetched, message);
    }

    /// Whether every selected namespace holds the bundle, and the cluster as a whole.
    pub fn published(&mut self, unreached: &BTreeSet<String>, cluster: &ClusterSpread) {
        if unreached.is_empty() {
            let everywhere = "every selected namespace holds the bundle";
            if let ClusterSpread::Failed(why) = cluster {
                let reason = Reason::ClusterTrustBundleUnreached;
                let message = format!("{everywhere}; the cluster as a whole does not: {why}");
                self.failure = Some((reason, message.clone()));
                return self.set(BUNDLE_PUBLISHED, false, reason, message);
            }
            let message = everywhere.to_owned()
                + match cluster {
                    ClusterSpread::Unserved => "; this API server serves no ClusterTrustBundles",
                    ClusterSpread::Unwanted => "",
                    _ => ", and so does the ClusterTrustBundle",
                };
            self.set(BUNDLE_PUBLISHED, true, Reason::Published, message);
            return;
        }
        let mut message = format!(
            "the bundle could not be written to {}: see the operator's log; a ConfigMap of that name that is not ours must be deleted or renamed",
            some_of(unreached)
        );
        if let ClusterSpread::Failed(why) = cluster {
            message = format!("{message}; {why}");
        }
        self.failure = Some((Reason::NamespacesUnreached, message.clone()));
        self.set(BUNDLE_PUBLISHED, false, Reason::NamespacesUnreached, message);
    }

    /// Whether this is the default, where it is marked so.
    pub fn default(&mut self, domain: &Domain, older: Option<String>) {
        match (domain.is_default, older) {
            (false, _) => self.status.conditions.retain(|condition| condition.type_ != DEFAULT),
            (true, None) => {
                let message = "identities that name no trust domain belong to this one".to_owned();
                self.set(DEFAULT, true, Reason::IsDefault, message);
            }
            (true, Some(older)) => {
                let message = format!(
                    "the older TrustDomain {older} is marked default as well, and is the one that counts: take default: true off one of the two"
                );
                self.failure = Some((Reason::DuplicateDefault, message.clone()));
                self.set(DEFAULT, false, Reason::DuplicateDefault, message);
            }
        }
    }
}

/// Writes the status where it changed, and tells of a failure that is new. True if it was written.
pub async fn publish(
    context: &Context,
    resource: &TrustDomain,
    report: Report,
) -> Result<bool, Failure> {
    let previous = resource.status.as_ref();
    if previous == Some(&report.status) {
        return Ok(false);
    }
    let name = resource.metadata.name.as_deref().unwrap_or_default();
    let version = resource.metadata.resource_version.as_deref().unwrap_or_default();
    let path = format!("/apis/countersign.dev/v1alpha1/trustdomains/{name}/status");
    match wire::patch(&context.client, &path, &patch_of(version, previous, &report.status)).await {
        Ok(_) | Err(WireError::NotFound(_)) => {}
        Err(error) => return Err(error.into()),
    }
    if let Some((reason, message)) =
        report.failure.filter(|(reason, _)| *reason != Reason::Preparing)
    {
        tracing::warn!(trust_domain = name, %reason, "{message}");
        context.tell(resource.object_ref(&()), true, reason.as_str(), "Reconcile", message);
    }
    Ok(true)
}
