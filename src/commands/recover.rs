//! `retake recover`.

use retake_recorder::Store;
use retake_recorder::upkeep::{Repair, Swept, repair, sweep};
use retake_schemas::RunId;
use serde_json::{Value, json};

use crate::cli::{Format, Recover};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{inert, print, print_json, unsupported};

pub(crate) fn run(context: &Context, args: &Recover) -> Result<Code, Failure> {
    let store = context.store_untouched()?;
    let answers = match &args.run {
        Some(run) => repair(&store, &[context.select(&store, run)?])?,
        None => all(&store)?,
    };
    let swept = sweep(&store)?;
    match context.format_or(Format::Table) {
        Format::Json => {
            let runs: Vec<Value> = answers.iter().map(as_json).collect();
            print_json(&json!({
                "schema_version": 1,
                "runs": runs,
                "removed": swept.removed,
                "settled": swept.settled,
                "failed": swept.failed,
            }))?;
        }
        Format::Table | Format::Markdown => {
            answers.iter().try_for_each(|(run_id, answer)| show(run_id, answer))?;
            show_swept(&swept)?;
            print(&summary(&answers))?;
            context.say("next: retake verify");
        }
        other => return Err(unsupported(other, "a recovery")),
    }
    Ok(code(answers, &swept))
}

/// Every run, and what processes left that died before their run had a name.
fn all(store: &Store) -> Result<Vec<(RunId, Repair)>, Failure> {
    let answers = repair(store, &store.run_ids()?)?;
    store.recover()?;
    Ok(answers)
}

fn as_json((run_id, answer): &(RunId, Repair)) -> Value {
    let mut document = json!({
        "run_id": run_id,
        "outcome": word(answer),
        "events": 0,
        "unfinished_spans": 0,
        "damage": [],
        "quarantined": [],
        "error": null,
    });
    match answer {
        Repair::Repaired(report) => {
            document["events"] = json!(report.events);
            document["unfinished_spans"] = json!(report.unfinished_spans);
            document["damage"] = json!(report.damage);
            document["quarantined"] = json!(report.quarantined);
        }
        Repair::Failed(error) => document["error"] = json!(error.to_string()),
        Repair::Clean | Repair::Recording | Repair::Removed => {}
    }
    document
}

fn word(answer: &Repair) -> &'static str {
    match answer {
        Repair::Repaired(_) => "repaired",
        Repair::Clean => "clean",
        Repair::Recording => "recording",
        Repair::Removed => "removed",
        Repair::Failed(_) => "failed",
    }
}

/// Clean runs are only counted: a store has many.
fn show(run_id: &RunId, answer: &Repair) -> Result<(), Failure> {
    match answer {
        Repair::Clean => Ok(()),
        Repair::Repaired(report) => print(&inert(&report.to_string())),
        Repair::Recording => print(&format!("run {run_id} is being recorded: left alone")),
        Repair::Removed => print(&format!("run {run_id} held nothing: removed")),
        Repair::Failed(error) => {
            print(&inert(&format!("run {run_id} could not be repaired: failed to {error}")))
        }
    }
}

fn show_swept(swept: &Swept) -> Result<(), Failure> {
    for name in &swept.removed {
        print(&format!("removed {name}, left by a removal or a pull that was cut short"))?;
    }
    for run_id in &swept.settled {
        print(&format!("run {run_id}: finished a compaction that was cut short"))?;
    }
    swept.failed.iter().try_for_each(|failure| print(&inert(&format!("failed to {failure}"))))
}

fn summary(answers: &[(RunId, Repair)]) -> String {
    let count = |wanted: &str| answers.iter().filter(|(_, answer)| word(answer) == wanted).count();
    format!(
        "{} runs: {} repaired, {} clean, {} being recorded, {} failed",
        answers.len(),
        count("repaired"),
        count("clean"),
        count("recording"),
        count("failed")
    )
}

/// Data that could not be read back is damage, also when the rest was saved.
fn code(answers: Vec<(RunId, Repair)>, swept: &Swept) -> Code {
    let mut code = if swept.failed.is_empty() { Code::Ok } else { Code::Environment };
    for (_, answer) in answers {
        match answer {
            Repair::Repaired(report) if !report.damage.is_empty() => return Code::Damaged,
            Repair::Failed(error) => match Failure::from(error).code() {
                Code::Damaged => return Code::Damaged,
                other => code = other,
            },
            _ => {}
        }
    }
    code
}
