//! The gate held against itself: how often it finds something where nothing changed.

use retake_schemas::RunId;
use serde::Serialize;

use super::estimates::RunEstimates;
use super::findings::of_kind;
use super::judge::Judge;
use super::rows_of;
use crate::diff::DiffOptions;
use crate::error::AnalyzeError;
use crate::model::SCHEMA_VERSION;
use crate::session::Analyzer;
use crate::stats::SplitMix64;

/// How often the gate cries wolf on somebody's own history.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SelfCheck {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Runs that were divided again and again.
    pub runs: u64,
    /// One row per shape of comparison.
    pub shapes: Vec<SelfCheckShape>,
}

/// Comparisons of so many runs with so many.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SelfCheckShape {
    /// Runs on the base's side.
    pub base: u64,
    /// Runs on the candidate's side.
    pub candidate: u64,
    /// Comparisons made.
    pub comparisons: u64,
    /// Those that found a regression.
    pub false_alarms: u64,
    /// Their share.
    pub rate: f64,
    /// What was found most often, and how often: `stage` or metric.
    pub mostly: Option<(String, u64)>,
}

/// Divides runs of an unchanged program at random, again and again, and compares the parts as
/// `check` would. What it finds is a false alarm, if the program did not change between them.
///
/// Drawing parts of one set over and over is what permutation tests do; the rate is that of this
/// machine's noise, and its error that of so few runs.
///
/// # Errors
/// A run is not in scope, or a file is damaged.
pub async fn self_check(
    analyzer: &Analyzer,
    runs: &[RunId],
    options: &DiffOptions,
) -> Result<SelfCheck, AnalyzeError> {
    let mut estimates = RunEstimates::load(analyzer, runs).await?;
    let judge = Judge::of_reports(options, true);
    let half = estimates.len() / 2;
    let mut shapes = Vec::new();
    for (base, candidate) in [(estimates.len().saturating_sub(1), 1), (half, half)] {
        if base.max(candidate) >= super::judge::RUNS_MIN && base + candidate <= estimates.len() {
            shapes.push(shape(&mut estimates, base, candidate, &judge));
        }
    }
    Ok(SelfCheck { schema_version: SCHEMA_VERSION, runs: runs.len() as u64, shapes })
}

fn shape(
    runs: &mut [RunEstimates],
    base: usize,
    candidate: usize,
    judge: &Judge,
) -> SelfCheckShape {
    let mut random = SplitMix64::new(SEED);
    // One run against the rest can be drawn in as many ways as there are runs.
    let comparisons = if candidate == 1 { runs.len() } else { COMPARISONS };
    let mut false_alarms = 0;
    let mut causes: std::collections::BTreeMap<String, u64> = std::collections::BTreeMap::new();
    for turn in 0..comparisons {
        if candidate == 1 {
            runs.rotate_left(usize::from(turn > 0));
        } else {
            let all = runs.len();
            random.shuffle(runs, all);
        }
        let (first, rest) = runs.split_at(base);
        let compared = rows_of(first, rest.get(..candidate).unwrap_or(rest), judge);
        let found: Vec<_> = compared.iter().flat_map(of_kind).collect();
        false_alarms += u64::from(!found.is_empty());
        for finding in found {
            *causes.entry(finding.stage.unwrap_or(finding.metric)).or_default() += 1;
        }
    }
    let mostly = causes.into_iter().max_by_key(|(_, count)| *count);
    SelfCheckShape {
        base: base as u64,
        candidate: candidate as u64,
        comparisons: comparisons as u64,
        false_alarms,
        rate: false_alarms as f64 / comparisons.max(1) as f64,
        mostly,
    }
}

const COMPARISONS: usize = 1_000;
const SEED: u64 = 0x6161;
