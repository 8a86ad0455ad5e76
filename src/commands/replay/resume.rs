//! `--resume`: the rest of a replay whose process died or was ended.

use std::collections::HashMap;

use retake_recorder::{RunReader, Store};
use retake_replay::workload::Workload;
use retake_schemas::RunId;
use retake_schemas::event::RunStatus;
use retake_schemas::tables::SpanRow;
use serde_json::Value as Json;

use crate::context::Context;
use crate::failure::{Code, Failure};

/// A replay that is gone on with.
#[derive(Debug, Clone)]
pub(crate) struct Resumed {
    /// The replay that did not come to its end.
    pub(crate) run_id: RunId,
    /// Operations that it did.
    pub(crate) done: u64,
    /// Its settings, which hold for the rest too.
    pub(crate) settings: std::collections::BTreeMap<String, Json>,
}

/// What is left of a workload after the replay that `selector` names. An operation that failed there
/// is done again, and so is an ingest that later operations need: what it wrote is gone.
pub(super) fn rest(
    context: &Context,
    store: &Store,
    workload: Workload,
    selector: &str,
) -> Result<(Workload, Resumed), Failure> {
    let run_id = context.select(store, selector)?;
    let refuse =
        |reason: &str| Err(Failure::new(Code::Usage, format!("resume replay {run_id}: {reason}")));
    if store.is_live(&run_id) {
        return refuse("it is still running");
    }
    let reader = RunReader::open(store, &run_id)?;
    let manifest = reader.manifest();
    if manifest.facts.replay_of.is_none() || manifest.facts.replay_of != workload.source_run {
        return refuse("it is no replay of this run");
    }
    if manifest.facts.workload != Some(workload.digest()) {
        return refuse(
            "it replayed another workload; give the same --arrival, --stamps and --seed as it had",
        );
    }
    if manifest.status == RunStatus::Finished {
        return refuse("it came to its end");
    }
    let mut done: HashMap<(String, String), u64> = HashMap::new();
    for span in reader.rows::<SpanRow>()? {
        let is_done = span.parent_span_id.is_none() && span.status == "ok";
        if let (true, Some(trace), Some(id)) = (is_done, span.source_trace_id, span.source_span_id)
        {
            *done.entry((trace, id)).or_default() += 1;
        }
    }
    let settings = manifest.facts.settings.clone();
    let planned = workload.operations.len() as u64;
    let rest = workload.without(&done);
    let done = planned - rest.operations.len() as u64;
    Ok((rest, Resumed { run_id, done, settings }))
}
