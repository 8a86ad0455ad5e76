//! The gate: does a run keep to its budgets, and did it get worse?

mod evaluate;
mod file;
#[cfg(test)]
mod file_schema;
mod measured;
mod metric;
mod outputs;
mod quantity;
mod slo;
mod verdicts;

use std::collections::HashMap;

use arrow::array::Array;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::DataType;
use datafusion::common::cast::as_float64_array;
use retake_schemas::RunId;

pub use file::{BudgetError, Budgets, Severity};
pub use outputs::{annotations, junit, markdown, markdown_cell, sarif, shown};
pub use quantity::Unit;

pub use evaluate::goodput;
pub(crate) use evaluate::{Groups, values_of};
pub(crate) use measured::Measured;

use evaluate::evaluate;
use file::{Budget, Limit, Limits, Rule};
use verdicts::{blank, held, limit, relative};

use crate::diff::{DiffOptions, diff_repeated};
use crate::error::AnalyzeError;
use crate::model::{BudgetVerdict, CheckReport, CheckVerdict, SCHEMA_VERSION, Verdict};
use crate::session::Analyzer;

/// An example of a budget file with a budget of every kind.
pub const EXAMPLE: &str = include_str!("example.toml");

/// What is checked against what.
#[derive(Debug, Clone)]
pub struct Check<'a> {
    /// The runs under question; several are the repeats of one.
    pub runs: &'a [RunId],
    /// The runs they are compared with; none leaves the comparison out.
    pub baseline: &'a [RunId],
    /// The budgets, if there are any.
    pub budgets: Option<&'a Budgets>,
    /// The runs that each baseline of the budgets names.
    pub named: &'a HashMap<String, Vec<RunId>>,
    /// What counts as a change in the comparison.
    pub options: DiffOptions,
    /// Whether what cannot be decided fails the check.
    pub inconclusive_fails: bool,
}

/// Checks.
///
/// # Errors
/// A run is not in scope, a file is damaged, or a budget's SQL is wrong; the message names the
/// budget.
pub async fn check(analyzer: &Analyzer, check: &Check<'_>) -> Result<CheckReport, AnalyzeError> {
    let first = check.runs.first();
    let first =
        first.ok_or_else(|| AnalyzeError::Internal("a check needs a run".to_owned()))?.to_string();
    let mut budgets = Vec::new();
    for budget in check.budgets.map_or(&[][..], |file| &file.budgets) {
        let verdicts = one(analyzer, check, budget).await;
        budgets.extend(verdicts.map_err(|error| of_budget(budget, error))?);
    }
    let comparison = match check.baseline {
        [] => None,
        baseline => Some(diff_repeated(analyzer, baseline, check.runs, &check.options).await?),
    };
    let violations: Vec<BudgetVerdict> =
        budgets.iter().filter(|budget| budget.verdict == CheckVerdict::Fail).cloned().collect();
    let regressions = comparison.as_ref().map_or(Vec::new(), |diff| diff.findings.clone());
    let warnings = comparison.as_ref().map_or(Vec::new(), |diff| diff.warnings.clone());
    let is_open = budgets.iter().any(|budget| budget.verdict == CheckVerdict::Inconclusive)
        || comparison.as_ref().is_some_and(|diff| diff.verdict == Verdict::Inconclusive);
    let exit_code = match (regressions.is_empty(), violations.is_empty()) {
        (false, true) => REGRESSION,
        (true, false) => OVER_BUDGET,
        (false, false) => REGRESSION_AND_OVER_BUDGET,
        (true, true) if is_open && check.inconclusive_fails => INCONCLUSIVE,
        (true, true) => 0,
    };
    let is_warned = budgets.iter().any(|budget| budget.verdict == CheckVerdict::Warn);
    let verdict = match exit_code {
        0 if is_open => CheckVerdict::Inconclusive,
        0 if is_warned => CheckVerdict::Warn,
        0 => CheckVerdict::Pass,
        INCONCLUSIVE => CheckVerdict::Inconclusive,
        _ => CheckVerdict::Fail,
    };
    Ok(CheckReport {
        schema_version: SCHEMA_VERSION,
        run_id: first,
        runs: check.runs.iter().map(ToString::to_string).collect(),
        baseline: check.baseline.iter().map(ToString::to_string).collect(),
        budgets,
        violations,
        comparison,
        regressions,
        warnings,
        verdict,
        exit_code,
    })
}

fn of_budget(budget: &Budget, error: AnalyzeError) -> AnalyzeError {
    match error {
        AnalyzeError::Sql { message } => AnalyzeError::Sql {
            message: format!("budget {:?} (line {}): {message}", budget.name, budget.line),
        },
        error => error,
    }
}

async fn one(
    analyzer: &Analyzer,
    check: &Check<'_>,
    budget: &Budget,
) -> Result<Vec<BudgetVerdict>, AnalyzeError> {
    match &budget.rule {
        Rule::Limit(rule) => {
            let found = in_runs(analyzer, check.runs, &rule.measured).await?;
            let mut verdicts = limit(budget, rule, &found);
            first_bad(analyzer, check.runs, rule, &mut verdicts).await?;
            Ok(verdicts)
        }
        Rule::Relative(rule) => {
            let measured = &rule.measured;
            let Some(base) = check.named.get(&rule.to) else {
                let mut verdict = blank(budget, &measured.text, measured.metric.unit());
                verdict.note = Some(format!("there is no run in {}", rule.to));
                return Ok(vec![verdict]);
            };
            let found = in_runs(analyzer, check.runs, measured).await?;
            let base_found = values_of(analyzer, base, measured).await?;
            let is_same_machine = is_same_machine(analyzer, check.runs, base)?;
            Ok(relative(budget, rule, &found, &base_found, is_same_machine))
        }
        Rule::Slo(slo) => Ok(vec![slo::slo(analyzer, check.runs, budget, slo).await?]),
        Rule::Sql { sql, limits } => own(analyzer, check.runs, budget, sql, *limits).await,
    }
}

async fn in_runs(
    analyzer: &Analyzer,
    runs: &[RunId],
    measured: &Measured,
) -> Result<Vec<Groups>, AnalyzeError> {
    let mut found = Vec::with_capacity(runs.len());
    for run_id in runs {
        found.push(evaluate(analyzer, run_id, measured).await?);
    }
    Ok(found)
}

fn is_same_machine(
    analyzer: &Analyzer,
    runs: &[RunId],
    base: &[RunId],
) -> Result<bool, AnalyzeError> {
    let Some(run_id) = runs.first() else { return Ok(false) };
    let own = analyzer.run(run_id)?.machine_key;
    for run_id in base {
        if analyzer.run(run_id)?.machine_key != own {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A query of the user's own: its first column of its first row is the value.
async fn own(
    analyzer: &Analyzer,
    runs: &[RunId],
    budget: &Budget,
    sql: &str,
    limits: Limits,
) -> Result<Vec<BudgetVerdict>, AnalyzeError> {
    let mut verdict = blank(budget, sql, Unit::Number);
    (verdict.limit, verdict.is_min) = (limits.max.or(limits.min), limits.max.is_none());
    let Some(run_id) = runs.first() else { return Ok(vec![verdict]) };
    // Run ids are made of letters, digits and dashes, so this needs no escaping.
    let result = analyzer.query(&sql.replace("$run", &format!("'{run_id}'"))).await?;
    let first = result.batches.iter().find(|batch| batch.num_rows() > 0);
    let Some(column) = first.and_then(|batch| batch.columns().first()) else {
        verdict.note = Some("the query gives no row".to_owned());
        return Ok(vec![verdict]);
    };
    // Text that is no number is an error, not NULL.
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let column =
        cast_with_options(column, &DataType::Float64, &strict).map_err(|_| AnalyzeError::Sql {
            message: format!("its first column is {}, which is no number", column.data_type()),
        })?;
    let column = as_float64_array(&column)?;
    if column.is_null(0) {
        verdict.note = Some("the query gives NULL: there is nothing to measure".to_owned());
        return Ok(vec![verdict]);
    }
    verdict.samples = 1;
    held(&mut verdict, limits, column.value(0));
    Ok(vec![verdict])
}

/// Names, where a limit is crossed, the first of the unbroken row of runs that cross it, back from
/// the one checked. Looks at runs of the same name and service in scope, each once for all groups.
async fn first_bad(
    analyzer: &Analyzer,
    runs: &[RunId],
    rule: &Limit,
    verdicts: &mut [BudgetVerdict],
) -> Result<(), AnalyzeError> {
    let Some(first) = runs.first() else { return Ok(()) };
    let checked = analyzer.run(first)?;
    let is_crossed = |verdict: &&mut BudgetVerdict| {
        matches!(verdict.verdict, CheckVerdict::Fail | CheckVerdict::Warn)
    };
    let mut open: Vec<&mut BudgetVerdict> = verdicts.iter_mut().filter(is_crossed).collect();
    for verdict in &mut open {
        verdict.first_bad_run = Some(checked.run_id.clone());
    }
    let mut before: Vec<_> = analyzer
        .runs()
        .into_iter()
        .filter(|run| run.name == checked.name && run.service == checked.service)
        .filter(|run| run.started_unix_ns < checked.started_unix_ns && run.status == "finished")
        .collect();
    before.sort_by_key(|run| std::cmp::Reverse(run.started_unix_ns));
    for run in before.into_iter().take(HISTORY_MAX) {
        if open.is_empty() {
            break;
        }
        let Ok(run_id) = run.run_id.parse::<RunId>() else { continue };
        let groups = values_of(analyzer, &[run_id], &rule.measured).await?;
        let groups = groups.first();
        open.retain_mut(|verdict| {
            let group = verdict.group.as_deref().unwrap_or_default();
            let found = groups.and_then(|groups| groups.get(group));
            let is_bad = found.is_some_and(|found| verdicts::against(rule.limits, found.value).2);
            if is_bad {
                verdict.first_bad_run = Some(run.run_id.clone());
            }
            is_bad
        });
    }
    Ok(())
}

/// Runs looked at, backwards, for the first that crossed a budget.
pub const HISTORY_MAX: usize = 20;
/// Exit codes of a check, as documented for the command line.
const REGRESSION: u8 = 10;
const OVER_BUDGET: u8 = 11;
const REGRESSION_AND_OVER_BUDGET: u8 = 12;
const INCONCLUSIVE: u8 = 20;

#[cfg(test)]
mod tests;
