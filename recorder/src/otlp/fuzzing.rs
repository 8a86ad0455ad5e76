//! Bodies by chance, through everything but the journal.

use retake_schemas::Digest;

use super::intake::Decoded;
use super::span::{Surroundings, translate};
use super::{Aliases, Encoding, IntakeSettings, Signal, logs, metrics};

/// A body of any signal; the first byte chooses it.
pub fn protobuf(bytes: &[u8]) {
    body(Encoding::Protobuf, bytes);
}

/// The same in JSON.
pub fn json(bytes: &[u8]) {
    body(Encoding::Json, bytes);
}

fn body(encoding: Encoding, bytes: &[u8]) {
    let Some((first, body)) = bytes.split_first() else { return };
    let signal = match first % 3 {
        0 => Signal::Traces,
        1 => Signal::Logs,
        _ => Signal::Metrics,
    };
    let settings = IntakeSettings { decoded_bytes_max: 1 << 20, ..IntakeSettings::default() };
    let Ok(decoded) = Decoded::new(signal, encoding, body, &settings) else { return };
    let keep = |_: &str, text: &str| Some(Digest::of(text.as_bytes()));
    match decoded {
        Decoded::Spans(groups) => {
            let aliases = Aliases::default();
            let around = Surroundings {
                now_unix_ns: NOW_UNIX_NS,
                scope: "",
                service: None,
                aliases: &aliases,
                count_tokens: None,
                keep: &keep,
            };
            let scopes = groups.iter().flat_map(|group| &group.scopes);
            for span in scopes.flat_map(|scoped| &scoped.items) {
                let made = translate(span, &around);
                assert_eq!(made.is_some(), span.trace_id.and(span.span_id).is_some());
                if let Some(made) = made {
                    assert!(made.start_unix_ns > 0 && made.end_unix_ns > 0);
                }
            }
        }
        Decoded::Logs(groups) => {
            let scopes = groups.iter().flat_map(|group| &group.scopes);
            for record in scopes.flat_map(|scoped| &scoped.items) {
                assert!(logs::translate(record, "", NOW_UNIX_NS, &keep).time_unix_ns > 0);
            }
        }
        Decoded::Metrics(groups) => {
            let scopes = groups.iter().flat_map(|group| &group.scopes);
            let source = metrics::Source { resource: [0; 16], scope: "" };
            for metric in scopes.flat_map(|scoped| &scoped.items) {
                for point in &metric.points {
                    assert!(metrics::translate(metric, point, &source, NOW_UNIX_NS).0 > 0);
                }
            }
        }
    }
}

/// A whole request with a bit of everything, behind the byte that chooses spans.
pub(crate) fn json_seed() -> Vec<u8> {
    [&[0], SEED.as_bytes()].concat()
}

/// A span with an attribute, an event and a status.
pub(crate) fn protobuf_seed() -> Vec<u8> {
    let field = |tag: u8, inner: &[u8]| [&[tag, inner.len() as u8], inner].concat();
    let attribute = |tag, key: &[u8], value: &[u8]| {
        field(tag, &[field(0x0a, key), field(0x12, &field(0x0a, value))].concat())
    };
    let span = [
        field(0x0a, &[7; 16]),
        field(0x12, &[7; 8]),
        field(0x2a, b"chat"),
        [&[0x39][..], &NOW_UNIX_NS.to_le_bytes()].concat(),
        attribute(0x4a, b"openinference.span.kind", b"LLM"),
        attribute(0x4a, b"retrieval.documents.0.document.id", b"a"),
        field(0x5a, &field(0x12, b"exception")),
        field(0x7a, &[0x18, 2]),
    ]
    .concat();
    [&[0][..], &field(0x0a, &field(0x12, &field(0x12, &span)))].concat()
}

const NOW_UNIX_NS: i64 = 1_790_000_000_000_000_000;
const SEED: &str = r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"s"}}]},"scopeSpans":[{"scope":{"name":"n","version":"1"},"spans":[{"traceId":"0102030405060708090a0b0c0d0e0f10","spanId":"0102030405060708","name":"chat","kind":3,"startTimeUnixNano":"1790000000000000000","endTimeUnixNano":1790000000000000009,"attributes":[{"key":"llm.input_messages.0.message.content","value":{"stringValue":"why?"}},{"key":"a","value":{"arrayValue":{"values":[{"intValue":"1"},{"doubleValue":0.5},{"boolValue":true}]}}},{"key":"m","value":{"kvlistValue":{"values":[{"key":"b","value":{"bytesValue":"AA=="}}]}}}],"events":[{"name":"First Token Stream Event","timeUnixNano":"1790000000000000001"}],"links":[{"traceId":"0102030405060708090a0b0c0d0e0f10","spanId":"0102030405060709"}],"status":{"code":2,"message":"no"}}]}]}]}"#;
