//! A span in memory, from its opening until it is sealed.

use retake_schemas::event::{
    Annotated, DocumentRole, Level, SpanClosed, SpanOpened, Status, TokensSource, Usage,
};
use retake_schemas::{SpanId, SpanKey, TraceId, Value, convention};
use serde::{Deserialize, Serialize};

use super::keys::{KeyRole, Keys};
use crate::attrs;
use crate::symbols::{Sym, Symbols};

/// What is known of a span. Attributes stand in the fold's arena, at `attributes`.
#[derive(Debug, Clone)]
pub(crate) struct HeldSpan {
    /// What its records call it; 0 for a span whose ids came with it.
    pub(super) local: u64,
    /// Its callsite's number; of no meaning for a span whose ids came with it.
    pub(super) callsite: u32,
    pub(super) trace_id: TraceId,
    pub(super) span_id: SpanId,
    pub(super) parent_id: Option<SpanId>,
    pub(super) parent: Parent,
    pub(super) name: Sym,
    pub(super) target: Option<Sym>,
    pub(super) level: Level,
    pub(super) thread: Option<Sym>,
    pub(super) source_file: Option<Sym>,
    pub(super) source_line: Option<u32>,
    pub(super) start_unix_ns: i64,
    pub(super) end_unix_ns: Option<i64>,
    pub(super) busy: Busy,
    pub(super) status: Status,
    pub(super) is_truncated: bool,
    /// Start and end of its attributes in the arena.
    pub(super) attributes: (u32, u32),
    /// Roles of the attributes seen, as bits of [`KeyRole`].
    pub(super) roles: u8,
    pub(super) family: Family,
    pub(super) rare: Option<Box<Rare>>,
    pub(super) verdict: Verdict,
}

/// Where a span's parent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parent {
    /// It has none.
    Root,
    /// In this slot.
    Slot(u32),
    /// It was sealed before.
    Sealed,
    /// Its opening was never seen; for spans with ids of their own it may still come.
    Unknown,
}

/// How long a span was entered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Busy {
    /// Entered once, when it was opened, and left when it ended.
    Throughout,
    /// Nobody says.
    Unknown,
    /// Entered several times: the sum so far, in how many places it is entered now, since when.
    Polled { sum_ns: i64, entered: u32, since_unix_ns: i64 },
}

/// What few spans have.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Rare {
    pub(super) message: Option<String>,
    pub(super) error_type: Option<String>,
    pub(super) usage: Option<Usage>,
    pub(super) first_token_unix_ns: Option<i64>,
    pub(super) last_token_unix_ns: Option<i64>,
    pub(super) tokens: u64,
    pub(super) documents: Option<i64>,
    pub(super) is_stream_extended: bool,
}

/// What only the whole family can tell.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Verdict {
    pub(super) is_error_origin: bool,
    pub(super) is_counted: bool,
    pub(super) tokens_disagree: bool,
    /// Whether it is a call, or only wraps one of its kind; `None` for kinds that are none.
    pub(super) is_call: Option<bool>,
    /// It began before its parent.
    pub(super) is_skewed: bool,
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
    /// Kinds of the spans below, as bits of [`Keys::call_kind`].
    #[serde(default)]
    pub(super) kinds_below: u8,
}

impl Family {
    /// Adds a child's interval, keeping the list merged and sorted.
    pub(super) fn cover(&mut self, start: i64, end: i64) {
        if end <= start {
            return;
        }
        match self.covered.last() {
            // Children mostly come one after the other.
            Some((_, last)) if *last >= start => self.merge(start, end),
            _ => self.covered.push((start, end)),
        }
    }

    fn merge(&mut self, start: i64, end: i64) {
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
        let covered = |(s, e): &(i64, i64)| (*e).min(end).saturating_sub((*s).max(start)).max(0);
        self.covered.iter().map(covered).fold(0, i64::saturating_add)
    }

    /// Adds tokens counted below.
    pub(super) fn count_below(&mut self, tokens: Option<(i64, i64)>) {
        if let Some((input, output)) = tokens {
            let (i, o) = self.counted_below.unwrap_or_default();
            self.counted_below = Some((i.saturating_add(input), o.saturating_add(output)));
        }
    }
}

impl HeldSpan {
    /// A span whose ids came with it; its attributes are not in the arena yet.
    pub(super) fn explicit(time: i64, opened: &SpanOpened, symbols: &mut Symbols) -> Self {
        let mut text = |text: &str| (!text.is_empty()).then(|| symbols.intern(text));
        Self {
            local: 0,
            callsite: u32::MAX,
            trace_id: opened.span.trace_id,
            span_id: opened.span.span_id,
            parent_id: opened.parent,
            parent: if opened.parent.is_some() { Parent::Unknown } else { Parent::Root },
            target: text(&opened.target),
            level: opened.level,
            thread: opened.thread.as_deref().and_then(&mut text),
            source_file: opened.source_file.as_deref().and_then(&mut text),
            source_line: opened.source_line,
            name: symbols.intern(&opened.name),
            start_unix_ns: time,
            end_unix_ns: None,
            busy: Busy::Unknown,
            status: Status::Unfinished,
            is_truncated: false,
            attributes: (0, 0),
            roles: 0,
            family: Family::default(),
            rare: None,
            verdict: Verdict::default(),
        }
    }

    pub(super) fn key(&self) -> SpanKey {
        SpanKey { trace_id: self.trace_id, span_id: self.span_id }
    }

    pub(super) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Where the span ends: at its end, but a stream's span never before its last token.
    pub(super) fn end(&self) -> i64 {
        let end = self.end_unix_ns.unwrap_or(self.start_unix_ns).max(self.start_unix_ns);
        let last_token = self.rare.as_ref().and_then(|rare| rare.last_token_unix_ns);
        last_token.map_or(end, |token| end.max(token))
    }

    /// How long it was entered, ns.
    pub(super) fn busy_ns(&self) -> Option<i64> {
        match self.busy {
            Busy::Throughout => Some(self.end_unix_ns?.saturating_sub(self.start_unix_ns).max(0)),
            Busy::Unknown => None,
            Busy::Polled { sum_ns, .. } => Some(sum_ns),
        }
    }

    pub(super) fn enter(&mut self, time: i64) {
        match &mut self.busy {
            Busy::Polled { entered: 0, since_unix_ns, .. } => {
                *since_unix_ns = time;
                self.bump_entered(1);
            }
            // Entered on several threads at once: busy is the time any of them is in it.
            Busy::Polled { .. } => self.bump_entered(1),
            Busy::Throughout | Busy::Unknown => {}
        }
    }

    pub(super) fn exit(&mut self, time: i64) {
        if let Busy::Polled { sum_ns, entered, since_unix_ns } = &mut self.busy {
            if *entered == 1 {
                *sum_ns = sum_ns.saturating_add(time.saturating_sub(*since_unix_ns).max(0));
            }
            *entered = entered.saturating_sub(1);
        }
    }

    fn bump_entered(&mut self, by: u32) {
        if let Busy::Polled { entered, .. } = &mut self.busy {
            *entered = entered.saturating_add(by);
        }
    }

    /// The span ends.
    pub(super) fn end_at(&mut self, time: i64) {
        self.end_unix_ns = Some(time);
        self.exit(time);
    }

    /// What a reported end says besides its time.
    pub(super) fn close_facts(&mut self, closed: &SpanClosed) {
        if let Some(busy_ns) = closed.busy_ns {
            self.busy = Busy::Polled { sum_ns: busy_ns, entered: 0, since_unix_ns: 0 };
        }
        if closed.message.is_some() {
            self.rare().message.clone_from(&closed.message);
        }
    }

    /// The status: what the span itself said decides over what was reported. That is
    /// `otel.status_code`, a mark that it was given up, an error logged in it, or `error.type`.
    pub(super) fn settle_status(&mut self, reported: Status, own: &OwnAttributes<'_>) {
        self.status = self.stated_status(own).unwrap_or(reported);
    }

    fn stated_status(&self, own: &OwnAttributes<'_>) -> Option<Status> {
        if self.roles & KeyRole::STATUS != 0 {
            let code = own.last(convention::OTEL_STATUS_CODE).map(|value| value.to_text());
            match code.as_deref().map(str::to_ascii_uppercase).as_deref() {
                Some("ERROR") => return Some(Status::Error),
                Some("OK") => return Some(Status::Ok),
                _ => {}
            }
            if own.last("retake.cancelled").and_then(|v| v.as_bool()) == Some(true) {
                return Some(Status::Cancelled);
            }
            if own.keys.has_error_type(own.bytes) {
                return Some(Status::Error);
            }
        }
        let rare = self.rare.as_ref()?;
        rare.error_type.as_ref().map(|_| Status::Error)
    }

    /// The run ended, or the process died, before the span did.
    pub(super) fn abandon(&mut self, last_unix_ns: i64) {
        let end = last_unix_ns.max(self.start_unix_ns);
        self.end_unix_ns = Some(end);
        self.exit(end);
        if matches!(self.busy, Busy::Throughout) {
            self.busy = Busy::Unknown;
        }
        self.status = Status::Unfinished;
    }

    pub(super) fn token(&mut self, time: i64, count: u32) {
        let is_late = self.end_unix_ns.is_some_and(|end| time > end);
        let rare = self.rare();
        rare.first_token_unix_ns.get_or_insert(time);
        rare.last_token_unix_ns = Some(time);
        rare.tokens = rare.tokens.saturating_add(u64::from(count));
        rare.is_stream_extended |= is_late;
    }

    pub(super) fn documents(&mut self, role: DocumentRole, count: usize) {
        let counts = match role {
            DocumentRole::Retrieved | DocumentRole::RerankOutput => count,
            DocumentRole::RerankInput | DocumentRole::BatchMember => return,
        };
        let count = i64::try_from(counts).unwrap_or(i64::MAX);
        let rare = self.rare();
        rare.documents = Some(rare.documents.unwrap_or(0).saturating_add(count));
    }

    /// A log line: an error logged inside a span makes the span one that failed, as
    /// `#[instrument(err)]` and OpenTelemetry's exception events mean it.
    pub(super) fn annotate(&mut self, line: &Annotated) {
        if is_exception(line) {
            let rare = self.rare();
            let error_type = stated(line, &["exception.type", "error.type"]);
            rare.error_type = Some(error_type.unwrap_or_else(|| "error".to_owned()));
            rare.message = stated(line, &ERROR_MESSAGE).or_else(|| line.message.clone());
        }
    }

    /// Whether the tokens it states were counted by a tokenizer or guessed, not by the provider.
    pub(super) fn is_estimate(&self) -> bool {
        let usage = self.rare.as_ref().and_then(|rare| rare.usage.as_ref());
        usage.is_some_and(|usage| {
            matches!(usage.source, TokensSource::Tokenizer | TokensSource::Estimate)
        })
    }

    /// Tokens the span itself states, by event or by attribute: input, output.
    pub(super) fn stated_tokens(&self, own: &OwnAttributes<'_>) -> Option<(i64, i64)> {
        let usage = self.rare.as_ref().and_then(|rare| rare.usage.as_ref());
        if let Some(usage) = usage.filter(|usage| usage.source != TokensSource::None) {
            return Some((usage.input.unwrap_or(0), usage.output.unwrap_or(0)));
        }
        if self.roles & KeyRole::TOKENS == 0 {
            return None;
        }
        match own.keys.tokens(own.bytes) {
            (None, None) => None,
            (input, output) => Some((input.unwrap_or(0), output.unwrap_or(0))),
        }
    }

    /// What is odd about the span, joined by commas.
    pub(super) fn flags(&self, attributes: &[u8], symbols: &Symbols) -> String {
        let ended_before_start = self.end_unix_ns.is_some_and(|end| end < self.start_unix_ns);
        let end = self.end();
        let is_extended = self.rare.as_ref().is_some_and(|rare| {
            rare.is_stream_extended && rare.last_token_unix_ns.is_some_and(|t| t == end)
        });
        let flags = [
            (self.parent == Parent::Unknown, "orphan"),
            (self.verdict.is_skewed, "clock_skew"),
            (ended_before_start, "end_before_start"),
            (self.status == Status::Unfinished, "unfinished"),
            (self.is_truncated, "truncated"),
            (is_extended, "stream_extended"),
            (self.verdict.tokens_disagree, "tokens_disagree"),
        ];
        let mut text = String::new();
        let mut add = |flag: &str| {
            if !text.split(',').any(|known| known == flag) {
                if !text.is_empty() {
                    text.push(',');
                }
                text.push_str(flag);
            }
        };
        if self.roles & KeyRole::FLAGS != 0 {
            let stated = last(attributes, symbols, convention::FLAGS).map(|value| value.to_text());
            let stated = stated.iter().flat_map(|text| text.split(','));
            stated.filter(|flag| STATED_FLAGS.contains(flag)).for_each(&mut add);
        }
        flags.into_iter().filter(|(is_set, _)| *is_set).for_each(|(_, flag)| add(flag));
        text
    }
}

/// Whether a log line says that its span failed.
pub(super) fn is_exception(line: &Annotated) -> bool {
    matches!(line.name.as_str(), "exception" | "gen_ai.client.operation.exception")
        || (line.level == Level::Error && stated(line, &ERROR_MESSAGE).is_some())
}

fn stated(line: &Annotated, names: &[&str]) -> Option<String> {
    let stated = line.attributes.iter().find(|(key, _)| names.contains(&key.as_ref()));
    stated.map(|(_, value)| value.to_text())
}

const ERROR_MESSAGE: [&str; 2] = ["exception.message", "error"];

/// Flags that a sender may state, because only it can know. The others follow from the spans.
const STATED_FLAGS: [&str; 6] =
    ["bad_time", "bad_tokens", "duplicate", "end_before_start", "stream_extended", "truncated"];

/// A span's attributes, with what reading them needs.
pub(super) struct OwnAttributes<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) symbols: &'a Symbols,
    pub(super) keys: &'a Keys,
}

impl OwnAttributes<'_> {
    /// The latest value of a key.
    fn last(&self, name: &str) -> Option<Value> {
        last(self.bytes, self.symbols, name)
    }
}

fn last(attributes: &[u8], symbols: &Symbols, name: &str) -> Option<Value> {
    attrs::iter(attributes)
        .filter(|(key, _)| symbols.text(*key) == name)
        .last()
        .map(|(_, value)| value.to_value())
}
