//! The work that is recorded: the same `tracing` calls for everybody who listens to `tracing`.
//!
//! The direct API and the two peers with macros of their own repeat it in their modules, with the
//! same names and fields.

use std::hint::black_box;
use std::sync::Arc;

use tracing::{info, info_span};

/// A request to trace, any number of times on any thread.
pub(crate) type Request = Arc<dyn Fn(u64) + Send + Sync>;

/// Something to repeat and time.
pub(crate) struct Load {
    /// Name of the figure, with its unit.
    pub(crate) figure: &'static str,
    /// Spans or events in one call.
    pub(crate) per_call: u64,
    /// One call; the argument counts calls, so that no two record the same values.
    pub(crate) run: Box<dyn FnMut(u64)>,
}

impl Load {
    /// A load of `per_call` spans or events a call.
    pub(crate) fn new(figure: &'static str, per_call: u64, run: impl FnMut(u64) + 'static) -> Self {
        Self { figure, per_call, run: Box::new(run) }
    }
}

/// The loads of everybody who listens to `tracing`.
pub(crate) fn tracing_loads() -> Vec<Load> {
    vec![Load::new(SPAN_NS, 4, four_spans), Load::new(EVENT_NS, EVENTS_PER_SPAN, events)]
}

/// Output tokens as a `tracing` program reports them to retake.
pub(crate) fn token_load() -> Load {
    Load::new(TOKEN_NS, EVENTS_PER_SPAN, tokens)
}

/// Four nested spans with three fields each: created, entered, left, closed.
#[inline(never)]
fn four_spans(i: u64) {
    let _request = info_span!("rag.request", run = i, top_k = 8_u64, tenant = "acme-eu").entered();
    let _retrieve = info_span!("rag.retrieve", run = i, top_k = 8_u64, index = "docs-v2").entered();
    let _search = info_span!("vector.search", run = i, ef = 64_u64, index = "docs-v2").entered();
    let _rerank = info_span!("rerank.doc", doc = i, chunk = 7_u64, model = "bge-m3").entered();
    black_box(i);
}

#[inline(never)]
fn events(i: u64) {
    let _generate = info_span!("llm.generate", run = i, model = "m").entered();
    for k in 0..EVENTS_PER_SPAN {
        info!(idx = k, token = 4211_u64, text = " hello");
    }
}

#[inline(never)]
fn tokens(i: u64) {
    let _generate = info_span!("llm.generate", run = i, model = "m").entered();
    for k in 0..EVENTS_PER_SPAN {
        info!(target: "retake::token", index = k, count = 1_u64);
    }
}

/// A request of a RAG service: 12 spans, 37 fields.
#[inline(never)]
pub(crate) fn request(i: u64) {
    let _request = info_span!(
        "rag.request",
        run = RUN,
        tenant = "acme-eu",
        query = query(i),
        session = i / 10
    )
    .entered();
    drop(info_span!("rag.embed", model = "bge-m3", input_tokens = 12 + (i & 31)).entered());
    drop(
        info_span!(
            "vector.search",
            index = "docs-v2",
            top_k = 8_u64,
            ef = 64_u64,
            candidates = 40 + (i & 15)
        )
        .entered(),
    );
    for chunk in 0..4_u64 {
        drop(info_span!("rerank.doc", doc = doc(i), score = score(chunk), chunk).entered());
    }
    drop(
        info_span!(
            "prompt.build",
            template = "qa-v3",
            input_tokens = 900 + (i & 255),
            n_docs = 4_u64
        )
        .entered(),
    );
    generate(i);
    drop(info_span!("post.check", citations = 3_u64, faithful = 0.93).entered());
}

fn generate(i: u64) {
    let _generate = info_span!(
        "llm.generate",
        model = "gpt-4o-mini",
        input_tokens = 900 + (i & 255),
        output_tokens = 200 + (i & 63),
        temperature = 0.2,
        finish = "stop",
        cost = 0.0012
    )
    .entered();
    drop(info_span!("llm.first_token", ttft_us = 180_000 + (i & 1023)).entered());
    drop(info_span!("tool.call", tool = "sql", args_len = 120_u64, ok = true).entered());
}

/// A question, as different from the next as those of real users.
pub(crate) fn query(i: u64) -> &'static str {
    let index = usize::try_from(i % QUERIES.len() as u64).unwrap_or_default();
    QUERIES.get(index).copied().unwrap_or_default()
}

/// A document number without a pattern (Knuth's multiplicative hash).
pub(crate) const fn doc(i: u64) -> u64 {
    i.wrapping_mul(2_654_435_761) & 0xf_ffff
}

/// A rerank score.
pub(crate) const fn score(chunk: u64) -> f64 {
    0.5 + chunk as f64 * 0.1
}

/// Name of the figure of spans.
pub(crate) const SPAN_NS: &str = "span_ns";
/// Name of the figure of events.
pub(crate) const EVENT_NS: &str = "event_ns";
/// Name of the figure of token events.
pub(crate) const TOKEN_NS: &str = "token_ns";
/// Spans in a [`request`].
pub(crate) const SPANS_PER_REQUEST: u64 = 12;
/// Events in one span: so many that the span around them adds less than 0.2 ns to each of the
/// reference, so few that no peer has to hold an unbounded list.
pub(crate) const EVENTS_PER_SPAN: u64 = 1000;
/// An id as callers put on their requests.
pub(crate) const RUN: &str = "0190b5f0-7c1e-7d3a-9a55-3f2f6f0c1a2b";
const QUERIES: [&str; 8] = [
    "how do I rotate the signing key for a tenant",
    "what is the refund policy for enterprise contracts in the EU",
    "summarise the incident report from last tuesday",
    "which index settings reduce recall loss at high filter selectivity",
    "list open invoices over ten thousand",
    "explain the difference between cosine and dot product",
    "when does the data retention job run",
    "who approved the change to the rate limiter",
];

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

    use super::*;

    struct Count(Arc<AtomicU64>);

    impl<S: tracing::Subscriber> Layer<S> for Count {
        fn on_close(&self, _: tracing::Id, _: Context<'_, S>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Scenario: one request and one call of the hot load.
    #[test]
    fn loads_make_as_many_spans_as_they_say() {
        let closed = Arc::new(AtomicU64::new(0));
        let subscriber = tracing_subscriber::registry().with(Count(Arc::clone(&closed)));
        tracing::subscriber::with_default(subscriber, || {
            request(1);
            assert_eq!(closed.swap(0, Ordering::Relaxed), SPANS_PER_REQUEST);
            let mut load = tracing_loads().remove(0);
            (load.run)(1);
            assert_eq!(closed.load(Ordering::Relaxed), load.per_call);
        });
    }
}
