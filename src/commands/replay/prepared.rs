//! A replay of the built-in pipeline: what it needs, its plan, and its execution.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use retake_pipeline::replay_target::BuiltInTarget;
use retake_recorder::reader::ReadError;
use retake_recorder::{RunReader, Store};
use retake_replay::cassette::{Cassette, CassetteUse, OnMiss, OnRepeat, RunCassette};
use retake_replay::cost::{Observed, Predictor, Range};
use retake_replay::engine::{Arrival, ReplayOptions, ReplayReport};
use retake_replay::plan::{Missing, Plan, Planned, StageSource, plan};
use retake_replay::simulate::model::Model;
use retake_replay::simulate::{Detail, simulate};
use retake_replay::target::Target;
use retake_replay::workload::{Operations, Workload, WorkloadError};
use retake_schemas::event::{Capture, RunStatus};
use retake_schemas::settings::{RagSettings, RecordSettings, without_password};
use retake_schemas::tables::SpanRow;
use retake_schemas::{Digest, RunId, convention};
use tokio_util::sync::CancellationToken;

use super::resume::{self, Resumed};
use super::{arranged, code_of, report_json};
use crate::cli::{LlmSource, MissArg, RagArgs, ReplayArgs};
use crate::commands::{REPEAT_LABEL, rag};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::progress::Progress;
use crate::recording::{Recorded, Recording};

/// One of several replays with the same settings.
#[derive(Clone, Copy)]
pub(crate) struct Lane<'a> {
    pub(crate) args: &'a ReplayArgs,
    /// What the repeats share, when there are several.
    pub(crate) group: Option<&'a str>,
    /// Which of them this is, from 1.
    pub(crate) number: u16,
}

/// A recorded run as replays see it: read once, replayed as often as you like.
pub(crate) struct Source {
    pub(crate) run_id: RunId,
    pub(crate) workload: Arc<Workload>,
    pub(crate) arrival: Arrival,
    pub(crate) observed: Observed,
    /// Its settings, with the password of its database.
    base: RagSettings,
    /// Inputs that were not kept, or cannot be used.
    missing: Option<Missing>,
    /// Digest of the whole workload, of which a resumed replay does a part.
    digest: Digest,
    /// The replay that is gone on with.
    pub(crate) resumed: Option<Resumed>,
    /// Digest of the corpus it ingested.
    corpus: Option<String>,
    /// What a replay keeps when nothing else is said: the source kept its inputs, at least as far
    /// as this allows.
    capture: Capture,
}

impl Source {
    pub(crate) fn read(
        context: &Context,
        store: &Store,
        run_id: &RunId,
        args: &ReplayArgs,
    ) -> Result<Self, Failure> {
        let operations = args.operations.map(Operations::from).unwrap_or_default();
        let (whole, missing) = match Workload::cut(store, run_id, operations) {
            Ok(workload) => (workload, None),
            Err(error @ (WorkloadError::Read(_) | WorkloadError::NoOperations(_))) => {
                return Err(error.into());
            }
            // The shapes are enough for a plan, and for a replay in virtual time.
            Err(lacking) => {
                let shapes = Workload::cut_shapes(store, run_id, operations)?;
                (shapes.workload, Some(missing_inputs(&lacking)))
            }
        };
        let whole = if args.kind.is_empty() { whole } else { whole.only(&args.kind)? };
        let (workload, arrival) = arranged(whole, args);
        let digest = workload.digest();
        let (workload, resumed) = match &args.resume {
            None => (workload, None),
            Some(selector) => {
                let (rest, resumed) = resume::rest(context, store, workload, selector)?;
                (rest, Some(resumed))
            }
        };
        let reader = RunReader::open(store, run_id)?;
        let recorded = &reader.manifest().facts.settings;
        let settings = resumed.as_ref().map_or(recorded, |resumed| &resumed.settings);
        let mut base = RagSettings::from_recorded(settings);
        restore_url(context, &mut base);
        Ok(Self {
            run_id: run_id.clone(),
            workload: Arc::new(workload),
            arrival,
            observed: with_defaults(Observed::of(&reader, &context.config.settings.prices)?),
            base,
            missing,
            digest,
            resumed,
            corpus: corpus_digest(&reader)?,
            capture: match reader.manifest().facts.capture {
                Capture::Redacted => Capture::Redacted,
                _ => Capture::Full,
            },
        })
    }

    /// The pipeline's settings with what `changes` say.
    pub(crate) fn settings(&self, changes: &[String]) -> Result<RagSettings, Failure> {
        rag::settings(&self.base, changes)
    }
}

fn missing_inputs(lacking: &WorkloadError) -> Missing {
    let text = lacking.to_string();
    let what = text.split_once("; record it again").map_or(text.as_str(), |(what, _)| what);
    Missing {
        what: what.to_owned(),
        help: "record it again with --capture full, or replay its shapes in virtual time: \
               --clock virtual --model FILE"
            .to_owned(),
    }
}

/// A setting that the source run's version did not have was at what is the default now.
fn with_defaults(mut observed: Observed) -> Observed {
    let mut settings = RagSettings::default().recordable();
    settings.append(&mut observed.settings);
    observed.settings = settings;
    observed
}

/// A replay that is ready to run.
pub(crate) struct Prepared {
    source: Arc<Source>,
    settings: RagSettings,
    pub(crate) plan: Plan,
    llm: StageSource,
    on_miss: OnMiss,
    on_repeat: OnRepeat,
}

impl Prepared {
    pub(crate) fn new(
        context: &Context,
        store: &Store,
        source: &RunId,
        args: &ReplayArgs,
    ) -> Result<Self, Failure> {
        let source = Source::read(context, store, source, args)?;
        Self::of(context, Arc::new(source), args)
    }

    /// A replay of a run that was read already.
    pub(crate) fn of(
        context: &Context,
        source: Arc<Source>,
        args: &ReplayArgs,
    ) -> Result<Self, Failure> {
        let settings = source.settings(&args.rag.set)?;
        let llm = llm_source(args)?;
        let on_miss = match args.on_miss {
            MissArg::Fail => OnMiss::Fail,
            MissArg::Live => OnMiss::Live,
        };
        let mut operations = BTreeMap::new();
        for operation in &source.workload.operations {
            *operations.entry(operation.kind.clone()).or_default() += 1;
        }
        let target = settings.recordable();
        if let Some(resumed) = source.resumed.as_ref().filter(|resumed| resumed.settings != target)
        {
            let message = format!("resume replay {}: it had other settings", resumed.run_id);
            return Err(Failure::new(Code::Usage, message).help("leave --set out"));
        }
        let plan = plan(&Planned {
            operations,
            observed: &source.observed,
            target: &target,
            llm,
            on_miss,
            prices: &context.config.settings.prices,
            missing: source.missing.clone().into_iter().collect(),
        });
        Ok(Self { source, settings, plan, llm, on_miss, on_repeat: args.on_repeat.into() })
    }

    /// The plan, with how long the whole will take.
    pub(crate) fn timed_plan(&self) -> Plan {
        let expected_wall_ns = expected_wall_ns(&self.source, &self.target());
        Plan { expected_wall_ns, ..self.plan.clone() }
    }

    /// The settings in force, by name.
    pub(crate) fn target(&self) -> BTreeMap<String, serde_json::Value> {
        self.settings.recordable()
    }

    pub(crate) async fn execute(
        &self,
        context: &Context,
        store: &Store,
        lane: Lane<'_>,
        cancel: CancellationToken,
    ) -> Result<Replayed, Failure> {
        let args = lane.args;
        let mut name =
            args.rag.run.clone().unwrap_or_else(|| format!("replay of {}", self.source.run_id));
        let mut label = args.rag.label.clone();
        if let Some(group) = lane.group {
            name = format!("{name} #{}", lane.number);
            label.push(format!("{REPEAT_LABEL}={group}"));
        }

        if let Some(resumed) = &self.source.resumed {
            label.push(format!("{}={}", convention::RESUMES_LABEL, resumed.run_id));
        }
        // A replay keeps what its source kept: it can itself be replayed and compared.
        let record = RecordSettings {
            capture: args.rag.capture.unwrap_or(self.source.capture),
            ..context.config.settings.record.clone()
        };
        let rag_args = RagArgs { run: Some(name), label, ..args.rag.clone() };
        let builder = rag::builder(context, "replay", &rag_args, &self.settings)?
            .record_settings(record)
            .replay_of(self.source.run_id.clone(), self.source.digest);
        let recording = Recording::start(context, builder, store, &cancel)?;
        let run_id = recording.run_id().clone();
        let scratch = store.run_dir(&run_id).join("scratch");
        // Each replay has answers of its own: a recorded one is used once.
        let cassette = self.cassette(store)?.map(Arc::new);
        let outcome = self.drive(context, &scratch, cassette.clone(), cancel.clone()).await;
        let was_cut_short = cancel.is_cancelled() || outcome.is_err();
        let status = if was_cut_short { RunStatus::Interrupted } else { RunStatus::Finished };
        let recorded = recording.finish(context, status).await;
        let report = recorded.outcome(outcome)?;
        let uses = cassette.map(|cassette| cassette.uses());
        let done_before = self.source.resumed.as_ref().map_or(0, |resumed| resumed.done);
        let is_cancelled = cancel.is_cancelled();
        Ok(Replayed { run_id, report, recorded, uses, done_before, is_cancelled })
    }

    fn cassette(&self, store: &Store) -> Result<Option<RunCassette>, Failure> {
        if self.llm != StageSource::Recorded {
            return Ok(None);
        }
        let reader = RunReader::open(store, &self.source.run_id)?;
        let cassette = RunCassette::load(&reader)?;
        Ok(Some(cassette.with_on_miss(self.on_miss).with_on_repeat(self.on_repeat)))
    }

    async fn drive(
        &self,
        context: &Context,
        scratch: &Path,
        cassette: Option<Arc<RunCassette>>,
        cancellation: CancellationToken,
    ) -> Result<ReplayReport, Failure> {
        std::fs::create_dir_all(scratch)?;
        let built_in =
            Arc::new(BuiltInTarget::new(self.settings.clone(), &context.default_sqlite(), scratch));
        let target: Arc<dyn Target> = Arc::clone(&built_in) as Arc<dyn Target>;
        let cassette = cassette.map(|cassette| cassette as Arc<dyn Cassette>);
        let options = ReplayOptions { arrival: self.source.arrival, cassette, cancellation };
        let workload = &self.source.workload;
        let progress = Progress::new(context.quiet, "replay", "operations");
        progress.length(workload.operations.len() as u64);
        let replayed = retake_replay::engine::replay(workload, &target, &options, &|n| {
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

    pub(crate) fn plan_json(&self) -> serde_json::Value {
        let mut json = serde_json::json!({
            "schema_version": 1,
            "replay_of": self.source.run_id,
            "arrival": self.source.arrival,
        });
        let plan = serde_json::to_value(self.timed_plan()).unwrap_or_default();
        if let (Some(json), serde_json::Value::Object(plan)) = (json.as_object_mut(), plan) {
            json.extend(plan);
        }
        json
    }

    /// Other documents than the recorded ones make another experiment.
    fn check_corpus(&self, found: Option<String>, report: &mut ReplayReport) {
        let (Some(recorded), Some(found)) = (&self.source.corpus, found) else { return };
        if *recorded != found && report.objection.is_none() {
            report.objection = Some(OTHER_DOCUMENTS.to_owned());
        }
    }
}

/// Why a replay on other documents is not valid.
pub(crate) const OTHER_DOCUMENTS: &str = "the documents are not the ones the source run ingested";

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
pub(crate) struct Replayed {
    pub(crate) run_id: RunId,
    pub(crate) report: ReplayReport,
    recorded: Recorded,
    /// How often recorded answers were used, where they were to be.
    pub(crate) uses: Option<CassetteUse>,
    /// Operations that the replay this one goes on with had done.
    pub(crate) done_before: u64,
    is_cancelled: bool,
}

impl Replayed {
    pub(crate) fn code(&self) -> Code {
        self.recorded.code(code_of(&self.report, self.is_cancelled))
    }

    pub(crate) fn json(&self, source: &RunId, plan: &Plan) -> serde_json::Value {
        let changes = plan
            .changes
            .iter()
            .map(|c| (c.name.clone(), serde_json::json!({"from": c.from, "to": c.to})))
            .collect();
        let mut json = report_json(&self.report, &self.run_id, Some(source), changes);
        if let Some(json) = json.as_object_mut() {
            json.insert("llm_answers".to_owned(), serde_json::json!(self.uses));
            json.insert("done_before".to_owned(), serde_json::json!(self.done_before));
        }
        json
    }
}

/// Where answers of the language model come from. Other stages have no choice on the wall clock.
fn llm_source(args: &ReplayArgs) -> Result<StageSource, Failure> {
    let mut llm = match args.llm {
        LlmSource::Live => StageSource::Live,
        LlmSource::Recorded => StageSource::Recorded,
    };
    for (stage, source) in &args.stage {
        let is_known = match source {
            StageSource::Live => true,
            StageSource::Recorded => stage == "llm",
            StageSource::RecordedModel | StageSource::Model => false,
        };
        if !is_known {
            let message =
                format!("take stage {stage} as {}: on the wall clock it runs", source.as_str());
            return Err(Failure::new(Code::Usage, message).help(
                "only llm can be `recorded`; models take time on the virtual clock: \
                 --clock virtual --model FILE",
            ));
        }
        if stage == "llm" {
            llm = *source;
        }
    }
    Ok(llm)
}

/// From the first start to the last end, by the event heap: recorded times, with the ingests as the
/// cost model has them. `None` when something is not known.
fn expected_wall_ns(source: &Source, target: &BTreeMap<String, serde_json::Value>) -> Option<i64> {
    let mut workload = Workload::clone(&source.workload);
    if workload.has("ingest") {
        let predictor = Predictor::new(&source.observed, &[], Range::Seen, SEED);
        let predicted = predictor.ingests(target).ok()?;
        let ingests = workload.operations.iter_mut().filter(|op| op.kind == "ingest");
        for (operation, estimate) in ingests.zip(predicted) {
            operation.recorded_duration_ns = estimate.estimate.round() as i64;
        }
    }
    let model = Model::recorded();
    let simulated = simulate(&workload, &model, source.arrival, Detail::Requests).ok()?;
    Some(simulated.report().span_ns)
}

/// Of the resamples that judge a fit; a plan is the same each time.
const SEED: u64 = 1;
