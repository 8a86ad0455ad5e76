//! Cells as text.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::session::QueryResult;

/// The result with every column name once.
pub(super) fn distinct_names(result: &QueryResult) -> Result<QueryResult, ArrowError> {
    let mut taken: HashSet<String> = HashSet::new();
    let mut fields: Vec<Field> = Vec::new();
    for field in result.schema.fields() {
        let name = field.name();
        let numbered = (2_usize..).map(|number| format!("{name}_{number}"));
        let free = std::iter::once(name.clone()).chain(numbered).find(|n| !taken.contains(n));
        let free = free.unwrap_or_else(|| name.clone());
        taken.insert(free.clone());
        fields.push(field.as_ref().clone().with_name(free));
    }
    let schema = Arc::new(Schema::new(fields));
    let batches = result
        .batches
        .iter()
        .map(|batch| {
            let options =
                arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            RecordBatch::try_new_with_options(
                Arc::clone(&schema),
                batch.columns().to_vec(),
                &options,
            )
        })
        .collect::<Result<_, _>>()?;
    Ok(QueryResult { schema, batches })
}

/// Calls `row` with the cells of every row; NULL is an empty text.
pub(super) fn rows(
    result: &QueryResult,
    mut row: impl FnMut(&[String]) -> Result<(), Box<dyn std::error::Error>>,
) -> Result<(), Box<dyn std::error::Error>> {
    let options = FormatOptions::default();
    for batch in &result.batches {
        let columns = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column, &options))
            .collect::<Result<Vec<_>, _>>()?;
        for index in 0..batch.num_rows() {
            let cells: Result<Vec<String>, _> =
                columns.iter().map(|column| column.value(index).try_to_string()).collect();
            row(&cells?)?;
        }
    }
    Ok(())
}

/// Whether a column holds numbers, so that its cells cannot be mistaken for formulas.
pub(super) fn is_numeric(data_type: &DataType) -> bool {
    data_type.is_numeric() || *data_type == DataType::Boolean
}
