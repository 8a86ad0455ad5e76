//! `retake trend`.

use retake_analyzer::model::TrendChange;
use retake_analyzer::trend::{Alarm, Direction, TrendQuery, points, trend, worsened};
use retake_recorder::Store;
use retake_schemas::RunId;
use retake_schemas::event::RunStatus;

use super::{analyzer, sql};
use crate::cli::{Format, Trend};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{print, print_json};
use crate::render;

pub(crate) async fn run(context: &Context, args: &Trend) -> Result<Code, Failure> {
    // Before the store is opened: a metric that nobody knows is wrong whatever was recorded.
    let query = TrendQuery::parse(&args.metric, args.select.as_deref(), &args.by)?;
    let store = context.store()?;
    let (runs, of) = runs(&store, args)?;
    let analyzer = analyzer(context, &store, &[&runs])?;
    let trend = trend(&analyzer, &query).await?;
    trend.warnings.iter().for_each(|warning| context.warn(warning));
    if trend.series.is_empty() {
        let message = format!("find {}: none of {} {of} has it", args.metric, trend.runs);
        return Err(Failure::new(Code::NotFound, message)
            .help("`retake breakdown` shows what a run has, `retake trend --help` metrics"));
    }
    let format = context.format_or(Format::Table);
    match format {
        Format::Json => print_json(&trend)?,
        Format::Table | Format::Markdown => {
            print(&render::trend(&trend, &of, format, context.look(format)))?;
        }
        Format::Ndjson | Format::Csv | Format::Arrow | Format::Parquet => {
            sql::write(context, &points(&trend)?)?;
        }
    }
    let changes = trend.series.iter().filter_map(|series| series.changes.last());
    if let Some(last) = changes.max_by_key(|change| change.index)
        && matches!(format, Format::Table)
    {
        context.say(&next(last));
    }
    let alarm = Alarm {
        worse: if args.less_is_worse { Direction::Less } else { Direction::More },
        runs: args.within as usize,
        change_min: args.min_change,
    };
    let worse = if args.fail_on_change { worsened(&trend, &alarm) } else { Vec::new() };
    for (series, change) in &worse {
        let of = if series.group.is_empty() { &trend.metric } else { &series.group };
        context.warn(&format!("{of} got worse with run {}", change.run));
    }
    Ok(if worse.is_empty() { Code::Ok } else { Code::Regression })
}

/// The runs to look at, and what they are, for people.
fn runs(store: &Store, args: &Trend) -> Result<(Vec<RunId>, String), Failure> {
    if let Some(set) = &args.runs {
        return Ok((store.select_set(set)?, format!("runs of {set}")));
    }
    let entries = store.runs()?;
    let finished = entries.iter().filter_map(|entry| {
        let manifest = entry.manifest.as_ref().ok()?;
        (manifest.status == RunStatus::Finished).then_some((&entry.run_id, &manifest.facts))
    });
    let finished: Vec<_> = finished.collect();
    let (_, youngest) = finished.last().ok_or_else(|| {
        Failure::new(Code::NotFound, "find a finished run: this store has none")
            .help("record something first, or name other runs with --runs")
    })?;
    let mut alike: Vec<RunId> = finished
        .iter()
        .filter(|(_, facts)| facts.name == youngest.name && facts.service == youngest.service)
        .map(|(run_id, _)| (*run_id).clone())
        .collect();
    let too_many = alike.len().saturating_sub(args.last as usize);
    alike.drain(..too_many);
    let of = format!("runs {:?} of service {:?}", youngest.name, youngest.service);
    Ok((alike, of))
}

/// What to do about a change.
fn next(change: &TrendChange) -> String {
    let mut text = format!("next: retake diff {} {}", change.run_before, change.run);
    if let (Some(before), Some(after)) = (&change.sha_before_earliest, &change.sha_latest)
        && before != after
    {
        text.push_str(&format!(
            " \u{b7} git log {}..{}",
            render::short_sha(before),
            render::short_sha(after)
        ));
    }
    text
}
