//! A replay target of one's own: requests that a run recorded, executed again by this program.
//!
//! ```text
//! cargo run --example service -- STORE
//! cargo run --example target -- STORE
//! retake --store STORE diff last~1 last
//! ```
//!
//! `retake replay run` replays the built-in pipeline and services with OpenAI's interface; anything
//! else is a [`Target`]: it says what its settings are, and executes one operation.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use retake_recorder::{RecorderBuilder, Store};
use retake_replay::arrival::Arrival;
use retake_replay::engine::{ReplayOptions, replay};
use retake_replay::target::{Operation, OperationContext, Target, TargetError};
use retake_replay::workload::{Operations, Workload};
use retake_schemas::event::RunStatus;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, field, info_span};
use tracing_subscriber::layer::SubscriberExt as _;

/// The same service with another search: what is to be found out.
struct FasterSearch {
    search: Duration,
}

#[async_trait]
impl Target for FasterSearch {
    fn name(&self) -> &str {
        "support-bot"
    }

    fn settings(&self) -> BTreeMap<String, serde_json::Value> {
        BTreeMap::from([("search_ms".to_owned(), (self.search.as_millis() as u64).into())])
    }

    async fn execute(
        &self,
        operation: &Operation,
        context: &OperationContext,
    ) -> Result<(), TargetError> {
        if operation.kind != "question" || !operation.input.is_string() {
            return Err(TargetError::Refused(format!("{} is no question", operation.kind)));
        }
        // These fields link the operation to the one it repeats, so that `diff` compares in pairs.
        let source = operation.source.as_ref();
        let root = info_span!(
            "answer",
            "openinference.span.kind" = "CHAIN",
            "retake.operation" = operation.kind,
            "input.value" = operation.input.to_string(),
            "retake.due_unix_ns" = context.due_unix_ns,
            "retake.source.run_id" = source.map(|link| field::display(&link.run_id)),
            "retake.source.trace_id" = source.map(|link| field::display(&link.trace_id)),
            "retake.source.span_id" = source.map(|link| field::display(&link.span_id)),
        );
        async {
            let search = info_span!("search", "gen_ai.operation.name" = "retrieval");
            tokio::time::sleep(self.search).instrument(search).await;
            let chat = info_span!(
                "chat",
                "gen_ai.operation.name" = "chat",
                "gen_ai.request.model" = "small-1",
            );
            tokio::time::sleep(Duration::from_millis(30)).instrument(chat).await;
        }
        .instrument(root)
        .await;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args_os().nth(1).map_or_else(|| PathBuf::from(".retake"), PathBuf::from);
    let store = Store::open(&folder)?;
    let source = store.select("example")?;
    let workload = Arc::new(Workload::cut(&store, &source, Operations::default())?);
    let target: Arc<dyn Target> = Arc::new(FasterSearch { search: Duration::from_millis(4) });

    let recorder = RecorderBuilder::new("faster search", target.name())
        .settings(target.settings())
        .replay_of(source, workload.digest())
        .start(&store)?;
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(recorder.layer()))?;
    let options = ReplayOptions {
        arrival: Arrival::Closed { concurrency: 2 },
        cassette: None,
        cancellation: CancellationToken::new(),
    };
    let report = replay(&workload, &target, &options, &|_| {}).await?;
    let summary = recorder.finish(RunStatus::Finished);
    println!(
        "{}: {} planned = {} ok + {} failed",
        summary.run_id, report.planned, report.ok, report.error
    );
    Ok(())
}
