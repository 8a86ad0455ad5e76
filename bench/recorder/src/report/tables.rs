//! Tables for the terminal, or the same as Markdown.

use comfy_table::{CellAlignment, LineStyle, Table, TableStyle, presets};

use crate::case::{Case, Measure, SYNC_MS, Section, Variant};
use crate::gathered::{Figure, Gathered};
use crate::goals::Row;

/// Prints a table for each of `sections`, and the goals.
pub(crate) fn print(sections: &[Section], gathered: &Gathered, rows: &[Row], is_markdown: bool) {
    let preset = if is_markdown {
        presets::ASCII_MARKDOWN
    } else {
        presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none())
    };
    let show = |title: &str, lines: Vec<Vec<String>>| {
        if lines.len() > 1 {
            println!("### {title}\n\n{}\n", table(preset, lines));
        }
    };
    for section in sections {
        let (title, lines) = match section {
            Section::Hot => (HOT_TITLE, by_case(gathered, Measure::Hot, &HOT)),
            Section::Limits => (LIMITS_TITLE, by_figure(gathered, Measure::Limits)),
            Section::E2e => (E2E_TITLE, by_case(gathered, Measure::E2e, &E2E)),
            Section::Paced => (PACED_TITLE, by_case(gathered, Measure::Paced, &PACED)),
            Section::Bytes => (BYTES_TITLE, by_figure(gathered, Measure::Bytes)),
            Section::Sync => (SYNC_TITLE, by_sync(gathered)),
        };
        show(title, lines);
    }
    show("Goals", goals(rows));
}

/// A column of a table of cases.
enum Column {
    /// Median over rounds, with so many digits after the point.
    Median(&'static str, &'static str, usize),
    /// Smallest and largest over rounds.
    Spread(&'static str, usize),
    /// Ratio to the Registry with an empty Layer, of the same rounds.
    Ratio(&'static str),
}

impl Column {
    fn head(&self) -> String {
        match self {
            Self::Median(head, ..) => (*head).to_owned(),
            Self::Spread(..) => "spread".to_owned(),
            Self::Ratio(_) => "x".to_owned(),
        }
    }

    fn cell(&self, gathered: &Gathered, case: Case) -> Option<String> {
        match self {
            Self::Median(_, figure, digits) => {
                gathered.median(case, figure).map(|value| grouped(value, *digits))
            }
            Self::Spread(figure, digits) => gathered.spread(case, figure).map(|[low, high]| {
                format!("{}..{}", grouped(low, *digits), grouped(high, *digits))
            }),
            Self::Ratio(figure) => {
                let registry: Figure = (Case::new(case.measure, Variant::Registry), figure);
                gathered.ratio((case, figure), registry).map(|ratio| format!("{ratio:.2}"))
            }
        }
    }
}

fn by_case(gathered: &Gathered, measure: Measure, columns: &[Column]) -> Vec<Vec<String>> {
    let mut head = vec!["variant".to_owned()];
    head.extend(columns.iter().map(Column::head));
    let mut lines = vec![head];
    let is_mine = |case: &Case| case.measure == measure && case.sync_ms.is_none();
    for case in gathered.cases().filter(is_mine) {
        let title = case.variant.title();
        let mut line = vec![match case.threads {
            1 => title.to_owned(),
            threads => format!("{title}, {threads} threads"),
        }];
        line.extend(columns.iter().map(|column| or_dash(column.cell(gathered, case))));
        lines.push(line);
    }
    lines
}

fn by_figure(gathered: &Gathered, measure: Measure) -> Vec<Vec<String>> {
    let mut lines = vec![words(&["figure", "median", "spread"])];
    for case in gathered.cases().filter(|case| case.measure == measure) {
        let figures = gathered.figures(case).into_iter();
        for figure in figures.filter(|name| !name.ends_with("_p10") && !name.ends_with("_p90")) {
            let median = gathered.median(case, &figure).map(|value| grouped(value, 1));
            let spread = gathered.spread(case, &figure);
            let spread = spread.map(|[low, high]| format!("{low:.1}..{high:.1}"));
            lines.push(vec![figure, or_dash(median), or_dash(spread)]);
        }
    }
    lines
}

fn by_sync(gathered: &Gathered) -> Vec<Vec<String>> {
    let heads = ["record.sync_ms", "ns/span", "p99 us", "p99.9 us", "spans/s", "dropped"];
    let mut lines = vec![words(&heads)];
    for sync_ms in SYNC_MS {
        let case = |measure| Case::new(measure, Variant::Layer).synced_every_ms(sync_ms);
        let median = |measure, figure, digits| {
            or_dash(gathered.median(case(measure), figure).map(|value| grouped(value, digits)))
        };
        lines.push(vec![
            sync_ms.to_string(),
            median(Measure::Hot, "span_ns", 1),
            median(Measure::Paced, "p99_us", 1),
            median(Measure::Paced, "p999_us", 1),
            median(Measure::E2e, "spans_per_s", 0),
            or_dash(gathered.worst(case(Measure::E2e), "dropped").map(|v| grouped(v, 0))),
        ]);
    }
    lines
}

fn goals(rows: &[Row]) -> Vec<Vec<String>> {
    let heads = ["goal", "retake", "spread", "unit", "peer", "its", "ratio", "bar", "holds"];
    let mut lines = vec![words(&heads)];
    for row in rows {
        let holds = match (row.holds, &row.why) {
            (Some(true), None) => "yes".to_owned(),
            (Some(false), None) => "NO".to_owned(),
            (None, None) => "-".to_owned(),
            (Some(holds), Some(why)) => format!("{}: {why}", if holds { "yes" } else { "NO" }),
            (None, Some(why)) => format!("not judged: {why}"),
        };
        lines.push(vec![
            row.goal.clone(),
            or_dash(row.value.map(|value| grouped(value, 1))),
            or_dash(row.spread.map(|[a, b]| format!("{}..{}", grouped(a, 1), grouped(b, 1)))),
            row.unit.to_owned(),
            row.peer.clone(),
            or_dash(row.peer_value.map(|value| grouped(value, 1))),
            or_dash(row.ratio.map(|ratio| format!("{ratio:.2}"))),
            or_dash(row.bar.map(|bar| format!("{} {}", row.bar_is, grouped(bar, 2)))),
            holds,
        ]);
    }
    lines
}

/// The first line is the head; all columns but the first stand on the right.
fn table(preset: TableStyle, mut lines: Vec<Vec<String>>) -> Table {
    let mut table = Table::new();
    let head = lines.remove(0);
    let columns = head.len();
    table.load_style(preset).set_header(head).add_rows(lines);
    for column in table.column_iter_mut().skip(1).take(columns) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Thousands apart: a table of ns and spans/s has figures of one to seven digits.
fn grouped(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_once('.').map_or((text.as_str(), None), |(w, r)| (w, Some(r)));
    let (sign, whole) = whole.strip_prefix('-').map_or(("", whole), |whole| ("-", whole));
    let mut out = String::from(sign);
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if let Some(rest) = rest {
        out.push('.');
        out.push_str(rest);
    }
    out
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn or_dash(cell: Option<String>) -> String {
    cell.unwrap_or_else(|| "-".to_owned())
}

const HOT_TITLE: &str = "Hot path: ns on the instrumented thread";
const LIMITS_TITLE: &str = "What bricks cost here, ns";
const E2E_TITLE: &str = "End to end: 12-span requests as fast as possible, into files";
const PACED_TITLE: &str = "Paced at 200,000 spans/s: a whole 12-span request, us";
const BYTES_TITLE: &str = "On disk: the same spans in several forms";
const SYNC_TITLE: &str = "retake Layer by sync policy";
const HOT: [Column; 8] = [
    Column::Median("ns/span", "span_ns", 1),
    Column::Spread("span_ns", 1),
    Column::Ratio("span_ns"),
    Column::Median("ns/event", "event_ns", 1),
    Column::Spread("event_ns", 1),
    Column::Ratio("event_ns"),
    Column::Median("ns/token", "token_ns", 1),
    Column::Median("dropped", "dropped", 0),
];
const E2E: [Column; 7] = [
    Column::Median("spans/s", "spans_per_s", 0),
    Column::Spread("spans_per_s", 0),
    Column::Median("app ns/span", "app_cpu_ns_per_span", 0),
    Column::Median("background ns/span", "background_cpu_ns_per_span", 0),
    Column::Median("B/span", "bytes_per_span", 1),
    Column::Median("lost %", "lost_percent", 2),
    Column::Median("dropped", "dropped", 0),
];
const PACED: [Column; 10] = [
    Column::Median("p50", "p50_us", 2),
    Column::Median("p99", "p99_us", 1),
    Column::Ratio("p99_us"),
    Column::Median("p99.9", "p999_us", 1),
    Column::Ratio("p999_us"),
    Column::Median("p99.99", "p9999_us", 0),
    Column::Median("max", "max_us", 0),
    Column::Median("behind %", "behind_percent", 2),
    Column::Median("lost %", "lost_percent", 2),
    Column::Median("dropped", "dropped", 0),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: figures of all sizes in one table.
    #[test]
    fn thousands_stand_apart() {
        assert_eq!(grouped(1_500_000.0, 0), "1,500,000");
        assert_eq!(grouped(-1234.56, 1), "-1,234.6");
        assert_eq!(grouped(17.6, 1), "17.6");
        assert_eq!(grouped(999.0, 0), "999");
    }
}
