//! Cuts a workload out of a recorded run and re-executes it against a target.
//!
//! A replay is itself a run: it is recorded like any other, and every replayed operation links to
//! the operation it repeats. This crate knows workloads, plans, schedules, cassettes and targets;
//! it does not know the built-in pipeline, which is just one more [`target::Target`].

pub mod arrival;
pub mod cassette;
pub mod cost;
pub mod engine;
pub mod fidelity;
pub mod identity;
pub mod pacer;
pub mod plan;
mod prepare;
mod prompt;
pub(crate) mod quantile;
pub mod rng;
pub mod simulate;
pub mod sweep;
pub mod target;
pub mod timer;
pub mod workload;
