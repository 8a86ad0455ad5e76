//! `retake check`.

use std::io::Write;
use std::path::{Path, PathBuf};

use retake_analyzer::check;
use retake_analyzer::model::CheckReport;
use retake_analyzer::{Analyzer, DiffOptions, Scope};
use retake_recorder::Store;
use retake_recorder::store::SelectError;
use retake_schemas::RunId;

use super::{budgets, diff};
use crate::cli::{Check, Format, Inconclusive};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{print, print_json, unsupported};
use crate::render;

pub(crate) async fn run(context: &Context, args: &Check) -> Result<Code, Failure> {
    if args.example {
        print(check::EXAMPLE)?;
        return Ok(Code::Ok);
    }
    let store = context.store()?;
    let runs = diff::all(&store, store.select_set(&args.runs)?)?;
    let (budgets_path, budgets) = match budgets::path(args.budgets.as_deref()) {
        Some(path) => {
            let budgets = budgets::read(&path)?;
            (Some(path), Some(budgets))
        }
        None => (None, None),
    };
    let baseline = baseline(&store, args, &runs)?;
    if baseline.is_empty() && budgets.is_none() {
        return Err(Failure::new(Code::NoBaseline, format!("check run {}: there is nothing to check it against", runs.first().map_or("", RunId::as_str)))
            .help("`retake baseline set main RUNS` makes a baseline, `retake check --example > budgets.toml` budgets"));
    }
    let named = budgets::named(&store, budgets.as_ref(), &runs, &|text| context.warn(text))?;
    let scope = budgets::scope(&store, &runs, &baseline, &named, budgets.as_ref())?;
    let analyzer = Analyzer::open_with(&store, Scope::Runs(scope), &context.analyzer_options())?;
    analyzer.warnings().iter().for_each(|warning| context.warn(warning));
    let options = DiffOptions { effect_min: args.min_change, ..DiffOptions::default() };
    let mut report = check::check(
        &analyzer,
        &check::Check {
            runs: &runs,
            baseline: &baseline,
            budgets: budgets.as_ref(),
            named: &named,
            options,
            inconclusive_fails: args.inconclusive == Inconclusive::Fail,
        },
    )
    .await?;
    make_relative(&mut report);
    write_files(args, budgets_path.as_deref(), &report)?;
    if args.github {
        github(context, budgets_path.as_deref(), &report)?;
    } else {
        match context.format_or(Format::Table) {
            Format::Json => print_json(&report)?,
            Format::Markdown => print(&check::markdown(&report, COMMENT_BYTES_MAX))?,
            Format::Table => print(&render::check(&report, context.look(Format::Table)))?,
            other => return Err(unsupported(other, "a check")),
        }
    }
    Ok(Code::of_check(report.exit_code))
}

/// The runs compared with, without those under question.
fn baseline(store: &Store, args: &Check, runs: &[RunId]) -> Result<Vec<RunId>, Failure> {
    let found = match &args.baseline {
        Some(text) => match store.select_set(text) {
            Ok(found) => found,
            Err(error @ SelectError::NotFound { .. }) if text.starts_with("baseline:") => {
                return Err(Failure::new(Code::NoBaseline, error.to_string()));
            }
            Err(error) => return Err(error.into()),
        },
        None => store.select_set("baseline:main").unwrap_or_default(),
    };
    let found = diff::all(store, found)?;
    let others: Vec<RunId> = found.iter().filter(|run| !runs.contains(run)).cloned().collect();
    if others.is_empty() && args.baseline.is_some() {
        let message = "compare the run with itself: the baseline has no other run".to_owned();
        return Err(Failure::new(Code::NoBaseline, message));
    }
    Ok(others)
}

/// Source files as the repository names them: annotations of absolute paths show nowhere.
fn make_relative(report: &mut CheckReport) {
    let roots: Vec<PathBuf> = std::env::var_os("GITHUB_WORKSPACE")
        .map(PathBuf::from)
        .into_iter()
        .chain(std::env::current_dir())
        .collect();
    let shorten = |file: &mut Option<String>| {
        if let Some(text) = file
            && let Some(inside) =
                roots.iter().find_map(|root| Path::new(text).strip_prefix(root).ok())
        {
            *text = inside.display().to_string();
        }
    };
    report.regressions.iter_mut().for_each(|finding| shorten(&mut finding.source_file));
    if let Some(diff) = &mut report.comparison {
        diff.findings.iter_mut().for_each(|finding| shorten(&mut finding.source_file));
    }
}

fn write_files(args: &Check, budgets: Option<&Path>, report: &CheckReport) -> Result<(), Failure> {
    if let Some(path) = &args.markdown {
        write(path, &check::markdown(report, COMMENT_BYTES_MAX))?;
    }
    if let Some(path) = &args.junit {
        write(path, &check::junit(report)?)?;
    }
    if let Some(path) = &args.sarif {
        let log = check::sarif(report, shown_path(budgets).as_deref());
        write(path, &format!("{log:#}\n"))?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|error| {
        Failure::new(Code::Environment, format!("write {}: {error}", path.display()))
    })
}

/// The budget file relative to where the command runs.
fn shown_path(budgets: Option<&Path>) -> Option<String> {
    let path = std::path::absolute(budgets?).ok()?;
    let root = std::env::var_os("GITHUB_WORKSPACE")
        .map(PathBuf::from)
        .or_else(|| std::env::current_dir().ok())?;
    Some(path.strip_prefix(root).unwrap_or(&path).display().to_string())
}

/// Annotations on stdout, where the runner reads them, and the step's summary in its file.
fn github(context: &Context, budgets: Option<&Path>, report: &CheckReport) -> Result<(), Failure> {
    print(&check::annotations(report, shown_path(budgets).as_deref()))?;
    print(&render::check(report, context.look(Format::Table)))?;
    let Some(path) = std::env::var_os("GITHUB_STEP_SUMMARY") else {
        context.warn("GITHUB_STEP_SUMMARY is not set, so there is no summary of the step");
        return Ok(());
    };
    let path = PathBuf::from(path);
    let appended =
        std::fs::OpenOptions::new().append(true).create(true).open(&path).and_then(|mut file| {
            file.write_all(check::markdown(report, SUMMARY_BYTES_MAX).as_bytes())
        });
    appended.map_err(|error| {
        Failure::new(Code::Environment, format!("write {}: {error}", path.display()))
    })
}

/// GitHub's limits: a comment has 65,536 characters, a step's summary 1 MiB.
const COMMENT_BYTES_MAX: usize = 65_000;
const SUMMARY_BYTES_MAX: usize = 1_000_000;
