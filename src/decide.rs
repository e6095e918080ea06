//! From what was observed and `now` to a plan. Pure and total: no client, no clock, no randomness.
//!
//! All that can fail about a spec has failed in [`crate::identity`]; what is left always comes to
//! a plan, even if the plan is to do nothing and to say why.

pub mod access;
pub mod bundle;
pub mod checks;
pub mod clock;
pub mod cluster_bundle;
pub mod crl;
pub mod deletion;
pub mod departure;
pub mod leaf;
pub mod ledger;
pub mod observed;
pub mod pods;
pub mod record;
pub mod remote;
pub mod revocation;
pub mod roster;
pub mod schedule;
pub mod slots;

pub use leaf::{IssueOrder, LeafProfile, Plan, Ready, Step, decide};
pub use observed::{
    Admission, AuthorityFacts, Content, ContentFacts, Meta, OurSecret, SecretState, Situation,
};

#[cfg(test)]
mod tests;
