//! Whole-pipeline tests: stores, ingest, queries, evaluation, and the replay target.

mod capture;
mod cuts;
mod eval;
mod fake;
mod filters;
mod fixtures;
mod ingest;
mod keeping;
mod pgvector;
#[path = "../../../tests/support/postgres.rs"]
mod postgres;
mod query;
mod replay;
mod steps;
mod storage;
mod stores;
mod words;
