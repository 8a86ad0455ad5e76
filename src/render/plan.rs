//! What a replay would do.

use retake_replay::plan::{Expected, Plan, StagePlan};
use retake_schemas::RunId;

use super::pipeline::changes;
use crate::cli::Format;
use crate::output::{inert, row, table};
use crate::units::{count, count_or_dash, duration, duration_or_dash};

/// A plan: stages with their sources, what they will take, and what is missing.
pub(crate) fn plan(plan: &Plan, source: &RunId, format: Format) -> String {
    let operations: Vec<String> =
        plan.operations.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    let mut text = format!("replay of {source}: {}\n", operations.join(", "));
    text.push_str(&changes(plan, format));
    let header = ["stage", "source", "or", "usable", "calls", "tokens in", "out", "cost", "busy"];
    let mut stages = table(format, &header, 3);
    for stage in &plan.stages {
        row(&mut stages, stage_cells(stage));
    }
    let live = ["live, in all", "", "", ""].map(str::to_owned);
    row(&mut stages, live.into_iter().chain(amounts(&plan.expected)));
    text.push_str(&format!("{stages}\n"));
    for stage in &plan.stages {
        text.push_str(&format!("  {}: {}", stage.stage, inert(&stage.reason)));
        if let Some(cutoff) = stage.cutoff {
            text.push_str(&format!(
                "; {} of {} requests provably stay the same",
                cutoff.revalidated, cutoff.of
            ));
        }
        text.push_str(&format!(" ({})\n", inert(&stage.expected.basis)));
    }
    let wall = plan.expected_wall_ns.map_or_else(
        || "not known: what the changed settings take was not seen".to_owned(),
        |wall_ns| format!("about {}", duration(wall_ns)),
    );
    text.push_str(&format!("duration: {wall}\n"));
    for missing in &plan.missing {
        text.push_str(&format!("not captured: {}\n  {}\n", inert(&missing.what), missing.help));
    }
    text
}

fn stage_cells(stage: &StagePlan) -> Vec<String> {
    let others = stage.choices.iter().filter(|choice| **choice != stage.source);
    let others: Vec<&str> = others.map(|choice| choice.as_str()).collect();
    let mut cells = vec![
        stage.stage.to_owned(),
        stage.source.as_str().to_owned(),
        others.join(", "),
        format!("{} of {}", stage.usable, stage.recorded),
    ];
    cells.extend(amounts(&stage.expected));
    cells
}

fn amounts(expected: &Expected) -> [String; 5] {
    let whole = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    [
        count(whole(expected.calls)),
        count_or_dash(expected.input_tokens.map(whole)),
        count_or_dash(expected.output_tokens.map(whole)),
        expected.cost_usd.map_or_else(|| "-".to_owned(), |usd| format!("${usd:.4}")),
        duration_or_dash(expected.busy_ns),
    ]
}
