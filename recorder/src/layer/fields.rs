//! Fields of spans and events, written into records as `tracing` hands them over.

use std::borrow::Cow;
use std::error::Error;
use std::fmt::{self, Write as _};

use retake_schemas::EventBody;
use retake_schemas::event::Level;
use retake_schemas::mapping::BUILT_IN;
use tracing::field::{Field, Visit};
use tracing::{Level as TracingLevel, Metadata};

use crate::capture::CapturePolicy;
use crate::direct::{EachValue, FieldArg};
use crate::door::ThreadState;
use crate::journal::record::{self, Kind, field};
use crate::journal::{Body, Callsite, CallsiteDef, FieldsInPlace, Offered, Refused};
use crate::redact::{catch_quietly, is_secret_key};

/// Something whose fields can be visited: attributes of a span, values of an update, an event.
pub(crate) trait Fields {
    fn visit(&self, visitor: &mut dyn Visit);
}

impl Fields for tracing::span::Attributes<'_> {
    fn visit(&self, visitor: &mut dyn Visit) {
        self.record(visitor);
    }
}

impl Fields for tracing::span::Record<'_> {
    fn visit(&self, visitor: &mut dyn Visit) {
        self.record(visitor);
    }
}

impl Fields for tracing::Event<'_> {
    fn visit(&self, visitor: &mut dyn Visit) {
        self.record(visitor);
    }
}

/// Describes a `tracing` callsite for the journal.
pub(crate) fn definition(metadata: &Metadata<'_>) -> CallsiteDef {
    CallsiteDef {
        name: metadata.name().to_owned(),
        target: metadata.target().to_owned(),
        level: level(metadata.level()),
        file: metadata.file().map(str::to_owned),
        line: metadata.line(),
        fields: metadata.fields().iter().map(|field| field.name().to_owned()).collect(),
    }
}

fn level(level: &TracingLevel) -> Level {
    match *level {
        TracingLevel::TRACE => Level::Trace,
        TracingLevel::DEBUG => Level::Debug,
        TracingLevel::INFO => Level::Info,
        TracingLevel::WARN => Level::Warn,
        TracingLevel::ERROR => Level::Error,
    }
}

/// Writes a record: the span, its parent if that belongs to the record, the callsite, the fields.
#[inline(always)]
pub(crate) fn write_record(
    state: &ThreadState,
    kind: Kind,
    (span, parent): (u64, Option<u64>),
    (callsite, fields): (&Callsite, &impl Fields),
) -> Result<(), Refused> {
    let Some(sizes) = callsite.sizes else {
        return write_aside(state, kind, span, parent, (callsite, fields));
    };
    let mut body = state.begin(kind, (span, parent))?;
    if matches!(kind, Kind::Event) {
        body.flags = event_flags(state);
    }
    let to = FieldsInPlace::new(body, callsite.number, sizes);
    let mut writer = FieldWriter { to, state, callsite };
    fields.visit(&mut writer);
    let body = writer.to.finish(sizes);
    if body.is_cut_short {
        state.abandon();
        return write_aside(state, kind, span, parent, (callsite, fields));
    }
    state.commit(kind, body);
    Ok(())
}

#[inline(always)]
fn event_flags(state: &ThreadState) -> u32 {
    if state.has_earlier() { record::FLAG_IF_KNOWN } else { 0 }
}

/// Builds a record that does not fit what is left of a chunk, or whose fields came out of order.
#[cold]
#[inline(never)]
fn write_aside(
    state: &ThreadState,
    kind: Kind,
    span: u64,
    parent: Option<u64>,
    (callsite, fields): (&Callsite, &impl Fields),
) -> Result<(), Refused> {
    let mut collected = Collected { state, callsite, values: Vec::new(), is_truncated: false };
    fields.visit(&mut collected);
    match parent {
        Some(parent) => append_collected(collected, kind, &[span, parent]),
        None => append_collected(collected, kind, &[span]),
    }
}

fn append_collected(mut collected: Collected<'_>, kind: Kind, head: &[u64]) -> Result<(), Refused> {
    let Collected { state, callsite, .. } = collected;
    collected.values.sort_by_key(|(index, _)| *index);
    let mut flags = if collected.is_truncated { record::FLAG_TRUNCATED } else { 0 };
    if kind == Kind::Event {
        flags |= event_flags(state);
    }
    let mut words = vec![u64::from(flags) << 24, state.target.journal.clock.ticks()];
    words.extend_from_slice(head);
    let types = words.len();
    words.push(u64::from(callsite.number));
    words.resize(types + 1 + field::more_words(callsite.fields), 0);
    for (index, value) in collected.values {
        let place = index + 4;
        if let Some(word) = words.get_mut(types + place / 8) {
            *word |= u64::from(value.type_of()) << (place % 8 * 8);
        }
        value.push(&mut words);
    }
    append_aside(state, kind, &words)
}

fn append_aside(state: &ThreadState, kind: Kind, words: &[u64]) -> Result<(), Refused> {
    if let Some((head, rest)) = words.split_at_checked(2)
        && words.len() >= HEADER_WORDS_MAX
    {
        // The header states a length in 16 bits; a longer one follows the ticks.
        let long = [head, &[words.len() as u64 + 1], rest].concat();
        return state.write(|cursor, journal| cursor.append(journal, kind, &long));
    }
    state.write(|cursor, journal| cursor.append(journal, kind, words))
}

/// Writes an update of a span: whose callsite it is only the opening knows, so each field says
/// its index itself.
pub(crate) fn write_update(
    state: &ThreadState,
    key: u64,
    fields: &impl Fields,
) -> Result<(), Refused> {
    let body = state.begin(Kind::Update, (key, None))?;
    let callsite = Callsite::unknown();
    let mut writer = FieldWriter { to: UpdateInPlace { body }, state, callsite };
    fields.visit(&mut writer);
    if !writer.to.body.is_cut_short {
        state.commit(Kind::Update, &writer.to.body);
        return Ok(());
    }
    state.abandon();
    let mut collected = Collected { state, callsite, values: Vec::new(), is_truncated: false };
    fields.visit(&mut collected);
    let flags = if collected.is_truncated { record::FLAG_TRUNCATED } else { 0 };
    let mut words = vec![u64::from(flags) << 24, state.target.journal.clock.ticks(), key];
    for (index, value) in collected.values {
        words.push(field::inline(index, value.type_of()));
        value.push(&mut words);
    }
    append_aside(state, Kind::Update, &words)
}

/// Writes the opening of a span of the direct API that is too long for what is left of a chunk,
/// or that has contents among its fields.
#[cold]
pub(crate) fn write_long(
    state: &ThreadState,
    head: [u64; 2],
    (callsite, names): (&Callsite, &[&str]),
    values: &EachValue<'_>,
) -> Result<(), Refused> {
    let mut collected = Collected { state, callsite, values: Vec::new(), is_truncated: false };
    let mut index = 0;
    values(&mut |value| {
        let name = names.get(index).copied().unwrap_or_default();
        if index < callsite.fields {
            collected.push_arg((index, name), value);
        }
        index += 1;
    });
    append_collected(collected, Kind::Open, &head)
}

/// Where fields are written in place: a record that begins with the types of all, or an update.
trait InPlace {
    fn body(&mut self) -> &mut Body;

    /// Says which field follows; `false` when the record must be built aside.
    fn note(&mut self, index: usize, kind: u8) -> bool;

    /// Appends a field of one word.
    fn number(&mut self, index: usize, kind: u8, word: u64);
}

impl InPlace for FieldsInPlace {
    #[inline(always)]
    fn body(&mut self) -> &mut Body {
        &mut self.body
    }

    #[inline(always)]
    fn note(&mut self, index: usize, kind: u8) -> bool {
        FieldsInPlace::note(self, index, kind)
    }

    #[inline(always)]
    fn number(&mut self, index: usize, kind: u8, word: u64) {
        FieldsInPlace::number(self, index, kind, word);
    }
}

/// An update, which says the index of each field beside it.
struct UpdateInPlace {
    body: Body,
}

impl InPlace for UpdateInPlace {
    fn body(&mut self) -> &mut Body {
        &mut self.body
    }

    fn note(&mut self, index: usize, kind: u8) -> bool {
        self.body.push(field::inline(index, kind));
        true
    }

    fn number(&mut self, index: usize, kind: u8, word: u64) {
        self.note(index, kind);
        self.body.push(word);
    }
}

/// Writes fields in place, as they come.
struct FieldWriter<'a, To> {
    to: To,
    state: &'a ThreadState,
    callsite: &'a Callsite,
}

impl<To: InPlace> FieldWriter<'_, To> {
    #[inline(always)]
    fn text(&mut self, index: usize, text: &str) {
        if !self.state.is_short(text) {
            return self.long_text(index, text);
        }
        if self.to.note(index, field::STR) {
            self.to.body().push_short_str(text);
        }
    }

    #[inline(never)]
    fn long_text(&mut self, index: usize, text: &str) {
        if !self.state.was_clean(text) {
            return self.unknown_text(index, text);
        }
        if self.to.note(index, field::STR) {
            self.to.body().push_str(text);
        }
    }

    #[inline(never)]
    fn unknown_text(&mut self, index: usize, text: &str) {
        let (text, is_cut) = self.state.scrubbed(text);
        if is_cut {
            self.to.body().flags |= record::FLAG_TRUNCATED;
        }
        if self.to.note(index, field::STR) {
            self.to.body().push_str(&text);
        }
    }

    #[cold]
    fn secret(&mut self, field: &Field, text: &str) {
        let redactor = self.state.target.policy.redactor();
        let text = redactor.scrub_attribute(field.name(), text);
        self.unknown_text(field.index(), &text);
    }

    #[cold]
    fn content(&mut self, index: usize, text: &str) {
        // The payload is a record of its own; the lane being in use, it goes into another one.
        if let Some(reference) = keep_content(self.state, text) {
            self.unknown_text(index, &reference);
        }
    }

    #[inline(never)]
    fn telling_str(&mut self, field: &Field, value: &str) {
        if is_content(self.callsite, field) {
            self.content(field.index(), value);
        } else if is_secret(self.callsite, field) {
            self.secret(field, value);
        } else {
            self.text(field.index(), value);
        }
    }
}

impl<To: InPlace> Visit for FieldWriter<'_, To> {
    #[inline]
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.to.number(field.index(), field::F64, value.to_bits());
    }

    #[inline]
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.to.number(field.index(), field::I64, value.cast_unsigned());
    }

    #[inline]
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.to.number(field.index(), field::U64, value);
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        match i64::try_from(value) {
            Ok(value) => self.record_i64(field, value),
            Err(_) => self.text(field.index(), &value.to_string()),
        }
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        match u64::try_from(value) {
            Ok(value) => self.record_u64(field, value),
            Err(_) => self.text(field.index(), &value.to_string()),
        }
    }

    #[inline]
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.to.note(field.index(), if value { field::TRUE } else { field::FALSE });
    }

    #[inline]
    fn record_str(&mut self, field: &Field, value: &str) {
        if self.callsite.is_plain {
            self.text(field.index(), value);
        } else {
            self.telling_str(field, value);
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if is_content(self.callsite, field) {
            let text = formatted(value);
            self.content(field.index(), &text);
            return;
        }
        if is_secret(self.callsite, field) {
            let text = formatted(value);
            self.secret(field, &text);
            return;
        }
        if !self.to.note(field.index(), field::STR) {
            return;
        }
        let bytes_max = self.state.target.journal.limits.attribute_bytes_max;
        let mut text = self.to.body().text(bytes_max);
        // A Debug of the program's own may record spans itself, and it may panic; that must not
        // take the program down here, where without us it would never have been called.
        let outcome = catch_quietly(|| write!(text, "{value:?}").is_ok());
        if outcome.is_none() {
            text.replace(FAILED);
        } else if !self.state.knows_clean(text.as_str())
            && let (Cow::Owned(scrubbed), _) = self.state.scrubbed(text.as_str())
        {
            text.replace(&scrubbed);
        }
        if text.finish() {
            self.to.body().flags |= record::FLAG_TRUNCATED;
        }
    }
}

/// Collects fields, for records that are built aside.
struct Collected<'a> {
    state: &'a ThreadState,
    callsite: &'a Callsite,
    values: Vec<(usize, OwnedField)>,
    is_truncated: bool,
}

enum OwnedField {
    Word(u8, u64),
    Bool(bool),
    Text(String),
}

impl OwnedField {
    fn type_of(&self) -> u8 {
        match self {
            Self::Word(kind, _) => *kind,
            Self::Bool(value) => {
                if *value {
                    field::TRUE
                } else {
                    field::FALSE
                }
            }
            Self::Text(_) => field::STR,
        }
    }

    fn push(self, words: &mut Vec<u64>) {
        match self {
            Self::Word(_, word) => words.push(word),
            Self::Bool(_) => {}
            Self::Text(text) => {
                let mut bytes = (text.len() as u32).to_le_bytes().to_vec();
                bytes.extend_from_slice(text.as_bytes());
                bytes.resize(bytes.len().next_multiple_of(8), 0);
                words.extend(record::words_of(&bytes));
            }
        }
    }
}

impl Collected<'_> {
    fn push_arg(&mut self, (index, name): (usize, &str), value: FieldArg<'_>) {
        let value = match value {
            FieldArg::U64(v) => OwnedField::Word(field::U64, v),
            FieldArg::I64(v) => OwnedField::Word(field::I64, v.cast_unsigned()),
            FieldArg::F64(v) => OwnedField::Word(field::F64, v.to_bits()),
            FieldArg::Bool(v) => OwnedField::Bool(v),
            FieldArg::Str(text) => {
                let is_content = self.callsite.is_content(index);
                if self.callsite.is_secret(index) && !is_content {
                    let redactor = self.state.target.policy.redactor();
                    let text = redactor.scrub_attribute(name, text);
                    return self.text_at(index, false, &text);
                }
                return self.text_at(index, is_content, text);
            }
        };
        self.push_at(index, value);
    }

    fn push(&mut self, field: &Field, value: OwnedField) {
        self.push_at(field.index(), value);
    }

    fn push_at(&mut self, index: usize, value: OwnedField) {
        // The last value of a field wins, and each stands once.
        self.values.retain(|(known, _)| *known != index);
        if index < self.callsite.fields || self.callsite.is_unknown() {
            self.values.push((index, value));
        }
    }

    fn text(&mut self, field: &Field, text: &str) {
        if is_secret(self.callsite, field) {
            let redactor = self.state.target.policy.redactor();
            let text = redactor.scrub_attribute(field.name(), text);
            self.text_at(field.index(), false, &text);
        } else {
            self.text_at(field.index(), is_content(self.callsite, field), text);
        }
    }

    fn text_at(&mut self, index: usize, is_content: bool, text: &str) {
        if is_content {
            if let Some(reference) = keep_content(self.state, text) {
                self.push_at(index, OwnedField::Text(reference));
            }
            return;
        }
        if self.state.is_short(text) {
            // The patterns that look for secrets take milliseconds to compile: not for this.
            return self.push_at(index, OwnedField::Text(text.to_owned()));
        }
        let (text, is_cut) = self.state.scrubbed(text);
        self.is_truncated |= is_cut;
        self.push_at(index, OwnedField::Text(text.into_owned()));
    }
}

impl Visit for Collected<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(field, OwnedField::Word(field::F64, value.to_bits()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, OwnedField::Word(field::I64, value.cast_unsigned()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, OwnedField::Word(field::U64, value));
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        match i64::try_from(value) {
            Ok(value) => self.record_i64(field, value),
            Err(_) => self.text(field, &value.to_string()),
        }
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        match u64::try_from(value) {
            Ok(value) => self.record_u64(field, value),
            Err(_) => self.text(field, &value.to_string()),
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, OwnedField::Bool(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = formatted(value);
        self.text(field, &text);
    }
}

#[inline]
fn is_content(callsite: &Callsite, field: &Field) -> bool {
    if callsite.is_unknown() {
        return BUILT_IN.is_content(field.name());
    }
    callsite.is_content(field.index())
}

#[inline]
fn is_secret(callsite: &Callsite, field: &Field) -> bool {
    if callsite.is_unknown() {
        return is_secret_key(field.name());
    }
    callsite.is_secret(field.index())
}

/// A value's text; a note when its own `Debug` fails or panics.
fn formatted(value: &dyn fmt::Debug) -> String {
    let text = catch_quietly(|| {
        let mut text = String::new();
        write!(text, "{value:?}").map(|()| text)
    });
    match text {
        Some(Ok(text)) => text,
        Some(Err(_)) | None => FAILED.to_owned(),
    }
}

/// Keeps a content as the capture policy says; what refers to it, if anything may.
fn keep_content(state: &ThreadState, text: &str) -> Option<String> {
    let policy = &state.target.policy;
    let media = if text.starts_with(['{', '[']) { "application/json" } else { "text/plain" };
    let kept = policy.decide(media, text);
    let digest = kept.digest?;
    if let Some(payload) = kept.payload {
        let now = state.target.journal.clock.now_unix_ns();
        if let Offered::Accepted = state.emit(now, &EventBody::Payload(payload)) {
            policy.stored(digest);
        }
    }
    Some(CapturePolicy::reference(digest).to_text())
}

const FAILED: &str = "<its Debug failed>";
/// Words from which on a record of fields needs a length word of its own.
const HEADER_WORDS_MAX: usize = 0xFFFF;
