//! `retake demo`: the main job end to end on real documents, offline.

mod documents;
mod models;

use std::path::{Path, PathBuf};

use retake_analyzer::DiffOptions;
use retake_pipeline::ingest::{IngestDeps, IngestRequest, Silent, ingest};
use retake_pipeline::query::{AskOptions, Engine};
use retake_recorder::Store;
use retake_schemas::RunId;
use retake_schemas::event::{Capture, RunStatus};
use retake_schemas::settings::RagSettings;
use tokio_util::sync::CancellationToken;

use self::models::Models;
use super::{analyzer, rag, report};
use crate::cli::{Demo, Format, RagArgs, ReplayArgs};
use crate::commands::replay::{Lane, Prepared};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::print;
use crate::progress::Progress;
use crate::recording::{Recording, cancel_on_signal};
use crate::render;

pub(crate) async fn run(context: Context, args: Demo) -> Result<Code, Failure> {
    let settings = rag::settings(&context.config.settings.rag, &args.set)?;
    let models = Models::start(&settings, &args.set).await?;
    let settings = models.as_ref().map_or(settings, |models| models.settings.clone());
    let out = args.out;
    let context = context.with_store(out.join("store"));
    let docs = documents::folder(args.docs, &out)?;
    let store = context.store_for_writing()?;
    let cancel = cancel_on_signal()?;

    heading(&context, "1. Record: ingest documents and answer questions");
    if models.is_some() {
        context.say("models: a service in this process that takes the time of a real one");
    }
    let production = record(&context, &store, &settings, &docs, cancel.clone()).await?;
    heading(&context, "2. Break down: where did the time go?");
    breakdown(&context, &store, &production).await?;
    heading(&context, "3. Replay: the same workload, as it was and with other settings");
    // Both lanes are replays, so that they differ in nothing but the settings; a replay before
    // them takes what only the first one pays (cold caches) out of the comparison.
    let changes = changes(&settings);
    let lanes = Lanes { context: &context, store: &store, source: &production, cancel };
    lanes.replay("warm-up", &[], 0).await?;
    let (mut base, mut candidate) = (Vec::new(), Vec::new());
    // Interleaved ABBA, so that a machine that becomes busier or idler favours no side.
    for number in 1..=REPEATS {
        if number.is_multiple_of(2) {
            candidate.push(lanes.replay("candidate", &changes, number).await?);
            base.push(lanes.replay("baseline", &[], number).await?);
        } else {
            base.push(lanes.replay("baseline", &[], number).await?);
            candidate.push(lanes.replay("candidate", &changes, number).await?);
        }
    }
    heading(&context, "4. Diff: did it get better?");
    let analyzer = analyzer(&context, &store, &[&base, &candidate])?;
    let options = DiffOptions::default();
    let diff = retake_analyzer::diff_repeated(&analyzer, &base, &candidate, &options).await?;
    print(&render::diff(&diff, Format::Table, context.look(Format::Table)))?;
    heading(&context, "5. Report");
    let path = out.join("report.html");
    let asked = report::Asked { runs: &candidate, bases: &base, budgets: None, with_text: false };
    let data = report::data(&context, &store, asked, &|warning| context.warn(warning)).await?;
    std::fs::write(&path, retake_analyzer::report::render(&data))?;
    print(&path.canonicalize().unwrap_or(path).display().to_string())?;
    let store = out.join("store");
    let store = store.display();
    let program = program();
    context.say(&format!(
        "\nnext: {program} --store {store} runs\n      {program} --store {store} trace slowest --run demo\n      \
         {program} --store {store} sql \"select stage, count(*), approx_percentile_cont(duration_ns, 0.95) from spans group by stage\""
    ));
    if let Some(models) = models {
        context.say(&format!("its models, to replay more: {program} {}", models.command));
        models.stop().await;
    }
    Ok(Code::Ok)
}

/// How this program is called here: by its name where a shell finds it, else by its path.
fn program() -> String {
    let Ok(this) = std::env::current_exe() else { return NAME.to_owned() };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(NAME)).find(|p| p.is_file());
    let real = |path: &Path| path.canonicalize().ok();
    if found.is_some_and(|found| real(&found) == real(&this)) {
        NAME.to_owned()
    } else {
        this.display().to_string()
    }
}

/// Name of the program.
const NAME: &str = "retake";

fn heading(context: &Context, text: &str) {
    context.say(&format!("\n{text}"));
}

/// Another embed batch size and worker count than the recorded run had.
fn changes(settings: &RagSettings) -> Vec<String> {
    let batch_size = if settings.embed.batch_size >= 64 { 8 } else { 128 };
    let workers = if settings.workers >= 4 { 1 } else { 4 };
    vec![format!("embed.batch_size={batch_size}"), format!("workers={workers}")]
}

async fn record(
    context: &Context,
    store: &Store,
    settings: &RagSettings,
    docs: &Path,
    cancel: CancellationToken,
) -> Result<RunId, Failure> {
    let args = RagArgs {
        set: Vec::new(),
        run: Some("demo".to_owned()),
        label: vec!["demo=production".to_owned()],
        capture: Some(Capture::Full),
    };
    let deps = IngestDeps::from_settings(settings, &context.default_sqlite()).await?;
    let builder = rag::builder(context, "demo", &args, settings)?;
    let recording = Recording::start(context, builder, store, &cancel)?;
    let run_id = recording.run_id().clone();
    let outcome = workload(context, settings, &deps, docs, cancel).await;
    let status = if outcome.is_ok() { RunStatus::Finished } else { RunStatus::Interrupted };
    let recorded = recording.finish(context, status).await;
    recorded.outcome(outcome)?;
    let summary = &recorded.summary;
    context.say(&format!(
        "run {run_id}: {} events, {} dropped, {} spans",
        summary.offered, summary.dropped, summary.spans
    ));
    Ok(run_id)
}

/// Ingests the documents and asks the questions.
async fn workload(
    context: &Context,
    settings: &RagSettings,
    deps: &IngestDeps,
    docs: &Path,
    cancel: CancellationToken,
) -> Result<(), Failure> {
    let (mut documents, mut chunks) = (0, 0);
    for (roots, number) in documents::deliveries(docs)?.into_iter().zip(1..) {
        let request_id = Some(format!("delivery {number}"));
        let request = IngestRequest { roots, request_id, ..IngestRequest::default() };
        let report = ingest(request, deps, &Silent, cancel.clone()).await?;
        documents += report.documents();
        chunks += report.chunks;
        for failure in &report.failures {
            context.warn(&format!("{}: {}", failure.id, failure.message));
        }
    }
    context.say(&format!("{documents} documents ingested, {chunks} chunks"));
    let questions = documents::questions(docs, settings)?;
    let engine = Engine::from_settings(settings, &context.default_sqlite()).await?;
    let progress = Progress::new(context.quiet, "ask", "questions");
    progress.length(questions.len() as u64);
    for (question, position) in questions.iter().zip(1..) {
        let options = AskOptions {
            request_id: Some(format!("q{position}")),
            cancellation: cancel.clone(),
            ..AskOptions::default()
        };
        let answer = engine.ask(question, options, &mut |_| {}).await?;
        progress.position(position);
        if position <= ANSWERS_SHOWN {
            context.say(&render::question(question, &answer.text));
        }
    }
    progress.finish();
    context.say(&format!("{} questions answered", questions.len()));
    Ok(())
}

async fn breakdown(context: &Context, store: &Store, run_id: &RunId) -> Result<(), Failure> {
    let analyzer = analyzer(context, store, &[std::slice::from_ref(run_id)])?;
    let breakdown =
        retake_analyzer::breakdown(&analyzer, run_id, &[retake_analyzer::GroupKey::Stage]).await?;
    let look = context.look(Format::Table);
    print(&render::breakdown(&breakdown, "demo", "stage", Format::Table, look))
}

/// The lanes of the demo: replays of one run.
struct Lanes<'a> {
    context: &'a Context,
    store: &'a Store,
    source: &'a RunId,
    cancel: CancellationToken,
}

impl Lanes<'_> {
    async fn replay(&self, lane: &str, changes: &[String], number: u16) -> Result<RunId, Failure> {
        let rag = RagArgs {
            set: changes.to_vec(),
            run: Some(format!("demo {lane}")),
            label: vec![format!("demo={lane}")],
            capture: Some(Capture::Full),
        };
        let mut args = ReplayArgs::of(self.source.to_string(), rag);
        args.concurrency = Some(UNDER_WAY);
        let group = format!("demo {lane}");
        let repeat = Lane { args: &args, group: (number > 0).then_some(&group), number };
        let prepared = Prepared::new(self.context, self.store, self.source, &args)?;
        let replayed =
            prepared.execute(self.context, self.store, repeat, self.cancel.clone()).await?;
        let with = match changes {
            [] => "settings as recorded".to_owned(),
            changes => changes.join(", "),
        };
        print(&format!("{lane:9} ({with}): {}", render::replay_line(&replayed.report)))?;
        Ok(replayed.run_id)
    }
}

/// Replays on each side: enough to see how much two executions of the same differ by chance.
const REPEATS: u16 = 5;
/// Questions under way at the same time in a replay, so that the demo is not mostly waiting.
const UNDER_WAY: u16 = 4;
/// Answers printed, to see that they are real.
const ANSWERS_SHOWN: u64 = 3;

/// Where the demo puts documents when the user has none.
fn shipped_folder(out: &Path) -> PathBuf {
    out.join("docs")
}
