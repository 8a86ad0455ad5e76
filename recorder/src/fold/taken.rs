//! Rows taken out of a fold, on their way into segments or to a reader.

use std::collections::HashMap;

use arrow::array::RecordBatch;
use retake_schemas::mapping::BUILT_IN;
use retake_schemas::tables::{
    DocumentRow, EventRow, MeasureRow, PayloadRow, Row, TableName, TokenRow,
};
use retake_schemas::{Attributes, SpanKey, TraceId};

use super::held::{HeldSpan, Parent};
use super::{Fold, OpenSpans};
use crate::columns::{SpanColumns, SpanFacts};
use crate::symbols::Symbols;

/// Rows of a stretch of the event sequence.
#[derive(Debug, Default)]
pub(crate) struct FoldedRows {
    run_id: String,
    service: String,
    /// Spans, and what their texts need.
    spans: Vec<HeldSpan>,
    arena: Vec<u8>,
    symbols: Symbols,
    /// Arrivals of tokens.
    pub(crate) tokens: Vec<TokenFact>,
    /// Log lines.
    pub(crate) events: Vec<EventRow>,
    /// Documents.
    pub(crate) documents: Vec<DocumentRow>,
    /// Contents.
    pub(crate) payloads: Vec<PayloadRow>,
    /// Resource samples and losses.
    pub(crate) measures: Vec<MeasureRow>,
}

/// An arrival of tokens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TokenFact {
    pub(crate) span: SpanKey,
    pub(crate) index: u32,
    pub(crate) count: u32,
    pub(crate) time_unix_ns: i64,
}

impl FoldedRows {
    pub(super) fn new(run_id: &str, service: &str) -> Self {
        Self { run_id: run_id.to_owned(), service: service.to_owned(), ..Self::default() }
    }

    /// How many spans there are.
    pub(crate) fn span_count(&self) -> usize {
        self.spans.len()
    }

    /// The spans as columns, in the order of their rows: clustered by trace, in order of the
    /// traces' first start. Smaller files, and a trace is read from neighbouring pages.
    pub(crate) fn span_columns(&self) -> SpanColumns {
        let mut columns = SpanColumns::new(&self.run_id, &self.service, &BUILT_IN);
        self.fill(&mut columns);
        columns
    }

    /// The same into columns of the same run, whose memory is used again.
    pub(crate) fn fill(&self, columns: &mut SpanColumns) {
        columns.clear();
        for index in clustered(&self.spans) {
            if let Some(span) = self.spans.get(index as usize) {
                self.push(span, columns);
            }
        }
    }

    fn push(&self, span: &HeldSpan, columns: &mut SpanColumns) {
        let range = span.attributes.0 as usize..span.attributes.1 as usize;
        let (start, end) = (span.start_unix_ns, span.end());
        let rare = span.rare.as_deref();
        let flags = span.flags();
        let facts = SpanFacts {
            trace_id: span.trace_id,
            span_id: span.span_id,
            parent: span.parent_id,
            name: span.name,
            target: span.target,
            level: Some(span.level),
            thread: span.thread,
            source_file: span.source_file,
            source_line: span.source_line,
            start_unix_ns: start,
            end_unix_ns: end,
            busy_ns: span.busy_ns(),
            self_ns: end
                .saturating_sub(start)
                .saturating_sub(span.family.covered_ns(start, end))
                .max(0),
            status: span.status,
            is_error_origin: span.verdict.is_error_origin,
            tokens_counted: span.verdict.is_counted,
            flags: &flags,
            error_type: rare.and_then(|rare| rare.error_type.as_deref()),
            message: rare.and_then(|rare| rare.message.as_deref()),
            first_token_unix_ns: rare.and_then(|rare| rare.first_token_unix_ns),
            usage: rare.and_then(|rare| rare.usage.as_ref()),
            documents: rare.and_then(|rare| rare.documents),
            attributes: self.arena.get(range).unwrap_or_default(),
        };
        columns.push(&facts, &self.symbols);
    }

    /// A table's rows as one record batch.
    pub(crate) fn batch(&self, table: TableName) -> RecordBatch {
        match table {
            // Runs come from manifests; an empty batch keeps callers free of a special case.
            TableName::Runs => RecordBatch::new_empty(table.schema()),
            TableName::Spans => self.span_columns().to_batch(),
            TableName::Tokens => TokenRow::to_batch(&self.token_rows()),
            TableName::Events => EventRow::to_batch(&self.events),
            TableName::Documents => DocumentRow::to_batch(&self.documents),
            TableName::Payloads => PayloadRow::to_batch(&self.payloads),
            TableName::Measures => MeasureRow::to_batch(&self.measures),
        }
    }

    fn token_rows(&self) -> Vec<TokenRow> {
        self.tokens
            .iter()
            .map(|token| TokenRow {
                run_id: self.run_id.clone(),
                trace_id: token.span.trace_id.to_string(),
                span_id: token.span.span_id.to_string(),
                token_index: i64::from(token.index),
                token_count: i64::from(token.count),
                time_unix_ns: token.time_unix_ns,
            })
            .collect()
    }
}

impl Fold {
    /// Takes the rows of everything applied since the last take.
    pub(crate) fn take(&mut self, open_spans: OpenSpans) -> FoldedRows {
        if open_spans == OpenSpans::Finish {
            self.abandon_open();
        }
        self.find_late_parents();
        self.settle();
        let mut rows =
            std::mem::replace(&mut self.rows, FoldedRows::new(&self.run_id, &self.service));
        let closed = std::mem::take(&mut self.closed);
        self.closed_in_order = true;
        rows.spans.reserve(closed.len());
        for slot in &closed {
            let Some(span) = self.slots.remove(*slot) else { continue };
            if span.local == 0 {
                self.explicit.remove(&span.key());
            }
            rows.spans.push(span);
        }
        rows.arena = self.keep_open_attributes();
        rows.symbols = self.symbols.clone();
        rows
    }

    fn abandon_open(&mut self) {
        let last_unix_ns = self.last_unix_ns;
        let mut left: Vec<(i64, u32)> = Vec::new();
        for slot in 0..u32::try_from(self.slots.spans.len()).unwrap_or(u32::MAX) {
            if let Some(span) = self.slots.get_mut(slot).filter(|span| span.end_unix_ns.is_none()) {
                left.push((span.start_unix_ns, slot));
            }
        }
        left.sort_unstable();
        self.closed_in_order = left.is_empty() && self.closed_in_order;
        for (_, slot) in left {
            if let Some(span) = self.slots.get_mut(slot) {
                span.abandon(last_unix_ns);
                self.closed.push(slot);
            }
        }
        self.local.clear();
    }

    /// Spans with ids of their own may come before their parents.
    fn find_late_parents(&mut self) {
        if self.closed_in_order {
            return;
        }
        let explicit = &self.explicit;
        for span in self.slots.iter_mut() {
            if span.parent == Parent::Unknown
                && let Some(span_id) = span.parent_id
                && let Some(slot) = explicit.get(&SpanKey { trace_id: span.trace_id, span_id })
            {
                span.parent = Parent::Slot(*slot);
            }
        }
    }

    /// The arena of the closed spans; what open spans have in it moves to a new one.
    fn keep_open_attributes(&mut self) -> Vec<u8> {
        let mut kept = Vec::new();
        let Slots { spans, .. } = &mut self.slots;
        let is_gone: Vec<bool> = spans.iter().map(Option::is_none).collect();
        for span in spans.iter_mut().flatten() {
            let range = span.attributes.0 as usize..span.attributes.1 as usize;
            let start = u32::try_from(kept.len()).unwrap_or(u32::MAX);
            kept.extend_from_slice(self.arena.get(range).unwrap_or_default());
            span.attributes = (start, u32::try_from(kept.len()).unwrap_or(u32::MAX));
            if let Parent::Slot(parent) = span.parent
                && is_gone.get(parent as usize).copied().unwrap_or(true)
            {
                span.parent = Parent::Sealed;
            }
        }
        std::mem::replace(&mut self.arena, kept)
    }
}

use super::Slots;

/// The places of spans in the order of their rows.
fn clustered(spans: &[HeldSpan]) -> Vec<u32> {
    // Two passes of counting instead of one sort of everything: traces are few.
    let mut numbers: HashMap<TraceId, u32, rustc_hash::FxBuildHasher> = HashMap::default();
    let mut traces: Vec<(i64, TraceId, u32)> = Vec::new();
    let mut trace_of: Vec<u32> = Vec::with_capacity(spans.len());
    let mut last: Option<(TraceId, u32)> = None;
    for span in spans {
        let number = match last {
            Some((trace_id, number)) if trace_id == span.trace_id => number,
            _ => *numbers.entry(span.trace_id).or_insert_with(|| {
                traces.push((i64::MAX, span.trace_id, 0));
                u32::try_from(traces.len() - 1).unwrap_or(u32::MAX)
            }),
        };
        last = Some((span.trace_id, number));
        trace_of.push(number);
        if let Some((start, _, count)) = traces.get_mut(number as usize) {
            *start = (*start).min(span.start_unix_ns);
            *count += 1;
        }
    }
    let mut order: Vec<u32> = (0..u32::try_from(traces.len()).unwrap_or(u32::MAX)).collect();
    order.sort_unstable_by_key(|trace| traces.get(*trace as usize).map(|(s, id, _)| (*s, *id)));
    let mut next = vec![0u32; traces.len()];
    let mut at = 0;
    for trace in order {
        if let (Some(place), Some((.., count))) =
            (next.get_mut(trace as usize), traces.get(trace as usize))
        {
            *place = at;
            at += count;
        }
    }
    let mut rows = vec![0u32; spans.len()];
    for (index, trace) in trace_of.iter().enumerate() {
        let Some(place) = next.get_mut(*trace as usize) else { continue };
        if let Some(row) = rows.get_mut(*place as usize) {
            *row = u32::try_from(index).unwrap_or(u32::MAX);
        }
        *place += 1;
    }
    let key = |index: &u32| spans.get(*index as usize).map(|s| (s.start_unix_ns, s.span_id));
    let trace = |index: &u32| trace_of.get(*index as usize);
    for group in rows.chunk_by_mut(|a, b| trace(a) == trace(b)) {
        group.sort_unstable_by_key(key);
    }
    rows
}

/// Attributes as the text of a JSON object; `None` when there are none.
pub(super) fn json_object(attributes: &Attributes) -> Option<String> {
    if attributes.is_empty() {
        return None;
    }
    let object: serde_json::Map<String, serde_json::Value> =
        attributes.iter().map(|(key, value)| (key.to_string(), value.to_json())).collect();
    Some(serde_json::Value::Object(object).to_string())
}
