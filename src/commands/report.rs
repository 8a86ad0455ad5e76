//! `retake report`.

use retake_analyzer::check::Budgets;
use retake_analyzer::model::{ReportData, ReportQuery, SweepData};
use retake_analyzer::{Analyzer, ReportRequest, Scope};
use retake_recorder::Store;
use retake_schemas::RunId;
use retake_schemas::event::RunStatus;

use super::sweep::recorded;
use super::{budgets, with_repeats};
use crate::cli::Report;
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::print;

pub(crate) async fn run(context: &Context, args: &Report) -> Result<Code, Failure> {
    let store = context.store()?;
    let run_id = context.select(&store, &args.run)?;
    let base = args.base.as_deref().map(|base| context.select(&store, base)).transpose()?;
    if base.as_ref() == Some(&run_id) {
        return Err(Failure::new(Code::Usage, format!("compare run {run_id} with itself")));
    }
    let runs = with_repeats(&store, &run_id)?;
    let bases = match &base {
        Some(base) => with_repeats(&store, base)?,
        None => Vec::new(),
    };
    let path = budgets::path(args.budgets.as_deref());
    let budgets = path.as_deref().map(budgets::read).transpose()?;
    let asked =
        Asked { runs: &runs, bases: &bases, budgets: budgets.as_ref(), with_text: args.with_text };
    let data = data(context, &store, asked, &|warning| context.warn(warning)).await?;
    let html = retake_analyzer::report::render(&data);
    std::fs::write(&args.output, html).map_err(|error| {
        let message = format!("write report {}: {error}", args.output.display());
        Failure::new(Code::Environment, message)
    })?;
    print(&args.output.display().to_string())?;
    context.say("open it in a browser; it needs no network");
    Ok(Code::Ok)
}

/// What a report is on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    /// The run; further ones are its repeats.
    pub(super) runs: &'a [RunId],
    /// The run it is compared with; further ones are its repeats.
    pub(super) bases: &'a [RunId],
    pub(super) budgets: Option<&'a Budgets>,
    /// Whether texts that were kept are shown.
    pub(super) with_text: bool,
}

/// Everything that a report shows.
pub(super) async fn data(
    context: &Context,
    store: &Store,
    asked: Asked<'_>,
    warn: &(dyn Fn(&str) + Sync),
) -> Result<ReportData, Failure> {
    let Asked { runs, bases, budgets, with_text } = asked;
    let named = budgets::named(store, budgets, runs, warn)?;
    let history = history(store, runs)?;
    let mut scope = budgets::scope(store, runs, bases, &named, budgets)?;
    scope.extend(history.iter().cloned());
    scope.sort();
    scope.dedup();
    let analyzer = Analyzer::open_with(store, Scope::Runs(scope), &context.analyzer_options())?;
    analyzer.warnings().iter().for_each(|warning| warn(warning));
    let request = ReportRequest {
        runs,
        baselines: bases,
        history: &history,
        budgets,
        named: &named,
        with_text,
    };
    let mut data = retake_analyzer::report_data(&analyzer, request).await?;
    if let Some(run_id) = runs.first() {
        data.sweep = recorded::shown_with(context, store, run_id).await?;
        data.queries.extend(data.sweep.as_ref().map(query_of));
    }
    Ok(data)
}

fn query_of(sweep: &SweepData) -> ReportQuery {
    let sql = format!(
        "SELECT setting, metric, predicted, low, high, measured, replay_run_id FROM prediction_log\n\
         WHERE run_id = '{}' ORDER BY metric, setting",
        sweep.run_id
    );
    ReportQuery { section: "sweep", title: "Settings tried".to_owned(), sql }
}

/// The finished runs of the same name and service up to the first of `runs`, and that one itself.
fn history(store: &Store, runs: &[RunId]) -> Result<Vec<RunId>, Failure> {
    let Some(run_id) = runs.first() else { return Ok(Vec::new()) };
    let own = store.manifest(run_id)?.facts;
    let mut alike: Vec<RunId> = store
        .runs()?
        .into_iter()
        .filter(|entry| {
            entry.run_id == *run_id
                || entry.manifest.as_ref().is_ok_and(|manifest| {
                    let facts = &manifest.facts;
                    manifest.status == RunStatus::Finished
                        && (&facts.name, &facts.service) == (&own.name, &own.service)
                        && facts.started_unix_ns <= own.started_unix_ns
                })
        })
        .map(|entry| entry.run_id)
        .collect();
    let too_many = alike.len().saturating_sub(HISTORY_MAX);
    alike.drain(..too_many);
    Ok(alike)
}

/// Runs in the picture of the trend; each is read again.
const HISTORY_MAX: usize = 40;
