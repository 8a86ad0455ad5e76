//! Events to rows: the one place where spans are put together.
//!
//! The same fold serves the sealer, recovery and the live tail, so a row is the same whoever asks
//! for it and whenever. Spans that are still open are carried from one seal to the next.
//!
//! Events come in two forms. [Records](lanes) are what instrumented threads write: they name spans
//! by numbers of their own and callsites by reference, and cost some tens of nanoseconds each.
//! General [`EventBody`]s carry their ids with them: from the dispatcher's `emit`, and from other
//! processes.

mod carried;
mod early;
mod held;
mod ids;
mod keys;
mod lanes;
mod settle;
mod slots;
mod taken;
mod waiting;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use retake_schemas::event::{
    Annotated, DropCause, Gap, Measured, Retrieved, SpanOpened, Status, Token,
};
use retake_schemas::manifest::Accounting;
use retake_schemas::tables::{DocumentRow, EventRow, MeasureRow, PayloadRow};
use retake_schemas::{Attributes, EventBody, EventSeq, RunId, SpanKey, TraceId};
use rustc_hash::FxBuildHasher;

use crate::attrs;
use crate::clock::Timeline;
use crate::symbols::{Sym, Symbols};
pub(crate) use carried::Carried;
use early::Early;
use held::{HeldSpan, OwnAttributes, Parent};
pub(crate) use ids::Ids;
use keys::{KeyRole, Keys};
use lanes::CallsiteFacts;
use slots::Slots;
pub(crate) use taken::{FoldedRows, TokenFact};
use waiting::Waiting;

/// What became of open spans when rows are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpenSpans {
    /// They stay open and are carried on.
    Carry,
    /// They become rows with status `unfinished`, ending at the last event seen.
    Finish,
}

/// Folds events into rows.
#[derive(Debug)]
pub(crate) struct Fold {
    run_id: String,
    service: String,
    ids: Ids,
    symbols: Arc<Symbols>,
    keys: Keys,
    callsites: Vec<Option<CallsiteFacts>>,
    /// Thread names by lane.
    threads: HashMap<u32, Sym, FxBuildHasher>,
    timeline: Timeline,
    slots: Slots,
    /// Open spans of records, by what the records call them.
    local: HashMap<u64, u32, FxBuildHasher>,
    /// Spans that came with ids, open or closed since the last take.
    explicit: HashMap<SpanKey, u32>,
    /// Slots of spans closed since the last take, in the order they closed.
    closed: Vec<u32>,
    /// No child closed after its parent since the last take.
    closed_in_order: bool,
    /// Attributes of the spans in `slots`.
    arena: Vec<u8>,
    rows: FoldedRows,
    /// Rows that were sealed, for their memory.
    spare: FoldedRows,
    /// Callsites whose spans turned out to be entered more than once.
    polled: Vec<u32>,
    explicit_traces: HashSet<TraceId>,
    waiting: Waiting,
    early: Early,
    local_traces: u64,
    next_seq: EventSeq,
    last_unix_ns: i64,
    spans_opened: u64,
    spans_closed: u64,
    spans_dropped: u64,
    /// Losses stated by the events applied; what earlier seals counted is in the manifest.
    stated_drops: HashMap<DropCause, u64>,
}

impl Fold {
    /// A fold for a run's events from `next_seq` on.
    pub(crate) fn new(
        run_id: &RunId,
        service: &str,
        next_seq: EventSeq,
        timeline: Timeline,
    ) -> Self {
        Self {
            run_id: run_id.to_string(),
            service: service.to_owned(),
            ids: Ids::new(run_id),
            symbols: Arc::default(),
            keys: Keys::default(),
            callsites: Vec::new(),
            threads: HashMap::default(),
            timeline,
            slots: Slots::default(),
            local: HashMap::default(),
            explicit: HashMap::new(),
            closed: Vec::new(),
            closed_in_order: true,
            arena: Vec::new(),
            rows: FoldedRows::new(run_id.as_str(), service),
            spare: FoldedRows::default(),
            polled: Vec::new(),
            explicit_traces: HashSet::new(),
            waiting: Waiting::default(),
            early: Early::default(),
            local_traces: 0,
            next_seq,
            last_unix_ns: i64::MIN,
            spans_opened: 0,
            spans_closed: 0,
            spans_dropped: 0,
            stated_drops: HashMap::new(),
        }
    }

    /// Keeps spans that came with ids back until nothing more was heard of their trace for
    /// `wait_ns`, so that a parent that comes after its children still finds them.
    pub(crate) fn wait_for_traces(&mut self, wait_ns: i64) {
        self.waiting = Waiting::new(wait_ns);
    }

    /// Takes over the counts and the latest time of the last seal.
    pub(crate) fn resume(&mut self, sealed: &Accounting, last_unix_ns: i64) {
        self.last_unix_ns = last_unix_ns;
        self.spans_opened = sealed.spans_opened;
        self.spans_closed = sealed.spans_closed;
        self.spans_dropped = sealed.spans_dropped;
    }

    /// Applies one event in its general form. Events must come in order; one below [`Fold::next_seq`] was already
    /// applied and changes nothing.
    #[cfg(test)]
    pub(crate) fn apply(&mut self, event: &retake_schemas::Event) {
        if event.seq < self.next_seq {
            return;
        }
        self.next_seq = EventSeq(event.seq.0 + 1);
        self.apply_body(event.time_unix_ns, &event.body);
    }

    pub(crate) fn apply_body(&mut self, time: i64, body: &EventBody) {
        self.last_unix_ns = self.last_unix_ns.max(time);
        match body {
            EventBody::SpanOpened(opened) => self.open_explicit(time, opened),
            EventBody::SpanUpdated(update) => self.tell(time, update.span, body),
            EventBody::SpanClosed(closed) => {
                let slot = self.slot_of(closed.span).filter(|slot| self.is_open(*slot));
                if let Some(slot) = slot {
                    if let Some(span) = self.slots.get_mut(slot) {
                        span.close_facts(closed);
                    }
                    self.close_slot(slot, time, closed.status);
                }
            }
            EventBody::Usage(usage) => self.tell(time, usage.span, body),
            EventBody::Token(token) => {
                self.tell(time, token.span, body);
                self.token_row(time, token);
            }
            EventBody::Retrieved(retrieved) => {
                self.tell(time, retrieved.span, body);
                self.document_rows(time, retrieved);
            }
            EventBody::Annotated(line) => {
                if let Some(span) = line.span {
                    self.tell(time, span, body);
                }
                self.event_row(time, line);
            }
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
    pub(crate) fn next_seq(&self) -> EventSeq {
        self.next_seq
    }

    /// Time of the latest event applied, ns since the Unix epoch.
    pub(crate) fn last_unix_ns(&self) -> Option<i64> {
        (self.last_unix_ns != i64::MIN).then_some(self.last_unix_ns)
    }

    /// The accounting of spans by the events applied: opened = closed + open + dropped.
    pub(crate) fn span_counts(&self) -> SpanCounts {
        SpanCounts {
            opened: self.spans_opened,
            closed: self.spans_closed,
            dropped: self.spans_dropped,
        }
    }

    /// Spans that are open now.
    pub(crate) fn open_count(&self) -> usize {
        self.slots.len() - self.closed.len()
    }

    /// Takes the losses that events applied since the last call state.
    pub(crate) fn take_stated_drops(&mut self) -> HashMap<DropCause, u64> {
        std::mem::take(&mut self.stated_drops)
    }

    /// The dotted scope of a span that came with ids, for handlers that subscribe by scope.
    fn scope_of(&self, key: SpanKey) -> Option<Sym> {
        self.slots.get(self.slot_of(key)?)?.target
    }

    /// The number of a text. Rows that are being sealed keep the table they were taken with.
    fn intern(&mut self, text: &str) -> Sym {
        match self.symbols.find(text) {
            Some(sym) => sym,
            None => Arc::make_mut(&mut self.symbols).intern(text),
        }
    }

    /// A symbol's text.
    pub(crate) fn text(&self, sym: Sym) -> &str {
        self.symbols.text(sym)
    }

    /// Callsites whose spans turned out, since the last call, to be entered more than once.
    pub(crate) fn take_polled(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.polled)
    }

    /// Bytes of attributes held.
    pub(crate) fn held_bytes(&self) -> usize {
        self.arena.len()
    }

    /// Traces seen so far.
    pub(crate) fn traces(&self) -> u64 {
        self.local_traces.saturating_add(self.explicit_traces.len() as u64)
    }

    fn open_explicit(&mut self, time: i64, opened: &SpanOpened) {
        self.explicit_traces.insert(opened.span.trace_id);
        self.waiting.touch(opened.span.trace_id, self.last_unix_ns);
        if self.explicit.contains_key(&opened.span) {
            return;
        }
        self.spans_opened = self.spans_opened.saturating_add(1);
        let mut span = HeldSpan::explicit(time, opened, Arc::make_mut(&mut self.symbols));
        let trace_id = opened.span.trace_id;
        let parent = opened.parent.map(|span_id| SpanKey { trace_id, span_id });
        if let Some(parent) = parent {
            match self.explicit.get(&parent) {
                Some(slot) => span.parent = Parent::Slot(*slot),
                None if self.waiting.is_sealed(&parent) => span.parent = Parent::Sealed,
                None => {}
            }
        }
        let end = u32::try_from(self.arena.len()).unwrap_or(u32::MAX);
        span.attributes = (end, end);
        let slot = self.slots.insert(span);
        self.explicit.insert(opened.span, slot);
        self.add_attributes(slot, &opened.attributes);
        self.tell_early(opened.span);
    }

    /// Appends attributes to a span's.
    fn add_attributes(&mut self, slot: u32, attributes: &Attributes) {
        let Some(mut roles) = self.move_to_end(slot) else { return };
        for (key, value) in attributes {
            let key = self.intern(key);
            roles |= self.keys.roles(key, &self.symbols);
            attrs::push_value(&mut self.arena, key, value);
        }
        self.set_end(slot, roles);
    }

    /// Sees to it that a span's attributes are the last in the arena, so that more can follow.
    /// Gives the roles so far.
    fn move_to_end(&mut self, slot: u32) -> Option<u8> {
        let span = self.slots.get_mut(slot)?;
        let (start, end) = (span.attributes.0 as usize, span.attributes.1 as usize);
        if end != self.arena.len() {
            span.attributes.0 = u32::try_from(self.arena.len()).unwrap_or(u32::MAX);
            self.arena.extend_from_within(start..end);
        }
        Some(span.roles)
    }

    fn set_end(&mut self, slot: u32, roles: u8) {
        if let Some(span) = self.slots.get_mut(slot) {
            span.attributes.1 = u32::try_from(self.arena.len()).unwrap_or(u32::MAX);
            span.roles = roles;
        }
    }

    fn close_slot(&mut self, slot: u32, time: i64, status: Status) {
        let Some(span) = self.slots.get_mut(slot) else { return };
        self.spans_closed = self.spans_closed.saturating_add(1);
        span.end_at(time);
        self.settle_status(slot, status);
        let Some(span) = self.slots.get(slot) else { return };
        let parent = span.parent;
        self.closed.push(slot);
        if let Parent::Slot(parent) = parent {
            self.closed_in_order &= self.is_open(parent);
        }
        // A parent that comes after its child is found when rows are taken.
        self.closed_in_order &= parent != Parent::Unknown;
    }

    fn settle_status(&mut self, slot: u32, reported: Status) {
        let Some(span) = self.slots.get_mut(slot) else { return };
        let (start, end) = (span.attributes.0 as usize, span.attributes.1 as usize);
        let own = OwnAttributes {
            bytes: self.arena.get(start..end).unwrap_or_default(),
            symbols: &self.symbols,
            keys: &self.keys,
        };
        span.settle_status(reported, &own);
    }

    /// A span that ended well may have heard of its failure since.
    fn reconsider(&mut self, slot: u32) {
        let ended_well = |span: &HeldSpan| span.end_unix_ns.is_some() && span.status == Status::Ok;
        if self.slots.get(slot).is_some_and(ended_well) {
            self.settle_status(slot, Status::Ok);
        }
    }

    fn is_open(&self, slot: u32) -> bool {
        self.slots.get(slot).is_some_and(|span| span.end_unix_ns.is_none())
    }

    /// A span that came with ids and is open, or was closed since the last take: late facts still
    /// find it.
    fn slot_of(&self, key: SpanKey) -> Option<u32> {
        self.explicit.get(&key).copied()
    }

    fn token_row(&mut self, time: i64, token: &Token) {
        self.rows.tokens.push(TokenFact {
            span: token.span,
            index: token.index,
            count: token.count,
            time_unix_ns: time,
        });
    }

    fn document_rows(&mut self, time: i64, retrieved: &Retrieved) {
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

    fn event_row(&mut self, time: i64, line: &Annotated) {
        self.rows.events.push(EventRow {
            run_id: self.run_id.clone(),
            trace_id: line.span.map(|key| key.trace_id.to_string()),
            span_id: line.span.map(|key| key.span_id.to_string()),
            time_unix_ns: time,
            level: line.level.as_str().to_owned(),
            name: line.name.clone(),
            target: line.target.clone(),
            message: line.message.clone(),
            attributes: taken::json_object(&line.attributes),
        });
    }

    fn measured(&mut self, time: i64, measured: &Measured) {
        self.rows.measures.push(MeasureRow {
            run_id: self.run_id.clone(),
            time_unix_ns: time,
            name: measured.name.clone(),
            unit: measured.unit.clone(),
            value: measured.value,
            attributes: taken::json_object(&measured.attributes),
        });
    }

    /// States a loss when no lane takes records any more.
    pub(crate) fn state_gap(&mut self, time: i64, gap: &Gap) {
        self.gap(time, gap);
    }

    fn gap(&mut self, time: i64, gap: &Gap) {
        let stated = self.stated_drops.entry(gap.cause).or_default();
        *stated = stated.saturating_add(gap.dropped);
        self.spans_opened = self.spans_opened.saturating_add(gap.spans);
        self.spans_dropped = self.spans_dropped.saturating_add(gap.spans);
        self.rows.measures.push(MeasureRow {
            run_id: self.run_id.clone(),
            time_unix_ns: time,
            name: "retake.dropped".to_owned(),
            unit: "{event}".to_owned(),
            value: gap.dropped as f64,
            attributes: Some(format!(
                r#"{{"cause":"{}","spans":{}}}"#,
                gap.cause.as_str(),
                gap.spans
            )),
        });
    }
}

/// See [`Fold::span_counts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SpanCounts {
    pub(crate) opened: u64,
    pub(crate) closed: u64,
    pub(crate) dropped: u64,
}

#[cfg(test)]
mod tests;
