//! Query results on a terminal.

use arrow::util::display::{ArrayFormatter, FormatOptions};
use retake_analyzer::QueryResult;

use crate::cli::Format;
use crate::output::{inert, row, table};

/// A result as a table with the number of its rows; only the beginning of a long one.
pub(crate) fn result(result: &QueryResult) -> String {
    let rows = result.num_rows();
    let more = if rows > ROWS_MAX {
        format!(", the first {ROWS_MAX} shown; --format csv writes all")
    } else {
        String::new()
    };
    format!("{}\n{rows} rows{more}", first_rows(result, ROWS_MAX))
}

/// All rows as a table. Columns of numbers stand to the right.
pub(crate) fn rows(result: &QueryResult) -> String {
    first_rows(result, usize::MAX)
}

fn first_rows(result: &QueryResult, rows_max: usize) -> String {
    let names: Vec<String> = result.schema.fields().iter().map(|f| inert(f.name())).collect();
    let header: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut shown = table(Format::Table, &header, names.len());
    for (index, field) in result.schema.fields().iter().enumerate() {
        if field.data_type().is_numeric()
            && let Some(column) = shown.column_mut(index)
        {
            column.set_cell_alignment(comfy_table::CellAlignment::Right);
        }
    }
    let mut left = rows_max;
    each_row(result, |cells| {
        if left > 0 {
            left -= 1;
            row(&mut shown, cells);
        }
    });
    shown.to_string()
}

/// All rows, one line per column: for rows wider than the terminal.
pub(crate) fn expanded(result: &QueryResult) -> String {
    let names: Vec<String> =
        result.schema.fields().iter().map(|f| inert(f.name()).replace('\n', " ")).collect();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let (mut text, mut number) = (String::new(), 0);
    each_row(result, |cells| {
        number += 1;
        text.push_str(&format!("-- row {number} --\n"));
        for (name, cell) in names.iter().zip(cells) {
            text.push_str(&format!("{name:<width$} | {}\n", inert(&cell).replace('\n', " ")));
        }
    });
    text.trim_end().to_owned()
}

fn each_row(result: &QueryResult, mut take: impl FnMut(Vec<String>)) {
    let options = FormatOptions::default().with_null("NULL");
    for batch in &result.batches {
        let columns: Vec<_> = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column.as_ref(), &options).ok())
            .collect();
        for index in 0..batch.num_rows() {
            let cell = |column: &Option<ArrayFormatter<'_>>| {
                column.as_ref().map_or_else(String::new, |c| c.value(index).to_string())
            };
            take(columns.iter().map(cell).collect());
        }
    }
}

/// Nobody reads more on a terminal, and laying out a table needs all of its rows at once.
const ROWS_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, RecordBatch, StringArray};

    use super::*;

    /// Scenario: texts from strangers in cells and in the name of a column.
    /// Guarantees: P2 - no control character reaches the terminal, in either form.
    #[test]
    fn results_are_inert_in_every_form() {
        let cells: ArrayRef = Arc::new(StringArray::from(vec![Some("a\u{1b}[2J\nb"), None]));
        let batch =
            RecordBatch::try_from_iter_with_nullable([("x\u{1b}]0;t\u{7}", cells, true)]).unwrap();
        let result = QueryResult { schema: batch.schema(), batches: vec![batch] };
        for shown in [super::result(&result), rows(&result), expanded(&result)] {
            assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown}");
        }
        let lines = expanded(&result);
        assert!(
            lines.starts_with("-- row 1 --\nx\\u{1b}]0;t\\u{7} | a\\u{1b}[2J b\n-- row 2 --\n")
        );
        assert!(lines.ends_with("| NULL"), "{lines}");
    }
}
