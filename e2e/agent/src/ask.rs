//! Calls one tool of an MCP server over mutual TLS, and tells what came of it.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::Request;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::cli::AskArgs;
use crate::hello::{self, Caller, Failure};
use crate::material::{self, Material};
use crate::verify::SharedNotes;

const PATIENCE: Duration = Duration::from_secs(5);

/// What the server, or who stands before it, answered.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    /// What the tool said, or the body as it is.
    pub text: String,
}

pub async fn run(identity: &Path, args: AskArgs) -> Result<ExitCode, anyhow::Error> {
    let caller = match args.without_certificate {
        true => Caller { key: None, trust: material::load_trust(identity)? },
        false => caller(&Material::load(identity)?),
    };
    match call_tool(caller, &args.to, &args.expect, &args.tool).await {
        Ok(reply) => {
            println!("{} {}", reply.status, reply.text);
            Ok(if reply.status == 200 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Err(failure) => {
            println!("{failure}");
            Ok(ExitCode::FAILURE)
        }
    }
}

pub fn caller(material: &Material) -> Caller {
    Caller { key: Some(material.key.clone()), trust: material.trust.clone() }
}

/// One `tools/call` over a new connection; in five seconds or not at all.
pub async fn call_tool(
    caller: Caller,
    to: &str,
    expect: &str,
    tool: &str,
) -> Result<Reply, Failure> {
    let call = async {
        let notes = SharedNotes::default();
        let stream = hello::connect(to).await?;
        let stream = hello::shake_hands(caller, stream, expect, &notes).await?;
        post(stream, to, tool).await
    };
    tokio::time::timeout(PATIENCE, call).await.unwrap_or_else(|_| {
        Err(Failure::Broken(format!("no answer within {} s", PATIENCE.as_secs())))
    })
}

async fn post(stream: TlsStream<TcpStream>, host: &str, tool: &str) -> Result<Reply, Failure> {
    let message = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": {}},
    });
    let request = Request::post("/mcp")
        .header(HOST, host)
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "application/json, text/event-stream")
        .body(message.to_string())
        .map_err(|error| Failure::Broken(error.to_string()))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failure_of(&error))?;
    let talk = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await?.to_bytes();
        drop(sender);
        Ok::<_, hyper::Error>((status, body))
    };
    let (answer, ended) = tokio::join!(talk, connection);
    // What broke the connection says more than that the request was not answered.
    let (status, body) = match (answer, ended) {
        (Ok(answer), _) => answer,
        (Err(_), Err(why)) | (Err(why), Ok(())) => return Err(failure_of(&why)),
    };
    let text = String::from_utf8_lossy(&body).into_owned();
    let said = serde_json::from_str::<Value>(&text).ok();
    let said = said.and_then(|reply| {
        let result = reply["result"]["content"][0]["text"].as_str();
        result.or(reply["error"]["message"].as_str()).map(str::to_owned)
    });
    Ok(Reply { status, text: said.unwrap_or(text) })
}

/// In TLS 1.3 a server's refusal comes when the client reads, so it is the cause of what HTTP says.
fn failure_of(error: &hyper::Error) -> Failure {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(failure) = error.downcast_ref().and_then(hello::refusal_in) {
            return failure;
        }
        cause = error.source();
    }
    Failure::Broken(error.to_string())
}
