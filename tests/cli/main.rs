//! Whole-program tests: the built `retake`, run as a user runs it.
//!
//! One binary, so that it is linked once. Each module is one concern; each test has a scratch
//! folder of its own and may run beside any other.

mod corpus;
#[path = "../support/postgres.rs"]
mod postgres;
mod support;

mod about;
mod apps;
mod browser;
mod completions;
mod crash;
mod damage;
mod demo;
mod doctor;
mod documented;
mod examples;
mod fake_server;
mod gate;
mod ingest_ask_eval;
mod init;
mod labelled;
mod listening;
mod matrix;
mod model;
mod notebooks;
mod outside;
mod pages;
mod receive;
mod replay;
mod replay_program;
mod replay_resume;
mod replay_service;
mod secrets;
mod shell;
mod sql;
mod sweep;
mod terminal;
mod top;
mod traces;
mod trend;
mod upkeep;
mod why;
mod workload;
mod wrong_input;
mod wrong_settings;
