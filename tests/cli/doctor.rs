//! `retake doctor` on machines and stores with something wrong.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::Value;

use crate::postgres::TestPostgres;
use crate::support::{Bench, text};

/// The findings, and fails unless the command ended with this code.
fn examined(bench: &Bench, code: i32) -> Vec<Value> {
    let mut found = bench.retake(["doctor", "--format", "json"]).expect_code(code).json();
    assert_eq!(found["ok"], code == 0, "{found}");
    match found["checks"].take() {
        Value::Array(checks) => checks,
        other => panic!("checks are {other}"),
    }
}

fn of<'a>(checks: &'a [Value], check: &str) -> &'a Value {
    checks.iter().find(|one| one["check"] == check).unwrap_or_else(|| panic!("{check}: {checks:?}"))
}

/// Fails unless a check found this, at this level, and says what to type.
fn expect(checks: &[Value], check: &str, level: &str, found: &str, advice: &str) {
    let one = of(checks, check);
    assert_eq!(one["level"], level, "{one}");
    assert!(text(&one["found"]).contains(found), "{one}");
    assert!(text(&one["advice"]).contains(advice), "{one}");
}

/// Scenario: a fresh machine, then a store that is named and not there, then a sound one.
/// Guarantees: no store yet is no fault; a named one that is not there is; a sound one is `sound`.
#[test]
fn a_machine_without_a_store_is_told_what_to_type() {
    let bench = Bench::new();
    let mut command = bench.command(["doctor", "--format", "json"]);
    let output = command.env_remove("RETAKE_STORE").output().expect("the program starts");
    assert!(output.status.success(), "{output:?}");
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let checks = found["checks"].as_array().expect("checks");
    expect(checks, "store", "note", "none yet", "retake demo");
    let checks = examined(&bench, 3);
    expect(&checks, "store", "bad", "there is none", "retake demo");

    let bench = Bench::with_documents();
    let checks = examined(&bench, 0);
    assert_eq!(of(&checks, "store")["level"], "ok", "{checks:?}");
    assert!(text(&of(&checks, "store")["where"]).ends_with("/store"));
    let shown = bench.retake(["doctor"]).expect_code(0).stdout;
    assert!(shown.contains("sound, ") && shown.contains("-> `retake init`"), "{shown}");
    assert!(
        bench.retake(["doctor", "--format", "markdown"]).expect_code(0).stdout.contains("| ok")
    );
}

/// Scenario: settings and budgets that cannot be read, and a variable that is misspelt.
/// Guarantees: the doctor works nevertheless, names file and key, and ends with 2.
#[test]
fn what_is_written_wrongly_is_found() {
    let bench = Bench::with_documents().with_variable("RETAKE_STROE", "x");
    bench.write("retake.toml", "[record]\ncaptre = \"full\"\n");
    bench.write("budgets.toml", "version = 1\n[[budget]]\nname = 1\n");
    let checks = examined(&bench, 2);
    expect(&checks, "settings", "bad", "captre", "retake init --dry-run");
    assert!(text(&of(&checks, "settings")["where"]).ends_with("retake.toml"), "{checks:?}");
    expect(&checks, "budgets", "bad", "expected a string", "retake check --example");
    expect(&checks, "environment", "note", "means nothing", "RETAKE_RAG__");
    assert_eq!(of(&checks, "environment")["where"], "RETAKE_STROE");
    assert_eq!(of(&checks, "store")["level"], "ok", "with the defaults all else is looked at");
}

/// Scenario: a folder that others can read, one that is a file, one without runs.
/// Guarantees: each is told from the others, with the command that mends it.
#[test]
fn folders_that_are_no_stores_are_told_apart() {
    let bench = Bench::with_documents();
    std::fs::set_permissions(bench.store(), PermissionsExt::from_mode(0o755)).expect("a mode");
    expect(&examined(&bench, 0), "store", "note", "other users", "chmod 700");
    bench.write("file", "no folder");
    let file = bench.retake(["doctor", "--store", "file"]).expect_code(4).stdout;
    assert!(file.contains("it is no folder"), "{file}");
    let other = bench.retake(["doctor", "--store", "docs"]).expect_code(3).stdout;
    assert!(other.contains("it holds no `runs`"), "{other}");
    bench.retake(["doctor", "--store", "s3://bucket/x"]).expect_code(2);
    // Root may write everywhere.
    if !rustix::process::geteuid().is_root() {
        std::fs::set_permissions(bench.store(), PermissionsExt::from_mode(0o500)).expect("a mode");
        expect(&examined(&bench, 4), "store", "bad", "not writable", "chmod -R u+rwX");
        std::fs::set_permissions(bench.store(), PermissionsExt::from_mode(0o700)).expect("a mode");
    }
}

/// Scenario: a run that is being recorded, then one whose process was killed, a manifest that is
/// cut off, one of a later format, and files in quarantine.
/// Guarantees: each has its finding, its place, its command and its exit code; the doctor repairs
/// nothing.
#[test]
fn runs_with_something_wrong_are_found() {
    let bench = Bench::with_documents();
    let mut child = bench.start(["serve", "--listen", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]);
    let mut proxied =
        bench.start(["proxy", "--to", "http://127.0.0.1:9", "--listen", "127.0.0.1:0"]);
    let recording = || bench.runs().iter().any(|run| run["status"] == "recording");
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while !recording() {
        assert!(std::time::Instant::now() < deadline, "nothing is being recorded");
        std::thread::sleep(Duration::from_millis(100));
    }
    let checks = examined(&bench, 0);
    let live = of(&checks, "recording");
    if cfg!(target_os = "linux") && text(&live["found"]).contains("process") {
        let pid = proxied.id().to_string();
        assert!(text(&live["found"]).contains(&format!("process {pid} (retake)")), "{live}");
        assert!(text(&live["advice"]).contains(&format!("kill -INT {pid}")), "{live}");
    }
    child.kill().and_then(|()| child.wait()).expect("the receiver ends");
    proxied.kill().and_then(|()| proxied.wait()).expect("the proxy dies");
    for _ in 0..2 {
        expect(&examined(&bench, 0), "unfinished runs", "note", "1 whose process died", "recover");
    }
    bench.retake(["recover"]).expect_code(0);

    let run = bench.run_folder(&bench.last_run());
    std::fs::create_dir_all(run.join("quarantine")).expect("a folder");
    std::fs::write(run.join("quarantine/torn.lanes"), [0; 2048]).expect("a file");
    let checks = examined(&bench, 0);
    expect(&checks, "quarantine", "note", "2.00 KiB of 1 runs", "gc --older-than 30d --quarantine");

    let manifest = run.join("manifest.json");
    let whole = std::fs::read_to_string(&manifest).expect("a manifest");
    let (_, body) = whole.split_once("\"manifest\":").expect("a manifest");
    let body = body.strip_suffix('}').expect("the end");
    let later = body.replacen("\"major\": 1", "\"major\": 9", 1);
    assert_ne!(body, later, "{whole}");
    let digest = retake_schemas::Digest::of(later.as_bytes());
    let later = format!("{{\"blake3\":\"{digest}\",\"manifest\":{later}}}");
    std::fs::write(&manifest, later).expect("a later format");
    let checks = examined(&bench, 4);
    expect(&checks, "newer run", "bad", "format 9.", "newest retake");
    std::fs::write(&manifest, &whole[..whole.len() / 2]).expect("half a manifest");
    let checks = examined(&bench, 5);
    expect(&checks, "unreadable run", "bad", "manifest", "retake verify");
}

/// Scenario: ports that are taken, a model folder without its files, models without a price, and a
/// database that is not there.
/// Guarantees: what is needed and missing is bad, what is only worth knowing is a note.
#[test]
fn what_is_outside_is_looked_at() {
    let bench = Bench::with_documents();
    let span = crate::receive::span(1, None, "LLM");
    let model = "{\"key\":\"llm.model_name\",\"value\":{\"stringValue\":\"gpt-x\"}},{\"key\":\"app.colour\"";
    let span = span.replace("{\"key\":\"app.colour\"", model);
    bench.write("traces.jsonl", crate::receive::request("shop", &[span]));
    bench.retake(["import", "traces.jsonl"]).expect_code(0);
    bench.write("model/config.json", "{}");
    bench.write(
        "retake.toml",
        "[rag.embed]\nprovider = \"minilm\"\nmodel_dir = \"model\"\n\
         [rag.vectors]\nurl = \"postgres://ann:hunter22@127.0.0.1:9/db\"\n",
    );
    let _taken = std::net::TcpListener::bind("127.0.0.1:8318");
    let checks = examined(&bench, 4);
    expect(&checks, "port", "note", "somebody listens", "retake proxy");
    expect(&checks, "model", "bad", "without model.safetensors", "all-MiniLM-L6-v2");
    expect(&checks, "PostgreSQL", "bad", "", "rag.vectors.url");
    let all = format!("{checks:?}");
    assert!(!all.contains("hunter22"), "P1: the password is shown: {all}");
    expect(&checks, "prices", "note", "without a price", "[prices.\"gpt-x\"]");
}

/// Scenario: a database that answers.
/// Guarantees: its version and that of pgvector are told, and nothing is made in it.
#[test]
fn a_database_is_looked_at_and_left_alone() {
    let Some(postgres) = TestPostgres::shared("a_database_is_looked_at_and_left_alone") else {
        return;
    };
    let bench = Bench::with_documents().with_variable("RETAKE_RAG__VECTORS__URL", &postgres.url());
    let checks = examined(&bench, 0);
    let found = of(&checks, "PostgreSQL");
    assert!(text(&found["found"]).contains("pgvector"), "{found}");
}
