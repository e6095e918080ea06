//! Istio's objects enforced: Istio's own compiler makes them the filters of a real Envoy, which is
//! configured as istiod configures the one beside a pod. What is not of Istio here is its CA and
//! the redirection of a pod's traffic.

use countersign_e2e::envoy::{Envoy, PathNormalization};
use countersign_e2e::meshes::{Compiled, compiled_by_istio};
use countersign_e2e::mount::{Mount, files_of};
use countersign_e2e::{Delivered, World, judges, seconds, wait_for, workspace};
use serde_json::json;

use super::published::{all, serve};
use super::{policy, ready};

use PathNormalization::{Base, DecodeAndMergeSlashes};

#[tokio::test]
async fn what_istios_own_compiler_makes_of_the_policies_lets_through_what_they_say() {
    judges::build();
    let world = World::start().await;
    let ns = world.namespace("meshed").await;
    serve(&ns.client, &["security.istio.io"]).await;
    let (port, another) = (workspace::lasting_port(), workspace::lasting_port());
    ns.identity("server", json!({"role": "tool", "delivery": {"formats": ["EnvoySDS"]}})).await;
    ns.identity("planner", json!({"role": "planner"})).await;
    ns.identity("other", json!({"role": "other"})).await;
    for name in ["server", "planner", "other"] {
        ns.ready(name).await;
    }
    for (name, target, from, layer7) in [
        (
            "tools",
            json!({"identity": "server", "ports": [port]}),
            json!({"roles": ["planner"]}),
            json!({"http": [{"methods": ["POST"], "paths": ["/mcp"]}]}),
        ),
        (
            "open",
            json!({"role": "tool", "ports": [port]}),
            json!({"identities": [{"name": "other"}]}),
            json!({"http": [{"methods": ["GET"], "paths": ["/open/*"]}]}),
        ),
        // Istio cannot see tools: nobody is let in.
        (
            "blind",
            json!({"identity": "other", "ports": [port]}),
            json!({"roles": ["planner"]}),
            json!({"tools": ["search"]}),
        ),
    ] {
        let mut spec = json!({"target": target, "from": from, "enforcers": ["Istio"]});
        spec.as_object_mut().unwrap().extend(layer7.as_object().unwrap().clone());
        policy(&ns, name, spec).await;
    }
    ready(&ns, "tools", "True", "Compiled").await;
    ready(&ns, "open", "True", "Compiled").await;
    ready(&ns, "blind", "False", "Narrowed").await;
    let mut objects = all(&ns, "security.istio.io/v1", "AuthorizationPolicy").await;
    objects.extend(all(&ns, "security.istio.io/v1", "PeerAuthentication").await);

    let compiled = |labels: &str| compiled_by_istio(&objects, &ns.name, labels);
    let tool = "countersign.dev/identity=server,countersign.dev/role=tool";
    let active = compiled(&format!("{tool},countersign.dev/state=active"));
    let revoked = compiled(&format!("{tool},countersign.dev/state=revoked"));
    let blind = compiled("countersign.dev/identity=other,countersign.dev/role=other");
    let free = compiled("countersign.dev/identity=planner,countersign.dev/role=planner");
    for (what, compiled, filters) in [
        ("the target", &active, 1),
        ("revoked, it is denied first", &revoked, 2),
        ("the target of what Istio cannot see", &blind, 1),
    ] {
        assert_eq!(compiled.mutual_tls, "STRICT", "{what}");
        assert_eq!(compiled.http.len(), filters, "{what}: {compiled:?}");
    }
    assert_eq!(
        (free.mutual_tls.as_str(), free.http.len()),
        ("PERMISSIVE", 0),
        "no policy's target"
    );

    let mount = ns.server.folder().join(&ns.name).join("identity");
    let mount = Mount::of(mount, files_of(&ns.secret_of("server").await));
    let planner = Delivered::read(&ns.secret_of("planner").await);
    let other = Delivered::read(&ns.secret_of("other").await);
    let start = async |name: &str, port: u16, compiled: &Compiled, paths| {
        let folder = ns.server.folder().join(&ns.name).join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let server = Envoy::start_meshed(&folder, &mount.folder, port, &compiled.http, paths).await;
        wait_for(&format!("the Envoy {name} answers"), seconds(30), async || {
            server.ask(&planner, &request("GET /")).await.map_err(|error| error.to_string())
        })
        .await;
        server
    };

    let server = start("active", port, &active, DecodeAndMergeSlashes).await;
    for (what, caller, line, passes) in [
        ("what a policy says", &planner, "POST /mcp", true),
        ("a query is no part of a path", &planner, "POST /mcp?x=1", true),
        ("another method", &planner, "GET /mcp", false),
        ("another path", &planner, "POST /admin", false),
        ("a path that begins alike", &planner, "POST /mcp2", false),
        ("a path below", &planner, "POST /mcp/x", false),
        ("what another policy says to another caller", &planner, "GET /open/a.txt", false),
        ("another caller", &other, "POST /mcp", false),
        ("policies add up", &other, "GET /open/a.txt", true),
        ("far below", &other, "GET /open/a/b", true),
        ("not below", &other, "GET /opened", false),
        ("up and beside", &other, "GET /open/../mcp", false),
        ("the same, escaped", &other, "GET /open/%2e%2e/mcp", false),
        ("the same, with an escaped slash", &other, "GET /open/..%2Fmcp", false),
        ("in a query", &other, "GET /mcp?x=/open/", false),
        ("two slashes are one", &other, "GET /open//a", true),
    ] {
        assert_eq!(allows(&server, caller, line).await, passes, "{what}: {line}");
    }
    assert!(server.call_without_certificate(&planner.bundle, "agent").await.is_err());
    drop(server);

    // The same port is still whose policy it is: the others differ in one thing each.
    let server = start("default", port, &active, Base).await;
    assert!(allows(&server, &planner, "POST /mcp").await);
    assert!(!allows(&server, &other, "GET /open/../mcp").await, "the default sees to this");
    let escaped = allows(&server, &other, "GET /open/..%2Fmcp").await;
    assert!(escaped, "not to this: docs/access.md and the policy's status say what to set");
    drop(server);
    let server = start("another", another, &active, Base).await;
    assert!(!allows(&server, &planner, "POST /mcp").await, "a port that no policy names");
    drop(server);
    let server = start("revoked", port, &revoked, Base).await;
    assert!(
        !allows(&server, &planner, "POST /mcp").await,
        "a revoked identity is called by nobody"
    );
    drop(server);
    let server = start("blind", port, &blind, Base).await;
    assert!(!allows(&server, &planner, "POST /mcp").await, "nobody, where Istio cannot see");
}

/// Whether a request gets through; what else than 200 and 403 it gets is no answer.
async fn allows(server: &Envoy, caller: &Delivered, line: &str) -> bool {
    match server.ask(caller, &request(line)).await {
        Ok(200) => true,
        Ok(403) => false,
        other => panic!("{line}: {other:?}"),
    }
}

fn request(line: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: agent\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}
