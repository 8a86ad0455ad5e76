//! What got worse between sets of runs, each cause once.

use retake_schemas::RunId;

use super::ComparedKind;
use super::estimates::RunEstimates;
use super::metric::Metric;
use crate::diff::found::{contributions, locate, shortlist, worst_stage};
use crate::error::AnalyzeError;
use crate::model::{DiffRow, ExampleTrace, Finding, Verdict};
use crate::session::Analyzer;

pub(super) async fn findings(
    analyzer: &Analyzer,
    compared: &[ComparedKind],
    candidate: &[RunEstimates],
    candidates: &[RunId],
) -> Result<Vec<Finding>, AnalyzeError> {
    let mut findings: Vec<Finding> = compared.iter().flat_map(of_kind).collect();
    for finding in &mut findings {
        if let Some(stage) = &finding.stage {
            finding.examples = examples(candidate, &finding.operation, stage);
        }
    }
    locate(analyzer, &mut findings, candidates).await?;
    Ok(findings)
}

/// What slows operations down or makes them dearer is one finding; failures are another. A stage
/// that got worse without that is one, too, if its change matters to the whole.
pub(super) fn of_kind(kind: &ComparedKind) -> Vec<Finding> {
    let worse: Vec<&DiffRow> =
        kind.whole.iter().filter(|row| row.verdict == Verdict::Worse).collect();
    let (failures, costs): (Vec<&DiffRow>, Vec<&DiffRow>) =
        worse.into_iter().partition(|row| row.metric == Metric::Errors.name());
    let parts = contributions(&kind.means);
    let mut found = Vec::new();
    if let Some(first) = costs.first() {
        let metrics: Vec<&str> = costs.iter().map(|row| row.metric.as_str()).collect();
        let cause = parts.iter().find(|part| part.change_ns > 0.0);
        let stage = cause.map(|part| part.stage.clone());
        let name = kind.name.clone();
        found.push(Finding::new(first, metrics.join(", "), name, stage, parts));
    } else if let Some(row) = worst_stage(kind.stages.iter(), &kind.means) {
        let stage = row.stage.strip_prefix(&kind.prefix).unwrap_or(&row.stage).to_owned();
        found.push(Finding::new(row, row.metric.clone(), kind.name.clone(), Some(stage), parts));
    }
    if let Some(row) = failures.first() {
        let name = kind.name.clone();
        found.push(Finding::new(row, row.metric.clone(), name, None, Vec::new()));
    }
    found
}

fn examples(runs: &[RunEstimates], operation: &str, stage: &str) -> Vec<ExampleTrace> {
    let kinds = runs.iter().flat_map(|run| &run.kinds);
    let mut found: Vec<ExampleTrace> = kinds
        .filter(|(kind, _)| operation.is_empty() || *kind == operation)
        .filter_map(|(_, kind)| kind.longest.get(stage))
        .flatten()
        .cloned()
        .collect();
    shortlist(&mut found);
    found
}
