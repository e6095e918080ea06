//! What tests do with an identity's Secret: wait for it, judge it, damage it.

use std::time::Duration;

use countersign::api::AgentIdentity;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::Namespace;
use crate::audit::Requests;
use crate::delivered::{Delivered, Leaf};
use crate::users::User;
use crate::wait::{seconds, wait_for};
use crate::world::DOMAIN;

impl Namespace {
    /// The SPIFFE ID of a ServiceAccount here, in the trust domain of a `World`.
    pub fn spiffe_id(&self, service_account: &str) -> String {
        format!("spiffe://{DOMAIN}/ns/{}/sa/{service_account}", self.name)
    }

    /// Waits until an identity is Ready, and judges what it delivered.
    pub async fn issued(&self, name: &str) -> (AgentIdentity, Secret, Leaf) {
        let identity = self.ready(name).await;
        let secret = self.secret_of(name).await;
        let status = identity.status.as_ref().expect("it is Ready");
        let id = status.spiffe_id.as_ref().expect("what is Ready has a SPIFFE ID");
        let leaf = Delivered::read(&secret).judge(id);
        (identity, secret, leaf)
    }

    /// Waits until the status speaks of the certificate that is in the Secret, and gives it.
    pub async fn settled(&self, name: &str) -> Leaf {
        wait_for("Secret and status agree", seconds(10), async || {
            let status = self.ready(name).await.status.ok_or("no status")?;
            let recorded = status.certificate.ok_or("no certificate")?.serial_number;
            let secret = self.secret_of(name).await;
            if secret.annotations().get("countersign.dev/serial") != Some(&recorded) {
                return Err("the status speaks of another certificate");
            }
            Ok(Delivered::read(&secret).judge(&status.spiffe_id.ok_or("no SPIFFE ID")?))
        })
        .await
    }

    /// The operator's changes here.
    pub fn operators_writes(&self) -> Requests {
        self.server.requests_by(User::Operator).within(&self.name).writes()
    }

    /// Writes a file of an identity's Secret by hand.
    pub async fn edit(&self, identity: &str, key: &str, value: &str) -> Secret {
        let value = ByteString(value.as_bytes().to_vec());
        self.patch_secret_of(identity, json!({"data": {key: value}})).await
    }

    /// Merges a change into an identity's Secret.
    pub async fn patch_secret_of(&self, identity: &str, patch: Value) -> Secret {
        let name = countersign::api::names::default_secret_name(identity);
        self.api()
            .patch(&name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .unwrap_or_else(|error| panic!("cannot change Secret {name}: {error}"))
    }
}

/// The names of a Secret's files, in order.
pub fn keys(secret: &Secret) -> Vec<String> {
    secret.data.iter().flatten().map(|(key, _)| key.clone()).collect()
}

/// `attempt` tells how long it took. Best of three, since somebody else may have this machine's
/// processors for a moment.
pub async fn within_a_second(what: &str, mut attempt: impl AsyncFnMut() -> Duration) {
    let mut all = Vec::new();
    for _ in 0..3 {
        all.push(attempt().await);
        if all.last() < Some(&seconds(1)) {
            return;
        }
    }
    panic!("{what}: not within a second, but after {all:?}");
}
