//! What explains that one set of runs differs from another?

use retake_schemas::RunId;
use serde::Serialize;

use crate::bubble_up::{Lift, between};
use crate::diff::{DiffOptions, diff_repeated};
use crate::error::AnalyzeError;
use crate::model::{Diff, SCHEMA_VERSION};
use crate::session::Analyzer;

/// A comparison, and what else differs between its sides.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// What got worse and which stages it comes from (`findings`), settings that differ
    /// (`settings_diff`), and what makes the sides hard to compare (`warnings`).
    pub comparison: Diff,
    /// Where the programs came from, when it is not the same: commit, version, machine.
    pub origins: Vec<Origin>,
    /// What the candidate's traces have that the base's have not, or the other way round: models,
    /// tools, batch sizes, outcomes; largest difference first.
    pub attributes: Vec<Lift>,
}

/// Something about whole runs that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Origin {
    /// `commit`, `service version` or `machine`.
    pub what: &'static str,
    /// In the base; several values with commas between them.
    pub base: String,
    /// In the candidate.
    pub candidate: String,
}

/// Explains.
///
/// # Errors
/// A run is not in scope, or a file is damaged.
pub async fn explain(
    analyzer: &Analyzer,
    base: &[RunId],
    candidate: &[RunId],
    options: &DiffOptions,
) -> Result<Explanation, AnalyzeError> {
    let comparison = diff_repeated(analyzer, base, candidate, options).await?;
    let mut attributes = between(analyzer, base, candidate).await?.lifts;
    attributes.retain(|lift| lift.difference().abs() >= DIFFERENCE_MIN);
    attributes.truncate(ATTRIBUTES_MAX);
    let origins = origins(analyzer, base, candidate)?;
    Ok(Explanation { schema_version: SCHEMA_VERSION, comparison, origins, attributes })
}

fn origins(
    analyzer: &Analyzer,
    base: &[RunId],
    candidate: &[RunId],
) -> Result<Vec<Origin>, AnalyzeError> {
    let of = |runs: &[RunId]| -> Result<[String; 3], AnalyzeError> {
        let mut found: [Vec<String>; 3] = Default::default();
        for run_id in runs {
            let run = analyzer.run(run_id)?;
            let facts = [
                run.git_sha.unwrap_or_else(|| "unknown".to_owned()),
                run.service_version.unwrap_or_else(|| "unknown".to_owned()),
                run.machine_key,
            ];
            for (values, fact) in found.iter_mut().zip(facts) {
                if !values.contains(&fact) {
                    values.push(fact);
                }
            }
        }
        Ok(found.map(|mut values| {
            values.sort();
            values.join(", ")
        }))
    };
    let (base, candidate) = (of(base)?, of(candidate)?);
    let differing = ORIGINS.iter().zip(base.into_iter().zip(candidate));
    Ok(differing
        .filter(|(_, (base, candidate))| base != candidate)
        .map(|(what, (base, candidate))| Origin { what, base, candidate })
        .collect())
}

const ORIGINS: [&str; 3] = ["commit", "service version", "machine"];
/// Smaller differences of shares are what two samples of the same traffic have.
const DIFFERENCE_MIN: f64 = 0.05;
const ATTRIBUTES_MAX: usize = 30;
