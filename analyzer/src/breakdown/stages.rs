//! The times of every run and stage, and nothing else: one reading of few columns for any number
//! of runs.

use std::collections::BTreeMap;

use retake_schemas::RunId;

use super::IDLE;
use crate::assemble::{TraceView, Wanted, visit_traces_of};
use crate::error::AnalyzeError;
use crate::session::Analyzer;
use crate::trace::times;

/// Sums over the spans of a stage, ns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct StageTimes {
    /// Spans, and those of them that only wrap another of their kind.
    spans: u64,
    wrappers: u64,
    pub(crate) total_ns: i128,
    pub(crate) self_ns: i128,
    pub(crate) wall_ns: i128,
    pub(crate) critical_ns: i128,
}

impl StageTimes {
    /// As [`crate::model::BreakdownRow::calls`].
    pub(crate) fn calls(&self) -> u64 {
        match self.spans - self.wrappers {
            0 => self.spans,
            calls => calls,
        }
    }
}

/// The stages of one run.
#[derive(Debug, Default)]
pub(crate) struct RunStages {
    /// By name, [`IDLE`] among them where there is idle time.
    pub(crate) stages: BTreeMap<String, StageTimes>,
    /// Sum of the traces' wall times, ns.
    pub(crate) wall_ns: i128,
}

/// The times of each of `runs`, in their order.
///
/// # Errors
/// A run is not in scope, or a file is damaged.
pub(crate) async fn stage_times(
    analyzer: &Analyzer,
    runs: &[RunId],
) -> Result<Vec<RunStages>, AnalyzeError> {
    let mut summing: Vec<Summing> = Vec::new();
    summing.resize_with(runs.len(), Summing::default);
    visit_traces_of(analyzer, runs, Wanted::CALLS, |trace| {
        if let Some(run) = summing.get_mut(trace.run) {
            run.add(trace);
        }
        Ok(())
    })
    .await?;
    Ok(summing.into_iter().map(Summing::finish).collect())
}

#[derive(Debug, Default)]
struct Summing {
    /// By number of the stage's text.
    stages: Vec<Option<(String, StageTimes)>>,
    idle: StageTimes,
    wall_ns: i128,
}

impl Summing {
    fn add(&mut self, trace: &TraceView<'_>) {
        let times = times(&trace.forest);
        let columns = times.self_ns.iter().zip(&times.wall_ns).zip(&times.critical_ns);
        for (span, ((own, wall), critical)) in trace.spans.iter().zip(columns) {
            let index = span.stage.index();
            if index >= self.stages.len() {
                self.stages.resize(index + 1, None);
            }
            let Some(place) = self.stages.get_mut(index) else { continue };
            let name = || (trace.texts.text(span.stage).to_owned(), StageTimes::default());
            let (_, sums) = place.get_or_insert_with(name);
            sums.spans += 1;
            sums.wrappers += u64::from(span.is_wrapper);
            sums.total_ns += i128::from(span.duration_ns);
            sums.self_ns += i128::from(*own);
            sums.wall_ns += i128::from(*wall);
            sums.critical_ns += i128::from(*critical);
        }
        self.idle.wall_ns += i128::from(times.wall_idle_ns);
        self.idle.critical_ns += i128::from(times.critical_idle_ns);
        self.wall_ns += i128::from(trace.forest.wall_ns());
    }

    fn finish(self) -> RunStages {
        let mut stages: BTreeMap<String, StageTimes> = self.stages.into_iter().flatten().collect();
        if self.idle != StageTimes::default() {
            let idle = stages.entry(IDLE.to_owned()).or_default();
            idle.wall_ns += self.idle.wall_ns;
            idle.critical_ns += self.idle.critical_ns;
        }
        RunStages { stages, wall_ns: self.wall_ns }
    }
}
