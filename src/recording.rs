//! Recording what this process does: one global subscriber, one run after the other.

use std::sync::OnceLock;

use retake_recorder::handlers::progress::follow;
use retake_recorder::handlers::tokens::{TokenUsage, count_tokens};
use retake_recorder::recorder::RunSummary;
use retake_recorder::remote::{Remote, redact};
use retake_recorder::sampler::{Sampler, SamplerSettings};
use retake_recorder::{Dispatcher, Recorder, RecorderBuilder, RecorderLayer, Store};
use retake_schemas::RunId;
use retake_schemas::event::RunStatus;
use retake_schemas::settings::{BudgetSettings, OnExceeded};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::progress::{self, Live, Progress};

static LAYER: OnceLock<RecorderLayer> = OnceLock::new();

/// The layer of the global subscriber. Only the pipeline is recorded: spans of its libraries
/// would be noise in a breakdown. With `-v` its log lines also appear on stderr, with `-vv` those
/// of its libraries.
fn layer(verbose: u8) -> &'static RecorderLayer {
    LAYER.get_or_init(|| {
        let layer = RecorderLayer::default();
        let level = tracing::Level::INFO;
        // `retake` also covers `retake::token` and the other marked targets.
        let ours =
            Targets::new().with_target("retake_pipeline", level).with_target("retake", level);
        let shown = match verbose {
            0 => Targets::new(),
            1 => Targets::new().with_target("retake_pipeline", tracing::Level::DEBUG),
            _ => Targets::new()
                .with_default(tracing::Level::DEBUG)
                .with_target("retake", LevelFilter::OFF),
        };
        let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_filter(shown);
        let _ = tracing_subscriber::registry()
            .with(layer.clone().with_filter(ours))
            .with((verbose > 0).then_some(log))
            .try_init();
        layer
    })
}

/// A run of this process, and what listens to it.
#[derive(Debug)]
pub(crate) struct Recording {
    /// Ends before the run does, so that its last samples are in it.
    sampler: Option<Sampler>,
    tokens: Option<TokenUsage>,
    live: Option<Live>,
    recorder: Recorder,
    store: Store,
}

/// A run that has ended.
#[derive(Debug)]
pub(crate) struct Recorded {
    pub(crate) summary: RunSummary,
    /// The first budget that was crossed and is an error, in words.
    over_budget: Option<String>,
}

impl Recording {
    /// Starts a run and directs the pipeline's spans into it. A crossed budget that is an error
    /// cancels `cancel`: work under way ends as after Ctrl-C.
    pub(crate) fn start(
        context: &Context,
        builder: RecorderBuilder,
        store: &Store,
        cancel: &CancellationToken,
    ) -> Result<Self, Failure> {
        let recorder = builder.start(store)?;
        let dispatcher = recorder.dispatcher();
        let settings = &context.config.settings.record;
        let budget = settings.budget.as_ref();
        let tokens = budget.map(|budget| watch(dispatcher, budget, cancel)).transpose()?;
        // A run without samples, or without a picture of it, is still a run.
        let sampler = Sampler::start(dispatcher.clone(), SamplerSettings::from(settings));
        let sampler = sampler
            .inspect_err(|error| context.warn(&format!("no resource samples: {error}")))
            .ok();
        let live = if progress::is_shown(context.quiet) {
            let stats = follow(dispatcher).ok();
            stats.map(|stats| Live { stats, dispatcher: dispatcher.clone() })
        } else {
            None
        };
        layer(context.verbose).attach(Some(dispatcher));
        Ok(Self { sampler, tokens, live, recorder, store: store.clone() })
    }

    pub(crate) fn run_id(&self) -> &RunId {
        self.recorder.run_id()
    }

    /// Where others record into this run too.
    pub(crate) fn dispatcher(&self) -> &Dispatcher {
        self.recorder.dispatcher()
    }

    /// What the run is doing, if anyone is there to see it.
    pub(crate) fn live(&self) -> Option<&Live> {
        self.live.as_ref()
    }

    /// Ends the run, warns of everything that is not in it and of budgets it crossed, and copies
    /// it to where the settings want every run.
    pub(crate) async fn finish(self, context: &Context, status: RunStatus) -> Recorded {
        layer(context.verbose).attach(None);
        drop(self.sampler);
        let summary = self.recorder.finish(status);
        warn_of_losses(context, &summary);
        if summary.unsealed.is_none()
            && let Some(url) = &context.config.settings.record.upload
        {
            upload(context, &self.store, &summary.run_id, url).await;
        }
        let over_budget = self.tokens.and_then(|tokens| over_budget(context, &tokens, &summary));
        Recorded { summary, over_budget }
    }
}

impl Recorded {
    /// What the verb came to: an error that follows from a crossed budget is told as that.
    pub(crate) fn outcome<T, E: Into<Failure>>(&self, outcome: Result<T, E>) -> Result<T, Failure> {
        outcome.map_err(|error| match &self.over_budget {
            Some(violation) => {
                Failure::new(Code::OverBudget, format!("stay within the token budget: {violation}"))
                    .help("`retake breakdown last --by model` shows who used them; [record.budget] in retake.toml sets the limits")
            }
            None => error.into(),
        })
    }

    /// The exit code: that of a crossed budget, else `otherwise`.
    pub(crate) fn code(&self, otherwise: Code) -> Code {
        if self.over_budget.is_some() { Code::OverBudget } else { otherwise }
    }
}

fn watch(
    dispatcher: &Dispatcher,
    budget: &BudgetSettings,
    cancel: &CancellationToken,
) -> Result<TokenUsage, Failure> {
    let cancel = cancel.clone();
    count_tokens(dispatcher, budget.budgets(), move |violation| {
        if violation.budget.on_exceeded == OnExceeded::Error {
            cancel.cancel();
        }
    })
    .map_err(|error| Failure::new(Code::Environment, format!("watch the token budget: {error}")))
}

/// Warns of everything that is not in a run.
pub(crate) fn warn_of_losses(context: &Context, summary: &RunSummary) {
    if summary.dropped > 0 {
        context.warn(&format!(
            "{} of {} events were dropped; `retake sql \"select * from measures where name = 'retake.dropped'\"` says why",
            summary.dropped, summary.offered
        ));
    }
    if let Some(reason) = &summary.unsealed {
        context.warn(&format!(
            "run {} could not be sealed: {reason}; its events are in the journal, the next command recovers them",
            summary.run_id
        ));
    }
}

/// Warns of crossed budgets, and of what escaped the count; gives the first that is an error.
fn over_budget(context: &Context, tokens: &TokenUsage, summary: &RunSummary) -> Option<String> {
    let totals = tokens.snapshot();
    for violation in &totals.violations {
        context.warn(&format!("token budget crossed: {violation}"));
    }
    let lagged: u64 =
        summary.handlers.iter().filter(|h| h.name == "tokens").map(|h| h.lagged).sum();
    let uncounted = totals.untracked.spans + totals.untracked.statements + lagged;
    if uncounted > 0 {
        context.warn(&format!(
            "the token budget did not see {uncounted} events; `retake breakdown last` has all tokens"
        ));
    }
    let error = totals.violations.iter().find(|v| v.budget.on_exceeded == OnExceeded::Error);
    error.map(ToString::to_string)
}

/// Copies a run elsewhere. A place that cannot be reached is no failure of the recording.
async fn upload(context: &Context, store: &Store, run_id: &RunId, url: &str) {
    let progress = Progress::new(context.quiet, "upload", "bytes");
    let pushed = match Remote::create(url) {
        Ok(remote) => remote.push(store, run_id, &|step| progress.transfer(step)).await,
        Err(error) => Err(error),
    };
    progress.finish();
    match pushed {
        Ok(_) => context.say(&format!("pushed run {run_id} to {}", redact(url))),
        Err(error) => context.warn(&format!(
            "run {run_id} is only in this store: failed to {error}; `retake push {run_id}` tries again"
        )),
    }
}

/// A token that the first Ctrl-C (or SIGTERM) cancels; the second ends the process at once.
pub(crate) fn cancel_on_signal() -> Result<CancellationToken, Failure> {
    let token = CancellationToken::new();
    // Both from here on: a signal that comes before the task below runs must not be missed.
    let [mut interrupted, mut terminated] = [
        signal(SignalKind::interrupt()).map_err(unhandled)?,
        signal(SignalKind::terminate()).map_err(unhandled)?,
    ];
    let cancel = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
        }
        eprintln!("ending; everything recorded so far is kept (once more to end at once)");
        cancel.cancel();
        tokio::select! {
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
        }
        // The journal survives the death of the process; the next command recovers the run.
        std::process::exit(Code::Interrupted as i32);
    });
    Ok(token)
}

fn unhandled(error: std::io::Error) -> Failure {
    Failure::new(Code::Environment, format!("handle signals: {error}"))
}
