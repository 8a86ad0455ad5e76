//! What of a fold must outlive a seal: the spans that are open, and what the journal's numbers
//! mean, so that the journal behind them can go.

use retake_schemas::event::{Level, Status};
use retake_schemas::{Attributes, EventBody, SpanId, TraceId};
use serde::{Deserialize, Serialize};

use std::sync::Arc;

use super::Fold;
use super::held::{Busy, Family, HeldSpan, Parent, Rare, Verdict};
use crate::attrs;
use crate::clock::{Anchor, Timeline};
use crate::journal::CallsiteDef;
use crate::symbols::Sym;

/// One frame of the carry file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Carried {
    /// Where the clock stood.
    Clock {
        /// Ticks, and the wall time they were given.
        ticks: u64,
        /// Nanoseconds since the Unix epoch.
        unix_ns: i64,
        /// Rate.
        ns_per_tick: f64,
        /// Traces of spans recorded without ids, so far.
        traces: u64,
    },
    /// What a callsite's number means.
    Callsite(u32, CallsiteDef),
    /// A lane's thread.
    Thread(u32, String),
    /// A span that is open.
    Span(Box<CarriedSpan>),
    /// What was said, and when, of a span that has not come yet.
    Early(i64, EventBody),
}

/// An open span.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct CarriedSpan {
    local: u64,
    callsite: u32,
    trace_id: TraceId,
    span_id: SpanId,
    parent_id: Option<SpanId>,
    /// What its records call its parent, if that is open too.
    parent_local: Option<u64>,
    is_orphan: bool,
    name: String,
    target: Option<String>,
    level: Level,
    thread: Option<String>,
    source_file: Option<String>,
    source_line: Option<u32>,
    start_unix_ns: i64,
    /// `None` when nobody says; else sum, places entered in, since when. A span that was never
    /// left since it was opened has `since` at its start.
    busy: Option<(i64, u32, i64)>,
    is_throughout: bool,
    is_truncated: bool,
    attributes: Attributes,
    family: Family,
    rare: Option<Box<Rare>>,
    /// End and status of a span that is closed and waits for the rest of its trace.
    #[serde(default)]
    ended: Option<(i64, Status)>,
}

impl Fold {
    /// Everything a later fold needs to go on from here.
    pub(crate) fn carried(&self) -> Vec<Carried> {
        let (origin, ns_per_tick) = self.timeline.state();
        let mut carried = vec![Carried::Clock {
            ticks: origin.ticks,
            unix_ns: origin.unix_ns,
            ns_per_tick,
            traces: self.local_traces,
        }];
        let text = |sym: Sym| self.symbols.text(sym).to_owned();
        for (number, facts) in self.callsites.iter().enumerate() {
            let Some(facts) = facts else { continue };
            let definition = CallsiteDef {
                name: text(facts.name),
                target: facts.target.map(text).unwrap_or_default(),
                level: facts.level,
                file: facts.file.map(text),
                line: facts.line,
                fields: facts.fields.iter().copied().map(text).collect(),
            };
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            carried.push(Carried::Callsite(number, definition));
        }
        let mut threads: Vec<_> = self.threads.iter().collect();
        threads.sort_unstable_by_key(|(lane, _)| **lane);
        carried.extend(threads.into_iter().map(|(lane, name)| Carried::Thread(*lane, text(*name))));
        let waits = self.waiting.is_on();
        let open = self.slots.iter().filter(|span| waits || span.end_unix_ns.is_none());
        carried.extend(open.map(|span| Carried::Span(Box::new(self.carry(span)))));
        let early = self.early.iter().cloned();
        carried.extend(early.map(|(time, body)| Carried::Early(time, body)));
        carried
    }

    fn carry(&self, span: &HeldSpan) -> CarriedSpan {
        let text = |sym: Option<Sym>| sym.map(|sym| self.symbols.text(sym).to_owned());
        let range = span.attributes.0 as usize..span.attributes.1 as usize;
        let bytes = self.arena.get(range).unwrap_or_default();
        let parent_local = match span.parent {
            Parent::Slot(slot) => self.slots.get(slot).map(|parent| parent.local),
            _ => None,
        };
        CarriedSpan {
            local: span.local,
            callsite: span.callsite,
            trace_id: span.trace_id,
            span_id: span.span_id,
            parent_id: span.parent_id,
            parent_local,
            is_orphan: span.parent == Parent::Unknown,
            name: self.symbols.text(span.name).to_owned(),
            target: text(span.target),
            level: span.level,
            thread: text(span.thread),
            source_file: text(span.source_file),
            source_line: span.source_line,
            start_unix_ns: span.start_unix_ns,
            busy: match span.busy {
                Busy::Polled { sum_ns, entered, since_unix_ns } => {
                    Some((sum_ns, entered, since_unix_ns))
                }
                Busy::Throughout | Busy::Unknown => None,
            },
            is_throughout: span.busy == Busy::Throughout,
            is_truncated: span.is_truncated,
            attributes: attrs::to_attributes(bytes, &self.symbols),
            family: span.family.clone(),
            rare: span.rare.clone(),
            ended: span.end_unix_ns.map(|end| (end, span.status)),
        }
    }

    /// Goes on from what an earlier fold carried.
    pub(crate) fn take_over(&mut self, carried: Vec<Carried>) {
        let mut spans = Vec::new();
        for item in carried {
            match item {
                Carried::Clock { ticks, unix_ns, ns_per_tick, traces } => {
                    self.timeline = Timeline::from_state(Anchor { ticks, unix_ns }, ns_per_tick);
                    self.local_traces = traces;
                }
                Carried::Callsite(number, definition) => self.define(number, &definition),
                Carried::Thread(lane, name) => {
                    let name = self.intern(&name);
                    self.threads.insert(lane, name);
                }
                Carried::Span(span) => spans.push(span),
                Carried::Early(time, body) => self.keep_early(time, &body),
            }
        }
        let mut children = Vec::new();
        for span in spans {
            let parent_local = span.parent_local;
            let slot = self.take_over_span(*span);
            children.extend(parent_local.map(|parent| (slot, parent)));
        }
        for (slot, parent) in children {
            self.link(slot, parent);
        }
    }

    /// Finds the parent of a span that was carried with it.
    fn link(&mut self, slot: u32, parent_local: u64) {
        let parent = match parent_local {
            0 => self.slots.get(slot).and_then(|span| {
                let trace_id = span.trace_id;
                let span_id = span.parent_id?;
                self.explicit.get(&retake_schemas::SpanKey { trace_id, span_id }).copied()
            }),
            local => self.local.get(&local).copied(),
        };
        if let (Some(parent), Some(span)) = (parent, self.slots.get_mut(slot)) {
            span.parent = Parent::Slot(parent);
        }
    }

    fn take_over_span(&mut self, carried: CarriedSpan) -> u32 {
        let symbols = Arc::make_mut(&mut self.symbols);
        let mut text = |text: Option<&str>| text.map(|text| symbols.intern(text));
        let span = HeldSpan {
            local: carried.local,
            callsite: carried.callsite,
            trace_id: carried.trace_id,
            span_id: carried.span_id,
            parent_id: carried.parent_id,
            parent: match carried.parent_id {
                None if !carried.is_orphan => Parent::Root,
                _ if carried.is_orphan => Parent::Unknown,
                _ => Parent::Sealed,
            },
            target: text(carried.target.as_deref()),
            level: carried.level,
            thread: text(carried.thread.as_deref()),
            source_file: text(carried.source_file.as_deref()),
            source_line: carried.source_line,
            name: symbols.intern(&carried.name),
            start_unix_ns: carried.start_unix_ns,
            end_unix_ns: carried.ended.map(|(end, _)| end),
            busy: match carried.busy {
                Some((sum_ns, entered, since_unix_ns)) => {
                    Busy::Polled { sum_ns, entered, since_unix_ns }
                }
                None if carried.is_throughout => Busy::Throughout,
                None => Busy::Unknown,
            },
            status: carried.ended.map_or(Status::Unfinished, |(_, status)| status),
            is_truncated: carried.is_truncated,
            attributes: (0, 0),
            roles: 0,
            family: carried.family,
            rare: carried.rare,
            verdict: Verdict::default(),
        };
        let key = span.key();
        let slot = self.slots.insert(span);
        if carried.ended.is_some() {
            self.closed.push(slot);
            self.closed_in_order = false;
        }
        if carried.local == 0 {
            self.waiting.touch(key.trace_id, self.last_unix_ns);
            self.explicit.insert(key, slot);
            self.explicit_traces.insert(key.trace_id);
        } else {
            self.local.insert(carried.local, slot);
        }
        // An empty range anywhere is moved to the end of the arena first.
        self.add_attributes(slot, &carried.attributes);
        slot
    }
}
