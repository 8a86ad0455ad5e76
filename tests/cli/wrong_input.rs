//! Documents, questions and runs that are not there, or not what they should be.

use std::os::unix::fs::PermissionsExt as _;

use crate::support::{Bench, files_below, int, text};

/// Scenario: a folder that is not there is ingested.
/// Guarantees: exit 3, its name in the message, and no run is made of it.
#[test]
fn a_missing_folder_is_no_run() {
    let bench = Bench::new();
    bench.retake(["rag", "ingest", "nowhere"]).expect_code(3).expect_message(&["nowhere"]);
    bench.write("docs/a.md", "Something.");
    bench.retake(["rag", "ingest", "docs", "nowhere"]).expect_code(3).expect_message(&["nowhere"]);
    assert!(!bench.store().exists(), "a store was made");
    bench.retake(["demo", "--docs", "nowhere", "--out", "out"]).expect_code(3);
}

/// Scenario: binary and UTF-16 files lie among good ones, and formats nobody reads.
/// Guarantees: the good ones are ingested; each bad one is counted, warned of and recorded.
#[test]
fn a_binary_file_costs_only_itself() {
    let bench = Bench::new();
    bench.write("docs/good.md", "Foxes sleep in the old quarry.");
    bench.write("docs/other.txt", "Badgers sleep under the bridge.");
    bench.write("docs/blob.md", b"PK\x03\x04\x00\x00\x00\xff\xfe\x01");
    bench.write("docs/wide.txt", b"\xff\xfea\x00b\x00");
    bench.write("docs/picture.png", b"\x89PNG\r\n\x1a\n\x00");
    let outcome = bench.retake(["rag", "ingest", "docs", "--format", "json"]).expect_code(0);
    let report = outcome.json();
    assert_eq!((int(&report["committed"]), int(&report["failed"])), (2, 2), "{report}");
    assert_eq!(int(&report["found"]), 4, "{report}");
    assert_eq!(int(&report["skipped"]["unknown_format"]), 1, "{report}");
    assert!(report["failures"].as_array().is_some_and(|all| all.len() == 2));
    let outcome = outcome.expect_message(&["warning: blob.md", "warning: wide.txt"]);
    assert!(!outcome.stderr.contains("good.md"), "{}", outcome.stderr);
    let errors = bench.rows("select stage, error_type from spans where is_error_origin");
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors.iter().all(|row| row["stage"] == "load" && row["error_type"] == "not_text"));
    bench.retake(["trace", "failed"]).expect_code(0);
    let answer = bench.retake(["rag", "ask", "Where do foxes sleep?"]).expect_code(0).stdout;
    assert!(answer.contains("old quarry"), "{answer}");
}

/// Scenario: a file among good ones may not be read.
/// Guarantees: the others are ingested; the message says which file and why.
#[test]
fn an_unreadable_file_costs_only_itself() {
    let bench = Bench::new();
    bench.write("docs/good.md", "Foxes sleep in the old quarry.");
    let locked = bench.write("docs/locked.md", "Nobody may read this.");
    std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o000)).expect("chmod");
    if std::fs::read(&locked).is_ok() {
        eprintln!("an_unreadable_file_costs_only_itself: skipped: this user may read everything");
        return;
    }
    let outcome = bench.retake(["rag", "ingest", "docs", "--format", "json"]).expect_code(0);
    assert_eq!(outcome.json()["failed"], 1);
    outcome.expect_message(&["warning: locked.md", "denied"]);
}

/// Scenario: a folder holds nothing that could be ingested.
/// Guarantees: that is no error; a question afterwards is answered with the next step.
#[test]
fn an_empty_folder_is_no_error() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("docs")).expect("a folder");
    let report = bench.retake(["rag", "ingest", "docs", "--format", "json"]).expect_code(0).json();
    assert_eq!((int(&report["found"]), int(&report["failed"])), (0, 0));
    bench.write("docs/empty.md", "");
    bench.write("docs/blank.txt", " \n\n");
    bench.retake(["rag", "ingest", "docs"]).expect_code(0);
    bench.retake(["demo", "--docs", "docs", "--out", "out"]).expect_code(3);
}

/// Scenario: a question is asked before anything is ingested.
/// Guarantees: exit 3 with the command that helps, and no run is made of it.
#[test]
fn a_question_before_any_document_says_what_to_do() {
    let bench = Bench::new();
    bench.write("q.jsonl", "{\"question\": \"Who?\"}\n");
    for arguments in [["rag", "ask", "Who?"], ["rag", "eval", "q.jsonl"]] {
        bench.retake(arguments).expect_code(3).expect_message(&["retake rag ingest"]);
    }
    assert!(!bench.store().exists());
}

/// Scenario: questions that are not there, not JSON, without a question, or with an id twice.
/// Guarantees: exit 3 or 2 with file and line, before a run is made.
#[test]
fn wrong_questions_are_named_by_file_and_line() {
    let bench = Bench::with_documents();
    let eval = |name: &str| bench.retake(["rag", "eval", name]);
    eval("none.jsonl").expect_code(3).expect_message(&["none.jsonl"]);
    bench.write("torn.jsonl", "{\"question\": \"a\"}\n{\"question\": \n");
    eval("torn.jsonl").expect_code(2).expect_message(&["torn.jsonl line 2"]);
    bench.write("without.jsonl", "{\"id\": 1}\n");
    eval("without.jsonl").expect_code(2).expect_message(&["without.jsonl line 1", "question"]);
    let twice = "{\"id\": 1, \"question\": \"a\"}\n".repeat(2);
    bench.write("twice.jsonl", twice);
    eval("twice.jsonl").expect_code(2).expect_message(&["twice.jsonl line 2", "twice"]);
    assert_eq!(bench.runs().len(), 1);
}

/// Scenario: every verb that reads is pointed at a store that is not there.
/// Guarantees: exit 3 with the folder's name, and nothing is made there.
#[test]
fn a_missing_store_is_not_made_by_reading() {
    let bench = Bench::new();
    for arguments in [
        ["runs"].as_slice(),
        &["runs", "show", "last"],
        &["breakdown"],
        &["trace"],
        &["diff", "last~1", "last"],
        &["sql", "select 1"],
        &["report"],
        &["verify"],
        &["replay", "run", "last"],
        &["replay", "plan", "last"],
    ] {
        let elsewhere = [["--store", "no-such-store"].as_slice(), arguments].concat();
        bench.retake(elsewhere).expect_code(3).expect_message(&["no-such-store", "--store"]);
    }
    assert!(files_below(&bench.path("")).is_empty());
}

/// Scenario: runs and traces that are not there, or more than one.
/// Guarantees: exit 3 for none and 2 for several, with what to do.
#[test]
fn a_run_that_cannot_be_told_is_refused() {
    let bench = Bench::with_documents();
    bench.retake(["rag", "ask", "Who guards Esha?"]).expect_code(0);
    for arguments in [
        ["runs", "show", "nobody"].as_slice(),
        &["breakdown", "nobody"],
        &["report", "nobody"],
        &["verify", "nobody"],
        &["diff", "nobody", "last"],
        &["replay", "run", "nobody"],
        &["trace", "slowest", "--run", "nobody"],
        &["runs", "rm", "nobody", "--yes"],
    ] {
        bench.retake(arguments).expect_code(3).expect_message(&["nobody", "retake runs"]);
    }
    bench.retake(["breakdown", "last~9"]).expect_code(3);
    bench.retake(["breakdown", "label:no=such"]).expect_code(3);
    bench
        .retake(["trace", "0123456789abcdef"])
        .expect_code(3)
        .expect_message(&["0123456789abcdef"]);
    bench.retake(["trace", "failed"]).expect_code(3).expect_message(&["retake trace list"]);

    let runs = bench.runs();
    let (first, second) = (text(&runs[0]["run_id"]), text(&runs[1]["run_id"]));
    let prefix = &first[..8];
    bench.retake(["breakdown", prefix]).expect_code(2).expect_message(&[&first, &second]);
    bench.retake(["diff", "last", "last"]).expect_code(2).expect_message(&["itself"]);
    bench.retake(["diff", &second, "last"]).expect_code(2).expect_message(&["itself"]);
    bench.retake(["report", "last", "last"]).expect_code(2).expect_message(&["itself"]);
}

/// Scenario: results are written where nothing can be written.
/// Guarantees: exit 4 with the file's name.
#[test]
fn a_file_that_cannot_be_written_is_named() {
    let bench = Bench::with_documents();
    bench.write("file", "not a folder");
    for arguments in [
        ["report", "--output", "file/report.html"].as_slice(),
        &["report", "--output", "no-such-folder/report.html"],
        &["man", "file/man"],
        &["--store", "file/store", "rag", "ingest", "docs"],
    ] {
        let outcome = bench.retake(arguments).expect_code(4);
        let named = outcome.stderr.contains("file/") || outcome.stderr.contains("no-such-folder/");
        assert!(named, "{}", outcome.stderr);
    }
}
