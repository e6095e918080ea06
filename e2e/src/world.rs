//! An API server with an operator that leads and a TrustDomain: what most tests start from.

use std::sync::Arc;

use serde_json::json;
use tokio::sync::OnceCell;

use crate::install::apply;
use crate::operator::{Operator, Options};
use crate::{ApiServer, Namespace, Policies};

/// The name of the TrustDomain of a [`World`]: the default one, for all namespaces.
pub const TRUST_DOMAIN: &str = "test";
/// Its domain.
pub const DOMAIN: &str = "test.countersign.dev";

/// An API server, an operator, a TrustDomain.
pub struct World {
    /// The operator; dropped before the server it talks to.
    pub operator: Operator,
    /// The API server.
    pub server: Arc<ApiServer>,
}

impl World {
    /// One for a single test, which may stop parts of it.
    pub async fn start() -> Self {
        Self::start_with(Policies::Deny).await
    }

    /// One whose admission policies do this.
    pub async fn start_with(policies: Policies) -> Self {
        let server = ApiServer::start_with(policies, &[]).await;
        let trust_domain = json!({
            "apiVersion": "countersign.dev/v1alpha1",
            "kind": "TrustDomain",
            "metadata": {"name": TRUST_DOMAIN},
            "spec": {"domain": DOMAIN, "default": true, "authority": {"selfSigned": {}}},
        });
        apply(&server.client().await, &trust_domain).await;
        let operator = Operator::start_leading(&server, Options::default()).await;
        Self { operator, server }
    }

    /// The one that the tests of a binary share: each works in a namespace of its own, and leaves
    /// the TrustDomain and the operator alone. It lives as long as the process.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<World> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    /// A shared one that refuses nothing: for what the operator does about things that others did
    /// while no policy kept them from it.
    pub async fn lenient() -> &'static Self {
        static LENIENT: OnceCell<World> = OnceCell::const_new();
        LENIENT.get_or_init(|| Self::start_with(Policies::Audit)).await
    }

    /// A namespace for a test.
    pub async fn namespace(&self, test: &str) -> Namespace {
        Namespace::create(&self.server, test).await
    }
}
