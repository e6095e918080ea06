//! Tells the trust domains when the clocks begin to disagree, and when they agree again.

use std::time::Duration;

use super::Context;

/// It costs nothing, and an answer of the API server comes every two seconds.
const INTERVAL: Duration = Duration::from_secs(1);

/// Looks once a second, for ever.
pub async fn run(context: &Context) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut known = None;
    loop {
        ticks.tick().await;
        let found = context.time.disagreement();
        if found == known {
            continue;
        }
        match &found {
            Some(disagreement) => tracing::error!("{}", disagreement.blocked().message),
            None => tracing::info!("this machine's clock and the API server's agree again"),
        }
        known = found;
        for (trust_domain, _) in context.view.trust_domains.all() {
            context.trust_domains.wake(trust_domain.name.to_string());
        }
    }
}
