//! Names by which an instrumented program and the recorder understand each other.
//!
//! Where OpenTelemetry's GenAI conventions or OpenInference have a name, that name is used (see
//! `mapping.toml`). The names here, all starting with `retake.`, exist only for what those
//! conventions cannot say. They are plain `tracing` field and target names: an application needs
//! no dependency on retake to use them.
//!
//! Four `tracing` *targets* mark events that are more than log lines:
//!
//! ```text
//! tracing::info!(target: "retake::token", index = 7, count = 1);
//! tracing::info!(target: "retake::usage", source = "provider", input = 812, output = 64);
//! tracing::info!(target: "retake::document", role = "retrieved", rank = 0, id = "a.md#3", score = 0.71);
//! tracing::info!(target: "retake::measure", name = "queue.depth", unit = "{item}", value = 12.0);
//! ```

/// Target of an event that says output tokens arrived. Fields: `index` of the first one in the
/// answer, from 0; `count`, by default 1.
pub const TARGET_TOKEN: &str = "retake::token";

/// Target of an event with the token counts of a call. Fields: `source` (`provider`, `tokenizer`,
/// `estimate`), `input`, `output`, `cache_read`, `cache_write`, `reasoning`.
pub const TARGET_USAGE: &str = "retake::usage";

/// Target of an event with one document. Fields: `role` (`retrieved`, `rerank_input`,
/// `rerank_output`, `batch_member`), `rank` from 0, `id`, `score`, `source`, `start_char`,
/// `end_char`, `content`.
pub const TARGET_DOCUMENT: &str = "retake::document";

/// Field of such an event: the document's text. Content; the capture policy governs it.
pub const DOCUMENT_CONTENT: &str = "content";

/// Target of an event with a resource sample. Fields: `name`, `unit` (UCUM), `value`.
pub const TARGET_MEASURE: &str = "retake::measure";

/// Span field: what a span is (OpenInference span kind, lower case): `llm`, `retriever`, `chain`, ...
pub const KIND: &str = "retake.kind";
/// Span field: the named pipeline step.
pub const STAGE: &str = "retake.stage";
/// Span field: number of items in the batch.
pub const BATCH_SIZE: &str = "retake.batch.size";
/// Span field: number of the batch in its run, from 0.
pub const BATCH_INDEX: &str = "retake.batch.index";
/// Span field: time waited before the work began, ns; mean over the items of a batch.
pub const QUEUE_NS: &str = "retake.queue_ns";
/// Span field: attempts after the first.
pub const RETRIES: &str = "retake.retries";
/// Span field: whether a cache answered.
pub const CACHE_HIT: &str = "retake.cache_hit";
/// Span field: vectors returned.
pub const EMBEDDING_COUNT: &str = "retake.embedding.count";
/// Span field: the application's name for the request.
pub const REQUEST_ID: &str = "retake.request_id";
/// Span field on the root of a replayed operation: run of the operation it repeats.
pub const SOURCE_RUN: &str = "retake.source.run_id";
/// Span field on the root of a replayed operation: trace of the operation it repeats.
pub const SOURCE_TRACE: &str = "retake.source.trace_id";
/// Span field on the root of a replayed operation: span of the operation it repeats.
pub const SOURCE_SPAN: &str = "retake.source.span_id";
/// Span field on the root of a replayed operation: when it was due, ns since the Unix epoch.
pub const DUE_UNIX_NS: &str = "retake.due_unix_ns";
/// Span field in a replay: `live`, `recorded`, `recorded+model` or `model`.
pub const STAGE_SOURCE: &str = "retake.stage_source";
/// Span field on a root: what a replay needs to repeat the operation, a JSON object. Content; the
/// capture policy decides whether it is kept.
pub const OPERATION: &str = "input.value";
/// Span field on a root: the kind of operation a replay would repeat (`ingest`, `query`).
pub const OPERATION_KIND: &str = "retake.operation";

/// Span field: what a receiver found odd about the span, comma-separated; goes into the column
/// `flags`.
pub const FLAGS: &str = "retake.flags";

/// Span field: overrides the span's name (tracing-opentelemetry's convention).
pub const OTEL_NAME: &str = "otel.name";
/// Span field: `internal`, `server`, `client`, `producer`, `consumer`.
pub const OTEL_KIND: &str = "otel.kind";
/// Span field: `OK`, `ERROR` or `UNSET`.
pub const OTEL_STATUS_CODE: &str = "otel.status_code";
/// Span field: text that goes with an error status.
pub const OTEL_STATUS_MESSAGE: &str = "otel.status_description";
/// Span field: class of the error.
pub const ERROR_TYPE: &str = "error.type";

/// Whether an attribute names the type of an error, which only an operation that failed has: the
/// convention's own, and what rig says of a tool.
#[must_use]
pub fn is_error_type(name: &str) -> bool {
    matches!(name, ERROR_TYPE | "gen_ai.tool.error.type")
}

/// Attribute of a metric's sample: `delta` when each adds to those before it, `cumulative` when each
/// holds all before it.
pub const METRIC_TEMPORALITY: &str = "otel.temporality";
/// Attribute of a metric's sample: the series it is of, in hex.
pub const METRIC_SERIES: &str = "otel.series";
/// Attribute of a metric's sample: since when its series counts, ns since the Unix epoch.
pub const METRIC_START: &str = "otel.start_unix_ns";

/// Name of a measure: what a sweep predicts for a setting before it replays it.
pub const MEASURE_PREDICTED: &str = "retake.predicted";
/// Name of a measure: what a replay of a sweep came to.
pub const MEASURE_MEASURED: &str = "retake.measured";
/// Attribute of both: the setting, as `NAME=VALUE, ...`.
pub const SWEEP_SETTING: &str = "retake.sweep.setting";
/// Attribute of both: what is predicted or measured, such as `throughput`.
pub const SWEEP_METRIC: &str = "retake.sweep.metric";
/// Attribute of a prediction: lower end of its 95 % interval.
pub const SWEEP_LOW: &str = "retake.sweep.low";
/// Attribute of a prediction: upper end of its 95 % interval.
pub const SWEEP_HIGH: &str = "retake.sweep.high";
/// Attribute of a measurement: run of the replay.
pub const SWEEP_REPLAY: &str = "retake.sweep.replay";
/// Attribute of a measurement: block of the interleaved order, from 0.
pub const SWEEP_BLOCK: &str = "retake.sweep.block";
/// Label of a run that no clock measured, with the value [`CLOCK_VIRTUAL`].
pub const CLOCK_LABEL: &str = "retake.clock";
/// A model stood in for every stage: the run is a prediction.
pub const CLOCK_VIRTUAL: &str = "virtual";
/// Label of a run that goes on with another one: the other.
pub const RESUMES_LABEL: &str = "retake.resumes";
/// Label of the replays of a sweep: run of the sweep.
pub const SWEEP_LABEL: &str = "retake.sweep";
