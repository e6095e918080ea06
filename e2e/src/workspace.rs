//! Where things are: the checkout, its target folder, the programs.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

/// The checkout.
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The folder that cargo builds into.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// A program of `e2e/tools/build.sh`.
pub fn tool(name: &str) -> PathBuf {
    let path = root().join("target/tools").join(name);
    assert!(
        path.exists(),
        "{name} is missing in target/tools: run e2e/tools/build.sh (make test does)"
    );
    path
}

/// A program of this workspace, built with the profile of the harness itself: a release harness
/// measures a release operator.
pub fn built(name: &str) -> PathBuf {
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    let path = target().join(profile).join(name);
    assert!(
        path.exists(),
        "{} is missing: run `cargo build --workspace` first (make test does)",
        path.display()
    );
    path
}

/// A port of the loopback address that nobody listens on now.
///
/// Between this and its use somebody else may take it; whoever starts a server with it tries
/// again with another.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("the loopback address has a free port")
        .port()
}

/// Likewise one that stays free for longer, for a port that is written down before anybody listens on it: it is
/// below those that the kernel gives to connections and to [`free_port`] (32768 and above, unless told otherwise).
pub fn lasting_port() -> u16 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);

    // Processes that run at once begin apart.
    let begin = std::process::id().wrapping_mul(64);
    (0..10_000)
        .map(|_| begin.wrapping_add(COUNT.fetch_add(1, Ordering::Relaxed)) % 10_000 + 20_000)
        .map(|port| u16::try_from(port).expect("it is below 30000"))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("the loopback address has a free port")
}

/// A new folder for one server's data and logs, `target/e2e/<process>-<name>-<n>`.
///
/// The folders of test processes that have ended are removed here and not at their end: so the
/// logs of a failed run can be read, and those of a killed one do not pile up.
pub fn scratch(name: &str) -> PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);

    let all = target().join("e2e");
    remove_those_of_the_dead(&all);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let folder = all.join(format!("{}-{name}-{number}", std::process::id()));
    std::fs::create_dir_all(&folder)
        .unwrap_or_else(|error| panic!("cannot create {}: {error}", folder.display()));
    folder
}

fn remove_those_of_the_dead(all: &Path) {
    for entry in std::fs::read_dir(all).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_string_lossy().split('-').next().map(str::to_owned);
        let Some(process) = process.filter(|p| p.parse::<u32>().is_ok()) else { continue };
        if !Path::new("/proc").join(process).exists() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
