//! OTLP read back gives the spans that were exported.

use std::collections::BTreeMap;

use retake_schemas::mapping::BUILT_IN;
use retake_schemas::tables::SpanRow;
use retake_schemas::{Attributes, Value as Attribute};
use serde_json::{Value, json};

use super::decode::{Field, all, fields, one};
use super::fixture::{Scratch, everything, export};
use crate::RunReader;
use crate::export::{Format, OtlpFraming};

fn exported(run: &RunReader, framing: OtlpFraming) -> Vec<u8> {
    export(run, Format::Otlp(framing)).0
}

/// Every span of OTLP/JSON requests, with its service, by trace and span id.
fn spans(requests: &[Value]) -> BTreeMap<(String, String), (String, Value)> {
    let mut spans = BTreeMap::new();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for request in requests {
        for resource in list(&request["resourceSpans"]) {
            let attributes = list(&resource["resource"]["attributes"]);
            let service = attributes.iter().find(|a| a["key"] == "service.name").unwrap();
            let service = service["value"]["stringValue"].as_str().unwrap();
            for scope in list(&resource["scopeSpans"]) {
                for span in list(&scope["spans"]) {
                    let id = |name: &str| span[name].as_str().unwrap().to_owned();
                    let key = (id("traceId"), id("spanId"));
                    assert!(spans.insert(key, (service.to_owned(), span)).is_none());
                }
            }
        }
    }
    spans
}

fn json_lines(bytes: &[u8]) -> Vec<Value> {
    let lines = std::str::from_utf8(bytes).unwrap().lines();
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn attribute(value: &Value) -> Attribute {
    let (kind, value) = value.as_object().unwrap().iter().next().unwrap();
    match kind.as_str() {
        "stringValue" => Attribute::Str(value.as_str().unwrap().to_owned()),
        "boolValue" => Attribute::Bool(value.as_bool().unwrap()),
        "intValue" => Attribute::Int(value.as_str().unwrap().parse().unwrap()),
        "doubleValue" => Attribute::Float(value.as_f64().unwrap()),
        "arrayValue" => {
            Attribute::List(value["values"].as_array().unwrap().iter().map(attribute).collect())
        }
        other => panic!("{other}"),
    }
}

/// Scenario: a run's spans are exported as OTLP, and their attributes are read by the mapping that
/// reads everybody's.
/// Guarantees: ids, times, parents, names, errors, and every mapped column are those of the run.
#[test]
fn attributes_read_back_give_the_same_columns() {
    let scratch = Scratch::new();
    let run = everything(&scratch);
    let read = spans(&json_lines(&exported(&run, OtlpFraming::JsonLines)));
    let rows = run.rows::<SpanRow>().unwrap();
    assert_eq!(read.len(), rows.len());
    for row in rows {
        let (service, span) = &read[&(row.trace_id.clone(), row.span_id.clone())];
        assert_eq!(Some(service), row.service.as_ref());
        assert_eq!(span["name"], row.name);
        assert_eq!(span["parentSpanId"].as_str(), row.parent_span_id.as_deref());
        assert_eq!(span["startTimeUnixNano"], row.start_unix_ns.to_string());
        let end = (row.start_unix_ns + row.duration_ns).to_string();
        assert_eq!(span["endTimeUnixNano"], end);
        assert_eq!(span["status"]["code"] == 2, row.status == "error");
        assert_eq!(span["status"]["message"].as_str(), row.error_message.as_deref());
        let attributes: Attributes = span["attributes"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|a| (a["key"].as_str().unwrap().to_owned().into(), attribute(&a["value"])))
            .collect();
        let mut again = SpanRow::default();
        BUILT_IN.apply(&attributes, &mut again);
        // What the fold adds where nobody said.
        let known =
            |word: &str, none: &str| if word == none { String::new() } else { word.to_owned() };
        assert_eq!(again.kind, known(&row.kind, "span"), "{}", row.name);
        assert_eq!(again.tokens_source, known(&row.tokens_source, "none"));
        let comparable = |row: &SpanRow| {
            (
                (row.operation.clone(), row.provider.clone(), row.model_request.clone()),
                (row.stream, row.ttft_ns, row.input_tokens, row.output_tokens),
                (row.cache_read_tokens, row.cost_usd, row.temperature, row.finish_reason.clone()),
                (row.input_ref.clone(), row.output_ref.clone(), row.error_type.clone()),
            )
        };
        assert_eq!(comparable(&again), comparable(&row), "{}", row.name);
    }
}

/// Scenario: the same run in all four framings.
/// Guarantees: they hold the same spans, byte for byte of every id, time, and text.
#[test]
fn all_framings_hold_the_same() {
    let scratch = Scratch::new();
    let run = everything(&scratch);
    let lines = json_lines(&exported(&run, OtlpFraming::JsonLines));
    let body: Value = serde_json::from_slice(&exported(&run, OtlpFraming::JsonBody)).unwrap();
    assert_eq!(spans(&lines), spans(std::slice::from_ref(&body)));
    let protobuf = exported(&run, OtlpFraming::ProtobufBody);
    assert_eq!(spans(&[request(&protobuf)]), spans(&lines));
    let delimited = exported(&run, OtlpFraming::ProtobufDelimited);
    let mut rest = delimited.as_slice();
    let mut requests = Vec::new();
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        let (bytes, behind) = behind.split_at(u32::from_be_bytes(*length) as usize);
        requests.push(request(bytes));
        rest = behind;
    }
    assert!(rest.is_empty());
    assert_eq!(spans(&requests), spans(&lines));
}

/// A protobuf request as OTLP/JSON, by the field numbers of opentelemetry-proto.
fn request(bytes: &[u8]) -> Value {
    let messages = |bytes: &[u8], number: u64, read: &dyn Fn(&[u8]) -> Value| -> Value {
        all(&fields(bytes), number).into_iter().map(|field| read(field.bytes())).collect()
    };
    let scope_spans = |bytes: &[u8]| json!({ "spans": messages(bytes, 2, &span) });
    let resource_spans = |bytes: &[u8]| {
        let resource = one(&fields(bytes), 1).unwrap().bytes();
        json!({
            "resource": { "attributes": messages(resource, 1, &key_value) },
            "scopeSpans": messages(bytes, 2, &scope_spans),
        })
    };
    json!({ "resourceSpans": messages(bytes, 1, &resource_spans) })
}

fn span(bytes: &[u8]) -> Value {
    let message = fields(bytes);
    let hex = |field: Field<'_>| -> String {
        field.bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let mut span = serde_json::Map::new();
    for (number, field) in &message {
        let (name, value): (&str, Value) = match number {
            1 => ("traceId", hex(*field).into()),
            2 => ("spanId", hex(*field).into()),
            4 => ("parentSpanId", hex(*field).into()),
            5 => ("name", field.text().into()),
            6 => ("kind", field.uint().into()),
            7 => ("startTimeUnixNano", field.uint().to_string().into()),
            8 => ("endTimeUnixNano", field.uint().to_string().into()),
            9 | 11 | 15 => continue,
            other => panic!("field {other}"),
        };
        span.insert(name.to_owned(), value);
    }
    for (number, name, read) in
        [(9, "attributes", key_value as fn(&[u8]) -> Value), (11, "events", event)]
    {
        let values: Vec<Value> =
            all(&message, number).into_iter().map(|field| read(field.bytes())).collect();
        if !values.is_empty() {
            span.insert(name.to_owned(), values.into());
        }
    }
    let status = one(&message, 15).map(|status| {
        let status = fields(status.bytes());
        json!({ "message": one(&status, 2).unwrap().text(), "code": one(&status, 3).unwrap().uint() })
    });
    span.insert("status".to_owned(), status.unwrap_or_else(|| json!({})));
    Value::Object(span)
}

fn event(bytes: &[u8]) -> Value {
    let message = fields(bytes);
    let attributes: Vec<Value> =
        all(&message, 3).into_iter().map(|field| key_value(field.bytes())).collect();
    json!({
        "timeUnixNano": one(&message, 1).unwrap().uint().to_string(),
        "name": one(&message, 2).unwrap().text(),
        "attributes": attributes,
    })
}

fn key_value(bytes: &[u8]) -> Value {
    let message = fields(bytes);
    let key = one(&message, 1).unwrap().text();
    json!({ "key": key, "value": any_value(one(&message, 2).unwrap().bytes()) })
}

fn any_value(bytes: &[u8]) -> Value {
    match fields(bytes).first() {
        None => json!({}),
        Some((1, text)) => json!({ "stringValue": text.text() }),
        Some((2, value)) => json!({ "boolValue": value.uint() == 1 }),
        Some((3, value)) => json!({ "intValue": (value.uint() as i64).to_string() }),
        Some((4, value)) => json!({ "doubleValue": f64::from_bits(value.uint()) }),
        Some((5, list)) => {
            let values: Vec<Value> = all(&fields(list.bytes()), 1)
                .into_iter()
                .map(|value| any_value(value.bytes()))
                .collect();
            json!({ "arrayValue": { "values": values } })
        }
        Some(other) => panic!("{other:?}"),
    }
}
