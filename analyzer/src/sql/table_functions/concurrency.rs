//! How many spans of a stage run at once.

use std::collections::BTreeMap;

use arrow::datatypes::DataType::{Float64, Int64};

use super::arguments::Arguments;
use super::columns::{floats, ints};
use super::computed::Answer;
use super::{Definition, FunctionDoc};
use crate::assemble::{Wanted, visit_traces};

pub(super) const CONCURRENCY: Definition = Definition {
    doc: FunctionDoc {
        call: "concurrency(run[, stage])",
        doc: "For how long how many spans of a stage (without one: roots of traces) were open at once: \
              one row per number, with the time, ns, and its share of the time from the first start to \
              the last end.",
        example: "SELECT * FROM concurrency('last', 'llm') ORDER BY active",
    },
    prepare: concurrency,
};

fn concurrency(arguments: &Arguments) -> Result<Answer, String> {
    arguments.at_most(2)?;
    let (run, stage) = (arguments.text(0, "the run")?, arguments.optional_text(1)?);
    Ok(Answer::of(
        &[("active", Int64), ("wall_ns", Int64), ("share", Float64)],
        (run, stage),
        move |analyzer, (run, stage)| async move {
            let run_id = analyzer.select(&run)?;
            let mut edges: Vec<(i64, i64)> = Vec::new();
            visit_traces(&analyzer, &run_id, Wanted::TIMES, |trace| {
                for (index, span) in trace.spans.iter().enumerate() {
                    let is_wanted = match &stage {
                        Some(stage) => trace.texts.text(span.stage) == stage,
                        None => trace.forest.parent(index).is_none(),
                    };
                    if is_wanted && span.duration_ns > 0 {
                        edges.push((span.start_unix_ns, 1));
                        edges.push((span.start_unix_ns.saturating_add(span.duration_ns), -1));
                    }
                }
                Ok(())
            })
            .await?;
            let levels = levels(edges);
            let whole: i64 = levels.values().sum();
            Ok(vec![
                ints(levels.keys().copied()),
                ints(levels.values().copied()),
                floats(levels.values().map(|ns| *ns as f64 / whole as f64)),
            ])
        },
    ))
}

/// Time by number of open spans. An end at the moment of a start comes first.
fn levels(mut edges: Vec<(i64, i64)>) -> BTreeMap<i64, i64> {
    edges.sort_unstable();
    let mut levels: BTreeMap<i64, i64> = BTreeMap::new();
    let (mut active, mut last) = (0, None);
    for (at, change) in edges {
        if let Some(last) = last.filter(|last| at > *last) {
            *levels.entry(active).or_default() += at - last;
        }
        active += change;
        last = Some(at);
    }
    levels
}

#[cfg(test)]
mod tests {
    use super::levels;

    #[test]
    fn time_is_counted_by_how_many_were_open() {
        // 0..10, 5..20, and after a gap 30..40.
        let edges = vec![(0, 1), (10, -1), (5, 1), (20, -1), (30, 1), (40, -1)];
        let found: Vec<(i64, i64)> = levels(edges).into_iter().collect();
        assert_eq!(found, [(0, 10), (1, 5 + 10 + 10), (2, 5)]);
        assert!(levels(Vec::new()).is_empty());
    }
}
