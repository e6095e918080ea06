//! Logs: one line an event, as text or JSON.

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use super::options::LogFormat;

/// Starts logging to standard error.
///
/// # Errors
/// When the filter is not one.
pub fn start(format: LogFormat, filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter).with_context(|| {
        format!("--log {filter:?} is no filter: write info, debug or module=level")
    })?;
    let base = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => base.with_ansi(false).init(),
        LogFormat::Json => base.json().flatten_event(true).init(),
    }
    Ok(())
}
