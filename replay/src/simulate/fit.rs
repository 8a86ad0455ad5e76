//! A model of a service out of what was recorded of it, and how far it is off.
//!
//! Times are those of calls as they were, with whatever waiting they held: a recording of a busy
//! service gives a model of a busy service. What two calls do to each other is not in it; slots are
//! for whoever knows them to say.

use std::collections::HashMap;

use serde::Serialize;

use super::engine::{Detail, SimulateError, simulate};
use super::model::{Model, Service, StageModel};
use super::result::Quantiles;
use crate::arrival::Arrival;
use crate::cost::{CallFit, fit};
use crate::workload::Workload;

/// A model that was fitted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fitted {
    /// The model, one stage.
    pub model: Model,
    /// Calls it is fitted from.
    pub calls: u64,
    /// What its time depends on, in words.
    pub formula: String,
    /// Lengths that were seen, smallest and largest: input and output, tokens.
    pub seen_input_tokens: Option<[u64; 2]>,
    /// The same of output.
    pub seen_output_tokens: Option<[u64; 2]>,
    /// What could not be told, in words.
    pub notes: Vec<String>,
    /// Median size of the relative error of a call that the fit did not see: it is made of every
    /// second call and held against the others, and the other way round.
    pub error_median: Option<f64>,
}

/// Why nothing can be fitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FitError {
    /// Operations of one kind take the time of one model.
    #[error(
        "fit a model: the workload has operations of several kinds ({0}); take one: --kind NAME"
    )]
    SeveralKinds(String),
    /// Too little was recorded.
    #[error(
        "fit a model: {0} operations have a recorded duration; at least {CALLS_MIN} are needed"
    )]
    TooFew(u64),
}

/// One call.
#[derive(Debug, Clone, Copy)]
struct Call {
    input: Option<u64>,
    output: Option<u64>,
    duration_ns: i64,
    first_ns: Option<i64>,
}

/// Fits a stage of this name to a workload of one kind of operation. `first_token_ns` has, by
/// position, when the first token of an operation came after its start, where that was recorded.
///
/// # Errors
/// See [`FitError`].
pub fn fit_model(
    workload: &Workload,
    first_token_ns: &HashMap<u64, i64>,
    stage: &str,
    slots: Option<u32>,
) -> Result<Fitted, FitError> {
    let kinds = workload.stats().kinds;
    if kinds.len() > 1 {
        let names: Vec<_> = kinds.keys().map(String::as_str).collect();
        return Err(FitError::SeveralKinds(names.join(", ")));
    }
    let operations = workload.operations.iter().filter(|op| op.recorded_duration_ns > 0);
    let calls: Vec<Call> = operations
        .map(|operation| Call {
            input: operation.shape.tokens_in,
            output: operation.shape.tokens_out,
            duration_ns: operation.recorded_duration_ns,
            first_ns: first_token_ns.get(&operation.index).copied(),
        })
        .collect();
    if calls.len() < CALLS_MIN {
        return Err(FitError::TooFew(calls.len() as u64));
    }
    let mut notes = Vec::new();
    let service = service_of(&calls, &mut notes);
    let range = |of: fn(&Call) -> Option<u64>| {
        let seen = || calls.iter().filter_map(of);
        Some([seen().min()?, seen().max()?])
    };
    let stage = StageModel { stage: stage.to_owned(), slots, queue_max: None, service };
    Ok(Fitted {
        formula: formula(service),
        model: Model { schema_version: 1, stages: vec![stage] },
        calls: calls.len() as u64,
        seen_input_tokens: range(|call| call.input),
        seen_output_tokens: range(|call| call.output),
        notes,
        error_median: cross_validated(&calls),
    })
}

/// `base + a * input` until the first token, and a time for each one after it, as far as the calls
/// tell them apart.
fn service_of(calls: &[Call], notes: &mut Vec<String>) -> Service {
    let streamed = || calls.iter().filter(|call| call.first_ns.is_some() && call.output.is_some());
    let (mut input_token_ns, mut output_token_ns) = (0.0, 0.0);
    let base_ns;
    if streamed().count() * 2 >= calls.len() {
        let gaps = streamed().filter_map(|call| {
            let (first_ns, output) = (call.first_ns?, call.output?.checked_sub(1)?);
            (output > 0).then(|| (call.duration_ns - first_ns).max(0) as f64 / output as f64)
        });
        output_token_ns = median(gaps.collect()).unwrap_or(0.0);
        let firsts = streamed().filter_map(|call| Some((call.input?, call.first_ns?)));
        (base_ns, input_token_ns) = line(firsts, "input", notes);
        if base_ns == 0.0 && input_token_ns == 0.0 {
            notes.push("no call says how many input tokens it had".to_owned());
        }
    } else if calls.iter().filter(|call| call.output.is_some()).count() * 2 >= calls.len() {
        let whole = calls.iter().filter_map(|call| Some((call.output?, call.duration_ns)));
        (base_ns, output_token_ns) = line(whole, "output", notes);
        notes
            .push("no first tokens were recorded: the whole time goes by output tokens".to_owned());
    } else {
        base_ns = median(calls.iter().map(|call| call.duration_ns as f64).collect()).unwrap_or(0.0);
        notes.push("no lengths were recorded: every call takes the median time".to_owned());
    }
    Service::Linear { base_ns, input_token_ns, output_token_ns }
}

/// `a + b * tokens`; without a slope, said, where the calls are too alike to tell.
fn line(points: impl Iterator<Item = (u64, i64)>, of: &str, notes: &mut Vec<String>) -> (f64, f64) {
    let points: Vec<(f64, f64)> = points.map(|(tokens, ns)| (tokens as f64, ns as f64)).collect();
    match fit(&points, SEED) {
        Some(CallFit { base_ns, per_item_ns, is_identified: true, .. }) => (base_ns, per_item_ns),
        Some(found) => {
            notes.push(format!(
                "lengths of {of} are too alike ({} different ones) to tell what a token adds",
                found.sizes
            ));
            (median(points.iter().map(|(_, ns)| *ns).collect()).unwrap_or(0.0), 0.0)
        }
        None => (0.0, 0.0),
    }
}

/// What a call takes by a model.
fn predicted_ns(service: Service, call: &Call) -> f64 {
    match service {
        Service::Recorded => call.duration_ns as f64,
        Service::Linear { base_ns, input_token_ns, output_token_ns } => {
            let tokens = |count: Option<u64>| count.unwrap_or(0) as f64;
            base_ns
                + input_token_ns * tokens(call.input)
                + output_token_ns * (tokens(call.output) - 1.0).max(0.0)
        }
    }
}

fn cross_validated(calls: &[Call]) -> Option<f64> {
    let half = |odd: usize| -> Vec<Call> {
        let numbered = calls.iter().enumerate();
        numbered.filter(|(at, _)| at % 2 == odd).map(|(_, call)| *call).collect()
    };
    let (even, odd) = (half(0), half(1));
    let errors = [(&even, &odd), (&odd, &even)].into_iter().flat_map(|(seen, unseen)| {
        let service = service_of(seen, &mut Vec::new());
        let error =
            move |call: &Call| (predicted_ns(service, call) / call.duration_ns as f64 - 1.0).abs();
        unseen.iter().map(error).collect::<Vec<f64>>()
    });
    median(errors.collect())
}

/// A model held against a recording: latencies as they were, and as the model has them at the
/// recorded times.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Checked {
    /// Operations compared.
    pub operations: u64,
    /// As recorded.
    pub recorded: Quantiles,
    /// By the model.
    pub predicted: Quantiles,
}

impl Checked {
    /// Predicted by recorded, less 1, at the median and the 90th and 99th percentile.
    #[must_use]
    pub fn errors(&self) -> [f64; 3] {
        let error = |predicted: i64, recorded: i64| {
            if recorded == 0 { f64::NAN } else { predicted as f64 / recorded as f64 - 1.0 }
        };
        let (recorded, predicted) = (&self.recorded, &self.predicted);
        [
            error(predicted.p50_ns, recorded.p50_ns),
            error(predicted.p90_ns, recorded.p90_ns),
            error(predicted.p99_ns, recorded.p99_ns),
        ]
    }
}

/// Replays a recorded workload by a model, and compares.
///
/// # Errors
/// The model needs what the workload does not have.
pub fn check_model(workload: &Workload, model: &Model) -> Result<Checked, SimulateError> {
    let simulation = simulate(workload, model, Arrival::Open { speed: 1.0 }, Detail::Requests)?;
    let recorded: Vec<i64> = workload
        .operations
        .iter()
        .map(|operation| operation.recorded_duration_ns)
        .filter(|duration_ns| *duration_ns > 0)
        .collect();
    Ok(Checked {
        operations: recorded.len() as u64,
        recorded: Quantiles::of(recorded),
        predicted: Quantiles::of(simulation.latencies_ns()),
    })
}

fn formula(service: Service) -> String {
    let Service::Linear { base_ns, input_token_ns, output_token_ns } = service else {
        return "as recorded".to_owned();
    };
    let mut text = format!("{:.3} ms", base_ns / 1e6);
    if input_token_ns > 0.0 {
        text.push_str(&format!(" + {:.4} ms x input tokens", input_token_ns / 1e6));
    }
    if output_token_ns > 0.0 {
        text.push_str(&format!(" + {:.4} ms x (output tokens - 1)", output_token_ns / 1e6));
    }
    text
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len().checked_sub(1)? / 2).copied()
}

/// Fewer say nothing about what they were not.
const CALLS_MIN: usize = 8;
/// Of the resamples of a fit, which nothing here uses.
const SEED: u64 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use crate::target::Operation;
    use crate::workload::Shape;

    /// Calls of 30 ms and 80 us an input token until the first token, 11 ms for each one after it,
    /// 3 % of noise.
    fn recorded(count: u64) -> (Workload, HashMap<u64, i64>) {
        let mut rng = Rng::new(5);
        let mut first = HashMap::new();
        let operations = (0..count)
            .map(|index| {
                let (input, output) = (100 + rng.below(3_000), 1 + rng.below(200));
                let noise = 1.0 + 0.03 * (rng.unit() - 0.5);
                let first_ns = (30e6 + 80e3 * input as f64) * noise;
                let duration_ns = first_ns + 11e6 * (output - 1) as f64 * noise;
                first.insert(index, first_ns as i64);
                Operation {
                    index,
                    kind: "chat".to_owned(),
                    due_ns: index as i64 * 50_000_000,
                    recorded_duration_ns: duration_ns as i64,
                    shape: Shape {
                        tokens_in: Some(input),
                        tokens_out: Some(output),
                        ..Shape::default()
                    },
                    ..Operation::default()
                }
            })
            .collect();
        (Workload { operations, stamp_resolution_ns: 1, ..Workload::default() }, first)
    }

    /// Scenario: a service that streams, recorded with and without the arrival of first tokens, and
    /// with nothing but durations.
    /// Guarantees: the coefficients come out; what cannot be told is said; a replay by the model is as
    /// long as the recording, within 3 % at the median.
    #[test]
    fn a_service_is_fitted_as_far_as_it_was_recorded() {
        let (workload, first) = recorded(300);
        let fitted = fit_model(&workload, &first, "llm", None).unwrap();
        let Service::Linear { base_ns, input_token_ns, output_token_ns } =
            fitted.model.stages[0].service
        else {
            panic!("{fitted:?}")
        };
        assert!((base_ns / 30e6 - 1.0).abs() < 0.1, "{base_ns}");
        assert!((input_token_ns / 80e3 - 1.0).abs() < 0.05, "{input_token_ns}");
        assert!((output_token_ns / 11e6 - 1.0).abs() < 0.02, "{output_token_ns}");
        assert!(fitted.error_median.unwrap() < 0.03 && fitted.notes.is_empty(), "{fitted:?}");
        let checked = check_model(&workload, &fitted.model).unwrap();
        assert!(checked.errors()[0].abs() < 0.03, "{checked:?}");

        let without = fit_model(&workload, &HashMap::new(), "llm", None).unwrap();
        assert!(without.notes.iter().any(|note| note.contains("no first tokens")), "{without:?}");
        let mut bare = workload.clone();
        bare.operations.iter_mut().for_each(|operation| operation.shape = Shape::default());
        let bare = fit_model(&bare, &HashMap::new(), "llm", Some(4)).unwrap();
        assert!(bare.notes.iter().any(|note| note.contains("no lengths")), "{bare:?}");
        assert_eq!(bare.model.stages[0].slots, Some(4));
    }

    #[test]
    fn what_cannot_be_fitted_is_said() {
        let (mut workload, first) = recorded(20);
        let few = Workload { operations: workload.operations[..3].to_vec(), ..workload.clone() };
        assert_eq!(fit_model(&few, &first, "llm", None), Err(FitError::TooFew(3)));
        workload.operations[0].kind = "embeddings".to_owned();
        let several = fit_model(&workload, &first, "llm", None).unwrap_err();
        assert!(several.to_string().contains("chat, embeddings"), "{several}");
        for operation in &mut workload.operations {
            operation.kind = "chat".to_owned();
            operation.shape.tokens_in = Some(500);
        }
        let alike = fit_model(&workload, &first, "llm", None).unwrap();
        assert!(alike.notes[0].contains("too alike"), "{alike:?}");
    }
}
