//! What is measured: a metric, of which rows, and by which groups.

use super::metric::Metric;
use super::quantity::Unit;

/// A metric, of which rows, and by which groups.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Measured {
    pub(super) text: String,
    pub(super) metric: Metric,
    pub(super) select: Option<String>,
    pub(super) per: Vec<String>,
}

impl Measured {
    /// Reads a metric such as `p95(duration)`. `select` and `per` are SQL over its rows.
    pub(crate) fn parse(
        text: &str,
        select: Option<String>,
        per: Vec<String>,
    ) -> Result<Self, String> {
        let metric = Metric::parse(text)?;
        let is_whole =
            matches!(metric, Metric::Share { .. } | Metric::LostSpans | Metric::DroppedEvents);
        if is_whole && (select.is_some() || !per.is_empty()) {
            return Err(format!(
                "metric {text:?}: it is of the whole run; neither a selection nor groups go with it"
            ));
        }
        Ok(Self { text: text.to_owned(), metric, select, per })
    }

    /// As it was written.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Which rows, if not all.
    pub(crate) fn select(&self) -> Option<&str> {
        self.select.as_deref()
    }

    /// What the rows are grouped by.
    pub(crate) fn per(&self) -> &[String] {
        &self.per
    }

    /// What its values count.
    pub(crate) fn unit(&self) -> Unit {
        self.metric.unit()
    }

    /// Whether rows are spans: a filter or a group speaks of them.
    pub(super) fn of_spans(&self) -> bool {
        self.select.is_some() || !self.per.is_empty()
    }
}
