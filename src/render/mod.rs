//! Results as text for people. Everything that comes from a trace is made inert on the way.

mod check;
mod compare;
mod pipeline;
mod plan;
mod runs;
mod sheet;
pub(crate) mod simulated;
mod sql;
pub(crate) mod sweep;
mod sweep_picture;
mod top;
mod tree;
mod trend;
mod why;
pub(crate) mod workload;

pub(crate) use check::check;
pub(crate) use compare::{breakdown, diff};
pub(crate) use pipeline::{
    answer, answer_json, cassette, eval, ingest, ingest_json, question, replay, replay_line,
    replay_outcome,
};
pub(crate) use plan::plan;
pub(crate) use runs::{run, runs, traces};
pub(crate) use sql::{expanded, result, rows};
pub(crate) use top::top;
pub(crate) use tree::{tree_json, waterfall};
pub(crate) use trend::{short_sha, trend};
pub(crate) use why::{
    contrast, contrast_json, explanation, prediction, prediction_json, speedups, speedups_json,
};
