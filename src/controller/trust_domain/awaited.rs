//! Answers that are waited for in the background: whoever lets us wait holds up nobody.

use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::task::AbortOnDropHandle;

use crate::controller::Context;

/// An answer that is waited for. Whoever drops it waits no more.
pub struct Awaited<T> {
    answer: Arc<Mutex<Option<T>>>,
    _task: AbortOnDropHandle<()>,
}

impl<T: Send + 'static> Awaited<T> {
    /// Begins to ask. The trust domain is woken when the answer is there.
    pub fn begin(
        context: &Context,
        trust_domain: &str,
        asking: impl Future<Output = T> + Send + 'static,
    ) -> Self {
        let answer = Arc::<Mutex<Option<T>>>::default();
        let (heard, queue) = (answer.clone(), context.trust_domains.clone());
        let name = trust_domain.to_owned();
        let task = tokio::spawn(async move {
            let said = asking.await;
            *heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(said);
            queue.wake(name);
        });
        Awaited { answer, _task: AbortOnDropHandle::new(task) }
    }

    /// The answer, once, if it is there.
    pub fn take(&self) -> Option<T> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
