//! `retake rag`: the built-in pipeline, always recorded.

mod fetch;
mod keep;
mod matrix;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use retake_pipeline::eval::judge::Judges;
use retake_pipeline::eval::{EvalReport, EvalRequest, evaluate};
use retake_pipeline::ingest::{IngestDeps, IngestReport, IngestRequest, ingest};
use retake_pipeline::query::{AskOptions, Engine};
use retake_pipeline::query_cache::QueryCache;
use retake_pipeline::synthesize::structured;
use retake_recorder::{RecorderBuilder, Store};
use retake_schemas::event::RunStatus;
use retake_schemas::settings::{QueryCacheMode, RagSettings, RecordSettings};
use serde_json::Value;

use crate::cli::{Format, Rag, RagArgs};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{inert, print, print_json};
use crate::progress::Progress;
use crate::recording::{Recording, cancel_on_signal};
use crate::render;

pub(crate) async fn run(context: &Context, verb: Rag) -> Result<Code, Failure> {
    match verb {
        Rag::Ingest { paths, rag } => run_ingest(context, paths, &rag).await,
        Rag::Ask { question, schema, rag } => {
            run_ask(context, &question, schema.as_deref(), &rag).await
        }
        Rag::Eval { questions, output, vary, rag } if vary.is_empty() => {
            run_eval(context, questions, output, &rag).await
        }
        Rag::Eval { questions, output, vary, rag } => {
            matrix::run(context, questions, output, &vary, &rag).await
        }
        Rag::Fetch(args) => fetch::run(context, &args).await,
        Rag::Cache { action } => keep::cache(context, action).await,
        Rag::Save(args) => keep::save(context, &args).await,
        Rag::Restore(args) => keep::restore(context, &args).await,
    }
}

/// Labels from `key=value` words.
pub(super) fn labels(words: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    words
        .iter()
        .map(|word| match word.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => {
                Ok((key.trim().to_owned(), value.trim().to_owned()))
            }
            _ => Err(Failure::new(Code::Usage, format!("read label {word:?}: expected key=value"))),
        })
        .collect()
}

/// The pipeline's settings with what the command line changes.
pub(super) fn settings(base: &RagSettings, changes: &[String]) -> Result<RagSettings, Failure> {
    let mut settings = base.clone();
    for change in changes {
        settings.set(change)?;
    }
    settings.check()?;
    Ok(settings)
}

/// What a recording of the pipeline starts from.
pub(super) fn builder(
    context: &Context,
    default_name: &str,
    args: &RagArgs,
    settings: &RagSettings,
) -> Result<RecorderBuilder, Failure> {
    let record = RecordSettings {
        capture: args.capture.unwrap_or(context.config.settings.record.capture),
        ..context.config.settings.record.clone()
    };
    Ok(RecorderBuilder::new(args.run.as_deref().unwrap_or(default_name), "retake-rag")
        .service_version(env!("CARGO_PKG_VERSION"))
        .record_settings(record)
        .settings(settings.recordable())
        .seed(settings.seed)
        .labels(labels(&args.label)?))
}

async fn run_ingest(
    context: &Context,
    roots: Vec<PathBuf>,
    args: &RagArgs,
) -> Result<Code, Failure> {
    let settings = settings(&context.config.settings.rag, &args.set)?;
    // Before a run is made: a folder that is not there is no run.
    if let Some(missing) = roots.iter().find(|root| !root.exists()) {
        return Err(retake_pipeline::error::PipelineError::NotFound(missing.clone()).into());
    }
    let store = context.store_for_writing()?;
    let deps = IngestDeps::from_settings(&settings, &context.default_sqlite()).await?;
    let cancel = cancel_on_signal()?;
    let builder = builder(context, "ingest", args, &settings)?;
    let recording = Recording::start(context, builder, &store, &cancel)?;
    let run_id = recording.run_id().clone();
    let progress = Progress::new(context.quiet, "ingest", "documents").with_live(recording.live());
    let request = IngestRequest { roots, ..IngestRequest::default() };
    let outcome = ingest(request, &deps, &progress, cancel.clone()).await;
    progress.finish();
    let recorded =
        recording.finish(context, status(outcome.is_err() || cancel.is_cancelled())).await;
    let report = recorded.outcome(outcome)?;
    match context.format_or(Format::Table) {
        Format::Json => print_json(&render::ingest_json(&run_id, &report))?,
        _ => print(&render::ingest(&report))?,
    }
    failures(context, &report);
    context
        .say(&format!("recorded as run {run_id}; next: retake breakdown · retake rag ask \"…\""));
    Ok(recorded.code(if report.is_cancelled { Code::Interrupted } else { Code::Ok }))
}

fn failures(context: &Context, report: &IngestReport) {
    for failure in report.failures.iter().take(FAILURES_SHOWN) {
        context.warn(&format!("{}: {}", failure.id, failure.message));
    }
    let hidden = report.failed.saturating_sub(FAILURES_SHOWN as u64);
    if hidden > 0 {
        context.warn(&format!(
            "{hidden} more failed; retake sql \"select error_message, attributes from spans where is_error_origin\""
        ));
    }
}

fn status(was_cut_short: bool) -> RunStatus {
    if was_cut_short { RunStatus::Interrupted } else { RunStatus::Finished }
}

/// The schema in a file. What nobody could check is refused before anything is asked.
fn read_schema(path: &Path) -> Result<Value, Failure> {
    let place = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| {
        let code = match error.kind() {
            std::io::ErrorKind::NotFound => Code::NotFound,
            _ => Code::Usage,
        };
        Failure::new(code, format!("read schema {place}: {error}"))
    })?;
    let wrong =
        |reason: String| Failure::new(Code::Usage, format!("read schema {place}: {reason}"));
    let schema = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    structured::supported(&schema).map_err(wrong)?;
    Ok(schema)
}

/// What answers, with the cache of answers if there is to be one. A cache that cannot be opened
/// costs time and nothing else.
async fn engine(context: &Context, settings: &RagSettings) -> Result<Engine, Failure> {
    let engine = Engine::from_settings(settings, &context.default_sqlite()).await?;
    if settings.query_cache.mode == QueryCacheMode::Off {
        return Ok(engine);
    }
    let path = context.default_sqlite().with_file_name(ANSWERS_FILE);
    Ok(match QueryCache::open(&path, &settings.query_cache).await {
        Ok(cache) => engine.with_query_cache(Arc::new(cache)),
        Err(error) => {
            context.warn(&format!("answers are not kept: {error}"));
            engine
        }
    })
}

async fn run_ask(
    context: &Context,
    question: &str,
    schema: Option<&Path>,
    args: &RagArgs,
) -> Result<Code, Failure> {
    let settings = settings(&context.config.settings.rag, &args.set)?;
    let schema = schema.map(read_schema).transpose()?;
    let store = store_with_documents(context, &settings)?;
    let engine = engine(context, &settings).await?;
    let cancel = cancel_on_signal()?;
    let builder = builder(context, "ask", args, &settings)?;
    let recording = Recording::start(context, builder, &store, &cancel)?;
    let run_id = recording.run_id().clone();
    let format = context.format_or(Format::Table);
    let options = AskOptions { schema, cancellation: cancel, ..AskOptions::default() };
    let progress = Progress::spinner(context.quiet, "ask").with_live(recording.live());
    // The answer appears as it streams; a pipe that is gone only ends the printing.
    let mut on_part = |part: &str| {
        if format != Format::Json {
            // The answer takes the place of the picture of how it comes about.
            progress.finish();
            let mut out = std::io::stdout().lock();
            let _ = out.write_all(inert(part).as_bytes()).and_then(|()| out.flush());
        }
    };
    let outcome = engine.ask(question, options, &mut on_part).await;
    progress.finish();
    let recorded = recording.finish(context, status(outcome.is_err())).await;
    let answer = recorded.outcome(outcome)?;
    match format {
        Format::Json => print_json(&render::answer_json(&run_id, &answer))?,
        _ => print(&render::answer(&answer))?,
    }
    if let Some(objection) = answer.objection {
        let style = settings.synthesize.style.as_str();
        context.warn(&format!(
            "the answer is not as synthesize.style={style} wants it: {}",
            objection.as_str()
        ));
    }
    if answer.passages_cut > 0 {
        context.warn(&format!(
            "{} of {} passages did not fit synthesize.context_window and were cut or left out",
            answer.passages_cut,
            answer.hits.len()
        ));
    }
    context.say(&format!("recorded as run {run_id}; next: retake trace slowest"));
    Ok(recorded.code(Code::Ok))
}

async fn run_eval(
    context: &Context,
    questions: PathBuf,
    output: Option<PathBuf>,
    args: &RagArgs,
) -> Result<Code, Failure> {
    let settings = settings(&context.config.settings.rag, &args.set)?;
    // Wrong input must not leave an empty run behind.
    retake_pipeline::eval::read_questions(&questions)?;
    let store = store_with_documents(context, &settings)?;
    let engine = engine(context, &settings).await?;
    let judges = Judges::from_settings(&settings, &engine.embedder())?;
    let cancel = cancel_on_signal()?;
    let builder = builder(context, "eval", args, &settings)?;
    let recording = Recording::start(context, builder, &store, &cancel)?;
    let run_id = recording.run_id().clone();
    let output = output.unwrap_or_else(|| store.run_dir(&run_id).join("results.jsonl"));
    let progress = Progress::new(context.quiet, "eval", "questions").with_live(recording.live());
    let request =
        EvalRequest { questions, output: output.clone(), workers: settings.workers, judges };
    let outcome = evaluate(&request, &engine, &progress, cancel.clone()).await;
    progress.finish();
    let recorded =
        recording.finish(context, status(outcome.is_err() || cancel.is_cancelled())).await;
    let report: EvalReport = recorded.outcome(outcome)?;
    match context.format_or(Format::Table) {
        Format::Json => print_json(&serde_json::json!({
            "schema_version": 1, "run_id": run_id, "output": output, "report": report
        }))?,
        format => print(&render::eval(&report, format))?,
    }
    context.say(&format!("results: {}", output.display()));
    context.say(&format!(
        "recorded as run {run_id}; next: retake breakdown · retake replay plan last"
    ));
    Ok(recorded.code(if report.is_cancelled { Code::Interrupted } else { Code::Ok }))
}

/// The store for asking. Without documents a question can only fail, so say what to do first.
fn store_with_documents(context: &Context, settings: &RagSettings) -> Result<Store, Failure> {
    let has_documents = settings.vectors.url.is_some() || context.default_sqlite().exists();
    if !has_documents {
        let file = context.default_sqlite();
        let message =
            format!("open documents: nothing is ingested yet ({} is missing)", file.display());
        return Err(Failure::new(Code::NotFound, message).help("retake rag ingest PATH"));
    }
    context.store_for_writing()
}

/// Name of the cache of answers, beside the store's documents.
const ANSWERS_FILE: &str = "rag-answers.sqlite";
/// Failures printed; all of them are in the recorded run.
const FAILURES_SHOWN: usize = 5;
