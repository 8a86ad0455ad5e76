//! Settings, labels and options that are unknown, malformed, or do not fit what is stored.

use crate::support::Bench;

/// Scenario: `--set` with an unknown name, without a value, and with values out of range.
/// Guarantees: exit 2; the message names the known settings, or the reason; no run is made.
#[test]
fn a_wrong_setting_is_refused_before_anything_is_recorded() {
    let bench = Bench::with_documents();
    let set = |change: &str| bench.retake(["rag", "ask", "Who?", "--set", change]).expect_code(2);
    set("embed.batchsize=64").expect_message(&["embed.batchsize", "embed.batch_size", "workers"]);
    set("workers").expect_message(&["name=value"]);
    set("workers=0").expect_message(&["workers", "at least 1"]);
    set("workers=many").expect_message(&["workers", "many"]);
    set("workers=-1").expect_message(&["workers"]);
    set("workers=100000").expect_message(&["workers", "at most"]);
    set("embed.dim=99999").expect_message(&["embed.dim", "at most"]);
    set("chunk.overlap=256").expect_message(&["chunk.overlap", "chunk.size"]);
    set("embed.provider=magic").expect_message(&["embed.provider", "hashing", "minilm"]);
    set("synthesize.stream=perhaps").expect_message(&["synthesize.stream"]);
    set("retrieve.filter=author = 'Ann'").expect_message(&["author", "document, path, kind"]);
    set("retrieve.filter=kind = markdown and").expect_message(&["character 20", "a field"]);
    bench
        .retake(["replay", "plan", "last", "--set", "nothing=1"])
        .expect_code(2)
        .expect_message(&["nothing", "no such setting", "embed.batch_size"]);
    bench
        .retake(["replay", "plan", "last", "--set", "workers=3"])
        .expect_code(30)
        .expect_message(&["--capture full"]);
    assert_eq!(bench.runs().len(), 1);
}

/// Scenario: labels without a value or without a name.
/// Guarantees: exit 2, and no run is made.
#[test]
fn a_label_needs_a_name_and_a_value() {
    let bench = Bench::with_documents();
    for label in ["branch", "=main", " =x"] {
        let ask = ["rag", "ask", "Who?", "--label", label];
        bench.retake(ask).expect_code(2).expect_message(&["key=value"]);
        bench.retake(["runs", "label", "last", label]).expect_code(2);
    }
    assert_eq!(bench.runs().len(), 1);
}

/// Scenario: a `retake.toml` that is no TOML, has an unknown key, or a value of the wrong type.
/// Guarantees: exit 2; the message names the file and the key or the place.
#[test]
fn a_wrong_configuration_file_is_named() {
    let bench = Bench::with_documents();
    let runs = |toml: &str| {
        bench.write("retake.toml", toml);
        bench.retake(["runs"]).expect_code(2)
    };
    runs("[rag]\nworkers = = 2\n").expect_message(&["retake.toml", "line 2"]);
    runs("[rag]\nworker = 2\n").expect_message(&["retake.toml", "worker", "workers"]);
    runs("[rag.embed]\nbatch_size = \"many\"\n").expect_message(&["retake.toml", "batch_size"]);
    runs("[rag.retrieve]\nfilter = \"size > 3\"\n").expect_message(&[
        "retake.toml",
        "size",
        "path",
    ]);
    runs("[no_such_table]\n").expect_message(&["retake.toml", "no_such_table"]);
    runs("[rag]\nworkers = 0\n").expect_message(&["workers", "at least 1"]);
    runs("[record.redact]\ndetectors = [\"mails\"]\n").expect_message(&["mails", "emails"]);
    runs("[record.redact]\nrules = [{ name = \"order\", pattern = \"(\" }]\n")
        .expect_message(&["order", "[record.redact]"]);
    runs("[record]\nsample_ms = 3\n").expect_message(&["record.sample_ms", "0 (no samples)"]);
    runs("[record.budget]\n").expect_message(&["record.budget", "input_tokens"]);
    runs("[record.budget.models.m]\ntokens = 1\n").expect_message(&["retake.toml", "tokens"]);
    bench.write("retake.toml", b"\xff\xfe");
    bench.retake(["runs"]).expect_code(2).expect_message(&["retake.toml"]);
    std::fs::remove_file(bench.path("retake.toml")).expect("remove");
    let missing = ["--config", "other.toml", "runs"];
    bench.retake(missing).expect_code(3).expect_message(&["other.toml"]);
}

/// Scenario: settings come from the file, the environment, and the command line at once.
/// Guarantees: the command line wins over the environment, that over the file; `config --explain`
/// says where each came from; a wrong variable is refused.
#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let bench = Bench::with_documents().with_variable("RETAKE_RAG__RETRIEVE__TOP_K", "3");
    bench.write("retake.toml", "[rag]\nworkers = 5\n[rag.retrieve]\ntop_k = 7\n");
    let config = bench.retake(["config", "--explain", "--format", "json"]).expect_code(0).json();
    let setting = |name: &str| config["settings"][name].clone();
    assert_eq!(setting("rag.workers")["value"], 5);
    assert!(setting("rag.workers")["origin"].to_string().contains("retake.toml"));
    assert_eq!(setting("rag.retrieve.top_k")["value"], 3);
    assert!(setting("rag.retrieve.top_k")["origin"].to_string().contains("RETRIEVE__TOP_K"));
    assert_eq!(setting("rag.seed")["origin"], "default");

    bench.retake(["rag", "ask", "Who guards Esha?"]).expect_code(0);
    bench.retake(["rag", "ask", "Who guards Esha?", "--set", "retrieve.top_k=2"]).expect_code(0);
    let runs = bench.runs();
    let top_k = |index: usize| runs[index]["settings"]["retrieve.top_k"].clone();
    assert_eq!((top_k(1), top_k(2)), (3.into(), 2.into()));
    assert_eq!(runs[1]["settings"]["workers"], 5);

    let bench = Bench::new().with_variable("RETAKE_RAG__WORKERS", "many");
    bench.retake(["runs"]).expect_code(2).expect_message(&["many", "WORKERS", "RETAKE_"]);
    let bench = Bench::new().with_variable("RETAKE_RAG__WORKER", "2");
    bench.retake(["runs"]).expect_code(2).expect_message(&["worker"]);
}

/// Scenario: a question is embedded with other dimensions than the documents were.
/// Guarantees: V3 - exit 2; the message names both widths and what to do; the documents stay.
#[test]
fn vectors_of_another_width_are_refused() {
    let bench = Bench::with_documents();
    for arguments in [["rag", "ask", "Who guards Esha?"], ["rag", "ingest", "docs"]] {
        let narrow = [arguments.as_slice(), &["--set", "embed.dim=128"]].concat();
        bench.retake(narrow).expect_code(2).expect_message(&["384", "128", "vectors.collection"]);
    }
    let other = ["--set", "embed.dim=128", "--set", "vectors.collection=narrow"];
    bench.retake([["rag", "ingest", "docs"].as_slice(), &other].concat()).expect_code(0);
    bench.retake([["rag", "ask", "Who guards Esha?"].as_slice(), &other].concat()).expect_code(0);
    bench.retake(["rag", "ask", "Who guards Esha?"]).expect_code(0);
}

/// Scenario: the vector store is at an unknown kind of address, or at one nobody answers.
/// Guarantees: P1 - exit 2 or 4 with the kind of store, and never the password.
#[test]
fn a_vector_store_that_cannot_be_reached_is_told_without_its_password() {
    let bench = Bench::new();
    bench.write("docs/a.md", "Something.");
    for (url, code) in [
        ("mysql://ann:s3cret@localhost/db", 2),
        ("rag.sqlite", 2),
        ("sqlite:", 2),
        ("postgres://ann:s3cret@127.0.0.1:9/db", 4),
    ] {
        let setting = format!("vectors.url={url}");
        let outcome = bench.retake(["rag", "ingest", "docs", "--set", &setting]).expect_code(code);
        assert!(!outcome.stderr.contains("s3cret"), "{}", outcome.stderr);
        let kind = if code == 4 { "PostgreSQL" } else { "sqlite:" };
        assert!(outcome.stderr.contains(kind), "{url}: {}", outcome.stderr);
    }
    let bench = bench.with_variable("RETAKE_RAG__VECTORS__URL", "mysql://ann:s3cret@localhost/db");
    let config = bench.retake(["config"]).expect_code(0);
    assert!(!config.stdout.contains("s3cret"), "{}", config.stdout);
}

/// Scenario: the model of MiniLM is not given, is not there, or is incomplete.
/// Guarantees: exit 2 with the variable that helps and the files that are needed.
#[test]
fn a_missing_model_folder_says_what_to_give() {
    let bench = Bench::with_documents();
    std::fs::create_dir(bench.path("model")).expect("a folder");
    let ask = |more: &[&str]| {
        let minilm = ["rag", "ask", "Who?", "--set", "embed.provider=minilm"];
        bench.retake([minilm.as_slice(), more].concat()).expect_code(2)
    };
    ask(&[]).expect_message(&["RETAKE_MODEL_DIR", "embed.model_dir"]);
    for folder in ["no-such-folder", "model"] {
        let setting = format!("embed.model_dir={folder}");
        ask(&["--set", &setting]).expect_message(&[folder, "model.safetensors", "tokenizer.json"]);
    }
}

/// Scenario: services without a URL, formats and groups that do not exist, wrong numbers.
/// Guarantees: exit 2, and what may stand there instead.
#[test]
fn wrong_options_are_told_what_may_stand_there() {
    let bench = Bench::with_documents();
    let refused = |arguments: &[&str], parts: &[&str]| {
        bench.retake(arguments).expect_code(2).expect_message(parts);
    };
    refused(&["rag", "ask", "x", "--set", "embed.provider=openai"], &["embed.url", "http"]);
    refused(&["rag", "ask", "x", "--set", "synthesize.provider=openai"], &["synthesize.url"]);
    refused(&["rag", "ask", "x", "--capture", "some"], &["off, digest, redacted or full"]);
    refused(&["breakdown", "--by", "colour"], &["colour", "stage", "model"]);
    refused(&["runs", "--format", "parquet"], &["table, json or markdown", "retake sql"]);
    refused(&["runs", "--format", "yaml"], &["yaml", "ndjson"]);
    refused(&["replay", "run", "last", "--concurrency", "0"], &["--concurrency"]);
    refused(&["replay", "run", "last", "--speed=-1"], &["--speed"]);
    refused(&["replay", "run", "last", "--speed", "nan"], &["--speed"]);
    refused(&["replay", "run", "last", "--llm", "guess"], &["live", "recorded"]);
    refused(&["frobnicate"], &["frobnicate", "--help"]);
    refused(&[], &["Usage"]);
}
