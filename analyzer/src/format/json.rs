//! JSON, as one document or one object per line.

use std::io::Write;

use arrow::array::RecordBatch;
use arrow::json::WriterBuilder;
use arrow::json::writer::{JsonArray, LineDelimited};
use serde::Serialize;

use super::Written;
use crate::model::SCHEMA_VERSION;
use crate::session::QueryResult;

#[derive(Debug, Serialize)]
struct Column<'a> {
    name: &'a str,
    r#type: String,
}

/// `{"schema_version":1,"columns":[{"name","type"}],"rows":[{...}]}`
pub(super) fn document(result: &QueryResult, out: &mut dyn Write) -> Written {
    let columns: Vec<Column<'_>> = result
        .schema
        .fields()
        .iter()
        .map(|field| Column { name: field.name(), r#type: field.data_type().to_string() })
        .collect();
    let columns = serde_json::to_string(&columns)?;
    write!(out, "{{\"schema_version\":{SCHEMA_VERSION},\"columns\":{columns},\"rows\":")?;
    let builder = WriterBuilder::new().with_explicit_nulls(true);
    let mut rows = builder.build::<_, JsonArray>(&mut *out);
    rows.write_batches(&result.batches.iter().collect::<Vec<&RecordBatch>>())?;
    rows.finish()?;
    drop(rows);
    writeln!(out, "}}")?;
    Ok(())
}

/// One object per line.
pub(super) fn lines(result: &QueryResult, out: &mut dyn Write) -> Written {
    let mut rows = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(out);
    rows.write_batches(&result.batches.iter().collect::<Vec<&RecordBatch>>())?;
    rows.finish()?;
    Ok(())
}
