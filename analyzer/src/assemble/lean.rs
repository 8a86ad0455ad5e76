//! A span without what no analysis needs: about a third of a row's memory, and no allocation.

use arrow::array::{Array, ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::cast::{as_float64_array, as_int64_array, as_string_array};

use super::texts::{Text, Texts};
use crate::error::AnalyzeError;
use crate::trace::{SpanTimes, span_key};

/// What the analyses need of a span.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LeanSpan {
    pub(crate) id: u64,
    pub(crate) parent: Option<u64>,
    pub(crate) start_unix_ns: i64,
    pub(crate) duration_ns: i64,
    pub(crate) name: Text,
    pub(crate) kind: Text,
    pub(crate) stage: Text,
    pub(crate) status: Text,
    pub(crate) tokens_source: Text,
    pub(crate) service: Option<Text>,
    pub(crate) model: Option<Text>,
    pub(crate) provider: Option<Text>,
    pub(crate) error_type: Option<Text>,
    pub(crate) error_message: Option<Text>,
    pub(crate) request_id: Option<Text>,
    pub(crate) flags: Option<Text>,
    pub(crate) input_tokens: Option<i64>,
    pub(crate) output_tokens: Option<i64>,
    pub(crate) cost_usd: Option<f64>,
    pub(crate) batch_size: Option<i64>,
    pub(crate) queue_ns: Option<i64>,
    pub(crate) ttft_ns: Option<i64>,
    pub(crate) cache_read_tokens: Option<i64>,
    pub(crate) reasoning_tokens: Option<i64>,
    pub(crate) retries: Option<i64>,
    pub(crate) is_cache_hit: Option<bool>,
    /// Whether it only wraps the span of a call.
    pub(crate) is_wrapper: bool,
    /// In a replay: the operation it repeats.
    pub(crate) source: Option<Source>,
}

/// The operation a replayed one repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Source {
    pub(crate) run: Text,
    pub(crate) trace: Text,
    pub(crate) span: Option<u64>,
}

impl LeanSpan {
    /// What the trace analysis needs of it.
    pub(crate) fn times(&self) -> SpanTimes {
        SpanTimes {
            id: self.id,
            parent: self.parent,
            start_unix_ns: self.start_unix_ns,
            duration_ns: self.duration_ns,
        }
    }

    /// The span's id as text.
    pub(crate) fn id_text(&self) -> String {
        format!("{:016x}", self.id)
    }
}

/// What is read of a span besides its ids, its times and its stage: each column costs time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted(&'static [&'static str]);

impl Wanted {
    /// Nothing else.
    pub(crate) const TIMES: Self = Self(&[]);
    /// Which spans are calls.
    pub(crate) const CALLS: Self = Self(&["is_call"]);
    /// What a breakdown by stage shows.
    pub(crate) const BREAKDOWN: Self = Self(&[
        "kind",
        "status",
        "tokens_source",
        "error_type",
        "error_message",
        "input_tokens",
        "output_tokens",
        "cost_usd",
        "batch_size",
        "queue_ns",
        "ttft_ns",
        "cache_read_tokens",
        "reasoning_tokens",
        "retries",
        "cache_hit",
        "is_call",
    ]);
    /// What is odd about it.
    pub(crate) const QUALITY: Self = Self(&["status", "flags"]);
    /// Everything.
    pub(crate) const ALL: Self = Self(&[
        "name",
        "kind",
        "status",
        "tokens_source",
        "service",
        "model_response",
        "model_request",
        "provider",
        "error_type",
        "error_message",
        "request_id",
        "flags",
        "input_tokens",
        "output_tokens",
        "cost_usd",
        "batch_size",
        "queue_ns",
        "ttft_ns",
        "cache_read_tokens",
        "reasoning_tokens",
        "retries",
        "cache_hit",
        "is_call",
        "source_run_id",
        "source_trace_id",
        "source_span_id",
    ]);

    /// The names of the columns.
    pub(super) fn columns(self) -> Vec<&'static str> {
        ALWAYS.iter().chain(self.0).copied().collect()
    }
}

const ALWAYS: [&str; 6] =
    ["trace_id", "span_id", "parent_span_id", "start_unix_ns", "duration_ns", "stage"];

/// The columns of one batch, typed; `None` for those without a value in it.
pub(super) struct Columns {
    pub(super) trace_id: StringArray,
    pub(super) run_id: Option<StringArray>,
    span_id: StringArray,
    parent: Option<StringArray>,
    start: Option<Int64Array>,
    duration: Option<Int64Array>,
    texts: [Option<StringArray>; 5],
    optional_texts: [Option<StringArray>; 8],
    numbers: [Option<Int64Array>; 10],
    cost: Option<Float64Array>,
    source: [Option<StringArray>; 3],
}

impl Columns {
    /// The columns that were asked for by these names.
    pub(super) fn new(batch: &RecordBatch, wanted: &[&str]) -> Result<Self, AnalyzeError> {
        let text = |name| read(batch, name, wanted, self::text);
        let int = |name| read(batch, name, wanted, self::int);
        Ok(Self {
            trace_id: self::text(batch, "trace_id")?,
            run_id: text("run_id")?,
            span_id: self::text(batch, "span_id")?,
            parent: text("parent_span_id")?,
            start: int("start_unix_ns")?,
            duration: int("duration_ns")?,
            texts: [
                text("name")?,
                text("kind")?,
                text("stage")?,
                text("status")?,
                text("tokens_source")?,
            ],
            optional_texts: [
                text("service")?,
                text("model_response")?,
                text("model_request")?,
                text("provider")?,
                text("error_type")?,
                text("error_message")?,
                text("request_id")?,
                text("flags")?,
            ],
            numbers: [
                int("input_tokens")?,
                int("output_tokens")?,
                int("batch_size")?,
                int("queue_ns")?,
                int("ttft_ns")?,
                int("cache_read_tokens")?,
                int("reasoning_tokens")?,
                int("retries")?,
                int("cache_hit")?,
                int("is_call")?,
            ],
            cost: read(batch, "cost_usd", wanted, float)?,
            source: [text("source_run_id")?, text("source_trace_id")?, text("source_span_id")?],
        })
    }

    pub(super) fn span(&self, row: usize, texts: &mut Texts) -> LeanSpan {
        let [name, kind, stage, status, tokens_source] = self.texts.each_ref().map(|column| {
            let text = column.as_ref().and_then(|column| value(column, row));
            text.map_or_else(Text::default, |text| texts.number(text))
        });
        let [service, response, request, provider, error_type, error_message, request_id, flags] =
            self.optional_texts.each_ref().map(|column| {
                let text = column.as_ref().and_then(|column| value(column, row));
                text.map(|text| texts.number(text))
            });
        let [
            input_tokens,
            output_tokens,
            batch_size,
            queue_ns,
            ttft_ns,
            cache_read_tokens,
            reasoning_tokens,
            retries,
            cache_hit,
            is_call,
        ] = self.numbers.each_ref().map(|column| optional_number(column.as_ref(), row));
        let [run, trace, span] = self
            .source
            .each_ref()
            .map(|column| column.as_ref().and_then(|column| value(column, row)));
        let source = run.zip(trace).map(|(run, trace)| Source {
            run: texts.number(run),
            trace: texts.number(trace),
            span: span.map(span_key),
        });
        let parent = self.parent.as_ref().and_then(|column| value(column, row));
        LeanSpan {
            id: span_key(value(&self.span_id, row).unwrap_or("")),
            parent: parent.map(span_key),
            start_unix_ns: optional_number(self.start.as_ref(), row).unwrap_or(0),
            duration_ns: optional_number(self.duration.as_ref(), row).unwrap_or(0),
            name,
            kind,
            stage,
            status,
            tokens_source,
            service,
            model: response.or(request),
            provider,
            error_type,
            error_message,
            request_id,
            flags,
            input_tokens,
            output_tokens,
            cost_usd: self.cost.as_ref().filter(|c| c.is_valid_at(row)).map(|c| c.value(row)),
            batch_size,
            queue_ns,
            ttft_ns,
            cache_read_tokens,
            reasoning_tokens,
            retries,
            is_cache_hit: cache_hit.map(|hit| hit != 0),
            is_wrapper: is_call == Some(0),
            source,
        }
    }
}

/// A column that was asked for and has a value in this batch.
fn read<A: Array>(
    batch: &RecordBatch,
    name: &str,
    wanted: &[&str],
    typed: impl Fn(&RecordBatch, &str) -> Result<A, AnalyzeError>,
) -> Result<Option<A>, AnalyzeError> {
    if !wanted.contains(&name) {
        return Ok(None);
    }
    let column = typed(batch, name)?;
    Ok(Some(column).filter(|column| column.null_count() < column.len()))
}

fn optional_number(column: Option<&Int64Array>, row: usize) -> Option<i64> {
    column.and_then(|column| number(column, row))
}

/// Whether a row exists and is not NULL.
trait IsValidAt {
    fn is_valid_at(&self, row: usize) -> bool;
}

impl<A: arrow::array::Array> IsValidAt for A {
    fn is_valid_at(&self, row: usize) -> bool {
        row < self.len() && self.is_valid(row)
    }
}

pub(crate) fn value(column: &StringArray, row: usize) -> Option<&str> {
    column.is_valid_at(row).then(|| column.value(row))
}

pub(crate) fn number(column: &Int64Array, row: usize) -> Option<i64> {
    column.is_valid_at(row).then(|| column.value(row))
}

pub(crate) fn text(batch: &RecordBatch, name: &str) -> Result<StringArray, AnalyzeError> {
    Ok(as_string_array(&column(batch, name, &DataType::Utf8)?)?.clone())
}

pub(crate) fn int(batch: &RecordBatch, name: &str) -> Result<Int64Array, AnalyzeError> {
    Ok(as_int64_array(&column(batch, name, &DataType::Int64)?)?.clone())
}

fn float(batch: &RecordBatch, name: &str) -> Result<Float64Array, AnalyzeError> {
    Ok(as_float64_array(&column(batch, name, &DataType::Float64)?)?.clone())
}

/// A column by name, whatever encoding of the type the engine chose.
fn column(batch: &RecordBatch, name: &str, to: &DataType) -> Result<ArrayRef, AnalyzeError> {
    let column = batch
        .column_by_name(name)
        .ok_or_else(|| AnalyzeError::Internal(format!("the scan lacks column {name}")))?;
    cast(column, to).map_err(|error| AnalyzeError::Internal(error.to_string()))
}
