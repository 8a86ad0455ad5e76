//! `retake check` and `retake baseline`: the gate, as a pipeline uses it.

use serde_json::Value;

use crate::support::{Bench, text};

/// Thirty questions; nobody knows the answers, which does not matter here.
fn questions(bench: &Bench) {
    let lines: String = (0..30)
        .map(|n| {
            format!("{{\"question\":\"Which keeper lit lantern number {n} of the tower?\"}}\n")
        })
        .collect();
    bench.write("questions.jsonl", lines);
}

fn evaluate(bench: &Bench, run: &str, set: &str) {
    bench
        .retake(["rag", "eval", "questions.jsonl", "--run", run, "--set", set, "--quiet"])
        .expect_code(0);
}

/// Scenario: five nightly runs become the baseline; a change asks for twenty times the documents.
/// Guarantees: the gate says so with exit code 10, one finding, the stage's line of source and
/// traces that `retake trace` opens; with a crossed budget too it is 12, with the budget alone 11.
/// JSON, Markdown, JUnit, SARIF, annotations and the step's summary agree.
#[test]
fn a_regression_stops_the_pipeline_and_says_where() {
    let bench = Bench::with_documents();
    questions(&bench);
    for _ in 0..5 {
        evaluate(&bench, "nightly", "retrieve.top_k=1");
    }
    bench.retake(["baseline", "set", "main", "nightly*5"]).expect_code(0);
    let list = bench.retake(["baseline", "--format", "json"]).expect_code(0).json();
    assert_eq!(list["baselines"][0]["name"], "main");
    assert_eq!(list["baselines"][0]["runs"].as_array().unwrap().len(), 5);
    evaluate(&bench, "change", "retrieve.top_k=20");
    let found = bench.retake(["check", "--format", "json"]).expect_code(10).json();
    assert_eq!((&found["verdict"], &found["exit_code"]), (&"fail".into(), &10.into()));
    let findings = found["regressions"].as_array().unwrap();
    assert_eq!(findings.len(), 1, "{findings:#?}");
    let metric = text(&findings[0]["metric"]);
    assert!(metric.contains("input tokens"), "{metric}");
    assert!(text(&findings[0]["source_file"]).ends_with(".rs"), "{findings:#?}");
    let example = text(&findings[0]["examples"][0]["trace_id"]);
    bench.retake(["trace", &example, "--run", "change"]).expect_code(0);

    bench.write(
        "budgets.toml",
        "version = 1\n[[budget]]\nname = 'context'\nmetric = 'max(document_count)'\nmax = 10\n",
    );
    bench.retake(["check", "change", "--quiet"]).expect_code(12);
    let alone = ["check", "change", "--baseline", "nightly*5", "--min-change", "900%"];
    bench.retake(alone).expect_code(11);
    let bench = bench.with_variable("GITHUB_STEP_SUMMARY", "summary.md");
    let files = [
        "check",
        "change",
        "--github",
        "--junit",
        "j.xml",
        "--sarif",
        "s.json",
        "--markdown",
        "m.md",
    ];
    let said = bench.retake(files).expect_code(12).stdout;
    assert!(said.lines().any(|line| line.starts_with("::error file=") && line.contains(",line=")));
    assert!(said.contains("::error file=budgets.toml,line=2,"), "{said}");
    let read = |name: &str| std::fs::read_to_string(bench.path(name)).unwrap();
    assert_eq!(read("summary.md"), read("m.md"));
    assert!(read("m.md").starts_with("## ❌ retake check: fail: 1 regression, 1 budget crossed"));
    assert!(read("j.xml").contains("<testsuite name=\"regressions\""));
    let log: Value = serde_json::from_str(&read("s.json")).unwrap();
    assert_eq!(log["runs"][0]["results"].as_array().unwrap().len(), 2);
}

/// Scenario: nothing to compare with, a baseline that is not there, a budget file that is wrong,
/// one that is kept, one nobody can decide, and a baseline that is removed again.
/// Guarantees: each has its documented exit code and says what to do next.
#[test]
fn every_end_of_a_check_has_its_code() {
    let bench = Bench::with_documents();
    let nothing = bench.retake(["check", "last"]).expect_code(21);
    assert!(nothing.stderr.contains("retake baseline set"), "{}", nothing.stderr);
    bench.retake(["check", "last", "--baseline", "baseline:main"]).expect_code(21);
    bench.retake(["check", "none"]).expect_code(3);
    bench.retake(["check", "last", "--budgets", "none.toml"]).expect_code(3);
    bench.write(
        "wrong.toml",
        "version = 1\n[[budget]]\nname = 'x'\nmetric = 'p95(duration)'\nmax = 5\n",
    );
    let wrong = bench.retake(["check", "last", "--budgets", "wrong.toml"]).expect_code(2);
    assert!(
        wrong.stderr.contains("wrong.toml:2: budget \"x\": 5 needs a unit"),
        "{}",
        wrong.stderr
    );
    let example = bench.retake(["check", "--example"]).expect_code(0).stdout;
    bench.write("example.toml", example);
    bench.retake(["check", "last", "--budgets", "example.toml"]).expect_code(0);
    bench.write(
        "kept.toml",
        "version = 1\n[[budget]]\nname = 'x'\nmetric = 'error_rate()'\nmax = '1%'\n",
    );
    let kept = bench.retake(["check", "--budgets", "kept.toml"]).expect_code(0).stdout;
    assert!(kept.contains("verdict: pass"), "{kept}");
    bench.write(
        "open.toml",
        "version = 1\n[[budget]]\nname = 'x'\nmetric = 'mean(mrr)'\nmin = 0.5\n",
    );
    bench.retake(["check", "--budgets", "open.toml"]).expect_code(0);
    bench.retake(["check", "--budgets", "open.toml", "--inconclusive", "fail"]).expect_code(20);
    bench.retake(["baseline", "set", "main", "last"]).expect_code(0);
    bench.retake(["check", "last", "--baseline", "baseline:main"]).expect_code(21);
    bench.retake(["baseline", "set", "bad name!", "last"]).expect_code(2);
    bench.retake(["baseline", "rm", "main"]).expect_code(0);
    bench.retake(["baseline", "rm", "main"]).expect_code(3);
}

/// Scenario: a store that is sound, the gate held against runs of one program, too few of them,
/// and a store with a damaged run.
/// Guarantees: false alarms are counted, and damage has its code.
#[test]
fn the_doctor_looks_at_the_store_and_at_the_gate() {
    let bench = Bench::with_documents();
    questions(&bench);
    for _ in 0..6 {
        evaluate(&bench, "nightly", "retrieve.top_k=4");
    }
    let sound = bench.retake(["doctor", "--format", "json"]).expect_code(0).json();
    assert_eq!(sound["ok"], true, "{sound}");
    let found =
        bench.retake(["doctor", "--aa", "nightly*6", "--format", "json"]).expect_code(0).json();
    assert_eq!(found["runs"], 6, "{found}");
    let shapes = found["shapes"].as_array().unwrap();
    assert_eq!(shapes.len(), 1, "three against three decide nothing: {found}");
    assert_eq!((&shapes[0]["base"], &shapes[0]["comparisons"]), (&5.into(), &6.into()));
    bench.retake(["doctor", "--aa", "nightly*3"]).expect_code(20);
    let manifest = bench.run_folder(&bench.last_run()).join("manifest.json");
    std::fs::write(manifest, "{").unwrap();
    let damaged = bench.retake(["doctor", "--format", "json"]).expect_code(5).json();
    assert_eq!(damaged["ok"], false, "{damaged}");
}
