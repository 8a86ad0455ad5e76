//! Durations of the whole history in a few kilobytes a run.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::DataType::{Binary, Int64, Utf8};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::cast::as_string_array;
use retake_schemas::RunId;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::arguments::Arguments;
use super::columns::{bytes, ints, texts};
use super::computed::Answer;
use super::{Definition, FunctionDoc};
use crate::error::AnalyzeError;
use crate::history::Answers;
use crate::session::Analyzer;

pub(super) const RUN_STAGE_SKETCH: Definition = Definition {
    doc: FunctionDoc {
        call: "run_stage_sketch(runs)",
        doc: "One row per run and stage: spans, failed spans, the sum of their durations, ns, and a sketch of \
              the durations as `latency_sketch` gives it. Of finished runs it is kept, so that quantiles of \
              any part of the history are merged without reading a span again.",
        example: "SELECT stage, sketch_quantile(merge_sketch(sketch), 0.95) AS p95_ns FROM run_stage_sketch('last*50') GROUP BY stage",
    },
    prepare: run_stage_sketch,
};

/// A stage of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct StageSketch {
    stage: Option<String>,
    spans: i64,
    errors: i64,
    total_ns: i64,
    sketch: Vec<u8>,
}

fn run_stage_sketch(arguments: &Arguments) -> Result<Answer, String> {
    arguments.at_most(1)?;
    let runs = arguments.text(0, "the run")?;
    let columns = [
        ("run_id", Utf8),
        ("stage", Utf8),
        ("spans", Int64),
        ("errors", Int64),
        ("total_ns", Int64),
        ("sketch", Binary),
    ];
    Ok(Answer::of(&columns, runs, move |analyzer, runs| async move {
        let runs = analyzer.select_set(&runs)?;
        let found = sketches(&analyzer, &runs).await?;
        let rows: Vec<(&RunId, &StageSketch)> = runs
            .iter()
            .zip(&found)
            .flat_map(|(run_id, stages)| stages.iter().map(move |stage| (run_id, stage)))
            .collect();
        Ok(vec![
            texts(rows.iter().map(|(run_id, _)| run_id.to_string())),
            texts(rows.iter().map(|(_, row)| row.stage.clone())),
            ints(rows.iter().map(|(_, row)| row.spans)),
            ints(rows.iter().map(|(_, row)| row.errors)),
            ints(rows.iter().map(|(_, row)| row.total_ns)),
            bytes(rows.iter().map(|(_, row)| row.sketch.as_slice())),
        ])
    }))
}

async fn sketches(
    analyzer: &Analyzer,
    runs: &[RunId],
) -> Result<Vec<Vec<StageSketch>>, AnalyzeError> {
    let mut answers = Answers::of(analyzer, runs, "sketches of stages")?;
    loop {
        let missing = answers.missing();
        if missing.is_empty() {
            return Ok(answers.finish());
        }
        // Run ids have no character that would end a text.
        let ids: Vec<String> = missing.iter().map(|run_id| format!("'{run_id}'")).collect();
        let sql = format!(
            "SELECT run_id, stage, count(*), count(*) FILTER (WHERE status = 'error'),
                    sum(duration_ns), latency_sketch(duration_ns)
             FROM spans WHERE run_id IN ({}) GROUP BY run_id, stage ORDER BY run_id, stage",
            ids.join(", ")
        );
        let mut found: FxHashMap<String, Vec<StageSketch>> = FxHashMap::default();
        for batch in &analyzer.query(&sql).await?.batches {
            read(batch, &mut found)?;
        }
        let stages = |run_id: &RunId| found.remove(run_id.as_str()).unwrap_or_default();
        answers.add(missing.iter().map(stages));
    }
}

fn read(
    batch: &RecordBatch,
    found: &mut FxHashMap<String, Vec<StageSketch>>,
) -> Result<(), AnalyzeError> {
    let column = |at: usize, to: &DataType| {
        datafusion::arrow::compute::cast(batch.column(at), to)
            .map_err(|error| AnalyzeError::Internal(error.to_string()))
    };
    let (runs, stages) = (column(0, &Utf8)?, column(1, &Utf8)?);
    let (runs, stages) = (as_string_array(&runs)?, as_string_array(&stages)?);
    let numbers = [column(2, &Int64)?, column(3, &Int64)?, column(4, &Int64)?];
    let [spans, errors, total] =
        numbers.each_ref().map(|column| column.as_primitive::<Int64Type>());
    let sketch = column(5, &Binary)?;
    let sketch = sketch.as_binary::<i32>();
    for (row, (run_id, stage)) in runs.iter().zip(stages).enumerate() {
        let stage = StageSketch {
            stage: stage.map(str::to_owned),
            spans: spans.value(row),
            errors: errors.value(row),
            total_ns: total.value(row),
            sketch: sketch.value(row).to_vec(),
        };
        found.entry(run_id.unwrap_or_default().to_owned()).or_default().push(stage);
    }
    Ok(())
}
