//! The service on a port, recorded until Ctrl-C.
//!
//! ```text
//! cargo run --manifest-path examples/axum/Cargo.toml -- STORE
//! curl -H 'content-type: application/json' -d '{"question": "How do I return it?"}' http://127.0.0.1:3000/ask
//! retake --store STORE report last
//! ```

use std::error::Error;
use std::path::PathBuf;

use retake_recorder::{RecorderBuilder, Store};
use retake_schemas::event::RunStatus;
use tokio::net::TcpListener;
use tracing_subscriber::layer::SubscriberExt as _;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args_os().nth(1).map_or_else(|| PathBuf::from(".retake"), PathBuf::from);
    let store = Store::create(&folder)?;
    let recorder = RecorderBuilder::new("axum", "support-bot").start(&store)?;
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(recorder.layer()))?;

    let listener = TcpListener::bind(("127.0.0.1", 3000)).await?;
    println!("asks at http://{}/ask; Ctrl-C ends", listener.local_addr()?);
    let ended = async {
        // Without a handler for Ctrl-C, the run is ended by the next retake that opens the store.
        let _ = tokio::signal::ctrl_c().await;
    };
    axum::serve(listener, retake_axum::app()).with_graceful_shutdown(ended).await?;

    let summary = recorder.finish(RunStatus::Finished);
    println!("{} with {} spans, {} events dropped", summary.run_id, summary.spans, summary.dropped);
    Ok(())
}
