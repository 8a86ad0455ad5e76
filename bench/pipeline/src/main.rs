//! Measures one part of the built-in pipeline and prints it as a line of JSON.
//!
//! `pipeline-bench MEASURE [FOLDER]`; `bench.py` runs it in turn with the peer. Models cost nothing
//! here: an embedder of constant vectors, and a language model that says a fixed text, as the peer's
//! `MockEmbedding` and `MockLLM` do.

mod measures;
mod mocks;

#[path = "../../../tests/support/postgres.rs"]
mod postgres;

use std::path::PathBuf;
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(measure), folder) = (arguments.next(), arguments.next().map(PathBuf::from)) else {
        eprintln!("usage: pipeline-bench MEASURE [FOLDER]");
        return ExitCode::from(2);
    };
    match measures::run(&measure, folder.as_deref()).await {
        Ok(found) => {
            println!("{found}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("pipeline-bench {measure}: {error}");
            ExitCode::FAILURE
        }
    }
}
