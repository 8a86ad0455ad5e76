//! Findings: each cause of a regression once, with where it is and what to look at.

use std::collections::BTreeMap;

use retake_schemas::RunId;

use super::explain::means;
use super::pair::Pair;
use super::rows::END_TO_END;
use crate::error::AnalyzeError;
use crate::model::{Contribution, DiffRow, ExampleTrace, Finding, Verdict};
use crate::session::Analyzer;
use crate::sources::{SourceLine, stage_sources};

/// What got worse between paired executions.
pub(super) async fn paired(
    analyzer: &Analyzer,
    rows: &[DiffRow],
    pairs: &[Pair],
    candidates: &[RunId],
) -> Result<Vec<Finding>, AnalyzeError> {
    let mut findings = Vec::new();
    let whole = rows.iter().filter(|row| row.stage.ends_with(END_TO_END));
    for row in whole {
        let prefix = row.stage.strip_suffix(END_TO_END).unwrap_or_default();
        let kind = kind_of(prefix, pairs);
        let of_kind: Vec<&Pair> = pairs.iter().filter(|pair| pair.kind == kind).collect();
        let means = [
            means(of_kind.iter().map(|pair| &pair.base.stages)),
            means(of_kind.iter().map(|pair| &pair.candidate.stages)),
        ];
        let contributions = contributions(&means);
        let operation = prefix.trim_end_matches(": ").to_owned();
        let stages = rows.iter().filter(|row| {
            row.stage
                .strip_prefix(prefix)
                .is_some_and(|stage| means.iter().any(|m| m.contains_key(stage)))
        });
        let found = match row.verdict {
            Verdict::Worse => {
                let cause = contributions.iter().find(|part| part.change_ns > 0.0);
                let stage = cause.map(|part| part.stage.clone());
                Some(Finding::new(row, row.metric.clone(), operation, stage, contributions))
            }
            _ => worst_stage(stages, &means).map(|row| {
                let stage = row.stage.strip_prefix(prefix).map(str::to_owned);
                Finding::new(row, row.metric.clone(), operation, stage, contributions)
            }),
        };
        let Some(mut found) = found else { continue };
        found.examples =
            found.stage.as_deref().map_or(Vec::new(), |stage| examples(&of_kind, stage));
        findings.push(found);
    }
    locate(analyzer, &mut findings, candidates).await?;
    Ok(findings)
}

/// The kind of operation behind a row's prefix: rows of the most frequent kind have none.
fn kind_of(prefix: &str, pairs: &[Pair]) -> String {
    match prefix {
        "" => {
            let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
            for pair in pairs {
                *counts.entry(&pair.kind).or_default() += 1;
            }
            // Of two as frequent the first by name, as where the rows were made.
            let mut most = ("", 0);
            for (kind, count) in counts {
                if count > most.1 {
                    most = (kind, count);
                }
            }
            most.0.to_owned()
        }
        "other: " => String::new(),
        prefix => prefix.trim_end_matches(": ").to_owned(),
    }
}

fn examples(pairs: &[&Pair], stage: &str) -> Vec<ExampleTrace> {
    let mut found: Vec<ExampleTrace> =
        pairs.iter().filter_map(|pair| pair.candidate.longest.get(stage)).cloned().collect();
    shortlist(&mut found);
    found
}

/// Says where the stages of findings are instrumented.
pub(super) async fn locate(
    analyzer: &Analyzer,
    findings: &mut [Finding],
    candidates: &[RunId],
) -> Result<(), AnalyzeError> {
    if findings.is_empty() {
        return Ok(());
    }
    let sources = stage_sources(analyzer, candidates).await?;
    for finding in findings {
        let source = finding.stage.as_ref().and_then(|stage| sources.get(stage));
        if let Some(SourceLine { file, line }) = source {
            finding.source_file = Some(file.clone());
            finding.source_line = *line;
        }
    }
    Ok(())
}

/// The stage that got worse and adds most; below a hundredth of the operation it is nobody's loss.
pub(super) fn worst_stage<'a>(
    stages: impl Iterator<Item = &'a DiffRow>,
    means: &[BTreeMap<String, f64>; 2],
) -> Option<&'a DiffRow> {
    let whole: f64 = means.first().map_or(0.0, |stages| stages.values().sum());
    stages
        .filter(|row| row.verdict == Verdict::Worse)
        .filter(|row| row.candidate - row.base >= STAGE_SHARE_MIN * whole)
        .max_by(|a, b| (a.candidate - a.base).total_cmp(&(b.candidate - b.base)))
}

/// What each stage adds to the change of the mean operation, largest first. Attributed wall times
/// sum to the wall time, so these sum to its change.
pub(super) fn contributions(means: &[BTreeMap<String, f64>; 2]) -> Vec<Contribution> {
    let [base, candidate] = means;
    let mut stages: Vec<&String> = base.keys().chain(candidate.keys()).collect();
    stages.sort();
    stages.dedup();
    let of = |side: &BTreeMap<String, f64>, stage: &String| side.get(stage).copied().unwrap_or(0.0);
    let changes: Vec<(&String, f64)> =
        stages.into_iter().map(|stage| (stage, of(candidate, stage) - of(base, stage))).collect();
    let total: f64 = changes.iter().map(|(_, change)| change).sum();
    let share = |change: f64| if total == 0.0 { 0.0 } else { change / total };
    let mut parts: Vec<Contribution> = changes
        .into_iter()
        .map(|(stage, change_ns)| Contribution {
            stage: stage.clone(),
            change_ns,
            share: share(change_ns),
        })
        .collect();
    parts.sort_by(|a, b| b.change_ns.total_cmp(&a.change_ns));
    parts
}

/// The few traces that took longest in the stage.
pub(super) fn shortlist(examples: &mut Vec<ExampleTrace>) {
    examples.sort_by(|a, b| (b.stage_ns, &a.trace_id).cmp(&(a.stage_ns, &b.trace_id)));
    examples.dedup_by(|a, b| a.trace_id == b.trace_id && a.run_id == b.run_id);
    examples.truncate(EXAMPLES);
}

impl Finding {
    pub(super) fn new(
        row: &DiffRow,
        metric: String,
        operation: String,
        stage: Option<String>,
        contributions: Vec<Contribution>,
    ) -> Self {
        Self {
            metric,
            operation,
            stage,
            source_file: None,
            source_line: None,
            effect: row.effect,
            effect_ci: row.effect_ci,
            base: row.base,
            candidate: row.candidate,
            unit: row.unit.clone(),
            contributions,
            examples: Vec::new(),
        }
    }
}

/// Traces shown with a finding.
const EXAMPLES: usize = 3;
/// Below this share of the whole operation, a stage's change alone is no finding.
const STAGE_SHARE_MIN: f64 = 0.01;
