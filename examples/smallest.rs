//! The smallest service that records itself, as README shows it.
//!
//! ```text
//! cargo run --example smallest
//! retake report last
//! ```

use retake_recorder::{RecorderBuilder, Store};
use retake_schemas::event::RunStatus;
use tracing_subscriber::prelude::*;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = Store::create(".retake".as_ref())?;
    let recorder = RecorderBuilder::new("production", "my-service").start(&store)?;
    tracing_subscriber::registry().with(recorder.layer()).init();

    answer("How do I return a parcel?"); // your service

    let summary = recorder.finish(RunStatus::Finished); // offered = accepted + dropped, exactly
    println!("{}: {} spans, {} dropped", summary.run_id, summary.spans, summary.dropped);
    Ok(())
}

#[tracing::instrument]
fn answer(question: &str) {
    // Spans with gen_ai.* fields become rows of models, embeddings and retrieval.
    let call = tracing::info_span!(
        "chat",
        "gen_ai.operation.name" = "chat",
        "gen_ai.request.model" = "small-1",
    );
    let _in_call = call.enter();
    tracing::info!(target: "retake::usage", source = "provider", input = 240, output = 12);
}
