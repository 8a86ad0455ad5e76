//! `retake replay run --target`: a service or a program outside, instead of the built-in pipeline.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use retake_recorder::{RecorderBuilder, RunReader, Store};
use retake_replay::arrival::Arrival;
use retake_replay::engine::{ReplayOptions, ReplayReport, replay};
use retake_replay::target::{Operation, ServiceSettings, ServiceTarget, Target, pairs};
use retake_replay::workload::{Operations, Workload};
use retake_schemas::event::{Capture, RunStatus};
use retake_schemas::settings::{PricedTokens, Prices, RecordSettings};
use retake_schemas::{Digest, RunId, convention};
use serde_json::Value as Json;
use tokio_util::sync::CancellationToken;

use super::program::Program;
use super::resume::{self, Resumed};
use super::{arranged, code_of, report_json, unix_ns};
use crate::cli::{Format, RagArgs, ReplayArgs};
use crate::commands::{REPEAT_LABEL, rag, workload};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{print, print_json};
use crate::progress::Progress;
use crate::recording::{Recorded, Recording, cancel_on_signal};
use crate::render;

/// A replay that has run.
pub(crate) struct Ran {
    pub(crate) run_id: RunId,
    pub(crate) report: ReplayReport,
    recorded: Recorded,
}

/// What is replayed to.
enum Outside {
    /// A service that runs already.
    Service(Arc<ServiceTarget>),
    /// A program, started anew for each replay, and what is changed of its settings.
    Program { command: String, settings: BTreeMap<String, Json> },
}

impl Outside {
    fn of(args: &ReplayArgs) -> Result<Self, Failure> {
        if let Some(command) = &args.target_cmd {
            let settings = pairs(&args.rag.set)?;
            return Ok(Self::Program { command: command.clone(), settings });
        }
        let url = args.target.as_deref().unwrap_or_default();
        let service = ServiceTarget::new(url, ServiceSettings::parse(&args.rag.set)?)?;
        Ok(Self::Service(Arc::new(service)))
    }

    /// What of a foreign program's run is repeated when nothing else is said.
    fn operations(&self) -> Operations {
        match self {
            Self::Service(service) if !service.is_own_route() => Operations::Calls,
            Self::Service(_) | Self::Program { .. } => Operations::Requests,
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Service(service) => service.name(),
            Self::Program { command, .. } => command,
        }
    }

    /// The settings as far as they are known before anything runs.
    fn settings(&self) -> BTreeMap<String, Json> {
        match self {
            Self::Service(service) => service.settings(),
            Self::Program { settings, .. } => settings.clone(),
        }
    }
}

/// A replay that is ready to run.
pub(crate) struct Prepared {
    args: ReplayArgs,
    workload: Arc<Workload>,
    /// Digest of the whole workload, of which a resumed replay does a part.
    digest: Digest,
    resumed: Option<Resumed>,
    arrival: Arrival,
    target: Outside,
    /// What the replay keeps when nothing else is said: what its source kept.
    capture: Option<Capture>,
}

pub(super) async fn run(
    context: &Context,
    args: &ReplayArgs,
    is_plan: bool,
) -> Result<Code, Failure> {
    let store = context.store_for_writing()?;
    let prepared = Prepared::new(context, &store, args)?;
    let format = context.format_or(Format::Table);
    if is_plan {
        return prepared.show_plan(context, format);
    }
    let cancel = cancel_on_signal()?;
    let group = (args.repeat > 1).then(|| RunId::generate(unix_ns()).to_string());
    let mut code = Code::Ok;
    for number in 1..=args.repeat {
        let lane = (group.as_deref(), number);
        let ran = prepared.execute(context, &store, lane, cancel.clone()).await?;
        prepared.show(context, &ran, format)?;
        if code == Code::Ok {
            code = ran.recorded.code(code_of(&ran.report, cancel.is_cancelled()));
        }
        if cancel.is_cancelled() {
            break;
        }
    }
    if let Some(source) = &prepared.workload.source_run {
        context.say(&format!("next: retake diff {source} last"));
    }
    Ok(code)
}

impl Prepared {
    pub(crate) fn new(
        context: &Context,
        store: &Store,
        args: &ReplayArgs,
    ) -> Result<Self, Failure> {
        // First what can be wrong without looking at anything.
        let target = Outside::of(args)?;
        let operations = args.operations.map_or_else(|| target.operations(), Operations::from);
        let is_file = workload::is_file(Path::new(&args.source));
        let (whole, capture) = if is_file {
            (Workload::read(Path::new(&args.source))?, None)
        } else {
            let run_id = context.select(store, &args.source)?;
            let kept = RunReader::open(store, &run_id)?.manifest().facts.capture;
            (Workload::cut(store, &run_id, operations)?, Some(kept))
        };
        let whole = if args.kind.is_empty() { whole } else { whole.only(&args.kind)? };
        let (workload, arrival) = arranged(whole, args);
        let digest = workload.digest();
        let (workload, resumed) = match &args.resume {
            None => (workload, None),
            Some(selector) => {
                let (rest, resumed) = resume::rest(context, store, workload, selector)?;
                if let Outside::Service(service) = &target {
                    refuse_others(&resumed, &service.settings())?;
                }
                (rest, Some(resumed))
            }
        };
        let (args, workload) = (args.clone(), Arc::new(workload));
        Ok(Self { args, workload, digest, resumed, arrival, target, capture })
    }

    /// The same workload with other settings of the target.
    pub(crate) fn with(&self, rag: RagArgs) -> Result<Self, Failure> {
        let args = ReplayArgs { rag, ..self.args.clone() };
        Ok(Self {
            target: Outside::of(&args)?,
            args,
            workload: Arc::clone(&self.workload),
            resumed: self.resumed.clone(),
            digest: self.digest,
            arrival: self.arrival,
            capture: self.capture,
        })
    }

    /// The target's settings as far as they are known before anything runs.
    pub(crate) fn settings(&self) -> BTreeMap<String, Json> {
        self.target.settings()
    }

    /// The run it replays; `None` for a workload out of a file.
    pub(crate) fn source(&self) -> Option<&RunId> {
        self.workload.source_run.as_ref()
    }

    /// What the recorded tokens cost at the prices of the models asked; `None` when one has none.
    fn cost_usd(&self, prices: &Prices) -> Option<f64> {
        let settings = self.target.settings();
        let model = settings.get("model").and_then(Json::as_str);
        let whole = |tokens: Option<u64>| i64::try_from(tokens.unwrap_or(0)).unwrap_or(i64::MAX);
        let of = |operation: &Operation| {
            let shape = &operation.shape;
            let price = prices.of(model.or(shape.model.as_deref())?)?;
            let (input, output) = (whole(shape.tokens_in), whole(shape.tokens_out));
            Some(price.cost_usd(PricedTokens { input, output, ..PricedTokens::default() }))
        };
        self.workload.operations.iter().map(of).sum()
    }

    fn show_plan(&self, context: &Context, format: Format) -> Result<Code, Failure> {
        let cost_usd = self.cost_usd(&context.config.settings.prices);
        let stats = self.workload.stats();
        let without_input = stats.operations - stats.with_input;
        let target = self.target.name();
        let kinds: Vec<_> =
            stats.kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        if format == Format::Json {
            print_json(&serde_json::json!({
                "schema_version": 1,
                "replay_of": self.workload.source_run,
                "target": target,
                "operations": stats.kinds,
                "settings": self.target.settings(),
                "arrival": self.arrival,
                "expected_calls": stats.operations,
                "expected_input_tokens": stats.tokens_in.sum,
                "expected_output_tokens": stats.tokens_out.sum,
                "expected_cost_usd": cost_usd,
                "synthesised_prompts": without_input,
                "refusal": null,
            }))?;
        } else {
            let cost = cost_usd.map_or_else(
                || "no price is known ([prices] in retake.toml)".to_owned(),
                |usd| format!("${usd:.4} by [prices]"),
            );
            print(&format!(
                "{} for {target}, {} tokens in and {} out as recorded, over {:.1} s; {cost}; \
                 {without_input} prompts are made up to the recorded length\n",
                kinds.join(", "),
                stats.tokens_in.sum,
                stats.tokens_out.sum,
                self.workload.span_ns() as f64 / 1e9
            ))?;
        }
        Ok(Code::Ok)
    }

    /// Replays once. `lane` is what the repeats share, and which of them this is.
    pub(crate) async fn execute(
        &self,
        context: &Context,
        store: &Store,
        lane: (Option<&str>, u16),
        cancel: CancellationToken,
    ) -> Result<Ran, Failure> {
        let (program, target): (_, Arc<dyn Target>) = match &self.target {
            Outside::Service(service) => (None, Arc::clone(service) as Arc<dyn Target>),
            Outside::Program { command, settings } => {
                let program = Program::start(context, command, settings, &cancel).await?;
                let target = program.target();
                (Some(program), target)
            }
        };
        if let Some(resumed) = &self.resumed {
            refuse_others(resumed, &target.settings())?;
        }
        let builder = self.builder(context, target.settings(), lane)?;
        let recording = Recording::start(context, builder, store, &cancel)?;
        let run_id = recording.run_id().clone();
        if let Some(program) = &program {
            program.record_into(recording.dispatcher());
        }
        let outcome = self.drive(context, &target, cancel.clone()).await;
        if let Some(program) = program {
            program.stop(context).await;
        }
        let was_cut_short = cancel.is_cancelled() || outcome.is_err();
        let status = if was_cut_short { RunStatus::Interrupted } else { RunStatus::Finished };
        let recorded = recording.finish(context, status).await;
        let report = recorded.outcome(outcome)?;
        Ok(Ran { run_id, report, recorded })
    }

    fn show(&self, context: &Context, ran: &Ran, format: Format) -> Result<(), Failure> {
        let Ran { run_id, report, .. } = ran;
        match format {
            Format::Json => {
                let to = |(name, to): (String, Json)| {
                    (name, serde_json::json!({ "from": null, "to": to }))
                };
                let changes = pairs(&self.args.rag.set)?.into_iter().map(to).collect();
                let source = self.workload.source_run.as_ref();
                let mut json = report_json(report, run_id, source, changes);
                if let Some(json) = json.as_object_mut() {
                    let done = self.resumed.as_ref().map_or(0, |resumed| resumed.done);
                    json.insert("done_before".to_owned(), done.into());
                }
                print_json(&json)?;
            }
            _ => print(&render::replay_outcome(report))?,
        }
        for (index, message) in &report.failures {
            context.warn(&format!("operation {index}: {message}"));
        }
        context.say(&format!("recorded as run {run_id}"));
        Ok(())
    }

    fn builder(
        &self,
        context: &Context,
        in_force: BTreeMap<String, Json>,
        (group, number): (Option<&str>, u16),
    ) -> Result<RecorderBuilder, Failure> {
        let rag = &self.args.rag;
        let mut name = rag.run.clone().unwrap_or_else(|| format!("replay of {}", self.args.source));
        let mut labels = rag::labels(&rag.label)?;
        if let Some(group) = group {
            name = format!("{name} #{number}");
            labels.insert(REPEAT_LABEL.to_owned(), group.to_owned());
        }
        if let Some(resumed) = &self.resumed {
            labels.insert(convention::RESUMES_LABEL.to_owned(), resumed.run_id.to_string());
        }
        let settings = &context.config.settings.record;
        let record = RecordSettings { capture: self.capture(settings), ..settings.clone() };
        let builder = RecorderBuilder::new(name, "retake-replay")
            .service_version(env!("CARGO_PKG_VERSION"))
            .record_settings(record)
            .settings(in_force)
            .seed(self.args.seed)
            .labels(labels);
        Ok(match &self.workload.source_run {
            Some(source) => builder.replay_of(source.clone(), self.digest),
            None => builder,
        })
    }

    /// What the replay keeps.
    fn capture(&self, settings: &RecordSettings) -> Capture {
        let kept = self.capture.filter(|kept| *kept == Capture::Full);
        self.args.rag.capture.or(kept).unwrap_or(settings.capture)
    }

    async fn drive(
        &self,
        context: &Context,
        target: &Arc<dyn Target>,
        cancellation: CancellationToken,
    ) -> Result<ReplayReport, Failure> {
        let options = ReplayOptions { arrival: self.arrival, cassette: None, cancellation };
        let progress = Progress::new(context.quiet, "replay", "operations");
        progress.length(self.workload.operations.len() as u64);
        let replayed = replay(&self.workload, target, &options, &|n| progress.position(n)).await;
        progress.finish();
        Ok(replayed?)
    }
}

/// A resumed replay goes on with what the other asked for, which is said again and not taken from a
/// trace.
fn refuse_others(resumed: &Resumed, settings: &BTreeMap<String, Json>) -> Result<(), Failure> {
    if resumed.settings == *settings {
        return Ok(());
    }
    let message = format!("resume replay {}: it had other settings", resumed.run_id);
    Err(Failure::new(Code::Usage, message).help("give it the --set and target that it had"))
}
