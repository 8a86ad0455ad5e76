//! What a sweep predicts, and what it replays beforehand to be able to.

use std::collections::HashMap;

use retake_replay::cost::{Observed, Predictor, Range};
use retake_replay::sweep::predict::Predictions;
use retake_replay::workload::Workload;
use tokio_util::sync::CancellationToken;

use super::Under;
use super::log::SweepLog;
use super::outcome::{Predicted, Row};
use super::subject::Subject;
use crate::commands::replay::{OTHER_DOCUMENTS, Source};
use crate::failure::{Code, Failure};

impl Under<'_> {
    /// Makes the machine warm, and learns what the recording does not tell: where the calls of one
    /// batch size do not say what a call costs, the smallest and the largest of the grid do.
    pub(super) async fn warm_up(
        &mut self,
        log: &SweepLog,
        cancel: &CancellationToken,
    ) -> Result<(), Failure> {
        let mut first = self.to_learn_from();
        let learns = !first.is_empty();
        if !learns {
            first.push(self.base);
        }
        for row in first {
            if cancel.is_cancelled() {
                return Ok(());
            }
            let Some(point) = self.rows.get(row).map(|row| row.point.clone()) else { continue };
            let why = if learns { "learning from" } else { "warming up with" };
            self.context.say(&format!("{why} {}", point.label));
            let (run_id, observed, objection) = self.replay(&point, None, log, cancel).await?;
            if objection.as_deref() == Some(OTHER_DOCUMENTS) {
                // It would be so for every setting: nothing is gained by trying them all.
                let message = format!("sweep run {}: {OTHER_DOCUMENTS}", self.subject.source());
                return Err(Failure::new(Code::ReplayInvalid, message).help(
                    "bring them back as they were, or record again: retake rag ingest PATH --capture full",
                ));
            }
            let is_as_recorded = self.rows.get(row).is_some_and(|row| row.is_as_recorded);
            if cancel.is_cancelled() {
                // Half a replay teaches nothing.
                return Ok(());
            }
            if is_as_recorded {
                self.warm = Some(observed.clone());
            }
            if learns || is_as_recorded {
                self.calibrations.push(run_id);
                self.learnt.push(observed);
            }
        }
        self.predict();
        Ok(())
    }

    /// Makes the machine warm for what is left of a sweep; its predictions stand.
    pub(super) async fn warm_again(
        &mut self,
        log: &SweepLog,
        cancel: &CancellationToken,
    ) -> Result<(), Failure> {
        let Some(point) = self.rows.get(self.base).map(|row| row.point.clone()) else {
            return Ok(());
        };
        self.context.say(&format!("warming up with {}", point.label));
        self.replay(&point, None, log, cancel).await.map(|_| ())
    }

    fn to_learn_from(&self) -> Vec<usize> {
        let is_refused = |row: &Row| {
            row.predicted
                .values()
                .any(|p| matches!(p, Predicted::Not(unknown) if unknown.is_learnable))
        };
        let batch =
            |row: &Row| row.point.value(BATCH_SIZE).and_then(|value| value.parse::<u64>().ok());
        if !self.rows.iter().any(is_refused) {
            return Vec::new();
        }
        let sizes = || self.rows.iter().enumerate().filter_map(|(at, row)| Some((batch(row)?, at)));
        let (Some(least), Some(most)) =
            (sizes().min(), sizes().max_by_key(|(size, at)| (*size, usize::MAX - at)))
        else {
            return Vec::new();
        };
        if least.0 == most.0 { Vec::new() } else { vec![least.1, most.1] }
    }

    /// Predicts every objective of every row from all that was seen so far.
    pub(super) fn predict(&mut self) {
        let Subject::BuiltIn(source) = &self.subject else { return };
        let range = if self.args.extrapolate { Range::Any } else { Range::Seen };
        let learnt: Vec<&Observed> = self.learnt.iter().collect();
        let predictor = Predictor::new(&source.observed, &learnt, range, self.args.seed);
        let workload = self.timed_workload(source);
        let predictions = Predictions {
            predictor: &predictor,
            workload: &workload,
            arrival: source.arrival,
            source: &source.observed,
            known: &self.known,
        };
        for row in &mut self.rows {
            for objective in &self.objectives {
                let found = predictions.predict(*objective, &row.target);
                row.predicted.insert(*objective, found.into());
            }
        }
        self.calibration = predictor.recorded_calibration();
        let fits = predictor.fits().into_iter();
        self.fits = fits.map(|(stage, fit)| (stage.to_owned(), fit.clone())).collect();
    }

    /// The workload, with requests as long as in the replay that warmed up, where there was one: what
    /// was recorded ran at another time, beside other work.
    fn timed_workload(&self, source: &Source) -> Workload {
        let mut workload = Workload::clone(&source.workload);
        let Some(warm) = &self.warm else { return workload };
        let took: HashMap<&str, i64> =
            warm.queries.iter().map(|query| (query.key.as_str(), query.duration_ns)).collect();
        for operation in workload.operations.iter_mut().filter(|op| op.kind != "ingest") {
            let span = operation.source.as_ref().map(|link| link.span_id.to_string());
            if let Some(took_ns) = span.and_then(|span| took.get(span.as_str()).copied()) {
                operation.recorded_duration_ns = took_ns;
            }
        }
        workload
    }

    pub(super) fn tell_predictions(&self) {
        for (stage, fit) in &self.fits {
            self.context.say(&format!(
                "model of {stage}: {} (from {} calls, median error {:.1} %)",
                fit.formula(),
                fit.calls,
                fit.error_median * 100.0
            ));
        }
        let Some(first) = self.objectives.first() else { return };
        let refused = self.rows.iter().filter_map(|row| match row.predicted.get(first) {
            Some(Predicted::Not(unknown)) => Some(&unknown.reason),
            _ => None,
        });
        if let Some(reason) = refused.clone().next() {
            self.context.say(&format!(
                "{first} of {} of {} settings is not predicted: {reason}",
                refused.count(),
                self.rows.len()
            ));
        }
    }
}

/// The setting whose extremes a model is learnt from.
const BATCH_SIZE: &str = "embed.batch_size";
