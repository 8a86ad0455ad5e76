//! `retake push`.

use retake_recorder::Store;
use retake_recorder::remote::{Pushed, Remote};
use retake_schemas::RunId;
use retake_schemas::event::RunStatus;
use serde_json::{Value, json};

use crate::cli::{Format, Push};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{print, print_json, unsupported};
use crate::progress::Progress;
use crate::units::bytes;

pub(crate) async fn run(context: &Context, args: Push) -> Result<Code, Failure> {
    let format = context.format_or(Format::Table);
    if !matches!(format, Format::Json | Format::Table | Format::Markdown) {
        return Err(unsupported(format, "a push"));
    }
    let (selector, url) = places(context, args)?;
    let store = context.store()?;
    let runs = match &selector {
        Some(runs) => store.select_set(runs)?,
        None => closed(&store)?,
    };
    let remote = Remote::create(&url)?;
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for run_id in runs {
        let progress = Progress::new(context.quiet, "push", "bytes");
        let pushed = remote.push(&store, &run_id, &|step| progress.transfer(step)).await;
        progress.finish();
        match pushed {
            Ok(pushed) => done.push((run_id, pushed)),
            Err(error) => failed.push((run_id, Failure::from(error))),
        }
    }
    if format == Format::Json {
        print_json(&as_json(remote.url(), &done, &failed))?;
    } else {
        for (run_id, pushed) in &done {
            print(&line(run_id, pushed, remote.url()))?;
        }
        for (_, failure) in &failed {
            context.warn(&format!("failed to {}", failure.message()));
        }
        context.say(&format!("next: retake runs --store {}", remote.url()));
    }
    Ok(failed.first().map_or(Code::Ok, |(_, failure)| failure.code()))
}

/// Which run (none: all), and where to.
fn places(context: &Context, args: Push) -> Result<(Option<String>, String), Failure> {
    let mut given = args.run_and_url.into_iter();
    let run = if args.all { None } else { given.next() };
    let url = given.next().or_else(|| context.config.settings.record.upload.clone());
    let usage = |what: &str| Failure::new(Code::Usage, format!("push: {what}"));
    if !args.all && run.is_none() {
        return Err(usage("no run is named").help("name one, such as `last`, or give --all"));
    }
    if given.next().is_some() {
        return Err(usage("--all takes no run").help("retake push --all URL"));
    }
    let url = url.ok_or_else(|| {
        usage("no place is named")
            .help("give a URL, such as file:///mnt/backup, or set record.upload in retake.toml")
    })?;
    Ok((run, url))
}

fn closed(store: &Store) -> Result<Vec<RunId>, Failure> {
    let runs = store
        .runs()?
        .into_iter()
        .filter(|entry| entry.manifest.as_ref().is_ok_and(|m| m.status != RunStatus::Recording));
    Ok(runs.map(|entry| entry.run_id).collect())
}

fn line(run_id: &RunId, pushed: &Pushed, url: &str) -> String {
    if pushed.was_complete {
        return format!("run {run_id} is at {url} already");
    }
    let there = match pushed.files_there {
        0 => String::new(),
        there => format!(", {there} were there"),
    };
    let (files, size) = (pushed.files_sent, bytes(pushed.bytes_sent));
    format!("pushed run {run_id} to {url}: {files} files, {size}{there}")
}

fn as_json(url: &str, done: &[(RunId, Pushed)], failed: &[(RunId, Failure)]) -> Value {
    let runs: Vec<Value> = done
        .iter()
        .map(|(run_id, pushed)| {
            json!({
                "run_id": run_id,
                "files_sent": pushed.files_sent,
                "bytes_sent": pushed.bytes_sent,
                "files_there": pushed.files_there,
                "was_complete": pushed.was_complete,
            })
        })
        .collect();
    let failed: Vec<Value> =
        failed.iter().map(|(run_id, f)| json!({"run_id": run_id, "error": f.message()})).collect();
    json!({"schema_version": 1, "url": url, "runs": runs, "failed": failed})
}
