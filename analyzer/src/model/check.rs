//! Whether runs keep to their budgets.

use serde::Serialize;

use super::{Diff, Finding};

/// Whether a run keeps to its budgets, and whether it got worse.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CheckReport {
    /// [`SCHEMA_VERSION`](super::SCHEMA_VERSION).
    pub schema_version: u32,
    /// The run checked; the first, where several are checked together.
    pub run_id: String,
    /// All runs checked.
    pub runs: Vec<String>,
    /// The runs compared with; empty without a baseline.
    pub baseline: Vec<String>,
    /// Every budget, in the order of the file; with groups, the ones that matter.
    pub budgets: Vec<BudgetVerdict>,
    /// The budgets that were crossed.
    pub violations: Vec<BudgetVerdict>,
    /// The comparison with the baseline, if there is one.
    pub comparison: Option<Diff>,
    /// What got worse, each cause once.
    pub regressions: Vec<Finding>,
    /// What to mind.
    pub warnings: Vec<String>,
    /// Whether the check passes.
    pub verdict: CheckVerdict,
    /// How the process ends (`retake --help`).
    pub exit_code: u8,
}

impl CheckVerdict {
    /// Whether the limit was crossed, whatever that means for the check.
    #[must_use]
    pub fn is_crossed(self) -> bool {
        matches!(self, Self::Warn | Self::Fail)
    }
}

/// Whether a budget is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckVerdict {
    /// It is.
    Pass,
    /// It is not, and is only to be said.
    Warn,
    /// It is not.
    Fail,
    /// The data cannot tell; `note` says what would.
    Inconclusive,
}

/// One budget, for one group of rows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BudgetVerdict {
    /// Name of the budget.
    pub budget: String,
    /// The group, where a budget is `per` something.
    pub group: Option<String>,
    /// What was measured, as written.
    pub metric: String,
    /// Unit of the numbers: `ns`, `usd`, `share` or `number`.
    pub unit: String,
    /// The limit; for a relative budget the change allowed.
    pub limit: Option<f64>,
    /// Whether the limit is the least allowed rather than the most.
    pub is_min: bool,
    /// Whether `limit`, `actual` and `interval` are relative changes against a baseline.
    pub is_relative: bool,
    /// What was found; for a relative budget the change.
    pub actual: Option<f64>,
    /// Room left as a share of the limit; below zero when crossed.
    pub margin: Option<f64>,
    /// 95 % interval of `actual`.
    pub interval: Option<[f64; 2]>,
    /// Rows (for a relative budget runs) it rests on.
    pub samples: u64,
    /// What crossing it means.
    pub severity: crate::check::Severity,
    /// Whether it is kept.
    pub verdict: CheckVerdict,
    /// Traces that contribute most.
    pub evidence: Vec<Evidence>,
    /// The first of the unbroken row of runs, up to this one, that cross it.
    pub first_bad_run: Option<String>,
    /// Line in the budget file, from 1.
    pub line: u64,
    /// What to mind, or what would decide.
    pub note: Option<String>,
}

/// A trace behind a number.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evidence {
    /// Its run.
    pub run_id: String,
    /// The trace.
    pub trace_id: String,
    /// What was measured in it.
    pub value: f64,
}
