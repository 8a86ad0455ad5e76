//! Public labelled questions, asked of a service that fails and sets limits.
//!
//! `RETAKE_TEST_QUESTIONS` names a file of JSON lines with questions and answers (NQ-open), and
//! `RETAKE_TEST_CHUNKING_EVAL` a folder with documents and questions whose answers are places in them
//! (chunking_evaluation), both gzipped as they are published. Without them the tests skip.
//! `RETAKE_TEST_QUESTIONS_MAX` says how many questions to ask; 400 if it says nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fake_server::Server;
use crate::support::{Bench, int, text};

/// What is in a gzipped file.
fn unpacked(path: &Path) -> Vec<u8> {
    let output = Command::new("gzip").arg("-dc").arg(path).output().expect("gzip");
    assert!(output.status.success(), "{}", path.display());
    output.stdout
}

fn folder(variable: &str, test: &str) -> Option<PathBuf> {
    let found = std::env::var_os(variable).map(PathBuf::from).filter(|path| path.exists());
    if found.is_none() {
        eprintln!("{test}: skipped: {variable} names nothing that is there");
    }
    found
}

/// A bench with the documents of chunking_evaluation.
fn bench_of(data: &Path) -> Bench {
    let bench = Bench::new();
    for name in ["chatlogs.md", "state_of_the_union.md", "wikitexts.md"] {
        bench.write(&format!("docs/{name}"), unpacked(&data.join(format!("{name}.gz"))));
    }
    bench.retake(["rag", "ingest", "docs", "--set", "chunk.size=200"]).expect_code(0);
    bench
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| serde_json::from_str(line).expect("a result")).collect()
}

/// Scenario: NQ-open's questions against a service that fails one request in twenty, in every way,
/// and limits the rate, with a judge that does the same; killed with SIGKILL after a third.
/// Guarantees: it finishes; every question has exactly one line; every line is an answer or an
/// error, and every answer is judged or says why not; answers of before the kill are not asked
/// again.
#[test]
fn labelled_questions_are_all_accounted_for() {
    let test = "labelled_questions_are_all_accounted_for";
    let Some(data) = folder("RETAKE_TEST_CHUNKING_EVAL", test) else { return };
    let Some(questions) = folder("RETAKE_TEST_QUESTIONS", test) else { return };
    let most = std::env::var("RETAKE_TEST_QUESTIONS_MAX").ok().and_then(|most| most.parse().ok());
    let most: usize = most.unwrap_or(400);
    let bench = bench_of(&data);
    let all = String::from_utf8(unpacked(&questions)).expect("text");
    let asked: Vec<&str> = all.lines().take(most).collect();
    bench.write("q.jsonl", format!("{}\n", asked.join("\n")));
    let replies = [r#"{"contains": "how right the answer", "reply": "Score: 2\nReason: r"}"#];
    bench.write("replies.jsonl", replies.join("\n"));
    let server = Server::start(
        &bench,
        &[
            "--replies",
            "replies.jsonl",
            "--fail-rate",
            "0.05",
            "--fail",
            "500,503,429,reset,400,cut,garbage",
            "--requests-per-minute",
            "30000",
        ],
    );
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
        "eval.evaluators=[\"correctness\", \"semantic_similarity\"]",
        "--set",
        "chunk.size=200",
        "--set",
        "workers=16",
        "--set",
        "limits.requests_per_minute=24000",
    ];
    let begun = Instant::now();
    let mut child = bench.start(eval);
    let output = bench.path("out.jsonl");
    while lines(&output).len() < asked.len() / 3 {
        assert!(child.try_wait().expect("state").is_none(), "it ended early");
        assert!(begun.elapsed() < PATIENCE, "only {} results", lines(&output).len());
        std::thread::sleep(Duration::from_millis(50));
    }
    child.kill().expect("SIGKILL");
    child.wait().expect("dead");
    let before = lines(&output).len() as i64;

    let arguments = [eval.as_slice(), &["--format", "json"]].concat();
    let report = bench.retake_within(arguments, PATIENCE).expect_code(0).json()["report"].clone();
    eprintln!("{} questions in {:?}: {report}", asked.len(), begun.elapsed());
    let count = asked.len() as i64;
    assert_eq!(int(&report["questions"]), count, "{report}");
    assert!(int(&report["resumed"]) >= before, "{report}");
    assert_eq!(int(&report["ok"]) + int(&report["failed"]), count, "{report}");
    // 400, a cut stream and garbage are not tried again: 5 % of three in seven.
    assert!(int(&report["failed"]) > 0 && int(&report["failed"]) * 20 < count, "{report}");
    let results = lines(&output);
    let ids: BTreeSet<String> = results.iter().map(|line| text(&line["id"])).collect();
    assert_eq!((results.len() as i64, ids.len() as i64), (count, count));
    for line in &results {
        let is_answered = line["ok"] == true;
        assert_eq!(is_answered, line["error_type"].is_null(), "{line}");
        assert!(!is_answered || line["judgements"]["correctness"].is_object(), "{line}");
    }
    for judged in report["judgements"].as_object().expect("judgements").values() {
        let sum: i64 = ["judged", "invalid", "failed", "not_applicable"]
            .iter()
            .map(|name| int(&judged[name]))
            .sum();
        assert_eq!(sum, int(&report["ok"]), "{report}");
    }
    server.end();
}

/// Scenario: the questions of chunking_evaluation, whose answers are places in three documents, in
/// chunks of 200, 400 and 800 tokens; by MiniLM if there is one.
/// Guarantees: span precision and recall are those that an independent script counts, character by
/// character, from the chunks in the recorded run.
#[test]
fn span_measures_agree_with_an_independent_script() {
    let test = "span_measures_agree_with_an_independent_script";
    let Some(data) = folder("RETAKE_TEST_CHUNKING_EVAL", test) else { return };
    let Some(python) = std::env::var_os("RETAKE_TEST_PYTHON") else {
        eprintln!("{test}: skipped: RETAKE_TEST_PYTHON names no python");
        return;
    };
    let mut bench = bench_of(&data);
    let mut provider = "embed.provider=hashing";
    if let Some(model) = std::env::var_os("RETAKE_MODEL_DIR") {
        bench = bench.with_variable("RETAKE_MODEL_DIR", &model.to_string_lossy());
        provider = "embed.provider=minilm";
    }
    bench.write("questions.csv", unpacked(&data.join("questions_df.csv.gz")));
    let run = |script: &str, text: &str| -> String {
        let mut command = Command::new(&python);
        command.arg(bench.write(script, text)).current_dir(bench.path("."));
        let output = command.output().expect("python");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        String::from_utf8(output.stdout).expect("text")
    };
    bench.write("q.jsonl", run("labels.py", LABELS));
    for size in ["200", "400", "800"] {
        let (size_set, collection) =
            (format!("chunk.size={size}"), format!("vectors.collection=c{size}"));
        let changes = ["--set", provider, "--set", &size_set, "--set", &collection];
        let ingest = [&["rag", "ingest", "docs"], changes.as_slice()].concat();
        bench.retake_within(ingest, PATIENCE).expect_code(0);
        let eval = [&["rag", "eval", "q.jsonl", "--format", "json"], changes.as_slice()].concat();
        let document = bench.retake_within(eval, PATIENCE).expect_code(0).json();
        let report = &document["report"];
        assert_eq!(int(&report["ok"]), 276, "{report}");
        // The chunks that were retrieved, from the recorded run.
        let found = bench.rows(&format!(
            "select s.request_id as id, d.rank, d.source, d.start_char, d.end_char \
             from documents d join spans r on d.span_id = r.span_id and d.run_id = r.run_id \
             join spans s on s.trace_id = r.trace_id and s.run_id = r.run_id \
             and s.parent_span_id is null \
             where d.role = 'retrieved' and d.run_id = '{}' order by 1, 2",
            text(&document["run_id"])
        ));
        assert_eq!(found.len(), 276 * 4);
        let rows: Vec<String> = found.iter().map(ToString::to_string).collect();
        bench.write("found.jsonl", rows.join("\n"));
        let measured: Value = serde_json::from_str(&run("measure.py", MEASURE)).expect("figures");
        let own = &report["retrieval"]["by_span"];
        eprintln!("{provider}, chunks of {size}: independent {measured}, own {own}");
        for name in ["precision", "recall"] {
            let (one, other) = (measured[name].as_f64(), own[name].as_f64());
            let distance = (one.expect("figure") - other.expect("figure")).abs();
            assert!(distance < 1e-9, "{name}: {measured} and {own}");
        }
        assert!(own["recall"].as_f64() > Some(0.4), "{own}");
    }
}

/// The published labels as JSON lines.
const LABELS: &str = r#"
import csv, json
with open("questions.csv", newline="") as file:
    for number, row in enumerate(csv.DictReader(file)):
        places = [{k: r[k] for k in ("start_index", "end_index")} for r in json.loads(row["references"])]
        print(json.dumps({"id": f"c{number}", "question": row["question"],
                          "corpus_id": row["corpus_id"], "references": places}))
"#;

/// Precision and recall by counting characters in sets.
const MEASURE: &str = r#"
import collections, json, os
found = collections.defaultdict(list)
for line in open("found.jsonl"):
    row = json.loads(line)
    found[row["id"]].append(row)
precision = recall = count = 0
for line in open("q.jsonl"):
    question = json.loads(line)
    wanted = {(question["corpus_id"], at) for place in question["references"]
              for at in range(place["start_index"], place["end_index"])}
    read = {(os.path.splitext(os.path.basename(row["source"]))[0], at)
            for row in found[question["id"]] for at in range(row["start_char"], row["end_char"])}
    precision += len(read & wanted) / len(read)
    recall += len(read & wanted) / len(wanted)
    count += 1
print(json.dumps({"precision": precision / count, "recall": recall / count}))
"#;
/// All 3,610 questions take minutes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(1200);
