//! Which runs a filter leaves, so that files of other runs are never opened.

use std::collections::BTreeSet;

use datafusion::logical_expr::{BinaryExpr, Expr, Operator};

/// The run ids that can satisfy all of `filters`; `None` when they do not say.
pub(super) fn run_ids(filters: &[Expr]) -> Option<BTreeSet<String>> {
    filters.iter().filter_map(allowed).reduce(|a, b| a.intersection(&b).cloned().collect())
}

/// Whether a filter is about run ids and nothing else. The files of a run hold its rows only, so such
/// a filter is met by leaving out the others.
pub(super) fn is_about_runs(filter: &Expr) -> bool {
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And | Operator::Or, right }) => {
            is_about_runs(left) && is_about_runs(right)
        }
        filter => allowed(filter).is_some(),
    }
}

fn allowed(filter: &Expr) -> Option<BTreeSet<String>> {
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
            Operator::And => match (allowed(left), allowed(right)) {
                (Some(a), Some(b)) => Some(a.intersection(&b).cloned().collect()),
                (found, None) | (None, found) => found,
            },
            Operator::Or => {
                let (mut a, b) = (allowed(left)?, allowed(right)?);
                a.extend(b);
                Some(a)
            }
            Operator::Eq => equal(left, right).or_else(|| equal(right, left)),
            _ => None,
        },
        Expr::InList(list) if !list.negated && is_run_id(&list.expr) => {
            list.list.iter().map(text).collect()
        }
        _ => None,
    }
}

fn equal(column: &Expr, value: &Expr) -> Option<BTreeSet<String>> {
    is_run_id(column).then(|| text(value)).flatten().map(|run_id| BTreeSet::from([run_id]))
}

fn is_run_id(expr: &Expr) -> bool {
    matches!(expr, Expr::Column(column) if column.name == "run_id")
}

fn text(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Literal(value, _) => value.try_as_str().flatten().map(str::to_owned),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::{col, lit};

    use super::*;

    fn ids(filter: Expr) -> Option<Vec<String>> {
        run_ids(&[filter]).map(|ids| ids.into_iter().collect())
    }

    #[test]
    fn equality_lists_and_their_combinations_name_runs() {
        let is = |id: &str| col("run_id").eq(lit(id));
        assert_eq!(ids(is("a")), Some(vec!["a".to_owned()]));
        assert_eq!(ids(lit("a").eq(col("run_id"))), Some(vec!["a".to_owned()]));
        assert_eq!(ids(is("a").or(is("b"))).map(|i| i.len()), Some(2));
        assert_eq!(ids(is("a").and(is("b"))), Some(vec![]));
        assert_eq!(ids(is("a").and(col("stage").eq(lit("b")))), Some(vec!["a".to_owned()]));
        let list = col("run_id").in_list(vec![lit("a"), lit("b")], false);
        assert_eq!(ids(list).map(|i| i.len()), Some(2));
    }

    #[test]
    fn a_filter_on_anything_else_is_still_to_be_met() {
        let run = || col("run_id").eq(lit("a"));
        assert!(is_about_runs(&run()));
        assert!(is_about_runs(&run().or(col("run_id").in_list(vec![lit("b")], false))));
        assert!(!is_about_runs(&run().and(col("stage").eq(lit("b")))));
        assert!(!is_about_runs(&run().or(col("stage").eq(lit("b")))));
        assert!(!is_about_runs(&col("run_id").not_eq(lit("a"))));
    }

    /// Scenario: filters that leave runs they do not name.
    /// Guarantees: no run is left out that could match.
    #[test]
    fn everything_else_prunes_nothing() {
        assert_eq!(ids(col("run_id").eq(lit("a")).or(col("stage").eq(lit("b")))), None);
        assert_eq!(ids(col("run_id").not_eq(lit("a"))), None);
        assert_eq!(ids(col("run_id").in_list(vec![lit("a")], true)), None);
        assert_eq!(ids(col("run_id").eq(col("name"))), None);
        assert_eq!(run_ids(&[]), None);
    }
}
