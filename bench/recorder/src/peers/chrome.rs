//! tracing-chrome: begin and end events as JSON for Chrome's viewer, with fields.
//!
//! Its queue has no bound, so it loses nothing and may hold anything.

use std::path::PathBuf;
use std::time::Duration;

use tracing_chrome::{ChromeLayerBuilder, FlushGuard};
use tracing_subscriber::layer::SubscriberExt;

use super::count_lines;
use crate::error::BenchError;
use crate::tracer::{Kept, Setup, Tracer, set_global};

/// Installs it; it writes a file in every setup.
///
/// # Errors
/// There is a subscriber already.
pub(crate) fn install(setup: &Setup<'_>) -> Result<Box<dyn Tracer>, BenchError> {
    let path = setup.folder.join("chrome.json");
    let (layer, guard) = ChromeLayerBuilder::new().file(&path).include_args(true).build();
    set_global("tracing-chrome", tracing_subscriber::registry().with(layer))?;
    Ok(Box::new(Chrome { path, guard }))
}

struct Chrome {
    path: PathBuf,
    guard: FlushGuard,
}

impl Tracer for Chrome {
    fn settle(&mut self) -> Result<(), BenchError> {
        // It offers no way to wait until the queue is empty.
        std::thread::sleep(SETTLE);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Kept, BenchError> {
        drop(self.guard);
        let (spans, bytes) = count_lines(&self.path, "\"ph\":\"E\"")?;
        Ok(Kept { spans: Some(spans), bytes: Some(bytes), dropped: None })
    }
}

/// Long enough to write the 20,000 spans of a sample.
const SETTLE: Duration = Duration::from_millis(30);
