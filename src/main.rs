//! The `retake` command line: parse, call, print. The crates hold the logic.

mod cli;
mod commands;
mod complete;
mod config;
mod context;
mod failure;
mod output;
mod progress;
mod quantity;
mod recording;
mod render;
mod shell;
mod terminal;
mod units;

use std::process::ExitCode;

use clap::Parser;

use cli::Cli;
use failure::{Code, Failure};

fn main() -> ExitCode {
    match complete::answered() {
        Ok(true) => return Code::Ok.into(),
        Ok(false) => {}
        Err(error) => {
            let _ = error.print();
            return Code::Usage.into();
        }
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no failures; clap prints both kinds to the right stream.
            let code = if error.use_stderr() { Code::Usage } else { Code::Ok };
            let _ = error.print();
            return code.into();
        }
    };
    cli.global.color.apply();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return Failure::new(Code::Environment, format!("start runtime: {error}")).report();
        }
    };
    let outcome = runtime.block_on(commands::run(cli));
    // Worker threads that are stuck in a blocking read must not keep the process alive.
    runtime.shutdown_timeout(SHUTDOWN_MAX);
    match outcome {
        Ok(code) => code.into(),
        Err(failure) => failure.report(),
    }
}

/// Long enough for a blocking task to notice that it was cancelled.
const SHUTDOWN_MAX: std::time::Duration = std::time::Duration::from_secs(2);
