//! Functions that give tables: the analyses as SQL.
//!
//! Each is computed when a query scans it, from the runs in scope, and its rows are few (stages,
//! traces, differences), so they are held in memory. Runs are named as on the command line:
//! `'last'`, `'nightly*5'`, `'baseline:main'`.

mod arguments;
mod columns;
mod compare;
mod computed;
mod concurrency;
mod history;
mod lift;
mod paths;
mod sketches;
mod speedup;
mod times;
mod traces;

use std::sync::Arc;

use datafusion::prelude::SessionContext;

use self::arguments::Arguments;
use self::computed::{Answer, LazyAnalyzer, TableFunction};
use super::functions::FunctionDoc;
use crate::error::AnalyzeError;
use crate::session::Analyzer;

/// A table function: how it is called, and what computes it.
struct Definition {
    doc: FunctionDoc,
    prepare: fn(&Arguments) -> Result<Answer, String>,
}

impl Definition {
    fn name(&self) -> &'static str {
        self.doc.call.split('(').next().unwrap_or(self.doc.call)
    }
}

const DEFINITIONS: &[Definition] = &[
    times::SELF_TIME,
    times::CRITICAL_PATH,
    times::QUEUE_TIME,
    traces::SLOWEST_TRACES,
    traces::TRACE_SPANS,
    paths::FLAMEGRAPH,
    concurrency::CONCURRENCY,
    compare::COMPARE_RUNS,
    compare::REGRESSIONS,
    compare::EXPLAIN_REGRESSION,
    lift::BUBBLE_UP,
    speedup::WHAT_IF,
    speedup::SPEEDUP_CURVE,
    sketches::RUN_STAGE_SKETCH,
    history::CHANGE_POINTS,
    history::BUDGET_VIOLATIONS,
];

/// The table functions, as documented.
#[must_use]
pub fn table_functions() -> Vec<FunctionDoc> {
    DEFINITIONS.iter().map(|definition| definition.doc).collect()
}

/// Makes the functions known to a context. They compute with the analyzer that `open` gives when one
/// is first scanned; its own context does not know them, so that nothing refers to itself.
pub(crate) fn register(
    context: &SessionContext,
    open: impl Fn() -> Result<Analyzer, AnalyzeError> + Send + Sync + 'static,
) {
    let analyzer = Arc::new(LazyAnalyzer::new(open));
    for definition in DEFINITIONS {
        let function = TableFunction::new(definition.name(), definition.prepare, &analyzer);
        context.register_udtf(definition.name(), Arc::new(function));
    }
}

#[cfg(test)]
mod tests;
