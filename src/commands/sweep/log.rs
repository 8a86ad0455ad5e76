//! The sweep's own run: what was predicted, before it was measured, and what was measured.
//!
//! It holds no spans. Its measures are what the SQL view `prediction_log` reads, and as they are
//! journalled in order, nobody can predict afterwards.

use retake_recorder::recorder::Recorder;
use retake_recorder::{RecorderBuilder, Store};
use retake_replay::sweep::Point;
use retake_schemas::event::{EventBody, Measured, RunStatus};
use retake_schemas::{Attributes, Digest, RunId, convention};

use super::outcome::{Measurement, Predicted, Row};
use super::subject::Subject;
use crate::cli::Sweep;
use crate::commands::rag;
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::recording::warn_of_losses;

/// The recorder of a sweep.
pub(super) struct SweepLog {
    recorder: Recorder,
    run_id: RunId,
    dispatcher: retake_recorder::Dispatcher,
}

impl SweepLog {
    pub(super) fn start(
        context: &Context,
        store: &Store,
        args: &Sweep,
        subject: &Subject,
        (how, resumes): (Digest, Option<&RunId>),
    ) -> Result<Self, Failure> {
        let source = subject.source();
        let name = args.name.clone().unwrap_or_else(|| format!("sweep of {source}"));
        let mut labels = rag::labels(&args.label)?;
        labels.insert(SOURCE_LABEL.to_owned(), source);
        labels.insert(GRID_LABEL.to_owned(), args.set.join(" "));
        labels.insert(HOW_LABEL.to_owned(), how.to_string());
        if let Some(resumes) = resumes {
            labels.insert(convention::RESUMES_LABEL.to_owned(), resumes.to_string());
        }
        let recorder = RecorderBuilder::new(name, "retake-sweep")
            .service_version(env!("CARGO_PKG_VERSION"))
            .record_settings(context.config.settings.record.clone())
            .settings(subject.recorded_settings())
            .seed(args.seed)
            .labels(labels)
            .start(store)?;
        let (run_id, dispatcher) = (recorder.run_id().clone(), recorder.dispatcher().clone());
        Ok(Self { recorder, run_id, dispatcher })
    }

    pub(super) fn run_id(&self) -> &RunId {
        &self.run_id
    }

    /// Writes down what every row is predicted to come to, safe from a kill before it returns.
    pub(super) fn predicted(&self, rows: &[Row]) -> Result<(), Failure> {
        for row in rows {
            for (objective, predicted) in &row.predicted {
                let Predicted::As(estimate) = predicted else { continue };
                let mut attributes = common(&row.point, objective.as_str());
                attributes.push((convention::SWEEP_LOW.into(), estimate.low.into()));
                attributes.push((convention::SWEEP_HIGH.into(), estimate.high.into()));
                let (name, unit) = (convention::MEASURE_PREDICTED, objective.unit());
                self.emit(name, unit, estimate.estimate, attributes)?;
            }
        }
        let _ = self.recorder.flush()?;
        Ok(())
    }

    /// Writes down what a replay came to.
    pub(super) fn measured(&self, point: &Point, measured: &Measurement) -> Result<(), Failure> {
        for (objective, value) in &measured.values {
            let mut attributes = common(point, objective.as_str());
            attributes.push((convention::SWEEP_REPLAY.into(), measured.run_id.as_str().into()));
            let block = i64::try_from(measured.block).unwrap_or(i64::MAX);
            attributes.push((convention::SWEEP_BLOCK.into(), block.into()));
            self.emit(convention::MEASURE_MEASURED, objective.unit(), *value, attributes)?;
        }
        Ok(())
    }

    fn emit(
        &self,
        name: &str,
        unit: &str,
        value: f64,
        attributes: Attributes,
    ) -> Result<(), Failure> {
        let sample = Measured { name: name.to_owned(), unit: unit.to_owned(), value, attributes };
        match self.dispatcher.emit(&EventBody::Measured(sample)) {
            retake_recorder::journal::Offered::Accepted => Ok(()),
            other => {
                let message = format!("record what was predicted or measured: {other:?}");
                Err(Failure::new(Code::Environment, message))
            }
        }
    }

    pub(super) fn finish(self, context: &Context, status: RunStatus) {
        warn_of_losses(context, &self.recorder.finish(status));
    }
}

fn common(point: &Point, metric: &str) -> Attributes {
    vec![
        (convention::SWEEP_SETTING.into(), point.label.as_str().into()),
        (convention::SWEEP_METRIC.into(), metric.to_owned().into()),
    ]
}

/// Label of a sweep's run: the run it replays.
pub(super) const SOURCE_LABEL: &str = "retake.sweep.of";
/// Label of a sweep's run: digest of its options, for whoever goes on with it.
pub(super) const HOW_LABEL: &str = "retake.sweep.how";
/// Label of a sweep's run: its grid as it was written.
const GRID_LABEL: &str = "retake.sweep.grid";
