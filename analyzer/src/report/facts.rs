//! What several sections of the page need to know, worked out once.

use std::collections::BTreeMap;

use super::live;
use super::palette::Palette;
use super::scale::{percentile, sorted};
use crate::model::{BaselineData, BreakdownRow, DiffRow, ErrorOrigin, ReportData};

/// The stage name under which a comparison states the whole.
const END_TO_END: &str = "(end to end)";

/// The group of instants at which no span was active.
const IDLE: &str = "(idle)";

/// The data with what follows from it.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    /// What is drawn.
    pub(super) data: &'a ReportData,
    /// Colours of the stages.
    pub(super) palette: Palette<'a>,
    /// Durations of the traces, ns, sorted.
    pub(super) latencies_ns: Vec<i64>,
    /// Durations of the baseline's traces, ns, sorted; empty without a baseline.
    pub(super) base_latencies_ns: Vec<i64>,
    /// Times to first token, ns, sorted; only of traces that had one.
    pub(super) ttfts_ns: Vec<i64>,
    /// Traces that failed.
    pub(super) failed: u64,
    /// Whether the page is one of a server, so that links may lead to others.
    pub(super) is_live: bool,
}

impl<'a> Facts<'a> {
    /// Works them out.
    pub(super) fn new(data: &'a ReportData) -> Self {
        let base = data.baseline.as_ref();
        Self {
            data,
            palette: Palette::new(&data.breakdown.rows),
            latencies_ns: sorted(data.traces.iter().map(|trace| trace.duration_ns)),
            base_latencies_ns: sorted(
                base.iter().flat_map(|b| b.trace_durations_ns.iter().copied()),
            ),
            ttfts_ns: sorted(data.traces.iter().filter_map(|trace| trace.ttft_ns)),
            failed: data.traces.iter().filter(|trace| trace.error.is_some()).count() as u64,
            is_live: false,
        }
    }

    /// Where a trace can be looked at: its own page, or its drawing on this one.
    pub(super) fn trace_href(
        &self,
        trace_id: &str,
        drawn: &BTreeMap<&str, usize>,
    ) -> Option<String> {
        if self.is_live {
            return live::trace_path(&self.data.run.run_id, trace_id);
        }
        drawn.get(trace_id).map(|number| format!("#t{number}"))
    }

    /// A percentile of the traces' durations.
    pub(super) fn latency(&self, percent: usize) -> Option<i64> {
        percentile(&self.latencies_ns, percent)
    }

    /// The same of the baseline.
    pub(super) fn base_latency(&self, percent: usize) -> Option<i64> {
        percentile(&self.base_latencies_ns, percent)
    }

    /// The stages, largest attributed wall time first, whatever order they came in.
    pub(super) fn stages_by_wall(&self) -> Vec<&'a BreakdownRow> {
        let mut rows: Vec<_> = self.data.breakdown.rows.iter().collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.wall_ns));
        rows
    }

    /// The share of the wall time at which no span was active.
    pub(super) fn idle_share(&self) -> f64 {
        let idle = self.data.breakdown.rows.iter().find(|row| is_idle(row));
        idle.map_or(0.0, |row| row.wall_share)
    }

    /// By how much the rows' wall times miss the run's, ns; 0 as it should be.
    pub(super) fn wall_mismatch_ns(&self) -> i128 {
        let rows: i128 = self.data.breakdown.rows.iter().map(|row| i128::from(row.wall_ns)).sum();
        rows - i128::from(self.data.breakdown.wall_ns)
    }

    /// Cost of the run, US dollars; `None` when nobody recorded any.
    pub(super) fn cost_usd(&self) -> Option<f64> {
        cost_of(&self.data.breakdown.rows)
    }

    /// Failures by stage and class, most frequent first.
    pub(super) fn failures(&self) -> Vec<Failures<'a>> {
        let mut groups: BTreeMap<(&str, &str), Failures<'a>> = BTreeMap::new();
        for error in &self.data.breakdown.errors {
            let key = (error.stage.as_str(), error.error_type.as_str());
            let group = groups.entry(key).or_insert(Failures { first: error, origins: Vec::new() });
            group.origins.push(error);
        }
        let mut groups: Vec<_> = groups.into_values().collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.origins.len()));
        groups
    }
}

/// Failures that began in one stage with one class of error.
#[derive(Debug)]
pub(super) struct Failures<'a> {
    /// The first of them.
    pub(super) first: &'a ErrorOrigin,
    /// All of them.
    pub(super) origins: Vec<&'a ErrorOrigin>,
}

/// Whether a row holds the instants at which no span was active, so is no stage.
pub(super) fn is_idle(row: &BreakdownRow) -> bool {
    row.stage == IDLE
}

/// Sum of the recorded costs, US dollars; `None` when nobody recorded any.
pub(super) fn cost_of(rows: &[BreakdownRow]) -> Option<f64> {
    rows.iter().filter_map(|row| row.cost_usd).reduce(|sum, cost| sum + cost)
}

/// The rows of a comparison that state whole operations, one of each kind, with the kind's name; the
/// most frequent kind has none.
pub(super) fn wholes(base: &BaselineData) -> impl Iterator<Item = (&str, &DiffRow)> {
    base.diff.rows.iter().filter_map(|row| {
        let kind = row.stage.strip_suffix(END_TO_END)?;
        // Of a set of runs other measures than the time are wholes too.
        let is_time = row.metric == "latency";
        is_time.then(|| (kind.trim_end().trim_end_matches(':'), row))
    })
}

/// Whether a row of a comparison states the whole.
pub(super) fn is_end_to_end(row: &DiffRow) -> bool {
    row.stage.ends_with(END_TO_END)
}
