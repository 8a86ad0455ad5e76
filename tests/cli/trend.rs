//! `retake trend`: a metric over runs that were imported one after the other.

use std::fmt::Write as _;

use crate::support::{Bench, assert_fields, int, text};

/// Imports a run of six requests: reranking takes about `rerank_ms`, the model 100 ms. The folder
/// is that of a repository whose head is commit `commit`.
fn import(bench: &Bench, name: &str, rerank_ms: u64, commit: usize) {
    let mut spans = String::new();
    for request in 1..=6_u64 {
        let start = 1_790_000_000_000_000_000 + request * 1_000_000_000;
        // A few percent, another for each run and request, and the same whenever it is tested.
        let luck = 97 + (request * 5 + commit as u64 * 7) % 7;
        for (id, stage, ms) in [(1, "rerank", rerank_ms), (2, "llm", 100)] {
            let end = start + ms * luck * 10_000;
            let comma = if spans.is_empty() { "" } else { "," };
            write!(
                spans,
                r#"{comma}{{"traceId":"{request:032x}","spanId":"{id:016x}","name":"{stage}","startTimeUnixNano":"{start}","endTimeUnixNano":"{end}","attributes":[{{"key":"retake.stage","value":{{"stringValue":"{stage}"}}}}]}}"#
            )
            .expect("a string");
        }
    }
    let body = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{spans}]}}]}}]}}"#);
    bench.write("traces.jsonl", body);
    bench.write(".git/HEAD", format!("{commit:040x}\n"));
    bench.retake(["import", "traces.jsonl", "--run", name]).expect_code(0);
}

/// Scenario: eight runs, then seven in which reranking takes a third longer; others between them.
/// Guarantees: the change is found in the stage it is in, with its runs and commits, in every
/// format; a build can stop for it, and does not for what is no worsening.
#[test]
fn a_change_is_shown_and_can_stop_a_build() {
    let bench = Bench::new();
    for commit in 0..15 {
        import(&bench, "nightly", if commit < 8 { 30 } else { 40 }, commit);
        if commit == 3 {
            import(&bench, "other", 500, commit);
            let few = bench.retake(["trend", "p95(duration)", "--runs", "nightly*4"]);
            assert!(few.expect_code(0).stdout.contains("at least 10 runs"));
        }
    }
    let runs: Vec<String> = bench
        .runs()
        .iter()
        .filter(|run| run["name"] == "nightly")
        .map(|run| text(&run["run_id"]))
        .collect();
    let metric = "mean(duration)";
    let json = ["trend", metric, "--by", "stage", "--format", "json"];
    let document = bench.retake(json).expect_code(0).json();
    assert_eq!((int(&document["runs"]), text(&document["unit"])), (15, "ns".to_owned()));
    let series = document["series"].as_array().expect("series");
    let groups: Vec<String> = series.iter().map(|one| text(&one["group"])).collect();
    assert_eq!(groups, ["llm", "rerank"]);
    assert_eq!(series[0]["changes"].as_array().map(Vec::len), Some(0), "{}", series[0]["changes"]);
    let change = &series[1]["changes"][0];
    assert_fields(change, &["index", "p", "run_earliest", "run_latest", "interval_runs"]);
    assert_eq!(
        (text(&change["run_before"]), text(&change["run"])),
        (runs[7].clone(), runs[8].clone())
    );
    assert_eq!(text(&change["sha"]), format!("{:040x}", 8));
    assert!(change["change"].as_f64().is_some_and(|by| (0.25..0.45).contains(&by)), "{change}");

    let rerank = ["trend", metric, "--select", "stage = 'rerank'"];
    let table = bench.retake(rerank).expect_code(0).stdout;
    let line = table.lines().find(|line| line.contains('\u{2588}')).expect("a line of blocks");
    assert!(line.contains('\u{2502}') && table.contains(&runs[8]), "{table}");
    assert!(table.contains("(sha 0000000)") && table.contains("\"nightly\""), "{table}");
    let csv = bench.retake([&rerank[..], &["--format", "csv"]].concat()).expect_code(0).stdout;
    assert_eq!(csv.lines().next(), Some("run_id,started_unix_ns,git_sha,group,value"));
    assert_eq!(csv.lines().count(), 16);
    let markdown = [&rerank[..], &["--format", "markdown"]].concat();
    assert!(bench.retake(markdown).expect_code(0).stdout.contains("\n- +"));

    let fails = [&rerank[..], &["--fail-on-change"]].concat();
    bench.retake(&fails).expect_code(10).expect_message(&["got worse", &runs[8]]);
    bench.retake([&fails[..], &["--less-is-worse"]].concat()).expect_code(0);
    bench.retake([&fails[..], &["--within", "5"]].concat()).expect_code(0);
    bench.retake([&fails[..], &["--min-change", "60%"]].concat()).expect_code(0);
}

/// Scenario: metrics nobody knows, runs that are not there, a metric that no run has.
/// Guarantees: 2 for what is written wrong, 3 for what is not there, and what to do.
#[test]
fn wrong_questions_have_their_exit_code() {
    let bench = Bench::new();
    bench.retake(["trend", "p95(duration)"]).expect_code(3).expect_message(&["no store"]);
    import(&bench, "nightly", 30, 0);
    for (arguments, code, message) in [
        (["fastest(duration)"].as_slice(), 2, "p50 to p99.9"),
        (&["duration"], 2, "p95(duration)"),
        (&["mean(nonsense)"], 2, "nonsense"),
        (&["mean(duration)", "--select", "stage ="], 2, "run query"),
        (&["lost_spans()", "--by", "stage"], 2, "whole run"),
        (&["mean(duration)", "--last", "0"], 2, "--last"),
        (&["mean(duration)", "--last", "5", "--runs", "nightly*5"], 2, "--runs"),
        (&["mean(duration)", "--runs", "nobody*5"], 3, "nobody"),
        (&["mean(duration)", "--runs", "baseline:none"], 3, "none"),
        (&["p95(ttft)"], 3, "none of 1 runs"),
    ] {
        let outcome = bench.retake([&["trend"], arguments].concat());
        outcome.expect_code(code).expect_message(&[message]);
    }
}
