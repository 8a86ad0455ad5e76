//! Secrets given to the program by every road it has, and a search for them in all it leaves
//! behind and says, with the default policy. (`recorder/tests/secrets.rs` has all 40 shapes.)

use crate::support::{Bench, files_below};

/// Scenario: secrets in the environment, in the configured URL of a service that is not there, in
/// documents and in questions; then every command that shows a run, and a report.
/// Guarantees: P1 - none is in a file of a run, in the report, in JSON, or on stderr.
#[test]
fn secrets_stay_out_of_runs_reports_and_messages() {
    let url = format!("http://user:{URL_PASSWORD}@127.0.0.1:9/v1?api_key={URL_KEY}");
    let bench = Bench::new()
        .with_variable("OPENAI_API_KEY", ENV_KEY)
        .with_variable("RETAKE_RAG__SYNTHESIZE__URL", &url);
    bench.write("docs/a.md", format!("The keeper wrote {DOCUMENT} on the wall of the tower."));
    bench.write("q.jsonl", format!("{{\"id\": 1, \"question\": \"Who wrote {QUESTION}?\"}}\n"));
    let question = format!("Who wrote {QUESTION} on the wall?");
    let mut said = String::new();
    // The answer itself quotes the document, on stdout; everything else must not.
    for arguments in [
        ["rag", "ingest", "docs"].as_slice(),
        &["rag", "ask", &question],
        &["rag", "eval", "q.jsonl", "--output", "answers.jsonl"],
    ] {
        said.push_str(&bench.retake(arguments).expect_code(0).stderr);
    }
    let live = ["rag", "ask", &question, "--set", "synthesize.provider=openai"];
    let refused = bench.retake(live);
    assert_ne!(refused.code(), Some(0), "nothing listens there");
    said.push_str(&refused.stderr);
    for arguments in [
        ["runs", "--format", "json"].as_slice(),
        &["runs", "show", "last", "--format", "json"],
        &["config", "--format", "json"],
        &["trace", "list"],
        &["replay", "run", "last"],
        &["verify", "--format", "json"],
    ] {
        let outcome = bench.retake(arguments);
        said.push_str(&outcome.stdout);
        said.push_str(&outcome.stderr);
    }
    for table in ["runs", "spans", "events", "documents", "payloads", "measures"] {
        let query = format!("select * from {table}");
        said.push_str(&bench.retake(["sql", &query, "--format", "json"]).expect_code(0).stdout);
    }
    for run in bench.runs() {
        let run_id = crate::support::text(&run["run_id"]);
        bench.retake(["report", &run_id, "--output", "report.html"]).expect_code(0);
        said.push_str(&std::fs::read_to_string(bench.path("report.html")).expect("a report"));
    }
    let files = files_below(&bench.store().join("runs"));
    assert!(files.len() >= 8, "{files:?}");
    for secret in [ENV_KEY, URL_PASSWORD, URL_KEY, DOCUMENT, QUESTION] {
        if let Some(at) = said.find(secret) {
            let start = said.floor_char_boundary(at.saturating_sub(200));
            panic!("{secret} was said: {}", &said[start..at + secret.len()]);
        }
        for file in &files {
            let bytes = std::fs::read(file).expect("read");
            let has = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
            assert!(!has, "{secret} is in {}", file.display());
        }
    }
}

const ENV_KEY: &str = "sk-proj-CANARY01Q7ZX90VBx";
const URL_PASSWORD: &str = "CANARY02Q7ZX90VB";
const URL_KEY: &str = "CANARY03Q7ZX90VB";
const DOCUMENT: &str = "CANARY04Q7ZX90VB";
const QUESTION: &str = "CANARY05Q7ZX90VB";
