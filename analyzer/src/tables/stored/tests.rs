//! SQL over attributes in columns, in JSON, in both, and not sealed yet.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use retake_recorder::{RecorderBuilder, RunReader, Store};
use retake_schemas::event::RunStatus;
use retake_schemas::tables::SpanRow;
use serde_json::value::RawValue;

use crate::fixture::{Fixture, spec};
use crate::{Analyzer, Scope};

/// The column of a result with one, as text, in the order of the rows.
async fn column(analyzer: &Analyzer, sql: &str) -> Vec<String> {
    let result = analyzer.query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let cells = result.batches.iter().flat_map(|batch| {
        let cell = |row| arrow::util::display::array_value_to_string(batch.column(0), row).unwrap();
        (0..batch.num_rows()).map(cell).collect::<Vec<_>>()
    });
    cells.collect()
}

/// A run of three seals, the second too small for columns of attributes, and a live tail.
fn live_run(fixture: &Fixture) -> retake_recorder::Recorder {
    let recorder = RecorderBuilder::new("live", "app").start(&fixture.store).unwrap();
    let mut id = 0;
    for (part, spans) in [(0, 1600), (1, 10), (2, 4500), (3, 10)] {
        for n in 0..spans {
            id += 2;
            let start = id as i64 * 1_000;
            let parent = spec(1, id, None, "ask")
                .at(start, 900)
                .with("tenant", format!("tenant-{}", n % 3))
                .with("part", i64::from(part))
                .with("ratio", if n == 5 { f64::NAN } else { f64::from(n) / 7.0 })
                .with("odd key \"\u{e9}\"", n % 2 == 1);
            // Once a number, once a text: one of the two has the column.
            let parent = match (n + part) % 3 {
                0 => parent.with("mixed", i64::from(n)),
                _ => parent.with("mixed", format!("m{n}")),
            };
            parent.open(&recorder);
            spec(1, id + 1, Some(id), "step").at(start + 100, 300).record(&recorder);
            parent.close(&recorder);
        }
        if part < 3 {
            recorder.seal().unwrap();
        }
    }
    recorder.flush().unwrap();
    recorder
}

fn rows(store: &Store, run_id: &retake_schemas::RunId) -> Vec<SpanRow> {
    let mut rows: Vec<SpanRow> = RunReader::open(store, run_id).unwrap().rows().unwrap();
    rows.sort_by_key(|row| row.start_unix_ns);
    rows
}

/// The entry as it stands in the JSON; a text without its quotes.
fn entry(row: &SpanRow, key: &str) -> String {
    let object: BTreeMap<String, &RawValue> =
        row.attributes.as_deref().map_or_else(BTreeMap::new, |t| serde_json::from_str(t).unwrap());
    let value = object.get(key).map_or("", |value| value.get());
    serde_json::from_str(value).unwrap_or_else(|_| value.to_owned())
}

fn assert_same(found: &[String], expected: &[String], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (row, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found, expected, "{what}, row {row}");
    }
}

/// Scenario: attributes and times of one's own, asked for whole, one by one, as filters and as
/// groups, of a run that is sealed in parts with different columns, and still being recorded.
/// Guarantees: SQL shows what the recorder's reader shows, whatever a file holds.
#[tokio::test]
async fn sql_sees_what_was_recorded() {
    let fixture = Fixture::new();
    let recorder = live_run(&fixture);
    let run_id = recorder.run_id().clone();
    for is_finished in [false, true] {
        let rows = rows(&fixture.store, &run_id);
        assert_eq!(rows.len(), 2 * 6120);
        let analyzer = Analyzer::open(&fixture.store, Scope::All).unwrap();
        let ordered = |what: &str| format!("SELECT {what} FROM spans ORDER BY start_unix_ns");
        let shown: Vec<_> =
            rows.iter().map(|row| row.attributes.clone().unwrap_or_default()).collect();
        assert_same(&column(&analyzer, &ordered("attributes")).await, &shown, "attributes");
        let own: Vec<_> = rows.iter().map(|row| row.self_ns.unwrap().to_string()).collect();
        assert_same(&column(&analyzer, &ordered("self_ns")).await, &own, "self_ns");
        assert_eq!((own[0].as_str(), own[1].as_str()), ("600", "300"));
        for key in ["tenant", "part", "ratio", "odd key \"\u{e9}\"", "mixed", "none"] {
            let found: Vec<_> = rows.iter().map(|row| entry(row, key)).collect();
            let sql = ordered(&format!("attr(attributes, '{key}')"));
            assert_same(&column(&analyzer, &sql).await, &found, key);
        }
        let count = |filter: &str| format!("SELECT count(*) FROM spans WHERE {filter}");
        let of_tenant = |tenant: &str| rows.iter().filter(|r| entry(r, "tenant") == tenant).count();
        for (filter, expected) in [
            ("attr(attributes, 'tenant') = 'tenant-1'", of_tenant("tenant-1")),
            ("attr(attributes, 'part') = '3' AND self_ns = 600", 10),
            ("attr(attributes, 'mixed') IS NULL", 6120),
            ("attributes IS NULL", 6120),
            ("attributes LIKE '%\"tenant\":\"tenant-2\"%'", of_tenant("tenant-2")),
            ("self_ns < duration_ns", 6120),
            ("self_ns IS NULL", 0),
        ] {
            assert_eq!(column(&analyzer, &count(filter)).await, [expected.to_string()], "{filter}");
        }
        let grouped = "SELECT concat(t, ' ', n, ' ', own) AS g FROM (
                         SELECT attr(attributes, 'tenant') AS t, count(*) AS n, sum(self_ns) AS own
                         FROM spans GROUP BY 1) ORDER BY g";
        let expected = ["", "tenant-0", "tenant-1", "tenant-2"].map(|tenant| {
            let own = if tenant.is_empty() { 300 } else { 600 };
            let spans = of_tenant(tenant);
            format!("{tenant} {spans} {}", spans * own)
        });
        assert_eq!(column(&analyzer, grouped).await, expected);
        let sum: i64 =
            column(&analyzer, "SELECT sum(self_ns) FROM stage_self_time").await[0].parse().unwrap();
        assert_eq!(sum, rows.iter().map(|row| row.self_ns.unwrap()).sum::<i64>());
        if !is_finished {
            recorder.seal().unwrap();
        }
    }
    assert_eq!(recorder.finish(RunStatus::Finished).dropped, 0);
}

/// Scenario: the plan of a query for one attribute.
/// Guarantees: the scan gives the attribute, so the JSON of all of them is never made.
#[tokio::test]
async fn one_attribute_is_taken_in_the_scan() {
    let fixture = Fixture::new();
    let recorder = live_run(&fixture);
    assert_eq!(recorder.finish(RunStatus::Finished).dropped, 0);
    let analyzer = Analyzer::open(&fixture.store, Scope::All).unwrap();
    for query in [
        "SELECT attr(attributes, 'tenant') FROM spans",
        "SELECT attr(attributes, 'tenant') AS t, sum(duration_ns) FROM spans GROUP BY 1 ORDER BY 2",
        "SELECT name FROM spans WHERE attr(attributes, 'tenant') = 'tenant-1'",
    ] {
        let result = analyzer.query(&format!("EXPLAIN FORMAT INDENT {query}")).await.unwrap();
        let mut plan = String::new();
        write!(plan, "{}", arrow::util::pretty::pretty_format_batches(&result.batches).unwrap())
            .unwrap();
        let physical = plan.split("physical_plan").nth(1).unwrap();
        let scan = physical.lines().find(|line| line.contains("file_type=parquet")).unwrap();
        assert!(scan.contains("attr(attributes"), "{query}:\n{plan}");
        let above = physical.lines().take_while(|line| !line.contains("file_type=parquet"));
        assert!(!above.clone().any(|line| line.contains("attr(attributes@")), "{query}:\n{plan}");
    }
}
