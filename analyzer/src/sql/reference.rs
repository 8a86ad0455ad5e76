//! The SQL reference, generated so that it cannot disagree with the code.

use super::{AGGREGATES, FUNCTIONS, PRICE_FUNCTION, SKETCH_FUNCTIONS, VIEWS, table_functions};

/// Views and functions as Markdown; `docs/sql.md` is this text.
#[must_use]
pub fn sql_reference_markdown() -> String {
    let mut text = String::from(
        "# SQL reference\n\nGenerated from `analyzer/src/sql`. The tables are in `tables.md`; the \
         dialect is DataFusion's.\nOnly queries run: nothing can be defined, written, copied or \
         set.\n\n## Views\n",
    );
    for view in VIEWS {
        text.push_str(&format!(
            "\n### {}\n\n{}\n\n```sql\n{}\n```\n",
            view.name, view.doc, view.sql
        ));
    }
    let tables = table_functions();
    let scalars = FUNCTIONS.iter().chain([&PRICE_FUNCTION]).chain(SKETCH_FUNCTIONS);
    for (title, functions) in [
        ("Functions that give tables", tables.iter().collect::<Vec<_>>()),
        ("Aggregate functions", AGGREGATES.iter().collect()),
        ("Scalar functions", scalars.collect()),
    ] {
        text.push_str(&format!("\n## {title}\n"));
        for function in functions {
            text.push_str(&format!(
                "\n### {}\n\n{}\n\n```sql\n{}\n```\n",
                function.call, function.doc, function.example
            ));
        }
    }
    text
}
