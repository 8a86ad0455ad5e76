//! CSV that is safe to open in a spreadsheet.

use std::borrow::Cow;
use std::io::Write;

use super::{Written, text};
use crate::session::QueryResult;

/// RFC 4180 with a header. Spreadsheets execute cells that look like formulas, also quoted ones,
/// so text that begins like one gets an apostrophe in front (OWASP, "CSV Injection").
pub(super) fn write(result: &QueryResult, out: &mut dyn Write) -> Written {
    let mut csv = csv::WriterBuilder::new().from_writer(out);
    let fields = result.schema.fields();
    csv.write_record(fields.iter().map(|field| inert(field.name()).into_owned()))?;
    let numeric: Vec<bool> =
        fields.iter().map(|field| text::is_numeric(field.data_type())).collect();
    text::rows(result, |cells| {
        let cells = cells.iter().zip(&numeric).map(|(cell, numeric)| {
            if *numeric { Cow::Borrowed(cell.as_str()) } else { inert(cell) }
        });
        csv.write_record(cells.map(Cow::into_owned))?;
        Ok(())
    })?;
    csv.flush()?;
    Ok(())
}

fn inert(cell: &str) -> Cow<'_, str> {
    if cell.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        Cow::Owned(format!("'{cell}"))
    } else {
        Cow::Borrowed(cell)
    }
}
