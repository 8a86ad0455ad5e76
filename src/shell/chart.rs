//! A result as a picture of characters: bars, or a line of points.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Float64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use retake_analyzer::QueryResult;
use unicode_width::UnicodeWidthStr;

use crate::output::inert;

/// How values are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One row of the screen per value.
    Bar,
    /// One column of the screen per value.
    Line,
}

/// A value with what it is the value of.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Point {
    label: String,
    value: Option<f64>,
}

/// Draws the first column as labels and the first column of numbers after it (else the first
/// itself) as values. Without a shape, times make a line and everything else bars.
pub(crate) fn draw(
    result: &QueryResult,
    rows: usize,
    shape: Option<Shape>,
    width: usize,
) -> Result<String, String> {
    let columns = result.schema.fields();
    let is_number = |index: &usize| columns.get(*index).is_some_and(|f| is_value(f.data_type()));
    let value = (1..columns.len()).find(is_number).or_else(|| Some(0).filter(is_number));
    let Some(value) = value else {
        return Err("there is no column of numbers to draw".to_owned());
    };
    let label = columns.first().map_or("", |field| field.name().as_str());
    let is_time = value != 0
        && (label.ends_with("_unix_ns")
            || columns.first().is_some_and(|f| matches!(f.data_type(), DataType::Timestamp(..))));
    let natural = if is_time { Shape::Line } else { Shape::Bar };
    let points = points(result, value)?;
    let name = columns.get(value).map_or("", |field| field.name().as_str());
    let mut picture = format!("{} by {}\n", inert(name), if value == 0 { "row" } else { label });
    picture = inert(&picture);
    picture.push_str(&match shape.unwrap_or(natural) {
        Shape::Bar => bars(&points, width),
        Shape::Line => line(&points, width),
    });
    if rows > points.len() {
        picture.push_str(&format!("{} of {rows} rows; the rest was left out\n", points.len()));
    }
    Ok(picture)
}

fn is_value(data_type: &DataType) -> bool {
    data_type.is_numeric()
}

fn points(result: &QueryResult, value: usize) -> Result<Vec<Point>, String> {
    let options = FormatOptions::default().with_null("NULL");
    let mut points = Vec::new();
    for batch in &result.batches {
        let wanted = ROWS_MAX.saturating_sub(points.len()).min(batch.num_rows());
        if wanted == 0 {
            break;
        }
        let batch = batch.slice(0, wanted);
        let numbers = arrow::compute::cast(batch.column(value), &DataType::Float64)
            .map_err(|error| error.to_string())?;
        let numbers = numbers.as_primitive::<Float64Type>();
        let labels = ArrayFormatter::try_new(batch.column(0).as_ref(), &options)
            .map_err(|error| error.to_string())?;
        for row in 0..wanted {
            let number = (!numbers.is_null(row)).then(|| numbers.value(row));
            let label = if value == 0 {
                (points.len() + 1).to_string()
            } else {
                inert(&labels.value(row).to_string()).replace(['\n', '\t'], " ")
            };
            points.push(Point { label, value: number.filter(|value| value.is_finite()) });
        }
    }
    Ok(points)
}

/// One bar per value, from zero; bars of negative values go to the left.
fn bars(points: &[Point], width: usize) -> String {
    let label_width =
        points.iter().map(|p| p.label.width()).max().unwrap_or(0).clamp(1, LABEL_COLUMNS_MAX);
    let values: Vec<String> = points.iter().map(|point| shown(point.value)).collect();
    let value_width = values.iter().map(String::len).max().unwrap_or(0);
    let room = width.saturating_sub(label_width + value_width + 4).clamp(10, 100);
    let known = || points.iter().filter_map(|point| point.value);
    let (low, high) = (known().fold(0.0, f64::min), known().fold(0.0, f64::max));
    // Halves first: the whole span may be more than the largest float.
    let span = (high / 2.0 - low / 2.0).max(f64::MIN_POSITIVE);
    let place = |value: f64| ((value / 2.0 - low / 2.0) / span * room as f64).round() as usize;
    let zero = place(0.0);
    let mut picture = String::new();
    for (point, shown) in points.iter().zip(&values) {
        let end = point.value.map_or(zero, place);
        let (from, to) = (zero.min(end), zero.max(end));
        let bar = format!("{}{}", " ".repeat(from), "#".repeat(to - from));
        let label = fitted(&point.label, label_width);
        picture.push_str(&format!("{label} |{bar:<room$} {shown:>value_width$}\n"));
    }
    picture
}

/// One point per value, from left to right, between the lowest and the highest.
fn line(points: &[Point], width: usize) -> String {
    let known = || points.iter().filter_map(|point| point.value);
    let (low, high) =
        (known().fold(f64::INFINITY, f64::min), known().fold(f64::NEG_INFINITY, f64::max));
    if low > high {
        return "no value is a number\n".to_owned();
    }
    let (top, bottom) = (shown(Some(high)), shown(Some(low)));
    let axis = top.len().max(bottom.len());
    let step = (width.saturating_sub(axis + 3) / points.len().max(1)).clamp(1, 4);
    let span = (high / 2.0 - low / 2.0).max(f64::MIN_POSITIVE);
    let level =
        |value: f64| ((value / 2.0 - low / 2.0) / span * (LINE_ROWS - 1) as f64).round() as usize;
    let mut picture = String::new();
    for row in (0..LINE_ROWS).rev() {
        let side = match row {
            0 => bottom.as_str(),
            _ if row == LINE_ROWS - 1 => top.as_str(),
            _ => "",
        };
        let marks = points.iter().map(|point| {
            let is_here = point.value.is_some_and(|value| level(value) == row);
            format!("{:<step$}", if is_here { "*" } else { " " })
        });
        let marks: String = marks.collect();
        picture.push_str(&format!("{side:>axis$} |{}\n", marks.trim_end()));
    }
    let ends = (points.first(), points.last());
    if let (Some(first), Some(last)) = ends {
        picture.push_str(&format!("{:>axis$}  {} ... {}\n", "", first.label, last.label));
    }
    picture
}

/// A label in exactly so many columns of the screen.
fn fitted(label: &str, columns: usize) -> String {
    let mut text = label.to_owned();
    while text.width() > columns {
        text.pop();
    }
    let missing = columns.saturating_sub(text.width());
    text + &" ".repeat(missing)
}

fn shown(value: Option<f64>) -> String {
    let Some(value) = value else { return "NULL".to_owned() };
    if value == value.trunc() && value.abs() < EXACT_MAX {
        format!("{value:.0}")
    } else if (0.001..EXACT_MAX).contains(&value.abs()) {
        let digits = if value.abs() < 100.0 { 3 } else { 1 };
        format!("{value:.digits$}")
    } else {
        format!("{value:.3e}")
    }
}

/// More bars than this are no picture any more, and do not fit on a screen.
const ROWS_MAX: usize = 40;

/// Leaves more than half of a narrow terminal to the bars.
const LABEL_COLUMNS_MAX: usize = 30;

/// Enough to see a trend, and little enough to see the query above it.
const LINE_ROWS: usize = 10;

/// Floats count without gaps up to here.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};

    fn result(columns: Vec<(&str, ArrayRef)>) -> QueryResult {
        let batch = RecordBatch::try_from_iter_with_nullable(
            columns.into_iter().map(|(name, array)| (name, array, true)),
        )
        .unwrap();
        QueryResult { schema: batch.schema(), batches: vec![batch] }
    }

    fn ints(values: impl IntoIterator<Item = Option<i64>>) -> ArrayRef {
        Arc::new(values.into_iter().collect::<Int64Array>())
    }

    fn texts(values: &[&str]) -> ArrayRef {
        Arc::new(StringArray::from(values.to_vec()))
    }

    /// Scenario: labels and whole numbers, one of them NULL.
    /// Guarantees: bars are as long as their values are large.
    #[test]
    fn bars_are_as_long_as_values_are_large() {
        let result = result(vec![
            ("stage", texts(&["embed", "llm", "rank"])),
            ("kind", texts(&["a", "b", "c"])),
            ("n", ints([Some(5), Some(10), None])),
        ]);
        let drawn = draw(&result, 3, None, 23).unwrap();
        assert_eq!(
            drawn,
            "n by stage\n\
             embed |#####         5\n\
             llm   |##########   10\n\
             rank  |           NULL\n"
        );
    }

    /// Scenario: values on both sides of zero.
    /// Guarantees: both are drawn from zero.
    #[test]
    fn negative_values_go_to_the_left() {
        let result = result(vec![("a", texts(&["x", "y"])), ("v", ints([Some(-10), Some(10)]))]);
        let drawn = draw(&result, 2, None, 18).unwrap();
        assert_eq!(drawn, "v by a\nx |#####      -10\ny |     #####  10\n");
    }

    /// Scenario: numbers over time.
    /// Guarantees: a line, the lowest at the bottom and the highest at the top.
    #[test]
    fn times_make_a_line() {
        let result = result(vec![
            ("started_unix_ns", ints([Some(1), Some(2), Some(3)])),
            ("ms", ints([Some(0), Some(9), None])),
        ]);
        let drawn = draw(&result, 3, None, 10).unwrap();
        let lines: Vec<&str> = drawn.lines().collect();
        assert_eq!(lines.first(), Some(&"ms by started_unix_ns"));
        assert_eq!(lines.get(1), Some(&"9 |  *"));
        assert_eq!(lines.get(2), Some(&"  |"));
        assert_eq!(lines.get(10), Some(&"0 |*"));
        assert_eq!(lines.get(11), Some(&"   1 ... 3"));
    }

    /// Scenario: more rows than fit, and labels from strangers.
    /// Guarantees: what was left out is said; no control character is drawn.
    #[test]
    fn what_is_left_out_is_said() {
        let labels: Vec<&str> = std::iter::repeat_n("a\u{1b}[31m", 90).collect();
        let result = result(vec![("name", texts(&labels)), ("v", ints((0..90).map(Some)))]);
        let drawn = draw(&result, 5000, None, 80).unwrap();
        assert_eq!(drawn.lines().count(), 1 + 40 + 1);
        assert!(drawn.ends_with("40 of 5000 rows; the rest was left out\n"), "{drawn}");
        assert!(!drawn.contains('\u{1b}'), "{drawn}");
    }

    /// Scenario: results without numbers, with one column, and with numbers no float adds up to.
    /// Guarantees: a reason, rows by their number, and no panic.
    #[test]
    fn odd_results_are_drawn_or_refused() {
        let words = result(vec![("a", texts(&["x"])), ("b", texts(&["y"]))]);
        assert!(draw(&words, 1, None, 80).unwrap_err().contains("no column of numbers"));
        let one = result(vec![("n", ints([Some(3)]))]);
        assert!(draw(&one, 1, None, 80).unwrap().starts_with("n by row\n1 |###"));
        let huge: ArrayRef =
            Arc::new(Float64Array::from(vec![f64::MAX, f64::MIN, f64::NAN, f64::INFINITY]));
        let huge = result(vec![("v", huge)]);
        for shape in [Shape::Bar, Shape::Line] {
            assert!(draw(&huge, 4, Some(shape), 80).is_ok());
        }
        let none = result(vec![("v", ints([]))]);
        assert!(draw(&none, 0, Some(Shape::Line), 80).unwrap().contains("no value"));
        assert!(draw(&none, 0, None, 80).is_ok());
    }
}
