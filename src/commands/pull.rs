//! `retake pull`.

use retake_recorder::remote::{Pulled, Remote, list_entries};
use retake_recorder::store::select_set_among;
use retake_schemas::RunId;
use serde_json::{Value, json};

use crate::cli::{Format, Pull};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{print, print_json, unsupported};
use crate::progress::Progress;
use crate::units::bytes;

pub(crate) async fn run(context: &Context, args: &Pull) -> Result<Code, Failure> {
    let format = context.format_or(Format::Table);
    if !matches!(format, Format::Json | Format::Table | Format::Markdown) {
        return Err(unsupported(format, "a pull"));
    }
    let remote = Remote::open(&args.url)?;
    let runs = wanted(&remote, args).await?;
    let store = context.store_for_writing()?;
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for run_id in runs {
        let progress = Progress::new(context.quiet, "pull", "bytes");
        let pulled = remote.pull(&store, &run_id, &|step| progress.transfer(step)).await;
        progress.finish();
        match pulled {
            Ok(pulled) => done.push((run_id, pulled)),
            Err(error) => failed.push((run_id, Failure::from(error))),
        }
    }
    if format == Format::Json {
        print_json(&as_json(remote.url(), &done, &failed))?;
    } else {
        for (run_id, pulled) in &done {
            print(&line(run_id, pulled, remote.url()))?;
        }
        for (_, failure) in &failed {
            context.warn(&format!("failed to {}", failure.message()));
        }
        context.say("next: retake runs · retake breakdown RUN");
    }
    Ok(failed.first().map_or(Code::Ok, |(_, failure)| failure.code()))
}

async fn wanted(remote: &Remote, args: &Pull) -> Result<Vec<RunId>, Failure> {
    let listing = remote.runs_there().await?;
    match &args.run {
        Some(runs) => Ok(select_set_among(&list_entries(&listing), runs)?),
        None => Ok(listing.runs.into_iter().map(|(run_id, _)| run_id).collect()),
    }
}

fn line(run_id: &RunId, pulled: &Pulled, url: &str) -> String {
    if pulled.was_complete {
        return format!("run {run_id} is in the store already");
    }
    let there = match pulled.files_there {
        0 => String::new(),
        there => format!(", {there} were fetched before"),
    };
    let (files, size) = (pulled.files_fetched, bytes(pulled.bytes_fetched));
    format!("pulled run {run_id} from {url}: {files} files, {size}{there}")
}

fn as_json(url: &str, done: &[(RunId, Pulled)], failed: &[(RunId, Failure)]) -> Value {
    let runs: Vec<Value> = done
        .iter()
        .map(|(run_id, pulled)| {
            json!({
                "run_id": run_id,
                "files_fetched": pulled.files_fetched,
                "bytes_fetched": pulled.bytes_fetched,
                "files_there": pulled.files_there,
                "was_complete": pulled.was_complete,
            })
        })
        .collect();
    let failed: Vec<Value> =
        failed.iter().map(|(run_id, f)| json!({"run_id": run_id, "error": f.message()})).collect();
    json!({"schema_version": 1, "url": url, "runs": runs, "failed": failed})
}
