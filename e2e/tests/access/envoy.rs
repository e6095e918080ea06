//! Enforced for real: an Envoy as the mutual TLS sidecar of a tool server, with the filters of the
//! ConfigMap that is made of the policies.

use countersign_e2e::envoy::{self, Envoy};
use countersign_e2e::mount::{Files, Mount, files_of, files_of_map};
use countersign_e2e::{Delivered, Namespace, World, judges, seconds, wait_for, workspace};
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};

use super::{policy, ready};

#[tokio::test]
async fn an_envoy_lets_through_what_the_policies_say_and_nothing_else() {
    judges::build();
    let ns = World::shared().await.namespace("guarded").await;
    let port = workspace::lasting_port();
    ns.identity("server", json!({"role": "tool", "delivery": {"formats": ["EnvoySDS"]}})).await;
    ns.identity("planner", json!({"role": "planner"})).await;
    ns.identity("other", json!({})).await;
    for name in ["server", "planner", "other"] {
        ns.ready(name).await;
    }
    let tools = json!({
        "target": {"identity": "server", "ports": [port]}, "enforcers": ["Envoy"],
        "from": {"roles": ["planner"]},
        "http": [{"methods": ["POST"], "paths": ["/mcp"]}], "tools": ["search"],
    });
    policy(&ns, "tools", tools).await;
    ready(&ns, "tools", "True", "Compiled").await;

    let folder = ns.server.folder().join(&ns.name);
    let identity = Mount::of(folder.join("identity"), files_of(&ns.secret_of("server").await));
    let mut access = Mount::of(folder.join("access"), files(&ns).await);
    let mut server = Envoy::start_guarded(&folder, &identity.folder, &access.folder, port).await;
    let planner = Delivered::read(&ns.secret_of("planner").await);
    let other = Delivered::read(&ns.secret_of("other").await);

    let search = call("search", &json!({"q": "x"}));
    wait_for("the planner's call of search passes", seconds(30), async || {
        match server.ask(&planner, &post("/mcp", &search)).await {
            Ok(200) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let large = call("search", &json!({"q": "x".repeat(100_000)}));
    let twice = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search","name":"delete"}}"#;
    let hidden = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"delete","arguments":{"name":"search"}}}"#;
    let batch = format!("[{search},{}]", call("delete", &json!({})));
    let text = post("/mcp", &search).replace("application/json", "text/plain");
    for (what, caller, request, passes) in [
        ("the permitted tool with a large argument", &planner, post("/mcp", &large), true),
        ("what a session begins with", &planner, post("/mcp", &message("initialize")), true),
        ("a notification", &planner, post("/mcp", &message("notifications/initialized")), true),
        ("the list of tools", &planner, post("/mcp", &message("tools/list")), true),
        ("another tool", &planner, post("/mcp", &call("delete", &json!({}))), false),
        (
            "a tool whose name begins alike",
            &planner,
            post("/mcp", &call("searching", &json!({}))),
            false,
        ),
        ("something else of MCP", &planner, post("/mcp", &message("resources/read")), false),
        ("two names for the tool", &planner, post("/mcp", twice), false),
        ("the permitted name in an argument", &planner, post("/mcp", hidden), false),
        ("two calls in one message", &planner, post("/mcp", &batch), false),
        ("a message that says it is none", &planner, text, false),
        ("another path", &planner, post("/admin", &search), false),
        ("another method", &planner, get("/mcp"), false),
        (
            "a caller with a valid certificate whom no policy names",
            &other,
            post("/mcp", &search),
            false,
        ),
    ] {
        let status =
            server.ask(caller, &request).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(status == 200, passes, "{what}: {status}");
    }
    let status = server.ask(&other, &post("/mcp", &search)).await.unwrap();
    assert_eq!(status, 403, "it is told so");
    let stranger = Delivered { bundle: planner.bundle.clone(), ..envoy::stranger() };
    assert!(server.ask(&stranger, &get("/mcp")).await.is_err(), "a certificate of another CA");
    assert!(server.call_without_certificate(&planner.bundle, "agent").await.is_err(), "and none");

    // A second policy adds to the first, in the running Envoy.
    let open = json!({
        "target": {"role": "tool", "ports": [port]}, "enforcers": ["Envoy"],
        "from": {"identities": [{"name": "other"}]}, "http": [{"methods": ["GET"], "paths": ["/open/*"]}],
    });
    policy(&ns, "open", open).await;
    ready(&ns, "open", "True", "Compiled").await;
    wait_for("the second policy is in the Envoy", seconds(30), async || {
        access.update(files(&ns).await);
        match server.ask(&other, &get("/open/a.txt")).await {
            Ok(200) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    for path in ["/open/../mcp", "/open/%2e%2e/mcp", "/open//mcp", "/opened", "/mcp?x=/open/"] {
        let status = server.ask(&other, &get(path)).await.unwrap();
        assert_ne!(status, 200, "{path} is not below /open/");
    }
    assert_eq!(server.ask(&planner, &post("/mcp", &search)).await.unwrap(), 200, "as before");
    assert_eq!(server.ask(&other, &post("/mcp", &search)).await.unwrap(), 403, "as before");
    assert!(server.is_running(), "it was not restarted");
}

/// The ConfigMap's files, as a volume would have them.
async fn files(ns: &Namespace) -> Files {
    let config_map: ConfigMap = ns.api().get("countersign-access-server").await.unwrap();
    files_of_map(&config_map)
}

fn call(tool: &str, arguments: &Value) -> String {
    json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}})
        .to_string()
}

fn message(method: &str) -> String {
    match method.starts_with("notifications/") {
        true => json!({"jsonrpc": "2.0", "method": method}).to_string(),
        false => json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": {}}).to_string(),
    }
}

fn post(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: agent\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n")
}
