//! `retake workload`: public traces and recorded runs as files that can be replayed.

use crate::support::{Bench, assert_fields, int, text};

/// Three requests, of which the second was recorded before the first had come.
pub(crate) const AZURE: &str = "TIMESTAMP,ContextTokens,GeneratedTokens\n\
    2023-11-16 18:15:47.0000000,100,10\n\
    2023-11-16 18:15:46.5000000,200,20\n\
    2023-11-16 18:15:49.0000000,300,30\n";

/// Scenario: a public trace is imported, looked at, sped up, and sampled.
/// Guarantees: the JSON contracts; what is out of order is said; each step is a file of its own.
#[test]
fn a_public_trace_becomes_a_workload() {
    let bench = Bench::new();
    bench.write("azure.csv", AZURE);
    let import = ["workload", "import", "azure.csv", "-o", "w.parquet", "--format", "json"];
    let report = bench.retake(import).expect_code(0).json();
    assert_fields(&report, &["format", "operations", "workload", "bad_lines", "shared_stamps"]);
    assert_eq!((text(&report["format"]), int(&report["operations"])), ("azure-csv".into(), 3));
    assert_eq!((int(&report["inversions"]), int(&report["inversion_ns_max"])), (1, 500_000_000));
    let stats = |file: &str| {
        bench.retake(["workload", "stats", file, "--format", "json"]).expect_code(0).json()
    };
    let found = stats("w.parquet");
    assert_eq!((int(&found["span_ns"]), int(&found["tokens_in"]["sum"])), (2_500_000_000, 600));
    assert_eq!(found["workload"], report["workload"]);

    let scale = ["workload", "scale", "w.parquet", "--speed", "2.5", "-o", "fast.parquet"];
    bench.retake(scale).expect_code(0);
    assert_eq!(int(&stats("fast.parquet")["span_ns"]), 1_000_000_000);
    let sample = ["workload", "sample", "w.parquet", "--operations", "2", "-o", "few.parquet"];
    bench.retake(sample).expect_code(0).expect_message(&["2 operations"]);
    let shown = bench.retake(["workload", "stats", "few.parquet", "--format", "table"]);
    assert!(shown.expect_code(0).stdout.contains("tokens out"));
}

/// Scenario: a trace with a bad line, one of unknown format, one that is not there, and a file that
/// is no workload.
/// Guarantees: the exit code of each, the line's number, and what to do; no file is left behind.
#[test]
fn a_trace_that_cannot_be_read_says_where() {
    let bench = Bench::new();
    bench.write("bad.csv", AZURE.replace(",200,", ",many,"));
    bench.write("what.txt", "nothing known\n");
    let import = |file| ["workload", "import", file, "-o", "w.parquet"];
    bench.retake(import("bad.csv")).expect_code(5).expect_message(&["line 3", "--skip-bad"]);
    bench.retake(import("what.txt")).expect_code(2).expect_message(&["--as", "ragpulse"]);
    bench.retake(import("none.csv")).expect_code(3);
    assert!(!bench.path("w.parquet").exists());
    let skip = ["workload", "import", "bad.csv", "--skip-bad", "-o", "w.parquet"];
    bench.retake(skip).expect_code(0).expect_message(&["left out", "line 3"]);
    bench.write("fake.parquet", "PAR1 no PAR1");
    bench.retake(["workload", "stats", "fake.parquet"]).expect_code(5);
}

/// Scenario: a workload is cut out of a recorded run.
/// Guarantees: it has the run's operations with their inputs, and links back to them.
#[test]
fn a_workload_is_cut_out_of_a_run() {
    let bench = Bench::with_documents();
    bench.retake(["rag", "ask", "Who guards Esha?", "--capture", "full"]).expect_code(0);
    bench.retake(["workload", "cut", "last", "-o", "w.parquet"]).expect_code(0);
    let stats = ["workload", "stats", "w.parquet", "--format", "json"];
    let from_file = bench.retake(stats).expect_code(0).json();
    let from_run = bench.retake(["workload", "stats", "last", "--format", "json"]).expect_code(0);
    assert_eq!(from_file, from_run.json());
    assert_eq!((int(&from_file["with_input"]), int(&from_file["kinds"]["query"])), (1, 1));
    let window = ["workload", "cut", "w.parquet", "--from", "0s", "--for", "1s", "-o", "v.parquet"];
    bench.retake(window).expect_code(0);
    let stats = ["workload", "stats", "v.parquet", "--format", "json"];
    assert_eq!(bench.retake(stats).expect_code(0).json(), from_file);
    let empty = ["workload", "cut", "w.parquet", "--from", "1h", "-o", "x.parquet"];
    bench.retake(empty).expect_code(2).expect_message(&["nothing is due"]);
    bench.retake(["rag", "ask", "Who guards Esha?", "--capture", "digest"]).expect_code(0);
    let cut = bench.retake(["workload", "cut", "last", "-o", "w.parquet"]).expect_code(0);
    cut.expect_message(&["1 of 1", "--capture full"]);
}

/// Scenario: a replay in virtual time, by requests and by tokens, two stages with a queue.
/// Guarantees: it is a run: one trace an operation, from arrival to end; stages with what they waited
/// and where they came from; tokens at the model's times; the numbers are those of the report. With
/// `--no-record` there is none.
#[test]
fn a_replay_in_virtual_time_is_a_run() {
    let bench = Bench::new();
    bench.write("azure.csv", AZURE);
    bench.retake(["workload", "import", "azure.csv", "-o", "w.parquet"]).expect_code(0);
    let stage = |name: &str, service: &str| {
        format!(r#"{{"stage": "{name}", "slots": 1, "service": {{"linear": {service}}}}}"#)
    };
    let linear = r#"{"base_ns": 3e7, "input_token_ns": 8e4, "output_token_ns": 1.13e7}"#;
    let stages = [stage("retrieve", r#"{"base_ns": 4e6}"#), stage("llm", linear)].join(", ");
    bench.write("model.json", format!(r#"{{"stages": [{stages}]}}"#));
    let base = ["replay", "run", "w.parquet", "--clock", "virtual", "--model", "model.json"];
    let run = |options: &[&str]| {
        let words = [&base[..], &["--format", "json"], options].concat();
        bench.retake(words).expect_code(0).json()
    };
    let none = run(&["--no-record"]);
    assert!(none["run_id"].is_null(), "{none}");
    bench.retake(["runs"]).expect_code(3);
    for (options, tokens) in [(&[][..], 3), (&["--tokens"][..], 60)] {
        let report = run(options);
        let run_id = report["run_id"].as_str().expect("a run");
        let sql = |query: &str| {
            let query = query.replace("$run", run_id);
            let found = bench.retake(["sql", &query, "--format", "json"]).expect_code(0).json();
            found["rows"].clone()
        };
        let roots = sql("SELECT count(*) AS n, max(duration_ns) AS longest FROM spans \
                         WHERE run_id = '$run' AND parent_span_id IS NULL AND status = 'ok'");
        assert_eq!(int(&roots[0]["n"]), 3, "{roots}");
        assert_eq!(int(&roots[0]["longest"]), int(&report["latency"]["max_ns"]));
        let stages = sql("SELECT stage, count(*) AS n, max(queue_ns) AS waited, \
                          max(stage_source) AS source FROM spans WHERE run_id = '$run' \
                          AND parent_span_id IS NOT NULL GROUP BY stage ORDER BY stage");
        assert_eq!(stages.as_array().map(Vec::len), Some(1), "{stages}");
        assert_eq!(
            (&stages[0]["stage"], &stages[0]["source"]),
            (&"retrieve".into(), &"model".into())
        );
        assert_eq!(int(&stages[0]["waited"]), int(&report["stages"][0]["queue"]["max_ns"]));
        let arrived = sql("SELECT sum(token_count) AS n FROM tokens WHERE run_id = '$run'");
        assert_eq!(int(&arrived[0]["n"]), tokens, "{arrived}");
        let labels = bench.retake(["runs", "show", run_id, "--format", "json"]).expect_code(0);
        assert_eq!(labels.json()["labels"]["retake.clock"], "virtual");
    }
    bench.retake(["breakdown", "last"]).expect_code(0);
}

/// Scenario: a public trace is replayed in virtual time, with every arrival policy.
/// Guarantees: R1 - the same digest each time, token by token and request by request; the
/// accounting closes; a policy the trace cannot support exits with 30, a wrong model with 2.
#[test]
fn a_trace_is_replayed_in_virtual_time() {
    let bench = Bench::new();
    bench.write("azure.csv", AZURE);
    bench.retake(["workload", "import", "azure.csv", "-o", "w.parquet"]).expect_code(0);
    let linear = r#"{"base_ns": 3e7, "input_token_ns": 8e4, "output_token_ns": 1.13e7}"#;
    let stage = format!(r#"{{"stage": "llm", "slots": 1, "service": {{"linear": {linear}}}}}"#);
    bench.write("model.json", format!(r#"{{"stages": [{stage}]}}"#));
    let base = ["replay", "run", "w.parquet", "--clock", "virtual", "--format", "json"];
    let run = |options: &[&str], code: i32| {
        bench.retake([base.as_slice(), options].concat()).expect_code(code)
    };
    let first = run(&["--model", "model.json"], 0).json();
    let again = run(&["--model", "model.json", "--tokens"], 0).json();
    assert_eq!(first["digest"], again["digest"]);
    assert!(int(&again["events"]) > int(&first["events"]));
    assert_fields(&first, &["planned", "latency", "first_token", "stages", "verdict", "took_ns"]);
    let parts = ["ok", "error", "cancelled", "refused"].map(|part| int(&first[part]));
    assert_eq!((int(&first["planned"]), parts), (3, [3, 0, 0, 0]));
    // 30 ms + 200 x 80 us + 19 x 11.3 ms, and nobody before it.
    assert_eq!(int(&first["latency"]["p50_ns"]), 260_700_000);
    for policy in ["closed:2", "poisson:100", "scale-sessions:3", "session"] {
        run(&["--model", "model.json", "--arrival", policy], 0);
    }
    run(&["--model", "model.json", "--arrival", "sometimes"], 2).expect_message(&["poisson:"]);
    run(&[], 2).expect_message(&["--model"]);
    run(&["--model", "model.json", "--set", "workers=2"], 2).expect_message(&["workers=2"]);
    bench.write("wrong.json", r#"{"stages": []}"#);
    run(&["--model", "wrong.json"], 2);
    // What cannot be written down is still an answer.
    bench.write("no-folder", "");
    let told = [&base[..], &["--model", "model.json", "--store", "no-folder"]].concat();
    let unrecorded = bench.retake(told).expect_code(0);
    let unrecorded = unrecorded.expect_message(&["not recorded", "no-folder"]);
    assert!(unrecorded.json()["run_id"].is_null());
    bench.retake(["replay", "run", "w.parquet", "--no-record"]).expect_code(2);
    let wall = bench.retake(["replay", "run", "w.parquet"]).expect_code(30);
    wall.expect_message(&["--clock virtual"]);
}
