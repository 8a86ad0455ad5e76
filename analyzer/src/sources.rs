//! Where stages are instrumented.

use std::collections::HashMap;

use datafusion::functions_aggregate::expr_fn::count;
use datafusion::prelude::{col, lit};
use futures::StreamExt;
use retake_schemas::RunId;

use crate::assemble::{int, text, value};
use crate::error::AnalyzeError;
use crate::session::Analyzer;

/// A line of source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SourceLine {
    pub(crate) file: String,
    /// From 1.
    pub(crate) line: Option<i64>,
}

/// The line that most spans of each stage come from, where the instrumentation says.
pub(crate) async fn stage_sources(
    analyzer: &Analyzer,
    runs: &[RunId],
) -> Result<HashMap<String, SourceLine>, AnalyzeError> {
    let runs = runs.iter().map(|run_id| lit(run_id.as_str())).collect();
    let mut rows = analyzer
        .context()
        .table("spans")
        .await?
        .filter(col("run_id").in_list(runs, false).and(col("source_file").is_not_null()))?
        .aggregate(
            vec![col("stage"), col("source_file"), col("source_line")],
            vec![count(lit(1)).alias("n")],
        )?
        .sort(vec![
            col("n").sort(false, false),
            col("source_file").sort(true, false),
            col("source_line").sort(true, false),
        ])?
        .execute_stream()
        .await?;
    let mut found = HashMap::new();
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        let (stages, files) = (text(&batch, "stage")?, text(&batch, "source_file")?);
        let lines = int(&batch, "source_line")?;
        for row in 0..batch.num_rows() {
            if let (Some(stage), Some(file)) = (value(&stages, row), value(&files, row)) {
                let line = crate::assemble::number(&lines, row);
                let source = SourceLine { file: file.to_owned(), line };
                found.entry(stage.to_owned()).or_insert(source);
            }
        }
    }
    Ok(found)
}
