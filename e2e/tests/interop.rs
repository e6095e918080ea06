//! Strangers judge what we make: OpenSSL, Go's crypto/tls and go-spiffe, zlint, pkilint, and Envoy,
//! which serves from our files and follows a rotation without a restart. (rustls and rustls-webpki
//! judge every certificate of every test; see `delivered.rs`.)

use std::path::PathBuf;
use std::process::Command;

use countersign_e2e::agents::text_of;
use countersign_e2e::envoy::{self, Envoy};
use countersign_e2e::judges::{self, openssl};
use countersign_e2e::mount::{Mount, files_of, write};
use countersign_e2e::{Delivered, World, seconds, wait_for, workspace};
use k8s_openapi::api::core::v1::Secret;
use kube::api::DeleteParams;
use serde_json::json;

const ALGORITHMS: [&str; 6] =
    ["ECDSA-P256", "ECDSA-P384", "Ed25519", "RSA-2048", "RSA-3072", "RSA-4096"];

#[tokio::test]
async fn openssl_accepts_leaf_chain_and_bundle() {
    for (folder, id) in one_of_each("openssl").await {
        let file = |name: &str| folder.join(name).display().to_string();
        for purpose in ["sslserver", "sslclient"] {
            openssl(
                &[
                    "verify",
                    "-x509_strict",
                    "-purpose",
                    purpose,
                    "-CAfile",
                    &file("ca.crt"),
                    "-untrusted",
                    &file("tls.crt"),
                    &file("tls.crt"),
                ],
                "",
            );
        }
        let text = openssl(&["x509", "-noout", "-text", "-in", &file("tls.crt")], "");
        for piece in [
            "Subject: \n",
            "CA:FALSE",
            "X509v3 Key Usage: critical\n                Digital Signature\n",
            "X509v3 Subject Alternative Name: critical\n",
            &format!("URI:{id}"),
            "X509v3 CRL Distribution Points: \n                Full Name:\n                  URI:http://",
        ] {
            assert!(text.contains(piece), "{piece:?} in {text}");
        }
        assert_eq!(text.matches("URI:").count(), 2, "{text}");
        let of_leaf = openssl(&["x509", "-noout", "-pubkey", "-in", &file("tls.crt")], "");
        let of_key = openssl(&["pkey", "-pubout", "-in", &file("tls.key")], "");
        assert_eq!(of_leaf, of_key);
    }
}

#[tokio::test]
async fn go_and_go_spiffe_accept_leaf_chain_and_bundle() {
    judges::build();
    for (folder, id) in one_of_each("go").await {
        judges::run(Command::new(workspace::tool("svid")).arg(&folder).arg(&id), "");
    }
}

#[tokio::test]
async fn linters_find_no_error() {
    judges::build();
    let mut findings = Vec::new();
    for (folder, id) in one_of_each("lint").await {
        let leaf = Delivered::read_folder(&folder).chain[0].clone();
        let issuing = Delivered::read_folder(&folder).chain[1].clone();
        let root = Delivered::read_folder(&folder).bundle[0].clone();
        for (what, der) in [("leaf", leaf), ("issuing CA", issuing), ("root CA", root)] {
            let file = folder.join("linted.der");
            std::fs::write(&file, &der).unwrap();
            let found = judges::zlint(&file).into_iter().chain(judges::pkilint(&file));
            findings.extend(found.map(|finding| format!("{id}: {what}: {finding}")));
        }
    }
    assert_eq!(findings, Vec::<String>::new());
}

#[tokio::test]
async fn envoy_serves_mutual_tls_and_follows_a_rotation_without_a_restart() {
    judges::build();
    let ns = World::shared().await.namespace("envoy").await;
    let host = format!("server.{}.svc", ns.name);
    ns.identity("server", json!({"delivery": {"formats": ["EnvoySDS"]}, "dnsNames": [host]})).await;
    ns.identity("caller", json!({})).await;
    ns.ready("server").await;
    ns.ready("caller").await;
    let caller = Delivered::read(&ns.secret_of("caller").await);
    let before = ns.secret_of("server").await;

    let mut mount = Mount::of(ns.server.folder().join(&ns.name).join("mount"), files_of(&before));
    let mut server = Envoy::start(&ns.server.folder().join(&ns.name), &mount.folder).await;
    let first = wait_for("Envoy answers over mutual TLS", seconds(20), async || {
        server.call(&caller, &host).await.map_err(|error| error.to_string())
    })
    .await;
    assert_eq!(first.peer, Delivered::read(&before).chain);
    assert_eq!(first.status, 200);

    // Nobody without a certificate, nor with one of another CA.
    let stranger = Delivered { bundle: caller.bundle.clone(), ..envoy::stranger() };
    assert!(server.call(&stranger, &host).await.is_err(), "a certificate of another CA is refused");
    assert!(
        server.call_without_certificate(&caller.bundle, &host).await.is_err(),
        "and so is none"
    );

    // A rotation, as the kubelet brings it into a pod.
    ns.api::<Secret>().delete("server-identity", &DeleteParams::default()).await.unwrap();
    let after = wait_for("another certificate", seconds(10), async || {
        let secret = ns.secret("server-identity").await.ok_or("none")?;
        if text_of(&secret, "tls.crt") != text_of(&before, "tls.crt") {
            Ok(secret)
        } else {
            Err("the old")
        }
    })
    .await;
    mount.update(files_of(&after));
    let chain = Delivered::read(&after).chain;
    let mut calls = 0;
    wait_for("Envoy serves the new certificate", seconds(10), async || {
        calls += 1;
        let answer = server.call(&caller, &host).await.expect("no handshake fails in a rotation");
        if answer.peer == chain { Ok(()) } else { Err(format!("call {calls}: the old one")) }
    })
    .await;
    assert!(server.is_running(), "it was not restarted");
}

/// One identity of each key algorithm: its Secret's files in a folder, and its SPIFFE ID.
async fn one_of_each(test: &str) -> Vec<(PathBuf, String)> {
    let ns = World::shared().await.namespace(test).await;
    let mut all = Vec::new();
    for algorithm in ALGORITHMS {
        let name = algorithm.to_lowercase();
        let dns_name = format!("{name}.{}.svc", ns.name);
        ns.identity(
            &name,
            json!({"certificate": {"keyAlgorithm": algorithm}, "dnsNames": [dns_name]}),
        )
        .await;
    }
    for algorithm in ALGORITHMS {
        let name = algorithm.to_lowercase();
        let identity = ns.ready(&name).await;
        let folder = ns.server.folder().join(&ns.name).join(&name);
        write(&folder, &files_of(&ns.secret_of(&name).await));
        all.push((folder, identity.status.unwrap().spiffe_id.unwrap()));
    }
    all
}
