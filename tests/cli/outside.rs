//! What needs something from outside: PostgreSQL, a real model, other Parquet readers. Each test
//! says so and skips when its variable is not set.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::corpus::KEEPER;
use crate::postgres::TestPostgres;
use crate::support::{Bench, files_below, int, text};

/// Scenario: the documents are kept in PostgreSQL, whose URL comes from the environment and has a
/// password; ingest, ask, eval and a replay go through it.
/// Guarantees: all of them work, and P1 - the password is in no file and no output.
#[test]
fn documents_are_kept_in_postgres_and_its_password_nowhere() {
    let Some(server) = TestPostgres::shared("documents_are_kept_in_postgres") else { return };
    let url = server.url().replacen("rag@", &format!("rag:{PASSWORD}@"), 1);
    let bench = Bench::new().with_variable("RETAKE_RAG__VECTORS__URL", &url);
    crate::corpus::write_lighthouses(&bench.path("docs"));
    let question = "What was the keeper of Skerryvore called?";
    bench.write("q.jsonl", "{\"id\": 1, \"question\": \"Who guards Esha?\"}\n");
    let mut said = Vec::new();

    let ingest = bench.retake(with(&["rag", "ingest", "docs", "--format", "json"])).expect_code(0);
    assert_eq!(ingest.json()["committed"], 11);
    let again = bench.retake(with(&["rag", "ingest", "docs", "--format", "json"])).expect_code(0);
    assert_eq!(again.json()["unchanged"], 11);
    let ask = bench.retake(with(&["rag", "ask", question])).expect_code(0);
    assert!(ask.stdout.contains(KEEPER), "{}", ask.stdout);
    said.extend([ingest, again, ask]);
    let eval = ["rag", "eval", "q.jsonl", "--output", "out.jsonl"];
    said.push(bench.retake(with(&eval)).expect_code(0));
    let replay = ["replay", "run", "last", "--concurrency", "1", "--format", "json"];
    let replay = bench.retake(replay).expect_code(0);
    assert_eq!((int(&replay.json()["ok"]), &replay.json()["valid"]), (1, &true.into()));
    said.push(replay);
    let first = text(&bench.runs()[0]["run_id"]);
    let replay = ["replay", "run", &first, "--concurrency", "1", "--format", "json"];
    let replay = bench.retake(replay).expect_code(0);
    assert_eq!(replay.json()["ok"], 1, "the replayed ingest");
    said.push(replay);
    let unchanged = bench.retake(with(&["rag", "ingest", "docs", "--format", "json"]));
    assert_eq!(unchanged.expect_code(0).json()["unchanged"], 11, "the replay touched them");

    for arguments in
        [["config"].as_slice(), &["config", "--explain"], &["runs", "--format", "json"]]
    {
        said.push(bench.retake(arguments).expect_code(0));
    }
    let systems = bench.rows(
        "select distinct attr(attributes, 'db.system.name') as s from spans \
                              where stage in ('insert', 'retrieve')",
    );
    assert_eq!(systems.len(), 1, "{systems:?}");
    assert_eq!(systems[0]["s"], "postgresql");
    for outcome in said {
        assert!(!outcome.stdout.contains(PASSWORD), "{}", outcome.stdout);
        assert!(!outcome.stderr.contains(PASSWORD), "{}", outcome.stderr);
    }
    for file in files_below(&bench.store()) {
        let content = std::fs::read(&file).expect("read");
        let has = content.windows(PASSWORD.len()).any(|part| part == PASSWORD.as_bytes());
        assert!(!has, "the password is in {}", file.display());
    }
    let tables = ["spans", "events", "payloads", "documents", "measures", "runs"];
    for table in tables {
        let rows = bench.retake(["sql", &format!("select * from {table}"), "--format", "json"]);
        assert!(!rows.expect_code(0).stdout.contains(PASSWORD), "{table}");
    }
}

/// The arguments, for a collection of this test's own that keeps everything.
fn with<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [arguments, &["--set", "vectors.collection=cli", "--capture", "full"]].concat()
}

/// Scenario: the database is not there, or the URL names a user without rights.
/// Guarantees: exit 4 or 2 with what the server says, without the password.
#[test]
fn a_postgres_that_refuses_is_told() {
    let Some(server) = TestPostgres::shared("a_postgres_that_refuses_is_told") else { return };
    for (url, said) in [
        (server.url().replacen("/postgres?", "/no_such_database?", 1), "no_such_database"),
        (server.url().replacen("rag@", "nobody_here@", 1), "nobody_here"),
    ] {
        let url = url.replacen('@', &format!(":{PASSWORD}@"), 1);
        let bench = Bench::new().with_variable("RETAKE_RAG__VECTORS__URL", &url);
        bench.write("docs/a.md", "Something.");
        let outcome = bench.retake(["rag", "ingest", "docs"]);
        assert!(matches!(outcome.code(), Some(2 | 4)), "{:?} {}", outcome.code(), outcome.stderr);
        assert!(outcome.stderr.contains(said), "{}", outcome.stderr);
        assert!(!outcome.stderr.contains(PASSWORD), "{}", outcome.stderr);
    }
}

/// Scenario: a database without pgvector, and a role that may not create it.
/// Guarantees: V2 - exit 2 or 4; the message names the extension; nothing is half made.
#[test]
fn a_role_that_may_not_create_pgvector_is_told() {
    let Some(server) = TestPostgres::shared("a_role_that_may_not_create_pgvector") else { return };
    let psql = std::env::var_os("RETAKE_TEST_PG_BIN").map(|bin| PathBuf::from(bin).join("psql"));
    let psql = psql.filter(|psql| psql.exists());
    let Some(psql) = psql else {
        eprintln!("a_role_that_may_not_create_pgvector_is_told: skipped: there is no psql");
        return;
    };
    for statement in ["create role plain login", "create database bare"] {
        let status = Command::new(&psql).arg(server.url()).args(["-q", "-c", statement]).status();
        assert!(status.expect("psql starts").success(), "{statement}");
    }
    let url = server.url().replacen("rag@", "plain@", 1).replacen("/postgres?", "/bare?", 1);
    let bench = Bench::new().with_variable("RETAKE_RAG__VECTORS__URL", &url);
    bench.write("docs/a.md", "Something.");
    let outcome = bench.retake(["rag", "ingest", "docs"]);
    assert!(matches!(outcome.code(), Some(2 | 4)), "{:?} {}", outcome.code(), outcome.stderr);
    assert!(outcome.stderr.contains("vector"), "{}", outcome.stderr);
}

/// Scenario: the real MiniLM embeds three documents and a question in other words than theirs.
/// Guarantees: the right document comes first, and the spans know model and dimensions.
#[test]
fn minilm_finds_what_is_meant() {
    let Some(model) = std::env::var_os("RETAKE_MODEL_DIR") else {
        eprintln!("minilm_finds_what_is_meant: skipped: RETAKE_MODEL_DIR names no model folder");
        return;
    };
    let model = model.to_string_lossy().into_owned();
    let bench = Bench::new().with_variable("RETAKE_MODEL_DIR", &model);
    bench.write("docs/cat.md", "The kitten slept on the warm windowsill all afternoon.");
    bench.write("docs/money.md", "Interest rates were raised by the central bank.");
    bench.write("docs/sea.md", "The trawler came back to the harbour with herring.");
    let minilm = ["--set", "embed.provider=minilm"];
    bench.retake([["rag", "ingest", "docs"].as_slice(), &minilm].concat()).expect_code(0);
    for (question, document) in [
        ("Where did the young cat take a nap?", "cat"),
        ("What happened to the cost of borrowing?", "money"),
        ("Which vessel returned with fish?", "sea"),
    ] {
        let ask = ["rag", "ask", question, "--format", "json"];
        let answer = bench.retake([ask.as_slice(), &minilm].concat()).expect_code(0).json();
        assert!(text(&answer["hits"][0]["document"]).contains(document), "{answer}");
    }
    let spans = bench.rows(
        "select distinct embedding_dim, coalesce(model_response, model_request) as model \
         from spans where kind = 'embedding'",
    );
    assert_eq!(spans.len(), 1, "{spans:?}");
    assert_eq!(spans[0]["embedding_dim"], 384);
    assert!(text(&spans[0]["model"]).to_lowercase().contains("minilm"), "{spans:?}");
    // The hashing embedder has as many dimensions; only the model tells them apart.
    bench.retake(["rag", "ask", "Which vessel?"]).expect_code(2).expect_message(&["hashing"]);
}

/// Scenario: DuckDB and Polars open the sealed files of a run.
/// Guarantees: they count as many rows as `retake sql`, in every table, and read every column.
#[test]
fn other_readers_open_the_sealed_files() {
    let Some(python) = std::env::var_os("RETAKE_TEST_PYTHON") else {
        eprintln!(
            "other_readers_open_the_sealed_files: skipped: RETAKE_TEST_PYTHON names no python \
             with duckdb and polars"
        );
        return;
    };
    let bench = Bench::with_documents().with_variable("RETAKE_RECORD__SEAL_EVENTS", "50");
    bench.write("q.jsonl", crate::corpus::questions(20));
    bench.retake(["rag", "eval", "q.jsonl", "--capture", "full"]).expect_code(0);
    let run_id = bench.last_run();
    let script = bench.write("count.py", COUNT_ROWS);
    let output = Command::new(python)
        .arg(script)
        .arg(bench.run_folder(&run_id))
        .output()
        .expect("python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let counts: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    for table in ["spans", "tokens", "documents", "payloads"] {
        let sql = format!("select count(*) as n from {table} where run_id = '{run_id}'");
        let expected = bench.number(&sql);
        assert!(expected > 0, "{table} is empty");
        for reader in ["duckdb", "polars"] {
            assert_eq!(counts[table][reader], expected, "{reader} on {table}");
        }
    }
}

/// Counts the rows of each table's files with both readers, reading every column.
const COUNT_ROWS: &str = r#"
import glob, json, sys
import duckdb, polars
counts = {}
for table in ["spans", "tokens", "documents", "payloads"]:
    files = sorted(glob.glob(f"{sys.argv[1]}/{table}-*.parquet"))
    rows = duckdb.sql(f"select * from read_parquet({files!r}, union_by_name = true)").fetchall()
    counts[table] = {"duckdb": len(rows), "polars": sum(polars.read_parquet(f).height for f in files)}
print(json.dumps(counts))
"#;

/// Scenario: DuckDB and Polars sum attributes of every type in a run whose two files have different
/// columns of them.
/// Guarantees: they come to what `retake sql` does.
#[test]
fn other_readers_sum_attributes_in_columns() {
    let Some(python) = std::env::var_os("RETAKE_TEST_PYTHON") else {
        eprintln!(
            "other_readers_sum_attributes_in_columns: skipped: RETAKE_TEST_PYTHON names no python \
             with duckdb and polars"
        );
        return;
    };
    let bench = Bench::new();
    let run_id = record_attributes(&bench);
    let script = bench.write("sums.py", SUM_ATTRIBUTES);
    let output = Command::new(python).arg(script).arg(bench.run_folder(&run_id)).output();
    let output = output.expect("python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let expected = bench.rows(
        "select sum(cast(attr(attributes, 'size') as bigint)) as size, \
         round(sum(cast(attr(attributes, 'ratio') as double))) as ratio, \
         count(*) filter (where attr(attributes, 'ok') = 'true') as ok, \
         count(distinct attr(attributes, 'tenant')) as tenants, \
         count(attr(attributes, 'only.second')) as second, \
         sum(self_ns) as own, count(*) as spans from spans",
    );
    assert_eq!(expected[0]["spans"], 2 * 2 * 5_000);
    assert_eq!((&expected[0]["tenants"], &expected[0]["second"]), (&7.into(), &5_000.into()));
    for reader in ["duckdb", "polars"] {
        assert_eq!(found[reader], expected[0], "{reader}");
    }
}

/// Records a run of two seals with attributes of every type.
fn record_attributes(bench: &Bench) -> String {
    let store = retake_recorder::Store::create(&bench.store()).expect("a store");
    let recorder = retake_recorder::RecorderBuilder::new("attributes", "app").start(&store);
    let recorder = recorder.expect("a recorder");
    for second in [false, true] {
        tracing::subscriber::with_default(recorder.subscriber(), || {
            for n in 0..5_000_i64 {
                let span = tracing::info_span!(
                    "work",
                    size = n * n,
                    ratio = n as f64 / 8.0,
                    ok = n % 3 == 0,
                    tenant = format!("tenant-{}", n % 7),
                    only.second = tracing::field::Empty,
                );
                if second {
                    span.record("only.second", n);
                }
                let _step = span.in_scope(|| tracing::info_span!("step").entered());
            }
        });
        recorder.seal().expect("a seal");
    }
    let run_id = recorder.run_id().to_string();
    let summary = recorder.finish(retake_schemas::event::RunStatus::Finished);
    assert_eq!(summary.dropped, 0);
    run_id
}

/// Sums columns of attributes with both readers.
const SUM_ATTRIBUTES: &str = r#"
import glob, json, sys
import duckdb, polars
from polars import col
files = sorted(glob.glob(f"{sys.argv[1]}/spans-*.parquet"))
assert len(files) == 2
names = ["size", "ratio", "ok", "tenants", "second", "own", "spans"]
row = duckdb.sql(f"""
    select sum("attributes.size"), round(sum("attributes.ratio")),
           count(*) filter (where "attributes.ok"), count(distinct "attributes.tenant"),
           count("attributes.only.second"), sum(coalesce(self_ns, duration_ns)), count(*)
    from read_parquet({files!r}, union_by_name = true)""").fetchall()[0]
sums = {"duckdb": dict(zip(names, map(float, row)))}
frame = polars.concat([polars.scan_parquet(file) for file in files], how="diagonal").select(
    col("attributes.size").sum().alias("size"),
    col("attributes.ratio").sum().round().alias("ratio"),
    col("attributes.ok").sum().alias("ok"),
    col("attributes.tenant").drop_nulls().n_unique().alias("tenants"),
    col("attributes.only.second").count().alias("second"),
    polars.coalesce("self_ns", "duration_ns").sum().alias("own"),
    polars.len().alias("spans"),
).collect()
sums["polars"] = dict(zip(names, map(float, frame.row(0))))
for counts in sums.values():
    counts.update({name: int(counts[name]) for name in names if name != "ratio"})
print(json.dumps(sums))
"#;

/// Trust authentication ignores it, so it can be looked for.
const PASSWORD: &str = "canary-9f3c7e1b";
