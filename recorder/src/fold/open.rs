//! A span while its events come in.

use retake_schemas::event::{
    Annotated, DocumentRole, Level, SpanClosed, SpanOpened, Status, TokensSource, Usage,
};
use retake_schemas::{Attributes, SpanKey, Value, convention};
use serde::{Deserialize, Serialize};

/// What is known of a span that may still be open. Serialised into the carry file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct OpenSpan {
    pub(super) opened: SpanOpened,
    pub(super) start_unix_ns: i64,
    pub(super) end_unix_ns: Option<i64>,
    pub(super) attributes: Attributes,
    pub(super) busy_ns: Option<i64>,
    pub(super) status: Status,
    pub(super) message: Option<String>,
    pub(super) error_type: Option<String>,
    pub(super) usage: Option<Usage>,
    pub(super) first_token_unix_ns: Option<i64>,
    pub(super) last_token_unix_ns: Option<i64>,
    pub(super) tokens: u64,
    pub(super) documents: Option<i64>,
    pub(super) is_stream_extended: bool,
    pub(super) family: Family,
}

/// What a span must remember of its children, wherever those are by now.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Family {
    /// Intervals of the children, ns since the Unix epoch, merged where they touch.
    pub(super) covered: Vec<(i64, i64)>,
    /// Whether a child failed.
    pub(super) has_failed_child: bool,
    /// Tokens counted below this span: input, output.
    pub(super) counted_below: Option<(i64, i64)>,
}

impl Family {
    /// Adds a child's interval, keeping the list merged and sorted.
    pub(super) fn cover(&mut self, start: i64, end: i64) {
        if end <= start {
            return;
        }
        // Children mostly come in order of their end; only the tail of the list can touch them.
        let first = self.covered.partition_point(|(_, e)| *e < start);
        let last = self.covered.partition_point(|(s, _)| *s <= end);
        let merged = self
            .covered
            .get(first..last)
            .unwrap_or_default()
            .iter()
            .fold((start, end), |(low, high), (s, e)| (low.min(*s), high.max(*e)));
        self.covered.splice(first..last.max(first), [merged]);
    }

    /// How much of `start..end` the children cover, ns.
    pub(super) fn covered_ns(&self, start: i64, end: i64) -> i64 {
        self.covered.iter().map(|(s, e)| ((*e).min(end) - (*s).max(start)).max(0)).sum()
    }

    /// Adds tokens counted below.
    pub(super) fn count_below(&mut self, tokens: Option<(i64, i64)>) {
        if let Some((input, output)) = tokens {
            let (i, o) = self.counted_below.unwrap_or_default();
            self.counted_below = Some((i.saturating_add(input), o.saturating_add(output)));
        }
    }
}

impl OpenSpan {
    pub(super) fn new(time_unix_ns: i64, opened: &SpanOpened) -> Self {
        let mut opened = opened.clone();
        let attributes = std::mem::take(&mut opened.attributes);
        Self {
            opened,
            start_unix_ns: time_unix_ns,
            end_unix_ns: None,
            attributes,
            busy_ns: None,
            status: Status::Unfinished,
            message: None,
            error_type: None,
            usage: None,
            first_token_unix_ns: None,
            last_token_unix_ns: None,
            tokens: 0,
            documents: None,
            is_stream_extended: false,
            family: Family::default(),
        }
    }

    pub(crate) fn key(&self) -> SpanKey {
        self.opened.span
    }

    pub(super) fn parent(&self) -> Option<SpanKey> {
        let trace_id = self.opened.span.trace_id;
        self.opened.parent.map(|span_id| SpanKey { trace_id, span_id })
    }

    pub(super) fn target(&self) -> &str {
        &self.opened.target
    }

    pub(super) fn start_unix_ns(&self) -> i64 {
        self.start_unix_ns
    }

    /// Where the span ends: at its end, but a stream's span never before its last token.
    pub(super) fn end_unix_ns(&self) -> i64 {
        let end = self.end_unix_ns.unwrap_or(self.start_unix_ns).max(self.start_unix_ns);
        self.last_token_unix_ns.map_or(end, |token| end.max(token))
    }

    pub(super) fn update(&mut self, attributes: &Attributes) {
        self.attributes.extend(attributes.iter().cloned());
    }

    pub(super) fn close(&mut self, time_unix_ns: i64, closed: &SpanClosed) {
        self.end_unix_ns = Some(time_unix_ns);
        self.busy_ns = closed.busy_ns;
        self.status = self.final_status(closed.status);
        if closed.message.is_some() {
            self.message.clone_from(&closed.message);
        }
    }

    /// The status by what the span itself said: `otel.status_code`, an error logged in it, or a
    /// mark that it was given up.
    fn final_status(&self, reported: Status) -> Status {
        let word = |name: &str| {
            self.attributes.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value)
        };
        let code = word(convention::OTEL_STATUS_CODE).map(Value::to_text);
        let is_cancelled = word("retake.cancelled").and_then(Value::as_bool) == Some(true);
        match code.as_deref().map(str::to_ascii_uppercase).as_deref() {
            Some("ERROR") => Status::Error,
            Some("OK") => Status::Ok,
            _ if is_cancelled => Status::Cancelled,
            _ if self.error_type.is_some() => Status::Error,
            _ => reported,
        }
    }

    /// The run ended, or the process died, before the span did.
    pub(super) fn abandon(&mut self, last_unix_ns: i64) {
        self.end_unix_ns = Some(last_unix_ns.max(self.start_unix_ns));
        self.status = Status::Unfinished;
    }

    pub(super) fn usage(&mut self, usage: &Usage) {
        self.usage = Some(usage.clone());
    }

    pub(super) fn token(&mut self, time_unix_ns: i64, count: u32) {
        self.first_token_unix_ns.get_or_insert(time_unix_ns);
        self.last_token_unix_ns = Some(time_unix_ns);
        self.tokens += u64::from(count);
        if self.end_unix_ns.is_some_and(|end| time_unix_ns > end) {
            self.is_stream_extended = true;
        }
    }

    pub(super) fn documents(&mut self, role: DocumentRole, count: usize) {
        let counts = match role {
            DocumentRole::Retrieved | DocumentRole::RerankOutput => count,
            DocumentRole::RerankInput | DocumentRole::BatchMember => return,
        };
        let count = i64::try_from(counts).unwrap_or(i64::MAX);
        self.documents = Some(self.documents.unwrap_or(0).saturating_add(count));
    }

    /// A log line: an error logged inside a span makes the span one that failed, as
    /// `#[instrument(err)]` and OpenTelemetry's exception events mean it.
    pub(super) fn annotate(&mut self, line: &Annotated) {
        let find = |names: &[&str]| {
            line.attributes
                .iter()
                .find(|(key, _)| names.contains(&key.as_ref()))
                .map(|(_, value)| value.to_text())
        };
        let error = find(&["exception.message", "error"]);
        let is_exception =
            line.name == "exception" || (line.level == Level::Error && error.is_some());
        if is_exception {
            self.error_type =
                Some(find(&["exception.type", "error.type"]).unwrap_or_else(|| "error".to_owned()));
            self.message = error.or_else(|| line.message.clone());
        }
    }

    /// The tokens the span itself states: input, output, and who counted.
    pub(super) fn own_tokens(&self) -> Option<&Usage> {
        self.usage.as_ref().filter(|usage| usage.source != TokensSource::None)
    }
}

/// A span whose end is known.
#[derive(Debug)]
pub(super) struct ClosedSpan {
    pub(super) span: OpenSpan,
    /// Set by [`super::family::settle`].
    pub(super) verdict: Verdict,
}

/// What only the whole family can tell.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Verdict {
    pub(super) is_error_origin: bool,
    pub(super) is_counted: bool,
    pub(super) tokens_disagree: bool,
    pub(super) is_orphan: bool,
}

impl ClosedSpan {
    pub(super) fn span_mut(&mut self) -> &mut OpenSpan {
        &mut self.span
    }
}

impl From<OpenSpan> for ClosedSpan {
    fn from(span: OpenSpan) -> Self {
        Self { span, verdict: Verdict::default() }
    }
}
