//! What there is to ask about, for people at a prompt: tables, views, columns, and functions.

use datafusion::logical_expr::Documentation;
use retake_schemas::tables::TableName;

use super::{AGGREGATES, FUNCTIONS, PRICE_FUNCTION, SKETCH_FUNCTIONS, VIEWS, table_functions};
use crate::error::AnalyzeError;
use crate::session::Analyzer;

/// A table or view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// Its name in SQL.
    pub name: &'static str,
    /// What one row of it is.
    pub doc: &'static str,
    /// The query behind a view; tables have none.
    pub view_sql: Option<&'static str>,
    /// Its columns, in order.
    pub columns: Vec<RelationColumn>,
}

/// A column of a table or view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelationColumn {
    /// Its name in SQL.
    pub name: String,
    /// Its type, as the engine calls it.
    pub type_name: String,
    /// Its meaning, for columns of tables; a view's query says what its columns are.
    pub doc: Option<String>,
}

/// A function that queries can call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Callable {
    /// Its name in SQL.
    pub name: String,
    /// How it is called.
    pub call: String,
    /// What it gives, as far as the engine says.
    pub doc: String,
    /// Whether it is one of retake's own.
    pub is_ours: bool,
}

impl Analyzer {
    /// Tables in the order of the reference, then views.
    ///
    /// # Errors
    /// A view cannot be planned, which is a bug.
    pub async fn relations(&self) -> Result<Vec<Relation>, AnalyzeError> {
        let mut relations: Vec<Relation> = TableName::ALL
            .into_iter()
            .map(|table| Relation {
                name: table.as_str(),
                doc: table_doc(table),
                view_sql: None,
                columns: table_columns(table),
            })
            .collect();
        for view in VIEWS {
            let schema = self.context().table_provider(view.name).await?.schema();
            let columns = schema.fields().iter().map(|field| RelationColumn {
                name: field.name().clone(),
                type_name: field.data_type().to_string(),
                doc: None,
            });
            relations.push(Relation {
                name: view.name,
                doc: view.doc,
                view_sql: Some(view.sql),
                columns: columns.collect(),
            });
        }
        Ok(relations)
    }

    /// Every function, retake's own first, then by name.
    #[must_use]
    pub fn functions(&self) -> Vec<Callable> {
        let state = self.context().state();
        let scalar = state.scalar_functions().iter().map(|(name, f)| (name, f.documentation()));
        let aggregate =
            state.aggregate_functions().iter().map(|(name, f)| (name, f.documentation()));
        let window = state.window_functions().iter().map(|(name, f)| (name, f.documentation()));
        let mut functions: Vec<Callable> = scalar
            .chain(aggregate)
            .chain(window)
            .map(|(name, documentation)| callable(name, documentation))
            .chain(table_functions().into_iter().map(|doc| Callable {
                name: doc.call.split('(').next().unwrap_or(doc.call).to_owned(),
                call: doc.call.to_owned(),
                doc: doc.doc.to_owned(),
                is_ours: true,
            }))
            .collect();
        functions.sort_by(|a, b| (!a.is_ours, &a.name).cmp(&(!b.is_ours, &b.name)));
        functions.dedup_by(|a, b| a.name == b.name);
        functions
    }
}

fn callable(name: &str, documentation: Option<&Documentation>) -> Callable {
    let mut ours =
        FUNCTIONS.iter().chain([&PRICE_FUNCTION]).chain(SKETCH_FUNCTIONS).chain(AGGREGATES);
    let ours = ours.find(|ours| ours.call.split('(').next() == Some(name));
    let (call, doc) = match (ours, documentation) {
        (Some(ours), _) => (ours.call.to_owned(), ours.doc.to_owned()),
        (None, Some(engine)) => (one_line(&engine.syntax_example), one_line(&engine.description)),
        (None, None) => (format!("{name}(...)"), String::new()),
    };
    Callable { name: name.to_owned(), call, doc, is_ours: ours.is_some() }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn table_columns(table: TableName) -> Vec<RelationColumn> {
    let columns = table.columns().into_iter().map(|column| RelationColumn {
        name: column.name.to_owned(),
        type_name: column.data_type.to_string(),
        doc: Some(column.doc),
    });
    columns.collect()
}

const fn table_doc(table: TableName) -> &'static str {
    match table {
        TableName::Runs => "One row per run: what was run, where, with which settings.",
        TableName::Spans => "One row per span: a timed interval of a trace, with its parent.",
        TableName::Tokens => "One row per arrival of output tokens.",
        TableName::Events => "One row per log line, exception, or other point in time.",
        TableName::Documents => "One row per document that passed through a stage.",
        TableName::Payloads => "One row per distinct content: prompts, answers, chunks.",
        TableName::Measures => "One row per resource sample.",
    }
}
