//! Replays that do not come to their end: killed, or ended by Ctrl-C, and gone on with.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fake_server::Server;
use crate::support::{Bench, int, text};

/// Scenario: REPLAY acceptance 8 - kill -9 in the middle of a replay, and `--resume`.
/// Guarantees: what was done is not done again and what was not is, each once; the accounting of both
/// runs together closes; another workload or a finished replay cannot be gone on with.
#[test]
fn a_killed_replay_is_gone_on_with() {
    let bench = Bench::with_documents();
    let server = Server::start(&bench, &["--ttft-ms", "60"]);
    let source = recorded(&bench, &server);
    let mut child = bench.start(["replay", "run", &source, "--concurrency", "1"]);
    wait_for(&bench, &source, QUESTIONS / 4);
    assert!(child.try_wait().expect("state").is_none(), "it ended early");
    child.kill().expect("SIGKILL");
    child.wait().expect("dead");

    let broken = bench.last_run();
    let resume = ["replay", "run", &source, "--concurrency", "1", "--resume", &broken];
    let report = bench.retake([&resume[..], &["--format", "json"]].concat()).expect_code(0).json();
    let done = int(&report["done_before"]);
    assert!((QUESTIONS / 4..QUESTIONS).contains(&done), "{report}");
    assert_eq!((int(&report["planned"]), int(&report["ok"])), (QUESTIONS - done, QUESTIONS - done));
    each_was_done_once(&bench, &source);
    let label = format!("label:retake.resumes={broken}");
    let shown = bench.retake(["runs", "show", &label, "--format", "json"]).expect_code(0).json();
    assert_eq!(shown["run_id"], report["run_id"]);

    let again = ["replay", "run", &source, "--resume", &text(&report["run_id"])];
    bench.retake(again).expect_code(2).expect_message(&["came to its end"]);
    bench.retake(["replay", "run", &source, "--resume", &source]).expect_code(2);
    let other = [&resume[..], &["--set", "retrieve.top_k=1"]].concat();
    bench.retake(other).expect_code(2).expect_message(&["other settings"]);
}

/// Scenario: Ctrl-C in the middle of a replay.
/// Guarantees: it ends soon with code 130 and a report whose accounting closes; what was done is
/// recorded, the run says `interrupted`, its files are sound, and the rest can be done later.
#[test]
fn ctrl_c_ends_a_replay_in_order() {
    let bench = Bench::with_documents();
    let server = Server::start(&bench, &["--ttft-ms", "60"]);
    let source = recorded(&bench, &server);
    let mut command =
        bench.command(["replay", "run", &source, "--concurrency", "2", "--format", "json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("start");
    wait_for(&bench, &source, QUESTIONS / 4);
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().expect("kill").success());
    let asked = Instant::now();
    let mut said = String::new();
    child.stdout.take().expect("stdout").read_to_string(&mut said).expect("text");
    assert_eq!(child.wait().expect("its end").code(), Some(130));
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
    let report: Value = serde_json::from_str(&said).expect("a report");
    let part = |name: &str| int(&report[name]);
    assert_eq!(part("planned"), QUESTIONS);
    assert_eq!(
        part("planned"),
        part("ok") + part("error") + part("cancelled") + part("refused"),
        "{report}"
    );
    assert!(part("ok") >= QUESTIONS / 4 && part("cancelled") > 0, "{report}");
    let run_id = text(&report["run_id"]);
    let run = bench.runs().pop().expect("a run");
    assert_eq!((&run["run_id"], &run["status"]), (&report["run_id"], &"interrupted".into()));
    assert_eq!(done_of(&bench, &source), part("ok"), "what was done is recorded");
    bench.retake(["verify", &run_id]).expect_code(0);
    let resume = ["replay", "run", &source, "--concurrency", "2", "--resume", &run_id];
    bench.retake(resume).expect_code(0);
    each_was_done_once(&bench, &source);
}

/// A run of questions, asked of the server.
fn recorded(bench: &Bench, server: &Server) -> String {
    let lines = (0..QUESTIONS)
        .map(|n| format!("{{\"id\":\"q{n}\",\"question\":\"Who is keeper {n}?\"}}\n"));
    bench.write("q.jsonl", lines.collect::<String>());
    let url = format!("synthesize.url={}", server.url);
    let provider = "synthesize.provider=openai";
    let eval = ["rag", "eval", "q.jsonl", "--capture", "full", "--set", provider, "--set", &url];
    bench.retake(eval).expect_code(0);
    bench.last_run()
}

/// Waits until replays of a run have done so many operations.
fn wait_for(bench: &Bench, source: &str, operations: i64) {
    let begun = Instant::now();
    while done_of(bench, source) < operations {
        assert!(begun.elapsed() < PATIENCE, "only {} operations", done_of(bench, source));
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn done_of(bench: &Bench, source: &str) -> i64 {
    bench.number(&format!(
        "select count(*) as n from spans where parent_span_id is null and status = 'ok' \
         and source_run_id = '{source}'"
    ))
}

/// Fails the test unless replays did every operation of a run once.
fn each_was_done_once(bench: &Bench, source: &str) {
    let rows = bench.rows(&format!(
        "select count(*) as n, count(distinct source_span_id) as operations from spans \
         where parent_span_id is null and status = 'ok' and source_run_id = '{source}'"
    ));
    assert_eq!(
        (int(&rows[0]["n"]), int(&rows[0]["operations"])),
        (QUESTIONS, QUESTIONS),
        "{rows:?}"
    );
}

/// At 60 ms each long enough to be killed in the middle, also on a slow machine.
const QUESTIONS: i64 = 60;
/// Longer than a quarter of them takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(100);
