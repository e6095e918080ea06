//! /healthz, /readyz and /metrics.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use super::lease::Contact;

/// A replica that leads or stands by asks the API server every two seconds. One that got no
/// answer for this long is of no use, and says so.
const SILENCE: Duration = Duration::from_secs(30);

#[derive(Clone)]
struct Served {
    registry: Arc<Registry>,
    contact: Contact,
}

/// Binds the address.
///
/// # Errors
/// When it is taken, or not this machine's.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("--listen {address} cannot be bound: choose another"))
}

/// Serves until it fails.
pub async fn serve(
    listener: TcpListener,
    registry: Arc<Registry>,
    contact: Contact,
) -> anyhow::Result<()> {
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(Served { registry, contact });
    Ok(axum::serve(listener, router).await?)
}

async fn readyz(State(served): State<Served>) -> impl IntoResponse {
    if served.contact.is_within(SILENCE) {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the API server does not answer\n")
    }
}

async fn metrics(State(served): State<Served>) -> impl IntoResponse {
    let mut text = String::new();
    match encode(&mut text, &served.registry) {
        Ok(()) => (StatusCode::OK, [(header::CONTENT_TYPE, OPEN_METRICS)], text),
        Err(_) => {
            let text = "the metrics could not be written\n".to_owned();
            (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_TYPE, "text/plain")], text)
        }
    }
}

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
