//! Programs of others that judge what we make.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Once;

use serde_json::Value;

use crate::workspace;

/// Runs the OpenSSL command with `input`, and gives what it printed. Panics where it fails.
pub fn openssl(arguments: &[&str], input: &str) -> String {
    run(Command::new("openssl").args(arguments), input)
}

/// Runs a program with `input`, and gives what it printed. Panics where it fails.
pub fn run(command: &mut Command, input: &str) -> String {
    let name = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run {name}: {error}"));
    let mut pipe = child.stdin.take().expect("it is piped");
    // A program that wants no input may have ended before it is written.
    let _ = pipe.write_all(input.as_bytes());
    drop(pipe);
    let output = child.wait_with_output().expect("a child can be waited for");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {}\n{complaint}{printed}", output.status);
    printed
}

/// Brings the judges that are no part of the system, once: all that e2e/judges/build.sh makes, and pkilint.
pub fn build() {
    static BUILT: Once = Once::new();
    BUILT.call_once(|| {
        run(&mut Command::new(workspace::root().join("e2e/judges/build.sh")), "");
        run(Command::new(workspace::root().join("e2e/tools/build.sh")).arg("judges"), "");
    });
}

/// What zlint finds wrong with a certificate in DER, by the standards that are ours. It ends well
/// whatever it finds.
pub fn zlint(file: &Path) -> Vec<String> {
    let mut command = Command::new(workspace::tool("zlint"));
    command.args(["-format", "der", "-includeSources", "RFC5280,RFC5480,RFC8813"]).arg(file);
    let report: Value = serde_json::from_str(&run(&mut command, "")).expect("zlint prints JSON");
    let lints = report.as_object().expect("zlint prints an object");
    let passed = lints.values().filter(|lint| lint["result"] == "pass").count();
    assert!(passed > 20, "zlint looked at {passed} things only: {report}");
    lints
        .iter()
        .filter(|(_, lint)| !matches!(lint["result"].as_str(), Some("pass" | "NA" | "NE")))
        .map(|(name, lint)| format!("zlint {name}: {}", lint["result"]))
        .collect()
}

/// What pkilint finds wrong with a certificate in DER, warnings included. It calls every spiffe URI
/// a syntax error, which is its own limit: RFC 3986 has no such rule.
pub fn pkilint(file: &Path) -> Vec<String> {
    findings_of("lint_pkix_cert", &[], file)
        .into_iter()
        .filter(|finding| finding["code"] != "pkix.invalid_uri_syntax")
        .map(|finding| format!("pkilint {finding}"))
        .collect()
}

/// What pkilint finds wrong with a CRL in DER, warnings included.
pub fn pkilint_crl(file: &Path) -> Vec<String> {
    findings_of("lint_crl", &["-t", "CRL", "-p", "PKIX"], file)
        .into_iter()
        .map(|finding| format!("pkilint {finding}"))
        .collect()
}

/// The findings of one of pkilint's programs.
fn findings_of(program: &str, arguments: &[&str], file: &Path) -> Vec<Value> {
    let output = Command::new(workspace::tool(program))
        .arg("lint")
        .args(arguments)
        .args(["-s", "WARNING", "-f", "JSON", "--document-format", "DER"])
        .arg(file)
        .output()
        .expect("pkilint can be run");
    // It exits with the number of its findings.
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
        panic!("pkilint printed {:?} {:?}", output.stdout, String::from_utf8_lossy(&output.stderr))
    });
    let results = report["results"].as_array().expect("pkilint lists its results");
    results
        .iter()
        .flat_map(|result| result["finding_descriptions"].as_array().cloned().unwrap_or_default())
        .collect()
}
