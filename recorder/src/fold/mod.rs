//! Events to rows: the one place where spans are put together.
//!
//! The same fold serves the sealer, recovery and the live tail, so a row is the same whoever asks
//! for it and whenever. Spans that are still open are carried from one seal to the next.
//!
//! Three columns need to know a span's children, and children may be sealed before their parent:
//! `self_ns` (time not covered by the *union* of the children; the usual "minus the sum" is wrong
//! with parallel children), `is_error_origin` (one failure is one error, the deepest), and
//! `tokens_counted` (a call's tokens count once, at the leaf). What an open parent must remember
//! of its sealed children travels with it in [`OpenSpan`].

mod family;
mod open;
mod rows;

use std::collections::{HashMap, HashSet};

use retake_schemas::event::{Annotated, DropCause, Gap, Measured, Retrieved, Token};
use retake_schemas::manifest::Accounting;
use retake_schemas::tables::{
    DocumentRow, EventRow, MeasureRow, PayloadRow, Row, SpanRow, TableName, TokenRow,
};
use retake_schemas::{Event, EventBody, EventSeq, RunId, SpanKey, TraceId};

use open::ClosedSpan;
pub(crate) use open::OpenSpan;

/// Rows of a stretch of the event sequence.
#[derive(Debug, Default)]
pub struct FoldedRows {
    /// Spans.
    pub spans: Vec<SpanRow>,
    /// Arrivals of tokens.
    pub tokens: Vec<TokenRow>,
    /// Log lines.
    pub events: Vec<EventRow>,
    /// Documents.
    pub documents: Vec<DocumentRow>,
    /// Contents.
    pub payloads: Vec<PayloadRow>,
    /// Resource samples and losses.
    pub measures: Vec<MeasureRow>,
}

impl FoldedRows {
    /// A table's rows as one record batch.
    #[must_use]
    pub fn batch(&self, table: TableName) -> arrow::array::RecordBatch {
        match table {
            // Runs come from manifests; an empty batch keeps callers free of a special case.
            TableName::Runs => arrow::array::RecordBatch::new_empty(table.schema()),
            TableName::Spans => SpanRow::to_batch(&self.spans),
            TableName::Tokens => TokenRow::to_batch(&self.tokens),
            TableName::Events => EventRow::to_batch(&self.events),
            TableName::Documents => DocumentRow::to_batch(&self.documents),
            TableName::Payloads => PayloadRow::to_batch(&self.payloads),
            TableName::Measures => MeasureRow::to_batch(&self.measures),
        }
    }
}

/// What became of open spans when rows are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenSpans {
    /// They stay open and are carried on.
    Carry,
    /// They become rows with status `unfinished`, ending at the last event seen.
    Finish,
}

/// Folds events into rows.
#[derive(Debug)]
pub struct Fold {
    run_id: String,
    service: String,
    open: HashMap<SpanKey, OpenSpan>,
    closed: Vec<ClosedSpan>,
    /// Where a span closed since the last take stands in `closed`.
    closed_at: HashMap<SpanKey, usize>,
    rows: FoldedRows,
    traces: HashSet<TraceId>,
    next_seq: EventSeq,
    last_unix_ns: i64,
    spans_opened: u64,
    spans_closed: u64,
    /// Losses stated by the events applied; what earlier seals counted is in the manifest.
    stated_drops: HashMap<DropCause, u64>,
}

impl Fold {
    /// A fold for a run's events from `next_seq` on.
    #[must_use]
    pub fn new(run_id: &RunId, service: &str, next_seq: EventSeq) -> Self {
        Self {
            run_id: run_id.to_string(),
            service: service.to_owned(),
            open: HashMap::new(),
            closed: Vec::new(),
            closed_at: HashMap::new(),
            rows: FoldedRows::default(),
            traces: HashSet::new(),
            next_seq,
            last_unix_ns: i64::MIN,
            spans_opened: 0,
            spans_closed: 0,
            stated_drops: HashMap::new(),
        }
    }

    /// Takes over where the last seal stopped: its counts, and the spans that were open then.
    pub(crate) fn resume(&mut self, sealed: &Accounting, carried: Vec<OpenSpan>) {
        self.spans_opened = sealed.spans_opened;
        self.spans_closed = sealed.spans_closed;
        for span in carried {
            self.traces.insert(span.key().trace_id);
            self.open.insert(span.key(), span);
        }
    }

    /// Applies one event. Events must come in order; one below [`Fold::next_seq`] was already
    /// applied and changes nothing.
    pub fn apply(&mut self, event: &Event) {
        if event.seq < self.next_seq {
            return;
        }
        self.next_seq = EventSeq(event.seq.0 + 1);
        self.last_unix_ns = self.last_unix_ns.max(event.time_unix_ns);
        let time = event.time_unix_ns;
        match &event.body {
            EventBody::SpanOpened(opened) => {
                self.spans_opened += 1;
                self.traces.insert(opened.span.trace_id);
                let span = OpenSpan::new(time, opened);
                self.open.entry(opened.span).or_insert(span);
            }
            EventBody::SpanUpdated(update) => {
                if let Some(span) = self.span_mut(update.span) {
                    span.update(&update.attributes);
                }
            }
            EventBody::SpanClosed(closed) => {
                if let Some(mut span) = self.open.remove(&closed.span) {
                    self.spans_closed += 1;
                    span.close(time, closed);
                    self.closed_at.insert(closed.span, self.closed.len());
                    self.closed.push(ClosedSpan::from(span));
                }
            }
            EventBody::Usage(usage) => {
                if let Some(span) = self.span_mut(usage.span) {
                    span.usage(usage);
                }
            }
            EventBody::Token(token) => self.token(time, token),
            EventBody::Retrieved(retrieved) => self.retrieved(time, retrieved),
            EventBody::Annotated(line) => self.annotated(time, line),
            EventBody::Payload(payload) => self.rows.payloads.push(PayloadRow {
                run_id: self.run_id.clone(),
                digest: payload.digest.to_string(),
                bytes: i64::try_from(payload.bytes).unwrap_or(i64::MAX),
                media_type: payload.media_type.clone(),
                content: payload.content.clone(),
                truncated: payload.truncated,
                time_unix_ns: time,
            }),
            EventBody::Measured(measured) => self.measured(time, measured),
            EventBody::Gap(gap) => self.gap(time, gap),
            // The manifest holds these.
            EventBody::RunStarted(_) | EventBody::RunFinished(_) => {}
            // An event of a newer retake: readable, and not for us.
            _ => {}
        }
    }

    /// One past the last event applied.
    #[must_use]
    pub fn next_seq(&self) -> EventSeq {
        self.next_seq
    }

    /// Time of the latest event applied, ns since the Unix epoch.
    #[must_use]
    pub fn last_unix_ns(&self) -> Option<i64> {
        (self.last_unix_ns != i64::MIN).then_some(self.last_unix_ns)
    }

    /// Spans opened, and closed, by the events applied.
    #[must_use]
    pub fn span_counts(&self) -> (u64, u64) {
        (self.spans_opened, self.spans_closed)
    }

    /// Takes the losses that events applied since the last call state.
    pub(crate) fn take_stated_drops(&mut self) -> HashMap<DropCause, u64> {
        std::mem::take(&mut self.stated_drops)
    }

    /// The dotted scope of a span that is open now, for handlers that subscribe by scope.
    pub(crate) fn scope_of(&self, key: SpanKey) -> Option<&str> {
        self.open.get(&key).map(OpenSpan::target)
    }

    /// Whether anything would be sealed.
    #[must_use]
    pub fn has_rows(&self) -> bool {
        !self.closed.is_empty()
            || !self.rows.tokens.is_empty()
            || !self.rows.events.is_empty()
            || !self.rows.documents.is_empty()
            || !self.rows.payloads.is_empty()
            || !self.rows.measures.is_empty()
    }

    /// Takes the rows of everything applied since the last take.
    pub fn take(&mut self, open_spans: OpenSpans) -> FoldedRows {
        if open_spans == OpenSpans::Finish {
            let mut left: Vec<OpenSpan> = self.open.drain().map(|(_, span)| span).collect();
            left.sort_by_key(|span| (span.start_unix_ns(), span.key()));
            for mut span in left {
                span.abandon(self.last_unix_ns);
                self.closed_at.insert(span.key(), self.closed.len());
                self.closed.push(ClosedSpan::from(span));
            }
        }
        let closed = std::mem::take(&mut self.closed);
        let closed_at = std::mem::take(&mut self.closed_at);
        let mut rows = std::mem::take(&mut self.rows);
        rows.spans = self.span_rows(closed, &closed_at);
        rows
    }

    /// The spans that are open now, for the carry file.
    pub(crate) fn open_spans(&self) -> impl Iterator<Item = &OpenSpan> {
        self.open.values()
    }

    fn span_rows(
        &mut self,
        mut closed: Vec<ClosedSpan>,
        at: &HashMap<SpanKey, usize>,
    ) -> Vec<SpanRow> {
        family::settle(&mut closed, at, &mut self.open);
        let mut rows: Vec<SpanRow> =
            closed.into_iter().map(|span| span.into_row(&self.run_id, &self.service)).collect();
        // Clustered by trace, in order of the traces' first start: smaller files, and a trace is
        // read from neighbouring pages.
        let mut first_start: HashMap<String, i64> = HashMap::new();
        for row in &rows {
            first_start
                .entry(row.trace_id.clone())
                .and_modify(|start| *start = (*start).min(row.start_unix_ns))
                .or_insert(row.start_unix_ns);
        }
        rows.sort_by_cached_key(|row| {
            let trace_start = first_start.get(&row.trace_id).copied().unwrap_or_default();
            (trace_start, row.trace_id.clone(), row.start_unix_ns, row.span_id.clone())
        });
        rows
    }

    /// A span that is open, or was closed since the last take: late facts still find it.
    fn span_mut(&mut self, key: SpanKey) -> Option<&mut OpenSpan> {
        match self.closed_at.get(&key) {
            Some(index) => self.closed.get_mut(*index).map(ClosedSpan::span_mut),
            None => self.open.get_mut(&key),
        }
    }

    fn token(&mut self, time: i64, token: &Token) {
        if let Some(span) = self.span_mut(token.span) {
            span.token(time, token.count);
        }
        self.rows.tokens.push(TokenRow {
            run_id: self.run_id.clone(),
            trace_id: token.span.trace_id.to_string(),
            span_id: token.span.span_id.to_string(),
            token_index: i64::from(token.index),
            token_count: i64::from(token.count),
            time_unix_ns: time,
        });
    }

    fn retrieved(&mut self, time: i64, retrieved: &Retrieved) {
        if let Some(span) = self.span_mut(retrieved.span) {
            span.documents(retrieved.role, retrieved.documents.len());
        }
        for document in &retrieved.documents {
            self.rows.documents.push(DocumentRow {
                run_id: self.run_id.clone(),
                trace_id: retrieved.span.trace_id.to_string(),
                span_id: retrieved.span.span_id.to_string(),
                role: retrieved.role.as_str().to_owned(),
                rank: i64::from(document.rank),
                document_id: document.id.clone(),
                score: document.score,
                source: document.source.clone(),
                start_char: document.start_char,
                end_char: document.end_char,
                content_ref: document.content.map(|digest| digest.to_string()),
                time_unix_ns: time,
            });
        }
    }

    fn annotated(&mut self, time: i64, line: &Annotated) {
        if let Some(span) = line.span.and_then(|key| self.span_mut(key)) {
            span.annotate(line);
        }
        self.rows.events.push(EventRow {
            run_id: self.run_id.clone(),
            trace_id: line.span.map(|key| key.trace_id.to_string()),
            span_id: line.span.map(|key| key.span_id.to_string()),
            time_unix_ns: time,
            level: line.level.as_str().to_owned(),
            name: line.name.clone(),
            target: line.target.clone(),
            message: line.message.clone(),
            attributes: rows::json_object(&line.attributes),
        });
    }

    fn measured(&mut self, time: i64, measured: &Measured) {
        self.rows.measures.push(MeasureRow {
            run_id: self.run_id.clone(),
            time_unix_ns: time,
            name: measured.name.clone(),
            unit: measured.unit.clone(),
            value: measured.value,
            attributes: rows::json_object(&measured.attributes),
        });
    }

    fn gap(&mut self, time: i64, gap: &Gap) {
        *self.stated_drops.entry(gap.cause).or_default() += gap.dropped;
        self.rows.measures.push(MeasureRow {
            run_id: self.run_id.clone(),
            time_unix_ns: time,
            name: "retake.dropped".to_owned(),
            unit: "{event}".to_owned(),
            value: gap.dropped as f64,
            attributes: Some(format!(r#"{{"cause":"{}"}}"#, gap.cause.as_str())),
        });
    }

    /// Traces seen so far.
    #[must_use]
    pub fn traces(&self) -> u64 {
        self.traces.len() as u64
    }
}

#[cfg(test)]
mod tests;
