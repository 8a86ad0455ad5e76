//! `retake sql`: questions are answered in every format, and nothing but questions is let in.

use crate::support::{Bench, files_below, text};

/// The query the issue asks for.
const BY_STAGE: &str = "select stage, count(*) as n, approx_percentile_cont(duration_ns, 0.95) as p95 \
                        from spans group by stage order by stage";

/// Scenario: percentiles of the duration of every stage are asked for.
/// Guarantees: they come as JSON with names and types, and agree with the breakdown's counts.
#[test]
fn percentiles_by_stage_are_one_query() {
    let bench = Bench::with_documents();
    let document = bench.retake(["sql", BY_STAGE, "--format", "json"]).expect_code(0).json();
    let columns = document["columns"].as_array().expect("columns");
    let names: Vec<String> = columns.iter().map(|column| text(&column["name"])).collect();
    assert_eq!(names, ["stage", "n", "p95"]);
    assert!(columns.iter().all(|column| column["type"].is_string()), "{columns:?}");

    let breakdown = bench.retake(["breakdown", "--format", "json"]).expect_code(0).json();
    let stages = breakdown["rows"].as_array().expect("rows");
    let rows = document["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), stages.len());
    for row in rows {
        let stage = stages.iter().find(|stage| stage["stage"] == row["stage"]).expect("a stage");
        assert_eq!(row["n"], stage["calls"], "{row}");
        assert!(row["p95"].as_f64().is_some_and(|p95| p95 > 0.0), "{row}");
    }
}

/// Scenario: one query in each text format.
/// Guarantees: each is what its name says, with the same rows.
#[test]
fn every_text_format_holds_the_same_rows() {
    let bench = Bench::with_documents();
    let rows = bench.rows(BY_STAGE);
    let ask =
        |format: &str| bench.retake(["sql", BY_STAGE, "--format", format]).expect_code(0).stdout;

    let ndjson = ask("ndjson");
    let lines: Vec<serde_json::Value> =
        ndjson.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines, rows);

    let csv = ask("csv");
    assert_eq!(csv.lines().next(), Some("stage,n,p95"));
    assert_eq!(csv.lines().count(), rows.len() + 1);
    for (line, row) in csv.lines().skip(1).zip(&rows) {
        let cells: Vec<&str> = line.split(',').collect();
        assert_eq!(cells[..2], [text(&row["stage"]), row["n"].to_string()]);
        let p95: f64 = cells[2].parse().expect("a number");
        // Reading JSON may be off by the last bit.
        assert!(row["p95"].as_f64().is_some_and(|other| (other / p95 - 1.0).abs() < 1e-12));
    }

    let markdown = ask("markdown");
    assert!(markdown.starts_with("| stage"), "{markdown}");
    assert!(markdown.lines().nth(1).is_some_and(|line| line.contains("---")), "{markdown}");
    let table = ask("table");
    for row in &rows {
        let stage = text(&row["stage"]);
        assert!(markdown.contains(&stage) && table.contains(&stage), "{stage}");
    }
}

/// Scenario: one query in each binary format.
/// Guarantees: the bytes are a whole Parquet file and a whole Arrow stream.
#[test]
fn binary_formats_are_whole_files() {
    let bench = Bench::with_documents();
    let parquet = bench.retake(["sql", BY_STAGE, "--format", "parquet"]).expect_code(0);
    assert!(parquet.bytes().starts_with(b"PAR1") && parquet.bytes().ends_with(b"PAR1"));
    let arrow = bench.retake(["sql", BY_STAGE, "--format", "arrow"]).expect_code(0);
    // An Arrow stream begins with a continuation mark and ends with one and a length of zero.
    assert!(arrow.bytes().starts_with(&[0xff; 4]), "{:?}", arrow.bytes().get(..8));
    assert!(arrow.bytes().ends_with(&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]));
}

/// Scenario: a query comes from a file, and from standard input.
/// Guarantees: both are answered as a query on the command line is.
#[test]
fn a_query_comes_from_a_file_or_a_pipe() {
    let bench = Bench::with_documents();
    bench.write("query.sql", BY_STAGE);
    let expected = bench.retake(["sql", BY_STAGE, "--format", "csv"]).expect_code(0).stdout;
    let file =
        bench.retake(["sql", "--file", "query.sql", "--format", "csv"]).expect_code(0).stdout;
    assert_eq!(file, expected);
    let pipe = assert_cmd::Command::from_std(bench.command(["sql", "--format", "csv"]))
        .write_stdin(BY_STAGE)
        .assert()
        .success();
    assert_eq!(String::from_utf8_lossy(&pipe.get_output().stdout), expected);
    bench.retake(["sql", "--file", "no-such.sql"]).expect_code(3).expect_message(&["no-such.sql"]);
}

/// Scenario: only some runs are asked about.
/// Guarantees: rows of other runs are not seen.
#[test]
fn a_query_sees_only_the_runs_it_is_given() {
    let bench = Bench::with_documents();
    bench.retake(["rag", "ask", "Who guards Esha?"]).expect_code(0);
    let sql = "select count(distinct run_id) as n from spans";
    assert_eq!(bench.number(sql), 2);
    let one = bench.retake(["sql", sql, "--run", "last", "--format", "csv"]).expect_code(0);
    assert_eq!(one.stdout, "n\n1\n");
    bench.retake(["sql", sql, "--run", "nobody"]).expect_code(3);
}

/// Scenario: every table and every view is asked for a row.
/// Guarantees: all of them plan and run on a real store, and the reference names each view.
#[test]
fn every_table_and_view_answers() {
    let bench = Bench::with_documents();
    bench.retake(["rag", "ask", "Who guards Esha?"]).expect_code(0);
    let names = bench.rows(
        "select table_name from information_schema.tables \
         where table_schema = 'public' order by table_name",
    );
    assert!(names.len() >= 16, "{names:?}");
    let reference = bench.retake(["sql", "--reference"]).expect_code(0).stdout;
    for name in names {
        let name = text(&name["table_name"]);
        let outcome =
            bench.retake(["sql", &format!("select * from {name} limit 3")]).expect_code(0);
        assert!(!outcome.stdout.is_empty(), "{name}");
        let is_table = retake_schemas::tables::TableName::ALL.iter().any(|t| t.as_str() == name);
        assert!(is_table || reference.contains(&format!("### {name}\n")), "{name}");
    }
}

/// Scenario: queries with a mistake in them.
/// Guarantees: exit 2, and the message says what exists instead.
#[test]
fn a_wrong_query_is_told_what_there_is() {
    let bench = Bench::with_documents();
    let ask = |sql: &str| bench.retake(["sql", sql]).expect_code(2);
    ask("selekt 1").expect_message(&["selekt"]);
    ask("select from where").expect_message(&["error: failed to run query"]);
    ask("").expect_message(&["error: failed to run query"]);
    ask("select 1; select 2").expect_message(&["single"]);
    ask("select * from span").expect_message(&["span", "spans", "runs", "stage_latency"]);
    ask("select durationns from spans").expect_message(&["durationns", "duration_ns"]);
    ask("select no_such_function(1)").expect_message(&["no_such_function"]);
    ask(&format!("select '{}'", "x".repeat(20_000))).expect_message(&["16384"]);
}

/// Scenario: statements that define, write, copy, set or prepare, also inside EXPLAIN.
/// Guarantees: S1 - each is refused with exit 2 and a reason, and the disk is as it was.
#[test]
fn only_questions_are_let_in() {
    let bench = Bench::with_documents();
    bench.write("secret.csv", "a,b\n1,canary-5d1f\n");
    let before = files_below(&bench.path(""));
    let secret = bench.path("secret.csv").display().to_string();
    let out = bench.path("stolen").display().to_string();
    for sql in [
        "create table t as select 1".to_owned(),
        "create view v as select 1".to_owned(),
        "create schema s".to_owned(),
        "create database d".to_owned(),
        "create function f() returns int return 1".to_owned(),
        format!("create external table t stored as csv location '{secret}'"),
        format!("create external table t (a int) stored as parquet location '{secret}'"),
        format!("create unbounded external table t (a int) stored as csv location '{secret}'"),
        format!("copy (select * from runs) to '{out}.csv'"),
        format!("copy runs to '{out}.parquet' stored as parquet"),
        format!("copy runs from '{secret}'"),
        format!("explain copy runs to '{out}.json'"),
        format!("explain analyze copy runs to '{out}.json'"),
        "insert into runs select * from runs".to_owned(),
        "explain insert into runs select * from runs".to_owned(),
        "update runs set name = 'x'".to_owned(),
        "delete from runs".to_owned(),
        "truncate table runs".to_owned(),
        "drop table runs".to_owned(),
        "drop view run_summary".to_owned(),
        "drop schema public".to_owned(),
        "alter table runs add column x int".to_owned(),
        "set datafusion.execution.batch_size = 1".to_owned(),
        "set time zone = 'utc'".to_owned(),
        "reset datafusion.execution.batch_size".to_owned(),
        "prepare p as select 1".to_owned(),
        "execute p".to_owned(),
        "deallocate p".to_owned(),
        "begin".to_owned(),
        "commit".to_owned(),
        "use public".to_owned(),
        "analyze table runs compute statistics".to_owned(),
        "/* quiet */ create table t as select 1 -- end".to_owned(),
        "select 1; drop table runs".to_owned(),
        "with t as (select 1) insert into runs select * from t".to_owned(),
        "select * into t from runs".to_owned(),
    ] {
        let outcome = bench.retake(["sql", &sql]);
        assert_eq!(outcome.code(), Some(2), "{sql}: {}{}", outcome.stdout, outcome.stderr);
        assert!(outcome.stderr.starts_with("error: failed to run query"), "{}", outcome.stderr);
        assert!(outcome.stdout.is_empty(), "{sql}: {}", outcome.stdout);
    }
    assert_eq!(files_below(&bench.path("")), before);
}

/// Scenario: files and addresses are named where a table stands, and functions that read files or
/// make much out of nothing are called.
/// Guarantees: S1, S2 - none of them is read or run, whatever the quoting.
#[test]
fn no_file_can_be_named_as_a_table() {
    let bench = Bench::with_documents();
    let csv = bench.write("secret.csv", "a,b\n1,canary-5d1f\n").display().to_string();
    let segment = files_below(&bench.store())
        .into_iter()
        .find(|path| path.extension().is_some_and(|extension| extension == "parquet"))
        .expect("a segment")
        .display()
        .to_string();
    let mut queries: Vec<String> = Vec::new();
    for file in ["/etc/passwd", csv.as_str(), segment.as_str(), "secret.csv", "./secret.csv"] {
        for quote in ["'", "\"", "`"] {
            queries.push(format!("select * from {quote}{file}{quote}"));
            queries.push(format!("select * from {quote}file://{file}{quote}"));
        }
        for function in ["read_csv", "read_parquet", "read_json", "csv_scan", "parquet_metadata"] {
            queries.push(format!("select * from {function}('{file}')"));
        }
        queries.push(format!("with t as (select * from '{file}') select * from t"));
        queries.push(format!("explain select * from '{file}'"));
    }
    queries.push("select * from 'http://127.0.0.1:9/x.parquet'".to_owned());
    queries.push("select * from 's3://bucket/x.parquet'".to_owned());
    queries.push("select * from generate_series(1, 1000000000)".to_owned());
    queries.push("select * from range(1, 1000000000)".to_owned());
    queries.push("select length(repeat('a', 1000000000))".to_owned());
    queries.push("select length(rpad('a', 1000000000, 'b'))".to_owned());
    for sql in queries {
        let outcome = bench.retake(["sql", &sql]);
        assert_eq!(outcome.code(), Some(2), "{sql}: {}{}", outcome.stdout, outcome.stderr);
        let said = format!("{}{}", outcome.stdout, outcome.stderr);
        assert!(!said.contains("canary-5d1f") && !said.contains("root:x:0"), "{sql}: {said}");
    }
}
