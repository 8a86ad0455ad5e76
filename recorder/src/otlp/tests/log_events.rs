//! What log records and metrics say of spans.

use retake_schemas::tables::SpanRow;

use super::{Encoding, Found, Signal, json_body, json_span, record, text};

const TRACE: &str = "0102030405060708090a0b0c0d0e0f10";

/// A log event of span `id` as OTLP/JSON.
fn event(id: u8, name: &str, body: &str, attributes: &str) -> String {
    let body = if body.is_empty() { String::new() } else { format!(r#","body":{body}"#) };
    format!(
        r#"{{"timeUnixNano":"1790000000100000000","severityNumber":9,"eventName":"{name}","traceId":"{TRACE}",
        "spanId":"00000000000000{id:02x}","attributes":[{attributes}]{body}}}"#
    )
}

fn log_body(events: &[String]) -> String {
    format!(
        r#"{{"resourceLogs":[{{"scopeLogs":[{{"scope":{{"name":"app"}},"logRecords":[{}]}}]}}]}}"#,
        events.join(",")
    )
}

/// A body of a GenAI message event with `content`.
fn content(content: &str) -> String {
    let content = text("content", content);
    format!(r#"{{"kvlistValue":{{"values":[{content}]}}}}"#)
}

fn traces(spans: &[String]) -> (Signal, String) {
    (Signal::Traces, json_body("test", spans))
}

fn logs(events: &[String]) -> (Signal, String) {
    (Signal::Logs, log_body(events))
}

fn found(bodies: &[(Signal, String)]) -> Found {
    let bodies: Vec<_> =
        bodies.iter().map(|(signal, body)| (*signal, Encoding::Json, body.as_bytes())).collect();
    let (answers, found) = record(&bodies);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    found
}

fn contents(found: &Found, row: &SpanRow) -> [Option<String>; 2] {
    [&row.input_ref, &row.output_ref].map(|digest| {
        let payload = found.payloads.iter().find(|p| Some(&p.digest) == digest.as_ref())?;
        payload.content.clone()
    })
}

fn call(id: u8) -> String {
    json_span(id, None, &text("gen_ai.operation.name", "chat"))
}

/// Scenario: an event with the contents and the usage of a call, before the call's span and after.
/// Guarantees: the span has them either way.
#[test]
fn details_of_a_call_reach_its_span_whichever_comes_first() {
    let attributes = [
        text("gen_ai.input.messages", r#"[{"role":"user"}]"#),
        text("gen_ai.output.messages", r#"[{"role":"assistant"}]"#),
        r#"{"key":"gen_ai.usage.input_tokens","value":{"intValue":"23"}}"#.to_owned(),
        r#"{"key":"gen_ai.usage.output_tokens","value":{"intValue":"0"}}"#.to_owned(),
    ]
    .join(",");
    let details = event(1, "gen_ai.client.inference.operation.details", "", &attributes);
    let (span, details) = (traces(&[call(1)]), logs(&[details]));
    for bodies in [[details.clone(), span.clone()], [span, details]] {
        let found = found(&bodies);
        let [row] = found.spans.as_slice() else { panic!("{:?}", found.spans) };
        assert_eq!((row.input_tokens, row.output_tokens), (Some(23), Some(0)));
        assert_eq!((row.tokens_source.as_str(), row.tokens_counted), ("provider", true));
        let [input, output] = contents(&found, row);
        assert_eq!(input.as_deref(), Some(r#"[{"role":"user"}]"#));
        assert_eq!(output.as_deref(), Some(r#"[{"role":"assistant"}]"#));
    }
}

/// Scenario: the older form, an event per message, in two batches around the span; sent again.
/// Guarantees: they become one input and one output, in order, once.
#[test]
fn messages_in_events_of_their_own_become_input_and_output() {
    let before = logs(&[
        event(1, "gen_ai.system.message", &content("Be brief."), ""),
        event(1, "gen_ai.user.message", &content("why?"), ""),
    ]);
    let choice = r#"{"kvlistValue":{"values":[
        {"key":"finish_reason","value":{"stringValue":"stop"}},
        {"key":"message","value":{"kvlistValue":{"values":[
            {"key":"role","value":{"stringValue":"assistant"}},
            {"key":"content","value":{"stringValue":"so"}}]}}}]}}"#;
    let after = logs(&[event(1, "gen_ai.choice", choice, "")]);
    let found = found(&[before.clone(), traces(&[call(1), call(2)]), after.clone(), before, after]);
    assert_eq!(found.events.len(), 3);
    let [input, output] = contents(&found, &found.spans[0]);
    assert_eq!(
        input.as_deref(),
        Some(
            r#"[{"role":"system","parts":[{"type":"text","content":"Be brief."}]},{"role":"user","parts":[{"type":"text","content":"why?"}]}]"#
        )
    );
    assert_eq!(
        output.as_deref(),
        Some(
            r#"[{"role":"assistant","parts":[{"type":"text","content":"so"}],"finish_reason":"stop"}]"#
        )
    );
    assert_eq!(contents(&found, &found.spans[1]), [None, None], "another span");
}

/// Scenario: an exception that is told in a log event, of a span whose status is unset.
/// Guarantees: the span failed, whichever came first; an ordinary log line changes nothing.
#[test]
fn an_exception_in_a_log_event_fails_its_span() {
    let exception = text("exception.type", "RateLimit") + "," + &text("exception.message", "no");
    let told = logs(&[
        event(1, "gen_ai.client.operation.exception", "", &exception),
        event(2, "app.note", r#"{"stringValue":"all well"}"#, ""),
    ]);
    let spans = traces(&[call(1), call(2)]);
    for bodies in [[told.clone(), spans.clone()], [spans, told]] {
        let found = found(&bodies);
        let seen: Vec<_> = found
            .spans
            .iter()
            .map(|row| (row.status.as_str(), row.error_type.as_deref(), row.is_error_origin))
            .collect();
        assert_eq!(seen, [("error", Some("RateLimit"), true), ("ok", None, false)]);
    }
}

/// Scenario: the points of a counter as two exporters send them, a restart between.
/// Guarantees: `measures` says how to add them up, and the same point sent again is no new one.
#[test]
fn samples_say_which_series_they_are_of() {
    let metric = |temporality: &str, start: u64, value: u64| {
        let body = format!(
            r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"name":"gen_ai.client.token.usage",
            "unit":"{{token}}","histogram":{{"aggregationTemporality":{temporality},"dataPoints":[
            {{"startTimeUnixNano":"{start}","timeUnixNano":"1790000000100000000","count":"1","sum":{value}}}]}}}}]}}]}}]}}"#
        );
        (Signal::Metrics, body)
    };
    let cumulative = r#""AGGREGATION_TEMPORALITY_CUMULATIVE""#;
    let found = found(&[
        metric(cumulative, 5, 10),
        metric("2", 5, 30),
        metric("2", 5, 30),
        metric(cumulative, 6, 7),
        metric("1", 7, 1),
        metric("1", 8, 2),
        metric("0", 8, 3),
    ]);
    let sums = found.measures.iter().filter(|row| row.name.ends_with(".sum"));
    let seen: Vec<(f64, serde_json::Value)> = sums
        .map(|row| {
            let attributes = row.attributes.as_deref().unwrap_or("{}");
            (row.value, serde_json::from_str(attributes).expect("an object"))
        })
        .collect();
    let values: Vec<f64> = seen.iter().map(|(value, _)| *value).collect();
    assert_eq!(values, [10.0, 30.0, 7.0, 1.0, 2.0, 3.0]);
    let series: Vec<_> = seen.iter().map(|(_, attributes)| &attributes["otel.series"]).collect();
    assert_eq!(series[0], series[1]);
    assert_ne!(series[1], series[2], "it was started again");
    assert_eq!(series[3], series[4], "a delta has no start of its own");
    assert!(series[5].is_null(), "nobody said how to add these");
    assert_eq!(seen[0].1["otel.start_unix_ns"], 5);
}
