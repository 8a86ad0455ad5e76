//! The arguments of a table function: literals.

use datafusion::common::ScalarValue;
use datafusion::logical_expr::Expr;

/// Literals, in order.
#[derive(Debug)]
pub(super) struct Arguments(Vec<ScalarValue>);

impl Arguments {
    /// Reads the arguments of a call.
    pub(super) fn new(expressions: &[Expr]) -> Result<Self, String> {
        let literal = |expression: &Expr| match expression {
            Expr::Literal(value, _) => Ok(value.clone()),
            other => Err(format!("{other} is no literal; write a text in quotes, or a number")),
        };
        expressions.iter().map(literal).collect::<Result<_, _>>().map(Self)
    }

    /// The nth as text.
    pub(super) fn text(&self, at: usize, what: &str) -> Result<String, String> {
        self.optional_text(at)?.ok_or_else(|| format!("{what} is missing"))
    }

    /// The nth as text, if it is there.
    pub(super) fn optional_text(&self, at: usize) -> Result<Option<String>, String> {
        let Some(value) = self.0.get(at) else { return Ok(None) };
        match value.try_as_str() {
            Some(Some(text)) => Ok(Some(text.to_owned())),
            _ => Err(format!("{value} is no text; put it in quotes")),
        }
    }

    /// The nth as a whole number above zero, or a default.
    pub(super) fn count_or(&self, at: usize, default: usize) -> Result<usize, String> {
        let Some(value) = self.0.get(at) else { return Ok(default) };
        match value {
            ScalarValue::Int64(Some(count)) if *count > 0 => {
                Ok(usize::try_from(*count).unwrap_or(usize::MAX))
            }
            other => Err(format!("{other} is no whole number above zero")),
        }
    }

    /// Refuses more than `most`.
    pub(super) fn at_most(&self, most: usize) -> Result<(), String> {
        match self.0.len() > most {
            true => Err(format!("it takes at most {most} arguments")),
            false => Ok(()),
        }
    }
}
