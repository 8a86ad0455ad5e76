//! A metric over the history of runs.

use serde::Serialize;

/// A metric over the history of runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trend {
    /// [`SCHEMA_VERSION`](super::SCHEMA_VERSION).
    pub schema_version: u32,
    /// The metric, as written.
    pub metric: String,
    /// Unit of every value: `ns`, `usd`, `share` (0 to 1) or `number`.
    pub unit: String,
    /// SQL condition of the rows it is made of; `None` for all.
    pub select: Option<String>,
    /// What the rows are grouped by; empty for one group.
    pub by: Vec<String>,
    /// Runs looked at.
    pub runs: u64,
    /// Machine of the youngest run; runs of other machines are series of their own.
    pub machine_key: String,
    /// Fewest runs with a value in which a series can have a change point, given how many series
    /// are searched.
    pub runs_min: u64,
    /// Groups that are not among `series`, because there are too many.
    pub groups_left_out: u64,
    /// One per group and machine: those of the youngest run's machine first, by name.
    pub series: Vec<TrendSeries>,
    /// What to mind.
    pub warnings: Vec<String>,
}

/// The history of one group on one machine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrendSeries {
    /// Name of the group, empty where there is only one; on another machine than the youngest
    /// run's, with the machine's key.
    pub group: String,
    /// The machine.
    pub machine_key: String,
    /// Whether it is the machine of the youngest run.
    pub is_same_machine: bool,
    /// Every run of the machine, oldest first.
    pub points: Vec<TrendPoint>,
    /// The runs among them that have no value.
    pub gaps: Vec<String>,
    /// Where the level changed, oldest first.
    pub changes: Vec<TrendChange>,
    /// The youngest runs against the others since the last change; `None` with too few of them.
    pub recent: Option<TrendShift>,
}

/// A metric in one run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrendPoint {
    /// The run.
    pub run_id: String,
    /// Its start, ns since the Unix epoch.
    pub started_unix_ns: i64,
    /// Commit it was built from; `None` where that was not recorded.
    pub git_sha: Option<String>,
    /// The value, in the unit of the trend; `None` for a run that does not have the metric.
    pub value: Option<f64>,
    /// Rows the value was made of.
    pub samples: u64,
}

/// A place in a history where its level changed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrendChange {
    /// Position of the new level's first run in `points`, from 0.
    pub index: u64,
    /// The last run before.
    pub run_before: String,
    /// The first run of the new level.
    pub run: String,
    /// Commit of the run before; with `sha` it bounds what is to blame.
    pub sha_before: Option<String>,
    /// Commit of the new level's first run.
    pub sha: Option<String>,
    /// Median from the change before to this one, in the unit of the trend.
    pub median_before: f64,
    /// Median from this change to the next.
    pub median_after: f64,
    /// Relative change of the median: 0.10 is 10 % more; `None` when it was 0 or below.
    pub change: Option<f64>,
    /// Probability of as clear a change anywhere in any of the series, if nothing changed.
    pub p: f64,
    /// First run of the 95 % interval of where the new level begins.
    pub run_earliest: String,
    /// Last run of that interval.
    pub run_latest: String,
    /// Runs in that interval, both ends included.
    pub interval_runs: u64,
    /// Commit of the last run before that interval: nothing up to it is to blame.
    pub sha_before_earliest: Option<String>,
    /// Commit of the last run of that interval.
    pub sha_latest: Option<String>,
}

/// Whether the youngest runs of a history look unlike those before.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrendShift {
    /// Position in `points` from which on the runs stand out most, from 0.
    pub index: u64,
    /// The run there.
    pub run: String,
    /// Runs from it on that have a value.
    pub runs: u64,
    /// Median of the runs before it, back to the last change, in the unit of the trend.
    pub median_before: f64,
    /// Median of the runs from it on.
    pub median_after: f64,
    /// Relative change of the median; `None` when it was 0 or below.
    pub change: Option<f64>,
    /// Probability of runs that stand out as much in any of the series, if nothing changed.
    pub p: f64,
    /// Whether `p` is small enough for a warning.
    pub is_shifted: bool,
}
