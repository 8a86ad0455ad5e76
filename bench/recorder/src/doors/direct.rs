//! The work of [`crate::work`] through the direct API: same names, same fields, no `tracing`.

use std::hint::black_box;
use std::sync::Arc;

use retake_recorder::{Dispatcher, span};

use crate::work::{EVENTS_PER_SPAN, Load, RUN, Request, SPAN_NS, TOKEN_NS, doc, query, score};

/// The loads of the hot path. There is no event but the token: a program that wants log lines has
/// `tracing`.
pub(super) fn loads(dispatcher: &Dispatcher) -> Vec<Load> {
    let (for_spans, for_tokens) = (dispatcher.clone(), dispatcher.clone());
    vec![
        Load::new(SPAN_NS, 4, move |i| four_spans(&for_spans, i)),
        Load::new(TOKEN_NS, EVENTS_PER_SPAN, move |i| tokens(&for_tokens, i)),
    ]
}

/// The realistic request.
pub(super) fn request(dispatcher: &Dispatcher) -> Request {
    let dispatcher = dispatcher.clone();
    Arc::new(move |i| request_of(&dispatcher, i))
}

#[inline(never)]
fn four_spans(to: &Dispatcher, i: u64) {
    let _request = span!(to, "rag.request", "run" = i, "top_k" = 8_u64, "tenant" = "acme-eu");
    let _retrieve = span!(to, "rag.retrieve", "run" = i, "top_k" = 8_u64, "index" = "docs-v2");
    let _search = span!(to, "vector.search", "run" = i, "ef" = 64_u64, "index" = "docs-v2");
    let _rerank = span!(to, "rerank.doc", "doc" = i, "chunk" = 7_u64, "model" = "bge-m3");
    black_box(i);
}

#[inline(never)]
fn tokens(to: &Dispatcher, i: u64) {
    let _generate = span!(to, "llm.generate", "run" = i, "model" = "m");
    for k in 0..EVENTS_PER_SPAN as u32 {
        to.token(k, 1);
    }
}

#[inline(never)]
fn request_of(to: &Dispatcher, i: u64) {
    let _request = span!(
        to,
        "rag.request",
        "run" = RUN,
        "tenant" = "acme-eu",
        "query" = query(i),
        "session" = i / 10
    );
    drop(span!(to, "rag.embed", "model" = "bge-m3", "input_tokens" = 12 + (i & 31)));
    drop(span!(
        to,
        "vector.search",
        "index" = "docs-v2",
        "top_k" = 8_u64,
        "ef" = 64_u64,
        "candidates" = 40 + (i & 15)
    ));
    for chunk in 0..4_u64 {
        drop(span!(to, "rerank.doc", "doc" = doc(i), "score" = score(chunk), "chunk" = chunk));
    }
    drop(span!(
        to,
        "prompt.build",
        "template" = "qa-v3",
        "input_tokens" = 900 + (i & 255),
        "n_docs" = 4_u64
    ));
    generate(to, i);
    drop(span!(to, "post.check", "citations" = 3_u64, "faithful" = 0.93));
}

fn generate(to: &Dispatcher, i: u64) {
    let _generate = span!(
        to,
        "llm.generate",
        "model" = "gpt-4o-mini",
        "input_tokens" = 900 + (i & 255),
        "output_tokens" = 200 + (i & 63),
        "temperature" = 0.2,
        "finish" = "stop",
        "cost" = 0.0012
    );
    drop(span!(to, "llm.first_token", "ttft_us" = 180_000 + (i & 1023)));
    drop(span!(to, "tool.call", "tool" = "sql", "args_len" = 120_u64, "ok" = true));
}
