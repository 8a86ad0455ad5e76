//! The times of every run and stage, and nothing else: one reading of few columns for any number
//! of runs, and none of those whose times are known.

use std::collections::BTreeMap;

use retake_schemas::RunId;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::IDLE;
use crate::assemble::{TraceView, Wanted, visit_traces_of};
use crate::error::AnalyzeError;
use crate::history::Answers;
use crate::session::Analyzer;
use crate::trace::times;

/// Sums over the spans of a stage, ns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StageTimes {
    /// Spans, and those of them that only wrap another of their kind.
    spans: u64,
    wrappers: u64,
    #[serde(with = "wide")]
    pub(crate) total_ns: i128,
    #[serde(with = "wide")]
    pub(crate) self_ns: i128,
    #[serde(with = "wide")]
    pub(crate) wall_ns: i128,
    #[serde(with = "wide")]
    pub(crate) critical_ns: i128,
}

/// MessagePack has no integers wider than 64 bits.
mod wide {
    use super::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &i128, to: S) -> Result<S::Ok, S::Error> {
        ((*value >> 64) as i64, *value as u64).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<i128, D::Error> {
        let (high, low) = <(i64, u64)>::deserialize(from)?;
        Ok(i128::from(high) << 64 | i128::from(low))
    }
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
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunStages {
    pub(crate) traces: u64,
    /// By name, [`IDLE`] among them where there is idle time.
    pub(crate) stages: BTreeMap<String, StageTimes>,
    /// Sum of the traces' wall times, ns.
    #[serde(with = "wide")]
    pub(crate) wall_ns: i128,
}

impl RunStages {
    /// A stage's part of the wall time of all traces.
    pub(crate) fn share(&self, stage: &str, of: fn(&StageTimes) -> i128) -> f64 {
        let part = self.stages.get(stage).map_or(0, of);
        if self.wall_ns > 0 { part as f64 / self.wall_ns as f64 } else { 0.0 }
    }
}

/// The times of each of `runs`, in their order.
///
/// # Errors
/// A run is not in scope, or a file is damaged.
pub(crate) async fn stage_times(
    analyzer: &Analyzer,
    runs: &[RunId],
) -> Result<Vec<RunStages>, AnalyzeError> {
    let mut answers = Answers::of(analyzer, runs, "times of stages")?;
    loop {
        let missing = answers.missing();
        if missing.is_empty() {
            return Ok(answers.finish());
        }
        let mut summing: Vec<Summing> = Vec::new();
        summing.resize_with(missing.len(), Summing::default);
        visit_traces_of(analyzer, &missing, Wanted::CALLS, |trace| {
            if let Some(run) = summing.get_mut(trace.run) {
                run.add(trace);
            }
            Ok(())
        })
        .await?;
        answers.add(summing.into_iter().map(Summing::finish));
    }
}

#[derive(Debug, Default)]
struct Summing {
    traces: u64,
    /// By number of the stage's text.
    stages: Vec<Option<(String, StageTimes)>>,
    idle: StageTimes,
    wall_ns: i128,
}

impl Summing {
    fn add(&mut self, trace: &TraceView<'_>) {
        self.traces += 1;
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
        RunStages { traces: self.traces, stages, wall_ns: self.wall_ns }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn sums_of_any_size_are_kept(total_ns: i128, self_ns: i128, wall_ns: i128, spans: u64) {
            let times = StageTimes { spans, total_ns, self_ns, wall_ns, ..StageTimes::default() };
            let bytes = rmp_serde::to_vec(&times).unwrap();
            prop_assert_eq!(rmp_serde::from_slice::<StageTimes>(&bytes).unwrap(), times);
        }
    }
}
