//! Countersign: identities of their own for AI agents on Kubernetes.
//!
//! ```text
//!  watch ──> observe ──> decide ──> sign ──> apply ──> status
//!  (who      (client:    (pure:     (keys,   (client:  (client: one patch,
//!   woke)     reads)      a plan)    no       writes)   skipped if equal)
//!                                    client)
//! ```

pub mod api;
pub mod apply;
pub mod cli;
pub mod controller;
pub mod decide;
pub mod identity;
pub mod observe;
pub mod runtime;
pub mod sign;
pub mod source;
pub mod status;
pub mod telemetry;
pub mod watch;
pub mod wire;
pub mod x509;
