//! Query results on a terminal.

use arrow::util::display::{ArrayFormatter, FormatOptions};
use retake_analyzer::QueryResult;

use crate::cli::Format;
use crate::output::{row, table};

/// A result as a table. Columns of numbers stand to the right.
pub(crate) fn result(result: &QueryResult) -> String {
    let names: Vec<String> = result.schema.fields().iter().map(|f| f.name().clone()).collect();
    let header: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut shown = table(Format::Table, &header, names.len());
    for (index, field) in result.schema.fields().iter().enumerate() {
        if field.data_type().is_numeric()
            && let Some(column) = shown.column_mut(index)
        {
            column.set_cell_alignment(comfy_table::CellAlignment::Right);
        }
    }
    let options = FormatOptions::default().with_null("NULL");
    let mut rows = 0;
    for batch in &result.batches {
        let columns: Vec<_> = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column.as_ref(), &options).ok())
            .collect();
        for index in 0..batch.num_rows() {
            rows += 1;
            if rows <= ROWS_MAX {
                row(
                    &mut shown,
                    columns.iter().map(|column| {
                        column.as_ref().map_or_else(String::new, |c| c.value(index).to_string())
                    }),
                );
            }
        }
    }
    let more = if rows > ROWS_MAX {
        format!(", the first {ROWS_MAX} shown; --format csv writes all")
    } else {
        String::new()
    };
    format!("{shown}\n{rows} rows{more}")
}

/// Nobody reads more on a terminal, and laying out a table needs all of its rows at once.
const ROWS_MAX: usize = 1000;
