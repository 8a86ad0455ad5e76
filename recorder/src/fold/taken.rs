//! Rows taken out of a fold, on their way into segments or to a reader.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use retake_schemas::mapping::BUILT_IN;
use retake_schemas::tables::stored::logical;
use retake_schemas::tables::{
    DocumentRow, EventRow, MeasureRow, PayloadRow, Row, TableName, TokenRow,
};
use retake_schemas::{Attributes, SpanId, SpanKey, TraceId};

use rustc_hash::FxBuildHasher;

use super::held::{HeldSpan, Parent};
use super::slots::Slots;
use super::{Fold, OpenSpans};
use crate::columns::{Frequent, SpanColumns, SpanFacts};
use crate::symbols::Symbols;

/// Rows of a stretch of the event sequence.
#[derive(Debug, Default)]
pub(crate) struct FoldedRows {
    run_id: String,
    service: String,
    /// Spans, the slots of those that are rows, and what their texts need.
    spans: Slots,
    order: Vec<u32>,
    arena: Vec<u8>,
    symbols: Arc<Symbols>,
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
        self.order.len()
    }

    /// Forgets the rows and keeps the memory: a segment's spans are tens of megabytes, and new
    /// pages cost more than filling them.
    pub(crate) fn clear(&mut self) {
        self.spans.clear();
        self.order.clear();
        self.arena.clear();
        self.symbols = Arc::default();
        self.tokens.clear();
        self.events.clear();
        self.documents.clear();
        self.payloads.clear();
        self.measures.clear();
    }

    /// Columns for the spans, empty yet.
    pub(crate) fn empty_columns(&self) -> SpanColumns {
        SpanColumns::new(&self.run_id, &self.service, &BUILT_IN)
    }

    /// Puts the spans into columns of the same run, whose memory is used again, as a segment is to
    /// hold them: frequent attributes get columns of their own.
    pub(crate) fn fill_segment(&self, columns: &mut SpanColumns) {
        columns.clear();
        let packed = self.order.iter().map(|slot| self.spans.get(*slot));
        let packed = packed.map(|span| span.map_or(&[][..], |span| self.packed(span)));
        columns.choose(packed, &self.symbols, Frequent::IN_SEGMENT);
        self.fill(columns);
    }

    /// In the order of their rows: clustered by trace, in order of the traces' first start.
    /// Smaller files, and a trace is read from neighbouring pages.
    fn fill(&self, columns: &mut SpanColumns) {
        for slot in clustered(&self.spans, &self.order) {
            if let Some(span) = self.spans.get(slot) {
                self.push(span, columns);
            }
        }
    }

    fn packed(&self, span: &HeldSpan) -> &[u8] {
        let range = span.attributes.0 as usize..span.attributes.1 as usize;
        self.arena.get(range).unwrap_or_default()
    }

    fn push(&self, span: &HeldSpan, columns: &mut SpanColumns) {
        let (start, end) = (span.start_unix_ns, span.end());
        let rare = span.rare.as_deref();
        let attributes = self.packed(span);
        let flags = span.flags(attributes, &self.symbols);
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
            is_call: span.verdict.is_call,
            flags: &flags,
            error_type: rare.and_then(|rare| rare.error_type.as_deref()),
            message: rare.and_then(|rare| rare.message.as_deref()),
            first_token_unix_ns: rare.and_then(|rare| rare.first_token_unix_ns),
            usage: rare.and_then(|rare| rare.usage.as_ref()),
            documents: rare.and_then(|rare| rare.documents),
            attributes,
        };
        columns.push(&facts, &self.symbols);
    }

    /// A table's rows as one record batch.
    pub(crate) fn batch(&self, table: TableName) -> RecordBatch {
        match table {
            // Runs come from manifests; an empty batch keeps callers free of a special case.
            TableName::Runs => RecordBatch::new_empty(table.schema()),
            TableName::Spans => self.span_batch(),
            TableName::Tokens => TokenRow::to_batch(&self.token_rows()),
            TableName::Events => EventRow::to_batch(&self.events),
            TableName::Documents => DocumentRow::to_batch(&self.documents),
            TableName::Payloads => PayloadRow::to_batch(&self.payloads),
            TableName::Measures => MeasureRow::to_batch(&self.measures),
        }
    }

    fn span_batch(&self) -> RecordBatch {
        let mut columns = self.empty_columns();
        self.fill(&mut columns);
        match logical(columns.to_batch()) {
            Ok(batch) => batch,
            // Without columns of attributes there is nothing to merge.
            Err(error) => unreachable!("spans as a table: {error}"),
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
        let held = match open_spans {
            OpenSpans::Carry => self.hold_back(),
            OpenSpans::Finish => Vec::new(),
        };
        self.settle();
        let mut next = std::mem::take(&mut self.spare);
        next.run_id.clone_from(&self.run_id);
        next.service.clone_from(&self.service);
        let mut rows = std::mem::replace(&mut self.rows, next);
        rows.spans = std::mem::replace(&mut self.slots, std::mem::take(&mut self.rows.spans));
        rows.order = std::mem::replace(&mut self.closed, std::mem::take(&mut self.rows.order));
        rows.arena = std::mem::replace(&mut self.arena, std::mem::take(&mut self.rows.arena));
        rows.symbols = Arc::clone(&self.symbols);
        self.closed_in_order = held.is_empty();
        self.keep_open(&mut rows, &held);
        rows
    }

    /// Gives memory back that [`Fold::take`] gave away, of rows that were cleared.
    pub(crate) fn recycle(&mut self, cleared: FoldedRows) {
        self.spare = cleared;
    }

    /// Moves the spans that are open, and those that are held back, out of the rows, with their
    /// attributes.
    fn keep_open(&mut self, rows: &mut FoldedRows, held: &[u32]) {
        let held: HashSet<u32, FxBuildHasher> = held.iter().copied().collect();
        let stays = |slot: &u32| {
            rows.spans.get(*slot).is_some_and(|s| s.end_unix_ns.is_none()) || held.contains(slot)
        };
        self.explicit.retain(|_, slot| stays(slot));
        let mut open: Vec<u32> =
            self.local.values().chain(self.explicit.values()).copied().collect();
        open.sort_unstable();
        let mut moved: HashMap<u32, u32, FxBuildHasher> = HashMap::default();
        for slot in open {
            let Some(mut span) = rows.spans.take(slot) else { continue };
            let range = span.attributes.0 as usize..span.attributes.1 as usize;
            let start = u32::try_from(self.arena.len()).unwrap_or(u32::MAX);
            self.arena.extend_from_slice(rows.arena.get(range).unwrap_or_default());
            span.attributes = (start, u32::try_from(self.arena.len()).unwrap_or(u32::MAX));
            let new = self.slots.insert(span);
            moved.insert(slot, new);
            if held.contains(&slot) {
                self.closed.push(new);
            }
        }
        for slot in self.local.values_mut().chain(self.explicit.values_mut()) {
            *slot = moved.get(slot).copied().unwrap_or(*slot);
        }
        for span in self.slots.iter_mut() {
            if let Parent::Slot(parent) = span.parent {
                span.parent = moved.get(&parent).map_or(Parent::Sealed, |new| Parent::Slot(*new));
            }
        }
    }

    fn abandon_open(&mut self) {
        let last_unix_ns = self.last_unix_ns;
        let mut left: Vec<(i64, u32)> = Vec::new();
        for slot in 0..u32::try_from(self.slots.len()).unwrap_or(u32::MAX) {
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
}

/// The slots of closed spans in the order of their rows.
fn clustered(spans: &Slots, closed: &[u32]) -> Vec<u32> {
    // Two passes of counting instead of one sort of everything: traces are few.
    let mut numbers: HashMap<TraceId, u32, FxBuildHasher> = HashMap::default();
    let mut traces: Vec<(i64, TraceId, u32)> = Vec::new();
    let mut keys: Vec<Key> = Vec::with_capacity(closed.len());
    let mut last: Option<(TraceId, u32)> = None;
    for slot in closed {
        let Some(span) = spans.get(*slot) else { continue };
        let number = match last {
            Some((trace_id, number)) if trace_id == span.trace_id => number,
            _ => *numbers.entry(span.trace_id).or_insert_with(|| {
                traces.push((i64::MAX, span.trace_id, 0));
                u32::try_from(traces.len() - 1).unwrap_or(u32::MAX)
            }),
        };
        last = Some((span.trace_id, number));
        keys.push(Key {
            start: span.start_unix_ns,
            span: span.span_id,
            trace: number,
            slot: *slot,
        });
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
    let Some(some) = keys.first().copied() else { return Vec::new() };
    let mut rows = vec![some; keys.len()];
    for key in &keys {
        let Some(place) = next.get_mut(key.trace as usize) else { continue };
        if let Some(row) = rows.get_mut(*place as usize) {
            *row = *key;
        }
        *place += 1;
    }
    for group in rows.chunk_by_mut(|a, b| a.trace == b.trace) {
        group.sort_unstable_by_key(|key| (key.start, key.span));
    }
    rows.iter().map(|key| key.slot).collect()
}

/// What decides where a span's row stands; beside each other, so that sorting does not go through
/// the spans.
#[derive(Debug, Clone, Copy)]
struct Key {
    start: i64,
    span: SpanId,
    trace: u32,
    slot: u32,
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
