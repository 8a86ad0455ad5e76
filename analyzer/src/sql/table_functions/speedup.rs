//! What if a stage were faster?

use arrow::datatypes::DataType::{Float64, Utf8};

use super::arguments::Arguments;
use super::columns::{floats, texts};
use super::computed::Answer;
use super::{Definition, FunctionDoc};
use crate::what_if::{self, Prediction, SpeedupPoint};

pub(super) const WHAT_IF: Definition = Definition {
    doc: FunctionDoc {
        call: "what_if(run, 'STAGE*FACTOR, …')",
        doc: "What traces would take if the own work of stages took `FACTOR` times as long (0.5 is twice \
              as fast, 0 is gone): mean and percentiles of traces, ns, before and after. Computed on the \
              recorded graph of each trace; queues and shared processors stay as they were, so a replay \
              has the last word.",
        example: "SELECT * FROM what_if('last', 'llm*0.5')",
    },
    prepare: what_if,
};

pub(super) const SPEEDUP_CURVE: Definition = Definition {
    doc: FunctionDoc {
        call: "speedup_curve(run)",
        doc: "What traces would take if one stage's own work took 0.9, 0.75, 0.5, 0.25 and 0 times as \
              long: mean and 95th percentile of traces, ns, and their relative change; the stage that \
              saves most at twice the speed first. Where the last points save no more than those before, \
              another path has become the longest.",
        example: "SELECT stage, mean_change FROM speedup_curve('last') WHERE factor = 0.5",
    },
    prepare: speedup_curve,
};

fn what_if(arguments: &Arguments) -> Result<Answer, String> {
    arguments.at_most(2)?;
    let run = arguments.text(0, "the run")?;
    let factors = what_if::parse_factors(&arguments.text(1, "the change, such as 'llm*0.5',")?)?;
    Ok(Answer::of(
        &[("measure", Utf8), ("before_ns", Float64), ("after_ns", Float64), ("change", Float64)],
        (run, factors),
        move |analyzer, (run, factors)| async move {
            let run_id = analyzer.select(&run)?;
            let rows = what_if::what_if(&analyzer, &run_id, &factors).await?;
            Ok(vec![
                texts(rows.iter().map(|row| row.measure.to_owned())),
                floats(rows.iter().map(|row| row.before_ns)),
                floats(rows.iter().map(|row| row.after_ns)),
                floats(rows.iter().map(Prediction::change)),
            ])
        },
    ))
}

fn speedup_curve(arguments: &Arguments) -> Result<Answer, String> {
    arguments.at_most(1)?;
    let run = arguments.text(0, "the run")?;
    Ok(Answer::of(
        &[
            ("stage", Utf8),
            ("factor", Float64),
            ("mean_ns", Float64),
            ("p95_ns", Float64),
            ("mean_change", Float64),
            ("p95_change", Float64),
        ],
        run,
        move |analyzer, run| async move {
            let run_id = analyzer.select(&run)?;
            let curves = what_if::speedup_curves(&analyzer, &run_id).await?;
            let rows: Vec<(&str, &SpeedupPoint)> = curves
                .iter()
                .flat_map(|curve| curve.points.iter().map(|point| (curve.stage.as_str(), point)))
                .collect();
            Ok(vec![
                texts(rows.iter().map(|(stage, _)| (*stage).to_owned())),
                floats(rows.iter().map(|(_, point)| point.factor)),
                floats(rows.iter().map(|(_, point)| point.mean_ns)),
                floats(rows.iter().map(|(_, point)| point.p95_ns)),
                floats(rows.iter().map(|(_, point)| point.mean_change)),
                floats(rows.iter().map(|(_, point)| point.p95_change)),
            ])
        },
    ))
}
