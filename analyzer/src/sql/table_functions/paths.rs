//! Stacks of stages, folded.

use arrow::datatypes::DataType::{Int64, Utf8};

use super::arguments::Arguments;
use super::columns::{ints, texts};
use super::computed::Answer;
use super::{Definition, FunctionDoc};
use crate::flames::flames;

pub(super) const FLAMEGRAPH: Definition = Definition {
    doc: FunctionDoc {
        call: "flamegraph(run)",
        doc: "One row per path of stages from the root (`query;retrieve;search`): spans, self time and \
              attributed wall time, ns. `stack` and `self_ns` are the folded lines that flame graph \
              tools read; `wall_ns` sums to the wall time of the traces.",
        example: "SELECT stack, self_ns FROM flamegraph('last') ORDER BY self_ns DESC",
    },
    prepare: flamegraph,
};

fn flamegraph(arguments: &Arguments) -> Result<Answer, String> {
    arguments.at_most(1)?;
    let run = arguments.text(0, "the run")?;
    Ok(Answer::of(
        &[("stack", Utf8), ("spans", Int64), ("self_ns", Int64), ("wall_ns", Int64)],
        run,
        move |analyzer, run| async move {
            let run_id = analyzer.select(&run)?;
            let found = flames(&analyzer, &run_id).await?;
            Ok(vec![
                texts(found.iter().map(|flame| flame.stack.clone())),
                ints(found.iter().map(|flame| flame.spans as i64)),
                ints(found.iter().map(|flame| flame.self_ns)),
                ints(found.iter().map(|flame| flame.wall_ns)),
            ])
        },
    ))
}
