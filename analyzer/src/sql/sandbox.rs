//! What SQL may do: ask, and nothing else.
//!
//! There is no way to name a file or an address (but for a budget file, by its name alone, where
//! whoever opened the runs says in which folder): tables are those that were registered, URL
//! tables stay off, and statements that define, write, copy or set are refused before they are
//! planned and once more on the plan.

use datafusion::common::DataFusionError;
use datafusion::dataframe::DataFrame;
use datafusion::execution::context::SQLOptions;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::Statement as SqlStatement;

use crate::error::AnalyzeError;

/// Parses and plans one query.
pub(crate) async fn plan(context: &SessionContext, sql: &str) -> Result<DataFrame, AnalyzeError> {
    if sql.len() > SQL_BYTES_MAX {
        return Err(AnalyzeError::TooLong { bytes: sql.len(), limit: SQL_BYTES_MAX });
    }
    let state = context.state();
    let dialect = state.config().options().sql_parser.dialect;
    let statement = state.sql_to_statement(sql, &dialect)?;
    if !is_query(&statement) {
        let statement: String = first_words(&statement.to_string());
        return Err(AnalyzeError::NotAQuery { statement });
    }
    let plan = state
        .statement_to_plan(statement)
        .await
        .map_err(|error| with_candidates(context, error))?;
    SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false)
        .verify_plan(&plan)?;
    Ok(context.execute_logical_plan(plan).await?)
}

/// Takes away functions that make much out of nothing.
pub(crate) fn remove_functions(context: &SessionContext) {
    for name in ["repeat", "rpad", "lpad", "generate_series", "range"] {
        context.deregister_udf(name);
        context.deregister_udtf(name);
    }
}

fn is_query(statement: &Statement) -> bool {
    match statement {
        Statement::Statement(statement) => matches!(
            **statement,
            SqlStatement::Query(_)
                | SqlStatement::Explain { .. }
                | SqlStatement::ExplainTable { .. }
                | SqlStatement::ShowTables { .. }
                | SqlStatement::ShowColumns { .. }
                | SqlStatement::ShowFunctions { .. }
                | SqlStatement::ShowVariable { .. }
        ),
        Statement::Explain(explain) => is_query(&explain.statement),
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => false,
    }
}

fn first_words(statement: &str) -> String {
    statement.split_whitespace().take(2).collect::<Vec<_>>().join(" ").chars().take(40).collect()
}

/// The engine names candidates for a column, but not for a table.
fn with_candidates(context: &SessionContext, error: DataFusionError) -> AnalyzeError {
    let text = error.strip_backtrace();
    let missing = text.split("table '").nth(1).filter(|rest| rest.contains("not found"));
    let Some(missing) = missing.and_then(|rest| rest.split('\'').next()) else {
        return error.into();
    };
    let missing = missing.strip_prefix("retake.public.").unwrap_or(missing);
    let schema = context.catalog("retake").and_then(|catalog| catalog.schema("public"));
    let mut names = schema.map(|schema| schema.table_names()).unwrap_or_default();
    names.sort();
    let message = format!("no table {missing:?}; there are {}", names.join(", "));
    AnalyzeError::Sql { message }
}

/// Longer than any question a person writes; short enough that nesting cannot exhaust the planner.
const SQL_BYTES_MAX: usize = 16 << 10;
