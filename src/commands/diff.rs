//! `retake diff`.

use retake_analyzer::DiffOptions;
use retake_analyzer::model::Verdict;

use super::{analyzer, with_repeats};
use crate::cli::{Diff, Format};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{print, print_json, unsupported};
use crate::render;

pub(crate) async fn run(context: &Context, args: &Diff) -> Result<Code, Failure> {
    let store = context.store()?;
    let base = context.select(&store, &args.base)?;
    let candidate = context.select(&store, &args.candidate)?;
    if base == candidate {
        return Err(Failure::new(Code::Usage, format!("compare run {base} with itself"))
            .help("name two runs, such as `retake diff last~1 last`; `retake runs` lists them"));
    }
    let bases = with_repeats(&store, &base)?;
    let candidates = with_repeats(&store, &candidate)?;
    if bases.contains(&candidate) {
        let message =
            format!("compare run {base} with {candidate}: they are repeats of one replay");
        return Err(Failure::new(Code::Usage, message));
    }
    let analyzer = analyzer(context, &store, &[&bases, &candidates])?;
    let options = DiffOptions::default();
    let diff = retake_analyzer::diff_repeated(&analyzer, &bases, &candidates, &options).await?;
    match context.format_or(Format::Table) {
        Format::Json => print_json(&diff)?,
        format @ (Format::Table | Format::Markdown) => print(&render::diff(&diff, format))?,
        other => return Err(unsupported(other, "a comparison")),
    }
    Ok(match diff.verdict {
        Verdict::Worse if args.fail_on_regression => Code::Regression,
        Verdict::Inconclusive if args.fail_on_regression => Code::Inconclusive,
        _ => Code::Ok,
    })
}
