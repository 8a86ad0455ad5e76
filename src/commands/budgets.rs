//! Budget files, and the runs that deciding them takes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use retake_analyzer::check::{Budgets, HISTORY_MAX};
use retake_recorder::Store;
use retake_recorder::store::select_set_among;
use retake_schemas::RunId;

use crate::config;
use crate::failure::{Code, Failure};

/// The budget file that was named, or the one found from here upward.
pub(super) fn path(named: Option<&Path>) -> Option<PathBuf> {
    named.map(Path::to_path_buf).or_else(|| config::found_upward("budgets.toml"))
}

/// Reads a budget file.
pub(super) fn read(path: &Path) -> Result<Budgets, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let code = match error.kind() {
            std::io::ErrorKind::NotFound => Code::NotFound,
            _ => Code::Environment,
        };
        Failure::new(code, format!("read budgets {}: {error}", path.display()))
            .help("`retake check --example` prints a budget file to begin with")
    })?;
    Budgets::parse(&text, path).map_err(|error| {
        Failure::new(Code::Usage, error.to_string())
            .help("`retake check --example` prints a file with a budget of every kind")
    })
}

/// The runs of each baseline that budgets name; what is not there yet is said by the budget.
pub(super) fn named(
    store: &Store,
    budgets: Option<&Budgets>,
    runs: &[RunId],
    warn: &(dyn Fn(&str) + Sync),
) -> Result<HashMap<String, Vec<RunId>>, Failure> {
    let mut named = HashMap::new();
    let texts = budgets.map_or(Vec::new(), Budgets::baselines);
    if texts.is_empty() {
        return Ok(named);
    }
    let entries = store.runs()?;
    for text in texts {
        match select_set_among(&entries, &text) {
            Ok(found) => {
                let others: Vec<RunId> =
                    found.into_iter().filter(|run| !runs.contains(run)).collect();
                if !others.is_empty() {
                    named.insert(text, others);
                }
            }
            Err(error) => warn(&error.to_string()),
        }
    }
    Ok(named)
}

/// Everything a check may look at: what is named, and where budgets look back, the runs before.
pub(super) fn scope(
    store: &Store,
    runs: &[RunId],
    baseline: &[RunId],
    named: &HashMap<String, Vec<RunId>>,
    budgets: Option<&Budgets>,
) -> Result<Vec<RunId>, Failure> {
    let mut scope: Vec<RunId> =
        runs.iter().chain(baseline).chain(named.values().flatten()).cloned().collect();
    if let (Some(budgets), Some(first)) = (budgets, runs.first()) {
        let own = store.manifest(first)?.facts;
        let of_service = store.runs()?.into_iter().rev().filter_map(|run| {
            let facts = run.manifest.ok()?.facts;
            (facts.service == own.service).then_some((run.run_id, facts.name))
        });
        if budgets.needs_history() {
            scope.extend(of_service.map(|(run_id, _)| run_id));
        } else {
            let same_name = of_service.filter(|(_, name)| *name == own.name);
            scope.extend(same_name.map(|(run_id, _)| run_id).take(HISTORY_MAX + runs.len()));
        }
    }
    scope.sort();
    scope.dedup();
    Ok(scope)
}
