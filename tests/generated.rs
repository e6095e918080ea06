//! What is generated and checked in is what would be generated now. `make generate` writes it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn crds_are_what_the_types_say() {
    let expected: BTreeMap<String, String> = countersign::cli::crd::files().into_iter().collect();
    assert_eq!(expected.len(), 4, "countersign crd prints {:?}", expected.keys());
    assert_same("crds", &files("crds"), &expected);
}

#[test]
fn the_chart_has_the_same_crds() {
    assert_same(
        "charts/countersign/files/crds",
        &files("charts/countersign/files/crds"),
        &files("crds"),
    );
}

#[test]
fn the_plain_manifest_is_the_chart_rendered() {
    if !helm_is_there() {
        return;
    }
    let rendered = run(&mut Command::new(root().join("packaging/install-yaml.sh")));
    let checked_in = std::fs::read_to_string(root().join("manifests/install.yaml"))
        .expect("manifests/install.yaml can be read");
    assert!(rendered == checked_in, "manifests/install.yaml is out of date: run make generate");
}

#[test]
fn the_quarantine_manifests_are_the_chart_rendered() {
    if !helm_is_there() {
        return;
    }
    let folder = root().join("target/quarantine");
    run(Command::new(root().join("packaging/quarantine-yaml.sh")).arg(&folder));
    assert_same(
        "manifests/quarantine",
        &files("manifests/quarantine"),
        &files("target/quarantine"),
    );
}

/// Helm is built, not shipped. A developer may run these tests without it; CI may not.
fn helm_is_there() -> bool {
    let there = root().join("target/tools/helm").exists();
    assert!(there || std::env::var_os("CI").is_none(), "CI must build helm first");
    if !there {
        eprintln!("skipped: e2e/tools/build.sh helm makes target/tools/helm");
    }
    there
}

fn assert_same(what: &str, found: &BTreeMap<String, String>, expected: &BTreeMap<String, String>) {
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        expected.keys().collect::<Vec<_>>(),
        "{what} has other files than it should: run make generate"
    );
    for (name, text) in expected {
        assert!(
            found[name].trim() == text.trim(),
            "{what}/{name} is out of date: run make generate"
        );
    }
}

fn files(folder: &str) -> BTreeMap<String, String> {
    let folder: PathBuf = root().join(folder);
    std::fs::read_dir(&folder)
        .unwrap_or_else(|error| {
            panic!("cannot read {}: {error}: run make generate", folder.display())
        })
        .map(|entry| {
            let entry = entry.expect("an entry can be read");
            let text = std::fs::read_to_string(entry.path()).expect("a CRD can be read");
            (entry.file_name().to_string_lossy().into_owned(), text)
        })
        .collect()
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed: {errors}");
    String::from_utf8(output.stdout).expect("it prints text")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
