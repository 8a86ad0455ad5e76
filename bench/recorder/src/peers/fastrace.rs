//! fastrace: a thread-local stack of spans, handed over when the root ends.
//!
//! Properties are strings, so numbers are formatted, as its users have to.

use std::hint::black_box;

use fastrace::collector::{Config, Reporter, SpanRecord};
use fastrace::prelude::{Event, LocalSpan, Span, SpanContext};

use crate::error::BenchError;
use crate::tracer::Tracer;
use crate::work::{EVENT_NS, EVENTS_PER_SPAN, Load, SPAN_NS};

/// What spans carry, and how long a trace is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Properties {
    /// Three formatted ones.
    Strings,
    /// Three known at compile time.
    Static,
    /// None.
    None,
    /// Three formatted ones, and a trace of its own for every four spans.
    StringsAndRoots,
}

/// Installs it with a reporter that does nothing.
pub(crate) fn install(properties: Properties) -> Box<dyn Tracer> {
    fastrace::set_reporter(Discard, Config::default());
    Box::new(Fastrace { properties })
}

struct Fastrace {
    properties: Properties,
}

impl Tracer for Fastrace {
    fn loads(&self) -> Vec<Load> {
        match self.properties {
            Properties::Strings => vec![
                Load::new(SPAN_NS, SPANS_PER_ROOT, |i| below_root(i, four_spans)),
                Load::new(EVENT_NS, EVENTS_PER_SPAN, events),
            ],
            Properties::Static => {
                vec![Load::new(SPAN_NS, SPANS_PER_ROOT, |i| below_root(i, four_static))]
            }
            Properties::None => {
                vec![Load::new(SPAN_NS, SPANS_PER_ROOT, |i| below_root(i, four_bare))]
            }
            Properties::StringsAndRoots => vec![Load::new(SPAN_NS, 4, rooted)],
        }
    }

    fn settle(&mut self) -> Result<(), BenchError> {
        fastrace::flush();
        Ok(())
    }
}

struct Discard;

impl Reporter for Discard {
    fn report(&mut self, spans: Vec<SpanRecord>) {
        black_box(spans);
    }
}

/// Long traces are what suits it best: the hand-over is paid once for 400 spans.
fn below_root(i: u64, four: fn(u64)) {
    let root = Span::root("root", SpanContext::random());
    let _local = root.set_local_parent();
    for k in 0..SPANS_PER_ROOT / 4 {
        four(i * SPANS_PER_ROOT + k);
    }
}

#[inline(never)]
fn four_spans(i: u64) {
    let _request = LocalSpan::enter_with_local_parent("rag.request")
        .with_properties(|| with("run", i, "top_k", 8, ("tenant", "acme-eu")));
    let _retrieve = LocalSpan::enter_with_local_parent("rag.retrieve")
        .with_properties(|| with("run", i, "top_k", 8, ("index", "docs-v2")));
    let _search = LocalSpan::enter_with_local_parent("vector.search")
        .with_properties(|| with("run", i, "ef", 64, ("index", "docs-v2")));
    let _rerank = LocalSpan::enter_with_local_parent("rerank.doc")
        .with_properties(|| with("doc", i, "chunk", 7, ("model", "bge-m3")));
    black_box(i);
}

#[inline(always)]
fn with(
    first: &'static str,
    one: u64,
    second: &'static str,
    two: u64,
    (third, three): (&'static str, &str),
) -> [(&'static str, String); 3] {
    [(first, one.to_string()), (second, two.to_string()), (third, three.to_owned())]
}

#[inline(never)]
fn four_static(i: u64) {
    let _request = LocalSpan::enter_with_local_parent("rag.request")
        .with_properties(|| [("run", "17"), ("top_k", "8"), ("tenant", "acme-eu")]);
    let _retrieve = LocalSpan::enter_with_local_parent("rag.retrieve")
        .with_properties(|| [("run", "17"), ("top_k", "8"), ("index", "docs-v2")]);
    let _search = LocalSpan::enter_with_local_parent("vector.search")
        .with_properties(|| [("run", "17"), ("ef", "64"), ("index", "docs-v2")]);
    let _rerank = LocalSpan::enter_with_local_parent("rerank.doc")
        .with_properties(|| [("doc", "17"), ("chunk", "7"), ("model", "bge-m3")]);
    black_box(i);
}

#[inline(never)]
fn four_bare(i: u64) {
    let _request = LocalSpan::enter_with_local_parent("rag.request");
    let _retrieve = LocalSpan::enter_with_local_parent("rag.retrieve");
    let _search = LocalSpan::enter_with_local_parent("vector.search");
    let _rerank = LocalSpan::enter_with_local_parent("rerank.doc");
    black_box(i);
}

#[inline(never)]
fn rooted(i: u64) {
    let root = Span::root("rag.request", SpanContext::random())
        .with_properties(|| with("run", i, "top_k", 8, ("tenant", "acme-eu")));
    let _local = root.set_local_parent();
    let _retrieve = LocalSpan::enter_with_local_parent("rag.retrieve")
        .with_properties(|| with("run", i, "top_k", 8, ("index", "docs-v2")));
    let _search = LocalSpan::enter_with_local_parent("vector.search")
        .with_properties(|| with("run", i, "ef", 64, ("index", "docs-v2")));
    let _rerank = LocalSpan::enter_with_local_parent("rerank.doc")
        .with_properties(|| with("doc", i, "chunk", 7, ("model", "bge-m3")));
    black_box(i);
}

#[inline(never)]
fn events(i: u64) {
    let root = Span::root("llm.generate", SpanContext::random());
    let _local = root.set_local_parent();
    for k in 0..EVENTS_PER_SPAN {
        let event = Event::new("token")
            .with_properties(|| with("idx", i + k, "token", 4211, ("text", " hello")));
        LocalSpan::add_event(event);
    }
}

const SPANS_PER_ROOT: u64 = 400;
