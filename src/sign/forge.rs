//! Keys that take long to make are made on a thread of their own, one at a time, so that an
//! identity that asks for RSA keeps nobody waiting but other RSA identities.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use super::key::{KeyError, PrivateKey};
use crate::api::KeyAlgorithm;
use crate::identity::IdentityKey;

/// Makes keys: at once where that is quick, else in the background.
#[derive(Clone)]
pub struct Forge {
    ready: Arc<Mutex<HashMap<IdentityKey, Work>>>,
    orders: mpsc::UnboundedSender<(IdentityKey, KeyAlgorithm)>,
}

enum Work {
    Ordered(KeyAlgorithm),
    Done(KeyAlgorithm, Result<PrivateKey, KeyError>),
}

impl Forge {
    /// Starts the thread. `done` is told whose key is ready.
    pub fn start(done: mpsc::UnboundedSender<IdentityKey>) -> Self {
        let (orders, mut incoming) = mpsc::unbounded_channel::<(IdentityKey, KeyAlgorithm)>();
        let ready: Arc<Mutex<HashMap<IdentityKey, Work>>> = Arc::default();
        let shelf = ready.clone();
        // It ends when the last Forge is dropped, or nobody listens any more.
        std::thread::Builder::new()
            .name("key-forge".to_owned())
            .spawn(move || {
                while let Some((identity, algorithm)) = incoming.blocking_recv() {
                    let key = PrivateKey::generate(algorithm);
                    lock(&shelf).insert(identity.clone(), Work::Done(algorithm, key));
                    if done.send(identity).is_err() {
                        return;
                    }
                }
            })
            .expect("a process that cannot start a thread cannot run at all");
        Forge { ready, orders }
    }

    /// A new key for this identity, or None while it is being made: `done` tells when to ask again.
    pub fn key(
        &self,
        identity: &IdentityKey,
        algorithm: KeyAlgorithm,
    ) -> Result<Option<PrivateKey>, KeyError> {
        if !PrivateKey::is_slow_to_make(algorithm) {
            return PrivateKey::generate(algorithm).map(Some);
        }
        let mut ready = lock(&self.ready);
        match ready.remove(identity) {
            Some(Work::Done(made, key)) if made == algorithm => return key.map(Some),
            // Ordered once is enough; an order for another algorithm is made and thrown away.
            Some(Work::Ordered(asked)) if asked == algorithm => {}
            _ => {
                let _ = self.orders.send((identity.clone(), algorithm));
            }
        }
        ready.insert(identity.clone(), Work::Ordered(algorithm));
        Ok(None)
    }

    /// Forgets a key that nobody will ask for any more.
    pub fn forget(&self, identity: &IdentityKey) {
        lock(&self.ready).remove(identity);
    }
}

/// The shelf holds whole values only: a thread that panicked cannot have left half of one.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_key_is_made_once_and_handed_out_once() {
        let (done, mut finished) = mpsc::unbounded_channel();
        let forge = Forge::start(done);
        let planner = IdentityKey { namespace: "research".into(), name: "planner".into() };
        assert!(forge.key(&planner, KeyAlgorithm::EcdsaP256).unwrap().is_some());
        assert!(forge.key(&planner, KeyAlgorithm::Rsa2048).unwrap().is_none());
        assert!(forge.key(&planner, KeyAlgorithm::Rsa2048).unwrap().is_none());
        assert_eq!(finished.recv().await.as_ref(), Some(&planner));
        assert!(forge.key(&planner, KeyAlgorithm::Rsa2048).unwrap().is_some());
        assert!(finished.try_recv().is_err());
    }
}
