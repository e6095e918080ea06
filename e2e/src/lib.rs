//! The harness: a real etcd and a real kube-apiserver as processes of a test, the operator as a
//! process beside them, and the words that tests are written in.
//!
//! ```text
//!  World ──> ApiServer ──> Process      etcd, kube-apiserver, kube-controller-manager
//!    │          └───────> audit         what each user asked of the API server
//!    ├──────> Operator ──> Process      target/debug/countersign
//!    └──────> Namespace                 one test's own room, printed when the test fails
//! ```
//!
//! Two rules for tests: they wait for conditions and never for time ([`wait`]), and whatever
//! cannot go on panics with a sentence, since a panic is what makes [`Namespace`] print what the
//! test saw. The programs come from `e2e/tools/build.sh`; `make test` builds them.

pub mod agents;
pub mod audit;
pub mod chronicle;
pub mod clock;
pub mod corporate;
pub mod crls;
pub mod delivered;
pub mod envoy;
pub mod forged;
pub mod install;
pub mod judges;
pub mod lives;
pub mod meshes;
pub mod metrics;
pub mod mount;
pub mod namespace;
pub mod operator;
pub mod partner;
pub mod peers;
pub mod policies;
pub mod process;
pub mod readers;
pub mod secrets;
pub mod server;
pub mod tokens;
pub mod users;
pub mod vault;
pub mod wait;
pub mod web;
pub mod workspace;
pub mod world;

pub use chronicle::Chronicle;
pub use delivered::Delivered;
pub use namespace::Namespace;
pub use operator::{Operator, Options};
pub use policies::Policies;
pub use server::ApiServer;
pub use users::User;
pub use wait::{another_second, gone, holds_for, now, seconds, wait_for};
pub use world::World;
