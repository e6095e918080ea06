//! Countersign: identities of their own for AI agents on Kubernetes.
//!
//! ```text
//!  watch ──> observe ──> decide ──> sign ──> apply ──> status
//!  (who      (client:    (pure:     (keys,   (client:  (client: one patch,
//!   woke)     reads)      a plan)    no       writes)   skipped if equal)
//!                                    client)
//! ```

pub mod api;
pub mod cli;
pub mod identity;
