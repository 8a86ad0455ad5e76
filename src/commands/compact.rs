//! `retake compact`.

use retake_recorder::Store;
use retake_recorder::upkeep::compact::{CompactError, Merged, compact};
use retake_schemas::RunId;
use retake_schemas::event::RunStatus;
use serde_json::{Value, json};

use crate::cli::{Compact, Format};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{print, print_json, row, table, unsupported};
use crate::progress::Progress;
use crate::units::{bytes, count};

pub(crate) fn run(context: &Context, args: &Compact) -> Result<Code, Failure> {
    let store = context.store()?;
    let format = context.format_or(Format::Table);
    if !matches!(format, Format::Json | Format::Table | Format::Markdown) {
        return Err(unsupported(format, "a compaction"));
    }
    let runs = match &args.run {
        Some(run) => vec![context.select(&store, run)?],
        None => closed(&store)?,
    };
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for run_id in runs {
        match compact_one(context, &store, &run_id) {
            Ok(merged) => done.push((run_id, merged)),
            Err(error) => failed.push((run_id, Failure::from(error))),
        }
    }
    if format == Format::Json {
        print_json(&as_json(&done, &failed))?;
    } else {
        show(context, &done, format)?;
        for (_, failure) in &failed {
            context.warn(&format!("failed to {}", failure.message()));
        }
    }
    // Each run is a fault domain of its own: the others were compacted all the same.
    Ok(failed.first().map_or(Code::Ok, |(_, failure)| failure.code()))
}

/// The runs that have ended; a run under way is no failure when nobody asked for it.
fn closed(store: &Store) -> Result<Vec<RunId>, Failure> {
    let runs = store.runs()?.into_iter().filter(|entry| {
        entry.manifest.as_ref().is_ok_and(|m| m.status != RunStatus::Recording)
            && !store.is_live(&entry.run_id)
    });
    Ok(runs.map(|entry| entry.run_id).collect())
}

fn compact_one(
    context: &Context,
    store: &Store,
    run_id: &RunId,
) -> Result<Vec<Merged>, CompactError> {
    let progress = Progress::new(context.quiet, "compact", "rows");
    let merged = compact(store, run_id, &mut |step| progress.at(step.rows_done, step.rows_total));
    progress.finish();
    merged
}

fn as_json(done: &[(RunId, Vec<Merged>)], failed: &[(RunId, Failure)]) -> Value {
    let tables = |merged: &[Merged]| -> Vec<Value> {
        let table = |m: &Merged| {
            json!({
                "table": m.table,
                "file": m.file,
                "files_before": m.files_before,
                "rows": m.rows,
                "bytes_before": m.bytes_before,
                "bytes_after": m.bytes_after,
            })
        };
        merged.iter().map(table).collect()
    };
    let runs: Vec<Value> =
        done.iter().map(|(run_id, m)| json!({"run_id": run_id, "tables": tables(m)})).collect();
    let failed: Vec<Value> =
        failed.iter().map(|(run_id, f)| json!({"run_id": run_id, "error": f.message()})).collect();
    json!({"schema_version": 1, "runs": runs, "failed": failed})
}

fn show(context: &Context, done: &[(RunId, Vec<Merged>)], format: Format) -> Result<(), Failure> {
    let header = ["run", "table", "files", "rows", "before", "after"];
    let mut shown = table(format, &header, 2);
    let all = || done.iter().flat_map(|(run_id, merged)| merged.iter().map(move |m| (run_id, m)));
    for (run_id, merged) in all() {
        row(
            &mut shown,
            [
                run_id.to_string(),
                merged.table.to_string(),
                format!("{} to 1", merged.files_before),
                count(i64::try_from(merged.rows).unwrap_or(i64::MAX)),
                bytes(merged.bytes_before),
                bytes(merged.bytes_after),
            ],
        );
    }
    if all().next().is_none() {
        return print("nothing to merge: no table of these runs has several small files");
    }
    print(&shown.to_string())?;
    context.say("next: retake verify · retake push RUN URL sends the new files");
    Ok(())
}
