//! Whole agents on loopback: real sockets, real handshakes, files in a directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use tokio::net::TcpListener;

use crate::call::call;
use crate::cli::{Flavour, IntrudeArgs, Target};
use crate::counters::{Counters, Report};
use crate::forge::{ForgedCa, ForgedLeaf};
use crate::hello::{self, Caller, Exchange, Failure};
use crate::intrude::{Attempt, attempt};
use crate::keep::keep;
use crate::material::{self, Material, Seen};
use crate::run::remember;
use crate::serve::serve;
use crate::verify::{Refusal, SharedNotes};

const PLANNER: &str = "spiffe://demo.countersign.dev/ns/research/sa/planner";
const TOOLS: &str = "spiffe://demo.countersign.dev/ns/research/sa/tools";

const LIFE: Duration = Duration::from_secs(600);

static VERSION: AtomicUsize = AtomicUsize::new(0);

/// A directory that changes the way a projected volume does.
struct Volume(PathBuf);

impl Volume {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("countersign-agent-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        for file in ["tls.crt", "tls.key", "ca.crt", "crl.pem"] {
            std::os::unix::fs::symlink(format!("..data/{file}"), path.join(file)).unwrap();
        }
        Self(path)
    }

    fn write(&self, ca: &ForgedCa, spiffe_id: &str) {
        self.write_leaf(ca, &ca.leaf(spiffe_id).unwrap(), None);
    }

    /// A leaf, and a crl.pem that takes these back.
    fn write_leaf(&self, ca: &ForgedCa, leaf: &ForgedLeaf, revoked: Option<&[&ForgedLeaf]>) {
        let version = self.0.join(format!("..version-{}", VERSION.fetch_add(1, Ordering::Relaxed)));
        std::fs::create_dir_all(&version).unwrap();
        std::fs::write(version.join("tls.crt"), pem_of(&leaf.chain)).unwrap();
        std::fs::write(version.join("tls.key"), pem("PRIVATE KEY", leaf.key.secret_der())).unwrap();
        std::fs::write(version.join("ca.crt"), pem("CERTIFICATE", &ca.root)).unwrap();
        if let Some(revoked) = revoked {
            let lists = ca.lists(false, revoked, time::Duration::hours(1));
            let lists: String = lists.iter().map(|der| pem("X509 CRL", der)).collect();
            std::fs::write(version.join("crl.pem"), lists).unwrap();
        }
        let link = self.0.join("..data_tmp");
        std::os::unix::fs::symlink(&version, &link).unwrap();
        std::fs::rename(link, self.0.join("..data")).unwrap();
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

fn pem_of(chain: &[CertificateDer<'_>]) -> String {
    chain.iter().map(|der| pem("CERTIFICATE", der)).collect()
}

/// An agent that answers those allowed, and its address.
async fn server(volume: &Volume, allowed: &[&str]) -> (String, Arc<Counters>) {
    let current = material::follow(volume.0.clone()).await;
    let counters = Arc::new(Counters::new(&current.borrow(), &[], &[]));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let allowed = allowed.iter().map(|id| (*id).to_owned()).collect();
    tokio::spawn(remember(current.clone(), counters.clone()));
    tokio::spawn(serve(listener, current, allowed, LIFE, counters.clone()));
    (address, counters)
}

async fn hello_from(directory: &Path, to: &str, expect: &str) -> Result<Exchange, Failure> {
    let material = Material::load(directory).unwrap();
    let caller = Caller { key: Some(material.key.clone()), trust: material.trust.clone() };
    hello::exchange(caller, to, expect, SharedNotes::default()).await
}

async fn until(counters: &Counters, true_of: impl Fn(&Report) -> bool) -> Report {
    for _ in 0..400 {
        let report = counters.report();
        if true_of(&report) {
            return report;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("it did not come to that within 10 s: {:#?}", counters.report());
}

#[tokio::test]
async fn two_agents_tell_each_other_who_they_are() {
    let ca = ForgedCa::new("ours").unwrap();
    let (planner, tools) = (Volume::new("planner"), Volume::new("tools"));
    planner.write(&ca, PLANNER);
    tools.write(&ca, TOOLS);
    let (address, counters) = server(&tools, &[PLANNER]).await;

    let exchange = hello_from(&planner.0, &address, TOOLS).await.unwrap();
    assert_eq!(exchange.answer.i_am, TOOLS);
    assert_eq!(exchange.answer.i_accepted, PLANNER);
    assert_eq!(exchange.answer.with_serial, Material::load(&planner.0).unwrap().me.serial);
    assert_eq!(exchange.answer.chained_to, "CN=ours, root");
    assert!(exchange.cipher_suite.starts_with("TLS13_"));
    let report = until(&counters, |report| report.handshakes_accepted == 1).await;
    assert_eq!(report.accepted[0].spiffe_id, PLANNER);
}

#[tokio::test]
async fn who_is_not_on_the_list_is_refused_by_name_and_told_so() {
    let ca = ForgedCa::new("ours").unwrap();
    let (planner, tools) = (Volume::new("unlisted"), Volume::new("choosy"));
    planner.write(&ca, PLANNER);
    tools.write(&ca, TOOLS);
    let (address, counters) =
        server(&tools, &["spiffe://demo.countersign.dev/ns/research/sa/executor"]).await;

    let failure = hello_from(&planner.0, &address, TOOLS).await.err().unwrap();
    assert!(failure.to_string().ends_with("(TLS alert access_denied)"), "{failure}");
    let report = until(&counters, |report| report.refused == 1).await;
    assert_eq!(report.refusals[0].presented, PLANNER);
    assert!(report.refusals[0].why.contains("sa/executor"), "{:?}", report.refusals);
}

#[tokio::test]
async fn a_client_refuses_a_server_that_is_somebody_else() {
    let ca = ForgedCa::new("ours").unwrap();
    let (planner, tools) = (Volume::new("misled"), Volume::new("impostor"));
    planner.write(&ca, PLANNER);
    tools.write(&ca, TOOLS);
    let (address, _) = server(&tools, &[PLANNER]).await;
    let failure = hello_from(&planner.0, &address, PLANNER).await.err().unwrap();
    assert!(matches!(failure, Failure::WeRefused(Refusal::SomebodyElse { .. })), "{failure}");
}

#[tokio::test]
async fn intruders_are_refused_each_for_its_own_reason() {
    let ca = ForgedCa::new("ours").unwrap();
    let tools = Volume::new("besieged");
    tools.write(&ca, TOOLS);
    let (address, counters) = server(&tools, &[PLANNER]).await;
    let cases = [
        (Flavour::Nothing, "TLS alert", "does not speak TLS"),
        (Flavour::NoCertificate, "certificate_required", "no certificate"),
        (Flavour::OtherCa, "unknown_ca", "not in ca.crt"),
    ];
    for (flavour, to_intruder, to_server) in cases {
        let refused_before = counters.report().refused;
        let args = IntrudeArgs {
            flavour,
            to: address.clone(),
            expect: TOOLS.to_owned(),
            pretend: Some(PLANNER.to_owned()),
        };
        match attempt(&tools.0, &args).await.unwrap() {
            Attempt::Refused(why) => assert!(why.contains(to_intruder), "{why}"),
            Attempt::LetIn(answer) => panic!("let in: {answer}"),
        }
        let report = until(&counters, |report| report.refused == refused_before + 1).await;
        let why = &report.refusals.back().unwrap().why;
        assert!(why.contains(to_server), "{why}");
    }
    assert_eq!(counters.report().handshakes_accepted, 0);
}

#[tokio::test]
async fn a_rotation_under_traffic_fails_no_handshake() {
    let ca = ForgedCa::new("ours").unwrap();
    let (planner, tools) = (Volume::new("caller"), Volume::new("called"));
    planner.write(&ca, PLANNER);
    tools.write(&ca, TOOLS);
    let (address, _) = server(&tools, &[PLANNER]).await;

    let current = material::follow(planner.0.clone()).await;
    let target = Target { name: "tools".to_owned(), to: address, expect: TOOLS.to_owned() };
    let counters = Arc::new(Counters::new(&current.borrow(), std::slice::from_ref(&target), &[]));
    tokio::spawn(call(target, 200.0, current, counters.clone()));

    until(&counters, |report| report.tried() > 50).await;
    tools.write(&ca, TOOLS);
    let report = until(&counters, |report| report.calls["tools"].peers.len() == 2).await;
    planner.write(&ca, PLANNER);
    let tried = report.tried();
    let report = until(&counters, |report| report.tried() > tried + 300).await;
    assert_eq!(report.failed(), 0, "{report:#?}");
}

#[test]
fn a_key_that_does_not_fit_is_not_taken_up_until_it_does() {
    let ca = ForgedCa::new("ours").unwrap();
    let tools = Volume::new("torn");
    tools.write(&ca, TOOLS);
    let mut seen = Seen::default();
    let first = seen.look(&tools.0).unwrap();
    assert!(seen.look(&tools.0).is_none(), "nothing changed");

    std::fs::write(tools.0.join("..data/tls.crt"), pem_of(&ca.leaf(TOOLS).unwrap().chain)).unwrap();
    let error = Material::load(&tools.0).err().unwrap();
    assert!(format!("{error:#}").contains("tls.key does not fit tls.crt"), "{error:#}");
    assert!(seen.look(&tools.0).is_none(), "half of a rotation is no identity");

    tools.write(&ca, TOOLS);
    assert_ne!(seen.look(&tools.0).unwrap().me.serial, first.me.serial);
}

#[tokio::test]
async fn a_revocation_refuses_new_connections_and_ends_open_ones_on_both_sides() {
    let ca = ForgedCa::new("ours").unwrap();
    let (planner, tools) = (Volume::new("keeper"), Volume::new("kept"));
    let (planners, tools_leaf) = (ca.leaf(PLANNER).unwrap(), ca.leaf(TOOLS).unwrap());
    planner.write_leaf(&ca, &planners, Some(&[]));
    tools.write_leaf(&ca, &tools_leaf, Some(&[]));
    let (address, served) = server(&tools, &[PLANNER]).await;

    let current = material::follow(planner.0.clone()).await;
    let target = Target { name: "tools".to_owned(), to: address.clone(), expect: TOOLS.to_owned() };
    let kept = Counters::new(&current.borrow(), &[], std::slice::from_ref(&target));
    let kept = Arc::new(kept);
    tokio::spawn(keep(target, 50.0, LIFE, current, kept.clone()));
    let report = until(&kept, |report| report.kept["tools"].said > 20).await;
    assert_eq!(report.kept["tools"].opened, 1, "all of it over one connection");
    assert_eq!(served.report().handshakes_accepted, 0, "which has not come to its end");

    // A crl.pem that takes back somebody else ends nothing.
    tools.write_leaf(&ca, &tools_leaf, Some(&[&ca.leaf(PLANNER).unwrap()]));
    until(&served, |report| report.revoked == 1).await;
    let said = kept.report().kept["tools"].said;
    until(&kept, |report| report.kept["tools"].said > said + 20).await;
    assert_eq!((kept.report().kept["tools"].opened, served.report().cut_off), (1, 0));

    // The server learns that its caller is revoked.
    tools.write_leaf(&ca, &tools_leaf, Some(&[&planners]));
    let report = until(&served, |report| report.cut_off == 1 && report.refused > 0).await;
    assert!(report.cuts[0].why.contains("is revoked: serial"), "{:?}", report.cuts);
    assert_eq!(report.refusals[0].presented, PLANNER);
    let failure = hello_from(&planner.0, &address, TOOLS).await.err().unwrap();
    assert!(failure.to_string().contains("TLS alert certificate_revoked"), "{failure}");

    // With a new certificate, traffic flows again; then the client learns that the server is revoked.
    planner.write_leaf(&ca, &ca.leaf(PLANNER).unwrap(), Some(&[&planners]));
    until(&kept, |report| report.kept["tools"].open).await;
    planner.write_leaf(&ca, &ca.leaf(PLANNER).unwrap(), Some(&[&tools_leaf]));
    let report = until(&kept, |report| !report.kept["tools"].open).await;
    let why = report.kept["tools"].last_end.clone().unwrap().why;
    assert!(why.contains("its certificate is revoked: serial"), "{why}");
    let failure = hello_from(&planner.0, &address, TOOLS).await.err().unwrap();
    assert!(matches!(failure, Failure::WeRefused(Refusal::Revoked(_))), "{failure}");
}

#[tokio::test]
async fn an_open_connection_does_not_outlive_its_bound() {
    let ca = ForgedCa::new("ours").unwrap();
    let (planner, tools) = (Volume::new("patient"), Volume::new("bounded"));
    planner.write(&ca, PLANNER);
    tools.write(&ca, TOOLS);
    let (address, _) = server(&tools, &[PLANNER]).await;
    let current = material::follow(planner.0.clone()).await;
    let target = Target { name: "tools".to_owned(), to: address, expect: TOOLS.to_owned() };
    let kept = Counters::new(&current.borrow(), &[], std::slice::from_ref(&target));
    let kept = Arc::new(kept);
    tokio::spawn(keep(target, 100.0, Duration::from_millis(200), current, kept.clone()));
    let report = until(&kept, |report| report.kept["tools"].opened > 3).await;
    assert!(report.kept["tools"].said > 3, "{report:#?}");
}

#[test]
fn a_crl_that_is_broken_or_gone_lets_nobody_in_again() {
    let ca = ForgedCa::new("ours").unwrap();
    let tools = Volume::new("meddled");
    let (leaf, revoked) = (ca.leaf(TOOLS).unwrap(), ca.leaf(PLANNER).unwrap());
    tools.write_leaf(&ca, &leaf, Some(&[&revoked]));
    let mut seen = Seen::default();
    assert_eq!(seen.look(&tools.0).unwrap().trust.revoked.entries, 1);

    std::fs::write(tools.0.join("..data/crl.pem"), "nothing").unwrap();
    assert!(seen.look(&tools.0).is_none(), "what it has stays");
    let error = Material::load(&tools.0).err().unwrap();
    assert!(format!("{error:#}").contains("crl.pem holds no CRL"), "{error:#}");

    std::fs::remove_file(tools.0.join("..data/crl.pem")).unwrap();
    assert!(seen.look(&tools.0).is_none(), "what it has stays");

    tools.write_leaf(&ca, &leaf, Some(&[]));
    assert_eq!(seen.look(&tools.0).unwrap().trust.revoked.entries, 0);
}
