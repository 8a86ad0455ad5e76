//! `retake explain`, `bubble-up` and `what-if`: why, and what if.

use std::fmt::Write as _;

use crate::support::{Bench, text};

/// Twenty requests of a run: a model that takes `model_ms`, after reranking, beside a tool. Every
/// fourth is of tenant `acme` and waits three times as long.
fn import(bench: &Bench, name: &str, model: &str, model_ms: u64) {
    let mut spans = String::new();
    for request in 1..=20_u64 {
        let start = 1_790_000_000_000_000_000 + request * 1_000_000_000;
        let is_acme = request % 4 == 0;
        let model_ms = if is_acme { model_ms * 3 } else { model_ms };
        let tenant = if is_acme { "acme" } else { "umbrella" };
        for (id, stage, from_ms, ms) in [
            (1, "query", 0, 40 + model_ms),
            (2, "rerank", 0, 40),
            (3, "llm", 40, model_ms),
            (4, "tool", 0, 10),
        ] {
            let (from, to) = (start + from_ms * 1_000_000, start + (from_ms + ms) * 1_000_000);
            let comma = if spans.is_empty() { "" } else { "," };
            let parent = if id == 1 { "" } else { r#""parentSpanId":"0000000000000001","# };
            write!(
                spans,
                r#"{comma}{{"traceId":"{request:032x}","spanId":"{id:016x}",{parent}"name":"{stage}","startTimeUnixNano":"{from}","endTimeUnixNano":"{to}","attributes":[{{"key":"retake.stage","value":{{"stringValue":"{stage}"}}}},{{"key":"gen_ai.request.model","value":{{"stringValue":"{model}"}}}},{{"key":"tenant","value":{{"stringValue":"{tenant}"}}}}]}}"#
            )
            .expect("a string");
        }
    }
    let body = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{spans}]}}]}}]}}"#);
    bench.write("traces.jsonl", body);
    bench.retake(["import", "traces.jsonl", "--run", name]).expect_code(0);
}

/// Scenario: a model took 60 ms, 180 for one tenant; reranking 40 ms; a tool ran beside it.
/// Guarantees: what slow traces have in common is the tenant; a model twice as fast saves half its
/// time; a tool that nobody waited for saves nothing; the best stage comes first.
#[test]
fn slow_traces_are_explained_and_speed_is_valued() {
    let bench = Bench::new();
    import(&bench, "nightly", "big", 60);
    let json = ["bubble-up", "last", "--where", "duration_ns > 150e6", "--format", "json"];
    let found = bench.retake(json).expect_code(0).json();
    assert_eq!((&found["selected"], &found["others"]), (&5.into(), &15.into()));
    let [first, second] = [&found["lifts"][0], &found["lifts"][1]];
    assert_eq!(
        (text(&first["attribute"]), text(&first["value"])),
        ("tenant".into(), "acme".into())
    );
    assert_eq!(
        (first["selected_share"].as_f64(), first["other_share"].as_f64()),
        (Some(1.0), Some(0.0))
    );
    assert_eq!(text(&second["value"]), "umbrella");
    // Without a condition: the slowest tenth, here all that are equally slow or fewer.
    let shown = bench.retake(["bubble-up", "--format", "table"]).expect_code(0).stdout;
    assert!(shown.contains("tenant = acme") && shown.contains("+100.0 points"), "{shown}");

    let half =
        bench.retake(["what-if", "last", "llm*0.5", "--format", "json"]).expect_code(0).json();
    let mean = &half["rows"][0];
    // 15 traces of 100 ms and 5 of 220 become 70 and 130.
    assert_eq!(mean["before_ns"].as_f64(), Some(130e6));
    assert_eq!(mean["after_ns"].as_f64(), Some(85e6));
    let curves = bench.retake(["what-if", "--format", "json"]).expect_code(0).json();
    let stages = curves["stages"].as_array().expect("stages");
    let order: Vec<String> = stages.iter().map(|stage| text(&stage["stage"])).collect();
    assert_eq!(order[..2], ["llm", "rerank"]);
    let of_tool = stages.iter().find(|stage| stage["stage"] == "tool").expect("the tool");
    assert_eq!(of_tool["points"][4]["mean_change"].as_f64(), Some(0.0));
    let shown = bench.retake(["what-if", "rerank*0", "--format", "table"]).expect_code(0);
    assert!(shown.stdout.contains("rerank x 0"), "{}", shown.stdout);
    assert!(shown.stderr.contains("retake replay"), "{}", shown.stderr);
}

/// Scenario: four runs with one model, four with another that takes a half longer.
/// Guarantees: the finding, its stage, and the model that differs are said, in words and as JSON.
#[test]
fn a_regression_is_explained_by_what_differs() {
    let bench = Bench::new();
    for (name, model, ms) in [("before", "big", 60), ("after", "bigger", 90)] {
        for run in 0..5 {
            import(&bench, name, model, ms + run);
        }
    }
    let args = ["explain", "before*5", "after*5"];
    let shown =
        bench.retake(args.iter().chain(&["--format", "table"]).copied()).expect_code(0).stdout;
    assert!(shown.contains("REGRESSION") && shown.contains("cause: llm"), "{shown}");
    assert!(shown.contains("model_request") && shown.contains("bigger"), "{shown}");
    let found =
        bench.retake(args.iter().chain(&["--format", "json"]).copied()).expect_code(0).json();
    assert_eq!(text(&found["comparison"]["findings"][0]["stage"]), "llm");
    let attributes = found["attributes"].as_array().expect("attributes");
    let is_model = |lift: &&serde_json::Value| lift["value"] == "bigger";
    let lift = attributes.iter().find(is_model).expect("the model");
    assert_eq!(lift["selected_share"].as_f64(), Some(1.0));
    let same = bench.retake(["explain", "before*5", "before*5"]).expect_code(2).stderr;
    assert!(same.contains("with itself"), "{same}");
}

/// Guarantees: what cannot be answered is refused with what to write instead.
#[test]
fn questions_that_make_no_sense_are_refused() {
    let bench = Bench::new();
    import(&bench, "nightly", "big", 60);
    for (args, code, reason) in [
        (["what-if", "last", "llm"], 2, "STAGE*FACTOR"),
        (["what-if", "last", "llm*-1"], 2, "STAGE*FACTOR"),
        (["what-if", "last", "model*0.5"], 3, "it has llm, query, rerank, tool"),
        (["bubble-up", "last", "--where=nonsense > 1"], 2, "nonsense"),
        (["bubble-up", "last", "--where=duration_ns > 1e18"], 3, "no trace satisfies"),
        (["bubble-up", "last", "--where=duration_ns > 0"], 3, "every trace satisfies"),
        (["what-if", "last", "--format=csv"], 2, "what_if()"),
    ] {
        let said = bench.retake(args).expect_code(code).stderr;
        assert!(said.contains(reason), "{args:?}: {said}");
    }
}
