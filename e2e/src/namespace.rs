//! One test's own room in a shared API server. When the test fails, what is in it is printed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use kube::{Api, Client};
use serde_json::{Value, json};

use crate::ApiServer;
use crate::install::apply;

/// A namespace of its own for one test, and a client.
pub struct Namespace {
    /// The server it is in.
    pub server: Arc<ApiServer>,
    /// A client of the test itself.
    pub client: Client,
    /// Its name.
    pub name: String,
}

impl Namespace {
    /// Creates one, called after the test.
    pub async fn create(server: &Arc<ApiServer>, test: &str) -> Self {
        Self::create_with_labels(server, test, json!({})).await
    }

    /// Creates one with labels, for the selectors of TrustDomains.
    pub async fn create_with_labels(server: &Arc<ApiServer>, test: &str, labels: Value) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{test}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let client = server.client().await;
        let object = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels},
        });
        apply(&client, &object).await;
        Self { server: Arc::clone(server), client, name }
    }

    /// The API of a namespaced kind here.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    fn print(&self) {
        eprintln!("\n===== what is in namespace {} =====", self.name);
        eprintln!("{}", self.objects("agentidentities.countersign.dev,agentrosters.countersign.dev,agentaccesspolicies.countersign.dev,networkpolicies,secrets,configmaps,pods"));
        eprintln!("===== TrustDomains =====");
        eprintln!("{}", self.objects("trustdomains.countersign.dev"));
        eprintln!("===== events =====");
        eprintln!("{}", self.kubectl(&["get", "events", "--sort-by=.metadata.creationTimestamp"]));
        self.print_operator_logs();
    }

    /// The objects as YAML, without what nobody reads and nobody may see.
    fn objects(&self, kinds: &str) -> String {
        let text = self.kubectl(&["get", kinds, "-o", "json"]);
        let Ok(list) = serde_json::from_str::<Value>(&text) else { return text };
        let mut objects = list["items"].as_array().cloned().unwrap_or_default();
        for object in &mut objects {
            let is_secret = object["kind"] == "Secret";
            if let Some(metadata) = object["metadata"].as_object_mut() {
                metadata.remove("managedFields");
            }
            if let Some(data) = object["data"].as_object_mut().filter(|_| is_secret) {
                data.values_mut().for_each(|value| *value = json!("(not shown)"));
            }
        }
        serde_yaml::to_string(&objects).unwrap_or(text)
    }

    fn kubectl(&self, arguments: &[&str]) -> String {
        match self.server.kubectl().args(["-n", &self.name]).args(arguments).output() {
            Ok(output) => {
                String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
            }
            Err(error) => format!("cannot run kubectl: {error}"),
        }
    }

    /// The lines of every operator's log that speak of this namespace, then its last ones.
    fn print_operator_logs(&self) {
        for entry in std::fs::read_dir(self.server.folder()).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_operator = entry.file_name().to_string_lossy().starts_with("operator-");
            let Some(log) = std::fs::read_to_string(&path).ok().filter(|_| is_operator) else {
                continue;
            };
            eprintln!("===== {} =====", path.display());
            let lines: Vec<&str> = log.lines().collect();
            let mine: Vec<&&str> = lines.iter().filter(|line| line.contains(&self.name)).collect();
            for line in mine.iter().skip(mine.len().saturating_sub(60)) {
                eprintln!("{line}");
            }
            eprintln!("----- its last lines -----");
            for line in lines.iter().skip(lines.len().saturating_sub(20)) {
                eprintln!("{line}");
            }
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print();
        }
    }
}
