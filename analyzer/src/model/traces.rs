//! Traces: at a glance, as trees, and with everything that is known of them.

use std::collections::BTreeMap;

use retake_schemas::tables::{DocumentRow, RunRow, SpanRow};
use serde::Serialize;

/// One trace at a glance.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TraceSummary {
    /// The trace.
    pub trace_id: String,
    /// Name of its root span, or of its earliest one when the root is missing.
    pub name: String,
    /// The application's name for the request, if it has one.
    pub request_id: Option<String>,
    /// Start, ns since the Unix epoch.
    pub start_unix_ns: i64,
    /// From its first start to its last end, ns.
    pub duration_ns: i64,
    /// Spans in it.
    pub spans: u64,
    /// Time to the first output token, ns after the trace's start.
    pub ttft_ns: Option<i64>,
    /// Input tokens, counted once.
    pub input_tokens: i64,
    /// Output tokens, counted once.
    pub output_tokens: i64,
    /// The failure it began with, if any: `stage: error type`.
    pub error: Option<String>,
}

/// A trace as a tree in display order: parents before children, siblings by start.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceTree {
    /// The trace.
    pub trace_id: String,
    /// Start of the earliest span, ns since the Unix epoch.
    pub start_unix_ns: i64,
    /// From the first start to the last end, ns.
    pub duration_ns: i64,
    /// The spans with their depth.
    pub nodes: Vec<TraceNode>,
}

/// A trace with everything that is known of its spans.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceDetail {
    /// Its run.
    pub run: RunRow,
    /// Its spans.
    pub tree: TraceTree,
    /// What spans were given and gave back, by digest, as far as it was kept.
    pub texts: BTreeMap<String, KeptText>,
    /// Documents by span, in the order of their ranks.
    pub documents: BTreeMap<String, Vec<DocumentRow>>,
}

/// A text that was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptText {
    /// The text, or its beginning.
    pub content: String,
    /// Size of the whole, bytes.
    pub bytes: i64,
    /// Whether the recorder cut it.
    pub is_truncated: bool,
}

/// A span in a [`TraceTree`].
#[derive(Debug, Clone, PartialEq)]
pub struct TraceNode {
    /// 0 for a root.
    pub depth: usize,
    /// Time not covered by the union of its children, ns.
    pub self_ns: i64,
    /// Whether it lies on the trace's critical path.
    pub is_critical: bool,
    /// The span.
    pub span: SpanRow,
}
