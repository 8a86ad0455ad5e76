//! `retake import`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use retake_recorder::otlp::{ImportLimits, Imported, Intake, Signal, Taken, import};
use retake_recorder::{Recorder, RecorderBuilder};
use retake_schemas::event::RunStatus;

use super::receiving;
use crate::cli::{Import, SignalArg};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::progress::Progress;
use crate::recording;

pub(crate) async fn run(context: &Context, args: Import) -> Result<Code, Failure> {
    // Opened first: a file that is not there must not leave an empty run behind.
    let mut files = Vec::with_capacity(args.files.len());
    for path in &args.files {
        files.push((path.clone(), open(path)?));
    }
    let store = context.store_for_writing()?;
    let mut record = receiving::record_settings(context, &args.received);
    record.sample_ms = 0;
    // There is no program whose cores it could take.
    record.seal_idle = false;
    let name = args.run.clone().unwrap_or_else(|| name_of(args.files.first().map(AsRef::as_ref)));
    let intake_settings = receiving::intake_settings(&record);
    let builder = RecorderBuilder::new(&name, &name)
        .record_settings(record)
        .labels(receiving::labels(&args.received)?);
    let recorder = builder.start(&store)?;
    let intake = Intake::new(recorder.dispatcher(), &name, intake_settings);
    let signal = match args.signal {
        SignalArg::Traces => Signal::Traces,
        SignalArg::Logs => Signal::Logs,
        SignalArg::Metrics => Signal::Metrics,
    };
    let progress = Progress::new(context.quiet, "import", "bytes");
    let work = move || read_all(files, signal, intake, recorder, progress);
    let (outcome, recorder, unmapped) = tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
    let status = if outcome.is_ok() { RunStatus::Finished } else { RunStatus::Interrupted };
    let summary = recorder.finish(status);
    recording::warn_of_losses(context, &summary);
    let imported = outcome?;
    for (line, reason) in &imported.bad_lines {
        context.warn(&format!("line {line} was left out: {reason}"));
    }
    if imported.bad_line_count > 0 {
        context.warn(&format!("{} lines were left out", imported.bad_line_count));
    }
    let Taken { accepted, repeated, rejected, .. } = imported.taken;
    context.say(&format!(
        "imported {} bodies as run {}: {accepted} taken, {repeated} repeated, {rejected} without ids",
        imported.bodies, summary.run_id
    ));
    if !unmapped.is_empty() {
        context.say(&receiving::unmapped_line(&unmapped));
    }
    context.say("next: retake breakdown last \u{b7} retake trace");
    let nothing_is_otlp = accepted == 0 && imported.bad_line_count > 0;
    if nothing_is_otlp {
        return Err(Failure::new(Code::Usage, "import: no line is an OTLP request".to_owned())
            .help("files hold OTLP bodies, or one OTLP/JSON request a line"));
    }
    Ok(Code::Ok)
}

type Unmapped = Vec<(String, u64)>;

fn read_all(
    files: Vec<(std::path::PathBuf, Box<dyn Read + Send>)>,
    signal: Signal,
    intake: Intake,
    recorder: Recorder,
    progress: Progress,
) -> (Result<Imported, Failure>, Recorder, Unmapped) {
    let mut total = Imported::default();
    let mut before = 0;
    for (path, file) in files {
        let mut here = 0;
        let mut on_body = |bytes| {
            here = bytes;
            progress.position(before + bytes);
        };
        match import(file, signal, &intake, ImportLimits::default(), &mut on_body) {
            Ok(imported) => total.add(imported),
            Err(error) => {
                let message = format!("import {}: {error}", path.display());
                return (Err(Failure::new(Code::Usage, message)), recorder, intake.unmapped());
            }
        }
        before += here;
    }
    progress.finish();
    (Ok(total), recorder, intake.unmapped())
}

fn open(path: &Path) -> Result<Box<dyn Read + Send>, Failure> {
    if path == Path::new("-") {
        return Ok(Box::new(std::io::stdin()));
    }
    let file = File::open(path).map_err(|error| {
        let code = match error.kind() {
            std::io::ErrorKind::NotFound => Code::NotFound,
            _ => Code::Environment,
        };
        Failure::new(code, format!("open {}: {error}", path.display()))
    })?;
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        let message = format!("import {}: it is a folder; name its files", path.display());
        return Err(Failure::new(Code::Usage, message));
    }
    Ok(Box::new(file))
}

fn name_of(path: Option<&Path>) -> String {
    let stem = path.and_then(Path::file_stem).map(|stem| stem.to_string_lossy().into_owned());
    stem.filter(|stem| !stem.is_empty() && stem != "-").unwrap_or_else(|| "import".to_owned())
}
