//! The answers of `\?`, `\d`, and `\df`.

use retake_analyzer::sql::{Callable, Relation};

use super::command::COMMANDS;
use super::editor::in_columns;
use crate::cli::Format;
use crate::output::{row, table};

/// Every command and key.
pub(crate) fn help() -> String {
    let mut text = String::from("A statement ends with ; and may have many lines.\n\n");
    for entry in COMMANDS {
        let call = format!("{} {}", entry.name, entry.arguments);
        text.push_str(&format!("  {call:<20} {}\n", entry.doc));
    }
    text.push_str(
        "\nTab completes, Up and Ctrl-R look through the history, Ctrl-C ends a query or gives up \
         a line.\nA line that begins with a blank is not kept in the history.\n",
    );
    text
}

/// Tables and views, one a line.
pub(crate) fn relations(relations: &[Relation]) -> String {
    let mut shown = table(Format::Table, &["name", "", "meaning"], 3);
    for relation in relations {
        let kind = if relation.view_sql.is_some() { "view" } else { "table" };
        let doc = relation.doc.split_inclusive(". ").next().unwrap_or_default();
        row(&mut shown, [relation.name, kind, doc.trim_end()].map(str::to_owned));
    }
    format!("{shown}\n\\d NAME shows the columns of one")
}

/// The columns of a table or view.
pub(crate) fn relation(relation: &Relation) -> String {
    let is_view = relation.view_sql.is_some();
    let header: &[&str] =
        if is_view { &["column", "type"] } else { &["column", "type", "meaning"] };
    let mut shown = table(Format::Table, header, 3);
    for column in &relation.columns {
        let cells = [Some(&column.name), Some(&column.type_name), column.doc.as_ref()];
        row(&mut shown, cells.into_iter().flatten().cloned());
    }
    let sql = relation.view_sql.map_or_else(String::new, |sql| format!("\n{sql}"));
    format!("{}: {}\n{shown}{sql}", relation.name, relation.doc)
}

/// Functions whose name holds `wanted`; without it, ours with their meaning and the names of all
/// others.
pub(crate) fn functions(functions: &[Callable], wanted: Option<&str>, width: usize) -> String {
    let wanted = wanted.map(str::to_lowercase);
    let is_shown = |function: &Callable| {
        wanted.as_ref().map_or(function.is_ours, |wanted| function.name.contains(wanted.as_str()))
    };
    let mut shown = table(Format::Table, &["function", "meaning"], 2);
    let mut count = 0;
    for function in functions.iter().filter(|function| is_shown(function)) {
        count += 1;
        row(&mut shown, [function.call.clone(), function.doc.clone()]);
    }
    if let Some(wanted) = wanted {
        return match count {
            0 => format!("no function has {wanted:?} in its name; \\df lists all"),
            _ => shown.to_string(),
        };
    }
    let others = functions.iter().filter(|function| !function.is_ours);
    let others: Vec<String> = others.map(|function| function.name.clone()).collect();
    let mut names = String::new();
    for some in others.chunks(90) {
        names.push_str(&in_columns(some, width));
    }
    format!("{shown}\n{names}\\df TEXT says what functions with TEXT in their name do")
}

#[cfg(test)]
mod tests {
    use super::*;
    use retake_analyzer::sql::RelationColumn;

    fn callable(name: &str, is_ours: bool) -> Callable {
        let call = format!("{name}(x)");
        Callable { name: name.to_owned(), call, doc: format!("Gives {name}."), is_ours }
    }

    /// Scenario: the help.
    /// Guarantees: every command is in it.
    #[test]
    fn the_help_names_every_command() {
        let help = help();
        assert!(COMMANDS.iter().all(|entry| help.contains(entry.name)));
    }

    /// Scenario: functions with and without a text.
    /// Guarantees: ours are explained, others named, and all can be asked for.
    #[test]
    fn functions_are_found_by_name() {
        let all = [callable("attr", true), callable("abs", false), callable("sum", false)];
        let shown = functions(&all, None, 80);
        assert!(shown.contains("Gives attr.") && shown.contains("abs  sum"), "{shown}");
        assert!(functions(&all, Some("AB"), 80).contains("Gives abs."));
        assert!(functions(&all, Some("zz"), 80).contains("no function"));
    }

    /// Scenario: a table and a view.
    /// Guarantees: columns of the table have their meaning, the view its query.
    #[test]
    fn relations_are_described() {
        let column = |doc: Option<&str>| RelationColumn {
            name: "run_id".to_owned(),
            type_name: "Utf8".to_owned(),
            doc: doc.map(str::to_owned),
        };
        let table = Relation {
            name: "runs",
            doc: "One row per run. More.",
            view_sql: None,
            columns: vec![column(Some("Id of the run."))],
        };
        let view = Relation {
            name: "v",
            doc: "One row.",
            view_sql: Some("SELECT 1"),
            columns: vec![column(None)],
        };
        assert!(relation(&table).contains("Id of the run."));
        assert!(relation(&view).ends_with("\nSELECT 1"));
        let list = relations(&[table, view]);
        assert!(list.contains("One row per run.") && !list.contains("More."), "{list}");
    }
}
