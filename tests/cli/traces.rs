//! `retake trace`: traces as lists and waterfalls, and hostile text in them.

use crate::support::{Bench, int, text};

/// Scenario: two commands were recorded, and their traces are listed, slowest first.
/// Guarantees: every trace of the run is there, agrees with SQL, and can be opened by its id, by a
/// prefix, and as `slowest`.
#[test]
fn traces_are_listed_and_opened() {
    let bench = Bench::with_documents();
    bench.retake(["rag", "ask", "Who guards Esha?", "--run", "ask"]).expect_code(0);
    for (run, root) in [("ingest", "ingest"), ("ask", "query")] {
        let list = ["trace", "list", "--run", run, "--format", "json"];
        let document = bench.retake(list).expect_code(0).json();
        let traces = document["traces"].as_array().expect("traces");
        assert_eq!(traces.len(), 1, "{document}");
        let trace_id = text(&traces[0]["trace_id"]);
        assert_eq!(traces[0]["name"], root);
        let spans = format!("select count(*) as n from spans where trace_id = '{trace_id}'");
        assert_eq!(bench.number(&spans), int(&traces[0]["spans"]));

        let mut trees = Vec::new();
        for which in ["slowest", &trace_id, &trace_id[..12]] {
            let arguments = ["trace", which, "--run", run, "--format", "json"];
            trees.push(bench.retake(arguments).expect_code(0).json());
        }
        assert!(trees.iter().all(|tree| *tree == trees[0]));
        let spans = trees[0]["spans"].as_array().expect("spans");
        assert_eq!(spans.len() as i64, int(&traces[0]["spans"]));
        assert_eq!((&spans[0]["name"], &spans[0]["depth"]), (&root.into(), &0.into()));
        for (position, span) in spans.iter().enumerate().skip(1) {
            let parent = spans[..position].iter().find(|p| p["span_id"] == span["parent_span_id"]);
            let parent = parent.expect("a parent before its child");
            assert_eq!(int(&span["depth"]), int(&parent["depth"]) + 1, "{span}");
        }
        let waterfall = bench.retake(["trace", "slowest", "--run", run]).expect_code(0).stdout;
        assert!(waterfall.contains(&trace_id) && waterfall.contains('|'), "{waterfall}");
    }
    bench.retake(["trace", "--run", "ask"]).expect_code(0);
}

/// Scenario: a question with terminal escapes and markup, from a document with the same.
/// Guarantees: P2 - no control byte reaches the terminal, no tag reaches the report.
#[test]
fn hostile_text_is_inert_everywhere() {
    let bench = Bench::new();
    let hostile = "\u{1b}[31mred\u{1b}]0;title\u{7} <script>alert(1)</script> \u{202e}txt.exe";
    bench.write("docs/a.md", format!("The keeper said {hostile} and walked to the lantern room."));
    bench.write("docs/<img src=x onerror=alert(1)>.md", b"\x00\xff");
    bench.retake(["rag", "ingest", "docs", "--capture", "full"]).expect_code(0);
    let question = format!("What did the keeper say {hostile}?");
    let mut outputs = vec![bench.retake([
        "rag",
        "ask",
        &question,
        "--capture",
        "full",
        "--run",
        hostile,
        "--label",
        "x=<script>alert(1)</script>",
    ])];
    for arguments in [
        ["runs"].as_slice(),
        &["runs", "show", "last"],
        &["trace", "list"],
        &["trace", "slowest"],
        &["trace", "failed", "--run", "ingest"],
        &["breakdown", "--by", "name,model"],
        &["sql", "select content from payloads"],
        &["sql", "select name, labels from runs", "--format", "markdown"],
    ] {
        outputs.push(bench.retake(arguments));
    }
    for outcome in outputs {
        let outcome = outcome.expect_code(0);
        for said in [&outcome.stdout, &outcome.stderr] {
            let escape = said.chars().find(|c| c.is_control() && *c != '\n' && *c != '\t');
            assert!(escape.is_none() && !said.contains('\u{202e}'), "{escape:?} in {said}");
        }
    }
    for run in ["last", "ingest"] {
        bench.retake(["report", run, "--output", "report.html"]).expect_code(0);
        let html = std::fs::read_to_string(bench.path("report.html")).expect("a report");
        let lower = html.to_lowercase();
        // The report has one script of its own.
        let is_inert = lower.matches("<script").count() == 1 && !lower.contains("<img");
        assert!(is_inert && !lower.contains("<script>alert"), "a tag came through");
        assert!(!html.contains('\u{1b}'), "an escape came through");
    }
}
