//! A real OpenBao (`bao server`, from PyPI) with TLS: what signs for us in Vault's place, and with
//! Vault's API. Each test has mounts of its own in it, so that several share one.

use std::process::Command;
use std::time::Duration;

use http::{Method, Request};
use kube::{Client, Config};
use serde_json::{Value, json};

use crate::corporate::{Ca, P256, Shape, hand_over, secret_of};
use crate::judges;
use crate::process::{Process, Signal};
use crate::users::{OPERATOR_NAMESPACE, User};
use crate::wait::{seconds, wait_for};
use crate::{ApiServer, Namespace, workspace};

/// A running OpenBao, unsealed.
pub struct Vault {
    process: Process,
    /// Not a client: that would end with the runtime of the test that made it.
    config: Config,
    /// `https://127.0.0.1:...`
    pub address: String,
    /// The CA under which its certificate is.
    pub ca: Ca,
    root_token: String,
    unseal_key: String,
}

/// What the operator's token may do in `Intermediate` mode, as docs/authorities.md says; the engine is
/// mounted at MOUNT.
pub const INTERMEDIATE_POLICY: &str = r#"
path "MOUNT/issuer/+/json" { capabilities = ["read"] }
path "MOUNT/issuer/+/sign-intermediate" { capabilities = ["update"] }
"#;

/// The same in `Leaf` mode, with the role `agents`.
pub const LEAF_POLICY: &str = r#"
path "MOUNT/issuers" { capabilities = ["read", "list"] }
path "MOUNT/issuer/+/json" { capabilities = ["read"] }
path "MOUNT/issuer/+/sign/agents" { capabilities = ["update"] }
path "MOUNT/revoke" { capabilities = ["update"] }
"#;

/// One that a test logs in to with a role id and a secret id.
pub struct AppRole {
    /// The role id.
    pub role_id: String,
    /// A secret id.
    pub secret_id: String,
}

impl Vault {
    /// Starts one, with nothing in it.
    pub async fn start() -> Self {
        judges::build();
        let folder = workspace::scratch("vault");
        let ca = Ca::root(Shape::of(P256));
        let extensions = "basicConstraints=critical,CA:FALSE\n\
                          keyUsage=critical,digitalSignature\n\
                          subjectAltName=IP:127.0.0.1\n";
        let certificate = ca.under("vault", Shape { extensions, ..Shape::of(P256) });
        let file = |name: &str| folder.join(name).display().to_string();
        let write = |name: &str, text: &str| {
            std::fs::write(folder.join(name), text).expect("a scratch folder is writable");
        };
        write("tls.crt", &certificate.certificate);
        write("tls.key", &certificate.key);
        let port = workspace::free_port();
        let address = format!("https://127.0.0.1:{port}");
        write(
            "vault.hcl",
            &format!(
                "storage \"inmem\" {{}}\nui = false\ndisable_mlock = true\napi_addr = \"{address}\"\n\
                 listener \"tcp\" {{\n  address = \"127.0.0.1:{port}\"\n  cluster_address = \"127.0.0.1:{}\"\n\
                 tls_cert_file = \"{}\"\n  tls_key_file = \"{}\"\n}}\n",
                workspace::free_port(),
                file("tls.crt"),
                file("tls.key")
            ),
        );
        let mut command = Command::new(workspace::tool("bao"));
        command.arg("server").arg(format!("-config={}", file("vault.hcl")));
        let process = Process::spawn("bao", command, &folder.join("bao.log"));
        let mut config = Config::new(address.parse().expect("it is an URL"));
        let der = countersign::x509::read_pem(ca.certificate.as_bytes());
        config.root_cert =
            Some(der.expect("OpenSSL made it").iter().map(|der| der.to_vec()).collect());
        config.connect_timeout = Some(Duration::from_secs(2));
        let (root_token, unseal_key) = Default::default();
        let mut vault = Vault { process, config, address, ca, root_token, unseal_key };
        vault.initialize().await;
        vault
    }

    async fn initialize(&mut self) {
        let body = json!({"secret_shares": 1, "secret_threshold": 1});
        let made = wait_for("OpenBao is initialized", seconds(60), async || {
            let made = self.try_ask(Method::PUT, "sys/init", &body).await;
            made.map_err(|error| format!("{error}; its log:\n{}", self.process.log()))
        })
        .await;
        self.root_token = text(&made["root_token"]);
        self.unseal_key = text(&made["keys_base64"][0]);
        self.unseal().await;
        self.ask(Method::POST, "sys/auth/approle", json!({"type": "approle"})).await;
    }

    /// Seals it: it answers, and does nothing.
    pub async fn seal(&self) {
        self.ask(Method::PUT, "sys/seal", json!({})).await;
    }

    /// Unseals it, and waits until it works.
    pub async fn unseal(&self) {
        self.ask(Method::PUT, "sys/unseal", json!({"key": self.unseal_key})).await;
        wait_for("OpenBao is unsealed and active", seconds(60), async || {
            self.try_ask(Method::GET, "sys/mounts", &Value::Null).await
        })
        .await;
    }

    /// Holds it: its port takes connections, and nothing answers.
    pub fn pause(&self) {
        self.process.signal(Signal::Stop);
    }

    /// Lets it run again.
    pub fn resume(&self) {
        self.process.signal(Signal::Continue);
    }

    /// A PKI engine at this path, with a root of its own. Gives the root's certificate.
    pub async fn pki(&self, mount: &str) -> String {
        let engine = json!({"type": "pki", "config": {"max_lease_ttl": "87600h"}});
        self.ask(Method::POST, &format!("sys/mounts/{mount}"), engine).await;
        self.new_root(mount).await
    }

    /// A new root in a PKI engine, which is its default issuer from now on.
    pub async fn new_root(&self, mount: &str) -> String {
        let root =
            json!({"common_name": format!("{mount} root"), "ttl": "80000h", "key_type": "ec"});
        let path = format!("{mount}/root/generate/internal");
        let made = self.ask(Method::POST, &path, root).await;
        let default = json!({"default": made["data"]["issuer_id"]});
        self.ask(Method::POST, &format!("{mount}/config/issuers"), default).await;
        text(&made["data"]["certificate"])
    }

    /// A role for leaves of a trust domain, as docs/authorities.md has it.
    pub async fn role(&self, mount: &str, role: &str, trust_domain: &str) {
        self.role_but(mount, role, trust_domain, json!({})).await;
    }

    /// The same, but for these fields.
    pub async fn role_but(&self, mount: &str, role: &str, trust_domain: &str, but: Value) {
        let mut body = json!({
            "allow_any_name": true,
            "enforce_hostnames": false,
            "require_cn": false,
            "cn_validations": ["disabled"],
            "allow_ip_sans": false,
            "allowed_uri_sans": [format!("spiffe://{trust_domain}/*")],
            "key_type": "any",
            "key_usage": ["DigitalSignature"],
            "basic_constraints_valid_for_non_ca": true,
            "not_before_duration": "120s",
            "max_ttl": "24h",
        });
        for (field, value) in but.as_object().expect("fields") {
            body[field] = value.clone();
        }
        self.ask(Method::POST, &format!("{mount}/roles/{role}"), body).await;
    }

    /// A policy of this name.
    pub async fn policy(&self, name: &str, policy: &str) {
        let body = json!({"policy": policy});
        self.ask(Method::PUT, &format!("sys/policies/acl/{name}"), body).await;
    }

    /// An AppRole of this name, with the policy of the same name; its tokens live this long.
    pub async fn app_role(&self, name: &str, ttl: &str) -> AppRole {
        let role = json!({"token_policies": [name], "token_ttl": ttl, "token_max_ttl": "1h"});
        self.ask(Method::POST, &format!("auth/approle/role/{name}"), role).await;
        let path = format!("auth/approle/role/{name}/role-id");
        let role_id = text(&self.ask(Method::GET, &path, Value::Null).await["data"]["role_id"]);
        AppRole { role_id, secret_id: self.secret_id(name).await }
    }

    /// An AppRole of this name that may do what a policy says of the mount of the same name, its
    /// secret id in a Secret, and `vault` of a TrustDomain's authority that uses them.
    pub async fn authority(&self, ns: &Namespace, name: &str, policy: &str) -> Value {
        self.policy(name, &policy.replace("MOUNT", name)).await;
        let role = self.app_role(name, "5m").await;
        hand_over(&ns.client, &secret_of(name, json!({"secretId": role.secret_id}))).await;
        json!({
            "server": self.address,
            "caBundle": self.ca.certificate,
            "mount": name,
            "auth": {"appRole": {"roleId": role.role_id, "secretIdRef": {"name": name}}},
        })
    }

    /// The same of one whose leaves it signs, in a new engine of this name, for the trust domain
    /// `<name>.test`.
    pub async fn leaf_authority(&self, ns: &Namespace, name: &str) -> Value {
        self.pki(name).await;
        self.role(name, "agents", &format!("{name}.test")).await;
        let mut authority = self.authority(ns, name, LEAF_POLICY).await;
        authority["mode"] = json!("Leaf");
        authority["role"] = json!("agents");
        authority
    }

    /// Lets the operator's ServiceAccount log in under a role of this name, with the policy of the
    /// same name, as far as this API server vouches for it.
    pub async fn kubernetes(&self, server: &ApiServer, role: &str) {
        let method = json!({"type": "kubernetes"});
        self.ask(Method::POST, "sys/auth/kubernetes", method).await;
        let kubeconfig = server.kubeconfig(User::Admin);
        let kubeconfig = std::fs::read_to_string(kubeconfig).expect("the server wrote it");
        let kubeconfig: Value = serde_yaml::from_str(&kubeconfig).expect("it is YAML");
        let cluster = &kubeconfig["clusters"][0]["cluster"];
        let ca = std::fs::read_to_string(text(&cluster["certificate-authority"]));
        let config = json!({
            "kubernetes_host": cluster["server"],
            "kubernetes_ca_cert": ca.expect("the server wrote it"),
            "token_reviewer_jwt": kubeconfig["users"][0]["user"]["token"],
        });
        self.ask(Method::POST, "auth/kubernetes/config", config).await;
        let body = json!({
            "bound_service_account_names": ["countersign"],
            "bound_service_account_namespaces": [OPERATOR_NAMESPACE],
            "audience": "vault",
            "token_policies": [role],
            "token_ttl": "5m",
        });
        self.ask(Method::POST, &format!("auth/kubernetes/role/{role}"), body).await;
    }

    /// Another secret id of an AppRole.
    pub async fn secret_id(&self, name: &str) -> String {
        let path = format!("auth/approle/role/{name}/secret-id");
        text(&self.ask(Method::POST, &path, json!({})).await["data"]["secret_id"])
    }

    /// Asks something as its root, and panics where it says no.
    pub async fn ask(&self, method: Method, path: &str, body: Value) -> Value {
        let asked = self.try_ask(method, path, &body).await;
        asked.unwrap_or_else(|error| panic!("OpenBao does not do {path}: {error}"))
    }

    /// Asks something as its root.
    pub async fn try_ask(&self, method: Method, path: &str, body: &Value) -> Result<Value, String> {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = Request::builder()
            .method(method)
            .uri(format!("/v1/{path}"))
            .header("X-Vault-Token", &self.root_token)
            .body(body)
            .expect("it is a request");
        let client = Client::try_from(self.config.clone()).expect("it is a client");
        let answer = client.request_text(request).await.map_err(|error| error.to_string())?;
        Ok(serde_json::from_str(&answer).unwrap_or_default())
    }

    /// All it has printed.
    pub fn log(&self) -> String {
        self.process.log()
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}
