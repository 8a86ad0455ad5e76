//! A closed span as a row of the table `spans`.

use retake_schemas::event::{Status, TokensSource};
use retake_schemas::mapping::BUILT_IN;
use retake_schemas::tables::SpanRow;
use retake_schemas::{Attributes, convention};

use super::open::{ClosedSpan, OpenSpan};

/// Attributes that only steer the fold and have their column elsewhere.
const STEERING: [&str; 3] =
    [convention::OTEL_NAME, convention::OTEL_STATUS_CODE, "retake.cancelled"];

impl ClosedSpan {
    /// The row. Consumes the span: its texts move.
    pub(super) fn into_row(self, run_id: &str, service: &str) -> SpanRow {
        let Self { mut span, verdict } = self;
        let (start, end) = (span.start_unix_ns(), span.end_unix_ns());
        let parent_span_id = span.opened.parent.map(|id| id.to_string());
        let mut row = SpanRow {
            run_id: run_id.to_owned(),
            trace_id: span.opened.span.trace_id.to_string(),
            span_id: span.opened.span.span_id.to_string(),
            parent_span_id,
            start_unix_ns: start,
            duration_ns: end - start,
            busy_ns: span.busy_ns,
            self_ns: Some((end - start - span.family.covered_ns(start, end)).max(0)),
            status: span.status.as_str().to_owned(),
            is_error_origin: verdict.is_error_origin,
            service: Some(service.to_owned()).filter(|name| !name.is_empty()),
            tokens_counted: verdict.is_counted,
            target: Some(span.opened.target.clone()).filter(|target| !target.is_empty()),
            level: Some(span.opened.level.as_str().to_owned()),
            thread: span.opened.thread.clone(),
            source_file: span.opened.source_file.clone(),
            source_line: span.opened.source_line.and_then(|line| i32::try_from(line).ok()),
            ..SpanRow::default()
        };
        let attributes = std::mem::take(&mut span.attributes);
        let kept: Attributes =
            attributes.into_iter().filter(|(key, _)| !STEERING.contains(&key.as_ref())).collect();
        BUILT_IN.apply(&kept, &mut row);
        apply_tokens(&span, &mut row);
        if row.document_count.is_none() {
            row.document_count = span.documents;
        }
        if span.status == Status::Error {
            row.error_type = row.error_type.or_else(|| span.error_type.clone());
            row.error_message = row.error_message.or_else(|| span.message.clone());
        }
        row.name = span.opened.name.clone();
        name_kind_and_stage(&mut row);
        row.flags = flags(&span, &verdict, end);
        row
    }
}

/// Puts the counts of a `Usage` event over those of attributes, and states who counted.
fn apply_tokens(span: &OpenSpan, row: &mut SpanRow) {
    if let Some(first) = span.first_token_unix_ns {
        row.ttft_ns = Some((first - span.start_unix_ns()).max(0));
        row.stream = row.stream.or(Some(true));
    }
    if let Some(usage) = span.own_tokens() {
        let over = |column: &mut Option<i64>, count: Option<i64>| {
            if count.is_some() {
                *column = count;
            }
        };
        over(&mut row.input_tokens, usage.input);
        over(&mut row.output_tokens, usage.output);
        over(&mut row.cache_read_tokens, usage.cache_read);
        over(&mut row.cache_write_tokens, usage.cache_write);
        over(&mut row.reasoning_tokens, usage.reasoning);
        row.tokens_source = usage.source.as_str().to_owned();
    }
    let has_counts = row.input_tokens.is_some() || row.output_tokens.is_some();
    if row.tokens_source.is_empty() {
        // Instrumentations put the provider's usage on the span and say nothing of its source.
        let source = if has_counts { TokensSource::Provider } else { TokensSource::None };
        row.tokens_source = source.as_str().to_owned();
    }
}

/// Tokens the span itself states, by event or by attribute: input, output.
pub(super) fn stated_tokens(span: &OpenSpan) -> Option<(i64, i64)> {
    if let Some(usage) = span.own_tokens() {
        return Some((usage.input.unwrap_or(0), usage.output.unwrap_or(0)));
    }
    if !span.attributes.iter().any(|(key, _)| key.contains("token")) {
        return None;
    }
    let mut row = SpanRow::default();
    BUILT_IN.apply(&span.attributes, &mut row);
    match (row.input_tokens, row.output_tokens) {
        (None, None) => None,
        (input, output) => Some((input.unwrap_or(0), output.unwrap_or(0))),
    }
}

/// The kind, and the stage: what the program calls it, else by kind, else by name.
fn name_kind_and_stage(row: &mut SpanRow) {
    if row.kind.is_empty() {
        "span".clone_into(&mut row.kind);
    }
    if row.stage.is_empty() {
        row.stage = match row.kind.as_str() {
            "llm" => "llm".to_owned(),
            "embedding" => "embed".to_owned(),
            "retriever" => "retrieve".to_owned(),
            "reranker" => "rerank".to_owned(),
            _ => row.name.clone(),
        };
    }
}

fn flags(span: &OpenSpan, verdict: &super::open::Verdict, end_unix_ns: i64) -> Option<String> {
    let ended_before_start = span.end_unix_ns.is_some_and(|end| end < span.start_unix_ns());
    let is_extended =
        span.is_stream_extended && span.last_token_unix_ns.is_some_and(|t| t == end_unix_ns);
    let flags: Vec<&str> = [
        (verdict.is_orphan, "orphan"),
        (ended_before_start, "end_before_start"),
        (span.status == Status::Unfinished, "unfinished"),
        (is_extended, "stream_extended"),
        (verdict.tokens_disagree, "tokens_disagree"),
    ]
    .into_iter()
    .filter_map(|(is_set, flag)| is_set.then_some(flag))
    .collect();
    (!flags.is_empty()).then(|| flags.join(","))
}

/// Attributes as the text of a JSON object; `None` when there are none.
pub(super) fn json_object(attributes: &Attributes) -> Option<String> {
    if attributes.is_empty() {
        return None;
    }
    let object: serde_json::Map<String, serde_json::Value> =
        attributes.iter().map(|(key, value)| (key.to_string(), value.to_json())).collect();
    Some(serde_json::Value::Object(object).to_string())
}
