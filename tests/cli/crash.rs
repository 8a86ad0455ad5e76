//! The process dies in the middle of its work, and the next command finds everything again.
//!
//! `kill -9` keeps the page cache, so this shows what survives the death of the process, not of
//! the machine. Kills come when enough spans or results can be seen rather than at a time, so the
//! tests do not depend on the machine's speed.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::corpus::{questions, write_many};
use crate::support::{Bench, Outcome, int, text};

/// Scenario: an ingest is killed early, in the middle and late, and then run again.
/// Guarantees: J1, J3 - the next command repairs the run and says so; every span that could be
/// seen before is there after; what was recorded as committed is; the ingest goes on where it
/// stopped and comes to its end.
#[test]
fn a_killed_ingest_is_recovered_and_resumed() {
    killed_ingest(&Bench::new());
}

/// Scenario: the same, while the recorder seals every few hundred events.
/// Guarantees: J4 - events are read once, whether they were sealed before the kill or not.
#[test]
fn an_ingest_killed_between_seals_is_recovered_and_resumed() {
    killed_ingest(&Bench::new().with_variable("RETAKE_RECORD__SEAL_EVENTS", "300"));
}

fn killed_ingest(bench: &Bench) {
    write_many(&bench.path("docs"), DOCUMENTS);
    for spans_seen in [20, 1000, 1800] {
        let mut child = start_ingest(bench);
        wait_for(&mut child, || spans_being_recorded(bench) >= spans_seen);
        child.kill().expect("SIGKILL");
        child.wait().expect("dead");

        let run_id = recovered(bench);
        let spans = format!("select count(*) as n from spans where run_id = '{run_id}'");
        let spans = bench.number(&spans);
        assert!(spans >= spans_seen, "{spans_seen} spans were seen, {spans} are left");
        let twice = bench.rows(&format!(
            "select trace_id, span_id from spans where run_id = '{run_id}' \
             group by trace_id, span_id having count(*) > 1"
        ));
        assert!(twice.is_empty(), "{twice:?}");
        bench.retake(["breakdown", &run_id]).expect_code(0);
    }
    let committed = bench.number(
        "select coalesce(sum(document_count), 0) as n from spans \
         where stage = 'insert' and status = 'ok'",
    );
    let report = bench.retake(["rag", "ingest", "docs", "--format", "json"]).expect_code(0).json();
    assert_eq!(int(&report["found"]), DOCUMENTS as i64, "{report}");
    assert!(committed > 0, "nothing was committed before the last kill");
    assert!(int(&report["unchanged"]) >= committed, "{committed} were recorded as committed");
    assert_eq!(int(&report["unchanged"]) + int(&report["committed"]), DOCUMENTS as i64, "{report}");
    assert_eq!(int(&report["failed"]), 0, "{report}");
    let again = bench.retake(["rag", "ingest", "docs", "--format", "json"]).expect_code(0).json();
    assert_eq!(int(&again["unchanged"]), DOCUMENTS as i64, "{again}");
    assert_eq!(again["corpus"], report["corpus"]);
    let ask = ["rag", "ask", "Which vessel did log book 1234 see?", "--format", "json"];
    let answer = bench.retake(ask).expect_code(0).json();
    assert!(text(&answer["hits"][0]["document"]).contains("01234"), "{answer}");
}

/// Scenario: an evaluation is killed after some results are written, several times.
/// Guarantees: J1 - every line in the results has its query in the recorded runs; the next
/// evaluation asks only what is missing, and every question is answered once in the end.
#[test]
fn a_killed_evaluation_loses_no_written_result() {
    let bench = Bench::new();
    write_many(&bench.path("docs"), 40);
    bench.retake(["rag", "ingest", "docs"]).expect_code(0);
    bench.write("q.jsonl", questions(QUESTIONS));
    let eval = ["rag", "eval", "q.jsonl", "--output", "out.jsonl"];
    let output = bench.path("out.jsonl");
    for lines in [1, 60, 150] {
        let mut child = bench.start(eval);
        wait_for(&mut child, || whole_lines(&output).len() >= lines);
        child.kill().expect("SIGKILL");
        child.wait().expect("dead");

        let run_id = recovered(&bench);
        let recorded: BTreeSet<String> = bench
            .rows("select distinct request_id from spans where stage = 'query' and status = 'ok'")
            .iter()
            .map(|row| text(&row["request_id"]))
            .collect();
        let written: BTreeSet<String> =
            whole_lines(&output).iter().map(|line| text(&line["id"])).collect();
        let lost: Vec<_> = written.difference(&recorded).collect();
        assert!(lost.is_empty(), "{lost:?} are in the results and not in run {run_id}");
    }
    let arguments = [eval.as_slice(), &["--format", "json"]].concat();
    let report = bench.retake(arguments).expect_code(0).json();
    assert!(int(&report["report"]["resumed"]) >= 150, "{report}");
    assert_eq!(int(&report["report"]["ok"]), QUESTIONS as i64, "{report}");
    let ids: Vec<String> = whole_lines(&output).iter().map(|line| text(&line["id"])).collect();
    assert_eq!(ids.len(), QUESTIONS, "a question stands twice in the results");
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), QUESTIONS);
}

/// Scenario: Ctrl-C in the middle of an ingest.
/// Guarantees: exit 130, the run is sealed as `interrupted` without a recovery, and the same
/// command goes on where it stopped.
#[test]
fn an_interrupted_ingest_ends_in_order_and_goes_on_later() {
    let bench = Bench::new();
    write_many(&bench.path("docs"), DOCUMENTS);
    for signal in ["-INT", "-TERM"] {
        let mut child = start_ingest(&bench);
        wait_for(&mut child, || spans_being_recorded(&bench) >= 50);
        send(signal, &child);
        let status = child.wait().expect("its end");
        assert_eq!(status.code(), Some(130), "{signal}: {status}");
        let outcome = bench.retake(["runs", "--format", "json"]).expect_code(0);
        assert!(!outcome.stderr.contains("recovered run"), "{}", outcome.stderr);
        let document = outcome.json();
        let last = document["runs"].as_array().and_then(|runs| runs.last()).expect("a run").clone();
        assert_eq!(last["status"], "interrupted", "{last}");
        assert!(int(&last["spans"]) > 0, "{last}");
        let open = format!(
            "select count(*) as n from spans where status = 'unfinished' and run_id = '{}'",
            text(&last["run_id"])
        );
        assert_eq!(bench.number(&open), 0);
        bench.retake(["verify"]).expect_code(0);
    }
    let report = bench.retake(["rag", "ingest", "docs", "--format", "json"]).expect_code(0).json();
    assert!(int(&report["unchanged"]) > 0, "{report}");
    assert_eq!(int(&report["unchanged"]) + int(&report["committed"]), DOCUMENTS as i64, "{report}");
}

/// Scenario: another command looks at the store while a run is being recorded.
/// Guarantees: J11 - the live run is listed and asked, and left alone; it ends as if nobody looked.
#[test]
fn a_run_under_way_can_be_asked_and_is_not_repaired() {
    let bench = Bench::new();
    write_many(&bench.path("docs"), DOCUMENTS);
    let mut child = start_ingest(&bench);
    wait_for(&mut child, || spans_being_recorded(&bench) >= 50);
    send("-STOP", &child);
    let outcome = bench.retake(["runs", "--format", "json"]).expect_code(0);
    assert!(!outcome.stderr.contains("recovered"), "{}", outcome.stderr);
    assert_eq!(outcome.json()["runs"][0]["status"], "recording");
    assert!(bench.number("select count(*) as n from spans") > 0);
    send("-CONT", &child);
    assert!(child.wait().expect("its end").success());
    assert_eq!(bench.runs()[0]["status"], "finished");
    bench.retake(["verify"]).expect_code(0);
}

/// Scenario: runs are started while another process looks for dead ones without a pause.
/// Guarantees: J11 - a run that is being made is never taken for a dead one: every start succeeds,
/// and nobody has anything to warn of.
#[test]
fn a_run_being_made_is_not_taken_for_a_dead_one() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("docs")).expect("a folder");
    bench.retake(["rag", "ingest", "docs"]).expect_code(0);
    let store = retake_recorder::Store::open(&bench.store()).expect("a store");
    let is_done = AtomicBool::new(false);
    let failed: Vec<String> = std::thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let mut failed = Vec::new();
            while !is_done.load(Ordering::Relaxed) {
                let outcome = store.recover().expect("the store is listed");
                failed.extend(outcome.failed.iter().map(|(id, error)| format!("{id}: {error}")));
                failed.extend(outcome.repaired.iter().map(ToString::to_string));
            }
            failed
        });
        let outcomes: Vec<_> = (0..60).map(|_| bench.retake(["rag", "ingest", "docs"])).collect();
        is_done.store(true, Ordering::Relaxed);
        let mut failed = looking.join().expect("the looking thread");
        let ended = outcomes.iter().filter(|outcome| outcome.code() != Some(0));
        failed.extend(ended.map(|outcome| outcome.stderr.clone()));
        failed
    });
    assert!(failed.is_empty(), "{failed:#?}");
}

/// The first command after a kill: it repairs the run and says so, and a second has nothing to do.
fn recovered(bench: &Bench) -> String {
    let outcome = bench.retake(["runs", "--format", "json"]).expect_code(0);
    let run_id = recovered_run(&outcome);
    let document = outcome.json();
    let runs = document["runs"].as_array().expect("runs");
    let run = runs.iter().find(|run| run["run_id"] == run_id.as_str()).expect("the run");
    assert_eq!(run["status"], "recovered", "{run}");
    assert!(int(&run["spans"]) > 0, "{run}");
    assert_eq!(run["events_dropped"], 0, "{run}");
    let second = bench.retake(["verify", "--format", "json"]).expect_code(0);
    assert!(!second.stderr.contains("recovered"), "{}", second.stderr);
    for checked in second.json()["runs"].as_array().expect("runs") {
        assert_eq!((&checked["sound"], &checked["journal_events"]), (&true.into(), &0.into()));
    }
    run_id
}

fn recovered_run(outcome: &Outcome) -> String {
    let line = outcome.stderr.lines().find_map(|line| line.strip_prefix("recovered run "));
    let line = line.unwrap_or_else(|| panic!("nothing was recovered: {}", outcome.stderr));
    line.split(':').next().expect("an id").to_owned()
}

/// Starts an ingest, and waits until its run is made.
pub(crate) fn start_ingest(bench: &Bench) -> Child {
    let manifests = || {
        let runs = std::fs::read_dir(bench.store().join("runs")).into_iter().flatten().flatten();
        runs.filter(|run| run.path().join("manifest.json").exists()).count()
    };
    let before = manifests();
    let mut child = bench.start(["rag", "ingest", "docs", "--set", "workers=1"]);
    wait_for(&mut child, || manifests() > before);
    child
}

/// Waits until a running process has come far enough.
pub(crate) fn wait_for(child: &mut Child, mut is_far_enough: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_far_enough() {
        let ended = child.try_wait().expect("its state");
        assert!(ended.is_none(), "it ended ({ended:?}) before it came far enough");
        assert!(began.elapsed() < WAIT_MAX, "it did not come far enough");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Spans that another process sees of the run that is being recorded.
pub(crate) fn spans_being_recorded(bench: &Bench) -> i64 {
    let live = bench.runs().pop().filter(|run| run["status"] == "recording");
    live.map_or(0, |run| int(&run["spans"]))
}

/// The results file's whole lines; one that is torn at the end is none.
fn whole_lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
    whole.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

fn send(signal: &str, child: &Child) {
    let status = Command::new("kill").args([signal, &child.id().to_string()]).status();
    assert!(status.expect("kill starts").success());
}

/// Enough that an ingest takes a second or more.
pub(crate) const DOCUMENTS: usize = 1500;
/// Enough that an evaluation takes a second or more.
const QUESTIONS: usize = 600;
/// Far more than any machine needs.
const WAIT_MAX: Duration = Duration::from_secs(60);
