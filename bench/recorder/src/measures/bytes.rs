//! Bytes a span takes on disk: retake's sealed Parquet beside OTLP and JSON of the same spans.
//!
//! Peers are written request by request, which suits compression better than the order in which
//! spans end; retake gets them interleaved, as a live program emits them.

use std::path::Path;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, TracesData};
use prost::Message;

use super::Effort;
use super::synthetic::{Field, SyntheticSpan, TARGET, spans};
use crate::doors;
use crate::error::BenchError;
use crate::reading::Reading;

/// Encodes the synthetic workload in every way.
///
/// # Errors
/// retake cannot record it, or something cannot be compressed or encoded.
pub(super) fn measure(effort: Effort, folder: &Path) -> Result<Reading, BenchError> {
    let spans = spans(effort.synthetic_requests);
    let count = spans.len().max(1) as f64;
    let mut reading = Reading::default();
    let kept = doors::record_given(folder, &spans)?;
    if kept.spans != Some(spans.len() as u64) {
        let detail = format!("{:?} of {} given spans are sealed", kept.spans, spans.len());
        return Err(BenchError::Retake(detail));
    }
    reading.put("retake_bytes_per_span", kept.bytes.unwrap_or_default() as f64 / count);
    let otlp = otlp(&spans)?;
    reading.put("otlp_bytes_per_span", otlp.raw as f64 / count);
    reading.put("otlp_zstd_bytes_per_span", otlp.compressed as f64 / count);
    let json = json_lines(&spans)?;
    reading.put("json_bytes_per_span", json.raw as f64 / count);
    reading.put("json_zstd_bytes_per_span", json.compressed as f64 / count);
    reading.put("spans", count);
    let fields: usize = spans.iter().map(|span| span.fields.len()).sum();
    reading.put("fields_per_span", fields as f64 / count);
    Ok(reading)
}

#[derive(Debug, Default)]
struct Sizes {
    raw: usize,
    compressed: usize,
}

/// OTLP protobuf in the batches of an OpenTelemetry SDK, each compressed, as a collector sends
/// them.
fn otlp(spans: &[SyntheticSpan]) -> Result<Sizes, BenchError> {
    let mut sizes = Sizes::default();
    for batch in spans.chunks(OTLP_BATCH_SPANS) {
        let scope_spans = ScopeSpans {
            scope: Some(InstrumentationScope { name: TARGET.to_owned(), ..Default::default() }),
            spans: batch.iter().map(|span| otlp_span(span, spans)).collect(),
            ..Default::default()
        };
        let resource_spans =
            vec![ResourceSpans { scope_spans: vec![scope_spans], ..Default::default() }];
        let bytes = TracesData { resource_spans }.encode_to_vec();
        sizes.raw += bytes.len();
        sizes.compressed += compressed_len(&bytes)?;
    }
    Ok(sizes)
}

fn otlp_span(span: &SyntheticSpan, all: &[SyntheticSpan]) -> Span {
    Span {
        trace_id: span.trace.to_vec(),
        span_id: span.id.to_vec(),
        parent_span_id: parent_id(span, all).map_or_else(Vec::new, |id| id.to_vec()),
        name: span.name.to_owned(),
        kind: SpanKind::Internal.into(),
        start_time_unix_nano: span.start_unix_ns.unsigned_abs(),
        end_time_unix_nano: span.end_unix_ns.unsigned_abs(),
        attributes: span.fields.iter().map(|(key, field)| key_value(key, field)).collect(),
        ..Default::default()
    }
}

fn key_value(key: &str, field: &Field) -> KeyValue {
    let value = match field {
        Field::Int(value) => Value::IntValue(*value),
        Field::Float(value) => Value::DoubleValue(*value),
        Field::Text(value) => Value::StringValue(value.clone()),
        Field::Flag(value) => Value::BoolValue(*value),
    };
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.to_owned(), value, ..Default::default() }
}

/// One JSON object a line, ids in hex, as log pipelines carry spans; compressed as one file.
fn json_lines(spans: &[SyntheticSpan]) -> Result<Sizes, BenchError> {
    let mut lines = Vec::new();
    for span in spans {
        let fields: serde_json::Map<_, _> =
            span.fields.iter().map(|(key, field)| ((*key).to_owned(), json_value(field))).collect();
        let line = serde_json::json!({
            "level": "INFO",
            "target": TARGET,
            "name": span.name,
            "trace_id": hex(&span.trace),
            "span_id": hex(&span.id),
            "parent_span_id": parent_id(span, spans).map(|id| hex(&id)),
            "start_time_unix_nano": span.start_unix_ns.to_string(),
            "end_time_unix_nano": span.end_unix_ns.to_string(),
            "attributes": fields,
        });
        serde_json::to_writer(&mut lines, &line)?;
        lines.push(b'\n');
    }
    Ok(Sizes { raw: lines.len(), compressed: compressed_len(&lines)? })
}

fn json_value(field: &Field) -> serde_json::Value {
    match field {
        Field::Int(value) => (*value).into(),
        Field::Float(value) => (*value).into(),
        Field::Text(value) => value.as_str().into(),
        Field::Flag(value) => (*value).into(),
    }
}

fn parent_id(span: &SyntheticSpan, all: &[SyntheticSpan]) -> Option<[u8; 8]> {
    span.parent.and_then(|at| all.get(at)).map(|parent| parent.id)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn compressed_len(bytes: &[u8]) -> Result<usize, BenchError> {
    zstd::bulk::compress(bytes, ZSTD_LEVEL)
        .map(|compressed| compressed.len())
        .map_err(BenchError::io("compress", "spans of a peer"))
}

/// The batch size of the OpenTelemetry SDK.
const OTLP_BATCH_SPANS: usize = 512;
/// The level retake seals with.
const ZSTD_LEVEL: i32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: the sizes of peers are what their readers can decode.
    #[test]
    fn otlp_and_json_of_the_same_spans_carry_every_span() {
        let spans = spans(2);
        let first = spans.first().unwrap();
        let decoded = Span::decode(otlp_span(first, &spans).encode_to_vec().as_slice()).unwrap();
        assert_eq!(decoded.name, first.name);
        assert_eq!(decoded.attributes.len(), first.fields.len());
        assert!(otlp(&spans).unwrap().raw < json_lines(&spans).unwrap().raw);
    }

    /// Scenario: retake records the synthetic workload.
    #[test]
    fn every_given_span_is_sealed() {
        let folder = tempfile::tempdir().unwrap();
        let spans = spans(20);
        let kept = doors::record_given(folder.path(), &spans).unwrap();
        assert_eq!((kept.spans, kept.dropped), (Some(spans.len() as u64), Some(0)));
    }
}
