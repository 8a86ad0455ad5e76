//! What if a stage were faster?

use arrow::datatypes::DataType::{Float64, Utf8};

use super::arguments::Arguments;
use super::columns::{floats, texts};
use super::computed::Answer;
use super::{Definition, FunctionDoc};
use crate::assemble::{Wanted, visit_traces};
use crate::trace::wall_with;

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

fn what_if(arguments: &Arguments) -> Result<Answer, String> {
    arguments.at_most(2)?;
    let run = arguments.text(0, "the run")?;
    let changes = parse(&arguments.text(1, "the change, such as 'llm*0.5',")?)?;
    Ok(Answer::of(
        &[("measure", Utf8), ("before_ns", Float64), ("after_ns", Float64), ("change", Float64)],
        (run, changes),
        move |analyzer, (run, changes)| async move {
            let run_id = analyzer.select(&run)?;
            let (mut before, mut after) = (Vec::new(), Vec::new());
            visit_traces(&analyzer, &run_id, Wanted::TIMES, |trace| {
                let factor = |stage: &str| {
                    changes.iter().find(|(name, _)| name == stage).map_or(1.0, |(_, f)| *f)
                };
                let factors: Vec<f64> =
                    trace.spans.iter().map(|span| factor(trace.texts.text(span.stage))).collect();
                before.push(trace.forest.wall_ns() as f64);
                after.push(wall_with(&trace.forest, &factors));
                Ok(())
            })
            .await?;
            let rows: Vec<(&str, Option<f64>, Option<f64>)> = MEASURES
                .iter()
                .map(|(name, percent)| {
                    (*name, measure(&mut before, *percent), measure(&mut after, *percent))
                })
                .collect();
            let change = |before: Option<f64>, after: Option<f64>| {
                Some(after? / before.filter(|before| *before > 0.0)? - 1.0)
            };
            Ok(vec![
                texts(rows.iter().map(|(name, ..)| (*name).to_owned())),
                floats(rows.iter().map(|(_, before, _)| *before)),
                floats(rows.iter().map(|(.., after)| *after)),
                floats(rows.iter().map(|(_, before, after)| change(*before, *after))),
            ])
        },
    ))
}

/// `STAGE*FACTOR`, separated by commas.
fn parse(text: &str) -> Result<Vec<(String, f64)>, String> {
    let one = |part: &str| {
        let expected = || format!("{part:?}: write STAGE*FACTOR, such as llm*0.5");
        let (stage, factor) = part.rsplit_once('*').ok_or_else(expected)?;
        let factor: f64 = factor.trim().parse().map_err(|_| expected())?;
        match (0.0..=1000.0).contains(&factor) && !stage.trim().is_empty() {
            true => Ok((stage.trim().to_owned(), factor)),
            false => Err(expected()),
        }
    };
    text.split(',').map(str::trim).map(one).collect()
}

/// The mean (no percentile), or the percentile by nearest rank; `None` of nothing.
fn measure(values: &mut [f64], percent: Option<usize>) -> Option<f64> {
    // Before the mean too: a sum of floats depends on their order.
    values.sort_unstable_by(f64::total_cmp);
    let Some(percent) = percent else {
        return (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64);
    };
    let rank = (values.len() * percent).div_ceil(100).max(1);
    values.get(rank - 1).copied()
}

const MEASURES: [(&str, Option<usize>); 4] =
    [("mean", None), ("p50", Some(50)), ("p95", Some(95)), ("p99", Some(99))];
