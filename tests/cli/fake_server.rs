//! `retake fake-server`, and the pipeline against a service that fails and sets limits.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Bench, int, text};

/// A server that runs until it is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
}

impl Server {
    pub(crate) fn start(bench: &Bench, arguments: &[&str]) -> Self {
        let all =
            [&["fake-server", "--listen", "127.0.0.1:0", "--format", "json"], arguments].concat();
        let mut command = bench.command(all);
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("server");
        let mut lines = BufReader::new(child.stderr.take().expect("stderr")).lines();
        let line = lines.next().expect("a line").expect("text");
        let url = line.split_once("answering at ").and_then(|(_, rest)| rest.split_once(';'));
        let url = url.unwrap_or_else(|| panic!("no address in {line:?}")).0.to_owned();
        // Whatever else it says must not fill the pipe.
        let reader = std::thread::Builder::new().name("fake-server stderr".to_owned());
        drop(reader.spawn(move || lines.for_each(drop)).expect("thread"));
        Self { child, url }
    }

    /// Ends it as a user would, and reads what it says.
    pub(crate) fn end(mut self) -> Value {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().expect("kill").success());
        let mut said = String::new();
        let mut stdout = self.child.stdout.take().expect("stdout");
        stdout.read_to_string(&mut said).expect("text");
        assert_eq!(self.child.wait().expect("its end").code(), Some(0));
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Scenario: an evaluation against a service that fails one request in twenty, resets connections
/// and limits the rate; it is killed in the middle and run again.
/// Guarantees: every question is accounted for once; the service's failures cost retries and no
/// answer; its limit is kept to.
#[test]
fn an_evaluation_outlives_failures_limits_and_kill_9() {
    let bench = Bench::with_documents();
    let server = Server::start(
        &bench,
        &["--fail-rate", "0.05", "--fail", "503,reset,429", "--requests-per-minute", "3000"],
    );
    let lines: String = (0..QUESTIONS)
        .map(|n| {
            format!("{{\"id\": \"q{n}\", \"question\": \"Question {n}: who was the keeper?\"}}\n")
        })
        .collect();
    bench.write("q.jsonl", lines);
    let url = format!("synthesize.url={}", server.url);
    let eval = [
        "rag",
        "eval",
        "q.jsonl",
        "--output",
        "out.jsonl",
        "--set",
        "synthesize.provider=openai",
        "--set",
        &url,
        "--set",
        "workers=8",
        "--set",
        "limits.requests_per_minute=2400",
    ];
    let output = bench.path("out.jsonl");
    let whole_lines = || -> Vec<Value> {
        let text = std::fs::read_to_string(&output).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).expect("a result")).collect()
    };
    let mut child = bench.start(eval);
    let begun = Instant::now();
    while whole_lines().len() < QUESTIONS / 3 {
        assert!(child.try_wait().expect("state").is_none(), "it ended early");
        assert!(begun.elapsed() < PATIENCE, "only {} results", whole_lines().len());
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().expect("SIGKILL");
    child.wait().expect("dead");

    let arguments = [eval.as_slice(), &["--format", "json"]].concat();
    let report = bench.retake(arguments).expect_code(0).json()["report"].clone();
    assert_eq!(int(&report["ok"]), QUESTIONS as i64, "{report}");
    assert!(int(&report["resumed"]) >= (QUESTIONS / 3) as i64, "{report}");
    let results = whole_lines();
    let ids: BTreeSet<String> = results.iter().map(|line| text(&line["id"])).collect();
    assert_eq!((results.len(), ids.len()), (QUESTIONS, QUESTIONS));

    let served = server.end()["served"].clone();
    let answered = int(&served["answered"]["/chat/completions"]);
    assert!(answered >= QUESTIONS as i64, "{served}");
    assert!(!served["failed"].as_object().expect("counts").is_empty(), "{served}");
    let retries =
        bench.number("select count(*) as n from spans where stage = 'llm' and retries > 0");
    assert!(retries > 0, "the failures are recorded as retries");
}

/// Scenario: settings that cannot work, on the command line and in a file.
/// Guarantees: usage errors that say what is wrong; nothing listens.
#[test]
fn a_server_that_cannot_work_is_refused() {
    let bench = Bench::new();
    for (arguments, part) in [
        (["--listen", "0.0.0.0:0"], "loopback only"),
        (["--fail-rate", "2"], "from 0 to 1"),
        (["--fail", "tired"], "expected one of 500"),
        (["--ttft-ms", "-1"], "unexpected argument"),
        (["--ttft-ms", "lots"], "number of milliseconds"),
    ] {
        let all = [&["fake-server"], arguments.as_slice()].concat();
        bench.retake(all).expect_code(2).expect_message(&[part]);
    }
    bench.write("replies.jsonl", "{\"contains\": \"a\"}\n");
    let bad = bench.retake(["fake-server", "--replies", "replies.jsonl"]).expect_code(2);
    bad.expect_message(&["line 1", "reply"]);
    bench.retake(["fake-server", "--replies", "none.jsonl"]).expect_code(3);
}

const QUESTIONS: usize = 240;
/// Longer than the whole evaluation takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(240);
