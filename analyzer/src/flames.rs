//! Traces laid over each other: one row per path of stages from the root.

use std::collections::BTreeMap;

use retake_schemas::RunId;

use crate::assemble::{Wanted, visit_traces};
use crate::error::AnalyzeError;
use crate::model::Flame;
use crate::session::Analyzer;
use crate::trace::times;

/// What stands between the stages of a path; a stage that holds it shows a space instead.
pub(crate) const SEPARATOR: char = ';';

/// Every path of stages in a run, by name; a path comes after the one it extends.
///
/// Attributed wall times sum to the wall time of the run's traces, less the times at which no span
/// was active; so a picture whose widths are wall times adds up, whatever ran in parallel.
///
/// # Errors
/// The run is not in scope, or a file is damaged.
pub(crate) async fn flames(
    analyzer: &Analyzer,
    run_id: &RunId,
) -> Result<Vec<Flame>, AnalyzeError> {
    let mut found: BTreeMap<String, Flame> = BTreeMap::new();
    visit_traces(analyzer, run_id, Wanted::TIMES, |trace| {
        let times = times(&trace.forest);
        let of = |times: &[i64], index: usize| times.get(index).copied().unwrap_or(0);
        let mut stacks: Vec<String> = vec![String::new(); trace.spans.len()];
        for &index in trace.forest.preorder() {
            let Some(span) = trace.spans.get(index) else { continue };
            // The separator of folded lines must not come from a name.
            let stage = trace.texts.text(span.stage).replace([SEPARATOR, '\n'], " ");
            let above = trace.forest.parent(index).and_then(|parent| stacks.get(parent));
            let stack = match above {
                // A trace as deep as it is long must not cost its square.
                Some(above) if above.len() > STACK_BYTES_MAX => above.clone(),
                Some(above) => format!("{above}{SEPARATOR}{stage}"),
                None => stage,
            };
            let flame = found.entry(stack.clone()).or_default();
            flame.spans += 1;
            flame.self_ns = flame.self_ns.saturating_add(of(&times.self_ns, index));
            flame.wall_ns = flame.wall_ns.saturating_add(of(&times.wall_ns, index));
            if let Some(slot) = stacks.get_mut(index) {
                *slot = stack;
            }
        }
        Ok(())
    })
    .await?;
    let named = |(stack, flame): (String, Flame)| Flame { stack, ..flame };
    Ok(found.into_iter().map(named).collect())
}

/// Deeper paths end here.
const STACK_BYTES_MAX: usize = 4096;
