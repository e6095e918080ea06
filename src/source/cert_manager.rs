//! `certManager`: an issuing CA, whose key is made here and stays here, is requested of an issuer of
//! cert-manager's as a CertificateRequest, and taken up when that is fulfilled.
//!
//! Which root is to be trusted is known only from what comes back. So the first request is made
//! before anything is offered; later, what was taken up last tells the root, until a request brings
//! another, which then is offered in its place: a rotation, with overlap. The key of a request lies
//! in memory alone: a restart makes another request.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use kube::api::{ApiResource, DeleteParams, DynamicObject, PostParams, Preconditions};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{CaSource, Making, SourceError, Unavailable};
use crate::api::SlotKind;
use crate::api::conditions::Reason;
use crate::api::names::TRUST_DOMAIN_LABEL;
use crate::decide::schedule::{BACKDATE, saturating_add, whole_seconds};
use crate::decide::slots::{Offer, OfferedRoot, Supply};
use crate::identity::{AuthorityKind, Domain, IssuerName};
use crate::observe::slots::read;
use crate::sign::request::CaRequest;
use crate::sign::{Imported, Refusal, SharedKey, SignError, Slot};
use crate::wire::WireError;
use crate::x509;

/// How long what was asked for just now is waited for: a signer that is well takes no longer, and
/// nobody is to hear of the others sooner.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(250);
/// A signer counts a life from when it signs, and by its own clock.
const LEEWAY: SignedDuration = SignedDuration::from_mins(10);

/// An issuer of cert-manager's.
pub struct CertManagerSource {
    client: Client,
    /// The operator's own, where the requests are.
    namespace: String,
    issuer: IssuerName,
    state: Mutex<State>,
    /// Set where another root than before came back.
    is_news: AtomicBool,
}

#[derive(Default)]
struct State {
    asked: Option<Asked>,
    /// What came back and was not taken up yet.
    had: Option<Imported>,
}

/// A request that waits.
struct Asked {
    uid: String,
    key: SharedKey,
    /// When the CA is to end at the latest.
    end: Timestamp,
}

/// What became of a request.
#[derive(Debug, PartialEq)]
enum Verdict {
    Waiting(String),
    Refused(String),
    /// `status.certificate` and `status.ca`, PEM.
    Signed(String, String),
}

impl CertManagerSource {
    /// The issuer of this name.
    pub fn new(client: Client, namespace: String, issuer: IssuerName) -> Self {
        let (state, is_news) = Default::default();
        CertManagerSource { client, namespace, issuer, state, is_news }
    }

    fn requests(&self) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("cert-manager.io", "v1", "CertificateRequest");
        let kind = ApiResource::from_gvk(&kind);
        Api::namespaced_with(self.client.clone(), &self.namespace, &kind)
    }

    /// The root that was taken up last, if there is one and it is still to be trusted.
    async fn known_root(&self, domain: &Domain) -> Result<Option<Slot>, Unavailable> {
        let found = read(&self.client, &self.namespace, &domain.name).await;
        let found = found.map_err(|error| {
            unavailable(Reason::AuthorityUnavailable, format!("the CA Secrets: {error}"))
        })?;
        let roots = found.into_iter().filter(|found| {
            let origin = found.facts.content.as_ref().map(|content| content.origin);
            found.facts.kind == SlotKind::Root && origin == Ok(AuthorityKind::CertManager)
        });
        let newest = roots.max_by_key(|found| found.facts.number).and_then(|found| found.slot);
        Ok(newest.filter(|root| !domain.ca.distrust.contains(&root.ca.key_id)))
    }

    /// Asks for a CA, or looks what became of that. Without an error there is one in `had`.
    async fn advance(
        &self,
        state: &mut State,
        domain: &Domain,
        now: Timestamp,
    ) -> Result<(), Unavailable> {
        if state.had.is_some() {
            return Ok(());
        }
        let name = request_name(domain);
        let place = format!("CertificateRequest {}/{name}", self.namespace);
        let began = Instant::now();
        let since = || {
            let passed = SignedDuration::try_from(began.elapsed()).unwrap_or_default();
            saturating_add(now, passed)
        };
        let mut looks = 1;
        if state.asked.is_none() {
            state.asked = Some(self.request(&name, &place, domain, now).await?);
            looks = PATIENCE.as_millis() / LOOK.as_millis();
        }
        let mut result = self.look(state, &name, &place, domain, since()).await;
        while state.asked.is_some() && result.is_err() && looks > 1 {
            looks -= 1;
            tokio::time::sleep(LOOK).await;
            result = self.look(state, &name, &place, domain, since()).await;
        }
        state.had = Some(result?);
        Ok(())
    }

    /// Looks what became of what was asked for. It is forgotten where nothing more is to come of it.
    async fn look(
        &self,
        state: &mut State,
        name: &str,
        place: &str,
        domain: &Domain,
        now: Timestamp,
    ) -> Result<Imported, Unavailable> {
        let found = self.requests().get_opt(name).await.map_err(|e| self.refused(place, e))?;
        let asked = state.asked.take();
        let is_asked = |found: &DynamicObject, asked: &Asked| {
            found.metadata.uid.as_deref() == Some(asked.uid.as_str())
        };
        let (found, asked) = match (found, asked) {
            (Some(found), Some(asked)) if is_asked(&found, &asked) => (found, asked),
            _ => {
                let message = format!("{place} is gone before it was signed: another is made");
                return Err(unavailable(Reason::AuthorityPending, message));
            }
        };
        let issuer = self.issuer_text();
        let result = match verdict(&found.data["status"]) {
            Verdict::Waiting(why) => {
                state.asked = Some(asked);
                let message = format!(
                    "{place} waits for {issuer} ({why}): see that it is approved, and that the issuer is there and Ready"
                );
                return Err(unavailable(Reason::AuthorityPending, message));
            }
            Verdict::Refused(why) => Err(unavailable(
                Reason::AuthorityDenied,
                format!(
                    "{place} was not fulfilled ({why}): see to {issuer}, or to whoever approves its requests; another request is made later"
                ),
            )),
            Verdict::Signed(certificate, _) if let Some(moment) = is_early(&certificate, now) => {
                state.asked = Some(asked);
                let message = format!(
                    "{place} is signed, and taken up at {moment}: an agent whose clock is behind would refuse it before"
                );
                return Err(unavailable(Reason::AuthorityPending, message));
            }
            Verdict::Signed(certificate, root) => {
                self.take(&asked, &certificate, &root, domain, now).await
            }
        };
        self.remove(name, &found).await;
        result
    }

    async fn request(
        &self,
        name: &str,
        place: &str,
        domain: &Domain,
        now: Timestamp,
    ) -> Result<Asked, Unavailable> {
        let made = {
            let domain = domain.clone();
            // An RSA key takes seconds: not on a thread that others wait for.
            tokio::task::spawn_blocking(move || CaRequest::new(&domain)).await
        };
        let failed = |why: String| unavailable(Reason::AuthorityUnavailable, why);
        let made = made.map_err(|error| failed(error.to_string()))?;
        let CaRequest { key, pem, .. } = made.map_err(|error| failed(error.to_string()))?;
        let life = domain.ca.issuing_life;
        let IssuerName { name: issuer, kind, group } = &self.issuer;
        let body = json!({
            "apiVersion": "cert-manager.io/v1",
            "kind": "CertificateRequest",
            "metadata": {
                "name": name,
                "namespace": self.namespace,
                "labels": {TRUST_DOMAIN_LABEL: domain.name},
                "ownerReferences": [{
                    "apiVersion": "countersign.dev/v1alpha1", "kind": "TrustDomain",
                    "name": domain.name, "uid": domain.uid, "controller": true,
                    "blockOwnerDeletion": false,
                }],
            },
            "spec": {
                "request": STANDARD.encode(pem),
                "isCA": true,
                "usages": ["cert sign", "crl sign"],
                "duration": format!("{}s", life.seconds()),
                "issuerRef": {"name": issuer, "kind": kind, "group": group},
            },
        });
        let body: DynamicObject =
            serde_json::from_value(body).map_err(|error| failed(error.to_string()))?;
        let requests = self.requests();
        let mut created = requests.create(&PostParams::default(), &body).await;
        if matches!(&created, Err(kube::Error::Api(status)) if status.code == 409) {
            // Of an earlier life, which took the key along.
            let old = requests.get_opt(name).await.map_err(|e| self.refused(place, e))?;
            if let Some(old) = old {
                let labels = old.metadata.labels.as_ref();
                let label = labels.and_then(|labels| labels.get(TRUST_DOMAIN_LABEL));
                if label != Some(&domain.name) {
                    return Err(failed(format!(
                        "{place} is not of the operator's making: delete it, or give it another name"
                    )));
                }
                self.remove(name, &old).await;
            }
            created = requests.create(&PostParams::default(), &body).await;
        }
        let made = created.map_err(|error| self.refused(place, error))?;
        let end = saturating_add(life.after(whole_seconds(now)), LEEWAY);
        Ok(Asked { uid: made.metadata.uid.unwrap_or_default(), key, end })
    }

    /// Judges what was signed, as if a stranger had handed it over.
    async fn take(
        &self,
        asked: &Asked,
        certificate: &str,
        root: &str,
        domain: &Domain,
        now: Timestamp,
    ) -> Result<Imported, Unavailable> {
        let refused = |why: String| {
            let message =
                format!("the CA that {} signed cannot be used: {why}", self.issuer_text());
            unavailable(Reason::CaRefused, message)
        };
        let imported =
            Imported::read_signed(certificate, Some(root), asked.key.clone(), domain, now).await;
        let imported = imported.map_err(|refusal| refused(with_cert_manager(&refusal)))?;
        let found = x509::read_ca(&imported.issuing.certificate);
        let found = found.map_err(|error| refused(error.to_string()))?;
        match found.not_after > asked.end {
            true => Err(refused(format!("it ends at {}, later than was asked", found.not_after))),
            false => Ok(imported),
        }
    }

    /// A request that is done with goes. One that stays is removed before the next.
    async fn remove(&self, name: &str, request: &DynamicObject) {
        let (uid, resource_version) = (request.metadata.uid.clone(), None);
        let preconditions = Preconditions { uid, resource_version };
        let params = DeleteParams::default().preconditions(preconditions);
        if let Err(error) = self.requests().delete(name, &params).await {
            tracing::debug!(request = name, %error, "not removed");
        }
    }

    fn refused(&self, place: &str, error: kube::Error) -> Unavailable {
        let message = match WireError::from(error) {
            WireError::NotFound(_) => "the cluster has no CertificateRequests: install cert-manager, or name another authority".to_owned(),
            error => format!("{place} could not be made or read: {error}"),
        };
        unavailable(Reason::AuthorityUnavailable, message)
    }

    fn issuer_text(&self) -> String {
        format!("the {} {}", self.issuer.kind, self.issuer.name)
    }
}

#[async_trait]
impl CaSource for CertManagerSource {
    async fn supply(&self, domain: &Domain, now: Timestamp) -> Result<Supply, Unavailable> {
        let mut state = self.state.lock().await;
        let root = match (&state.had, self.known_root(domain).await?) {
            (Some(imported), _) => imported.offer().root,
            (None, Some(known)) => OfferedRoot {
                key_id: known.ca.key_id.clone(),
                certificate_pem: x509::write_pem([&known.certificate]),
            },
            (None, None) => {
                self.advance(&mut state, domain, now).await?;
                let had = state.had.as_ref();
                had.map(|imported| imported.offer().root).ok_or_else(nothing)?
            }
        };
        Ok(Supply::Offered(Offer { root, issuing: None }))
    }

    async fn make(&self, making: Making<'_>) -> Result<Slot, SourceError> {
        let Making { domain, order, parent, now } = making;
        let mut state = self.state.lock().await;
        if order.kind == SlotKind::Root {
            return match &state.had {
                Some(imported) => Ok(imported.root.clone()),
                None => {
                    let known = self.known_root(domain).await.map_err(SourceError::Withheld)?;
                    known.ok_or(SourceError::Changed)
                }
            };
        }
        self.advance(&mut state, domain, now).await.map_err(SourceError::Withheld)?;
        let is_under = |imported: &Imported| {
            parent.is_none_or(|parent| parent.certificate == imported.root.certificate)
        };
        match state.had.take() {
            Some(imported) if is_under(&imported) => Ok(imported.into_slot(SlotKind::Issuing)),
            // It comes under another root: that one is offered from now on.
            other => {
                state.had = other;
                self.is_news.store(true, Ordering::SeqCst);
                Err(SourceError::Changed)
            }
        }
    }

    fn is_far_away(&self) -> bool {
        true
    }

    fn has_news(&self) -> bool {
        self.is_news.swap(false, Ordering::SeqCst)
    }
}

fn request_name(domain: &Domain) -> String {
    format!("countersign-{}-issuing", domain.name)
}

/// What a request's status says (cert-manager.io/v1).
fn verdict(status: &Value) -> Verdict {
    let conditions = status["conditions"].as_array();
    let condition = |kind: &str| {
        let found = conditions?.iter().find(|condition| condition["type"] == kind)?;
        let text = |key: &str| found[key].as_str().unwrap_or_default();
        Some((text("status"), text("reason"), text("message")))
    };
    let said = |(_, reason, message): (&str, &str, &str)| {
        let words: Vec<&str> = message.split_whitespace().collect();
        format!("{reason}: {}", words.join(" ")).chars().take(300).collect::<String>()
    };
    for kind in ["Denied", "InvalidRequest"] {
        if let Some(found @ ("True", ..)) = condition(kind) {
            return Verdict::Refused(said(found));
        }
    }
    let pem = |key: &str| {
        let decoded = STANDARD.decode(status[key].as_str()?).ok()?;
        String::from_utf8(decoded).ok().filter(|pem| !pem.trim().is_empty())
    };
    match (condition("Ready"), pem("certificate")) {
        (Some(found @ (_, "Failed" | "Denied", _)), _) => Verdict::Refused(said(found)),
        (Some(("True", ..)), Some(certificate)) => {
            Verdict::Signed(certificate, pem("ca").unwrap_or_default())
        }
        (Some(found), _) => Verdict::Waiting(said(found)),
        (None, _) => Verdict::Waiting("nobody has looked at it".to_owned()),
    }
}

/// When a CA is old enough for peers whose clocks are behind by as much as leaves begin before they
/// are signed, where it soon is: cert-manager has a CA begin when it signs it, by its own clock.
fn is_early(certificate: &str, now: Timestamp) -> Option<Timestamp> {
    let certificates = x509::read_pem(certificate.as_bytes()).ok()?;
    let start = x509::read_ca(certificates.first()?).ok()?.not_before;
    let moment = saturating_add(start, BACKDATE);
    (now < moment && start <= saturating_add(now, LEEWAY)).then_some(moment)
}

fn with_cert_manager(refusal: &Refusal) -> String {
    match refusal {
        Refusal::NoRoot(place) => format!(
            "the root CA is missing: {place} is not self-signed, and neither status.certificate nor status.ca of the request has the self-signed certificate that signed it: let the issuer tell it (of a CA issuer, put the root into ca.crt of its Secret)"
        ),
        Refusal::OtherKey => "it is not for the key that was asked for".to_owned(),
        other => other.to_string(),
    }
}

fn unavailable(reason: Reason, message: String) -> Unavailable {
    Unavailable { reason, message }
}

fn nothing() -> Unavailable {
    let why = SignError::Sign("there is no CA after all".to_owned());
    unavailable(Reason::AuthorityUnavailable, why.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_a_request_is_read_from_its_conditions() {
        let of = |kind: &str, status: &str, reason: &str| json!({"type": kind, "status": status, "reason": reason, "message": "as it is"});
        let waiting = |said: &str| Verdict::Waiting(said.to_owned());
        let refused = |said: &str| Verdict::Refused(said.to_owned());
        let approved = of("Approved", "True", "cert-manager.io");
        let ready = of("Ready", "True", "Issued");
        for (status, expected) in [
            (json!({}), waiting("nobody has looked at it")),
            (json!({"conditions": [approved]}), waiting("nobody has looked at it")),
            (
                json!({"conditions": [of("Ready", "False", "Pending")]}),
                waiting("Pending: as it is"),
            ),
            (json!({"conditions": [of("Denied", "True", "policy")]}), refused("policy: as it is")),
            (json!({"conditions": [of("Ready", "False", "Failed")]}), refused("Failed: as it is")),
            (
                json!({"conditions": [of("InvalidRequest", "True", "Bad")]}),
                refused("Bad: as it is"),
            ),
            // Ready without a certificate is not ready.
            (json!({"conditions": [ready]}), waiting("Issued: as it is")),
            (
                json!({"conditions": [ready], "certificate": STANDARD.encode("crt"), "ca": STANDARD.encode("ca")}),
                Verdict::Signed("crt".to_owned(), "ca".to_owned()),
            ),
            (
                json!({"conditions": [ready], "certificate": STANDARD.encode("crt")}),
                Verdict::Signed("crt".to_owned(), String::new()),
            ),
        ] {
            assert_eq!(verdict(&status), expected, "{status}");
        }
    }
}
