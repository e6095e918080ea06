//! The CAs of an enterprise, made by OpenSSL, and the Secret in which it hands one over.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use kube::Client;
use serde_json::{Value, json};

use crate::clock::Clock;
use crate::judges::run;
use crate::users::OPERATOR_NAMESPACE;
use crate::{install, workspace};

/// A key's algorithm, as `openssl genpkey` takes it.
pub const RSA: &[&str] = &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
/// NIST P-256.
pub const P256: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
/// NIST P-384.
pub const P384: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"];
/// Ed25519.
pub const ED25519: &[&str] = &["-algorithm", "ED25519"];

/// What a CA certificate says about itself.
pub const CA: &str = "basicConstraints=critical,CA:TRUE\n\
                      keyUsage=critical,keyCertSign,cRLSign\n\
                      subjectKeyIdentifier=hash\n\
                      authorityKeyIdentifier=keyid\n";

/// How a CA is made.
#[derive(Clone, Copy)]
pub struct Shape<'a> {
    /// What `openssl genpkey` takes.
    pub key: &'a [&'a str],
    /// The lines of its extensions.
    pub extensions: &'a str,
    /// Further arguments of `openssl x509`.
    pub options: &'a [&'a str],
    /// It is valid from so many seconds from now.
    pub from: i64,
    /// For so many days.
    pub days: u32,
    /// Its subject but for the common name.
    pub subject: &'a str,
}

impl Shape<'_> {
    /// A CA of ten years that began an hour ago.
    pub const fn of(key: &'static [&'static str]) -> Shape<'static> {
        Shape { key, extensions: CA, options: &[], from: -3600, days: 3650, subject: "/O=Corp" }
    }
}

/// A CA with its key.
#[derive(Clone)]
pub struct Ca {
    folder: PathBuf,
    /// Its certificate, PEM.
    pub certificate: String,
    /// Its key, PEM.
    pub key: String,
}

impl Ca {
    /// A root.
    pub fn root(shape: Shape<'_>) -> Self {
        Ca::make("root", None, shape)
    }

    /// A CA under this one.
    pub fn under(&self, name: &str, shape: Shape<'_>) -> Self {
        Ca::make(name, Some(self), shape)
    }

    /// Signs somebody's request, PEM, as a CA of this shape. Its names are the request's.
    pub fn sign(&self, request: &str, shape: Shape<'_>) -> String {
        let folder = workspace::scratch("signed");
        let file = |folder: &PathBuf, name: &str| folder.join(name).display().to_string();
        let (asked, extensions) = (file(&folder, "csr"), file(&folder, "extensions"));
        std::fs::write(&asked, request).expect("the folder is writable");
        std::fs::write(&extensions, shape.extensions).expect("the folder is writable");
        let (crt, key) = (file(&self.folder, "ca.crt"), file(&self.folder, "ca.key"));
        let days = shape.days.to_string();
        let mut command = Command::new("openssl");
        command.args(["x509", "-req", "-in", &asked, "-CA", &crt, "-CAkey", &key]);
        command.args(["-CAcreateserial", "-days", &days, "-extfile", &extensions]);
        let _clock = Clock::of(command.args(shape.options), shape.from);
        run(&mut command, "")
    }

    fn make(name: &str, parent: Option<&Ca>, shape: Shape<'_>) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = workspace::scratch("corporate");
        let file = |name: &str| folder.join(name).display().to_string();
        let openssl = |arguments: &[&str]| {
            let mut command = Command::new("openssl");
            let _clock = Clock::of(command.args(arguments), shape.from);
            run(&mut command, "")
        };
        let (key, request, crt) = (file("ca.key"), file("ca.csr"), file("ca.crt"));
        openssl(&[&["genpkey", "-out", &key], shape.key].concat());
        let subject = format!("{}/CN={name} {number}", shape.subject);
        openssl(&["req", "-new", "-key", &key, "-subj", &subject, "-out", &request]);
        let extensions = file("extensions");
        std::fs::write(&extensions, shape.extensions).expect("the folder is writable");
        let days = shape.days.to_string();
        let signer = parent.map(|parent| {
            let file = |name: &str| parent.folder.join(name).display().to_string();
            (file("ca.crt"), file("ca.key"))
        });
        let signer: Vec<&str> = match &signer {
            None => vec!["-signkey", &key],
            Some((crt, key)) => vec!["-CA", crt, "-CAkey", key, "-CAcreateserial"],
        };
        let sign = ["x509", "-req", "-in", &request, "-out", &crt, "-days", &days];
        let extended = ["-extfile", &extensions];
        openssl(&[&sign[..], &signer, &extended, shape.options].concat());
        let text = |path: &str| std::fs::read_to_string(path).expect("OpenSSL wrote it");
        Ca { certificate: text(&crt), key: text(&key), folder: folder.clone() }
    }
}

/// The Secret in which an issuing CA is handed over: its chain, its key, the root.
pub fn secret(name: &str, chain: &[&Ca], root: Option<&Ca>) -> Value {
    let certificates: String = chain.iter().map(|ca| ca.certificate.as_str()).collect();
    let mut files = json!({"tls.crt": certificates, "tls.key": chain[0].key});
    if let Some(root) = root {
        files["ca.crt"] = json!(root.certificate);
    }
    secret_of(name, files)
}

/// A Secret of the operator's namespace with these files.
pub fn secret_of(name: &str, files: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": name, "namespace": OPERATOR_NAMESPACE},
        "stringData": files,
    })
}

/// Puts a Secret there, or changes it.
pub async fn hand_over(client: &Client, secret: &Value) {
    install::apply(client, secret).await;
}
