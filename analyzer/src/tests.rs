//! SQL over stores written by the real recorder.

use arrow::util::pretty::pretty_format_batches;
use retake_recorder::RecorderBuilder;
use retake_schemas::Digest;
use retake_schemas::manifest::Segment;
use retake_schemas::tables::{Row, SpanRow, TableName};

use crate::fixture::{Fixture, question, spec};
use crate::{AnalyzeError, Analyzer, Scope, sql_reference_markdown};

async fn table(analyzer: &Analyzer, sql: &str) -> String {
    let result = analyzer.query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    pretty_format_batches(&result.batches).unwrap().to_string()
}

/// The one cell of a result of one row and column, as text.
async fn cell(analyzer: &Analyzer, sql: &str) -> String {
    let result = analyzer.query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    assert_eq!((result.num_rows(), result.schema.fields().len()), (1, 1), "{sql}");
    let batch = result.batches.iter().find(|batch| batch.num_rows() == 1).unwrap();
    arrow::util::display::array_value_to_string(batch.column(0), 0).unwrap()
}

async fn refused(analyzer: &Analyzer, sql: &str) -> AnalyzeError {
    match analyzer.query(sql).await {
        Ok(result) => panic!("{sql} gave {} rows", result.num_rows()),
        Err(error) => error,
    }
}

fn two_runs() -> (Fixture, [retake_schemas::RunId; 2]) {
    let fixture = Fixture::new();
    let first = fixture.run("first", |recorder| {
        question(recorder, 1, 0, 1_000_000);
        recorder.seal().unwrap();
        question(recorder, 2, 100_000_000, 1_000_000);
    });
    let second = fixture.run("second", |recorder| {
        question(recorder, 3, 0, 2_000_000);
        spec(4, 1, None, "embed")
            .at(0, 500)
            .with("retake.batch.size", 4_i64)
            .with("retake.queue_ns", 70_i64)
            .with("tenant", "acme")
            .failed("Timeout")
            .record(recorder);
    });
    (fixture, [first, second])
}

#[tokio::test]
async fn tables_span_runs_and_segments() {
    let (fixture, [first, second]) = two_runs();
    let analyzer = Analyzer::open(&fixture.store, Scope::All).unwrap();
    assert!(analyzer.warnings().is_empty());
    assert_eq!(analyzer.runs().len(), 2);
    assert_eq!(cell(&analyzer, "SELECT count(*) FROM runs").await, "2");
    assert_eq!(cell(&analyzer, "SELECT count(*) FROM spans").await, "16");
    assert_eq!(cell(&analyzer, "SELECT count(*) FROM tokens").await, "9");
    let of_run = |run: &str| format!("SELECT count(*) FROM spans WHERE run_id = '{run}'");
    assert_eq!(cell(&analyzer, &of_run(first.as_str())).await, "10");
    assert_eq!(cell(&analyzer, &of_run(second.as_str())).await, "6");
    let joined = "SELECT count(*) FROM tokens t JOIN spans s \
                  ON t.run_id = s.run_id AND t.trace_id = s.trace_id AND t.span_id = s.span_id \
                  WHERE s.kind = 'llm'";
    assert_eq!(cell(&analyzer, joined).await, "9");
    let only = Analyzer::open(&fixture.store, Scope::Runs(vec![second])).unwrap();
    assert_eq!(cell(&only, "SELECT count(*) FROM spans").await, "6");
    assert_eq!(cell(&only, "SELECT count(*) FROM (SELECT * FROM spans LIMIT 3)").await, "3");
}

#[tokio::test]
async fn every_view_and_function_answers() {
    let (fixture, [first, _]) = two_runs();
    let analyzer = Analyzer::open(&fixture.store, Scope::All).unwrap();
    for view in crate::sql::VIEWS {
        let rows = analyzer.query(&format!("SELECT * FROM {}", view.name)).await;
        assert!(rows.is_ok(), "{}: {rows:?}", view.name);
        let filtered = format!("SELECT * FROM {} WHERE run_id = '{first}'", view.name);
        assert!(analyzer.query(&filtered).await.is_ok());
        assert!(sql_reference_markdown().contains(view.sql));
    }
    for function in crate::sql::FUNCTIONS {
        assert!(analyzer.query(function.example).await.is_ok(), "{}", function.example);
    }
    let summary = "SELECT spans, traces, errors, input_tokens, output_tokens FROM run_summary \
                   ORDER BY name";
    let found = table(&analyzer, summary).await;
    assert!(
        found.contains("| 10    | 2      | 0      | 200          | 20            |"),
        "{found}"
    );
    assert!(
        found.contains("| 6     | 2      | 1      | 100          | 10            |"),
        "{found}"
    );
    let latency = "SELECT n, sum_ns, p50_ns, error_rate FROM stage_latency WHERE stage = 'llm' \
                   ORDER BY sum_ns";
    let found = table(&analyzer, latency).await;
    assert!(found.contains("| 1 | 8000000 | 8000000 | 0.0        |"), "{found}");
    let own = "SELECT sum(self_ns) FROM stage_self_time WHERE stage = 'retrieve'";
    assert_eq!(cell(&analyzer, own).await, "0", "the union of the searches covers it");
    let batches = "SELECT concat_ws(',', batch_size, n, queue_mean_ns, service_mean_ns, \
                   items_per_second) FROM batch_efficiency";
    assert_eq!(cell(&analyzer, batches).await, "4,1,70.0,500.0,8000000.0");
    let attribute = "SELECT attr(attributes, 'tenant') FROM spans WHERE stage = 'embed'";
    assert_eq!(cell(&analyzer, attribute).await, "acme");
    let rate = "SELECT tokens_per_second(10, 0)";
    assert_eq!(cell(&analyzer, rate).await, "");
    let ttft = "SELECT ttft_ns FROM trace_summary WHERE run_id = '{}' ORDER BY ttft_ns LIMIT 1";
    assert_eq!(cell(&analyzer, &ttft.replace("{}", first.as_str())).await, "6000000");
    let tpot = "SELECT max(tpot_ns) FROM llm_calls WHERE model = 'model-a'";
    assert_eq!(cell(&analyzer, tpot).await, "666666");
}

/// Scenario: a run is being recorded, one part sealed, one span open.
/// Guarantees: no invisible second between recording and asking.
#[tokio::test]
async fn the_live_tail_is_part_of_every_table() {
    let fixture = Fixture::new();
    let recorder = RecorderBuilder::new("live", "app").start(&fixture.store).unwrap();
    question(&recorder, 1, 0, 1_000);
    recorder.seal().unwrap();
    spec(2, 7, None, "embed").at(50_000, 1_000).open(&recorder);
    recorder.flush().unwrap();
    let analyzer = Analyzer::open(&fixture.store, Scope::All).unwrap();
    let found = table(
        &analyzer,
        "SELECT status, count(*) AS n FROM spans WHERE duration_ns >= 0 GROUP BY status ORDER BY 1",
    )
    .await;
    assert!(found.contains("| ok         | 5 |"), "{found}");
    assert!(found.contains("| unfinished | 1 |"), "{found}");
    let stage = "SELECT stage FROM spans WHERE trace_id LIKE '02%' LIMIT 1";
    assert_eq!(cell(&analyzer, stage).await, "embed");
}

/// Scenario: one byte of a sealed file is flipped.
/// Guarantees: J5 - the damage is named, other runs answer, and pruned runs are not opened.
#[tokio::test]
async fn a_damaged_segment_is_an_error_that_names_the_file() {
    let (fixture, [first, second]) = two_runs();
    let damaged = fixture.store.run_dir(&first).join("spans-000001.parquet");
    let mut bytes = std::fs::read(&damaged).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&damaged, bytes).unwrap();
    let analyzer = Analyzer::open(&fixture.store, Scope::All).unwrap();
    let error = refused(&analyzer, "SELECT count(*) FROM spans").await;
    assert!(error.is_damage(), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("spans-000001.parquet") && text.contains(first.as_str()), "{text}");
    let other = format!("SELECT count(*) FROM spans WHERE run_id = '{second}'");
    assert_eq!(cell(&analyzer, &other).await, "6");
    let listed = format!("SELECT count(*) FROM spans WHERE run_id IN ('{second}', 'none')");
    assert_eq!(cell(&analyzer, &listed).await, "6");
    let error = crate::breakdown(&analyzer, &first, &[]).await.unwrap_err();
    assert!(error.is_damage(), "{error:?}");
}

#[tokio::test]
async fn a_run_without_a_readable_manifest_is_left_out_with_a_warning() {
    let (fixture, [first, second]) = two_runs();
    let manifest = fixture.path().join("runs").join(first.as_str()).join("manifest.json");
    std::fs::write(manifest, "{").unwrap();
    let analyzer = Analyzer::open(&fixture.store, Scope::All).unwrap();
    assert_eq!(cell(&analyzer, "SELECT run_id FROM runs").await, second.as_str());
    assert!(analyzer.warnings()[0].contains(first.as_str()), "{:?}", analyzer.warnings());
    let error = Analyzer::open(&fixture.store, Scope::Runs(vec![first.clone()])).unwrap_err();
    assert!(error.to_string().contains(first.as_str()) && error.is_damage(), "{error:?}");
}

/// Scenario: statements that define, write, copy, set, or reach for files.
/// Guarantees: S1 - only queries run, over this store's tables.
#[tokio::test]
async fn only_queries_run() {
    let (fixture, _) = two_runs();
    let analyzer = Analyzer::open(&fixture.store, Scope::All).unwrap();
    for sql in [
        "CREATE TABLE t AS SELECT 1",
        "CREATE VIEW v AS SELECT 1",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "COPY (SELECT 1) TO '/tmp/retake-escape.csv'",
        "EXPLAIN COPY (SELECT 1) TO '/tmp/retake-escape.csv'",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '/tmp/retake-escape.csv'",
        "EXPLAIN CREATE TABLE t AS SELECT 1",
        "INSERT INTO runs SELECT * FROM runs",
        "UPDATE runs SET name = 'x'",
        "DELETE FROM spans",
        "DROP TABLE spans",
        "DROP VIEW run_summary",
        "SET datafusion.execution.batch_size = 1",
        "RESET datafusion.execution.batch_size",
        "PREPARE p AS SELECT 1",
        "EXECUTE p",
        "BEGIN",
        "SELECT 1 INTO t",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM 'file:///etc/passwd'",
        "SELECT * FROM \"/etc/hosts.csv\"",
        "SELECT 1; DROP TABLE spans",
        "SELECT repeat('x', 1000000000)",
        "SELECT * FROM generate_series(1, 1000000000000)",
        "SELECT range(1, 1000000000000)",
        "",
    ] {
        let error = refused(&analyzer, sql).await;
        assert!(!matches!(error, AnalyzeError::Internal(_)), "{sql}: {error}");
    }
    assert!(!std::path::Path::new("/tmp/retake-escape.csv").exists());
    assert_eq!(cell(&analyzer, "SELECT count(*) FROM spans").await, "16");
    for sql in [
        "WITH t AS (SELECT 1 AS a) SELECT * FROM t",
        "EXPLAIN SELECT * FROM spans",
        "EXPLAIN ANALYZE SELECT count(*) FROM spans",
        "SHOW TABLES",
        "SHOW COLUMNS FROM spans",
        "DESCRIBE runs",
        "VALUES (1, 'a')",
    ] {
        assert!(analyzer.query(sql).await.is_ok(), "{sql}");
    }
    let long = format!("SELECT '{}'", "x".repeat(20_000));
    assert!(matches!(refused(&analyzer, &long).await, AnalyzeError::TooLong { .. }));
}

#[tokio::test]
async fn a_wrong_name_comes_back_with_candidates() {
    let (fixture, _) = two_runs();
    let analyzer = Analyzer::open(&fixture.store, Scope::All).unwrap();
    let text = refused(&analyzer, "SELECT duration FROM spans").await.to_string();
    assert!(text.contains("duration_ns"), "{text}");
    let text = refused(&analyzer, "SELECT 1 FROM span").await.to_string();
    assert!(
        text.starts_with("run query: no table \"span\"; there are batch_efficiency,"),
        "{text}"
    );
    let text = refused(&analyzer, "SELEC 1").await.to_string();
    assert!(text.contains("SELEC"), "{text}");
}

#[tokio::test]
async fn a_stream_gives_the_same_rows() {
    let (fixture, _) = two_runs();
    let analyzer = Analyzer::open(&fixture.store, Scope::All).unwrap();
    let mut rows = analyzer.query_stream("SELECT span_id FROM spans").await.unwrap();
    assert_eq!(rows.schema().field(0).name(), "span_id");
    let mut count = 0;
    while let Some(batch) = rows.next().await {
        count += batch.unwrap().num_rows();
    }
    assert_eq!(count, 16);
}

/// Scenario: a segment of an older retake, which lacks a column that was added since.
/// Guarantees: J10 - its rows answer with NULL there, beside rows of today.
#[tokio::test]
async fn columns_an_older_file_lacks_are_null() {
    let (fixture, [first, _]) = two_runs();
    let row = SpanRow {
        run_id: first.to_string(),
        stage: "old".to_owned(),
        stage_source: Some("live".to_owned()),
        ..SpanRow::default()
    };
    let batch = SpanRow::to_batch(&[row]);
    let older = |index: &usize| batch.schema().field(*index).name() != "stage_source";
    let kept: Vec<usize> = (0..batch.num_columns()).filter(older).collect();
    let batch = batch.project(&kept).unwrap();
    let mut bytes = Vec::new();
    let mut writer =
        parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    std::fs::write(fixture.store.run_dir(&first).join("spans-000999.parquet"), &bytes).unwrap();
    let segment = Segment {
        table: TableName::Spans,
        file: "spans-000999.parquet".to_owned(),
        bytes: bytes.len() as u64,
        blake3: Digest::of(&bytes),
        rows: 1,
        min_unix_ns: 0,
        max_unix_ns: 0,
    };
    fixture.store.update_manifest(&first, |manifest| manifest.segments.push(segment)).unwrap();
    let analyzer = Analyzer::open(&fixture.store, Scope::Runs(vec![first])).unwrap();
    let sql = "SELECT count(*) FROM spans WHERE stage_source IS NULL";
    assert_eq!(cell(&analyzer, sql).await, "11");
    assert_eq!(cell(&analyzer, "SELECT stage_source FROM spans WHERE stage = 'old'").await, "");
}

/// Scenario: an ingest of 20,000 spans in one trace that overlap two by two.
/// Guarantees: nothing of a large trace is left out, and its wall time is not counted twice.
#[tokio::test]
async fn a_trace_of_many_thousand_spans_is_broken_down_whole() {
    let fixture = Fixture::new();
    let run_id = fixture.run("large", |recorder| {
        let root = spec(255, 1, None, "ingest").at(0, 10_000_000_000);
        root.open(recorder);
        for n in 0..20_000_u64 {
            let start = (n / 2 * 1_000_000) as i64;
            spec(255, n + 2, Some(1), "chunk").at(start, 900_000).record(recorder);
        }
        root.close(recorder);
    });
    let analyzer = Analyzer::open(&fixture.store, Scope::All).unwrap();
    let found = crate::breakdown(&analyzer, &run_id, &[]).await.unwrap();
    assert_eq!(found.spans, 20_001);
    // 10,000 stretches of 0.9 ms are covered; the rest of the ten seconds is the root's own.
    let own = "SELECT self_ns FROM spans WHERE stage = 'ingest'";
    assert_eq!(cell(&analyzer, own).await, "1000000000");
}

/// Scenario: a join whose end nobody will see is dropped while it runs, with one thread for all.
/// Guarantees: it gives way, so whoever waits for a signal beside it is heard.
#[tokio::test]
async fn an_endless_join_gives_way() {
    let (fixture, _) = two_runs();
    let analyzer = Analyzer::open(&fixture.store, Scope::All).unwrap();
    let sql = "SELECT count(*) FROM spans a, spans b, spans c, spans d, spans e, spans f, \
               spans g, spans h, spans i WHERE a.duration_ns + i.duration_ns % 7 <> 1";
    let within = std::time::Duration::from_millis(100);
    let outcome = tokio::time::timeout(within, analyzer.query(sql)).await;
    assert!(outcome.is_err(), "sixteen to the ninth rows were counted: {outcome:?}");
}

/// Scenario: what a prompt offers and explains.
/// Guarantees: every table and view with its columns, ours among the functions, each once.
#[tokio::test]
async fn the_catalog_is_whole() {
    let (fixture, _) = two_runs();
    let analyzer = Analyzer::open(&fixture.store, Scope::All).unwrap();
    let relations = analyzer.relations().await.unwrap();
    assert_eq!(relations.len(), TableName::ALL.len() + crate::sql::VIEWS.len());
    assert!(relations.iter().all(|r| !r.columns.is_empty() && r.doc.starts_with("One row per")));
    let functions = analyzer.functions();
    let ours = functions.iter().take_while(|function| function.is_ours).count();
    let documented = crate::sql::FUNCTIONS.len()
        + crate::sql::SKETCH_FUNCTIONS.len()
        + crate::sql::AGGREGATES.len()
        + crate::sql::table_functions().len();
    assert_eq!(ours, documented + 1, "and the one of prices");
    let names: std::collections::BTreeSet<&str> =
        functions.iter().map(|function| function.name.as_str()).collect();
    assert_eq!(names.len(), functions.len());
    assert!(names.contains("approx_percentile_cont") && !names.contains("repeat"));
}
