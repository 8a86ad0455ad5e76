//! What each objective will be for a setting, said before it is measured.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::objective::{Known, Objective, measure};
use crate::arrival::Arrival;
use crate::cost::{Estimate, Observed, Predictor, Unknown};
use crate::plan::closure::{self, Reach};
use crate::simulate::model::Model;
use crate::simulate::{Detail, SimulatedReport, simulate};
use crate::workload::Workload;

/// What predictions are made of.
#[derive(Debug)]
pub struct Predictions<'a> {
    /// The cost model.
    pub predictor: &'a Predictor,
    /// The workload that is replayed.
    pub workload: &'a Workload,
    /// When its operations begin.
    pub arrival: Arrival,
    /// The run it was cut from.
    pub source: &'a Observed,
    /// What quality is measured by.
    pub known: &'a Known,
}

impl Predictions<'_> {
    /// Predicts an objective under these settings.
    ///
    /// # Errors
    /// Why it cannot be predicted.
    pub fn predict(
        &self,
        objective: Objective,
        target: &BTreeMap<String, Json>,
    ) -> Result<Estimate, Unknown> {
        match objective {
            Objective::Throughput if !self.source.ingests.is_empty() => self.throughput(target),
            Objective::Throughput => {
                let wall = self.timed(target, |report| report.span_ns as f64)?;
                let count = self.workload.operations.len() as f64;
                Ok(reciprocal(wall, count * 1e9))
            }
            Objective::Wall => self.timed(target, |report| report.span_ns as f64),
            Objective::LatencyP50 => self.latency(target, |report| report.latency.p50_ns),
            Objective::LatencyP95 => self.latency(target, |report| report.latency.p95_ns),
            Objective::LatencyP99 => self.latency(target, |report| report.latency.p99_ns),
            Objective::Cost | Objective::Agreement | Objective::Recall => {
                self.unchanged(objective, target)
            }
        }
    }

    fn throughput(&self, target: &BTreeMap<String, Json>) -> Result<Estimate, Unknown> {
        let ingests = self.predictor.ingests(target)?;
        let sum = |of: fn(&Estimate) -> f64| ingests.iter().map(of).sum::<f64>();
        let all =
            Estimate { estimate: sum(|e| e.estimate), low: sum(|e| e.low), high: sum(|e| e.high) };
        Ok(reciprocal(all, self.source.chunks() as f64 * 1e9))
    }

    /// What virtual time gives, with ingests as the cost model has them.
    fn timed(
        &self,
        target: &BTreeMap<String, Json>,
        of: fn(&SimulatedReport) -> f64,
    ) -> Result<Estimate, Unknown> {
        self.need_recorded_queries(target)?;
        let ingests =
            if self.workload.has("ingest") { self.predictor.ingests(target)? } else { Vec::new() };
        // Without an ingest the same times are played again, and only chance is left.
        let chance = |factor: f64| if ingests.is_empty() { factor } else { 1.0 };
        let run = |end: fn(&Estimate) -> f64| {
            let mut workload = self.workload.clone();
            let operations = workload.operations.iter_mut().filter(|op| op.kind == "ingest");
            for (operation, estimate) in operations.zip(&ingests) {
                operation.recorded_duration_ns = end(estimate).round() as i64;
            }
            let found = simulate(&workload, &Model::recorded(), self.arrival, Detail::Requests);
            found
                .map(|found| of(&found.report()))
                .map_err(|error| Unknown::never(error.to_string()))
        };
        Ok(Estimate {
            estimate: run(|e| e.estimate)?,
            low: run(|e| e.low)? / chance(CHANCE),
            high: run(|e| e.high)? * chance(CHANCE),
        })
    }

    /// Latency of requests, without ingests.
    fn latency(
        &self,
        target: &BTreeMap<String, Json>,
        of: fn(&SimulatedReport) -> i64,
    ) -> Result<Estimate, Unknown> {
        self.need_recorded_queries(target)?;
        let mut only = self.workload.clone();
        // Requests wait for the end of an ingest and are due then, however long it takes.
        only.operations.retain(|operation| operation.kind != "ingest");
        only.settle();
        let found = simulate(&only, &Model::recorded(), self.arrival, Detail::Requests);
        let estimate = found
            .map(|found| of(&found.report()))
            .map_err(|error| Unknown::never(error.to_string()))?;
        let estimate = estimate as f64;
        Ok(Estimate { estimate, low: estimate / CHANCE, high: estimate * CHANCE })
    }

    /// What stays as it was recorded, because the changed settings do not reach it.
    fn unchanged(
        &self,
        objective: Objective,
        target: &BTreeMap<String, Json>,
    ) -> Result<Estimate, Unknown> {
        for change in closure::changes(&self.source.settings, target, true) {
            let stages: &[&str] = match objective {
                Objective::Cost => &closure::STAGES,
                _ => &["embed", "embed_query", "retrieve", "rerank"],
            };
            let is_content =
                |stage: &&str| closure::reach_of(&change.name, stage) == Some(Reach::Content);
            if stages.iter().any(is_content) {
                return Err(Unknown::never(format!("{} changes what it depends on", change.name)));
            }
        }
        let value = measure(objective, self.source, self.known);
        let estimate =
            value.ok_or_else(|| Unknown::never(format!("the recorded run has no {objective}")))?;
        Ok(Estimate { estimate, low: estimate, high: estimate })
    }

    fn need_recorded_queries(&self, target: &BTreeMap<String, Json>) -> Result<(), Unknown> {
        if self.source.queries.is_empty() {
            return Ok(());
        }
        for change in closure::changes(&self.source.settings, target, true) {
            for stage in ["embed_query", "retrieve", "rerank", "llm"] {
                if closure::reach_of(&change.name, stage).is_some() {
                    return Err(Unknown::never(format!(
                        "{} changes requests, which was not seen",
                        change.name
                    )));
                }
            }
        }
        Ok(())
    }
}

/// `count / time`, the ends changing places.
fn reciprocal(time: Estimate, count: f64) -> Estimate {
    Estimate { estimate: count / time.estimate, low: count / time.high, high: count / time.low }
}

/// Two executions of the same differ by less than this factor, nineteen times in twenty, where one
/// run varies by 15 %: `exp(1.96 x 0.15 x sqrt(2))`.
const CHANCE: f64 = 1.516;

#[cfg(test)]
mod tests {
    use retake_schemas::settings::RagSettings;

    use super::*;
    use crate::cost::{QueryRecord, Range};
    use crate::target::Operation;

    /// Scenario: four requests of 10, 20, 30 and 40 ms, one at a time; settings that reach them and
    /// settings that do not.
    /// Guarantees: what is not reached is played again; what is, is refused with the setting's name.
    #[test]
    fn requests_that_no_setting_reaches_take_what_they_took() {
        let operation = |index: u64| Operation {
            index,
            kind: "query".to_owned(),
            recorded_duration_ns: 10_000_000 * (index.cast_signed() + 1),
            ..Operation::default()
        };
        let workload =
            Workload { operations: (0..4).map(operation).collect(), ..Workload::default() };
        let settings = RagSettings::default();
        let query = QueryRecord { is_ok: true, ..QueryRecord::default() };
        let source = Observed {
            settings: settings.recordable(),
            queries: vec![query; 4],
            ..Observed::default()
        };
        let predictions = Predictions {
            predictor: &Predictor::new(&source, &[], Range::Seen, 1),
            workload: &workload,
            arrival: Arrival::Closed { concurrency: 1 },
            source: &source,
            known: &Known::default(),
        };
        let with = |set: &[&str]| {
            let mut settings = settings.clone();
            set.iter().for_each(|change| settings.set(change).unwrap());
            settings.recordable()
        };
        let wall = predictions.predict(Objective::Wall, &with(&["workers=5"])).unwrap();
        assert_eq!(wall.estimate, 100e6);
        assert!(wall.low < 100e6 && wall.high > 100e6);
        let throughput = predictions.predict(Objective::Throughput, &with(&[])).unwrap();
        assert!((throughput.estimate - 40.0).abs() < 1e-9, "{throughput:?}");
        let p50 = predictions.predict(Objective::LatencyP50, &with(&[])).unwrap();
        assert_eq!(p50.estimate, 20e6);
        for reached in ["retrieve.top_k=2", "synthesize.max_tokens=7", "limits.concurrency=1"] {
            let error =
                predictions.predict(Objective::Wall, &with(&[reached])).unwrap_err().to_string();
            assert!(error.contains(reached.split('=').next().unwrap()), "{error}");
        }
        assert!(predictions.predict(Objective::Cost, &with(&[])).is_err(), "nothing has a price");
        assert!(predictions.predict(Objective::Agreement, &with(&["retrieve.top_k=2"])).is_err());
    }
}
