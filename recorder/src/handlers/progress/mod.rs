//! What a live line shows of a run: spans a second, tokens, errors, losses, the slowest stages.
//!
//! [`LiveStats`] is updated off the hot path, batch by batch; whoever draws reads it as often as
//! it likes. Nothing here draws.
//!
//! These are figures for the eye, right enough to see where a run is and what holds it up. The
//! breakdown of the finished run is exact; they differ where a run is not yet told to its end:
//! the stages cover the last [`WINDOW_SECS`] seconds and at most [`STAGE_SAMPLES_MAX`] spans each,
//! and only spans without children, so that a request is not named as its own slowest stage.
//! Losses are known once a `Gap` states them.

mod window;

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use retake_schemas::event::{Annotated, EventKind, Level, SpanClosed, SpanOpened, Status};
use retake_schemas::mapping::BUILT_IN;
use retake_schemas::tables::SpanRow;
use retake_schemas::{Attributes, Event, EventBody, SpanKey, Value, convention};

use super::open::OpenSpans;
use super::tokens::{Call, Calls, OPEN_SPANS_MAX};
use crate::dispatcher::{Dispatcher, Handler, Interest};
use window::Window;
pub use window::{STAGE_SAMPLES_MAX, STAGES_MAX, StageLatency, WINDOW_SECS};

/// Follows the run of `dispatcher` from now on.
///
/// # Errors
/// The system cannot start a thread.
pub fn follow(dispatcher: &Dispatcher) -> io::Result<LiveStats> {
    let (handler, stats) = LiveHandler::new();
    dispatcher.subscribe(LiveHandler::interest(), handler)?;
    Ok(stats)
}

/// Reads the live figures. Cheap to clone; any thread may use it.
#[derive(Debug, Clone)]
pub struct LiveStats {
    window: Arc<Mutex<Window>>,
}

impl LiveStats {
    /// The figures at `now_unix_ns` on the run's clock ([`Dispatcher::now_unix_ns`]).
    #[must_use]
    pub fn snapshot(&self, now_unix_ns: i64) -> LiveSnapshot {
        self.window.lock().snapshot(now_unix_ns)
    }
}

/// The live figures at one moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LiveSnapshot {
    /// Spans that have ended.
    pub spans: u64,
    /// Spans that ended lately, by time.
    pub spans_per_s: f64,
    /// Spans that are open.
    pub open_spans: u64,
    /// Input tokens of calls that have ended, whoever counted.
    pub input_tokens: u64,
    /// Output tokens of calls that have ended, whoever counted.
    pub output_tokens: u64,
    /// Failures: spans that failed, without those that only passed a failure on.
    pub errors: u64,
    /// Events lost.
    pub dropped: u64,
    /// Latencies of the stages lately, slowest (by p95) first.
    pub stages: Vec<StageLatency>,
}

/// Keeps [`LiveStats`] up to date.
#[derive(Debug)]
pub struct LiveHandler {
    open: OpenSpans<OpenStage>,
    calls: Calls,
    ended: Vec<Call>,
    window: Arc<Mutex<Window>>,
}

/// A span that is open.
#[derive(Debug)]
struct OpenStage {
    start_unix_ns: i64,
    parent: Option<SpanKey>,
    name: String,
    /// Attributes that name its stage or say how it ended.
    attributes: Attributes,
    has_logged_error: bool,
    has_children: bool,
    has_failed_child: bool,
}

impl LiveHandler {
    /// A handler, and the figures it keeps.
    #[must_use]
    pub fn new() -> (Self, LiveStats) {
        let window = Arc::new(Mutex::new(Window::default()));
        let handler = Self {
            open: OpenSpans::new(OPEN_SPANS_MAX),
            calls: Calls::new(OPEN_SPANS_MAX),
            ended: Vec::new(),
            window: Arc::clone(&window),
        };
        (handler, LiveStats { window })
    }

    /// The events it needs.
    #[must_use]
    pub fn interest() -> Interest {
        Interest::all().kinds([
            EventKind::SpanOpened,
            EventKind::SpanUpdated,
            EventKind::SpanClosed,
            EventKind::Usage,
            EventKind::Annotated,
            EventKind::Gap,
        ])
    }

    fn opened(&mut self, time_unix_ns: i64, opened: &SpanOpened) {
        let trace_id = opened.span.trace_id;
        let parent = opened.parent.map(|span_id| SpanKey { trace_id, span_id });
        if let Some(parent) = parent.and_then(|key| self.open.get_mut(key)) {
            parent.has_children = true;
        }
        let mut span = OpenStage {
            start_unix_ns: time_unix_ns,
            parent,
            name: opened.name.clone(),
            attributes: Vec::new(),
            has_logged_error: false,
            has_children: false,
            has_failed_child: false,
        };
        span.keep(&opened.attributes);
        // One that is given up for another is missing from the figures; that is all.
        let _ = self.open.insert(opened.span, span);
    }

    fn closed(&mut self, time_unix_ns: i64, closed: &SpanClosed, window: &mut Window) {
        window.span_ended(time_unix_ns);
        let Some(span) = self.open.remove(closed.span) else { return };
        if span.has_failed(closed.status) {
            if !span.has_failed_child {
                window.errors += 1;
            }
            if let Some(parent) = span.parent.and_then(|key| self.open.get_mut(key)) {
                parent.has_failed_child = true;
            }
        }
        if !span.has_children {
            let duration_ns = time_unix_ns.saturating_sub(span.start_unix_ns).max(0);
            window.stage_ended(time_unix_ns, span.stage(), duration_ns);
        }
    }
}

impl Handler for LiveHandler {
    fn name(&self) -> &str {
        "progress"
    }

    fn handle(&mut self, events: &[Event]) -> Result<(), String> {
        let shared = Arc::clone(&self.window);
        // Held for a batch: only a picture for the eye waits for it.
        let mut window = shared.lock();
        for event in events {
            let time_unix_ns = event.time_unix_ns;
            window.seen(time_unix_ns);
            match &event.body {
                EventBody::SpanOpened(opened) => self.opened(time_unix_ns, opened),
                EventBody::SpanUpdated(update) => {
                    if let Some(span) = self.open.get_mut(update.span) {
                        span.keep(&update.attributes);
                    }
                }
                EventBody::Annotated(line) => {
                    if let Some(span) = line.span.and_then(|key| self.open.get_mut(key)) {
                        span.has_logged_error |= is_error(line);
                    }
                }
                EventBody::SpanClosed(closed) => self.closed(time_unix_ns, closed, &mut window),
                EventBody::Gap(gap) => window.dropped += gap.dropped,
                _ => {}
            }
            self.calls.apply(&event.body, &mut self.ended);
        }
        for call in self.ended.drain(..) {
            window.input_tokens = window.input_tokens.saturating_add(call.counts.input);
            window.output_tokens = window.output_tokens.saturating_add(call.counts.output);
        }
        window.open_spans = self.open.len() as u64;
        Ok(())
    }
}

impl OpenStage {
    fn keep(&mut self, attributes: &Attributes) {
        let is_wanted = |name: &str| STEERING.contains(&name) || BUILT_IN.feeds(name, &COLUMNS);
        for (name, value) in attributes.iter().filter(|(name, _)| is_wanted(name)) {
            match self.attributes.iter_mut().find(|(kept, _)| kept == name) {
                Some((_, kept)) => kept.clone_from(value),
                None => self.attributes.push((name.clone(), value.clone())),
            }
        }
    }

    fn has_failed(&self, reported: Status) -> bool {
        let said = |name: &str| {
            self.attributes.iter().find(|(kept, _)| kept == name).map(|(_, value)| value)
        };
        let code = said(convention::OTEL_STATUS_CODE).map(Value::to_text).unwrap_or_default();
        let is_cancelled = said(CANCELLED).and_then(Value::as_bool) == Some(true);
        match code.to_ascii_uppercase().as_str() {
            "ERROR" => true,
            "OK" => false,
            _ if is_cancelled => false,
            _ => self.has_logged_error || reported == Status::Error,
        }
    }

    /// What the program calls the stage, else what its kind is, else its name.
    fn stage(self) -> String {
        let mut row = SpanRow::default();
        BUILT_IN.apply(&self.attributes, &mut row);
        if !row.stage.is_empty() {
            return row.stage;
        }
        match row.kind.as_str() {
            "llm" => "llm".to_owned(),
            "embedding" => "embed".to_owned(),
            "retriever" => "retrieve".to_owned(),
            "reranker" => "rerank".to_owned(),
            _ => self.name,
        }
    }
}

/// An error logged inside a span makes the span one that failed.
fn is_error(line: &Annotated) -> bool {
    let has = |names: [&str; 2]| line.attributes.iter().any(|(name, _)| names.contains(&&**name));
    line.name == "exception" || (line.level == Level::Error && has(["exception.message", "error"]))
}

const CANCELLED: &str = "retake.cancelled";
/// Attributes that say how a span ended.
const STEERING: [&str; 2] = [convention::OTEL_STATUS_CODE, CANCELLED];
/// Columns that name a span's stage.
const COLUMNS: [&str; 2] = ["stage", "kind"];

#[cfg(test)]
mod tests;
