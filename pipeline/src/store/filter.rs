//! A filter as a condition in SQL.
//!
//! The text of the condition is made of what stands in this file; every value is bound. A statement
//! that uses it names the chunks `c` and the documents `d`.

use retake_schemas::settings::filter::{Comparison, Condition, FilterField, FilterValue};
use sqlx::{Database, Encode, QueryBuilder, Type};

/// Whose SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Sqlite,
    Postgres,
}

/// Appends a condition.
pub(super) fn push_condition<DB>(
    query: &mut QueryBuilder<DB>,
    condition: &Condition,
    dialect: Dialect,
) where
    DB: Database,
    for<'q> String: Encode<'q, DB> + Type<DB>,
    for<'q> i64: Encode<'q, DB> + Type<DB>,
{
    match condition {
        Condition::All(parts) => push_joined(query, parts, " AND ", dialect),
        Condition::Any(parts) => push_joined(query, parts, " OR ", dialect),
        Condition::Compare { field, comparison, value } => {
            push_comparison(query, *field, *comparison, value, dialect);
        }
        Condition::In { field: FilterField::Modified, values, is_negated } => {
            // A date is a span of time, so it is in a list of them if it is within one.
            let (comparison, word) = if *is_negated {
                (Comparison::NotEqual, " AND ")
            } else {
                (Comparison::Equal, " OR ")
            };
            query.push("(");
            for (place, value) in values.iter().enumerate() {
                query.push(if place == 0 { "" } else { word });
                push_comparison(query, FilterField::Modified, comparison, value, dialect);
            }
            query.push(")");
        }
        Condition::In { field, values, is_negated } => {
            query.push(column(*field, dialect));
            query.push(if *is_negated { " NOT IN (" } else { " IN (" });
            for (place, value) in values.iter().enumerate() {
                query.push(if place == 0 { "" } else { ", " });
                push_value(query, value);
            }
            query.push(")");
        }
        Condition::StartsWith { field, start } => {
            // No pattern, so that nothing in the text means anything but itself.
            query.push("substr(").push(column(*field, dialect)).push(", 1, length(");
            query.push_bind(start.clone()).push(")) = ").push_bind(start.clone());
        }
    }
}

fn push_joined<DB>(
    query: &mut QueryBuilder<DB>,
    parts: &[Condition],
    word: &'static str,
    dialect: Dialect,
) where
    DB: Database,
    for<'q> String: Encode<'q, DB> + Type<DB>,
    for<'q> i64: Encode<'q, DB> + Type<DB>,
{
    query.push("(");
    for (place, part) in parts.iter().enumerate() {
        query.push(if place == 0 { "" } else { word });
        push_condition(query, part, dialect);
    }
    query.push(if parts.is_empty() { "TRUE)" } else { ")" });
}

fn push_comparison<DB>(
    query: &mut QueryBuilder<DB>,
    field: FilterField,
    comparison: Comparison,
    value: &FilterValue,
    dialect: Dialect,
) where
    DB: Database,
    for<'q> String: Encode<'q, DB> + Type<DB>,
    for<'q> i64: Encode<'q, DB> + Type<DB>,
{
    let column = column(field, dialect);
    let FilterValue::Date { from_ms, until_ms, .. } = value else {
        query.push(column).push(" ").push(comparison.as_str()).push(" ");
        push_value(query, value);
        return;
    };
    let (from_ms, until_ms) = (*from_ms, *until_ms);
    match comparison {
        Comparison::Less => query.push(column).push(" < ").push_bind(from_ms),
        Comparison::AtLeast => query.push(column).push(" >= ").push_bind(from_ms),
        Comparison::AtMost => query.push(column).push(" < ").push_bind(until_ms),
        Comparison::More => query.push(column).push(" >= ").push_bind(until_ms),
        Comparison::Equal | Comparison::NotEqual => {
            let (first, word, second) = if comparison == Comparison::Equal {
                (" >= ", " AND ", " < ")
            } else {
                (" < ", " OR ", " >= ")
            };
            query.push("(").push(column).push(first).push_bind(from_ms).push(word);
            query.push(column).push(second).push_bind(until_ms).push(")")
        }
    };
}

fn push_value<DB>(query: &mut QueryBuilder<DB>, value: &FilterValue)
where
    DB: Database,
    for<'q> String: Encode<'q, DB> + Type<DB>,
    for<'q> i64: Encode<'q, DB> + Type<DB>,
{
    match value {
        FilterValue::Text(text) => query.push_bind(text.clone()),
        FilterValue::Whole(number) => query.push_bind(*number),
        FilterValue::Date { from_ms, .. } => query.push_bind(*from_ms),
    };
}

/// The column of a field. Texts are compared by their bytes, as SQLite does anyway.
fn column(field: FilterField, dialect: Dialect) -> &'static str {
    match (field, dialect) {
        (FilterField::Document, _) => "c.document_id",
        (FilterField::Path, Dialect::Sqlite) => "d.path",
        (FilterField::Path, Dialect::Postgres) => "(d.path COLLATE \"C\")",
        (FilterField::Kind, _) => "d.kind",
        (FilterField::Modified, _) => "d.modified_ms",
        (FilterField::Ordinal, _) => "c.ordinal",
        (FilterField::Tokens, _) => "c.tokens",
    }
}

#[cfg(test)]
mod tests {
    use retake_schemas::settings::Filter;
    use sqlx::{Postgres, Sqlite};

    use super::*;

    fn postgres(filter: &str) -> String {
        let filter: Filter = filter.parse().unwrap();
        let mut query = QueryBuilder::<Postgres>::new("");
        push_condition(&mut query, filter.condition(), Dialect::Postgres);
        query.into_string()
    }

    /// Guarantees: V2 - no value of a filter is part of a statement.
    #[test]
    fn every_value_is_bound() {
        for (filter, sql) in [
            ("document = 'x'' OR 1=1'", "c.document_id = $1"),
            ("kind in (text, code)", "d.kind IN ($1, $2)"),
            ("path starts with '%'", "substr((d.path COLLATE \"C\"), 1, length($1)) = $2"),
            (
                "modified = 2026-01-01 or tokens not in (1)",
                "((d.modified_ms >= $1 AND d.modified_ms < $2) OR c.tokens NOT IN ($3))",
            ),
            (
                "modified not in (2026-01-01, 2026-01-02)",
                "((d.modified_ms < $1 OR d.modified_ms >= $2) AND \
                 (d.modified_ms < $3 OR d.modified_ms >= $4))",
            ),
        ] {
            assert_eq!(postgres(filter), sql);
        }
        let filter: Filter = "ordinal >= 1 and modified <= 2026-01-01".parse().unwrap();
        let mut query = QueryBuilder::<Sqlite>::new("");
        push_condition(&mut query, filter.condition(), Dialect::Sqlite);
        assert_eq!(query.into_string(), "(c.ordinal >= ? AND d.modified_ms < ?)");
    }
}
