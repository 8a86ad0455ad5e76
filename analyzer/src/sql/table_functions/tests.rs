//! The table functions, over runs recorded for the purpose.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float64Type, Int64Type};

use crate::fixture::{Fixture, question, spec};
use crate::session::{Analyzer, QueryResult, Scope};
use crate::sql::{AGGREGATES, FUNCTIONS, SKETCH_FUNCTIONS, table_functions};

/// Two runs of eight questions of growing size; in the second the model fails once.
fn fixture() -> (Fixture, Analyzer) {
    let fixture = Fixture::new();
    for (name, unit) in [("before", 1_000), ("after", 2_000)] {
        fixture.run(name, |recorder| {
            for trace in 1..=8_u8 {
                let start = i64::from(trace) * 1_000_000;
                question(recorder, trace, start, unit * i64::from(trace));
            }
            if name == "after" {
                spec(9, 1, None, "query").at(0, 10).failed("Timeout").record(recorder);
            }
        });
    }
    let analyzer = Analyzer::open(&fixture.store, Scope::All).unwrap();
    (fixture, analyzer)
}

async fn ask(analyzer: &Analyzer, sql: &str) -> QueryResult {
    analyzer.query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

fn ints(result: &QueryResult, column: usize) -> Vec<i64> {
    let arrays = result.batches.iter().map(|batch| batch.column(column));
    arrays.flat_map(|array| array.as_primitive::<Int64Type>().values().to_vec()).collect()
}

fn floats(result: &QueryResult, column: usize) -> Vec<f64> {
    let arrays = result.batches.iter().map(|batch| batch.column(column));
    arrays.flat_map(|array| array.as_primitive::<Float64Type>().values().to_vec()).collect()
}

fn texts(result: &QueryResult, column: usize) -> Vec<String> {
    let mut found = Vec::new();
    for batch in &result.batches {
        let array = arrow::compute::cast(batch.column(column), &arrow::datatypes::DataType::Utf8);
        let array = array.unwrap();
        let array = array.as_string::<i32>();
        found.extend((0..array.len()).map(|row| array.value(row).to_owned()));
    }
    found
}

/// Guarantees: the example of every function in the reference runs.
#[tokio::test]
async fn every_documented_example_runs() {
    let (fixture, _) = fixture();
    std::fs::write(fixture.path().join("budgets.toml"), crate::check::EXAMPLE).unwrap();
    let budget_folder = Some(fixture.path().to_owned());
    let options = crate::AnalyzerOptions { budget_folder, ..crate::AnalyzerOptions::default() };
    let analyzer = Analyzer::open_with(&fixture.store, Scope::All, &options).unwrap();
    let tables = table_functions();
    let all = FUNCTIONS.iter().chain(SKETCH_FUNCTIONS).chain(AGGREGATES).chain(&tables);
    let mut count = 0;
    for function in all {
        let id = crate::fixture::trace_id(3).to_string();
        let example = function
            .example
            .replace("baseline:main", "before")
            .replace("nightly*5", "after")
            .replace("4bf92f3577b34da6", &id)
            .replace(&format!("'{id}')"), &format!("'{id}', 'after')"));
        ask(&analyzer, &example).await;
        count += 1;
    }
    assert_eq!(count, FUNCTIONS.len() + SKETCH_FUNCTIONS.len() + AGGREGATES.len() + tables.len());
    drop(fixture);
}

#[tokio::test]
async fn times_of_stages_add_up() {
    let (_fixture, analyzer) = fixture();
    let walls =
        ask(&analyzer, "select sum(wall_ns), sum(wall_share) from self_time('before')").await;
    // Eight questions of 10 units of 1 to 8 us.
    assert_eq!(ints(&walls, 0), [10 * 36 * 1_000]);
    assert!((floats(&walls, 1)[0] - 1.0).abs() < 1e-9);
    let critical = "select sum(critical_ns) from critical_path('before')";
    assert_eq!(ints(&ask(&analyzer, critical).await, 0), [10 * 36 * 1_000]);
    let by_trace =
        "select count(distinct trace_id), sum(critical_ns) from critical_path('before', 'trace')";
    assert_eq!(ints(&ask(&analyzer, by_trace).await, 0), [8]);
    // Two parallel searches of 2 and 3 units below a retrieval of 3: minus 2 by the usual formula.
    let own = |mode: &str| {
        format!("select self_ns from self_time('before', '{mode}') where stage = 'retrieve'")
    };
    assert_eq!(ints(&ask(&analyzer, &own("sum")).await, 0), [-2 * 36 * 1_000]);
    assert_eq!(ints(&ask(&analyzer, &own("union")).await, 0), [0]);
    let folded =
        ask(&analyzer, "select stack, self_ns from flamegraph('before') order by stack").await;
    assert_eq!(
        texts(&folded, 0),
        ["query", "query;llm", "query;retrieve", "query;retrieve;search"]
    );
    assert_eq!(ints(&folded, 1)[3], 5 * 36 * 1_000);
    let at_once = ask(&analyzer, "select active, wall_ns from concurrency('before', 'search') where active > 0 order by active").await;
    assert_eq!(ints(&at_once, 0), [1, 2]);
    assert_eq!(ints(&at_once, 1), [36 * 1_000, 2 * 36 * 1_000]);
}

#[tokio::test]
async fn traces_and_what_distinguishes_them() {
    let (_fixture, analyzer) = fixture();
    let slow = ask(&analyzer, "select trace_id, duration_ns from slowest_traces('after', 2)").await;
    assert_eq!(ints(&slow, 1), [160_000, 140_000]);
    let tree = format!(
        "select depth, stage, is_critical from trace_spans('{}', 'after')",
        texts(&slow, 0)[0]
    );
    let tree = ask(&analyzer, &tree).await;
    assert_eq!(texts(&tree, 1), ["query", "retrieve", "search", "search", "llm"]);
    let why = ask(&analyzer, "select attribute, value, difference from bubble_up('after', 'errors > 0') where attribute = 'error_type'").await;
    assert_eq!((texts(&why, 1), floats(&why, 2)), (vec!["Timeout".to_owned()], vec![1.0]));
    let half = ask(
        &analyzer,
        "select measure, before_ns, after_ns, change from what_if('before', 'llm*0.5')",
    )
    .await;
    // The model is 4 of 10 units, all of it on the critical path.
    assert!((floats(&half, 3)[0] + 0.2).abs() < 1e-9, "{:?}", floats(&half, 3));
}

/// Scenario: arguments that make no sense.
/// Guarantees: each is refused with the function's name and what to write.
#[tokio::test]
async fn wrong_arguments_are_refused() {
    let (_fixture, analyzer) = fixture();
    for (sql, reason) in [
        ("select * from self_time()", "self_time: the run is missing"),
        ("select * from self_time('before', 'product')", "neither 'union' nor 'sum'"),
        ("select * from self_time('nowhere')", "find run \"nowhere\""),
        ("select * from what_if('before', 'llm')", "write STAGE*FACTOR"),
        ("select * from what_if('before', 'llm*0.5, llm*2')", "llm is changed twice"),
        ("select * from what_if('before', 'model*0.5')", "it has llm, query, retrieve, search"),
        ("select * from change_points('p95(nonsense)')", "nonsense"),
        ("select * from budget_violations('before', '../budgets.toml')", "no file beside"),
        ("select * from budget_violations('before', '/etc/passwd')", "no file beside"),
        ("select * from budget_violations('before')", "use `retake check`"),
        ("select * from slowest_traces('before', 0)", "no whole number above zero"),
        ("select * from bubble_up('before', 'nonsense > 1')", "nonsense"),
        ("select * from trace_spans('zz')", "hex digits"),
        ("select * from flamegraph('before', 'x')", "at most 1 arguments"),
        ("select quantiles(duration_ns, [1.5]) from spans", "not between 0 and 1"),
        ("select sketch_quantile(arrow_cast('x', 'Binary'), 0.5)", "sketch"),
    ] {
        let error = analyzer.query(sql).await.unwrap_err().to_string();
        assert!(error.contains(reason), "{sql}: {error}");
    }
}

/// Scenario: quantiles of 40 values and of none, in groups and without, merged from parts.
/// Guarantees: exact by nearest rank while there are few.
#[tokio::test]
async fn quantiles_are_those_of_the_definition() {
    let (_fixture, analyzer) = fixture();
    let exact = ask(&analyzer, "select q[1], q[2] from (select quantiles(duration_ns, [0.5, 1.0]) as q from spans where stage = 'query' and run_id in (select run_id from runs where name = 'before'))").await;
    assert_eq!((floats(&exact, 0), floats(&exact, 1)), (vec![40_000.0], vec![80_000.0]));
    let merged = ask(&analyzer, "select sketch_count(merge_sketch(s)), sketch_quantile(merge_sketch(s), 1.0) from (select run_id, latency_sketch(duration_ns) as s from spans where stage = 'query' group by run_id)").await;
    assert_eq!((ints(&merged, 0), floats(&merged, 1)), (vec![17], vec![160_000.0]));
    let none = ask(
        &analyzer,
        "select quantiles(duration_ns, [0.5]) is null from spans where stage = 'nothing'",
    )
    .await;
    assert!(none.batches[0].column(0).as_boolean().value(0));
    let good = ask(&analyzer, "select goodput(duration_ns < 45000) from trace_summary where run_id in (select run_id from runs where name = 'before')").await;
    assert_eq!(floats(&good, 0), [0.5]);
}

/// Scenario: calls of a model with a price, with and without a cost of their own.
/// Guarantees: what is stated stays, what is not is priced; a wrapper's copy counts once.
#[tokio::test]
async fn calls_cost_what_the_settings_say() {
    let fixture = Fixture::new();
    fixture.run("r", |recorder| {
        let call = |id: u64, parent: Option<u64>| {
            spec(1, id, parent, "llm")
                .at(0, 10)
                .with("gen_ai.operation.name", "chat")
                .with("gen_ai.request.model", "model-a-2026-01-01")
                .with("gen_ai.usage.input_tokens", 1_000_000_i64)
                .with("gen_ai.usage.output_tokens", 100_000_i64)
        };
        call(1, None).record(recorder);
        call(2, Some(1)).record(recorder);
        call(3, None).with("gen_ai.usage.cost", 7.0).record(recorder);
    });
    let price = retake_schemas::settings::Price {
        input: 2.0,
        output: 10.0,
        cache_read: None,
        cache_write: None,
        reasoning: None,
    };
    let prices = retake_schemas::settings::Prices([("model-a".to_owned(), price)].into());
    let options = crate::AnalyzerOptions { prices, ..crate::AnalyzerOptions::default() };
    let analyzer = Analyzer::open_with(&fixture.store, Scope::All, &options).unwrap();
    let costs = ask(&analyzer, "select cost_usd from spans order by span_id").await;
    assert_eq!(floats(&costs, 0), [3.0, 3.0, 7.0]);
    let run = ask(&analyzer, "select cost_usd from run_summary").await;
    assert_eq!(floats(&run, 0), [10.0]);
    let run_id = analyzer.select("r").unwrap();
    let found = crate::breakdown(&analyzer, &run_id, &[]).await.unwrap();
    assert_eq!(found.rows[0].cost_usd, Some(10.0));
    let free = Analyzer::open(&fixture.store, Scope::All).unwrap();
    assert_eq!(floats(&ask(&free, "select cost_usd from run_summary").await, 0), [7.0]);
}
