//! The history and the gate as rows.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use arrow::datatypes::DataType::{Float64, Int64, Utf8};
use retake_schemas::RunId;
use retake_schemas::tables::RunRow;

use super::arguments::Arguments;
use super::columns::{floats, ints, texts};
use super::computed::Answer;
use super::{Definition, FunctionDoc};
use crate::check::{Budgets, Check, Severity, check};
use crate::diff::DiffOptions;
use crate::error::AnalyzeError;
use crate::model::{BudgetVerdict, TrendChange, TrendSeries};
use crate::session::Analyzer;
use crate::trend::{TrendQuery, trend_of};

pub(super) const CHANGE_POINTS: Definition = Definition {
    doc: FunctionDoc {
        call: "change_points(metric[, by[, runs]])",
        doc: "Where the level of a metric changed in the history, as `retake trend` finds it: one row per \
              change, with the medians before and after, the first run of the new level, the 95 % interval \
              of where it began, and the commits between which the cause lies. Metrics are those of \
              budgets, such as `p95(duration)`; `by` is an expression over `spans`, '' for none; without \
              `runs`, the finished runs with name and service of the youngest.",
        example: "SELECT * FROM change_points('p95(duration)', 'stage')",
    },
    prepare: change_points,
};

pub(super) const BUDGET_VIOLATIONS: Definition = Definition {
    doc: FunctionDoc {
        call: "budget_violations(runs[, file])",
        doc: "The budgets of a file that runs do not keep, as `retake check` decides it: what was measured, \
              the limit, the 95 % interval, the severity (`fail` or `warn`), and up to three traces. The \
              file is `budgets.toml` or one beside it.",
        example: "SELECT budget, actual, limit_value FROM budget_violations('last')",
    },
    prepare: budget_violations,
};

fn change_points(arguments: &Arguments) -> Result<Answer, String> {
    arguments.at_most(3)?;
    let metric = arguments.text(0, "the metric")?;
    let by: Vec<String> = arguments.optional_text(1)?.into_iter().collect();
    let runs = arguments.optional_text(2)?;
    let query = TrendQuery::parse(&metric, None, &by).map_err(|error| error.to_string())?;
    Ok(Answer::of(
        &[
            ("group_name", Utf8),
            ("machine_key", Utf8),
            ("run_before", Utf8),
            ("run", Utf8),
            ("median_before", Float64),
            ("median_after", Float64),
            ("change", Float64),
            ("p", Float64),
            ("run_earliest", Utf8),
            ("run_latest", Utf8),
            ("git_sha_before", Utf8),
            ("git_sha_latest", Utf8),
            ("unit", Utf8),
        ],
        (query, runs),
        move |analyzer, (query, runs)| async move {
            let trend = trend_of(&analyzer, &query, history(&analyzer, runs.as_deref())?).await?;
            let rows: Vec<(&TrendSeries, &TrendChange)> = trend
                .series
                .iter()
                .flat_map(|series| series.changes.iter().map(move |change| (series, change)))
                .collect();
            Ok(vec![
                texts(rows.iter().map(|(series, _)| series.group.clone())),
                texts(rows.iter().map(|(series, _)| series.machine_key.clone())),
                texts(rows.iter().map(|(_, change)| change.run_before.clone())),
                texts(rows.iter().map(|(_, change)| change.run.clone())),
                floats(rows.iter().map(|(_, change)| change.median_before)),
                floats(rows.iter().map(|(_, change)| change.median_after)),
                floats(rows.iter().map(|(_, change)| change.change)),
                floats(rows.iter().map(|(_, change)| change.p)),
                texts(rows.iter().map(|(_, change)| change.run_earliest.clone())),
                texts(rows.iter().map(|(_, change)| change.run_latest.clone())),
                texts(rows.iter().map(|(_, change)| change.sha_before_earliest.clone())),
                texts(rows.iter().map(|(_, change)| change.sha_latest.clone())),
                texts(rows.iter().map(|_| trend.unit.clone())),
            ])
        },
    ))
}

/// The runs of a set; without one, the finished runs that have name and service of the youngest.
fn history(analyzer: &Analyzer, set: Option<&str>) -> Result<Vec<RunRow>, AnalyzeError> {
    if let Some(set) = set {
        let runs = analyzer.select_set(set)?;
        return runs.iter().map(|run_id| analyzer.run(run_id)).collect();
    }
    let mut runs = analyzer.runs();
    runs.retain(|run| run.status == "finished");
    let youngest = runs.iter().max_by_key(|run| (run.started_unix_ns, run.run_id.clone())).cloned();
    let youngest = youngest.ok_or_else(|| AnalyzeError::Sql {
        message: "change_points: there is no finished run".to_owned(),
    })?;
    runs.retain(|run| run.name == youngest.name && run.service == youngest.service);
    Ok(runs)
}

fn budget_violations(arguments: &Arguments) -> Result<Answer, String> {
    arguments.at_most(2)?;
    let runs = arguments.text(0, "the run")?;
    let file = arguments.optional_text(1)?.unwrap_or_else(|| BUDGET_FILE.to_owned());
    if !is_plain(&file) {
        return Err(format!("{file:?} is no file beside {BUDGET_FILE}; write its name, NAME.toml"));
    }
    Ok(Answer::of(
        &[
            ("budget", Utf8),
            ("group_name", Utf8),
            ("metric", Utf8),
            ("unit", Utf8),
            ("limit_value", Float64),
            ("actual", Float64),
            ("actual_low", Float64),
            ("actual_high", Float64),
            ("samples", Int64),
            ("severity", Utf8),
            ("first_bad_run", Utf8),
            ("traces", Utf8),
        ],
        (runs, file),
        move |analyzer, (runs, file)| async move {
            let rows = violations(&analyzer, &runs, &file).await?;
            let traces = |row: &BudgetVerdict| {
                let ids: Vec<&str> = row.evidence.iter().map(|one| one.trace_id.as_str()).collect();
                ids.join(" ")
            };
            let severity = |row: &BudgetVerdict| match row.severity {
                Severity::Fail => "fail".to_owned(),
                Severity::Warn => "warn".to_owned(),
            };
            Ok(vec![
                texts(rows.iter().map(|row| row.budget.clone())),
                texts(rows.iter().map(|row| row.group.clone())),
                texts(rows.iter().map(|row| row.metric.clone())),
                texts(rows.iter().map(|row| row.unit.clone())),
                floats(rows.iter().map(|row| row.limit)),
                floats(rows.iter().map(|row| row.actual)),
                floats(rows.iter().map(|row| row.interval.map(|[low, _]| low))),
                floats(rows.iter().map(|row| row.interval.map(|[_, high]| high))),
                ints(rows.iter().map(|row| row.samples as i64)),
                texts(rows.iter().map(severity)),
                texts(rows.iter().map(|row| row.first_bad_run.clone())),
                texts(rows.iter().map(traces)),
            ])
        },
    ))
}

/// What is not kept, failing or only warned of.
async fn violations(
    analyzer: &Analyzer,
    runs: &str,
    file: &str,
) -> Result<Vec<BudgetVerdict>, AnalyzeError> {
    let runs = analyzer.select_set(runs)?;
    let budgets = read(analyzer, file)?;
    let mut named: HashMap<String, Vec<RunId>> = HashMap::new();
    for text in budgets.baselines() {
        // A baseline that is not there yet is said by the check, as the note of its budget.
        let found = analyzer.select_set(&text).unwrap_or_default();
        let others: Vec<RunId> = found.into_iter().filter(|run| !runs.contains(run)).collect();
        if !others.is_empty() {
            named.insert(text, others);
        }
    }
    let report = check(
        analyzer,
        &Check {
            runs: &runs,
            baseline: &[],
            budgets: Some(&budgets),
            named: &named,
            options: DiffOptions::default(),
            inconclusive_fails: false,
        },
    )
    .await?;
    let is_crossed = |row: &BudgetVerdict| row.verdict.is_crossed();
    Ok(report.budgets.into_iter().filter(is_crossed).collect())
}

fn read(analyzer: &Analyzer, file: &str) -> Result<Budgets, AnalyzeError> {
    let sql = |message: String| AnalyzeError::Sql { message };
    let folder: &Path = analyzer.budget_folder().ok_or_else(|| {
        sql("budget_violations: budget files are out of reach here; use `retake check`".to_owned())
    })?;
    let path: PathBuf = folder.join(file);
    let text = std::fs::read_to_string(&path).map_err(|error| {
        let path = path.display();
        sql(format!(
            "budget_violations: read {path}: {error}; `retake check --example > {path}` writes an example"
        ))
    })?;
    Budgets::parse(&text, &path).map_err(|error| sql(error.to_string()))
}

/// A name without folders, ending in `.toml`: SQL does not choose what is read.
fn is_plain(file: &str) -> bool {
    let path = Path::new(file);
    let mut parts = path.components();
    let is_name = matches!(parts.next(), Some(Component::Normal(_))) && parts.next().is_none();
    is_name && path.extension().is_some_and(|extension| extension == "toml")
}

const BUDGET_FILE: &str = "budgets.toml";
