//! A metric over the history of runs, and where its level changed.
//!
//! One value per run and group, and change points between runs: never between rows, because rows
//! of one run share its luck. Runs of different machines are never one series. The chance of any
//! false change point in all series together is what one search allows (one in a hundred), so
//! looking at twelve stages does not cry wolf twelve times as often.

mod history;
mod levels;
mod points;
mod worse;

use retake_schemas::RunId;
use retake_schemas::tables::RunRow;

pub use points::points;
pub use worse::{Alarm, Direction, worsened};

use crate::check::{Measured, values_of};
use crate::error::AnalyzeError;
use crate::model::{SCHEMA_VERSION, Trend, TrendSeries};
use crate::session::Analyzer;
use history::{Histories, of_runs};
use levels::{Search, describe};

/// What to look at.
#[derive(Debug, Clone, PartialEq)]
pub struct TrendQuery {
    measured: Measured,
}

/// Why a metric cannot be looked at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("read {0}")]
pub struct TrendQueryError(String);

impl TrendQuery {
    /// Reads a metric of budgets, such as `p95(duration)`, `mean(cost_usd)` or
    /// `share(critical_path, 'llm')`. `select` is an SQL condition on its rows; `by` are names or
    /// SQL expressions they are grouped by, also several in one text with commas between them.
    ///
    /// # Errors
    /// Nobody knows such a metric, or it is of whole runs and has no rows to select or group.
    pub fn parse(
        metric: &str,
        select: Option<&str>,
        by: &[String],
    ) -> Result<Self, TrendQueryError> {
        let by: Vec<String> = by.iter().flat_map(|text| expressions(text)).collect();
        Measured::parse(metric, select.map(str::to_owned), by)
            .map(|measured| Self { measured })
            .map_err(TrendQueryError)
    }
}

/// The history of a metric over all runs in scope.
///
/// # Errors
/// There is no run in scope, a file is damaged, or an SQL expression of the query is wrong.
pub async fn trend(analyzer: &Analyzer, query: &TrendQuery) -> Result<Trend, AnalyzeError> {
    trend_of(analyzer, query, analyzer.runs()).await
}

/// The history of a metric over some of the runs in scope.
///
/// # Errors
/// As [`trend`].
pub(crate) async fn trend_of(
    analyzer: &Analyzer,
    query: &TrendQuery,
    mut runs: Vec<RunRow>,
) -> Result<Trend, AnalyzeError> {
    let measured = &query.measured;
    runs.sort_by(|a, b| (a.started_unix_ns, &a.run_id).cmp(&(b.started_unix_ns, &b.run_id)));
    let youngest =
        runs.last().ok_or_else(|| AnalyzeError::Internal("a trend needs a run".to_owned()))?;
    let id = |run: &RunRow| {
        let unread = |_| AnalyzeError::Internal(format!("{:?} is no run id", run.run_id));
        run.run_id.parse::<RunId>().map_err(unread)
    };
    let ids: Vec<RunId> = runs.iter().map(id).collect::<Result<_, _>>()?;
    let found = values_of(analyzer, &ids, measured).await?;
    let Histories { mut series, left_out } = of_runs(&runs, &found, &youngest.machine_key);
    let search = Search::of(&series, measured.unit());
    describe_all(&mut series, &search);
    Ok(Trend {
        schema_version: SCHEMA_VERSION,
        metric: measured.text().to_owned(),
        unit: measured.unit().as_str().to_owned(),
        select: measured.select().map(str::to_owned),
        by: measured.per().to_vec(),
        runs: runs.len() as u64,
        machine_key: youngest.machine_key.clone(),
        runs_min: search.runs_min() as u64,
        groups_left_out: left_out as u64,
        series,
        warnings: warnings(&runs),
    })
}

/// Searches the series side by side: long ones are shuffled thousands of times. Each has random
/// numbers of its own, so that what is found does not depend on how many are searched at a time.
fn describe_all(series: &mut [TrendSeries], search: &Search) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let each = series.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        for part in series.chunks_mut(each) {
            scope.spawn(move || part.iter_mut().for_each(|one| describe(one, search)));
        }
    });
}

/// Why some of the values may not be what they seem.
fn warnings(runs: &[RunRow]) -> Vec<String> {
    let of = |what: &str, is_odd: fn(&RunRow) -> bool| {
        let odd: Vec<&str> =
            runs.iter().filter(|run| is_odd(run)).map(|run| run.run_id.as_str()).collect();
        let first = odd.first()?;
        Some(match odd.len() {
            1 => format!("run {first} {what}"),
            count => format!("{count} runs, such as {first}, {what}"),
        })
    };
    [
        of("lost events while recording, so spans may be missing", |run| run.events_dropped > 0),
        of("did not end by themselves", |run| run.status != "finished"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The expressions of a list, split at commas outside brackets and quotes.
fn expressions(list: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    let (mut depth, mut quote) = (0_usize, None);
    for character in list.chars() {
        match (quote, character) {
            (None, ',') if depth == 0 => {
                found.push(String::new());
                continue;
            }
            (None, '(') => depth += 1,
            (None, ')') => depth = depth.saturating_sub(1),
            (None, '\'' | '"') => quote = Some(character),
            (Some(open), character) if open == character => quote = None,
            _ => {}
        }
        if let Some(last) = found.last_mut() {
            last.push(character);
        }
    }
    let trimmed = found.iter().map(|text| text.trim());
    trimmed.filter(|text| !text.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests;
