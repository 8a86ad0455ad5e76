//! Sets of runs compared: several runs before against several after.
//!
//! The unit is the run. Each run gives one number per measure, the numbers of one side are
//! compared with those of the other, and how much runs differ by chance is seen in the numbers
//! themselves. What gates is what whoever waits or pays would notice, end to end; stages explain
//! it, so that one cause is one finding and not one alarm for each stage it passes through.

mod aa;
mod estimates;
mod findings;
mod judge;
mod metric;

use std::collections::{BTreeMap, BTreeSet};

use retake_schemas::RunId;
use retake_schemas::tables::RunRow;

pub use self::aa::{SelfCheck, SelfCheckShape, self_check};
use self::estimates::{KindEstimates, RunEstimates};
pub(crate) use self::judge::{Judge, Judged};
pub(crate) use self::metric::Measure;

use self::metric::Metric;
use super::explain::{means, shares};
use super::rows::END_TO_END;
use super::{DiffOptions, facts};
use crate::error::AnalyzeError;
use crate::model::{Diff, DiffRow, Finding, SCHEMA_VERSION, Verdict};
use crate::session::Analyzer;

/// Compares two sets of runs in scope that executed operations of their own. The first of each
/// set stands for its side in what is not measured.
pub(super) async fn compare(
    analyzer: &Analyzer,
    bases: &[RunId],
    candidates: &[RunId],
    options: &DiffOptions,
) -> Result<Diff, AnalyzeError> {
    let base_runs = rows(analyzer, bases)?;
    let candidate_runs = rows(analyzer, candidates)?;
    let (Some(base_run), Some(candidate_run)) = (base_runs.first(), candidate_runs.first()) else {
        return Err(AnalyzeError::Internal("a side of the comparison has no run".to_owned()));
    };
    let mut warnings = Vec::new();
    let machine = &candidate_run.machine_key;
    let mut sides = Vec::new();
    for runs in [&base_runs, &candidate_runs] {
        let (same, other): (Vec<&RunRow>, Vec<&RunRow>) =
            runs.iter().partition(|run| run.machine_key == *machine);
        warnings.extend(left_out(&other, candidate_run));
        // Without any run of this kind of machine the numbers are shown, and decide nothing.
        let kept = if same.is_empty() { other } else { same };
        warnings.extend(kept.iter().flat_map(|run| facts::run_warnings(run)));
        let parsed = kept.iter().map(|run| run.run_id.parse::<RunId>());
        let ids = parsed.collect::<Result<Vec<RunId>, _>>();
        let ids = ids.map_err(|error| AnalyzeError::Internal(format!("id of a run: {error}")))?;
        sides.push(RunEstimates::load(analyzer, &ids).await?);
    }
    let is_same_machine = base_runs.iter().any(|run| run.machine_key == *machine);
    let judge = Judge::of_reports(options, is_same_machine);
    let [base, candidate] = sides.as_slice() else {
        return Err(AnalyzeError::Internal("a comparison has two sides".to_owned()));
    };
    warnings.extend(one_sided(base, candidate));
    let compared = rows_of(base, candidate, &judge);
    let findings = findings::findings(analyzer, &compared, candidate, candidates).await?;
    let rows: Vec<DiffRow> =
        compared.into_iter().flat_map(|kind| kind.whole.into_iter().chain(kind.stages)).collect();
    Ok(Diff {
        schema_version: SCHEMA_VERSION,
        base: base_run.run_id.clone(),
        candidate: candidate_run.run_id.clone(),
        paired: false,
        pairs: 0,
        repeats: [base.len() as u64, candidate.len() as u64],
        settings_diff: facts::settings_diff(&base_run.settings, &candidate_run.settings),
        warnings,
        verdict: verdict(&rows, &findings),
        rows,
        note: note(base.len(), candidate.len(), is_same_machine),
        findings,
    })
}

fn rows(analyzer: &Analyzer, runs: &[RunId]) -> Result<Vec<RunRow>, AnalyzeError> {
    runs.iter().map(|run_id| analyzer.run(run_id)).collect()
}

fn left_out(others: &[&RunRow], candidate: &RunRow) -> Option<String> {
    let first = others.first()?;
    Some(format!(
        "{} runs of another kind of machine ({} with {} processors, not {} with {}): their times \
         are not comparable",
        others.len(),
        first.cpu,
        first.cpus,
        candidate.cpu,
        candidate.cpus
    ))
}

/// One kind of operation compared.
#[derive(Debug, Clone, PartialEq, Default)]
struct ComparedKind {
    /// The kind as the programs name it; empty when there is only one.
    name: String,
    /// What its rows begin with.
    prefix: String,
    /// Rows of whole operations.
    whole: Vec<DiffRow>,
    /// Rows of stages, largest explained share first.
    stages: Vec<DiffRow>,
    /// Mean of each stage in an operation, base and candidate, ns.
    means: [BTreeMap<String, f64>; 2],
}

/// Whether any run of a side has operations of a kind.
fn has(side: &[RunEstimates], kind: &str) -> bool {
    side.iter().any(|run| run.kinds.contains_key(kind))
}

/// Kinds of operations that only one side has, in words: against nothing, everything would be new and
/// infinitely slower.
fn one_sided(base: &[RunEstimates], candidate: &[RunEstimates]) -> Vec<String> {
    let kinds: BTreeSet<&String> =
        base.iter().chain(candidate).flat_map(|r| r.kinds.keys()).collect();
    let name = |kind: &str| if kind.is_empty() { "other" } else { kind }.to_owned();
    let missing = |side: &[RunEstimates], who: &str, other: &str| {
        let absent: Vec<_> =
            kinds.iter().filter(|kind| !has(side, kind)).map(|kind| name(kind)).collect();
        (!absent.is_empty()).then(|| {
            format!(
                "{who} has no operation of kind {}, which {other} has: not compared",
                absent.join(", ")
            )
        })
    };
    let base_lacks = missing(base, "the baseline", "the candidate");
    let candidate_lacks = missing(candidate, "the candidate", "the baseline");
    base_lacks.into_iter().chain(candidate_lacks).collect()
}

fn rows_of(base: &[RunEstimates], candidate: &[RunEstimates], judge: &Judge) -> Vec<ComparedKind> {
    let mut kinds: BTreeMap<&String, u64> = BTreeMap::new();
    for run in base.iter().chain(candidate) {
        for (kind, found) in &run.kinds {
            *kinds.entry(kind).or_default() += found.operations;
        }
    }
    let only = kinds.len() == 1;
    let mut kinds: Vec<(&String, u64)> =
        kinds.into_iter().filter(|(kind, _)| has(base, kind) && has(candidate, kind)).collect();
    kinds.sort_by_key(|(_, operations)| std::cmp::Reverse(*operations));
    let compared = kinds.into_iter().map(|(kind, _)| {
        let of = |runs: &'_ [RunEstimates]| -> Vec<KindEstimates> {
            runs.iter().filter_map(|run| run.kinds.get(kind).cloned()).collect()
        };
        let prefix = match kind.as_str() {
            _ if only => String::new(),
            "" => "other: ".to_owned(),
            kind => format!("{kind}: "),
        };
        let name = if only { String::new() } else { kind.clone() };
        compare_kind(name, &prefix, &of(base), &of(candidate), judge)
    });
    compared.collect()
}

fn compare_kind(
    name: String,
    prefix: &str,
    base: &[KindEstimates],
    candidate: &[KindEstimates],
    judge: &Judge,
) -> ComparedKind {
    let values = |side: &[KindEstimates], metric: Metric| -> Vec<f64> {
        side.iter().filter_map(|run| run.values.get(&metric).copied()).collect()
    };
    let whole = Metric::WHOLE.into_iter().filter_map(|metric| {
        let (base, candidate) = (values(base, metric), values(candidate, metric));
        let is_known = !(base.is_empty() && candidate.is_empty());
        is_known.then(|| {
            let name = format!("{prefix}{END_TO_END}");
            judge.compare(&name, metric.measure(), &base, &candidate)
        })
    });
    let whole = judge.decide(whole.collect());
    let names: BTreeSet<&String> =
        base.iter().chain(candidate).flat_map(|run| run.stages.keys()).collect();
    let stages = names.iter().map(|stage| {
        let walls = |side: &[KindEstimates]| -> Vec<f64> {
            side.iter().filter_map(|run| run.stages.get(*stage).copied()).collect()
        };
        let name = format!("{prefix}{stage}");
        judge.compare(&name, Metric::Wall.measure(), &walls(base), &walls(candidate))
    });
    let mut stages = judge.decide(stages.collect::<Vec<Judged>>());
    let means = [base, candidate].map(|side| means(side.iter().map(|run| &run.stages)));
    let [base_means, candidate_means] = &means;
    if let Some(shares) = shares(base_means, candidate_means) {
        for row in &mut stages {
            let stage = row.stage.strip_prefix(prefix).unwrap_or(&row.stage);
            row.explains_share = shares.get(stage).copied();
        }
    }
    stages.sort_by(|a, b| {
        let share = |row: &DiffRow| row.explains_share.unwrap_or(f64::NEG_INFINITY);
        let change = |row: &DiffRow| (row.candidate - row.base).abs();
        share(b).total_cmp(&share(a)).then(change(b).total_cmp(&change(a)))
    });
    ComparedKind { name, prefix: prefix.to_owned(), whole, stages, means }
}

/// Worse when something was found; else better when something whole is; the same when all is.
fn verdict(rows: &[DiffRow], findings: &[Finding]) -> Verdict {
    let whole: Vec<&DiffRow> =
        rows.iter().filter(|row| row.metric != Metric::Wall.name()).collect();
    let has = |verdict| whole.iter().any(|row| row.verdict == verdict);
    if !findings.is_empty() {
        Verdict::Worse
    } else if has(Verdict::Better) {
        Verdict::Better
    } else if whole.is_empty() || has(Verdict::Inconclusive) {
        Verdict::Inconclusive
    } else {
        Verdict::Same
    }
}

fn note(base: usize, candidate: usize, is_same_machine: bool) -> String {
    let basis = format!("{base} runs against {candidate}; the unit is the run, never the request");
    if !is_same_machine {
        return format!("{basis}; the machines differ, so nothing is decided");
    }
    if base.max(candidate) < judge::RUNS_MIN {
        return format!(
            "{basis}; fewer than {} runs on both sides cannot show what differs from run to run \
             by chance: record more, or replay the same workload",
            judge::RUNS_MIN
        );
    }
    basis
}

#[cfg(test)]
mod tests;
