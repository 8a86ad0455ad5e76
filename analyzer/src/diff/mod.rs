//! Runs compared: what changed, by how much, and whether the data can tell.
//!
//! The unit of replication is the run, never the span: thousands of requests of one run share
//! its luck, and treating them as independent gives false alarms more often than not. So one run
//! against another gets no verdict, with one exception: when both executed the *same* operations
//! (a replay and its source, or two replays of one source), comparing them pairwise removes the
//! largest source of difference, the mix of requests, and a verdict is given with the remark that
//! what differs from run to run by chance is still in it. Sets of runs that executed operations of
//! their own are compared run by run ([`sets`]).

mod explain;
mod facts;
mod found;
mod judge;
mod noise;
mod ops;
mod pair;
mod rows;
pub(crate) mod sets;

use retake_schemas::RunId;

use crate::error::AnalyzeError;
use crate::model::{Diff, SCHEMA_VERSION};
use crate::session::Analyzer;

pub use rows::END_TO_END;
pub use sets::{SelfCheck, SelfCheckShape, self_check};

/// What counts as a change.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DiffOptions {
    /// Smallest relative change worth reporting; 0.05 is 5 %.
    pub effect_min: f64,
    /// Smallest absolute change worth reporting, ns: below, schedulers and clocks decide.
    pub change_ns_min: i64,
    /// Share of false reports among stages that is accepted (Benjamini-Hochberg).
    pub false_reports_max: f64,
}

impl Default for DiffOptions {
    fn default() -> Self {
        Self { effect_min: 0.05, change_ns_min: 20_000, false_reports_max: 0.05 }
    }
}

/// Compares two runs in scope.
///
/// # Errors
/// A run is not in scope, or a file is damaged.
pub async fn diff(
    analyzer: &Analyzer,
    base: &RunId,
    candidate: &RunId,
    options: &DiffOptions,
) -> Result<Diff, AnalyzeError> {
    diff_repeated(analyzer, std::slice::from_ref(base), std::slice::from_ref(candidate), options)
        .await
}

/// Compares two sets of runs in scope: the repeats of one replay each, or any runs. The first of
/// each stands for its side in what is not measured (settings, machine).
///
/// # Errors
/// A run is not in scope, a side is empty, or a file is damaged.
pub async fn diff_repeated(
    analyzer: &Analyzer,
    bases: &[RunId],
    candidates: &[RunId],
    options: &DiffOptions,
) -> Result<Diff, AnalyzeError> {
    let none = || AnalyzeError::Internal("a side of the comparison has no run".to_owned());
    let (base, base_repeats) = bases.split_first().ok_or_else(none)?;
    let (candidate, candidate_repeats) = candidates.split_first().ok_or_else(none)?;
    let (base_run, candidate_run) = (analyzer.run(base)?, analyzer.run(candidate)?);
    let mut sides = ops::load(analyzer, base, candidate).await?;
    if sides.link == ops::Link::None && bases.len() + candidates.len() > 2 {
        drop(sides);
        return sets::compare(analyzer, bases, candidates, options).await;
    }
    ops::add_repeats(analyzer, &mut sides, base_repeats, candidate_repeats).await?;
    let mut warnings = facts::warnings(&base_run, &candidate_run);
    warnings.extend(sides.warnings());
    let pairing = pair::pair(&sides);
    if pairing.left_out > 0 {
        warnings.push(format!(
            "{} operations failed or did not finish on one side and are left out of latencies",
            pairing.left_out
        ));
    }
    let is_same_machine = base_run.machine_key == candidate_run.machine_key;
    let context = judge::Context { options: *options, is_same_machine };
    let compared = match &pairing.pairs {
        Some(pairs) => rows::paired(pairs, &sides, &context),
        None => rows::unpaired(&sides, &context),
    };
    let verdict = rows::verdict(&compared.rows);
    let findings = match &pairing.pairs {
        Some(pairs) => found::paired(analyzer, &compared.rows, pairs, candidates).await?,
        None => Vec::new(),
    };
    Ok(Diff {
        schema_version: SCHEMA_VERSION,
        base: base.to_string(),
        candidate: candidate.to_string(),
        paired: pairing.pairs.is_some(),
        pairs: pairing.pairs.as_ref().map_or(0, |pairs| pairs.len() as u64),
        settings_diff: facts::settings_diff(&base_run.settings, &candidate_run.settings),
        repeats: [bases.len() as u64, candidates.len() as u64],
        warnings,
        verdict,
        rows: compared.rows,
        note: compared.note,
        findings,
    })
}

#[cfg(test)]
mod tests;
