//! `recorder-bench`: retake's recorder beside its peers, in one run, on this machine.
//!
//! The parent starts every variant as a child process of itself, round after round in another
//! order, and reads one JSON line from each. It prints tables, judges the goals, and writes
//! `bench/out/recorder.json`. A program of its own, so that peers never enter the workspace.

mod arguments;
mod case;
mod cpu;
mod doors;
mod error;
mod gathered;
mod goals;
mod measures;
mod peers;
mod reading;
mod report;
mod rounds;
mod scratch;
mod stats;
mod tracer;
mod work;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use arguments::{Arguments, CaseArguments, Child, RunArguments};
use case::Section;
use error::BenchError;
use rounds::Plan;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.child {
        Some(Child::Child(case)) => measure_one(&case),
        None => run(arguments.run),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("recorder-bench: failed to {error}");
            ExitCode::FAILURE
        }
    }
}

/// The child: one case, one line.
fn measure_one(arguments: &CaseArguments) -> Result<(), BenchError> {
    let folder = scratch::make(&arguments.shared.scratch)?;
    let effort = arguments.shared.effort();
    let reading = measures::measure(arguments.case(), effort, folder.path())?;
    println!("{}", serde_json::to_string(&reading)?);
    Ok(())
}

/// The parent: all rounds, tables, result file.
fn run(mut arguments: RunArguments) -> Result<(), BenchError> {
    if arguments.sections.is_empty() {
        arguments.sections = Section::value_variants().to_vec();
    }
    // Children work below this folder, so that even a killed one leaves nothing behind.
    let folder = scratch::make(&arguments.shared.scratch)?;
    arguments.shared.scratch = folder.path().to_owned();
    let machine = report::Machine::look();
    let plan = Plan::new(&arguments.sections, arguments.rounds, &arguments.only);
    let gathered = plan.run(&arguments.shared);
    let rows = goals::judge(&arguments.sections, &gathered);
    let kind = if arguments.shared.quick { "QUICK, not for quoting" } else { "medians" };
    println!(
        "{}, {} rounds ({kind}), {}\n",
        doors::now_text(),
        arguments.rounds,
        report::describe(&machine)
    );
    if let Some(warning) = report::warning(&machine) {
        println!("{warning}\n");
    }
    report::print(&arguments.sections, &gathered, &rows, arguments.markdown);
    report::write(&arguments, &machine, &rows, &gathered)
}
