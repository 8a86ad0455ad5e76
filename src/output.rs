//! Tables and JSON on stdout.

use std::io::Write;

use comfy_table::LineStyle;
use comfy_table::presets::{ASCII_MARKDOWN, UTF8_HORIZONTAL_ONLY};
use comfy_table::{CellAlignment, ContentArrangement, Table};
use retake_analyzer::format::Format as ResultFormat;
use serde::Serialize;

use crate::cli::Format;
use crate::failure::{Code, Failure};

/// A text without anything a terminal would act on: names in traces come from strangers. Control
/// characters become visible escapes, and so do the marks that reorder text.
pub(crate) fn inert(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        let is_bidi = matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if character == '\n' || character == '\t' || (!character.is_control() && !is_bidi) {
            out.push(character);
        } else {
            out.extend(character.escape_unicode());
        }
    }
    out
}

/// A table whose columns from `numbers_from` on are numbers.
pub(crate) fn table(format: Format, header: &[&str], numbers_from: usize) -> Table {
    let mut table = Table::new();
    let preset = if format == Format::Markdown {
        ASCII_MARKDOWN
    } else {
        // Rows without rules between them: more of a run fits on a screen.
        UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none())
    };
    table.load_style(preset).set_header(header);
    if format != Format::Markdown {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    for index in numbers_from..header.len() {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Adds a row whose texts may come from a trace.
pub(crate) fn row<I: IntoIterator<Item = String>>(table: &mut Table, cells: I) {
    table.add_row(cells.into_iter().map(|cell| inert(&cell).replace('\n', " ")));
}

/// Writes text to stdout.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(())
}

/// Writes one JSON document to stdout.
pub(crate) fn print_json(document: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(document)
        .map_err(|error| Failure::new(Code::Internal, format!("write JSON: {error}")))?;
    print(&text)
}

/// The format as the analyzer writes it; tables are for people, and ours.
pub(crate) fn result_format(format: Format) -> Option<ResultFormat> {
    match format {
        Format::Table => None,
        Format::Json => Some(ResultFormat::Json),
        Format::Ndjson => Some(ResultFormat::Ndjson),
        Format::Csv => Some(ResultFormat::Csv),
        Format::Markdown => Some(ResultFormat::Markdown),
        Format::Arrow => Some(ResultFormat::Arrow),
        Format::Parquet => Some(ResultFormat::Parquet),
    }
}

/// Refuses a format a verb has no use for.
pub(crate) fn unsupported(format: Format, verb: &str) -> Failure {
    let name = clap::ValueEnum::to_possible_value(&format);
    let name = name.as_ref().map_or("this", |value| value.get_name());
    Failure::new(Code::Usage, format!("write {verb} as {name}: use table, json or markdown"))
        .help("`retake sql` writes every format from any table or view")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantees: P2 - no control byte of a trace reaches the terminal.
    #[test]
    fn hostile_names_are_inert() {
        let shown = inert("a\u{1b}[31mred\u{7}\u{202e}b\u{9b}");
        assert!(!shown.chars().any(char::is_control), "{shown}");
        assert!(shown.contains("\\u{1b}[31mred"));
    }
}
