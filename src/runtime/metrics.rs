//! Numbers that are read when they are asked for: what the leader knows, and the process itself.

use std::fmt;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use jiff::SignedDuration;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::controller::Context;
use crate::watch::domains::DomainState;
use crate::watch::time::Timekeeper;

/// The leader's knowledge, while this replica leads.
#[derive(Clone, Default)]
pub struct Stage {
    context: Arc<RwLock<Option<Arc<Context>>>>,
    time: Arc<OnceLock<Arc<Timekeeper>>>,
}

impl Stage {
    /// The clock to tell of, whether this replica leads or not.
    pub fn watch(&self, time: Arc<Timekeeper>) {
        // There is one for the whole life of the process.
        let _ = self.time.set(time);
    }

    /// From now on these are the leader's numbers.
    pub fn enter(&self, context: Arc<Context>) {
        *self.context.write().unwrap_or_else(PoisonError::into_inner) = Some(context);
    }

    /// From now on there are none.
    pub fn leave(&self) {
        *self.context.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stage")
    }
}

impl Collector for Stage {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        process(&mut encoder)?;
        clock(&mut encoder, self.time.get().and_then(|time| time.skew()))?;
        let context = self.context.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(context) = context else { return Ok(()) };
        identities(&mut encoder, &context)?;
        certificates(&mut encoder, &context)?;
        authorities(&mut encoder, &context)
    }
}

fn clock(
    encoder: &mut DescriptorEncoder<'_>,
    skew: Option<SignedDuration>,
) -> Result<(), fmt::Error> {
    let Some(skew) = skew else { return Ok(()) };
    let gauge = ConstGauge::new(skew.as_secs_f64());
    let metric = encoder.encode_descriptor(
        "countersign_clock_skew_seconds",
        "How far this machine's clock is ahead of the API server's, give or take a second",
        None,
        gauge.metric_type(),
    )?;
    gauge.encode(metric)
}

fn identities(encoder: &mut DescriptorEncoder<'_>, context: &Context) -> Result<(), fmt::Error> {
    let gauge = ConstGauge::new(0i64);
    let mut metric = encoder.encode_descriptor(
        "countersign_identities",
        "AgentIdentities, by trust domain and whether they are ready",
        None,
        gauge.metric_type(),
    )?;
    for (trust_domain, (total, ready)) in context.view.census.counts() {
        for (state, count) in [("true", ready), ("false", total - ready)] {
            let labels = [("trust_domain", trust_domain.as_str()), ("ready", state)];
            ConstGauge::new(i64::from(count)).encode(metric.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn certificates(encoder: &mut DescriptorEncoder<'_>, context: &Context) -> Result<(), fmt::Error> {
    let mut lines = Vec::new();
    context.view.census.for_each_schedule(|key, not_after, renew_at| {
        lines.push((key.clone(), not_after.as_second(), renew_at.as_second()));
    });
    let gauge = ConstGauge::new(0i64);
    for (name, help, is_end) in [
        (
            "countersign_certificate_expiration_timestamp_seconds",
            "When a certificate ends, in seconds since 1970",
            true,
        ),
        (
            "countersign_certificate_renewal_timestamp_seconds",
            "When a certificate is renewed, in seconds since 1970",
            false,
        ),
    ] {
        let mut metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
        for (key, not_after, renew_at) in &lines {
            let labels = [("namespace", &*key.namespace), ("name", &*key.name)];
            let value = if is_end { *not_after } else { *renew_at };
            ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn authorities(encoder: &mut DescriptorEncoder<'_>, context: &Context) -> Result<(), fmt::Error> {
    let states = context.view.domains.all();
    let labels = |state: &DomainState| [("trust_domain", state.domain.name.clone())];
    let gauge = ConstGauge::new(0i64);
    {
        let mut metric = encoder.encode_descriptor(
            "countersign_authority_ready",
            "1 where a trust domain's CA signs, else 0",
            None,
            gauge.metric_type(),
        )?;
        for state in &states {
            let ready = ConstGauge::new(i64::from(state.authority.is_ok()));
            ready.encode(metric.encode_family(&labels(state))?)?;
        }
    }
    {
        let mut metric = encoder.encode_descriptor(
            "countersign_authority_available",
            "1 where a trust domain's authority gives what it is to give, else 0",
            None,
            gauge.metric_type(),
        )?;
        for state in &states {
            let available = ConstGauge::new(i64::from(state.is_available));
            available.encode(metric.encode_family(&labels(state))?)?;
        }
    }
    let mut metric = encoder.encode_descriptor(
        "countersign_authority_expiration_timestamp_seconds",
        "When the first CA of a trust domain's chain ends, in seconds since 1970",
        None,
        gauge.metric_type(),
    )?;
    for state in &states {
        if let Ok(authority) = &state.authority {
            let end = ConstGauge::new(authority.chain().facts.not_after.as_second());
            end.encode(metric.encode_family(&labels(state))?)?;
        }
    }
    Ok(())
}

/// What Prometheus clients tell of every process, read from /proc. Silent where there is none.
fn process(encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    if let Some(seconds) = cpu_seconds() {
        let counter = ConstCounter::new(seconds);
        let metric = encoder.encode_descriptor(
            "process_cpu_seconds",
            "User and system CPU time",
            None,
            counter.metric_type(),
        )?;
        counter.encode(metric)?;
    }
    if let Some(bytes) = resident_bytes() {
        let gauge = ConstGauge::new(bytes);
        let metric = encoder.encode_descriptor(
            "process_resident_memory_bytes",
            "Resident memory",
            None,
            gauge.metric_type(),
        )?;
        gauge.encode(metric)?;
    }
    Ok(())
}

/// The kernel counts in hundredths of a second for user space, on every architecture (USER_HZ).
const TICKS_A_SECOND: f64 = 100.0;

fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The program's name may hold spaces; it ends at the last parenthesis.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(ticks as f64 / TICKS_A_SECOND)
}

fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<i64>().ok().map(|kilobytes| kilobytes * 1024)
}
