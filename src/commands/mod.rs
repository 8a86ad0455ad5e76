//! One module per verb.

mod about;
mod baseline;
mod breakdown;
mod budgets;
mod check;
mod compact;
mod demo;
mod diff;
mod doctor;
mod export;
mod fake_server;
mod gc;
mod import;
mod init;
mod model;
mod pages;
mod proxy;
mod pull;
mod push;
mod rag;
mod receiving;
mod record;
mod recover;
mod replay;
mod report;
mod runs;
mod serve;
mod sql;
pub(crate) mod sweep;
mod top;
mod trace;
mod trend;
mod verify;
mod why;
mod workload;

use retake_analyzer::{Analyzer, Scope};
use retake_recorder::Store;
use retake_schemas::RunId;
use retake_schemas::convention::{CLOCK_LABEL, CLOCK_VIRTUAL};
use retake_schemas::event::RunStatus;

use crate::cli::{Cli, Verb};
use crate::context::Context;
use crate::failure::{Exit, Failure};

/// Runs a verb; the code is the process's exit code.
pub(crate) async fn run(cli: Cli) -> Result<Exit, Failure> {
    if let Verb::Doctor(args) = &cli.verb {
        // It works with settings that nothing else works with, and says what is wrong with them.
        return doctor::run(&cli.global, args).await.map(Exit::from);
    }
    let context = Context::new(&cli.global)?;
    let code = match cli.verb {
        Verb::Record(args) => return record::run(&context, args).await,
        Verb::Demo(args) => demo::run(context, args).await,
        Verb::Rag(verb) => rag::run(&context, verb).await,
        Verb::Serve(args) => serve::run(&context, args).await,
        Verb::Proxy(args) => proxy::run(&context, args).await,
        Verb::FakeServer(args) => fake_server::run(&context, args).await,
        Verb::Import(args) => import::run(&context, args).await,
        Verb::Runs(args) => runs::run(&context, args).await,
        Verb::Breakdown(args) => breakdown::run(&context, &args).await,
        Verb::Top(args) => top::run(&context, &args).await,
        Verb::Trace(args) => trace::run(&context, &args).await,
        Verb::Check(args) => check::run(&context, &args).await,
        Verb::Baseline(args) => baseline::run(&context, &args),
        Verb::Diff(args) => diff::run(&context, &args).await,
        Verb::Explain(args) => why::explain(&context, &args).await,
        Verb::BubbleUp(args) => why::bubble_up(&context, &args).await,
        Verb::WhatIf(args) => why::what_if(&context, &args).await,
        Verb::Trend(args) => trend::run(&context, &args).await,
        Verb::Sql(args) => sql::run(&context, args).await,
        Verb::Replay(verb) => replay::run(&context, verb).await,
        Verb::Sweep(args) => sweep::run(&context, &args).await,
        Verb::Workload(verb) => workload::run(&context, verb),
        Verb::Model(verb) => model::run(&context, verb),
        Verb::Report(args) => report::run(&context, &args).await,
        Verb::Export(args) => export::run(&context, &args),
        Verb::Verify(args) => verify::run(&context, &args),
        Verb::Recover(args) => recover::run(&context, &args),
        Verb::Compact(args) => compact::run(&context, &args),
        Verb::Gc(args) => gc::run(&context, &args),
        Verb::Push(args) => push::run(&context, args).await,
        Verb::Pull(args) => pull::run(&context, &args).await,
        Verb::Init(args) => init::run(&context, &args),
        Verb::Doctor(args) => doctor::run(&cli.global, &args).await,
        Verb::Config(args) => about::config(&context, &args),
        Verb::Completions(args) => about::completions(&args),
        Verb::Man(args) => about::man(&args),
    };
    code.map(Exit::from)
}

/// The first of these runs that a replay in virtual time made: a prediction, and no measurement.
fn simulated<'a>(store: &Store, runs: &'a [RunId]) -> Result<Option<&'a RunId>, Failure> {
    for run_id in runs {
        let labels = store.manifest(run_id)?.facts.labels;
        if labels.get(CLOCK_LABEL).is_some_and(|clock| clock == CLOCK_VIRTUAL) {
            return Ok(Some(run_id));
        }
    }
    Ok(None)
}

/// A run with its repeats, itself first: the replays that `--repeat` made together.
fn with_repeats(store: &Store, run_id: &RunId) -> Result<Vec<RunId>, Failure> {
    let manifest = store.manifest(run_id)?;
    let mut runs = vec![run_id.clone()];
    let Some(group) = manifest.facts.labels.get(REPEAT_LABEL) else { return Ok(runs) };
    for entry in store.runs()? {
        let is_repeat = entry.manifest.is_ok_and(|other| {
            other.facts.labels.get(REPEAT_LABEL) == Some(group)
                && other.facts.workload == manifest.facts.workload
                && other.facts.settings == manifest.facts.settings
                && other.status == RunStatus::Finished
        });
        if is_repeat && entry.run_id != *run_id {
            runs.push(entry.run_id);
        }
    }
    Ok(runs)
}

/// Label that replays made together share.
const REPEAT_LABEL: &str = "retake.repeats";

/// Opens some runs for analysis, passing on what the analyzer warns of.
fn analyzer(context: &Context, store: &Store, runs: &[&[RunId]]) -> Result<Analyzer, Failure> {
    let analyzer =
        Analyzer::open_with(store, Scope::Runs(runs.concat()), &context.analyzer_options())?;
    analyzer.warnings().iter().for_each(|warning| context.warn(warning));
    Ok(analyzer)
}
