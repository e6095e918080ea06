//! The bundle for the whole cluster: a ClusterTrustBundle, where the API server serves them.

use countersign::api::TrustDomain;
use countersign_e2e::install::{api_of, apply};
use countersign_e2e::{
    ApiServer, Namespace, Operator, Options, Policies, User, World, gone, holds_for, seconds,
    wait_for,
};
use k8s_openapi::api::certificates::v1::ClusterTrustBundle;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::{change, condition, spec};

fn name_of(trust_domain: &str) -> String {
    format!("countersign.dev:agent:{trust_domain}")
}

fn bundles(client: &Client) -> Api<ClusterTrustBundle> {
    Api::all(client.clone())
}

/// The ClusterTrustBundle, once it holds what the ConfigMap holds.
async fn published(ns: &Namespace, name: &str) -> ClusterTrustBundle {
    let config_map = ns.bundle(name).await.data.expect("it has data")["ca.crt"].clone();
    wait_for(&format!("the ClusterTrustBundle of {name}"), seconds(20), async || {
        let found = bundles(&ns.client).get(&name_of(name)).await;
        let found = found.map_err(|error| error.to_string())?;
        if found.spec.trust_bundle == config_map { Ok(found) } else { Err(format!("{found:#?}")) }
    })
    .await
}

#[tokio::test]
async fn the_cluster_holds_the_bundle_and_it_is_put_right_and_goes_with_the_trust_domain() {
    let ns = World::shared().await.namespace("cluster").await;
    let mut spec = spec(&ns, "cluster");
    // What SPIFFE allows in a name and Kubernetes does not.
    spec["domain"] = json!("cluster_1.test");
    ns.trust_domain("cluster", spec).await;
    let message = condition(&ns.client, "cluster", "BundlePublished", "True", "Published").await;
    assert!(message.contains("ClusterTrustBundle"), "{message}");
    let right = published(&ns, "cluster").await;
    assert_eq!(right.spec.signer_name.as_deref(), Some("countersign.dev/agent"));
    assert_eq!(right.labels()["countersign.dev/trust-domain"], "cluster");
    let config_map = ns.bundle("cluster").await;
    let digest = &config_map.annotations()["countersign.dev/bundle-sha256"];
    assert_eq!(&right.annotations()["countersign.dev/bundle-sha256"], digest);

    let other = ns.bundle("test").await.data.unwrap()["ca.crt"].clone();
    for edit in [
        json!({"spec": {"trustBundle": other}}),
        json!({"metadata": {"annotations": {"countersign.dev/bundle-sha256": null}}}),
        json!({"metadata": {"labels": {"countersign.dev/trust-domain": null}}}),
        json!({"metadata": {"ownerReferences": null}}),
    ] {
        let patch = Patch::Merge(&edit);
        let api = bundles(&ns.client);
        api.patch(&name_of("cluster"), &PatchParams::default(), &patch).await.unwrap();
        wait_for(&format!("{edit} is put right"), seconds(20), async || {
            let found = api.get(&name_of("cluster")).await.unwrap();
            let same = found.spec == right.spec
                && found.labels() == right.labels()
                && found.annotations() == right.annotations()
                && found.owner_references() == right.owner_references();
            if same { Ok(()) } else { Err(found) }
        })
        .await;
    }
    bundles(&ns.client).delete(&name_of("cluster"), &Default::default()).await.unwrap();
    published(&ns, "cluster").await;

    change(&ns.client, "cluster", json!({"spec": {"bundle": {"clusterTrustBundle": false}}})).await;
    let look = async || bundles(&ns.client).get_opt(&name_of("cluster")).await.unwrap();
    gone("the ClusterTrustBundle that is not wanted", seconds(20), look).await;
    wait_for("the condition speaks of it no more", seconds(20), async || {
        let message =
            condition(&ns.client, "cluster", "BundlePublished", "True", "Published").await;
        if message.contains("ClusterTrustBundle") { Err(message) } else { Ok(()) }
    })
    .await;
    change(&ns.client, "cluster", json!({"spec": {"bundle": {"clusterTrustBundle": true}}})).await;
    published(&ns, "cluster").await;

    let domains: Api<TrustDomain> = Api::all(ns.client.clone());
    domains.delete("cluster", &Default::default()).await.unwrap();
    gone("the ClusterTrustBundle", seconds(30), look).await;
    gone("the ConfigMap", seconds(30), async || {
        let map = countersign::api::names::bundle_config_map_name("cluster");
        ns.api::<k8s_openapi::api::core::v1::ConfigMap>().get_opt(&map).await.unwrap()
    })
    .await;
}

#[tokio::test]
async fn a_foreign_one_of_the_name_is_left_alone_named_and_waited_for() {
    let ns = World::shared().await.namespace("cluster-foreign").await;
    let pem = ns.bundle("test").await.data.unwrap()["ca.crt"].clone();
    let foreign = json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "ClusterTrustBundle",
        "metadata": {"name": name_of("cluster-foreign")},
        "spec": {"signerName": "countersign.dev/agent", "trustBundle": pem},
    });
    apply(&ns.client, &foreign).await;
    let before = bundles(&ns.client).get(&name_of("cluster-foreign")).await.unwrap();
    let mut spec = spec(&ns, "cluster-foreign");
    spec["ca"] = json!({"soak": "1s"});
    ns.trust_domain("cluster-foreign", spec).await;
    let reason = "ClusterTrustBundleUnreached";
    let message =
        condition(&ns.client, "cluster-foreign", "BundlePublished", "False", reason).await;
    assert!(message.contains(&name_of("cluster-foreign")), "{message}");
    condition(&ns.client, "cluster-foreign", "Ready", "True", "Active").await;

    change(&ns.client, "cluster-foreign", json!({"spec": {"ca": {"atLeast": {"root": 2}}}})).await;
    let domains: Api<TrustDomain> = Api::all(ns.client.clone());
    wait_for("it is named as not reached", seconds(20), async || {
        let status = domains.get("cluster-foreign").await.unwrap().status.unwrap();
        let rotation = status.rotation.unwrap_or_default();
        let name = format!("ClusterTrustBundle {}", name_of("cluster-foreign"));
        let found = (rotation.targets, rotation.reached, rotation.unreached);
        if found == (2, 1, vec![name]) { Ok(()) } else { Err(found) }
    })
    .await;
    holds_for("the rotation waits, and the foreign one is as it was", seconds(3), async || {
        let now = bundles(&ns.client).get(&name_of("cluster-foreign")).await.unwrap();
        let slots = domains.get("cluster-foreign").await.unwrap().status.unwrap().slots;
        if now == before && slots.len() == 4 { Ok(()) } else { Err((now, slots)) }
    })
    .await;
    bundles(&ns.client).delete(&name_of("cluster-foreign"), &Default::default()).await.unwrap();
    condition(&ns.client, "cluster-foreign", "BundlePublished", "True", "Published").await;
    condition(&ns.client, "cluster-foreign", "Rotating", "True", "Retiring").await;
    published(&ns, "cluster-foreign").await;
}

#[tokio::test]
async fn an_api_server_that_serves_the_beta_alone_gets_the_beta() {
    let served = "--runtime-config=certificates.k8s.io/v1=false,certificates.k8s.io/v1beta1=true";
    let server = ApiServer::start_with(Policies::Deny, &[served]).await;
    let ns = Namespace::create(&server, "cluster-beta").await;
    let _operator = Operator::start_leading(&server, Options::default()).await;
    ns.trust_domain("cluster-beta", spec(&ns, "cluster-beta")).await;
    let message =
        condition(&ns.client, "cluster-beta", "BundlePublished", "True", "Published").await;
    assert!(message.contains("ClusterTrustBundle"), "{message}");
    let object = json!({
        "apiVersion": "certificates.k8s.io/v1beta1", "kind": "ClusterTrustBundle",
        "metadata": {"name": name_of("cluster-beta")},
    });
    let found = api_of(&ns.client, &object).get(&name_of("cluster-beta")).await.unwrap();
    let pem = ns.bundle("cluster-beta").await.data.unwrap()["ca.crt"].clone();
    assert_eq!(found.data["spec"]["trustBundle"], pem);
}

#[tokio::test]
async fn an_api_server_that_serves_none_is_no_obstacle() {
    let server =
        ApiServer::start_with(Policies::Deny, &["--runtime-config=certificates.k8s.io/v1=false"])
            .await;
    let ns = Namespace::create(&server, "cluster-none").await;
    let _operator = Operator::start_leading(&server, Options::default()).await;
    ns.trust_domain("cluster-none", spec(&ns, "cluster-none")).await;
    let message =
        condition(&ns.client, "cluster-none", "BundlePublished", "True", "Published").await;
    assert!(message.contains("serves no ClusterTrustBundles"), "{message}");
    ns.identity("planner", json!({"trustDomain": "cluster-none"})).await;
    ns.ready("planner").await;
    let asked = server.requests_by(User::Operator);
    let asked = asked.filter(|request| request.resource == "clustertrustbundles");
    assert!(asked.is_empty(), "{asked:?}");
}
