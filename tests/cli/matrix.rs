//! `retake rag eval --vary`, `fetch`, `cache`, `save` and `restore`.

use serde_json::Value;

use crate::replay_service::Service;
use crate::support::{Bench, int, text};

fn questions(bench: &Bench) {
    let known = serde_json::json!({
        "id": "known", "question": "What was the keeper of Skerryvore called?",
        "answers": ["Margaret Dunbar"],
        "references": [{"document": "skerryvore.md", "start_index": 0, "end_index": 60}],
    });
    let other = serde_json::json!({
        "id": "other", "question": "Where does the Fastnet tower stand?", "answers": ["Cape Clear"],
    });
    bench.write("q.jsonl", format!("{known}\n{other}\n"));
}

/// Scenario: two rerankers, two numbers of chunks, two styles; one combination names a model that
/// is not there. The command is given again.
/// Guarantees: a row for each combination, with its settings, quality, latency, tokens and price; a
/// run for each, with its label; the one that cannot work says why and costs no other anything;
/// nothing is asked twice.
#[test]
fn settings_stand_side_by_side_and_one_that_fails_fails_alone() {
    let bench = Bench::with_documents();
    questions(&bench);
    bench.write("retake.toml", "[prices.extractive-1]\ninput = 1.0\noutput = 2.0\n");
    let compare = |more: &[&str]| {
        let all = ["rag", "eval", "q.jsonl", "--vary", "rerank.provider=none,bm25,cross_encoder"];
        let all = [&all[..], &["--vary", "retrieve.top_k=1,4", "--output", "cells"], more].concat();
        bench.retake(all).expect_code(0)
    };
    let document = compare(&["--format", "json"]).json();
    let cells = document["cells"].as_array().expect("cells").clone();
    assert_eq!(cells.len(), 6, "{document}");
    for cell in &cells {
        let settings = &cell["settings"];
        if settings["rerank.provider"] == "cross_encoder" {
            assert!(text(&cell["error"]).contains("rerank.model_dir"), "{cell}");
            assert!(cell["report"].is_null(), "{cell}");
            continue;
        }
        let report = &cell["report"];
        assert_eq!((int(&report["ok"]), &report["answer_match_rate"]), (2, &1.0.into()), "{cell}");
        assert!(report["latency_ms_p95"].as_f64() >= report["latency_ms_p50"].as_f64(), "{cell}");
        let tokens = &report["tokens"];
        let expected = (int(&tokens["input"]) + 2 * int(&tokens["output"])) as f64 / 1e6;
        let cost = cell["cost_usd"].as_f64().expect("a price");
        assert!((cost - expected).abs() < 1e-12 && cost > 0.0, "{cell}");
        let shown = bench.retake(["runs", "show", &text(&cell["run_id"]), "--format", "json"]);
        let label = text(&shown.expect_code(0).json()["labels"]["cell"]);
        assert!(label.contains(&format!("retrieve.top_k={}", text(&settings["retrieve.top_k"]))));
    }
    let tokens = |cell: &Value| int(&cell["report"]["tokens"]["input"]);
    assert!(tokens(&cells[0]) < tokens(&cells[1]), "more chunks, more tokens: {document}");
    let files: Vec<_> = std::fs::read_dir(bench.path("cells")).expect("a folder").collect();
    assert_eq!(files.len(), 4);

    let again = compare(&["--format", "markdown"]);
    let rows: Vec<&str> = again.stdout.lines().collect();
    assert_eq!(rows.len(), 8, "{}", again.stdout);
    assert!(rows[0].contains("rerank.provider") && rows[0].contains("p95 ms"), "{}", rows[0]);
    assert!(rows[2].contains("none") && rows[2].contains("1.000"), "{}", rows[2]);
    assert!(again.stderr.contains("rerank.model_dir"), "{}", again.stderr);
    let asked = "select count(*) as n from spans where parent_span_id is null and name = 'query'";
    assert_eq!(bench.number(asked), 8, "no question is asked twice");
}

/// Guarantees: what cannot be compared is refused before anything is asked, and says what to do.
#[test]
fn what_an_ingest_decided_cannot_be_varied() {
    let bench = Bench::with_documents();
    questions(&bench);
    let vary = |value: &str| bench.retake(["rag", "eval", "q.jsonl", "--vary", value]);
    vary("chunk.size=200,400").expect_code(2).expect_message(&["chunk.size", "vectors.collection"]);
    vary("retrieve.top_k=3").expect_code(2).expect_message(&["nothing to compare"]);
    vary("retrieve.top_k=0,3").expect_code(2).expect_message(&["retrieve.top_k"]);
    vary("retrieve.topk=1,3").expect_code(2).expect_message(&["retrieve.top_k"]);
    let before = bench.runs().len();
    assert_eq!(before, 1, "only the ingest");
}

/// Scenario: pages that are there, one whose address is none, one that is too large.
/// Guarantees: each has a result of its own; what was fetched can be ingested; a failed page is no
/// file, and no address shows what follows `?`.
#[test]
fn pages_are_fetched_each_for_itself() {
    let bench = Bench::new();
    let service = Service::start();
    let url = |page: &str| format!("{}/{page}", service.url());
    bench.write("urls.txt", format!("# a list\n{}\n\n{}\n", url("b"), url("a?key=secret")));
    let fetch = ["rag", "fetch", &url("a?key=secret"), "ftp://host/x", "--from", "urls.txt"];
    let rest = ["--output", "pages", "--format", "json"];
    let outcome = bench.retake([&fetch[..], &rest].concat()).expect_code(4);
    assert!(!outcome.stderr.contains("secret"), "{}", outcome.stderr);
    let document = outcome.json();
    let pages = document["pages"].as_array().expect("pages");
    assert_eq!(pages.len(), 3, "each address once: {document}");
    assert_eq!(pages[1]["error_type"], "bad_url");
    assert!(pages[1]["file"].is_null());
    let files: Vec<String> = std::fs::read_dir(bench.path("pages"))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(files.len(), 2, "{files:?}");
    assert!(files.iter().all(|name| !name.contains("secret")), "{files:?}");
    let spans = format!(
        "select count(*) as n from spans where stage = 'fetch' and run_id = '{}'",
        text(&document["run_id"])
    );
    assert_eq!(bench.number(&spans), 3);
    let small = ["rag", "fetch", &url("a"), "--output", "small", "--bytes-max", "10"];
    bench.retake(small).expect_code(4).expect_message(&["larger than 10 bytes"]);
    assert_eq!(std::fs::read_dir(bench.path("small")).expect("a folder").count(), 0);
    bench.retake(["rag", "fetch", "--from", "none.txt", "--output", "x"]).expect_code(3);
    bench.retake(["rag", "ingest", "pages"]).expect_code(0);
}

/// Scenario: documents and both caches are filled, saved, changed, restored; caches are looked at,
/// made smaller and cleared.
/// Guarantees: all is back as it was; a save never writes over another; to look makes no cache.
#[test]
fn what_the_pipeline_keeps_is_saved_restored_and_looked_at() {
    let bench = Bench::with_documents();
    let cache = |arguments: &[&str]| {
        let all = [&["rag", "cache"], arguments, &["--format", "json"]].concat();
        bench.retake(all).expect_code(0).json()
    };
    let empty = cache(&[]);
    assert_eq!((&empty["vectors"], &empty["answers"]), (&serde_json::json!([]), &Value::Null));
    assert!(!bench.store().join("rag-cache.sqlite").exists());

    let caching = ["rag", "ingest", "docs", "--set", "cache.enabled=true"];
    bench.retake([&caching[..], &["--set", "vectors.collection=other"]].concat()).expect_code(0);
    let ask = || {
        let question = "What was the keeper of Skerryvore called?";
        let kept = ["rag", "ask", question, "--set", "query_cache.mode=exact", "--format", "json"];
        bench.retake(kept).expect_code(0).json()
    };
    let first = ask();
    assert!(first["cached"].is_null());
    let saved = bench.retake(["rag", "save", "backup", "--format", "json"]).expect_code(0).json();
    let names: Vec<String> = saved["collections"]
        .as_array()
        .expect("collections")
        .iter()
        .map(|held| text(&held["name"]))
        .collect();
    assert_eq!(names, ["default", "other"]);
    bench.retake(["rag", "save", "backup"]).expect_code(2).expect_message(&["is there already"]);

    bench.write("docs/skerryvore.md", "The keeper of Skerryvore was called Quillfeather.");
    bench.retake(["rag", "ingest", "docs"]).expect_code(0);
    assert!(text(&ask()["answer"]).contains("Quillfeather"));
    let held = cache(&[]);
    let entries = int(&held["vectors"][0]["entries"]);
    assert!(entries > 0 && held["vectors"][0]["collection"] == "other", "{held}");
    assert_eq!(held["answers"]["entries"], 2);
    let evicted = cache(&["evict", "--bytes", "0", "--answers", "1"]);
    assert_eq!(
        (int(&evicted["removed"]["vectors"]), int(&evicted["removed"]["answers"])),
        (entries, 1)
    );
    let cleared = cache(&["clear", "--only", "answers"]);
    assert_eq!((int(&cleared["removed"]["vectors"]), int(&cleared["removed"]["answers"])), (0, 1));

    bench.retake(["rag", "restore", "backup"]).expect_code(0);
    let again = ask();
    assert_eq!((&again["cached"], &again["answer"]), (&1.0.into(), &first["answer"]), "{again}");
    assert_eq!(int(&cache(&[])["vectors"][0]["entries"]), entries);
    bench.retake(["rag", "restore", "nothing"]).expect_code(3);
    let manifest = bench.path("backup/manifest.json");
    let torn = std::fs::read_to_string(&manifest).expect("a manifest").replace("digest", "digset");
    std::fs::write(&manifest, torn).expect("a manifest");
    bench.retake(["rag", "restore", "backup"]).expect_code(5);
}
