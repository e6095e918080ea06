//! A tool server for the Model Context Protocol that knows nothing of certificates: plain HTTP, and on the loopback address,
//! so that nobody reaches it but what runs in its own pod. There an Envoy does the rest: it speaks mutual TLS with the callers,
//! and lets through what an AgentAccessPolicy says (manifests/examples/mcp-server.yaml).

use std::process::ExitCode;

use anyhow::Context;
use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

use crate::cli::McpArgs;

/// The version of the protocol that it answers `initialize` with.
const PROTOCOL: &str = "2025-06-18";
/// "Method not found" and "invalid params" of JSON-RPC 2.0.
const NO_METHOD: i64 = -32601;
const NO_TOOL: i64 = -32602;

pub async fn run(args: McpArgs) -> Result<ExitCode, anyhow::Error> {
    // As process 1 of a container a signal without a handler is ignored.
    let mut terminate = signal(SignalKind::terminate())?;
    let listener = TcpListener::bind(&args.listen)
        .await
        .with_context(|| format!("cannot listen at {}", args.listen))?;
    info!(listen = args.listen, "I offer the tools search and delete to whoever reaches me");
    let server = axum::serve(listener, Router::new().route("/mcp", post(answer)));
    let terminated = async move {
        terminate.recv().await;
    };
    server.with_graceful_shutdown(terminated).await?;
    Ok(ExitCode::SUCCESS)
}

async fn answer(body: Bytes) -> Response {
    let Ok(message) = serde_json::from_slice::<Value>(&body) else {
        return (StatusCode::BAD_REQUEST, "write one JSON-RPC message").into_response();
    };
    let method = message["method"].as_str().unwrap_or_default();
    info!(method, tool = message["params"]["name"].as_str(), "asked");
    match message.get("id") {
        // A notification wants no answer.
        None => StatusCode::ACCEPTED.into_response(),
        Some(id) => {
            let mut reply = json!({"jsonrpc": "2.0", "id": id});
            match result(method, &message["params"]) {
                Ok(result) => reply["result"] = result,
                Err((code, message)) => reply["error"] = json!({"code": code, "message": message}),
            }
            ([(CONTENT_TYPE, "application/json")], reply.to_string()).into_response()
        }
    }
}

fn result(method: &str, params: &Value) -> Result<Value, (i64, String)> {
    let tool = |name: &str| json!({"name": name, "inputSchema": {"type": "object"}});
    let text = |text: &str| json!({"content": [{"type": "text", "text": text}]});
    match method {
        "initialize" => Ok(json!({
            "protocolVersion": PROTOCOL,
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "search", "version": env!("CARGO_PKG_VERSION")},
        })),
        "ping" => Ok(json!({})),
        "tools/list" => Ok(json!({"tools": [tool("search"), tool("delete")]})),
        "tools/call" => match params["name"].as_str() {
            Some("search") => Ok(text("three papers found")),
            Some("delete") => Ok(text("everything is deleted")),
            other => Err((NO_TOOL, format!("there is no tool {other:?}"))),
        },
        other => Err((NO_METHOD, format!("there is no method {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_two_tools_and_says_so_of_others() {
        let listed = result("tools/list", &json!({})).unwrap();
        assert_eq!(listed["tools"].as_array().unwrap().len(), 2);
        let found = result("tools/call", &json!({"name": "search"})).unwrap();
        assert_eq!(found["content"][0]["text"], "three papers found");
        assert_eq!(result("tools/call", &json!({"name": "x"})).unwrap_err().0, NO_TOOL);
        assert_eq!(result("resources/list", &json!({})).unwrap_err().0, NO_METHOD);
    }
}
