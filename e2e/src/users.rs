//! The people and programs that speak to the API server, each known by a token.

use std::path::{Path, PathBuf};

/// The namespace that the operator is installed in.
pub const OPERATOR_NAMESPACE: &str = "countersign-system";

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// May do everything: the test itself.
    Admin,
    /// The operator's ServiceAccount: may do what the chart lets it.
    Operator,
    /// The controller manager, whose requests are not audited.
    Controllers,
    /// A member of a team with no rights but those that a test binds to it.
    Member,
}

const ALL: [User; 4] = [User::Admin, User::Operator, User::Controllers, User::Member];

impl User {
    /// The name that RBAC and the audit log know.
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Operator => "system:serviceaccount:countersign-system:countersign",
            Self::Controllers => "controllers",
            Self::Member => "member",
        }
    }

    fn groups(self) -> &'static str {
        match self {
            Self::Admin | Self::Controllers => "system:masters",
            Self::Operator => "system:serviceaccounts,system:serviceaccounts:countersign-system",
            Self::Member => "team",
        }
    }

    fn token(self) -> String {
        format!("token-of-{}", self.name().replace(':', "-"))
    }

    /// Where this user's kubeconfig is within a server's folder.
    pub fn kubeconfig(self, folder: &Path) -> PathBuf {
        folder.join(format!("{}.kubeconfig", self.name().replace(':', "-")))
    }
}

/// The API server's `--token-auth-file`.
pub fn token_file() -> String {
    ALL.iter()
        .map(|user| {
            format!("{},{},{},\"{}\"\n", user.token(), user.name(), user.name(), user.groups())
        })
        .collect()
}

/// Writes a kubeconfig for every user.
pub fn write_kubeconfigs(folder: &Path, server: &str, authority: &Path) {
    for user in ALL {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
             clusters: [{{name: test, cluster: {{server: \"{server}\", certificate-authority: \"{}\"}}}}]\n\
             users: [{{name: test, user: {{token: \"{}\"}}}}]\n\
             contexts: [{{name: test, context: {{cluster: test, user: test}}}}]\n",
            authority.display(),
            user.token(),
        );
        std::fs::write(user.kubeconfig(folder), text).expect("the server's folder is writable");
    }
}
