//! One attack: a request, as it goes over the wire, and what the API server says to it.

use http::{Method, Request};
use kube::Client;
use kube::client::Body;
use serde_json::Value;

/// How a change is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Post,
    Put,
    Delete,
    /// A JSON merge patch.
    Merge,
    /// A list of JSON patch operations.
    Json,
    Strategic,
    /// Server-side apply, by force.
    Apply,
}

/// What is tried: in words, the request, and a piece of the refusal.
pub struct Attack {
    pub what: &'static str,
    pub verb: Verb,
    pub path: String,
    pub body: Value,
    pub says: &'static str,
}

/// What the API server answered.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub warnings: Vec<String>,
    pub body: Value,
}

impl Attack {
    /// Sends it as whoever the client is.
    pub async fn send(&self, client: &Client) -> Answer {
        let (method, content_type) = match self.verb {
            Verb::Post => (Method::POST, "application/json"),
            Verb::Put => (Method::PUT, "application/json"),
            Verb::Delete => (Method::DELETE, "application/json"),
            Verb::Merge => (Method::PATCH, "application/merge-patch+json"),
            Verb::Json => (Method::PATCH, "application/json-patch+json"),
            Verb::Strategic => (Method::PATCH, "application/strategic-merge-patch+json"),
            Verb::Apply => (Method::PATCH, "application/apply-patch+yaml"),
        };
        let body =
            if self.body.is_null() { Vec::new() } else { self.body.to_string().into_bytes() };
        let request = Request::builder()
            .method(method)
            .uri(&self.path)
            .header(http::header::CONTENT_TYPE, content_type)
            .body(Body::from(body))
            .expect("a path makes a request");
        let response = client.send(request).await.expect("the API server answers");
        let code = response.status().as_u16();
        let warnings = response
            .headers()
            .get_all(http::header::WARNING)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect();
        let bytes = response.into_body().collect_bytes().await.expect("the answer is whole");
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Answer { code, warnings, body }
    }
}

impl Answer {
    /// The API server's message, from where it says who refused.
    pub fn message(&self) -> &str {
        let message = self.body["message"].as_str().unwrap_or_default();
        message.split_once("denied request: ").map_or(message, |(_, reason)| reason)
    }

    /// True if and only if a policy of ours refused it.
    pub fn is_refused_by_policy(&self) -> bool {
        let message = self.body["message"].as_str().unwrap_or_default();
        matches!(self.code, 403 | 422)
            && message.contains("ValidatingAdmissionPolicy 'countersign-")
            && message.contains("denied request: ")
    }
}
