//! A Markdown table.

use std::io::Write;

use super::{Written, text};
use crate::session::QueryResult;

/// Writes a table; numbers are aligned right.
pub(super) fn write(result: &QueryResult, out: &mut dyn Write) -> Written {
    let fields = result.schema.fields();
    let names: Vec<String> = fields.iter().map(|field| escaped(field.name())).collect();
    writeln!(out, "| {} |", names.join(" | "))?;
    let rule = fields.iter().map(|field| match text::is_numeric(field.data_type()) {
        true => "---:",
        false => "---",
    });
    writeln!(out, "| {} |", rule.collect::<Vec<_>>().join(" | "))?;
    text::rows(result, |cells| {
        let cells: Vec<String> = cells.iter().map(|cell| escaped(cell)).collect();
        writeln!(out, "| {} |", cells.join(" | "))?;
        Ok(())
    })
}

/// Cells are text, never markup: a name from a trace must not become a link or an image.
fn escaped(cell: &str) -> String {
    let mut text = String::with_capacity(cell.len());
    for c in cell.chars() {
        match c {
            '\n' | '\r' => text.push(' '),
            '<' => text.push_str("&lt;"),
            '&' => text.push_str("&amp;"),
            '|' | '\\' | '`' | '*' | '_' | '[' | ']' | '!' => {
                text.push('\\');
                text.push(c);
            }
            // Nor act on a terminal, nor reorder the text around it.
            c if c.is_control()
                || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
            {
                text.push('\u{fffd}');
            }
            c => text.push(c),
        }
    }
    text
}
