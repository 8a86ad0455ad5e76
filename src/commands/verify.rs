//! `retake verify`.

use serde_json::json;

use crate::cli::{Format, Verify};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{inert, print, print_json, unsupported};

pub(crate) fn run(context: &Context, args: &Verify) -> Result<Code, Failure> {
    let store = context.store()?;
    let runs = match &args.run {
        Some(run) => vec![context.select(&store, run)?],
        None => store.run_ids()?,
    };
    let reports = runs.iter().map(|run_id| store.verify(run_id)).collect::<Result<Vec<_>, _>>()?;
    let damaged = reports.iter().filter(|report| !report.is_sound()).count();
    match context.format_or(Format::Table) {
        Format::Json => {
            let runs: Vec<_> = reports
                .iter()
                .map(|report| {
                    json!({
                        "run_id": report.run_id,
                        "sound": report.is_sound(),
                        "files": report.files_ok,
                        "bytes": report.bytes_ok,
                        "journal_events": report.journal_events,
                        "damage": report.damage,
                        "notes": report.notes,
                    })
                })
                .collect();
            print_json(&json!({"schema_version": 1, "runs": runs}))?;
        }
        Format::Table | Format::Markdown => {
            for report in &reports {
                let word = if report.is_sound() { "sound" } else { "DAMAGED" };
                let (files, bytes) = (report.files_ok, report.bytes_ok);
                print(&format!("{}  {word}  {files} files, {bytes} bytes", report.run_id))?;
                for line in report.damage.iter().chain(&report.notes) {
                    print(&format!("  {}", inert(line)))?;
                }
            }
            print(&format!("{} runs checked, {damaged} damaged", reports.len()))?;
        }
        other => return Err(unsupported(other, "a check")),
    }
    Ok(if damaged > 0 { Code::Damaged } else { Code::Ok })
}
