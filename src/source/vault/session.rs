//! Being logged in: a token of Vault's, got when it is needed, renewed before it ends, and got anew
//! where it does not hold any more.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::error::VaultError;
use super::login::{Credentials, Lease, Token, log_in, renew};

/// After a login that failed, whoever waits for the next is told the same for this long: there may
/// be many, and each would try in turn.
const SAME_ANSWER: Duration = Duration::from_secs(1);

/// Logged in, or not.
#[derive(Default)]
pub struct Session(Mutex<State>);

#[derive(Default)]
struct State {
    lease: Option<Lease>,
    failed: Option<(Instant, VaultError)>,
}

impl Session {
    /// A token that holds, as far as its life tells.
    ///
    /// # Errors
    /// Where there is none and the login failed.
    pub async fn token(&self, credentials: &Credentials<'_>) -> Result<Token, VaultError> {
        let mut state = self.0.lock().await;
        if let Some(lease) = state.lease.as_ref().filter(|lease| lease.is_fresh(Instant::now())) {
            return Ok(lease.token.clone());
        }
        if let Some((at, error)) = &state.failed
            && at.elapsed() < SAME_ANSWER
        {
            return Err(error.clone());
        }
        let renewed = match state.lease.take() {
            Some(lease) => renew(credentials.vault, &lease).await,
            None => None,
        };
        let lease = match renewed {
            Some(lease) => Ok(lease),
            None => log_in(credentials).await,
        };
        match lease {
            Ok(lease) => {
                let token = lease.token.clone();
                *state = State { lease: Some(lease), failed: None };
                Ok(token)
            }
            Err(error) => {
                state.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Forgets a token that Vault does not take, whatever its life says.
    pub async fn forget(&self, token: &Token) {
        let mut state = self.0.lock().await;
        if state.lease.as_ref().is_some_and(|lease| Arc::ptr_eq(&lease.token, token)) {
            state.lease = None;
        }
    }
}
