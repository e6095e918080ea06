//! What the commands read and write in a cluster: the one place of theirs that holds a client.

mod identities;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;

use crate::api::{AgentAccessPolicy, AgentIdentity, TrustDomain};

/// Which cluster is meant.
#[derive(Args, Debug, Clone)]
pub struct Connection {
    /// A kubeconfig file; by default those of $KUBECONFIG, or else ~/.kube/config
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig; by default its current one
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
}

/// A cluster, as the commands see it.
pub struct Cluster {
    client: Client,
}

/// What kept a request from being done.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// Trying again would change nothing.
    #[error("{0}")]
    Refused(String),
    /// Somebody wrote meanwhile.
    #[error("{0} was changed by somebody else again and again: try once more")]
    Conflict(String),
    /// It may pass.
    #[error("the API server cannot be asked: {0}")]
    Away(String),
}

/// Longer than an API server takes, and short enough that a person does not give up.
const PATIENCE: Duration = Duration::from_secs(20);
/// Identities read with one request.
const PAGE: u32 = 500;

impl Cluster {
    /// Gets ready to speak to a cluster; nothing is asked yet.
    ///
    /// # Errors
    /// When there is no kubeconfig that can be used.
    pub async fn connect(connection: &Connection) -> Result<Self, Problem> {
        let options =
            KubeConfigOptions { context: connection.context.clone(), ..Default::default() };
        let mut config = match (&connection.kubeconfig, &connection.context) {
            (Some(path), _) => {
                let cannot = |what: &str, error: &dyn std::fmt::Display| {
                    Problem::Refused(format!(
                        "the kubeconfig {} cannot be {what}: {error}",
                        path.display()
                    ))
                };
                let read = Kubeconfig::read_from(path).map_err(|error| cannot("read", &error))?;
                Config::from_custom_kubeconfig(read, &options)
                    .await
                    .map_err(|error| cannot("used", &error))?
            }
            (None, Some(_)) => Config::from_kubeconfig(&options).await.map_err(|error| {
                Problem::Refused(format!("the kubeconfig cannot be used: {error}"))
            })?,
            (None, None) => Config::infer().await.map_err(|_| {
                Problem::Refused(
                    "no cluster is configured: give --kubeconfig, or set KUBECONFIG".to_owned(),
                )
            })?,
        };
        config.connect_timeout = Some(PATIENCE);
        config.read_timeout = Some(PATIENCE);
        config.write_timeout = Some(PATIENCE);
        let client = Client::try_from(config).map_err(|error| {
            Problem::Refused(format!("the kubeconfig makes no connection: {error}"))
        })?;
        Ok(Cluster { client })
    }

    /// The TrustDomain of this name.
    ///
    /// # Errors
    /// When there is none, and when it cannot be read.
    pub async fn trust_domain(&self, name: &str) -> Result<TrustDomain, Problem> {
        let all: Api<TrustDomain> = Api::all(self.client.clone());
        match all.get(name).await {
            Ok(found) => Ok(found),
            Err(kube::Error::Api(status)) if status.code == 404 => {
                // Whoever may get one may not be allowed to list them: then there is less to say.
                let Ok(list) = all.list_metadata(&ListParams::default()).await else {
                    return Err(Problem::Refused(unknown(name, None)));
                };
                let names: Vec<String> =
                    list.items.into_iter().filter_map(|item| item.metadata.name).collect();
                Err(Problem::Refused(unknown(name, Some(&names))))
            }
            Err(error) => Err(problem(error, "read", name)),
        }
    }

    /// Merges a change into a TrustDomain.
    ///
    /// # Errors
    /// When it was changed since it was read, and when the API server does not take it.
    pub async fn change(&self, name: &str, change: &Value) -> Result<(), Problem> {
        let all: Api<TrustDomain> = Api::all(self.client.clone());
        let parameters =
            PatchParams { field_manager: Some("countersign-cli".to_owned()), ..Default::default() };
        match all.patch(name, &parameters, &Patch::Merge(change)).await {
            Ok(_) => Ok(()),
            Err(error) => Err(problem(error, "change", name)),
        }
    }

    /// All access policies of the cluster.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn access_policies(&self) -> Result<Vec<AgentAccessPolicy>, Problem> {
        let all: Api<AgentAccessPolicy> = Api::all(self.client.clone());
        match all.list(&ListParams::default()).await {
            Ok(list) => Ok(list.items),
            Err(kube::Error::Api(status)) if matches!(status.code, 401 | 403) => {
                Err(Problem::Refused(format!("the policies cannot be read: {}", status.message)))
            }
            Err(error) => Err(Problem::Away(error.to_string())),
        }
    }

    /// All identities of the cluster.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn identities(&self) -> Result<Vec<AgentIdentity>, Problem> {
        let all: Api<AgentIdentity> = Api::all(self.client.clone());
        let mut found = Vec::new();
        let mut page = ListParams::default().limit(PAGE);
        loop {
            let list = match all.list(&page).await {
                Ok(list) => list,
                Err(kube::Error::Api(status)) if matches!(status.code, 401 | 403) => {
                    return Err(Problem::Refused(format!(
                        "the agents cannot be counted: {}",
                        status.message
                    )));
                }
                Err(error) => return Err(Problem::Away(error.to_string())),
            };
            found.extend(list.items);
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => return Ok(found),
            }
        }
    }
}

/// What to say when there is no TrustDomain of a name; of those that exist, if they are known.
fn unknown(name: &str, others: Option<&[String]>) -> String {
    match others {
        None => format!("there is no TrustDomain {name}"),
        Some([]) => format!("there is no TrustDomain {name}, nor any other"),
        Some(others) => format!("there is no TrustDomain {name}; there is {}", others.join(", ")),
    }
}

fn problem(error: kube::Error, verb: &str, name: &str) -> Problem {
    match error {
        kube::Error::Api(status) => match status.code {
            401 => {
                Problem::Refused(format!("the API server does not know you: {}", status.message))
            }
            403 => Problem::Refused(format!(
                "you may not {verb} the TrustDomain {name}: {}",
                status.message
            )),
            404 => Problem::Refused(unknown(name, None)),
            409 => Problem::Conflict(format!("the TrustDomain {name}")),
            // The API server's own trouble passes; what it does not take from us does not.
            429 | 500.. => Problem::Away(status.message.clone()),
            _ => Problem::Refused(format!(
                "the API server did not take the change of the TrustDomain {name}: {}",
                status.message
            )),
        },
        other => Problem::Away(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    fn answer(code: u16) -> String {
        let status = Status::failure("because", "Reason").with_code(code).boxed();
        problem(kube::Error::Api(status), "change", "prod").to_string()
    }

    #[test]
    fn a_refusal_is_a_sentence() {
        assert_eq!(answer(403), "you may not change the TrustDomain prod: because");
        assert_eq!(answer(401), "the API server does not know you: because");
        assert_eq!(answer(404), "there is no TrustDomain prod");
        assert_eq!(
            answer(422),
            "the API server did not take the change of the TrustDomain prod: because"
        );
        assert_eq!(answer(503), "the API server cannot be asked: because");
    }

    #[test]
    fn an_unknown_name_is_told_what_there_is() {
        let some = ["prod".to_owned(), "test".to_owned()];
        assert_eq!(unknown("prd", Some(&some)), "there is no TrustDomain prd; there is prod, test");
        assert_eq!(unknown("prd", Some(&[])), "there is no TrustDomain prd, nor any other");
        assert_eq!(unknown("prd", None), "there is no TrustDomain prd");
    }
}
