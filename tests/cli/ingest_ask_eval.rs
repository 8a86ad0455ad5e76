//! `retake rag`: ingest, ask and eval when all goes well, and going on where they stopped.

use serde_json::Value;

use crate::corpus::{KEEPER, write_lighthouses};
use crate::support::{Bench, assert_fields, int, text};

/// Scenario: a folder is ingested, ingested again, and again after one file changed.
/// Guarantees: what is stored unchanged is not done again; what changed is.
#[test]
fn an_unchanged_document_is_not_ingested_twice() {
    let bench = Bench::new();
    write_lighthouses(&bench.path("docs"));
    let ingest =
        || bench.retake(["rag", "ingest", "docs", "--format", "json"]).expect_code(0).json();

    let first = ingest();
    let found = int(&first["found"]);
    assert_eq!(found, 11);
    assert_eq!((int(&first["committed"]), int(&first["unchanged"])), (found, 0));
    assert!(int(&first["chunks"]) >= found && int(&first["tokens"]) > 0, "{first}");
    assert_eq!((&first["failed"], &first["cancelled"]), (&0.into(), &false.into()));

    let second = ingest();
    assert_eq!((int(&second["committed"]), int(&second["unchanged"])), (0, found));
    assert_eq!((int(&second["chunks"]), int(&second["batches"])), (0, 0), "{second}");
    assert_eq!(second["corpus"], first["corpus"]);

    bench.write("docs/skerryvore.md", "Skerryvore was rebuilt by Archibald Quillfeather.");
    let third = ingest();
    assert_eq!((int(&third["committed"]), int(&third["unchanged"])), (1, found - 1));
    assert_ne!(third["corpus"], first["corpus"]);
    let outcome = bench.retake(["rag", "ask", "Who rebuilt Skerryvore?"]).expect_code(0);
    assert!(outcome.stdout.contains("Quillfeather"), "{}", outcome.stdout);
    assert!(!outcome.stdout.contains("Dunbar"), "the old text is still there");
}

/// Scenario: a question whose answer stands in one document.
/// Guarantees: the answer is that sentence, its source comes first, and the call is recorded with
/// its tokens and its time to first token.
#[test]
fn a_question_is_answered_from_the_document_that_knows() {
    let bench = Bench::with_documents();
    let question = "What was the keeper of Skerryvore called?";
    let plain = bench.retake(["rag", "ask", question]).expect_code(0);
    assert!(plain.stdout.contains(KEEPER), "{}", plain.stdout);
    assert!(plain.stderr.contains("recorded as run"), "{}", plain.stderr);

    let document = bench.retake(["rag", "ask", question, "--format", "json"]).expect_code(0).json();
    assert!(text(&document["answer"]).contains(KEEPER), "{document}");
    assert!(text(&document["hits"][0]["document"]).contains("skerryvore"), "{document}");
    assert_eq!(document["hits"].as_array().map(Vec::len), Some(4));
    let calls = bench.rows(&format!(
        "select status, output_tokens, ttft_ns, tokens_source from spans \
         where kind = 'llm' and run_id = '{}'",
        text(&document["run_id"])
    ));
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0]["status"], "ok");
    assert_eq!(calls[0]["output_tokens"], document["output_tokens"]);
    assert!(int(&calls[0]["ttft_ns"]) > 0);
    assert_eq!(calls[0]["tokens_source"], document["tokens_source"]);
}

/// Scenario: an answer in the ways that settings name, a form that no model here can give, schemas
/// that are wrong, and a window that is too small.
/// Guarantees: each way gives what it says; what cannot work is refused before anything is asked.
#[test]
fn an_answer_is_made_as_the_settings_say() {
    let bench = Bench::with_documents();
    let ask = |changes: &[&str]| {
        let changes: Vec<&str> = changes.iter().flat_map(|change| ["--set", change]).collect();
        let question = ["rag", "ask", "What was the keeper of Skerryvore called?"];
        bench.retake([&question[..], &changes, &["--format", "json"]].concat())
    };
    let refined = ask(&["synthesize.mode=refine"]).expect_code(0).json();
    assert_eq!(refined["model_calls"], 4, "{refined}");
    assert!(text(&refined["answer"]).contains(KEEPER), "{refined}");
    assert!(refined["objection"].is_null() && refined["structured"].is_null(), "{refined}");
    let verbose = ask(&["synthesize.style=verbose", "synthesize.max_sentences=1"]);
    verbose.expect_code(0).expect_message(&["synthesize.style=verbose", "not_verbose"]);
    let extractive = ask(&["synthesize.style=extractive"]).expect_code(0).json();
    assert!(extractive["objection"].is_null(), "{extractive}");
    let steps = "postprocess.steps=[\"bm25\", \"mmr\", \"long_context_reorder\"]";
    let chosen = ask(&[steps, "retrieve.top_k=3"]).expect_code(0).json();
    assert_eq!(chosen["hits"].as_array().map(Vec::len), Some(3), "{chosen}");
    let none = ask(&["synthesize.mode=no_text"]).expect_code(0).json();
    assert_eq!((&none["answer"], &none["model_calls"]), (&"".into(), &0.into()), "{none}");
    ask(&["synthesize.context_window=200"]).expect_message(&["raise synthesize.context_window"]);
    ask(&["postprocess.steps=[\"sort\"]"]).expect_code(2).expect_message(&["similarity_cutoff"]);

    bench.write("form.json", "{\"type\": \"object\", \"required\": [\"keeper\"]}");
    bench.write("odd.json", "{\"pattern\": \"^x\"}");
    let with = |schema: &str| bench.retake(["rag", "ask", "Who?", "--schema", schema]);
    with("odd.json").expect_code(2).expect_message(&["odd.json", "pattern: cannot be checked"]);
    with("none.json").expect_code(3);
    // The built-in model copies sentences; it cannot write JSON, and that is said.
    assert!(with("form.json").stderr.contains("does not have the form"));
}

/// Scenario: a question by vectors, by words and by both, printed and as JSON; settings out of range.
/// Guarantees: the results say which search found them, and each search of a hybrid one is a span.
#[test]
fn a_hybrid_search_says_which_search_found_what() {
    let bench = Bench::with_documents();
    let ask = |changes: &[&str], format: &str| {
        let changes: Vec<&str> = changes.iter().flat_map(|change| ["--set", change]).collect();
        let question = ["rag", "ask", "What was the keeper of Skerryvore called?"];
        bench.retake([&question[..], &changes, &["--format", format]].concat())
    };
    let dense = ask(&[], "json").expect_code(0).json();
    assert_eq!(dense["hits"][0]["found"]["dense"]["rank"], 0, "{dense}");
    assert!(dense["hits"][0]["found"]["text"].is_null(), "{dense}");
    let text = ask(&["retrieve.mode=text"], "json").expect_code(0).json();
    let best = &text["hits"][0]["found"];
    assert!(best["text"]["score"].as_f64() > Some(0.0) && best["dense"].is_null(), "{text}");
    let hybrid = ask(&["retrieve.mode=hybrid"], "json").expect_code(0).json();
    assert!(hybrid["hits"][0]["found"]["fused"].as_f64() > Some(0.0), "{hybrid}");
    assert!(crate::support::text(&hybrid["answer"]).contains(KEEPER), "{hybrid}");
    let spans = bench.rows(&format!(
        "select name from spans where kind = 'retriever' and run_id = '{}' order by name",
        crate::support::text(&hybrid["run_id"])
    ));
    let names: Vec<&str> = spans.iter().filter_map(|row| row["name"].as_str()).collect();
    assert_eq!(names, ["retrieve", "retrieve_dense", "retrieve_text"]);
    let printed = ask(&["retrieve.mode=hybrid", "retrieve.fusion=relative_score"], "table");
    let printed = printed.expect_code(0);
    assert!(printed.stdout.contains("dense 1, text 1"), "{}", printed.stdout);
    ask(&["retrieve.mode=sparse"], "json").expect_code(2).expect_message(&["hybrid"]);
    ask(&["retrieve.dense_weight=2"], "json").expect_code(2).expect_message(&["from 0 to 1"]);
}

/// Scenario: a question asked twice with a cache of answers, then after a document changed.
/// Guarantees: the second is the first one's answer and says so; a changed document is seen.
#[test]
fn an_answer_is_kept_until_a_document_changes() {
    let bench = Bench::with_documents();
    let ask = || {
        let question = "What was the keeper of Skerryvore called?";
        let kept = ["rag", "ask", question, "--set", "query_cache.mode=exact", "--format", "json"];
        bench.retake(kept).expect_code(0).json()
    };
    let first = ask();
    assert!(first["cached"].is_null(), "{first}");
    let second = ask();
    assert_eq!((&second["cached"], &second["answer"]), (&1.0.into(), &first["answer"]));
    assert_eq!(second["model_calls"], 0);
    bench
        .write("docs/skerryvore.md", "The keeper of Skerryvore was called Archibald Quillfeather.");
    bench.retake(["rag", "ingest", "docs"]).expect_code(0);
    let third = ask();
    assert!(
        third["cached"].is_null() && text(&third["answer"]).contains("Quillfeather"),
        "{third}"
    );
}

/// Scenario: the script of an HTML page and the text of a file in a folder below.
/// Guarantees: what is no content is not ingested; what is deep in the tree is.
#[test]
fn scripts_are_left_out_and_subfolders_are_not() {
    let bench = Bench::with_documents();
    let ask = |question: &str| bench.retake(["rag", "ask", question]).expect_code(0).stdout;
    assert!(!ask("alert never shown").contains("alert("));
    assert!(ask("Who perished when the great storm came?").contains("Winstanley perished"));
    assert!(ask("Where does the Fastnet tower stand?").contains("south of Cape Clear"));
}

/// Scenario: questions with references and accepted answers.
/// Guarantees: hit rate, recall, reciprocal rank and answer match are measured where something is
/// known, and nowhere else.
#[test]
fn an_evaluation_measures_against_what_is_known() {
    let bench = Bench::with_documents();
    let known = serde_json::json!({
        "id": "known", "question": "What was the keeper of Skerryvore called?",
        "answers": ["Margaret Dunbar"],
        "references": [{"document": "skerryvore.md", "start_index": 0, "end_index": 60}],
    });
    let wrong = serde_json::json!({
        "id": "wrong", "question": "Where does the Fastnet tower stand?",
        "answers": ["on the moon"],
        "references": [{"document": "no-such.md", "start_index": 0, "end_index": 60}],
    });
    let bare = serde_json::json!({"id": "bare", "question": "Who guards the harbour of Esha?"});
    bench.write("questions.jsonl", format!("{known}\n{wrong}\n\n{bare}\n"));
    let arguments = ["rag", "eval", "questions.jsonl", "--output", "out.jsonl", "--format", "json"];
    let document = bench.retake(arguments).expect_code(0).json();
    assert_fields(&document, &["run_id", "output", "report"]);
    let report = &document["report"];
    assert_eq!((int(&report["questions"]), int(&report["ok"])), (3, 3), "{report}");
    assert_eq!(report["hit_rate"], 0.5, "{report}");
    assert_eq!(report["answer_match_rate"], 0.5, "{report}");
    assert!(report["recall_mean"].as_f64().is_some_and(|mean| mean > 0.0 && mean <= 0.5));
    assert_eq!(report["mrr_mean"], 0.5, "{report}");

    let lines = result_lines(&bench, "out.jsonl");
    let of = |id: &str| lines.iter().find(|line| line["id"] == id).expect("a line").clone();
    assert_eq!(of("known")["hit"], true);
    assert_eq!(of("wrong")["hit"], false);
    assert!(of("bare")["hit"].is_null() && of("bare")["ok"] == true);
    let printed = bench.retake(["rag", "eval", "questions.jsonl"]).expect_code(0).stdout;
    for row in ["latency, p50", "latency, p95", "output tokens of answers", "hit rate"] {
        assert!(printed.contains(row), "{printed}");
    }
}

/// Scenario: an evaluation is repeated after its output lost the end of its last line.
/// Guarantees: the torn line is asked again, the others are not, and the file is whole after.
#[test]
fn an_evaluation_goes_on_after_a_torn_line() {
    let bench = Bench::with_documents();
    bench.write("q.jsonl", crate::corpus::questions(6));
    let eval = || {
        let arguments = ["rag", "eval", "q.jsonl", "--output", "out.jsonl", "--format", "json"];
        bench.retake(arguments).expect_code(0).json()
    };
    assert_eq!(eval()["report"]["resumed"], 0);
    let whole = std::fs::read_to_string(bench.path("out.jsonl")).expect("results");
    std::fs::write(bench.path("out.jsonl"), &whole[..whole.len() - 9]).expect("tear");

    let second = eval();
    assert_eq!(second["report"]["resumed"], 5, "{second}");
    assert_eq!(second["report"]["ok"], 6, "{second}");
    let asked = format!(
        "select count(*) as n from spans where parent_span_id is null and run_id = '{}'",
        text(&second["run_id"])
    );
    assert_eq!(bench.number(&asked), 1, "only the torn item is asked again");
    let mut ids: Vec<String> =
        result_lines(&bench, "out.jsonl").iter().map(|line| text(&line["id"])).collect();
    ids.sort();
    assert_eq!(ids, ["q0", "q1", "q2", "q3", "q4", "q5"]);

    assert_eq!(eval()["report"]["resumed"], 6);
}

/// Scenario: a run is named and labelled, and asked for in each way a selector allows.
/// Guarantees: id, prefix, name, `last`, `last~1` and label name the same runs everywhere.
#[test]
fn runs_are_found_by_every_kind_of_selector() {
    let bench = Bench::with_documents();
    for (name, label) in [("morning", "shift=day"), ("evening", "shift=night")] {
        let ask = ["rag", "ask", "Who guards Esha?", "--run", name, "--label", label];
        bench.retake(ask).expect_code(0);
    }
    let show = |selector: &str| {
        let outcome = bench.retake(["runs", "show", selector, "--format", "json"]).expect_code(0);
        text(&outcome.json()["name"])
    };
    assert_eq!(show("last"), "evening");
    assert_eq!(show("last~1"), "morning");
    assert_eq!(show("label:shift=day"), "morning");
    assert_eq!(show("morning"), "morning");
    let run_id = bench.last_run();
    assert_eq!(show(&run_id), "evening");
    assert_eq!(show(&run_id[..run_id.len() - 2]), "evening");

    bench.retake(["runs", "label", "morning", "keep=yes"]).expect_code(0);
    assert_eq!(show("label:keep=yes"), "morning");
    bench.retake(["runs", "rm", "morning"]).expect_code(2).expect_message(&["--yes"]);
    bench.retake(["runs", "rm", "morning", "--yes"]).expect_code(0);
    bench.retake(["runs", "show", "morning"]).expect_code(3);
    assert_eq!(bench.runs().len(), 2);
}

fn result_lines(bench: &Bench, name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(bench.path(name)).expect("results");
    assert!(text.ends_with('\n'), "the last line is not whole");
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}
