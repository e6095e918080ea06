//! Tokens that hold keys: SoftHSM, and a TPM 2.0 (swtpm with tpm2-pkcs11). Both are the programs
//! that others use, from Debian; `e2e/judges/build.sh` brings them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::judges::{self, run};
use crate::process::Process;
use crate::{seconds, wait_for, workspace};

/// The label of every token of a test.
pub const LABEL: &str = "countersign";
/// Its user PIN. It is no secret here.
pub const PIN: &str = "12345678";
const SECURITY_OFFICERS_PIN: &str = "87654321";

/// A token of one test's own.
pub struct HardwareToken {
    /// The PKCS#11 module.
    pub module: PathBuf,
    /// What the module needs to find the token.
    pub environment: Vec<(String, String)>,
    folder: PathBuf,
    /// The TPM. It goes when this is dropped.
    _tpm: Option<Process>,
}

/// A private key, as pkcs11-tool shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownKey {
    /// CKA_LABEL.
    pub label: String,
    /// CKA_ID in hexadecimal.
    pub id: String,
    /// `sensitive, always sensitive, never extractable, local`, where all is well.
    pub access: String,
}

impl ShownKey {
    /// True if and only if there is a key in it. SoftHSM writes an object in steps, the key and that
    /// it is a local one last: a kill leaves half of one, and so may another process that looks on.
    pub fn is_whole(&self) -> bool {
        self.access.ends_with("local")
    }
}

impl HardwareToken {
    /// A SoftHSM with one token.
    pub fn softhsm() -> Self {
        judges::build();
        let folder = workspace::scratch("softhsm");
        std::fs::create_dir(folder.join("tokens")).expect("a scratch folder is writable");
        let settings = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            folder.join("tokens").display()
        );
        std::fs::write(folder.join("softhsm2.conf"), settings).expect("it is writable");
        let conf = folder.join("softhsm2.conf").display().to_string();
        let token = Self {
            module: real_path("libsofthsm2.so"),
            environment: vec![("SOFTHSM2_CONF".to_owned(), conf)],
            folder,
            _tpm: None,
        };
        token.initialize();
        token
    }

    /// A TPM 2.0 with one token. It has no resource manager, as the kernel would give it: whoever
    /// is killed leaves in it what he loaded.
    pub async fn tpm() -> Self {
        judges::build();
        let folder = workspace::scratch("tpm");
        for name in ["state", "store"] {
            std::fs::create_dir(folder.join(name)).expect("a scratch folder is writable");
        }
        // tpm2-pkcs11 knows one port, and looks for the control port right after it.
        let port = loop {
            let port = workspace::free_port();
            if std::net::TcpListener::bind(("127.0.0.1", port.saturating_add(1))).is_ok() {
                break port;
            }
        };
        let control = port + 1;
        let mut command = Command::new("swtpm");
        command
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
            .arg(format!("--tpmstate=dir={}", folder.join("state").display()))
            .arg(format!("--server=type=tcp,port={port},bindaddr=127.0.0.1"))
            .arg(format!("--ctrl=type=tcp,port={control},bindaddr=127.0.0.1"));
        let process = Process::spawn("swtpm", command, &folder.join("swtpm.log"));
        // It takes one connection after the other: the control port tells without being in the way.
        wait_for("the TPM listens", seconds(30), async || {
            std::net::TcpStream::connect(("127.0.0.1", control))
                .map(drop)
                .map_err(|error| format!("{error}; its log:\n{}", process.log()))
        })
        .await;
        let token = Self {
            module: real_path("libtpm2_pkcs11.so"),
            environment: [
                ("TPM2_PKCS11_STORE", folder.join("store").display().to_string()),
                ("TPM2_PKCS11_TCTI", format!("swtpm:host=127.0.0.1,port={port}")),
                ("TPM2_PKCS11_LOG_LEVEL", "0".to_owned()),
                ("TSS2_LOG", "all+none".to_owned()),
            ]
            .map(|(name, value)| (name.to_owned(), value))
            .into(),
            folder,
            _tpm: Some(process),
        };
        token.initialize();
        token
    }

    /// Its private keys, by their label.
    pub fn keys(&self) -> Vec<ShownKey> {
        let text = self.tool(&["--login", "--pin", PIN, "--list-objects", "--type", "privkey"]);
        let mut keys: Vec<ShownKey> = Vec::new();
        for line in text.lines() {
            let Some((name, value)) = line.trim().split_once(':') else { continue };
            let value = value.trim().to_owned();
            match (name, keys.last_mut()) {
                ("label", _) => {
                    keys.push(ShownKey { label: value, id: String::new(), access: String::new() });
                }
                ("ID", Some(key)) => key.id = value,
                ("Access", Some(key)) => key.access = value,
                _ => {}
            }
        }
        keys.sort_by(|a, b| a.label.cmp(&b.label));
        keys
    }

    /// How many objects are in a SoftHSM, whole or not: each is a file.
    pub fn object_files(&self) -> usize {
        let folders = std::fs::read_dir(self.folder.join("tokens")).expect("it is there");
        let files = folders.flatten().flat_map(|folder| std::fs::read_dir(folder.path()));
        let names = files.flatten().flatten().map(|file| file.path());
        names.filter(|path| path.extension().is_some_and(|end| end == "object")).count()
    }

    /// `token` of the benchmark, about this token.
    pub fn program(&self) -> Command {
        let mut command = Command::new(workspace::built("token"));
        let at = ["--token", LABEL, "--pin", PIN, "--module"];
        self.with_environment(command.args(at).arg(&self.module));
        command
    }

    /// pkcs11-tool with this token; panics where it fails.
    pub fn tool(&self, arguments: &[&str]) -> String {
        run(self.pkcs11_tool().args(["--token-label", LABEL]).args(arguments), "")
    }

    /// A program of ours with what the module needs.
    pub fn with_environment<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.envs(self.environment.iter().map(|(name, value)| (name, value)))
    }

    /// Unplugs a SoftHSM: its files are not where they were.
    pub fn unplug(&self) {
        self.rename("tokens", "unplugged");
        std::fs::create_dir(self.folder.join("tokens")).expect("a scratch folder is writable");
    }

    /// Plugs it in again, with all that is in it.
    pub fn plug_in(&self) {
        std::fs::remove_dir_all(self.folder.join("tokens")).expect("it was made by `unplug`");
        self.rename("unplugged", "tokens");
    }

    fn rename(&self, from: &str, to: &str) {
        let at = |name: &str| -> PathBuf { Path::new(&self.folder).join(name) };
        std::fs::rename(at(from), at(to)).expect("the token's folder can be renamed");
    }

    fn initialize(&self) {
        let officer = ["--so-pin", SECURITY_OFFICERS_PIN];
        run(
            self.pkcs11_tool()
                .args(["--init-token", "--label", LABEL, "--slot-index", "0"])
                .args(officer),
            "",
        );
        self.tool(&["--init-pin", "--login", "--so-pin", SECURITY_OFFICERS_PIN, "--pin", PIN]);
    }

    fn pkcs11_tool(&self) -> Command {
        let mut command = Command::new("pkcs11-tool");
        self.with_environment(command.arg("--module").arg(&self.module));
        command
    }
}

/// A TrustDomain names a module by its own path, without a step up.
fn real_path(module: &str) -> PathBuf {
    workspace::tool(module).canonicalize().expect("it is there")
}
