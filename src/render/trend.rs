//! A history as a line of blocks, and its changes in words.

use retake_analyzer::check::{markdown_cell, shown};
use retake_analyzer::model::{Trend, TrendChange, TrendPoint, TrendSeries, TrendShift};

use super::sheet::{Keep, Sheet};
use crate::cli::Format;
use crate::output::inert;
use crate::terminal::{Look, Tone};
use crate::units::change as relative;

/// A trend: a line per group, then what changed, then what to mind. `of` says which runs.
pub(crate) fn trend(trend: &Trend, of: &str, format: Format, look: Look) -> String {
    let is_markdown = format == Format::Markdown;
    let safe = |text: &str| if is_markdown { markdown_cell(text) } else { one_line(text) };
    let mut title = format!("{} over {} {of}, oldest first", trend.metric, trend.runs);
    if let Some(select) = &trend.select {
        title.push_str(&format!(", where {select}"));
    }
    let by = if trend.by.is_empty() { "group".to_owned() } else { safe(&trend.by.join(" / ")) };
    let mut lines = Sheet::default()
        .text(&by, Keep::Always)
        .whole("history", Keep::Always)
        .number("runs", Keep::Rank(1))
        .number("first", Keep::Rank(3))
        .number("last", Keep::Always)
        .number("lowest", Keep::Rank(2))
        .number("highest", Keep::Rank(2));
    let most = match is_markdown {
        true => COLUMNS_MARKDOWN,
        false => look.width.saturating_sub(BESIDE_HISTORY).clamp(COLUMNS_MIN, COLUMNS_MAX),
    };
    for series in &trend.series {
        lines.row(cells(trend, series, most, &safe));
    }
    let (gap, bullet) = if is_markdown { ("\n\n", "- ") } else { ("\n", "") };
    let lines = lines.render(format, look);
    let mut text = format!("{}{gap}{}{gap}", safe(&title), lines.trim_end());
    for Sentence { text: sentence, tone } in sentences(trend) {
        let sentence = safe(&sentence);
        let shown = tone.map_or_else(|| sentence.clone(), |tone| look.paint(&sentence, tone));
        text.push_str(&format!("{bullet}{shown}\n"));
    }
    text
}

/// What is said below the lines.
struct Sentence {
    text: String,
    tone: Option<Tone>,
}

impl Sentence {
    fn new(text: String, tone: Option<Tone>) -> Self {
        Self { text, tone }
    }
}

fn one_line(text: &str) -> String {
    inert(text).replace('\n', " ")
}

fn cells(
    trend: &Trend,
    series: &TrendSeries,
    most: usize,
    safe: &dyn Fn(&str) -> String,
) -> Vec<String> {
    let values: Vec<f64> = series.points.iter().filter_map(|point| point.value).collect();
    let number = |value: Option<f64>| {
        value.map_or_else(|| "-".to_owned(), |value| shown(value, &trend.unit))
    };
    vec![
        if series.group.is_empty() { "(all)".to_owned() } else { safe(&series.group) },
        line(series, most),
        values.len().to_string(),
        number(values.first().copied()),
        number(values.last().copied()),
        number(values.iter().copied().reduce(f64::min)),
        number(values.iter().copied().reduce(f64::max)),
    ]
}

/// A column per run, lowest to highest value of the series; those of more runs than `most` have the
/// median of a few runs in a column. Changes stand between columns.
fn line(series: &TrendSeries, most: usize) -> String {
    let values = || series.points.iter().filter_map(|point| point.value);
    let lowest = values().fold(f64::INFINITY, f64::min);
    let highest = values().fold(f64::NEG_INFINITY, f64::max);
    let a_column = series.points.len().div_ceil(most.max(1)).max(1);
    let mut text = String::new();
    let mut start = 0;
    let changes = series.changes.iter().map(|change| change.index as usize);
    for end in changes.chain([series.points.len()]) {
        if start > 0 {
            text.push(CHANGE);
        }
        let level = series.points.get(start..end).unwrap_or_default();
        text.extend(level.chunks(a_column).map(|column| block(column, lowest, highest)));
        start = end;
    }
    text
}

fn block(points: &[TrendPoint], lowest: f64, highest: f64) -> char {
    let mut values: Vec<f64> = points.iter().filter_map(|point| point.value).collect();
    values.sort_by(f64::total_cmp);
    let Some(value) = values.get(values.len() / 2) else { return GAP };
    // Nothing moved: a line in the middle, rather than at the bottom.
    let share = if highest > lowest { (value - lowest) / (highest - lowest) } else { 0.5 };
    let step = (share * (BLOCKS.len() - 1) as f64).round() as usize;
    BLOCKS.get(step).copied().unwrap_or(GAP)
}

fn sentences(trend: &Trend) -> Vec<Sentence> {
    let mut found = Vec::new();
    for series in &trend.series {
        let of = if series.group.is_empty() { String::new() } else { series.group.clone() + ": " };
        for change in &series.changes {
            let text = format!("{of}{}", sentence(change, &trend.unit));
            found.push(Sentence::new(text, Some(Tone::Strong)));
        }
        if let Some(shift) = series.recent.as_ref().filter(|shift| shift.is_shifted) {
            let text = format!("{of}{}", warning(shift, &trend.unit));
            found.push(Sentence::new(text, Some(Tone::Warn)));
        }
        if !series.gaps.is_empty() {
            let youngest = series.gaps.last().map_or("", String::as_str);
            let text = match series.gaps.len() {
                1 => format!("{of}run {youngest} does not have it"),
                gaps => format!("{of}{gaps} runs do not have it, the youngest of them {youngest}"),
            };
            found.push(Sentence::new(text, None));
        }
    }
    if trend.series.iter().any(|series| !series.is_same_machine) {
        let text = format!(
            "runs of other machines than the youngest run's ({}) are lines of their own: times of \
             different machines are not compared",
            trend.machine_key
        );
        found.push(Sentence::new(text, None));
    }
    if trend.groups_left_out > 0 {
        let text = format!("{} smaller groups are left out", trend.groups_left_out);
        found.push(Sentence::new(text, None));
    }
    found.extend(too_short(trend).map(|text| Sentence::new(text, None)));
    if found.is_empty() {
        found.push(Sentence::new("no change point".to_owned(), Some(Tone::Good)));
    }
    found
}

fn too_short(trend: &Trend) -> Option<String> {
    let values = |series: &TrendSeries| series.points.len() - series.gaps.len();
    let longest = trend.series.iter().map(values).max()?;
    ((longest as u64) < trend.runs_min).then(|| {
        format!(
            "a change point takes at least {} runs with a value on one machine, five before it and \
             five after; the longest history here has {longest}",
            trend.runs_min
        )
    })
}

fn sentence(change: &TrendChange, unit: &str) -> String {
    let mut text = format!(
        "{} from run {}{} to run {}{}, {} -> {}, p {}; ",
        magnitude(change.change, change.median_after > change.median_before),
        change.run_before,
        commit(change.sha_before.as_deref()),
        change.run,
        commit(change.sha.as_deref()),
        shown(change.median_before, unit),
        shown(change.median_after, unit),
        probability(change.p),
    );
    match change.interval_runs {
        0 | 1 => text.push_str("95 % sure that it begins there"),
        runs => text.push_str(&format!(
            "95 % sure that it begins within {runs} runs, {} to {}",
            change.run_earliest, change.run_latest
        )),
    }
    if let (Some(before), Some(latest)) = (&change.sha_before_earliest, &change.sha_latest) {
        match before == latest {
            true => text.push_str(", all of one commit: it was not the code"),
            false => {
                text.push_str(&format!(", commits {}..{}", short_sha(before), short_sha(latest)))
            }
        }
    }
    text
}

fn warning(shift: &TrendShift, unit: &str) -> String {
    let runs = match shift.runs {
        1 => "the last run looks".to_owned(),
        runs => format!("the last {runs} runs look"),
    };
    format!(
        "{runs} shifted: {}, {} -> {}, p {}; a change point takes five runs",
        magnitude(shift.change, shift.median_after > shift.median_before),
        shown(shift.median_before, unit),
        shown(shift.median_after, unit),
        probability(shift.p),
    )
}

fn magnitude(change: Option<f64>, is_more: bool) -> String {
    match (change, is_more) {
        (Some(change), _) => relative(change),
        (None, true) => "more".to_owned(),
        (None, false) => "less".to_owned(),
    }
}

fn commit(sha: Option<&str>) -> String {
    sha.map_or_else(String::new, |sha| format!(" (sha {})", short_sha(sha)))
}

/// A commit as git shortens it.
pub(crate) fn short_sha(sha: &str) -> String {
    sha.chars().take(SHA_CHARS).collect()
}

/// As many digits as say something.
fn probability(p: f64) -> String {
    if p < 0.001 { format!("{p:.1e}") } else { format!("{p:.3}") }
}

/// Lower one eighth block to full block.
const BLOCKS: [char; 8] = [
    '\u{2581}', '\u{2582}', '\u{2583}', '\u{2584}', '\u{2585}', '\u{2586}', '\u{2587}', '\u{2588}',
];
/// A light vertical line: the ASCII one would end a cell of a Markdown table.
const CHANGE: char = '\u{2502}';
/// A run without a value.
const GAP: char = '\u{b7}';
/// What a line of this many columns is wide where nobody knows the reader's screen.
const COLUMNS_MARKDOWN: usize = 40;
/// Shorter lines show no levels.
const COLUMNS_MIN: usize = 12;
/// Longer ones make no more of a history than its picture in the report does.
const COLUMNS_MAX: usize = 120;
/// Columns that a short name and the numbers beside a line take.
const BESIDE_HISTORY: usize = 60;
/// Enough to tell the commits of most repositories apart.
const SHA_CHARS: usize = 7;

#[cfg(test)]
mod tests {
    use super::*;

    fn series(values: &[Option<f64>], change_at: Option<u64>) -> TrendSeries {
        let point = |value: &Option<f64>| TrendPoint {
            run_id: "run".to_owned(),
            started_unix_ns: 0,
            git_sha: None,
            value: *value,
            samples: 1,
        };
        let change = |index| TrendChange {
            index,
            run_before: "a".to_owned(),
            run: "b".to_owned(),
            sha_before: Some("abc1234fff".to_owned()),
            sha: Some("def5678fff".to_owned()),
            median_before: 82.1e6,
            median_after: 101e6,
            change: Some(0.234),
            p: 0.005,
            run_earliest: "a".to_owned(),
            run_latest: "b".to_owned(),
            interval_runs: 2,
            sha_before_earliest: Some("abc1234fff".to_owned()),
            sha_latest: Some("def5678fff".to_owned()),
        };
        TrendSeries {
            group: "g".to_owned(),
            machine_key: "m".to_owned(),
            is_same_machine: true,
            points: values.iter().map(point).collect(),
            gaps: Vec::new(),
            changes: change_at.into_iter().map(change).collect(),
            recent: None,
        }
    }

    #[test]
    fn a_line_has_a_block_a_run_with_gaps_and_changes() {
        let values = [Some(1.0), None, Some(2.0), Some(8.0)];
        assert_eq!(line(&series(&values, Some(3)), 40), "\u{2581}\u{b7}\u{2582}\u{2502}\u{2588}");
        assert_eq!(line(&series(&[Some(5.0); 3], None), 40), "\u{2585}".repeat(3));
        assert_eq!(line(&series(&[], None), 40), "");
    }

    /// Guarantees: a long history fits a terminal, and no column mixes two levels.
    #[test]
    fn a_long_line_is_shortened() {
        let values: Vec<Option<f64>> =
            (0..100).map(|run| Some(if run < 50 { 1.0 } else { 2.0 })).collect();
        let expected = format!("{}\u{2502}{}", "\u{2581}".repeat(17), "\u{2588}".repeat(17));
        assert_eq!(line(&series(&values, Some(50)), 40), expected);
    }

    #[test]
    fn a_change_is_told_with_runs_commits_and_medians() {
        let one = series(&[Some(1.0); 4], Some(2));
        assert_eq!(
            sentence(&one.changes[0], "ns"),
            "+23.4 % from run a (sha abc1234) to run b (sha def5678), 82.1 ms -> 101 ms, p 0.005; \
             95 % sure that it begins within 2 runs, a to b, commits abc1234..def5678"
        );
    }
}
