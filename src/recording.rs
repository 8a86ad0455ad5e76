//! Recording what this process does: one global subscriber, one run after the other.

use std::sync::OnceLock;

use retake_recorder::recorder::RunSummary;
use retake_recorder::remote::{Remote, redact};
use retake_recorder::{Recorder, RecorderBuilder, RecorderLayer, Store};
use retake_schemas::RunId;
use retake_schemas::event::RunStatus;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::progress::Progress;

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

/// A run of this process.
#[derive(Debug)]
pub(crate) struct Recording {
    recorder: Recorder,
    store: Store,
}

impl Recording {
    /// Starts a run and directs the pipeline's spans into it.
    pub(crate) fn start(
        context: &Context,
        builder: RecorderBuilder,
        store: &Store,
    ) -> Result<Self, Failure> {
        let recorder = builder.start(store)?;
        layer(context.verbose).attach(Some(recorder.dispatcher().clone()));
        Ok(Self { recorder, store: store.clone() })
    }

    pub(crate) fn run_id(&self) -> &RunId {
        self.recorder.run_id()
    }

    /// Ends the run, warns of everything that is not in it, and copies it to where the settings
    /// want every run.
    pub(crate) async fn finish(self, context: &Context, status: RunStatus) -> RunSummary {
        layer(context.verbose).attach(None);
        let summary = self.recorder.finish(status);
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
        } else if let Some(url) = &context.config.settings.record.upload {
            upload(context, &self.store, &summary.run_id, url).await;
        }
        summary
    }
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
    let terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
    let mut terminated = terminated
        .map_err(|error| Failure::new(Code::Environment, format!("handle signals: {error}")))?;
    let cancel = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminated.recv() => {}
        }
        eprintln!("ending; everything recorded so far is kept (once more to end at once)");
        cancel.cancel();
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminated.recv() => {}
        }
        // The journal survives the death of the process; the next command recovers the run.
        std::process::exit(Code::Interrupted as i32);
    });
    Ok(token)
}
