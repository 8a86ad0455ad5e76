//! `retake verify`.

use retake_recorder::verify::{FileVerdict, VerifyReport};
use serde_json::{Value, json};

use crate::cli::{Format, Verify};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{inert, print, print_json, unsupported};

pub(crate) fn run(context: &Context, args: &Verify) -> Result<Code, Failure> {
    // Looks at the store as it is: a check that repaired first would hide what it found.
    let store = context.store_untouched()?;
    let runs = match &args.run {
        Some(run) => vec![context.select(&store, run)?],
        None => store.run_ids()?,
    };
    let reports = runs.iter().map(|run_id| store.verify(run_id)).collect::<Result<Vec<_>, _>>()?;
    let damaged = reports.iter().filter(|report| !report.is_sound()).count();
    match context.format_or(Format::Table) {
        Format::Json => {
            let runs: Vec<_> = reports.iter().map(as_json).collect();
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
            reports.iter().filter_map(next).for_each(|next| context.say(&next));
        }
        other => return Err(unsupported(other, "a check")),
    }
    Ok(if damaged > 0 { Code::Damaged } else { Code::Ok })
}

fn as_json(report: &VerifyReport) -> Value {
    let verdicts: Vec<Value> = report
        .files
        .iter()
        .map(|file| {
            let reason = match &file.verdict {
                FileVerdict::Damaged(reason) => Some(reason),
                _ => None,
            };
            json!({
                "file": file.file,
                "table": file.table,
                "rows": file.rows,
                "bytes": file.bytes,
                "verdict": file.verdict.as_str(),
                "reason": reason,
            })
        })
        .collect();
    json!({
        "run_id": report.run_id,
        "sound": report.is_sound(),
        "files": report.files_ok,
        "bytes": report.bytes_ok,
        "journal_events": report.journal_events,
        "damage": report.damage,
        "notes": report.notes,
        "file_verdicts": verdicts,
        "next": next(report),
    })
}

/// The command that helps, if one does.
fn next(report: &VerifyReport) -> Option<String> {
    let run_id = &report.run_id;
    if report.needs_recovery {
        return Some(format!("next: retake recover {run_id}"));
    }
    (!report.is_sound()).then(|| {
        format!(
            "next: retake runs rm {run_id}, and retake pull URL {run_id} if it was ever pushed \
             (damaged data cannot be repaired)"
        )
    })
}
