//! Stacks of stages, folded.

use std::collections::BTreeMap;

use arrow::datatypes::DataType::{Int64, Utf8};

use super::arguments::Arguments;
use super::columns::{ints, texts};
use super::computed::Answer;
use super::{Definition, FunctionDoc};
use crate::assemble::{Wanted, visit_traces};
use crate::trace::times;

pub(super) const FLAMEGRAPH: Definition = Definition {
    doc: FunctionDoc {
        call: "flamegraph(run)",
        doc: "One row per path of stages from the root (`query;retrieve;search`): spans and self time, \
              ns. `stack` and `self_ns` are the folded lines that flame graph tools read.",
        example: "SELECT stack, self_ns FROM flamegraph('last') ORDER BY self_ns DESC",
    },
    prepare: flamegraph,
};

fn flamegraph(arguments: &Arguments) -> Result<Answer, String> {
    arguments.at_most(1)?;
    let run = arguments.text(0, "the run")?;
    Ok(Answer::of(
        &[("stack", Utf8), ("spans", Int64), ("self_ns", Int64)],
        run,
        move |analyzer, run| async move {
            let run_id = analyzer.select(&run)?;
            let mut found: BTreeMap<String, (i64, i64)> = BTreeMap::new();
            visit_traces(&analyzer, &run_id, Wanted::TIMES, |trace| {
                let times = times(&trace.forest);
                let mut stacks: Vec<String> = vec![String::new(); trace.spans.len()];
                for index in trace.forest.preorder() {
                    let Some(span) = trace.spans.get(*index) else { continue };
                    // The separator of folded lines must not come from a name.
                    let stage = trace.texts.text(span.stage).replace([';', '\n'], " ");
                    let above = trace.forest.parent(*index).and_then(|p| stacks.get(p));
                    let stack = match above {
                        // A trace as deep as it is long must not cost its square.
                        Some(above) if above.len() > STACK_BYTES_MAX => above.clone(),
                        Some(above) => format!("{above};{stage}"),
                        None => stage,
                    };
                    let own = found.entry(stack.clone()).or_default();
                    own.0 += 1;
                    own.1 += times.self_ns.get(*index).copied().unwrap_or(0);
                    if let Some(slot) = stacks.get_mut(*index) {
                        *slot = stack;
                    }
                }
                Ok(())
            })
            .await?;
            Ok(vec![
                texts(found.keys().cloned()),
                ints(found.values().map(|(spans, _)| *spans)),
                ints(found.values().map(|(_, self_ns)| *self_ns)),
            ])
        },
    ))
}

/// Deeper stacks end here.
const STACK_BYTES_MAX: usize = 4096;
