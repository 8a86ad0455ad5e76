//! `retake runs`.

use retake_recorder::reader::run_row;
use retake_recorder::remote::Remote;
use retake_recorder::{RunReader, Store};
use retake_schemas::tables::RunRow;
use serde_json::{Value, json};

use crate::cli::{Format, Runs, RunsAction};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{print, print_json, unsupported};
use crate::render;

pub(crate) async fn run(context: &Context, args: Runs) -> Result<Code, Failure> {
    if let (None, Some(url)) = (&args.action, context.store_url()) {
        return list_copies(context, url).await;
    }
    let store = context.store()?;
    match args.action {
        None => list(context, &store),
        Some(RunsAction::Show { run }) => show(context, &store, &run),
        Some(RunsAction::Label { run, labels }) => label(context, &store, &run, &labels),
        Some(RunsAction::Rm { run, yes }) => remove(context, &store, &run, yes),
    }
}

fn list(context: &Context, store: &Store) -> Result<Code, Failure> {
    let mut rows = Vec::new();
    for entry in store.runs()? {
        match entry.manifest {
            // Only a run that is being recorded needs its journal read for its counts.
            Ok(manifest) if manifest.segments.is_empty() || store.is_live(&entry.run_id) => {
                rows.push(RunReader::open(store, &entry.run_id)?.run_row());
            }
            Ok(manifest) => rows.push(run_row(&manifest)),
            Err(error) => context.warn(&format!("run {}: {error}", entry.run_id)),
        }
    }
    match context.format_or(Format::Table) {
        Format::Json => {
            let runs: Vec<Value> = rows.iter().map(as_json).collect();
            print_json(&json!({"schema_version": 1, "runs": runs}))?;
        }
        format @ (Format::Table | Format::Markdown) => {
            print(&render::runs(&rows, format, context.look(format)))?;
            if rows.is_empty() {
                context.say("next: retake demo · retake rag ingest docs");
            } else {
                context.say("next: retake breakdown last · retake runs show last");
            }
        }
        other => return Err(unsupported(other, "the list of runs")),
    }
    Ok(Code::Ok)
}

async fn list_copies(context: &Context, url: &str) -> Result<Code, Failure> {
    let remote = Remote::open(url)?;
    let listing = remote.runs_there().await?;
    let mut rows = Vec::new();
    for (run_id, manifest) in &listing.runs {
        match manifest {
            Ok(manifest) => rows.push(run_row(manifest)),
            Err(error) => context.warn(&format!("run {run_id}: {error}")),
        }
    }
    match context.format_or(Format::Table) {
        Format::Json => {
            let runs: Vec<Value> = rows.iter().map(as_json).collect();
            let incomplete = &listing.incomplete;
            print_json(&json!({"schema_version": 1, "runs": runs, "incomplete": incomplete}))?;
        }
        format @ (Format::Table | Format::Markdown) => {
            print(&render::runs(&rows, format, context.look(format)))?;
            for run_id in &listing.incomplete {
                context.say(&format!("run {run_id} was not pushed to its end; push it again"));
            }
            context.say(&format!("next: retake pull {} last", remote.url()));
        }
        other => return Err(unsupported(other, "the list of runs")),
    }
    Ok(Code::Ok)
}

fn show(context: &Context, store: &Store, selector: &str) -> Result<Code, Failure> {
    let run_id = context.select(store, selector)?;
    let reader = RunReader::open(store, &run_id)?;
    let row = reader.run_row();
    match context.format_or(Format::Table) {
        Format::Json => {
            let mut document = as_json(&row);
            document["schema_version"] = 1.into();
            document["accounting"] = json!(reader.manifest().accounting);
            document["segments"] = json!(reader.manifest().segments);
            print_json(&document)?;
        }
        format @ (Format::Table | Format::Markdown) => {
            print(&render::run(&row, reader.manifest(), format))?;
        }
        other => return Err(unsupported(other, "a run")),
    }
    Ok(Code::Ok)
}

fn label(
    context: &Context,
    store: &Store,
    selector: &str,
    labels: &[String],
) -> Result<Code, Failure> {
    let labels = super::rag::labels(labels)?;
    let run_id = context.select(store, selector)?;
    store.update_manifest(&run_id, |manifest| manifest.facts.labels.extend(labels))?;
    context.say(&format!("labelled run {run_id}"));
    Ok(Code::Ok)
}

fn remove(context: &Context, store: &Store, selector: &str, yes: bool) -> Result<Code, Failure> {
    let run_id = context.select(store, selector)?;
    if !yes && !context.confirm(&format!("remove run {run_id} and everything recorded in it?"))? {
        return Err(Failure::new(Code::Usage, format!("remove run {run_id}: not confirmed"))
            .help("answer y, or give --yes"));
    }
    store.remove(&run_id)?;
    context.say(&format!("removed run {run_id}"));
    Ok(Code::Ok)
}

/// A run as the JSON contract has it.
fn as_json(row: &RunRow) -> Value {
    let object = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| json!({}));
    json!({
        "run_id": row.run_id,
        "name": row.name,
        "service": row.service,
        "started_unix_ns": row.started_unix_ns,
        "duration_ns": row.duration_ns,
        "status": row.status,
        "spans": row.spans,
        "traces": row.traces,
        "labels": object(&row.labels),
        "settings": object(&row.settings),
        "replay_of": row.replay_of,
        "workload": row.workload,
        "capture": row.capture,
        "git_sha": row.git_sha,
        "machine_key": row.machine_key,
        "events_dropped": row.events_dropped,
    })
}
