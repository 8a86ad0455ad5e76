//! Which spans are calls, and what each used.
//!
//! The rules are those of the fold (`fold/family.rs`), applied span by span instead of seal by
//! seal.

use retake_schemas::event::{SpanOpened, TokensSource, Usage};
use retake_schemas::mapping::BUILT_IN;
use retake_schemas::tables::SpanRow;
use retake_schemas::{Attributes, EventBody, SpanKey, Value};

use super::super::open::OpenSpans;
use super::ledger::{Counts, Untracked};

/// Spans followed at once. At some 200 bytes each this is what a handler may take of memory that
/// belongs to the program; no request is known to have as many spans open.
pub const OPEN_SPANS_MAX: usize = 65_536;

/// A call that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Call {
    pub(super) model_request: Option<String>,
    pub(super) model_response: Option<String>,
    pub(super) source: TokensSource,
    pub(in super::super) counts: Counts,
}

/// Follows spans until it is known whether they count.
#[derive(Debug)]
pub(in super::super) struct Calls {
    open: OpenSpans<Followed>,
    untracked: Untracked,
}

/// A span that is open, or waits for its children.
#[derive(Debug)]
struct Followed {
    parent: Option<SpanKey>,
    /// Whether the parent waits for this one.
    is_awaited: bool,
    /// Attributes that say something of tokens or the model.
    attributes: Attributes,
    usage: Option<Usage>,
    /// Children that may still count.
    children: u32,
    has_ended: bool,
    has_counted_below: bool,
}

impl Calls {
    pub(in super::super) fn new(spans_max: usize) -> Self {
        Self { open: OpenSpans::new(spans_max), untracked: Untracked::default() }
    }

    /// Applies one event; calls that are now known to have ended go to `ended`.
    pub(in super::super) fn apply(&mut self, body: &EventBody, ended: &mut Vec<Call>) {
        match body {
            EventBody::SpanOpened(opened) => self.opened(opened, ended),
            EventBody::SpanUpdated(update) => self.state(update.span, &update.attributes),
            EventBody::Annotated(line) => match line.span {
                Some(span) => self.state(span, &line.attributes),
                None => ended.extend(Followed::new(None, &line.attributes).call()),
            },
            EventBody::Usage(usage) => match self.open.get_mut(usage.span) {
                Some(span) => span.usage = Some(usage.clone()),
                None => self.untracked.statements += 1,
            },
            EventBody::SpanClosed(closed) => {
                let Some(span) = self.open.get_mut(closed.span) else { return };
                span.has_ended = true;
                if span.children == 0 {
                    self.settle(closed.span, ended);
                }
            }
            _ => {}
        }
    }

    /// The run is over: what is open ends now.
    pub(in super::super) fn end_all(&mut self, ended: &mut Vec<Call>) {
        let mut leaves = Vec::new();
        for key in self.open.keys() {
            if let Some(span) = self.open.get_mut(key) {
                span.has_ended = true;
                if span.children == 0 {
                    leaves.push(key);
                }
            }
        }
        // The last child to settle takes its parent along.
        for key in leaves {
            self.settle(key, ended);
        }
        // What is left waits for itself: a cycle of parents, in broken or hostile input.
        for key in self.open.keys() {
            self.settle(key, ended);
        }
    }

    pub(super) fn take_untracked(&mut self) -> Untracked {
        std::mem::take(&mut self.untracked)
    }

    fn opened(&mut self, opened: &SpanOpened, ended: &mut Vec<Call>) {
        let trace_id = opened.span.trace_id;
        let parent = opened.parent.map(|span_id| SpanKey { trace_id, span_id });
        let mut span = Followed::new(parent, &opened.attributes);
        if self.open.get_mut(opened.span).is_some() {
            // Told twice; the first one stands.
            return;
        }
        if let Some(parent) = parent.and_then(|key| self.open.get_mut(key)) {
            parent.children = parent.children.saturating_add(1);
            span.is_awaited = true;
        }
        if let Some(evicted) = self.open.insert(opened.span, span) {
            self.give_up(evicted, ended);
        }
    }

    /// A span, or a log line in it, states attributes.
    fn state(&mut self, key: SpanKey, attributes: &Attributes) {
        match self.open.get_mut(key) {
            Some(span) => span.keep(attributes),
            None => {
                let states_tokens =
                    attributes.iter().any(|(name, _)| BUILT_IN.feeds(name, &CALL_COLUMNS));
                self.untracked.statements += u64::from(states_tokens);
            }
        }
    }

    /// Too many spans are open. One that only waits for its children is decided without them;
    /// what another one states is lost, but its parent must not wait for it for ever, nor repeat
    /// what was counted below it.
    fn give_up(&mut self, span: Followed, ended: &mut Vec<Call>) {
        if span.has_ended {
            self.decide(span, ended);
            return;
        }
        self.untracked.spans += u64::from(span.states_anything());
        if let Some(parent) = self.tell_parent(&span, span.has_counted_below) {
            self.decide(parent, ended);
        }
    }

    fn settle(&mut self, key: SpanKey, ended: &mut Vec<Call>) {
        if let Some(span) = self.open.remove(key) {
            self.decide(span, ended);
        }
    }

    /// Decides whether a span counts, then about its parent if that only waited for this one, and
    /// so on upwards. Each step takes a span out, so the walk ends, whatever the parents are.
    fn decide(&mut self, mut span: Followed, ended: &mut Vec<Call>) {
        loop {
            let call = if span.has_counted_below { None } else { span.call() };
            let has_counted = span.has_counted_below || call.is_some();
            ended.extend(call);
            match self.tell_parent(&span, has_counted) {
                Some(parent) => span = parent,
                None => return,
            }
        }
    }

    /// Tells the parent that a child is decided; gives the parent if it can now be decided too.
    fn tell_parent(&mut self, child: &Followed, has_counted: bool) -> Option<Followed> {
        let key = child.parent?;
        let parent = self.open.get_mut(key)?;
        parent.has_counted_below |= has_counted;
        if child.is_awaited {
            parent.children = parent.children.saturating_sub(1);
        }
        let is_due = parent.has_ended && parent.children == 0;
        if is_due { self.open.remove(key) } else { None }
    }
}

impl Followed {
    fn new(parent: Option<SpanKey>, attributes: &Attributes) -> Self {
        let mut span = Self {
            parent,
            is_awaited: false,
            attributes: Vec::new(),
            usage: None,
            children: 0,
            has_ended: false,
            has_counted_below: false,
        };
        span.keep(attributes);
        span
    }

    /// Keeps what is needed to tell tokens and model; a later value of the same name wins.
    fn keep(&mut self, attributes: &Attributes) {
        for (name, value) in attributes {
            if !BUILT_IN.feeds(name, &COLUMNS) || is_too_long(value) {
                continue;
            }
            match self.attributes.iter_mut().find(|(kept, _)| kept == name) {
                Some((_, kept)) => kept.clone_from(value),
                None => self.attributes.push((name.clone(), value.clone())),
            }
        }
    }

    fn states_anything(&self) -> bool {
        self.usage.is_some()
            || self.attributes.iter().any(|(name, _)| BUILT_IN.feeds(name, &CALL_COLUMNS))
    }

    /// What the span states of its own tokens, if it states any.
    fn call(&self) -> Option<Call> {
        if !self.states_anything() {
            return None;
        }
        let mut row = SpanRow::default();
        BUILT_IN.apply(&self.attributes, &mut row);
        let usage = self.usage.as_ref().filter(|usage| usage.source != TokensSource::None);
        if usage.is_none() && row.input_tokens.is_none() && row.output_tokens.is_none() {
            return None;
        }
        // An instrumentation that says nothing of the source passes on what the provider said.
        let said = TokensSource::parse(&row.tokens_source).unwrap_or(TokensSource::Provider);
        // A count below 0 is none.
        let tokens = |of_usage: fn(&Usage) -> Option<i64>, of_span: Option<i64>| {
            let count = usage.and_then(of_usage).or(of_span);
            count.and_then(|count| u64::try_from(count).ok()).unwrap_or(0)
        };
        Some(Call {
            source: usage.map_or(said, |usage| usage.source),
            counts: Counts {
                calls: 1,
                input: tokens(|usage| usage.input, row.input_tokens),
                output: tokens(|usage| usage.output, row.output_tokens),
                cache_read: tokens(|usage| usage.cache_read, row.cache_read_tokens),
                cache_write: tokens(|usage| usage.cache_write, row.cache_write_tokens),
                reasoning: tokens(|usage| usage.reasoning, row.reasoning_tokens),
            },
            model_request: row.model_request,
            model_response: row.model_response,
        })
    }
}

fn is_too_long(value: &Value) -> bool {
    match value {
        Value::Str(text) => text.len() > VALUE_BYTES_MAX,
        // Neither a count nor a model is a list.
        Value::List(_) => true,
        Value::Bool(_) | Value::Int(_) | Value::Float(_) => false,
    }
}

/// Columns that make a span a call.
const CALL_COLUMNS: [&str; 2] = ["input_tokens", "output_tokens"];
/// Columns that say something of a call.
const COLUMNS: [&str; 8] = [
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "tokens_source",
    "model_request",
    "model_response",
];
/// The longest model names known are a quarter of this; a value that is longer is something else.
const VALUE_BYTES_MAX: usize = 512;
