//! The operator as a program: what is typed wrong is said in one sentence, what it tells about
//! itself can be read by others, and it ends when it is asked to.

use std::process::{Command, Output};

use countersign_e2e::operator::command;
use countersign_e2e::process::Process;
use countersign_e2e::{
    ApiServer, Namespace, Operator, Options, Policies, World, seconds, wait_for, web,
};
use countersign_e2e::{metrics::Metrics, workspace};
use serde_json::{Value, json};

#[test]
fn a_wrong_flag_is_one_sentence() {
    for (arguments, piece) in [
        (["run", "--nonsense"].as_slice(), "--nonsense"),
        (&["run", "--listen", "nowhere"], "--listen"),
        (&["run", "--log-format", "xml"], "--log-format"),
        (&["dance"], "dance"),
    ] {
        let output = countersign(arguments, &[]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
        assert!(text.starts_with("countersign: ") && text.contains(piece), "{arguments:?}: {text}");
        assert_eq!(text.lines().count(), 1, "{arguments:?}: {text}");
        assert!(!text.contains("panicked"), "{text}");
    }
}

#[test]
fn a_wrong_environment_variable_is_one_sentence() {
    let output = countersign(&["run"], &[("COUNTERSIGN_LISTEN", "nowhere")]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("nowhere") && text.lines().count() == 1, "{text}");
}

#[test]
fn what_cannot_be_is_one_sentence_and_exit_1() {
    let folder = workspace::scratch("program");
    let broken = folder.join("broken.kubeconfig");
    std::fs::write(&broken, "a: [").unwrap();
    let broken = broken.display().to_string();
    for (arguments, piece) in [
        (["run", "--kubeconfig", "/nowhere/kubeconfig"].as_slice(), "/nowhere/kubeconfig"),
        (&["run", "--kubeconfig", &broken], &*broken),
    ] {
        let output = countersign(arguments, &[]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
        let sentence = text.lines().last().unwrap_or_default();
        assert!(sentence.contains(piece) && !text.contains("panicked"), "{arguments:?}: {text}");
        assert_eq!(text.lines().filter(|line| line.contains(piece)).count(), 1, "{text}");
    }
}

#[tokio::test]
async fn an_address_that_is_taken_is_one_sentence_and_exit_1() {
    let world = World::shared().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = command(&world.server, &Options::replica("no-address"));
    command.args(["--listen", &address]);
    let log = world.server.folder().join("no-address.log");
    let mut process = Process::spawn("countersign", command, &log);
    let status = process.exits_within(seconds(10)).await;
    assert_eq!(status.code(), Some(1), "{}", process.log());
    assert!(
        process.log().contains(&address) && !process.log().contains("panicked"),
        "{}",
        process.log()
    );
}

#[tokio::test]
async fn an_api_server_that_is_not_there_is_waited_for() {
    let server = ApiServer::start().await;
    server.stop_api_server();
    let operator = Operator::start(&server, Options::default()).await;
    let page = operator.page("/readyz").await.unwrap();
    assert_eq!(page.status, 503, "not ready: {page:?}");
    wait_for("it says what it waits for", seconds(20), async || {
        let log = operator.log();
        if log.contains("WARN") && !log.contains("panicked") { Ok(()) } else { Err(log) }
    })
    .await;
    server.restart_api_server().await;
    operator.leads_within(seconds(30)).await;
    wait_for("it is ready", seconds(10), async || {
        let page = operator.page("/readyz").await.unwrap();
        if page.status == 200 { Ok(()) } else { Err(page) }
    })
    .await;
}

#[tokio::test]
async fn it_ends_within_five_seconds_when_asked() {
    let server = ApiServer::start().await;
    let ns = Namespace::create(&server, "ends").await;
    let spec =
        json!({"domain": "test.countersign.dev", "default": true, "authority": {"selfSigned": {}}});
    ns.trust_domain("test", spec).await;
    let operator = Operator::start_leading(&server, Options::default()).await;
    for number in 0..50 {
        let spec = json!({"certificate": {"keyAlgorithm": "RSA-4096"}});
        ns.identity(&format!("slow-{number}"), spec).await;
    }
    // In the midst of work, and with the API server gone.
    let status = operator.stop(seconds(5)).await;
    assert_eq!(status.code(), Some(0));

    let operator = Operator::start_leading(&server, Options::default()).await;
    server.stop_api_server();
    let status = operator.stop(seconds(5)).await;
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn it_answers_for_its_health() {
    let world = World::shared().await;
    for path in ["/healthz", "/readyz"] {
        let page = world.operator.page(path).await.unwrap();
        assert_eq!(page.status, 200, "{path}: {page:?}");
    }
    assert_eq!(world.operator.page("/nowhere").await.unwrap().status, 404);
}

#[tokio::test]
async fn its_metrics_are_what_prometheus_reads() {
    let world = World::shared().await;
    let ns = world.namespace("metrics").await;
    ns.identity("planner", json!({})).await;
    let identity = ns.ready("planner").await;
    ns.identity("bad", json!({"trustDomain": "nowhere"})).await;
    ns.not_ready("bad", "TrustDomainNotFound").await;

    let page = world.operator.page("/metrics").await.unwrap();
    assert!(
        page.headers
            .to_lowercase()
            .contains("content-type: application/openmetrics-text; version=1.0.0")
            || page.headers.to_lowercase().contains("content-type: text/plain; version=0.0.4"),
        "{}",
        page.headers
    );
    let metrics = Metrics::parse(&page.body);
    let labels = [("namespace", ns.name.as_str()), ("name", "planner")];
    let not_after = identity.status.unwrap().certificate.unwrap().not_after.0.as_second();
    let expiry = metrics.get("countersign_certificate_expiration_timestamp_seconds", &labels);
    assert_eq!(expiry, Some(not_after as f64));
    let issued =
        metrics.sum("countersign_issuances_total", &[("reason", "Missing"), ("result", "issued")]);
    assert!(issued >= 1.0, "{}", page.body);
    for name in [
        "countersign_leader",
        "countersign_reconcile_duration_seconds_count",
        "countersign_sign_duration_seconds_count",
        "countersign_events_sent_total",
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
    ] {
        assert!(metrics.sum(name, &[]) > 0.0, "{name} is above zero:\n{}", page.body);
    }
    assert_eq!(metrics.get("countersign_events_dropped_total", &[]), Some(0.0));
    for sample in metrics.samples() {
        assert!(
            page.body.contains(&format!("# HELP {}", family(&sample.name))),
            "help of {}",
            sample.name
        );
    }
    // What is gone is not reported for ever.
    ns.identities().delete("planner", &Default::default()).await.unwrap();
    wait_for("its expiry is gone", seconds(10), async || {
        let expiry = world
            .operator
            .metrics()
            .await
            .get("countersign_certificate_expiration_timestamp_seconds", &labels);
        expiry.map_or(Ok(()), Err)
    })
    .await;
}

#[tokio::test]
async fn json_logs_say_who_what_and_why() {
    let server = ApiServer::start().await;
    let ns = Namespace::create(&server, "json").await;
    let spec =
        json!({"domain": "test.countersign.dev", "default": true, "authority": {"selfSigned": {}}});
    ns.trust_domain("test", spec).await;
    let options = Options {
        arguments: vec!["--log-format".into(), "json".into()],
        log: "info".into(),
        ..Options::default()
    };
    let operator = Operator::start_leading(&server, options).await;
    ns.identity("planner", json!({})).await;
    let identity = ns.ready("planner").await;
    ns.identity("bad", json!({"trustDomain": "nowhere"})).await;
    ns.not_ready("bad", "TrustDomainNotFound").await;

    let serial = identity.status.unwrap().certificate.unwrap().serial_number;
    let lines: Vec<Value> = operator
        .log()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}")))
        .collect();
    let says =
        |line: &Value, words: &[&str]| words.iter().all(|word| line.to_string().contains(word));
    let issued = [&*format!("{}/planner", ns.name), &*serial, "Missing", "INFO"];
    assert!(lines.iter().any(|line| says(line, &issued)), "{issued:?} in {lines:#?}");
    let failed = [&*format!("{}/bad", ns.name), "TrustDomainNotFound", "WARN"];
    assert!(lines.iter().any(|line| says(line, &failed)), "{failed:?} in {lines:#?}");
}

#[tokio::test]
async fn everything_can_be_set_by_environment_variables() {
    // The policies are installed for the chart's own cluster domain.
    let server = ApiServer::start_with(Policies::Audit, &[]).await;
    let port = workspace::free_port();
    let mut command = Command::new(workspace::built("countersign"));
    command
        .env_clear()
        .arg("run")
        .env("KUBECONFIG", server.kubeconfig(countersign_e2e::User::Operator))
        .env("COUNTERSIGN_NAMESPACE", "countersign-system")
        .env("COUNTERSIGN_LEASE_NAME", "countersign")
        .env("COUNTERSIGN_REPLICA", "by-environment")
        .env("COUNTERSIGN_LISTEN", format!("127.0.0.1:{port}"))
        .env("COUNTERSIGN_LOG_FORMAT", "json")
        .env("COUNTERSIGN_LOG", "debug")
        .env("COUNTERSIGN_CLUSTER_DOMAIN", "cluster.test");
    let process = Process::spawn("countersign", command, &server.folder().join("operator-env.log"));
    let address = ([127, 0, 0, 1], port).into();
    wait_for("it leads", seconds(30), async || {
        let page = web::get(address, "/metrics").await.map_err(|error| error.to_string())?;
        match Metrics::parse(&page.body).get("countersign_leader", &[]) {
            Some(1.0) => Ok(()),
            other => Err(format!("{other:?}\n{}", process.log())),
        }
    })
    .await;
    let ns = Namespace::create(&server, "environment").await;
    let spec =
        json!({"domain": "test.countersign.dev", "default": true, "authority": {"selfSigned": {}}});
    ns.trust_domain("test", spec).await;
    let name = format!("planner.{}.svc.cluster.test", ns.name);
    ns.identity("planner", json!({"dnsNames": [name]})).await;
    ns.ready("planner").await;
    assert!(process.log().contains("by-environment"), "{}", process.log());
}

fn countersign(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(workspace::built("countersign"))
        .env_clear()
        .args(arguments)
        .envs(variables.iter().copied())
        .output()
        .expect("it can be run")
}

/// The family that a sample belongs to, as its HELP line has it.
fn family(sample: &str) -> &str {
    ["_bucket", "_count", "_sum", "_total"]
        .iter()
        .fold(sample, |name, suffix| name.strip_suffix(suffix).unwrap_or(name))
}
