//! A service that answers questions, recorded by the `tracing` layer.
//!
//! ```text
//! cargo run --example service -- STORE
//! retake --store STORE report last
//! ```
//!
//! The spans below are what instrumented clients make; the names are those of OpenTelemetry's GenAI
//! conventions. The service knows nothing of retake but the three lines that start and end it.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use retake_recorder::{RecorderBuilder, Store};
use retake_schemas::event::{Capture, RunStatus};
use retake_schemas::settings::RecordSettings;
use tracing::{Instrument as _, field, info, info_span};
use tracing_subscriber::layer::SubscriberExt as _;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args_os().nth(1).map_or_else(|| PathBuf::from(".retake"), PathBuf::from);

    let store = Store::create(&folder)?;
    // By default only digests of texts are kept; a replay needs the texts.
    let settings = RecordSettings { capture: Capture::Full, ..RecordSettings::default() };
    let recorder =
        RecorderBuilder::new("example", "support-bot").record_settings(settings).start(&store)?;
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(recorder.layer()))?;

    // Requests come on top of each other, as they do.
    let questions = ["Where is my parcel?", "How do I return it?", "Do you ship to Fair Isle?"];
    let asked = questions.iter().enumerate().map(|(number, question)| {
        // `retake.operation` and `input.value`, which is JSON, make the request replayable.
        let root = info_span!(
            "answer",
            "openinference.span.kind" = "CHAIN",
            "retake.operation" = "question",
            "retake.request_id" = format!("r-{number}"),
            "input.value" = serde_json::Value::from(*question).to_string(),
            "output.value" = field::Empty,
        );
        answer(question).instrument(root)
    });
    futures::future::join_all(asked).await;

    // What was offered was accepted or dropped, and how much of each is said.
    let summary = recorder.finish(RunStatus::Finished);
    println!("{} with {} spans, {} events dropped", summary.run_id, summary.spans, summary.dropped);
    Ok(())
}

async fn answer(question: &str) {
    let passages = search(question).await;
    let text = complete(question, &passages).await;
    tracing::Span::current().record("output.value", text);
}

async fn search(question: &str) -> Vec<&'static str> {
    let span = info_span!(
        "search",
        "gen_ai.operation.name" = "retrieval",
        "gen_ai.request.top_k" = 2,
        "input.value" = question,
    );
    async {
        tokio::time::sleep(Duration::from_millis(12)).await;
        let found = [("returns.md#2", 0.81), ("shipping.md#1", 0.64)];
        for (rank, (id, score)) in found.iter().enumerate() {
            info!(target: "retake::document", role = "retrieved", rank, id, score);
        }
        found.map(|(id, _)| id).to_vec()
    }
    .instrument(span)
    .await
}

async fn complete(question: &str, passages: &[&str]) -> String {
    let span = info_span!(
        "chat",
        "gen_ai.operation.name" = "chat",
        "gen_ai.request.model" = "small-1",
        "gen_ai.request.stream" = true,
        "gen_ai.response.model" = "small-1",
    );
    async {
        // A stream: a token event for each arrival, and the provider's own count at its end.
        let words = ["Fourteen ", "days, ", "free ", "of ", "charge."];
        for (index, _) in words.iter().enumerate() {
            tokio::time::sleep(Duration::from_millis(6)).await;
            info!(target: "retake::token", index, count = 1);
        }
        let input = question.len() / 4 + 120 * passages.len();
        info!(target: "retake::usage", source = "provider", input, output = words.len());
        words.concat()
    }
    .instrument(span)
    .await
}
