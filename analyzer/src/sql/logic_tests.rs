//! The SQL surface by example: files of queries with the answers they must get.
//!
//! The files are in the format of sqllogictest (`query`, the SQL, `----`, the rows), which engines
//! share. It is read here, in some thirty lines, because the crate of that name would change
//! features of what DataFusion is built from. `UPDATE_SLT=1` writes the answers anew; what it writes
//! is to be checked by hand against the store below.

use std::path::Path;

use arrow::array::Array;
use arrow::util::display::array_value_to_string;
use retake_recorder::Recorder;
use retake_schemas::event::{EventBody, Measured, SpanUpdated};
use retake_schemas::settings::{Price, Prices};
use retake_schemas::{RunId, convention};

use super::{AGGREGATES, FUNCTIONS, PRICE_FUNCTION, SKETCH_FUNCTIONS, VIEWS, table_functions};
use crate::fixture::{Fixture, START, question, spec};
use crate::session::{Analyzer, AnalyzerOptions, Scope};

const FILES: [(&str, &str); 3] = [
    ("views.slt", include_str!("logic_tests/views.slt")),
    ("functions.slt", include_str!("logic_tests/functions.slt")),
    ("table_functions.slt", include_str!("logic_tests/table_functions.slt")),
];

/// One budget that both runs keep, one that `after` does not, one that neither does.
const BUDGETS: &str = r#"
version = 1
[[budget]]
name = "roomy"
metric = "max(duration)"
max = "1s"
[[budget]]
name = "slowest model call"
metric = "max(duration)"
select = "stage = 'llm'"
max = "20us"
[[budget]]
name = "only a warning"
metric = "max(duration)"
select = "stage = 'retrieve'"
max = "1us"
severity = "warn"
"#;

/// Two runs. `before`: questions of 1 to 4 us a unit, an embedding batch, token metrics of two
/// flushes. `after`: the same questions twice as slow as a replay, and one that failed.
fn store() -> (Fixture, Analyzer) {
    let fixture = Fixture::new();
    let before = fixture.run("before", |recorder| {
        for trace in 1..=4_u8 {
            asked(recorder, trace, 1_000);
        }
        spec(9, 1, None, "embed")
            .at(0, 500)
            .with("retake.batch.size", 4_i64)
            .with("retake.queue_ns", 70_i64)
            .with("tenant", "acme")
            .record(recorder);
        for tokens in [60.0, 100.0] {
            counted(recorder, tokens);
        }
    });
    fixture.run("after", |recorder| {
        for trace in 1..=4_u8 {
            asked(recorder, trace, 2_000);
            repeats(recorder, trace, &before);
        }
        spec(10, 1, None, "query").at(0, 10).failed("Timeout").record(recorder);
        swept(recorder);
    });
    let price = Price {
        input: 2.0,
        output: 8.0,
        cache_read: Some(0.5),
        cache_write: None,
        reasoning: None,
    };
    let prices = Prices([("model-a".to_owned(), price)].into());
    std::fs::write(fixture.path().join("budgets.toml"), BUDGETS).unwrap();
    let budget_folder = Some(fixture.path().to_owned());
    let options = AnalyzerOptions { prices, budget_folder, ..AnalyzerOptions::default() };
    let analyzer = Analyzer::open_with(&fixture.store, Scope::All, &options).unwrap();
    (fixture, analyzer)
}

/// Question `trace`, of `trace` times `unit` ns a unit: 10 units in all.
fn asked(recorder: &Recorder, trace: u8, unit: i64) {
    question(recorder, trace, i64::from(trace) * 1_000_000, unit * i64::from(trace));
}

/// Says of a question that it repeats the one of the same number in `source`.
fn repeats(recorder: &Recorder, trace: u8, source: &RunId) {
    let root = spec(trace, 1, None, "query").key();
    let attributes = vec![
        (convention::SOURCE_RUN.into(), source.as_str().into()),
        (convention::SOURCE_TRACE.into(), root.trace_id.to_string().into()),
        (convention::SOURCE_SPAN.into(), root.span_id.to_string().into()),
    ];
    let update = SpanUpdated { span: root, attributes };
    let _ = recorder.dispatcher().emit(&EventBody::SpanUpdated(update));
}

/// A flush of a counter of tokens, as an SDK sends it: with all before it.
fn counted(recorder: &Recorder, tokens: f64) {
    let attributes = vec![
        ("gen_ai.provider.name".into(), "openai".into()),
        ("gen_ai.request.model".into(), "model-a".into()),
        ("gen_ai.token.type".into(), "input".into()),
        (convention::METRIC_TEMPORALITY.into(), "cumulative".into()),
        (convention::METRIC_SERIES.into(), "00ff".into()),
        (convention::METRIC_START.into(), START.into()),
    ];
    let name = "gen_ai.client.token.usage.sum".to_owned();
    let sample = Measured { name, unit: "{token}".to_owned(), value: tokens, attributes };
    let _ = recorder.dispatcher().emit_at(START, &EventBody::Measured(sample));
}

/// What a sweep writes down: two predictions, and what a replay of the first came to.
fn swept(recorder: &Recorder) {
    let sample = |name: &str, setting: &str, value: f64, more: retake_schemas::Attributes| {
        let mut attributes: retake_schemas::Attributes = vec![
            (convention::SWEEP_SETTING.into(), setting.into()),
            (convention::SWEEP_METRIC.into(), "throughput".into()),
        ];
        attributes.extend(more);
        let unit = "1/s".to_owned();
        let sample = Measured { name: name.to_owned(), unit, value, attributes };
        let _ = recorder.dispatcher().emit_at(START, &EventBody::Measured(sample));
    };
    let between = |low: f64, high: f64| -> retake_schemas::Attributes {
        vec![
            (convention::SWEEP_LOW.into(), low.into()),
            (convention::SWEEP_HIGH.into(), high.into()),
        ]
    };
    sample(convention::MEASURE_PREDICTED, "b=4", 100.0, between(90.0, 120.0));
    sample(convention::MEASURE_PREDICTED, "b=8", 200.0, between(150.0, 250.0));
    let replay = vec![
        (convention::SWEEP_REPLAY.into(), "r1".into()),
        (convention::SWEEP_BLOCK.into(), 0_i64.into()),
    ];
    sample(convention::MEASURE_MEASURED, "b=4", 110.0, replay);
}

/// Guarantees: every query of the files gets its answer.
#[tokio::test]
async fn answers_are_those_of_the_files() {
    let (_fixture, analyzer) = store();
    let update = std::env::var_os("UPDATE_SLT").is_some();
    let mut wrong = Vec::new();
    for (name, text) in FILES {
        let mut written = String::new();
        for block in text.trim_end().split("\n\n") {
            let (asked, expected) = block.split_once("\n----").unwrap_or((block, ""));
            let mut lines = asked.lines().skip_while(|line| line.starts_with('#'));
            match lines.next() {
                Some("query") => {}
                Some(other) => panic!("{name}: {other:?} is no directive"),
                // Only comments.
                None => {
                    written.push_str(block.trim_end());
                    written.push_str("\n\n");
                    continue;
                }
            }
            let sql: Vec<&str> = lines.collect();
            let found = answer(&analyzer, &sql.join("\n")).await;
            if found.trim() != expected.trim() {
                wrong.push(format!("{name}: {}\n{found}\ninstead of{expected}", sql.join("\n")));
            }
            written.push_str(&format!("{asked}\n----\n{found}\n"));
        }
        if update {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sql/logic_tests");
            std::fs::write(folder.join(name), written.trim_end().to_owned() + "\n").unwrap();
        }
    }
    assert!(update || wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// Guarantees: no view and no function is without a query.
#[test]
fn every_view_and_function_is_asked() {
    let files: String = FILES.iter().map(|(_, text)| *text).collect();
    let tables = table_functions();
    let functions = [FUNCTIONS, SKETCH_FUNCTIONS, AGGREGATES, &tables].concat();
    let calls = functions.iter().chain([&PRICE_FUNCTION]).map(|function| {
        let (name, _) = function.call.split_once('(').unwrap_or((function.call, ""));
        format!("{name}(")
    });
    let views = VIEWS.iter().map(|view| format!("FROM {}", view.name));
    let missing: Vec<String> = calls.chain(views).filter(|text| !files.contains(text)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// Rows, a line each, values apart by spaces, as sqllogictest writes them.
async fn answer(analyzer: &Analyzer, sql: &str) -> String {
    let result = match analyzer.query(sql).await {
        Ok(result) => result,
        Err(error) => return format!("error: {error}\n"),
    };
    let mut text = String::new();
    for batch in &result.batches {
        for row in 0..batch.num_rows() {
            let values = batch.columns().iter().map(|column| match column.is_null(row) {
                true => "NULL".to_owned(),
                false => array_value_to_string(column, row).unwrap(),
            });
            text.push_str(&values.collect::<Vec<_>>().join(" "));
            text.push('\n');
        }
    }
    text
}
