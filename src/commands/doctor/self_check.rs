//! `retake doctor --aa`: how often the gate would cry wolf.

use retake_analyzer::diff::self_check;
use retake_analyzer::{Analyzer, DiffOptions, Scope};

use crate::cli::Format;
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{print, print_json, row, table, unsupported};
use crate::units::percent;

/// How often the gate finds something between runs of a program that did not change.
pub(super) async fn run(context: &Context, set: &str) -> Result<Code, Failure> {
    let store = context.store()?;
    let runs = match set {
        // Runs of other names are other programs, and differ for a reason.
        "" => {
            let name = store.manifest(&store.select("last")?)?.facts.name;
            store.select_set(&format!("{name}*40"))?
        }
        set => store.select_set(set)?,
    };
    if runs.len() < 5 {
        let message = format!("measure false alarms on {} runs: at least 5 are needed", runs.len());
        return Err(Failure::new(Code::Inconclusive, message)
            .help("record the same program more often, then name its runs, such as 'nightly*20'"));
    }
    let analyzer =
        Analyzer::open_with(&store, Scope::Runs(runs.clone()), &context.analyzer_options())?;
    let found = self_check(&analyzer, &runs, &DiffOptions::default()).await?;
    match context.format_or(Format::Table) {
        Format::Json => print_json(&found)?,
        format @ (Format::Table | Format::Markdown) => {
            let header = ["compared", "comparisons", "false alarms", "rate", "mostly"];
            let mut shown = table(format, &header, 1);
            for shape in &found.shapes {
                row(
                    &mut shown,
                    [
                        format!("{} runs with {}", shape.base, shape.candidate),
                        shape.comparisons.to_string(),
                        shape.false_alarms.to_string(),
                        percent(shape.rate),
                        shape
                            .mostly
                            .as_ref()
                            .map_or("-".to_owned(), |(what, count)| format!("{what} ({count})")),
                    ],
                );
            }
            print(&shown.to_string())?;
            context.say("these runs are taken for runs of one program; if it changed between them, alarms may be right");
            context.say("next: retake trend 'p95(e2e)' · retake check last");
        }
        other => return Err(unsupported(other, "false alarms")),
    }
    Ok(Code::Ok)
}
