//! What do some traces have in common that others do not?

use arrow::datatypes::DataType::{Float64, Int64, Utf8};

use super::arguments::Arguments;
use super::columns::{floats, ints, texts};
use super::computed::Answer;
use super::{Definition, FunctionDoc};
use crate::bubble_up::{self, Lift};

pub(super) const BUBBLE_UP: Definition = Definition {
    doc: FunctionDoc {
        call: "bubble_up(runs, condition)",
        doc: "What distinguishes the traces that satisfy a condition over `trace_summary` from the \
              others: one row per attribute and value, the share of traces with it on either side, and \
              their difference, largest first. Attributes with more than 1,000 values (ids) are left out.",
        example: "SELECT * FROM bubble_up('last', 'duration_ns > 1e9') LIMIT 10",
    },
    prepare: bubble_up,
};

fn bubble_up(arguments: &Arguments) -> Result<Answer, String> {
    arguments.at_most(2)?;
    let runs = arguments.text(0, "the run")?;
    let condition = arguments.text(1, "the condition")?;
    Ok(Answer::of(
        &[
            ("attribute", Utf8),
            ("value", Utf8),
            ("selected_share", Float64),
            ("other_share", Float64),
            ("difference", Float64),
            ("selected", Int64),
            ("others", Int64),
        ],
        (runs, condition),
        move |analyzer, (runs, condition)| async move {
            let runs = analyzer.select_set(&runs)?;
            let rows = bubble_up::bubble_up(&analyzer, &runs, &condition).await?.lifts;
            Ok(vec![
                texts(rows.iter().map(|row| row.attribute.clone())),
                texts(rows.iter().map(|row| row.value.clone())),
                floats(rows.iter().map(|row| row.selected_share)),
                floats(rows.iter().map(|row| row.other_share)),
                floats(rows.iter().map(Lift::difference)),
                ints(rows.iter().map(|row| row.selected as i64)),
                ints(rows.iter().map(|row| row.others as i64)),
            ])
        },
    ))
}
