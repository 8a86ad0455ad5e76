//! `retake baseline`.

use retake_recorder::Store;
use retake_recorder::upkeep::gc::BASELINE_LABEL;
use retake_schemas::RunId;
use serde_json::json;

use super::simulated;
use crate::cli::{Baseline, BaselineAction, Format};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{print, print_json, row, table, unsupported};

pub(crate) fn run(context: &Context, args: &Baseline) -> Result<Code, Failure> {
    let store = context.store()?;
    match &args.action {
        None => list(context, &store),
        Some(BaselineAction::Set { name, runs }) => {
            checked(name)?;
            let wanted = measured(&store, runs)?;
            for run_id in members(&store, name)?.iter().filter(|run| !wanted.contains(run)) {
                put(&store, run_id, None)?;
            }
            wanted.iter().try_for_each(|run_id| put(&store, run_id, Some(name)))?;
            said(context, &store, name)
        }
        Some(BaselineAction::Add { name, runs, keep }) => {
            checked(name)?;
            for run_id in measured(&store, runs)? {
                put(&store, &run_id, Some(name))?;
            }
            let all = members(&store, name)?;
            let too_many = keep.map_or(0, |keep| all.len().saturating_sub(keep));
            all.iter().take(too_many).try_for_each(|run_id| put(&store, run_id, None))?;
            said(context, &store, name)
        }
        Some(BaselineAction::Rm { name, runs }) => {
            let all = members(&store, name)?;
            if all.is_empty() {
                let message = format!("find baseline {name:?}: no run is in it");
                return Err(
                    Failure::new(Code::NotFound, message).help("`retake baseline` lists them")
                );
            }
            let leaving = match runs {
                Some(runs) => store.select_set(runs)?,
                None => all.clone(),
            };
            for run_id in all.iter().filter(|run_id| leaving.contains(run_id)) {
                put(&store, run_id, None)?;
            }
            said(context, &store, name)
        }
    }
}

fn checked(name: &str) -> Result<(), Failure> {
    let is_name = !name.is_empty()
        && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '/'));
    match is_name {
        true => Ok(()),
        false => Err(Failure::new(
            Code::Usage,
            format!("name a baseline {name:?}: use letters, digits, - _ . and /"),
        )),
    }
}

/// The runs of a selector, none of which may be a prediction: what is measured later would be held
/// against it.
fn measured(store: &Store, runs: &str) -> Result<Vec<RunId>, Failure> {
    let wanted = store.select_set(runs)?;
    if let Some(run_id) = simulated(store, &wanted)? {
        let message = format!("make run {run_id} a baseline: it was simulated, not measured");
        return Err(Failure::new(Code::Usage, message)
            .help("replay the workload on the wall clock (without --clock virtual)"));
    }
    Ok(wanted)
}

/// The runs of a baseline, oldest first.
fn members(store: &Store, name: &str) -> Result<Vec<RunId>, Failure> {
    let is_in = |labels: &std::collections::BTreeMap<String, String>| {
        labels.get(BASELINE_LABEL).is_some_and(|label| label == name)
    };
    let runs = store.runs()?.into_iter();
    let runs = runs.filter(|run| run.manifest.as_ref().is_ok_and(|m| is_in(&m.facts.labels)));
    Ok(runs.map(|run| run.run_id).collect())
}

/// Puts a run into a baseline, or into none. A run is in one at most, so that gc can say which.
fn put(store: &Store, run_id: &RunId, name: Option<&str>) -> Result<(), Failure> {
    store.update_manifest(run_id, |manifest| {
        let labels = &mut manifest.facts.labels;
        match name {
            Some(name) => labels.insert(BASELINE_LABEL.to_owned(), name.to_owned()),
            None => labels.remove(BASELINE_LABEL),
        };
    })?;
    Ok(())
}

fn said(context: &Context, store: &Store, name: &str) -> Result<Code, Failure> {
    let runs = members(store, name)?.len();
    context.say(&format!("baseline {name} has {runs} runs; `gc` keeps them"));
    if runs > 0 && runs < 4 {
        context.say("a comparison needs at least 4 to know what differs from run to run by chance");
    }
    context.say(&format!("next: retake check last --baseline baseline:{name}"));
    Ok(Code::Ok)
}

fn list(context: &Context, store: &Store) -> Result<Code, Failure> {
    let mut names: std::collections::BTreeMap<String, Vec<String>> = Default::default();
    for run in store.runs()? {
        let Ok(manifest) = run.manifest else { continue };
        if let Some(name) = manifest.facts.labels.get(BASELINE_LABEL) {
            names.entry(name.clone()).or_default().push(run.run_id.to_string());
        }
    }
    match context.format_or(Format::Table) {
        Format::Json => {
            let baselines: Vec<_> =
                names.iter().map(|(name, runs)| json!({"name": name, "runs": runs})).collect();
            print_json(&json!({"schema_version": 1, "baselines": baselines}))?;
        }
        format @ (Format::Table | Format::Markdown) => {
            let mut shown = table(format, &["baseline", "runs", "youngest"], 1);
            for (name, runs) in &names {
                let youngest = runs.last().cloned().unwrap_or_default();
                row(&mut shown, [name.clone(), runs.len().to_string(), youngest]);
            }
            print(&shown.to_string())?;
            if names.is_empty() {
                context.say("next: retake baseline set main last");
            }
        }
        other => return Err(unsupported(other, "the list of baselines")),
    }
    Ok(Code::Ok)
}
