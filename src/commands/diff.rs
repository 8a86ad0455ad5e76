//! `retake diff`.

use retake_analyzer::DiffOptions;
use retake_analyzer::model::Verdict;
use retake_recorder::Store;
use retake_schemas::RunId;

use super::{analyzer, simulated, with_repeats};
use crate::cli::{Diff, Format};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{print, print_json, unsupported};
use crate::render;

pub(crate) async fn run(context: &Context, args: &Diff) -> Result<Code, Failure> {
    let store = context.store()?;
    let (bases, candidates) = sides(&store, &args.base, &args.candidate)?;
    if let Some(run_id) = prediction(&store, &bases, &candidates)? {
        let what = format!("run {run_id} was simulated, and the other side was not");
        if args.fail_on_regression {
            let message = format!("decide whether it got worse: {what}");
            return Err(Failure::new(Code::Usage, message).help(
                "a prediction is no baseline: compare replays that ran, or two that were simulated",
            ));
        }
        context.warn(&format!("{what}: this holds a prediction against what happened"));
    }
    let analyzer = analyzer(context, &store, &[&bases, &candidates])?;
    let options = DiffOptions::default();
    let diff = retake_analyzer::diff_repeated(&analyzer, &bases, &candidates, &options).await?;
    match context.format_or(Format::Table) {
        Format::Json => print_json(&diff)?,
        format @ (Format::Table | Format::Markdown) => {
            print(&render::diff(&diff, format, context.look(format)))?;
        }
        other => return Err(unsupported(other, "a comparison")),
    }
    Ok(match diff.verdict {
        Verdict::Worse if args.fail_on_regression => Code::Regression,
        Verdict::Inconclusive if args.fail_on_regression => Code::Inconclusive,
        _ => Code::Ok,
    })
}

/// A simulated run on one side when there is none on the other.
fn prediction<'a>(
    store: &Store,
    bases: &'a [RunId],
    candidates: &'a [RunId],
) -> Result<Option<&'a RunId>, Failure> {
    Ok(match (simulated(store, bases)?, simulated(store, candidates)?) {
        (Some(_), Some(_)) => None,
        (base, candidate) => base.or(candidate),
    })
}

/// The runs of two sides, which must differ.
pub(super) fn sides(
    store: &Store,
    base: &str,
    candidate: &str,
) -> Result<(Vec<RunId>, Vec<RunId>), Failure> {
    let (base_set, candidate_set) = (store.select_set(base)?, store.select_set(candidate)?);
    if base_set == candidate_set {
        let what = base_set.first().map_or("", RunId::as_str);
        return Err(Failure::new(Code::Usage, format!("compare run {what} with itself"))
            .help("name two runs, such as `retake diff last~1 last`; `retake runs` lists them"));
    }
    let (bases, candidates) = (all(store, base_set)?, all(store, candidate_set)?);
    if let Some(both) = candidates.iter().find(|run_id| bases.contains(run_id)) {
        let message = format!(
            "compare {} with {}: run {both} is on both sides, or a repeat of one replay with it",
            base, candidate
        );
        return Err(Failure::new(Code::Usage, message));
    }
    Ok((bases, candidates))
}

/// One run stands for its repeats, too.
pub(super) fn all(store: &Store, runs: Vec<RunId>) -> Result<Vec<RunId>, Failure> {
    match runs.as_slice() {
        [one] => with_repeats(store, one),
        _ => Ok(runs),
    }
}
