//! How stages tell `tracing` about their end.
//!
//! A stage that is awaited can be dropped at any point, so its span is held by a guard that knows
//! whether the end was reached. Fields can only be recorded if the span declared them; the macros
//! here declare those that every stage needs.

use tracing::Span;

use crate::error::PipelineError;

/// A span with the fields for its end, all empty: `error.type`, `otel.status_code`,
/// `otel.status_description`, `retake.cancelled`.
macro_rules! stage_span {
    (parent: $parent:expr, $name:literal, $($fields:tt)*) => {
        tracing::info_span!(
            parent: $parent,
            $name,
            "error.type" = tracing::field::Empty,
            "otel.status_code" = tracing::field::Empty,
            "otel.status_description" = tracing::field::Empty,
            "retake.cancelled" = tracing::field::Empty,
            $($fields)*
        )
    };
}
pub(crate) use stage_span;

/// A stage under way. Dropped before [`Stage::end`], it was cancelled.
#[derive(Debug)]
pub(crate) struct Stage {
    span: Span,
    is_over: bool,
}

impl Stage {
    /// Watches over a span.
    pub(crate) fn new(span: Span) -> Self {
        Self { span, is_over: false }
    }

    /// The span, for recording results and as a parent.
    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    /// Ends the stage, and records the error if it failed.
    pub(crate) fn end<T>(mut self, result: Result<T, PipelineError>) -> Result<T, PipelineError> {
        if let Err(error) = &result {
            self.note(error);
        }
        self.is_over = true;
        result
    }

    /// Ends the stage with an error that is handled elsewhere.
    pub(crate) fn fail(mut self, error: &PipelineError) {
        self.note(error);
        self.is_over = true;
    }

    fn note(&self, error: &PipelineError) {
        if matches!(error, PipelineError::Cancelled) {
            self.span.record("retake.cancelled", true);
            return;
        }
        self.span.record("otel.status_code", "ERROR");
        self.span.record("error.type", error.error_type());
        self.span.record("otel.status_description", tracing::field::display(error));
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if !self.is_over {
            self.span.record("retake.cancelled", true);
        }
    }
}

/// Nanoseconds of a duration for a field; one longer than 292 years saturates.
pub(crate) fn nanos(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}
