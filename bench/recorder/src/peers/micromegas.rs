//! micromegas-tracing: 16-byte begin and end events, handed over block by block.
//!
//! Its sink here says that logs are wanted: with its own `NullEventSink` they are filtered out,
//! and a benchmark times the filter.

use std::collections::HashMap;
use std::fmt;
use std::hint::black_box;
use std::sync::Arc;

use micromegas_tracing::event::EventSink;
use micromegas_tracing::guards::{TracingSystemGuard, TracingThreadGuard};
use micromegas_tracing::levels::{LevelFilter, set_max_level};
use micromegas_tracing::logs::{LogBlock, LogMetadata, LogStream};
use micromegas_tracing::metrics::{MetricsBlock, MetricsStream};
use micromegas_tracing::process_info::ProcessInfo;
use micromegas_tracing::property_set::DynProperty;
use micromegas_tracing::span_scope;
use micromegas_tracing::spans::{ThreadBlock, ThreadStream};

use crate::error::BenchError;
use crate::tracer::Tracer;
use crate::work::{EVENT_NS, EVENTS_PER_SPAN, Load, SPAN_NS};

/// What spans carry.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Properties {
    /// Nothing but a name.
    None,
    /// Three, as strings.
    Three,
}

/// Installs it, with blocks of the size it uses by default.
///
/// # Errors
/// It cannot start.
pub(crate) fn install(properties: Properties) -> Result<Box<dyn Tracer>, BenchError> {
    let system = TracingSystemGuard::new(
        LOGS_BYTES,
        METRICS_BYTES,
        THREAD_BYTES,
        Arc::new(Discard),
        HashMap::new(),
        true,
    )
    .map_err(BenchError::peer("micromegas"))?;
    set_max_level(LevelFilter::Trace);
    let thread = TracingThreadGuard::new();
    Ok(Box::new(Micromegas { properties, _thread: thread, _system: system }))
}

/// The order matters: the thread's buffer is flushed before the system goes.
struct Micromegas {
    properties: Properties,
    _thread: TracingThreadGuard,
    _system: TracingSystemGuard,
}

impl Tracer for Micromegas {
    fn loads(&self) -> Vec<Load> {
        match self.properties {
            Properties::None => vec![
                Load::new(SPAN_NS, 4, four_bare),
                Load::new(EVENT_NS, EVENTS_PER_SPAN, formatted_events),
            ],
            Properties::Three => vec![
                Load::new(SPAN_NS, 4, four_spans),
                Load::new(EVENT_NS, EVENTS_PER_SPAN, events),
            ],
        }
    }
}

#[inline(never)]
fn four_bare(i: u64) {
    span_scope!(REQUEST, "rag.request");
    span_scope!(RETRIEVE, "rag.retrieve");
    span_scope!(SEARCH, "vector.search");
    span_scope!(RERANK, "rerank.doc");
    black_box(i);
}

#[inline(never)]
fn four_spans(i: u64) {
    let _request = span_scope!(name = "rag.request", run = %i, top_k = 8, tenant = "acme-eu");
    let _retrieve = span_scope!(name = "rag.retrieve", run = %i, top_k = 8, index = "docs-v2");
    let _search = span_scope!(name = "vector.search", run = %i, ef = 64, index = "docs-v2");
    let _rerank = span_scope!(name = "rerank.doc", doc = %i, chunk = 7, model = "bge-m3");
    black_box(i);
}

#[inline(never)]
fn formatted_events(i: u64) {
    span_scope!(GENERATE, "llm.generate");
    for k in 0..EVENTS_PER_SPAN {
        micromegas_tracing::info!("idx={k} token=4211 text= hello");
    }
    black_box(i);
}

#[inline(never)]
fn events(i: u64) {
    span_scope!(GENERATE, "llm.generate");
    for k in 0..EVENTS_PER_SPAN {
        micromegas_tracing::info!(idx = %k, token = 4211, text = " hello", "token");
    }
    black_box(i);
}

struct Discard;

impl EventSink for Discard {
    fn on_startup(&self, _: Arc<ProcessInfo>) {}
    fn on_shutdown(&self) {}
    fn on_log_enabled(&self, _: &LogMetadata) -> bool {
        true
    }
    fn on_log(&self, _: &LogMetadata, _: &[DynProperty<'_>], _: i64, _: fmt::Arguments<'_>) {}
    fn on_init_log_stream(&self, _: &LogStream) {}
    fn on_process_log_block(&self, _: Arc<LogBlock>) {}
    fn on_init_metrics_stream(&self, _: &MetricsStream) {}
    fn on_process_metrics_block(&self, _: Arc<MetricsBlock>) {}
    fn on_init_thread_stream(&self, _: &ThreadStream) {}
    fn on_process_thread_block(&self, _: Arc<ThreadBlock>) {}
    fn is_busy(&self) -> bool {
        false
    }
}

const LOGS_BYTES: usize = 10 << 20;
const METRICS_BYTES: usize = 1 << 20;
const THREAD_BYTES: usize = 10 << 20;
