//! `tracing_subscriber::fmt` in JSON through tracing-appender: what most services run.
//!
//! It formats on the caller's thread; the appender's queue is bounded and drops when full, as it
//! does by default.

use std::fs::File;
use std::path::PathBuf;

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, WorkerGuard};
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt;

use super::count_lines;
use crate::error::BenchError;
use crate::tracer::{Kept, Setup, Sink, Tracer, set_global};

/// Installs it with a line at the close of every span.
///
/// # Errors
/// Its file cannot be made, or there is a subscriber already.
pub(crate) fn install(setup: &Setup<'_>) -> Result<Box<dyn Tracer>, BenchError> {
    let (writer, guard, path) = match setup.sink {
        Sink::Least => {
            let (writer, guard) = NonBlocking::new(std::io::sink());
            (writer, guard, None)
        }
        Sink::File => {
            let path = setup.folder.join("spans.jsonl");
            let file = File::create(&path).map_err(BenchError::io("create", &path))?;
            let (writer, guard) = NonBlocking::new(file);
            (writer, guard, Some(path))
        }
    };
    let errors = writer.error_counter();
    let layer = tracing_subscriber::fmt::layer()
        .json()
        .with_writer(writer)
        .with_span_events(FmtSpan::CLOSE);
    set_global("fmt JSON", tracing_subscriber::registry().with(layer))?;
    Ok(Box::new(FmtJson { path, guard, errors }))
}

struct FmtJson {
    path: Option<PathBuf>,
    guard: WorkerGuard,
    errors: ErrorCounter,
}

impl Tracer for FmtJson {
    fn finish(self: Box<Self>) -> Result<Kept, BenchError> {
        drop(self.guard);
        let dropped = u64::try_from(self.errors.dropped_lines()).ok();
        let Some(path) = self.path else { return Ok(Kept { dropped, ..Kept::default() }) };
        let (spans, bytes) = count_lines(&path, "\"message\":\"close\"")?;
        Ok(Kept { spans: Some(spans), bytes: Some(bytes), dropped })
    }
}
