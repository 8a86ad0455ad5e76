//! `retake model`: models for virtual time, out of what was recorded.

use serde_json::{Value, json};

use crate::support::Bench;

/// Calls of a model as any program reports them, without texts: 20 ms, 50 us an input token until the
/// first token, 5 ms for each further one.
fn record(bench: &Bench, calls: u64) {
    let number = |key: &str, value: u64| json!({ "key": key, "value": { "intValue": value } });
    let text = |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
    let span = |n: u64| {
        let (input, output) = (100 + n * 97 % 2_000, 2 + n * 31 % 150);
        let first_ns = 20_000_000 + 50_000 * input;
        let start = 1_790_000_000_000_000_000 + n * 40_000_000;
        let first = first_ns as f64 / 1e9;
        json!({
            "traceId": format!("{:032x}", n + 1), "spanId": format!("{:016x}", n + 1), "name": "chat",
            "startTimeUnixNano": start.to_string(),
            "endTimeUnixNano": (start + first_ns + 5_000_000 * (output - 1)).to_string(),
            "attributes": [
                text("gen_ai.operation.name", "chat"), text("gen_ai.request.model", "m"),
                number("gen_ai.usage.input_tokens", input), number("gen_ai.usage.output_tokens", output),
                json!({ "key": "gen_ai.response.time_to_first_chunk", "value": { "doubleValue": first } }),
            ],
        })
    };
    let spans: Vec<Value> = (0..calls).map(span).collect();
    let body = json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": spans }] }] });
    bench.write("otlp.json", body.to_string());
    bench.retake(["import", "otlp.json", "--run", "calls"]).expect_code(0);
}

/// Scenario: a run of calls without a text is fitted, held against itself, and replayed by the model
/// in virtual time, twice as fast.
/// Guarantees: the coefficients come out; the model file is one that a replay takes; latencies by the
/// model are those recorded.
#[test]
fn a_recording_becomes_a_model_that_replays_it() {
    let bench = Bench::new();
    record(&bench, 60);
    let fit = ["model", "fit", "calls", "-o", "model.json", "--format", "json"];
    let found = bench.retake(fit).expect_code(0).json();
    let service = &found["fitted"]["model"]["stages"][0]["service"]["linear"];
    let of = |name: &str| service[name].as_f64().expect("a number");
    assert!((of("base_ns") / 20e6 - 1.0).abs() < 0.05, "{service}");
    assert!((of("input_token_ns") / 50e3 - 1.0).abs() < 0.05, "{service}");
    assert!((of("output_token_ns") / 5e6 - 1.0).abs() < 0.02, "{service}");
    assert!(found["fitted"]["error_median"].as_f64().expect("an error") < 0.02, "{found}");
    let check = ["model", "check", "calls", "--model", "model.json", "--format", "json"];
    let checked = bench.retake(check).expect_code(0).json();
    let errors = checked["errors"].as_array().expect("errors");
    assert!(errors.iter().all(|error| error.as_f64().expect("one").abs() < 0.02), "{checked}");
    let replay = ["replay", "run", "calls", "--clock", "virtual", "--model", "model.json"];
    bench.retake([&replay[..], &["--speed", "2", "--kind", "chat"]].concat()).expect_code(0);
    // A prediction may be held against what happened, but nothing is decided by it.
    bench.retake(["diff", "calls", "last"]).expect_code(0).expect_message(&["was simulated"]);
    let gate = bench.retake(["diff", "calls", "last", "--fail-on-regression"]);
    gate.expect_code(2).expect_message(&["no baseline"]);
    let baseline = bench.retake(["baseline", "set", "main", "last"]);
    baseline.expect_code(2).expect_message(&["simulated"]);
    bench.retake(["baseline", "set", "main", "calls"]).expect_code(0);
    let other = bench.retake([&replay[..], &["--kind", "embeddings"]].concat());
    other.expect_code(2).expect_message(&["embeddings", "chat"]);

    let bench = Bench::new();
    record(&bench, 3);
    bench.retake(fit).expect_code(30).expect_message(&["3 operations", "at least 8"]);
    assert!(!bench.path("model.json").exists());
    let nothing = ["model", "fit", "calls", "-o", "m.json", "--kind", "nosuch"];
    bench.retake(nothing).expect_code(2).expect_message(&["nosuch", "chat"]);
}
