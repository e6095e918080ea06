//! The CRL distribution points: plain HTTP, from every replica, whoever leads and whether or not
//! the API server answers.
//!
//! Each replica follows the ConfigMaps that hold CRLs and serves what it saw last. A CRL is signed,
//! so nothing is lost by HTTP without TLS; and a peer that checks a certificate cannot be asked to
//! check another one first (RFC 5280, section 8).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::Context;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client, ResourceExt};
use prometheus_client::metrics::counter::Counter;
use tokio::net::TcpListener;

use crate::api::names::REVOCATION_LABEL;
use crate::observe::view::RevocationObject;
use crate::watch::drive;
use crate::x509::Sha256;

/// How long a cache may hand out a CRL without asking again. Whoever asks again is told in a few
/// bytes that nothing changed.
const CACHED_FOR: HeaderValue = HeaderValue::from_static("public, max-age=60");
/// RFC 2585, section 4.2.
const PKIX_CRL: HeaderValue = HeaderValue::from_static("application/pkix-crl");

/// The CRLs as they are served, by the key id of their CA.
#[derive(Clone, Debug, Default)]
pub struct Shelf(Arc<RwLock<HashMap<String, Served>>>);

#[derive(Clone, Debug)]
struct Served {
    config_map: String,
    der: Bytes,
    etag: HeaderValue,
}

impl Shelf {
    /// Keeps what a watch says.
    fn take(&self, event: Event<ConfigMap>) {
        let mut shelf = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match event {
            // What went while the watch was broken is of a CA that nobody trusts: it may stay.
            Event::Init | Event::InitDone => {}
            Event::InitApply(object) | Event::Apply(object) => {
                let Some(RevocationObject::Crl(crl)) = RevocationObject::of(&object) else {
                    return;
                };
                // One that is damaged is about to be written anew: the last good one stays.
                if crl.crl.is_none() {
                    return;
                }
                let etag = format!("\"{}\"", Sha256::of(&crl.der));
                let Ok(etag) = HeaderValue::from_str(&etag) else { return };
                let config_map = object.name_any();
                shelf.insert(crl.key_id, Served { config_map, der: crl.der.into(), etag });
            }
            Event::Delete(object) => {
                let name = object.name_any();
                shelf.retain(|_, served| served.config_map != name);
            }
        }
    }

    fn get(&self, key_id: &str) -> Option<Served> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(key_id).cloned()
    }
}

/// Follows the ConfigMaps that hold CRLs. Does not end by itself.
pub async fn follow(client: Client, namespace: &str, shelf: &Shelf, errors: Counter) {
    let api = Api::<ConfigMap>::namespaced(client, namespace);
    let stream = watch(api, Config::default().labels(REVOCATION_LABEL)).default_backoff();
    drive::<ConfigMap>("configmaps", errors, stream, |event| shelf.take(event)).await;
}

/// Binds the address.
///
/// # Errors
/// When it is taken, or not this machine's.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("--crl-listen {address} cannot be bound: choose another"))
}

/// Serves until it fails.
pub async fn serve(listener: TcpListener, shelf: Shelf) -> anyhow::Result<()> {
    let router = Router::new()
        .route("/crl/{file}", get(crl))
        .fallback(async || (StatusCode::NOT_FOUND, "CRLs are at /crl/<key id>.crl\n"))
        .with_state(shelf);
    Ok(axum::serve(listener, router).await?)
}

async fn crl(State(shelf): State<Shelf>, Path(file): Path<String>, headers: HeaderMap) -> Response {
    let served = file.strip_suffix(".crl").and_then(|key_id| shelf.get(key_id));
    let Some(served) = served else {
        return (StatusCode::NOT_FOUND, "there is no CA with that key id here\n").into_response();
    };
    let cache = [(header::ETAG, served.etag.clone()), (header::CACHE_CONTROL, CACHED_FOR)];
    let is_known = headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|tags| tags.split(','))
        .map(|tag| tag.trim().trim_start_matches("W/"))
        .any(|tag| tag == "*" || tag.as_bytes() == served.etag.as_bytes());
    if is_known {
        return (StatusCode::NOT_MODIFIED, cache).into_response();
    }
    (cache, [(header::CONTENT_TYPE, PKIX_CRL)], served.der).into_response()
}
