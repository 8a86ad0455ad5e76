//! `retake replay`.

mod outside;
mod simulated;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use retake_pipeline::replay_target::BuiltInTarget;
use retake_recorder::reader::ReadError;
use retake_recorder::{RunReader, Store};
use retake_replay::cassette::{Cassette, RunCassette};
use retake_replay::engine::{Arrival, ReplayOptions, ReplayReport};
use retake_replay::plan::{Plan, StageSource, plan};
use retake_replay::target::Target;
use retake_replay::workload::Workload;
use retake_schemas::RunId;
use retake_schemas::event::{Capture, RunStatus};
use retake_schemas::settings::{RagSettings, RecordSettings, without_password};
use retake_schemas::tables::SpanRow;
use tokio_util::sync::CancellationToken;

use super::{REPEAT_LABEL, rag, workload};
use crate::cli::{ArrivalArg, ClockArg, Format, LlmSource, RagArgs, Replay, ReplayArgs};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{print, print_json};
use crate::progress::Progress;
use crate::recording::{Recorded, Recording, cancel_on_signal};
use crate::render;

pub(crate) async fn run(context: &Context, verb: Replay) -> Result<Code, Failure> {
    let (args, is_plan) = match verb {
        Replay::Plan(args) => (args, true),
        Replay::Run(args) => (args, false),
    };
    if args.clock == ClockArg::Virtual {
        return simulated::run(context, &args, is_plan);
    }
    if args.target.is_some() {
        return outside::run(context, &args, is_plan).await;
    }
    refuse_file(&args)?;
    let store = context.store()?;
    let source = context.select(&store, &args.source)?;
    let prepared = Prepared::new(context, &store, &source, &args)?;
    let format = context.format_or(Format::Table);
    if is_plan {
        match format {
            Format::Json => print_json(&prepared.plan_json(&source))?,
            format => print(&render::plan(&prepared.plan, &source, format))?,
        }
    }
    if let Some(reason) = &prepared.plan.refusal {
        return Err(Failure::new(Code::NotReplayable, format!("replay run {source}: {reason}")));
    }
    if is_plan {
        return Ok(Code::Ok);
    }
    let cancel = cancel_on_signal()?;
    let group = (args.repeat > 1).then(|| RunId::generate(unix_ns()).to_string());
    let mut code = Code::Ok;
    for number in 1..=args.repeat {
        let lane = Lane { args: &args, group: group.as_deref(), number };
        let replayed = prepared.execute(context, &store, lane, cancel.clone()).await?;
        match format {
            Format::Json => print_json(&replayed.json(&source, &prepared.plan))?,
            format => print(&render::replay(&replayed.report, &prepared.plan, format))?,
        }
        for (index, message) in &replayed.report.failures {
            context.warn(&format!("operation {index}: {message}"));
        }
        context.say(&format!("recorded as run {}", replayed.run_id));
        if code == Code::Ok {
            code = replayed.code();
        }
        if cancel.is_cancelled() {
            break;
        }
    }
    context.say(&format!("next: retake diff {source} last"));
    Ok(code)
}

/// Now, ns since the Unix epoch.
fn unix_ns() -> i64 {
    retake_recorder::clock::Clock::start().now_unix_ns()
}

/// One of several replays with the same settings.
#[derive(Clone, Copy)]
pub(super) struct Lane<'a> {
    pub(super) args: &'a ReplayArgs,
    /// What the repeats share, when there are several.
    pub(super) group: Option<&'a str>,
    /// Which of them this is, from 1.
    pub(super) number: u16,
}

/// A replay that is ready to run.
pub(super) struct Prepared {
    source: RunId,
    workload: Workload,
    arrival: Arrival,
    settings: RagSettings,
    pub(super) plan: Plan,
    cassette: Option<Arc<dyn Cassette>>,
    /// Digest of the corpus the source run ingested.
    corpus: Option<String>,
    /// What the replay keeps when nothing else is said: the source kept its inputs, at least as
    /// far as this allows.
    capture: Capture,
}

impl Prepared {
    pub(super) fn new(
        context: &Context,
        store: &Store,
        source: &RunId,
        args: &ReplayArgs,
    ) -> Result<Self, Failure> {
        let (workload, arrival) = arranged(Workload::cut(store, source)?, args);
        let reader = RunReader::open(store, source)?;
        let recorded = &reader.manifest().facts.settings;
        let mut base = RagSettings::from_recorded(recorded);
        restore_url(context, &mut base);
        let settings = rag::settings(&base, &args.rag.set)?;
        let mut operations = BTreeMap::new();
        for operation in &workload.operations {
            *operations.entry(operation.kind.clone()).or_default() += 1;
        }
        let llm = match args.llm {
            LlmSource::Live => StageSource::Live,
            LlmSource::Recorded => StageSource::Recorded,
        };
        // A setting that the source run's version did not have was at what is the default now.
        let mut source_settings = RagSettings::default().recordable();
        source_settings.extend(recorded.iter().map(|(name, value)| (name.clone(), value.clone())));
        let plan = plan(operations, &source_settings, &settings.recordable(), llm);
        let cassette = match llm {
            StageSource::Live => None,
            StageSource::Recorded => {
                Some(Arc::new(RunCassette::load(&reader)?) as Arc<dyn Cassette>)
            }
        };
        let corpus = corpus_digest(&reader)?;
        let capture = match reader.manifest().facts.capture {
            Capture::Redacted => Capture::Redacted,
            _ => Capture::Full,
        };
        Ok(Self {
            source: source.clone(),
            workload,
            arrival,
            settings,
            plan,
            cassette,
            corpus,
            capture,
        })
    }

    pub(super) async fn execute(
        &self,
        context: &Context,
        store: &Store,
        lane: Lane<'_>,
        cancel: CancellationToken,
    ) -> Result<Replayed, Failure> {
        let args = lane.args;
        let mut name = args.rag.run.clone().unwrap_or_else(|| format!("replay of {}", self.source));
        let mut label = args.rag.label.clone();
        if let Some(group) = lane.group {
            name = format!("{name} #{}", lane.number);
            label.push(format!("{REPEAT_LABEL}={group}"));
        }

        // A replay keeps what its source kept: it can itself be replayed and compared.
        let record = RecordSettings {
            capture: args.rag.capture.unwrap_or(self.capture),
            ..context.config.settings.record.clone()
        };
        let rag_args = RagArgs { run: Some(name), label, ..args.rag.clone() };
        let builder = rag::builder(context, "replay", &rag_args, &self.settings)?
            .record_settings(record)
            .replay_of(self.source.clone(), self.workload.digest());
        let recording = Recording::start(context, builder, store, &cancel)?;
        let run_id = recording.run_id().clone();
        let scratch = store.run_dir(&run_id).join("scratch");
        let outcome = self.drive(context, &scratch, cancel.clone()).await;
        let was_cut_short = cancel.is_cancelled() || outcome.is_err();
        let status = if was_cut_short { RunStatus::Interrupted } else { RunStatus::Finished };
        let recorded = recording.finish(context, status).await;
        let report = recorded.outcome(outcome)?;
        Ok(Replayed { run_id, report, recorded, is_cancelled: cancel.is_cancelled() })
    }

    async fn drive(
        &self,
        context: &Context,
        scratch: &Path,
        cancellation: CancellationToken,
    ) -> Result<ReplayReport, Failure> {
        std::fs::create_dir_all(scratch)?;
        let built_in =
            Arc::new(BuiltInTarget::new(self.settings.clone(), &context.default_sqlite(), scratch));
        let target: Arc<dyn Target> = Arc::clone(&built_in) as Arc<dyn Target>;
        let options =
            ReplayOptions { arrival: self.arrival, cassette: self.cassette.clone(), cancellation };
        let progress = Progress::new(context.quiet, "replay", "operations");
        progress.length(self.workload.operations.len() as u64);
        let replayed = retake_replay::engine::replay(&self.workload, &target, &options, &|n| {
            progress.position(n);
        })
        .await;
        progress.finish();
        let mut report = replayed?;
        self.check_corpus(built_in.corpus_digest().map(|d| d.to_string()), &mut report);
        let cleaned = built_in.clean_up().await;
        if let Err(error) = cleaned {
            context.warn(&format!("the replay's scratch documents could not be removed: {error}"));
        }
        let _ = std::fs::remove_dir_all(scratch);
        Ok(report)
    }

    fn plan_json(&self, source: &RunId) -> serde_json::Value {
        serde_json::json!({
            "schema_version": 1,
            "replay_of": source,
            "operations": self.plan.operations,
            "changes": self.plan.changes,
            "stages": self.plan.stages,
            "refusal": self.plan.refusal,
        })
    }

    /// Other documents than the recorded ones make another experiment.
    fn check_corpus(&self, found: Option<String>, report: &mut ReplayReport) {
        let (Some(recorded), Some(found)) = (&self.corpus, found) else { return };
        if *recorded != found && report.objection.is_none() {
            report.objection =
                Some("the documents are not the ones the source run ingested".to_owned());
        }
    }
}

/// The workload and the policy by which it arrives.
fn arranged(workload: Workload, args: &ReplayArgs) -> (Workload, Arrival) {
    let workload = workload.with_stamps(workload::stamps(args.stamps, args.seed));
    let speed = args.speed;
    match (args.arrival, args.concurrency) {
        (_, Some(slots)) => (workload, Arrival::Closed { concurrency: usize::from(slots) }),
        (None | Some(ArrivalArg::Open), None) => (workload, Arrival::Open { speed }),
        (Some(ArrivalArg::Session), None) => (workload, Arrival::Session { speed }),
        (Some(ArrivalArg::Closed(concurrency)), None) => {
            (workload, Arrival::Closed { concurrency })
        }
        (Some(ArrivalArg::Poisson(per_second)), None) => {
            (workload.with_poisson(per_second, args.seed), Arrival::Open { speed })
        }
        (Some(ArrivalArg::ScaleSessions(copies)), None) => {
            let scaled = workload.scale_sessions(copies, args.seed);
            let turns = scaled.operations.iter().filter(|o| o.shape.parent.is_some());
            let has_think = turns.clone().all(|o| o.shape.think_ns.is_some());
            // Clones of conversations are conversations, where the recording lets them.
            let is_session = has_think && turns.count() > 0;
            let arrival =
                if is_session { Arrival::Session { speed } } else { Arrival::Open { speed } };
            (scaled, arrival)
        }
    }
}

/// The built-in pipeline needs inputs, and where they came from: a run.
fn refuse_file(args: &ReplayArgs) -> Result<(), Failure> {
    if !workload::is_file(Path::new(&args.source)) {
        return Ok(());
    }
    let message = format!("replay {}: it is a workload file, not a run", args.source);
    Err(Failure::new(Code::NotReplayable, message).help(
        "replay it in virtual time (--clock virtual --model FILE) or to a service (--target URL)",
    ))
}

/// A run does not record a database's password; the configuration has it.
fn restore_url(context: &Context, settings: &mut RagSettings) {
    let configured = &context.config.settings.rag.vectors.url;
    if let (Some(recorded), Some(configured)) = (&settings.vectors.url, configured)
        && without_password(configured) == *recorded
    {
        settings.vectors.url = Some(configured.clone());
    }
}

fn corpus_digest(reader: &RunReader) -> Result<Option<String>, ReadError> {
    let mut ingests = reader.rows::<SpanRow>()?;
    ingests.retain(|span| span.stage == "ingest" && span.parent_span_id.is_none());
    ingests.sort_by_key(|span| span.start_unix_ns);
    // Of several ingests the last one is what the replay's last one is compared with.
    Ok(ingests.last().and_then(|span| {
        let attributes: serde_json::Value =
            serde_json::from_str(span.attributes.as_deref()?).ok()?;
        attributes.get("retake.corpus.digest")?.as_str().map(str::to_owned)
    }))
}

/// A replay that has run.
pub(super) struct Replayed {
    pub(super) run_id: RunId,
    pub(super) report: ReplayReport,
    recorded: Recorded,
    is_cancelled: bool,
}

impl Replayed {
    fn code(&self) -> Code {
        self.recorded.code(code_of(&self.report, self.is_cancelled))
    }

    fn json(&self, source: &RunId, plan: &Plan) -> serde_json::Value {
        let changes = plan
            .changes
            .iter()
            .map(|c| (c.name.clone(), serde_json::json!({"from": c.from, "to": c.to})))
            .collect();
        report_json(&self.report, &self.run_id, Some(source), changes)
    }
}

/// The exit code of a replay.
fn code_of(report: &ReplayReport, is_cancelled: bool) -> Code {
    if is_cancelled {
        Code::Interrupted
    } else if report.objection.is_some() {
        Code::ReplayInvalid
    } else if report.error + report.refused > 0 {
        Code::Environment
    } else {
        Code::Ok
    }
}

/// A replay for scripts.
fn report_json(
    report: &ReplayReport,
    run_id: &RunId,
    source: Option<&RunId>,
    changes: serde_json::Map<String, serde_json::Value>,
) -> serde_json::Value {
    serde_json::json!({
        "schema_version": 1,
        "run_id": run_id,
        "replay_of": source,
        "settings_diff": changes,
        "planned": report.planned,
        "ok": report.ok,
        "error": report.error,
        "cancelled": report.cancelled,
        "refused": report.refused,
        "valid": report.objection.is_none(),
        "objection": report.objection,
        "latency_from_due": report.latency_from_due,
        "latency_from_send": report.latency_from_send,
        "fidelity": report.fidelity,
        "wall_ns": report.wall_ns,
        "verdict": if report.objection.is_none() { "VALID" } else { "INVALID" },
    })
}
