//! Who reads `crl.pem` really refuses: rustls, OpenSSL, Go, Envoy and nginx, each as
//! docs/revocation.md sets it up. The revoked is refused, the others go on being served, and the
//! time from the change of the file to the first refusal is printed.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use countersign_e2e::forged::{Forged, Leaf};
use countersign_e2e::mount::Mount;
use countersign_e2e::readers::{KINDS, Kind, Reader, Verdict};
use countersign_e2e::{Delivered, judges, seconds, wait_for, workspace};

const SERVER: &str = "spiffe://test.countersign.dev/ns/research/sa/server";
const GOOD: &str = "spiffe://test.countersign.dev/ns/research/sa/planner";
const BAD: &str = "spiffe://test.countersign.dev/ns/research/sa/retrieval";
const DAY: i64 = 86_400;

/// A volume with a server's files, and who calls it.
struct Scene {
    folder: PathBuf,
    forged: Forged,
    server: Leaf,
    mount: Mount,
    good: Delivered,
    bad_leaf: Leaf,
    bad: Delivered,
}

impl Scene {
    fn new(name: &str) -> Self {
        judges::build();
        let folder = workspace::scratch(name);
        let forged = Forged::new("test.countersign.dev");
        let server = forged.leaf(SERVER);
        let bad_leaf = forged.leaf(BAD);
        let (good, bad) = (forged.caller(&forged.leaf(GOOD)), forged.caller(&bad_leaf));
        let at = folder.join("mount");
        let files = forged.files(&server, &forged.lists(&[], DAY), &at);
        let mount = Mount::of(at, files);
        Self { folder, forged, server, mount, good, bad_leaf, bad }
    }

    /// Brings another `crl.pem` into the volume, as the kubelet does.
    fn bring(&mut self, lists: &str) {
        let files = self.forged.files(&self.server, lists, &self.mount.folder);
        self.mount.update(files);
    }

    fn start(&self, kind: Kind) -> Reader {
        Reader::start(kind, &self.folder, &self.mount.folder, &[GOOD, BAD])
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_revoked_is_refused_by_every_reader_and_the_others_are_served() {
    let mut scene = Scene::new("readers");
    let mut readers: Vec<_> = KINDS.into_iter().map(|kind| scene.start(kind)).collect();
    for reader in &readers {
        reader.comes_to(&scene.good, Verdict::is_served).await;
        reader.comes_to(&scene.bad, Verdict::is_served).await;
    }

    println!("\n    from the change of crl.pem to the first refusal of the revoked:");
    for reader in &mut readers {
        // Each alone, so that one does not wait for the others.
        scene.bring(&scene.forged.lists(&[], DAY));
        reader.tell();
        reader.comes_to(&scene.bad, Verdict::is_served).await;
        scene.bring(&scene.forged.lists(&[&scene.bad_leaf], DAY));
        reader.tell();
        let took = reader.comes_to_refuse(&scene.bad).await;
        let words = reader.verdict(&scene.bad).await;
        println!("    {:<10}{:>6} ms   {words:?}", format!("{:?}", reader.kind), took.as_millis());
        assert!(took < Duration::from_secs(20), "{:?} took {took:?}", reader.kind);
        for _ in 0..20 {
            assert_eq!(reader.verdict(&scene.good).await, Verdict::Served, "{:?}", reader.kind);
        }
    }

    // A new certificate for the same agent is served, and the old one stays refused.
    let renewed = scene.forged.caller(&scene.forged.leaf(BAD));
    for reader in &readers {
        assert_eq!(reader.verdict(&renewed).await, Verdict::Served, "{:?}", reader.kind);
        assert!(reader.verdict(&scene.bad).await.is_refused(), "{:?}", reader.kind);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_list_refuses_everybody_until_another_comes() {
    let mut scene = Scene::new("expired");
    scene.bring(&scene.forged.lists(&[], -60));
    let mut readers: Vec<_> = KINDS.into_iter().map(|kind| scene.start(kind)).collect();
    for reader in &readers {
        reader.comes_to(&scene.good, Verdict::is_refused).await;
    }
    scene.bring(&scene.forged.lists(&[], DAY));
    for reader in &mut readers {
        reader.tell();
        reader.comes_to(&scene.good, Verdict::is_served).await;
    }
}

/// nginx, Envoy and `-crl_check_all` look for a CRL of each CA of the chain; the others take what
/// there is. This is why crl.pem has the root's own, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_roots_own_list_some_refuse_everybody() {
    let mut scene = Scene::new("rootless");
    scene.bring(&scene.forged.list_of_issuing(&[&scene.bad_leaf], DAY));
    for kind in KINDS {
        let reader = scene.start(kind);
        reader.comes_to(&scene.bad, Verdict::is_refused).await;
        match kind {
            Kind::OpenSsl | Kind::Envoy | Kind::Nginx => {
                assert!(reader.verdict(&scene.good).await.is_refused(), "{kind:?}");
            }
            _ => drop(reader.comes_to(&scene.good, Verdict::is_served).await),
        }
    }
}

/// Before there is a first CRL, Envoy lets nobody in, and it needs no restart when there is one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_without_a_list_refuses_everybody_until_the_first_comes() {
    let mut scene = Scene::new("listless");
    let lists = scene.forged.lists(&[&scene.bad_leaf], DAY);
    let mut files = scene.forged.files(&scene.server, &lists, &scene.mount.folder);
    files.remove("crl.pem");
    scene.mount.update(files);
    let envoy = scene.start(Kind::Envoy);
    envoy.comes_to(&scene.good, Verdict::is_refused).await;
    scene.bring(&lists);
    envoy.comes_to(&scene.good, Verdict::is_served).await;
    assert!(envoy.verdict(&scene.bad).await.is_refused());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_refuse_a_revoked_server() {
    let scene = Scene::new("clients");
    let server = scene.start(Kind::Go);
    server.comes_to(&scene.good, Verdict::is_served).await;
    // The clients' own volume. They are the planner; the server above is on their list, or not.
    let at = scene.folder.join("client");
    let planner = scene.forged.leaf(GOOD);
    let files =
        |revoked: &[&Leaf]| scene.forged.files(&planner, &scene.forged.lists(revoked, DAY), &at);
    let mut mount = Mount::of(at.clone(), files(&[]));
    let call = |name: &str| -> Result<(), String> {
        let trust = at.join("trust.pem");
        let both = ["ca.crt", "crl.pem"].map(|name| std::fs::read(at.join(name)).unwrap());
        std::fs::write(&trust, both.concat()).unwrap();
        let file = |name: &str| at.join(name).display().to_string();
        let mut command = match name {
            "go-spiffe" => {
                let mut command = Command::new(workspace::tool("refuser"));
                command.args(["call", &at.display().to_string(), &server.address()]);
                command
            }
            "rustls" => {
                let mut command = Command::new(workspace::built("agent"));
                command.args(["--identity", &at.display().to_string(), "handshake"]);
                command.args(["--to", &server.address(), "--expect", SERVER]);
                command
            }
            "openssl s_client" => {
                let mut command = Command::new("openssl");
                command.args(["s_client", "-connect", &server.address(), "-verify_return_error"]);
                command.args(["-crl_check_all", "-CAfile", &trust.display().to_string()]);
                command.args(["-cert", &file("tls.crt"), "-key", &file("tls.key")]);
                command.args(["-cert_chain", &file("tls.crt")]);
                command
            }
            "openssl verify" => {
                let server = scene.mount.folder.join("tls.crt").display().to_string();
                let mut command = Command::new("openssl");
                command.args(["verify", "-crl_check_all", "-CAfile", &file("ca.crt")]);
                command.args(["-CRLfile", &file("crl.pem"), "-untrusted", &server, &server]);
                command
            }
            _ => unreachable!("there are four"),
        };
        let output = command.stdin(std::process::Stdio::null()).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        if output.status.success() { Ok(()) } else { Err(said) }
    };
    let clients = ["go-spiffe", "openssl s_client", "openssl verify"];
    for client in clients {
        call(client).unwrap_or_else(|said| panic!("{client} does not like the server: {said}"));
    }
    mount.update(files(&[&scene.server]));
    for client in clients.into_iter().chain(["rustls"]) {
        let said = call(client).expect_err("the server is revoked");
        assert!(said.contains("revoked"), "{client} says: {said}");
    }
    mount.update(files(&[&scene.bad_leaf]));
    for client in clients {
        wait_for(client, seconds(20), async || call(client)).await;
    }
}

/// The Go code that people are told to use is the one that was tried above.
#[test]
fn the_docs_show_the_code_that_is_tested() {
    let read = |file: &str| std::fs::read_to_string(workspace::root().join(file)).unwrap();
    let code = read("e2e/judges/refuser/crl.go");
    let (_, shown) = code.split_once("a test compares them.\n").unwrap();
    assert!(read("docs/revocation.md").contains(&format!("```go\n{}\n```", shown.trim())));
}
