//! Records of lanes, into the fold.

use retake_schemas::event::{
    Annotated, DocumentRole, Level, Measured, Retrieved, RetrievedDocument, SpanClosed, SpanOpened,
    SpanUpdated, Status, Token, TokensSource, Usage,
};
use retake_schemas::{Attributes, Event, EventBody, EventSeq, SpanKey, Value, convention};

use super::held::{Busy, Family, HeldSpan, Parent, Verdict};
use super::{Fold, KeyRole, TokenFact};
use crate::attrs::{self, ValueRef};
use crate::clock::Anchor;
use crate::dispatcher::Told;
use crate::journal::record::{self, FieldIter, FieldValue, Kind, Record};
use crate::journal::{CallsiteDef, RecordPlace, decode_body};
use crate::symbols::Sym;

/// A callsite as the fold keeps it.
#[derive(Debug, Clone)]
pub(super) struct CallsiteFacts {
    pub(super) name: Sym,
    pub(super) target: Option<Sym>,
    pub(super) level: Level,
    pub(super) file: Option<Sym>,
    pub(super) line: Option<u32>,
    pub(super) fields: Vec<Sym>,
    /// What an event from here is; spans do not ask.
    special: Special,
}

/// Targets that mark events which are more than log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Special {
    None,
    Token,
    Usage,
    Document,
    Measure,
}

impl Fold {
    /// Applies a record. `told` receives the same as an event with its ids, for handlers.
    pub(crate) fn record(
        &mut self,
        place: RecordPlace,
        record: &Record<'_>,
        told: Option<&mut Told>,
    ) {
        let time = self.timeline.unix_ns(record.ticks);
        let seq = self.next_seq;
        if record.kind.is_event() {
            self.next_seq = EventSeq(seq.0.saturating_add(1));
            if record.kind != Kind::Body {
                self.last_unix_ns = self.last_unix_ns.max(time);
            }
        }
        let mut event_time = time;
        let wants = told.is_some();
        let scope = if wants { self.scope(record) } else { None };
        let body = match record.kind {
            Kind::Open => self.open(place, time, record, wants),
            Kind::Close => self.close(time, record, wants),
            Kind::Event => self.event(time, record, wants),
            Kind::Update => self.update(record, wants),
            Kind::Token => self.token_record(time, record, wants),
            Kind::Enter | Kind::Exit | Kind::Left => {
                self.enter_or_exit(time, record);
                None
            }
            Kind::Body => {
                let general = general(record);
                if let Some((time, body)) = &general {
                    event_time = *time;
                    self.apply_body(*time, body);
                }
                general.map(|(_, body)| body)
            }
            Kind::Callsite | Kind::Thread | Kind::Anchor => {
                self.bookkeeping(place, record);
                None
            }
        };
        if let (Some(told), Some(body)) = (told, body) {
            let scope = match &body {
                EventBody::SpanOpened(opened) => Some(self.intern(&opened.target)),
                EventBody::Annotated(line) => Some(self.intern(&line.target)),
                body => body.span().and_then(|key| self.scope_of(key)).or(scope),
            };
            told.events.push(Event { seq, time_unix_ns: event_time, body });
            told.scopes.push(scope);
        }
    }

    /// The scope of the span a record is about, while it is open.
    fn scope(&self, record: &Record<'_>) -> Option<Sym> {
        let slot = self.local.get(record.rest.first()?)?;
        self.slots.get(*slot)?.target
    }

    /// Goes on from a newer anchor of the clock: for records up to about then.
    pub(crate) fn advance_clock(&mut self, to: Anchor) {
        self.timeline.advance(to);
    }

    /// Everything before `ticks` is converted.
    pub(crate) fn rebase_clock(&mut self, ticks: u64) {
        self.timeline.rebase(ticks);
    }

    fn open(
        &mut self,
        place: RecordPlace,
        time: i64,
        record: &Record<'_>,
        wants: bool,
    ) -> Option<EventBody> {
        let &[local, parent, callsite, ..] = record.rest else { return None };
        let number = callsite as u32;
        let callsite = self.callsites.get(number as usize)?.clone_cheap()?;
        self.spans_opened = self.spans_opened.saturating_add(1);
        let span_id = self.ids.span_id(place);
        let parent_slot = (parent != 0).then(|| self.local.get(&parent).copied()).flatten();
        let parent_span = parent_slot.and_then(|slot| self.slots.get(slot));
        let (trace_id, parent_id) = match parent_span {
            Some(parent) => (parent.trace_id, Some(parent.span_id)),
            None => {
                self.local_traces = self.local_traces.saturating_add(1);
                (self.ids.trace_id(span_id), None)
            }
        };
        let parent = match (parent, parent_slot) {
            (0, _) => Parent::Root,
            (_, Some(slot)) => Parent::Slot(slot),
            (_, None) => Parent::Unknown,
        };
        let start = u32::try_from(self.arena.len()).unwrap_or(u32::MAX);
        let mut span = HeldSpan {
            local,
            callsite: number,
            trace_id,
            span_id,
            parent_id,
            parent,
            name: callsite.name,
            target: callsite.target,
            level: callsite.level,
            thread: self.threads.get(&place.lane).copied(),
            source_file: callsite.file,
            source_line: callsite.line,
            start_unix_ns: time,
            end_unix_ns: None,
            busy: Busy::Polled { sum_ns: 0, entered: 0, since_unix_ns: time },
            status: Status::Unfinished,
            is_truncated: record.flags & record::FLAG_TRUNCATED != 0,
            attributes: (start, start),
            roles: 0,
            family: Family::default(),
            rare: None,
            verdict: Verdict::default(),
        };
        let words = record.rest.get(2..).unwrap_or_default();
        span.roles = self.push_fields(number, record::fields(words, callsite.fields));
        span.attributes.1 = u32::try_from(self.arena.len()).unwrap_or(u32::MAX);
        if span.roles & KeyRole::NAME != 0 {
            self.rename(&mut span);
        }
        let opened = wants.then(|| EventBody::SpanOpened(Box::new(self.opened(&span))));
        let slot = self.slots.insert(span);
        if let Some(unended) = self.local.insert(local, slot) {
            // The program uses the number again, so the end of its last use was lost.
            self.end_unseen(unended, time);
        }
        opened
    }

    /// The fields of a record as attributes, appended to the arena. Gives their roles.
    fn push_fields(&mut self, callsite: u32, fields: FieldIter<'_>) -> u8 {
        let Some(Some(callsite)) = self.callsites.get(callsite as usize) else { return 0 };
        let mut roles = 0;
        for (index, value) in fields {
            let Some(key) = callsite.fields.get(index).copied() else { continue };
            roles |= self.keys.roles(key, &self.symbols);
            let value = match value {
                FieldValue::U64(v) => match i64::try_from(v) {
                    Ok(v) => ValueRef::Int(v),
                    Err(_) => {
                        attrs::push(&mut self.arena, key, ValueRef::Str(&v.to_string()));
                        continue;
                    }
                },
                FieldValue::I64(v) => ValueRef::Int(v),
                FieldValue::F64(v) => ValueRef::Float(v),
                FieldValue::Bool(v) => ValueRef::Bool(v),
                FieldValue::Str(text) => ValueRef::Str(text),
            };
            attrs::push(&mut self.arena, key, value);
        }
        roles
    }

    /// `otel.name` wins over the callsite's name.
    fn rename(&mut self, span: &mut HeldSpan) {
        let range = span.attributes.0 as usize..span.attributes.1 as usize;
        let bytes = self.arena.get(range).unwrap_or_default();
        let name = attrs::iter(bytes)
            .filter(|(key, _)| self.symbols.text(*key) == convention::OTEL_NAME)
            .last()
            .map(|(_, value)| value.to_value().to_text());
        if let Some(name) = name {
            span.name = self.intern(&name);
        }
    }

    fn end_unseen(&mut self, slot: u32, time: i64) {
        self.spans_closed = self.spans_closed.saturating_add(1);
        self.closed_in_order = false;
        if let Some(span) = self.slots.get_mut(slot) {
            span.abandon(time);
            self.closed.push(slot);
        }
    }

    fn close(&mut self, time: i64, record: &Record<'_>, wants: bool) -> Option<EventBody> {
        let slot = self.local.remove(record.rest.first()?)?;
        if record.flags & record::FLAG_THROUGHOUT != 0
            && let Some(span) = self.slots.get_mut(slot)
        {
            // The thread that opened and closed it does not know of entries on other threads.
            let never_entered = matches!(span.busy, Busy::Polled { sum_ns: 0, entered: 0, .. });
            span.busy = if never_entered { Busy::Throughout } else { Busy::Unknown };
        }
        self.close_slot(slot, time, Status::Ok);
        if !wants {
            return None;
        }
        let span = self.slots.get(slot)?;
        Some(EventBody::SpanClosed(SpanClosed {
            span: span.key(),
            busy_ns: span.busy_ns(),
            status: span.status,
            message: None,
        }))
    }

    fn update(&mut self, record: &Record<'_>, wants: bool) -> Option<EventBody> {
        let (local, words) = record.rest.split_first()?;
        let slot = self.local.get(local).copied()?;
        let callsite = self.slots.get(slot)?.callsite;
        let mut roles = self.move_to_end(slot)?;
        let before = self.arena.len();
        roles |= self.push_fields(callsite, record::inline_fields(words));
        self.set_end(slot, roles);
        if record.flags & record::FLAG_TRUNCATED != 0 {
            self.slots.get_mut(slot)?.is_truncated = true;
        }
        wants.then(|| {
            let added = self.arena.get(before..).unwrap_or_default();
            let attributes = attrs::to_attributes(added, &self.symbols);
            let span = self.slots.get(slot)?.key();
            Some(EventBody::SpanUpdated(SpanUpdated { span, attributes }))
        })?
    }

    fn enter_or_exit(&mut self, time: i64, record: &Record<'_>) {
        let slot = record.rest.first().and_then(|local| self.local.get(local)).copied();
        let Some(span) = slot.and_then(|slot| self.slots.get_mut(slot)) else { return };
        match record.kind {
            Kind::Enter => span.enter(time),
            Kind::Exit => span.exit(time),
            _ => {
                span.busy = Busy::Unknown;
                self.polled.push(span.callsite);
            }
        }
    }

    fn token_record(&mut self, time: i64, record: &Record<'_>, wants: bool) -> Option<EventBody> {
        let &[local, counts, ..] = record.rest else { return None };
        let slot = self.local.get(&local).copied()?;
        let span = self.slots.get_mut(slot)?;
        let (index, count) = (counts as u32, (counts >> 32) as u32);
        span.token(time, count);
        let span = span.key();
        self.rows.tokens.push(TokenFact { span, index, count, time_unix_ns: time });
        wants.then_some(EventBody::Token(Token { span, index, count }))
    }

    fn event(&mut self, time: i64, record: &Record<'_>, wants: bool) -> Option<EventBody> {
        let &[local, callsite, ..] = record.rest else { return None };
        let number = callsite as u32;
        let callsite = self.callsites.get(number as usize)?.clone_cheap()?;
        let slot = (local != 0).then(|| self.local.get(&local).copied()).flatten();
        if slot.is_none() && local != 0 && record.flags & record::FLAG_IF_KNOWN != 0 {
            return None;
        }
        let key = slot.and_then(|slot| self.slots.get(slot)).map(HeldSpan::key);
        let before = self.arena.len();
        let words = record.rest.get(1..)?;
        self.push_fields(number, record::fields(words, callsite.fields));
        let added = self.arena.get(before..).unwrap_or_default();
        let fields = attrs::to_attributes(added, &self.symbols);
        self.arena.truncate(before);
        let body = self.event_body(&callsite, key, fields)?;
        match &body {
            EventBody::Annotated(line) => {
                if let Some(span) = slot.and_then(|slot| self.slots.get_mut(slot)) {
                    span.annotate(line);
                }
                self.event_row(time, line);
            }
            EventBody::Token(token) => {
                let span = slot.and_then(|slot| self.slots.get_mut(slot))?;
                span.token(time, token.count);
                let Token { span, index, count } = *token;
                self.rows.tokens.push(TokenFact { span, index, count, time_unix_ns: time });
            }
            EventBody::Usage(usage) => {
                let span = slot.and_then(|slot| self.slots.get_mut(slot))?;
                span.rare().usage = Some(usage.clone());
            }
            EventBody::Retrieved(retrieved) => {
                let span = slot.and_then(|slot| self.slots.get_mut(slot))?;
                span.documents(retrieved.role, retrieved.documents.len());
                self.document_rows(time, retrieved);
            }
            EventBody::Measured(measured) => self.measured(time, measured),
            _ => {}
        }
        wants.then_some(body)
    }

    /// The event a `tracing` event stands for; `None` for one of ours that makes no sense outside
    /// a span.
    fn event_body(
        &self,
        callsite: &CheapFacts,
        span: Option<SpanKey>,
        mut fields: Attributes,
    ) -> Option<EventBody> {
        let find = |name: &str| fields.iter().rev().find(|(key, _)| key == name).map(|(_, v)| v);
        let int = |name: &str| find(name).and_then(Value::as_int);
        let small = |name: &str| int(name).and_then(|n| u32::try_from(n).ok());
        let text = |name: &str| find(name).map(Value::to_text);
        Some(match callsite.special {
            Special::Token => EventBody::Token(Token {
                span: span?,
                index: small("index")?,
                count: small("count").unwrap_or(1),
            }),
            Special::Usage => EventBody::Usage(Usage {
                span: span?,
                source: text("source").and_then(|s| TokensSource::parse(&s)).unwrap_or_default(),
                input: int("input"),
                output: int("output"),
                cache_read: int("cache_read"),
                cache_write: int("cache_write"),
                reasoning: int("reasoning"),
            }),
            Special::Document => EventBody::Retrieved(Retrieved {
                span: span?,
                role: text("role")
                    .and_then(|role| DocumentRole::parse(&role))
                    .unwrap_or(DocumentRole::Retrieved),
                documents: vec![RetrievedDocument {
                    rank: small("rank").unwrap_or_default(),
                    id: text("id").unwrap_or_default(),
                    score: find("score").and_then(Value::as_float),
                    source: text("source"),
                    start_char: int("start_char"),
                    end_char: int("end_char"),
                    content: text("content").and_then(|text| crate::capture::digest_in(&text)),
                }],
            }),
            Special::Measure => EventBody::Measured(Measured {
                name: text("name")?,
                unit: text("unit").unwrap_or_default(),
                value: find("value").and_then(Value::as_float)?,
                attributes: Vec::new(),
            }),
            Special::None => {
                let message = text("message");
                fields.retain(|(key, _)| key != "message");
                EventBody::Annotated(Annotated {
                    span,
                    level: callsite.level,
                    name: self.symbols.text(callsite.name).to_owned(),
                    target: callsite.target.map(|t| self.symbols.text(t)).unwrap_or("").to_owned(),
                    message,
                    attributes: fields,
                })
            }
        })
    }

    fn bookkeeping(&mut self, place: RecordPlace, record: &Record<'_>) {
        if record.kind == Kind::Anchor {
            if let Some(unix_ns) = record.rest.first() {
                let unix_ns = unix_ns.cast_signed();
                self.timeline.pass(Anchor { ticks: record.ticks, unix_ns });
            }
            return;
        }
        let Some((number, bytes)) = record::payload(record) else { return };
        if record.kind == Kind::Thread {
            let name = String::from_utf8_lossy(bytes);
            let name = self.intern(&name);
            self.threads.insert(place.lane, name);
        } else if let Ok(definition) = rmp_serde::from_slice::<CallsiteDef>(bytes) {
            self.define(u32::try_from(number).unwrap_or(u32::MAX), &definition);
        }
    }

    /// Learns what a callsite's number means.
    pub(super) fn define(&mut self, number: u32, definition: &CallsiteDef) {
        let CallsiteDef { name, target, level, file, line, fields } = definition;
        let mut text = |text: &str| (!text.is_empty()).then(|| self.intern(text));
        let facts = CallsiteFacts {
            target: text(target),
            file: file.as_deref().and_then(&mut text),
            level: *level,
            line: *line,
            fields: fields.iter().map(|field| self.intern(field)).collect(),
            special: match target.as_str() {
                convention::TARGET_TOKEN => Special::Token,
                convention::TARGET_USAGE => Special::Usage,
                convention::TARGET_DOCUMENT => Special::Document,
                convention::TARGET_MEASURE => Special::Measure,
                _ => Special::None,
            },
            name: self.intern(name),
        };
        let place = number as usize;
        if place >= CALLSITES_MAX {
            return;
        }
        if self.callsites.len() <= place {
            self.callsites.resize(place + 1, None);
        }
        if let Some(known) = self.callsites.get_mut(place) {
            *known = Some(facts);
        }
    }

    fn opened(&self, span: &HeldSpan) -> SpanOpened {
        let text = |sym: Option<Sym>| sym.map(|sym| self.symbols.text(sym).to_owned());
        let range = span.attributes.0 as usize..span.attributes.1 as usize;
        let bytes = self.arena.get(range).unwrap_or_default();
        SpanOpened {
            span: span.key(),
            parent: span.parent_id,
            name: self.symbols.text(span.name).to_owned(),
            target: text(span.target).unwrap_or_default(),
            level: span.level,
            source_file: text(span.source_file),
            source_line: span.source_line,
            thread: text(span.thread),
            attributes: attrs::to_attributes(bytes, &self.symbols),
        }
    }
}

/// The part of a callsite's facts that is copied for every span.
#[derive(Debug, Clone, Copy)]
struct CheapFacts {
    name: Sym,
    target: Option<Sym>,
    level: Level,
    file: Option<Sym>,
    line: Option<u32>,
    fields: usize,
    special: Special,
}

trait CloneCheap {
    fn clone_cheap(&self) -> Option<CheapFacts>;
}

impl CloneCheap for Option<CallsiteFacts> {
    fn clone_cheap(&self) -> Option<CheapFacts> {
        let CallsiteFacts { name, target, level, file, line, special, fields } = self.as_ref()?;
        Some(CheapFacts {
            name: *name,
            target: *target,
            level: *level,
            file: *file,
            line: *line,
            fields: fields.len(),
            special: *special,
        })
    }
}

/// A `Body` record's event and its time.
fn general(record: &Record<'_>) -> Option<(i64, EventBody)> {
    let (time, bytes) = record::payload(record)?;
    Some((time.cast_signed(), decode_body(bytes).ok()?))
}

/// More callsites than any program has; a damaged number must not cost memory (25 MB with these).
const CALLSITES_MAX: usize = 1 << 18;
