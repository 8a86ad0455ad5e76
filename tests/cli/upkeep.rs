//! Keeping a store in order: recover, verify, gc, compact, push and pull.

use serde_json::Value;

use crate::crash::{DOCUMENTS, spans_being_recorded, start_ingest, wait_for};
use crate::support::{Bench, assert_fields, int, text};

/// A bench with the documents, and three questions asked as runs of their own.
fn bench() -> Bench {
    let bench = Bench::with_documents();
    for (name, label) in [("old", "ci=x"), ("kept", "baseline=main"), ("new", "ci=x")] {
        let ask = ["rag", "ask", "Who guards Esha?", "--run", name, "--label", label];
        bench.retake(ask).expect_code(0);
    }
    bench
}

fn names(bench: &Bench) -> Vec<String> {
    bench.runs().iter().map(|run| text(&run["name"])).collect()
}

/// Scenario: a store is collected by every criterion, with and without consent.
/// Guarantees: nothing goes without a limit or without consent, a dry run changes nothing, a
/// baseline stays unless forced, and what goes is what was shown.
#[test]
fn runs_go_by_the_criteria_and_only_with_consent() {
    let bench = bench();
    assert_eq!(names(&bench), ["ingest", "old", "kept", "new"]);
    bench.retake(["gc", "--yes"]).expect_code(2).expect_message(&["no limit", "--older-than"]);
    bench.retake(["gc", "--keep-last", "1"]).expect_code(2).expect_message(&["--yes"]);
    bench.retake(["gc", "--older-than", "1y", "--yes"]).expect_code(2);
    bench.retake(["gc", "--quarantine", "--keep-last", "1", "--yes"]).expect_code(2);
    bench.retake(["gc", "--older-than", "1d", "--yes"]).expect_code(0);
    assert_eq!(names(&bench).len(), 4);

    let dry = ["gc", "--keep-last", "1", "--dry-run", "--format", "json"];
    let document = bench.retake(dry).expect_code(0).json();
    assert_eq!(document["dry_run"], true);
    let runs = document["runs"].as_array().expect("runs");
    let reasons: Vec<String> = runs.iter().map(|run| text(&run["reason"])).collect();
    assert_eq!(reasons, ["beyond_last", "beyond_last", "baseline", "among_last"]);
    let removed: i64 =
        runs.iter().filter(|r| r["action"] == "remove").map(|r| int(&r["bytes"])).sum();
    assert_eq!(int(&document["bytes_removed"]), removed);
    assert_eq!(names(&bench).len(), 4);

    let labelled = ["gc", "--label", "ci=x", "--keep-last", "1", "--yes"];
    let outcome = bench.retake(labelled).expect_code(0);
    assert!(outcome.stdout.contains("removed 1 runs"), "{}", outcome.stdout);
    assert_eq!(names(&bench), ["ingest", "kept", "new"]);
    bench.retake(["gc", "--max-bytes", "0", "--yes"]).expect_code(0).expect_message(&["stay"]);
    assert_eq!(names(&bench), ["kept"]);
    bench.retake(["gc", "--max-bytes", "0", "--force", "--yes"]).expect_code(0);
    assert!(names(&bench).is_empty());
    assert_eq!(std::fs::read_dir(bench.store().join("runs")).expect("a folder").count(), 0);
}

/// Scenario: a process dies in the middle of a removal; the next command is any other.
/// Guarantees: J3 - the half is cleared away, and nothing of the run is seen.
#[test]
fn a_removal_cut_short_is_finished_by_the_next_command() {
    let bench = Bench::with_documents();
    let run_id = bench.last_run();
    let gone = bench.store().join("runs").join(format!(".gone-{run_id}"));
    std::fs::rename(bench.run_folder(&run_id), &gone).expect("renamed");
    assert!(names(&bench).is_empty());
    assert!(!gone.exists());
}

/// Scenario: a run of many seals is compacted.
/// Guarantees: J4 - every query answers as before, every table has one file, and a second time
/// there is nothing to do.
#[test]
fn a_compacted_run_answers_as_before() {
    let bench = Bench::new().with_variable("RETAKE_RECORD__SEAL_EVENTS", "100");
    // Long enough that the writer, which looks now and then, seals it several times.
    crate::corpus::write_many(&bench.path("docs"), DOCUMENTS);
    bench.retake(["rag", "ingest", "docs"]).expect_code(0);
    let question = "select * from spans order by trace_id, span_id";
    let before = bench.rows(question);
    let segments = |bench: &Bench| {
        let show = ["runs", "show", "last", "--format", "json"];
        let document = bench.retake(show).expect_code(0).json();
        let of = |segment: &&Value| segment["table"] == "spans";
        document["segments"].as_array().expect("segments").iter().filter(of).count()
    };
    assert!(segments(&bench) > 1, "the run was sealed once");
    let document = bench.retake(["compact", "last", "--format", "json"]).expect_code(0).json();
    let tables = document["runs"][0]["tables"].as_array().expect("tables");
    assert!(!tables.is_empty());
    assert_fields(&tables[0], &["table", "file", "files_before", "rows", "bytes_after"]);
    assert_eq!(segments(&bench), 1);
    assert_eq!(bench.rows(question), before);
    bench.retake(["verify"]).expect_code(0);
    let again = bench.retake(["compact", "--format", "table"]).expect_code(0);
    assert!(again.stdout.contains("nothing to merge"), "{}", again.stdout);
}

/// Scenario: a run's process has died; the store is verified, recovered, and recovered again.
/// Guarantees: J3 - verify says so and changes nothing, recover repairs, and twice is once.
#[test]
fn verify_changes_nothing_and_recover_repairs_once() {
    let bench = Bench::new().with_variable("RETAKE_RECORD__SEAL_SECS", "3600");
    crate::corpus::write_many(&bench.path("docs"), DOCUMENTS);
    let mut child = start_ingest(&bench);
    wait_for(&mut child, || spans_being_recorded(&bench) >= 20);
    child.kill().expect("SIGKILL");
    child.wait().expect("dead");

    for _ in 0..2 {
        let document = bench.retake(["verify", "--format", "json"]).expect_code(0).json();
        let run = &document["runs"][0];
        assert!(int(&run["journal_events"]) > 0, "{run}");
        assert!(text(&run["next"]).contains("retake recover"), "{run}");
    }
    for outcome in ["repaired", "clean"] {
        let document = bench.retake(["recover", "--format", "json"]).expect_code(0).json();
        let run = &document["runs"][0];
        assert_eq!(run["outcome"], outcome, "{run}");
        assert_eq!(int(&run["events"]) > 0, outcome == "repaired", "{run}");
    }
    let document = bench.retake(["verify", "last", "--format", "json"]).expect_code(0).json();
    let run = &document["runs"][0];
    assert!(run["next"].is_null(), "{run}");
    let verdicts = run["file_verdicts"].as_array().expect("verdicts");
    assert!(!verdicts.is_empty() && verdicts.iter().all(|v| v["verdict"] == "sound"), "{run}");
    bench.retake(["recover", "nobody"]).expect_code(3);
}

/// Scenario: runs are pushed to a folder, listed there, and pulled into another store.
/// Guarantees: the other store answers the same, doing it twice copies nothing, and messages say
/// what to do next.
#[test]
fn runs_go_to_a_folder_and_into_another_store() {
    let bench = bench();
    let place = format!("file://{}", bench.path("backup").display());
    let pushed = bench.retake(["push", "--all", &place, "--format", "json"]).expect_code(0).json();
    let runs = pushed["runs"].as_array().expect("runs");
    assert_eq!(runs.len(), 4);
    assert!(runs.iter().all(|run| int(&run["files_sent"]) > 0), "{pushed}");
    let again = bench.retake(["push", "last", &place, "--format", "table"]).expect_code(0);
    assert!(again.stdout.contains("already"), "{}", again.stdout);

    let listed = ["runs", "--store", &place, "--format", "json"];
    let listed = bench.retake(listed).expect_code(0).json();
    assert_eq!(listed["runs"], Value::from(bench.runs()));
    assert_eq!(listed["incomplete"], Value::Array(Vec::new()));
    bench.retake(["sql", "select 1", "--store", &place]).expect_code(2).expect_message(&["pull"]);

    let there = bench.path("there").display().to_string();
    let pull = ["pull", &place, "old", "--store", &there];
    bench.retake(pull).expect_code(0);
    bench.retake(["pull", &place, "nobody", "--store", &there]).expect_code(3);
    bench.retake(["pull", &place, "--store", &there]).expect_code(0);
    bench.retake(["verify", "--store", &there]).expect_code(0);
    let query = ["sql", "select * from spans order by trace_id, span_id", "--format", "json"];
    let here = bench.retake(query).expect_code(0);
    let there = bench.retake([query.as_slice(), &["--store", &there]].concat()).expect_code(0);
    assert_eq!(here.stdout, there.stdout);
}

/// Scenario: the settings want every run copied; the place works, then it does not.
/// Guarantees: a finished run is there at once; a place out of reach costs a warning that says how
/// to try again, never the run.
#[test]
fn finished_runs_are_copied_where_the_settings_say() {
    let bench = Bench::new();
    crate::corpus::write_lighthouses(&bench.path("docs"));
    let place = format!("file://{}", bench.path("backup").display());
    bench.write("retake.toml", format!("[record]\nupload = \"{place}\"\n"));
    let ingest = ["rag", "ingest", "docs"];
    bench.retake(ingest).expect_code(0).expect_message(&["pushed run"]);
    let listed = bench.retake(["runs", "--store", &place, "--format", "json"]).expect_code(0);
    assert_eq!(listed.json()["runs"][0]["run_id"], bench.last_run().as_str());

    bench.write("retake.toml", "[record]\nupload = \"file:///proc/nowhere\"\n");
    let ask = ["rag", "ask", "Who guards Esha?"];
    bench.retake(ask).expect_code(0).expect_message(&["warning", "retake push"]);
    assert_eq!(bench.runs().last().expect("a run")["status"], "finished");
    bench.retake(["push", "last"]).expect_code(2);

    let secret = "s3://key:hunter2@bucket/p";
    bench.write("retake.toml", format!("[record]\nupload = \"{secret}\"\n"));
    for arguments in [ask.as_slice(), &["config"], &["push", "last"], &["push", "last", secret]] {
        let outcome = bench.retake(arguments);
        let said = format!("{}{}", outcome.stdout, outcome.stderr);
        assert!(!said.contains("hunter2"), "{arguments:?}: {said}");
    }
}
