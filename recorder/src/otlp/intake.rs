//! The way of a body into a run.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use retake_schemas::event::{Annotated, DropCause, Level, SpanUpdated};
use retake_schemas::mapping::{BUILT_IN, CONTENT_REF_PREFIX};
use retake_schemas::{Attributes, Digest, EventBody, SpanKey};

use super::messages::{self, Conversations};
use super::model::{AnyValue, Budget, Group, KeyValues, LogRecord, Metric, Scoped, Span};
use super::span::{SpanEvents, Surroundings, translate};
use super::window::Window;
use super::{Aliases, CountTokens, DecodeError, Encoding, Signal, json, logs, metrics, proto};
use crate::dispatcher::Dispatcher;
use crate::journal::Offered;

/// How bodies are taken.
#[derive(Clone)]
pub struct IntakeSettings {
    /// Bytes that spans, attributes and values of one body may take in memory besides the body's
    /// own texts.
    pub decoded_bytes_max: usize,
    /// How many of the last spans (and log records, and metric points) of a run are known, so that
    /// a batch that is sent again changes nothing.
    pub window: usize,
    /// Names of an application's own.
    pub aliases: Aliases,
    /// Counts tokens where the instrumentation states none.
    pub count_tokens: Option<CountTokens>,
}

impl std::fmt::Debug for IntakeSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IntakeSettings")
            .field("decoded_bytes_max", &self.decoded_bytes_max)
            .field("window", &self.window)
            .field("aliases", &self.aliases)
            .field("counts_tokens", &self.count_tokens.is_some())
            .finish()
    }
}

impl Default for IntakeSettings {
    fn default() -> Self {
        Self {
            decoded_bytes_max: 16 << 20,
            window: 1 << 18,
            aliases: Aliases::default(),
            count_tokens: None,
        }
    }
}

/// What became of a body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// Spans, log records or metric points that are recorded now.
    pub accepted: u64,
    /// Those that were recorded before.
    pub repeated: u64,
    /// Those that cannot be: their ids are missing, zero or of the wrong length.
    pub rejected: u64,
    /// Those that the journal had no room for; the sender should try again.
    pub dropped: u64,
    /// Why the journal refused them.
    pub cause: Option<DropCause>,
}

impl Taken {
    pub(super) fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.repeated += other.repeated;
        self.rejected += other.rejected;
        self.dropped += other.dropped;
        self.cause = self.cause.or(other.cause);
    }
}

/// Running totals of an [`Intake`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IntakeCounts {
    /// Spans recorded.
    pub spans: u64,
    /// Spans that came again.
    pub repeated: u64,
    /// Spans without usable ids.
    pub rejected: u64,
    /// Log records.
    pub logs: u64,
    /// Metric points.
    pub points: u64,
}

impl IntakeCounts {
    pub(super) fn add(&mut self, other: &Self) {
        self.spans += other.spans;
        self.repeated += other.repeated;
        self.rejected += other.rejected;
        self.logs += other.logs;
        self.points += other.points;
    }
}

/// Takes OTLP bodies into one run. Any number of threads may use it; bodies of a run are taken one
/// after the other.
#[derive(Debug)]
pub struct Intake {
    dispatcher: Dispatcher,
    settings: IntakeSettings,
    /// Service the run is of; spans of others say so.
    service: String,
    state: Mutex<State>,
    counts: [AtomicU64; 5],
}

#[derive(Debug)]
struct State {
    spans: Window<SpanKey>,
    others: Window<[u8; 16]>,
    resources: HashSet<[u8; 16]>,
    conversations: Conversations,
    /// Names that no mapping knows, and how many spans had them.
    unmapped: BTreeMap<String, u64>,
}

impl Intake {
    /// Takes bodies into the run of `dispatcher`, which records `service`.
    #[must_use]
    pub fn new(dispatcher: &Dispatcher, service: &str, settings: IntakeSettings) -> Self {
        let state = State {
            spans: Window::new(settings.window),
            others: Window::new(settings.window),
            resources: HashSet::new(),
            conversations: Conversations::default(),
            unmapped: BTreeMap::new(),
        };
        Self {
            dispatcher: dispatcher.clone(),
            settings,
            service: service.to_owned(),
            state: Mutex::new(state),
            counts: Default::default(),
        }
    }

    /// Spans that are in the store already, as after a restart: they are known.
    pub fn remember(&self, spans: impl IntoIterator<Item = SpanKey>) {
        let mut state = self.state.lock();
        for key in spans {
            state.spans.insert(key);
        }
    }

    /// Takes a whole body, decompressed. What it gives is in the journal; a caller that promises
    /// more must flush.
    ///
    /// # Errors
    /// See [`DecodeError`]; nothing of the body is recorded then.
    pub fn take(
        &self,
        signal: Signal,
        encoding: Encoding,
        body: &[u8],
    ) -> Result<Taken, DecodeError> {
        let decoded = Decoded::new(signal, encoding, body, &self.settings)?;
        let mut taken = Taken::default();
        for index in 0..decoded.len() {
            taken.add(&self.take_group(&decoded, index));
        }
        Ok(taken)
    }

    /// Takes what one resource of a body sent.
    pub(super) fn take_group(&self, decoded: &Decoded<'_>, index: usize) -> Taken {
        let [spans, repeated, rejected, logs, points] = &self.counts;
        match decoded {
            Decoded::Spans(groups) => {
                let taken = self.spans(groups.get(index));
                spans.fetch_add(taken.accepted, Ordering::Relaxed);
                repeated.fetch_add(taken.repeated, Ordering::Relaxed);
                rejected.fetch_add(taken.rejected, Ordering::Relaxed);
                taken
            }
            Decoded::Logs(groups) => {
                let taken = self.logs(groups.get(index));
                logs.fetch_add(taken.accepted, Ordering::Relaxed);
                taken
            }
            Decoded::Metrics(groups) => {
                let taken = self.metrics(groups.get(index));
                points.fetch_add(taken.accepted, Ordering::Relaxed);
                taken
            }
        }
    }

    /// Totals so far.
    #[must_use]
    pub fn counts(&self) -> IntakeCounts {
        let [spans, repeated, rejected, logs, points] =
            self.counts.each_ref().map(|count| count.load(Ordering::Relaxed));
        IntakeCounts { spans, repeated, rejected, logs, points }
    }

    /// Attribute names that have no column and are kept as they came, with how many spans had
    /// them; the most frequent first.
    #[must_use]
    pub fn unmapped(&self) -> Vec<(String, u64)> {
        let state = self.state.lock();
        let mut names: Vec<_> =
            state.unmapped.iter().map(|(name, spans)| (name.clone(), *spans)).collect();
        names.sort_by_key(|(_, spans)| std::cmp::Reverse(*spans));
        names
    }

    /// The run's dispatcher.
    #[must_use]
    pub fn dispatcher(&self) -> &Dispatcher {
        &self.dispatcher
    }

    fn spans(&self, group: Option<&Group<'_, Span<'_>>>) -> Taken {
        let mut taken = Taken::default();
        let mut state = self.state.lock();
        if let Some(group) = group {
            let service = self.meet(&mut state, &group.resource);
            for Scoped { scope, items } in &group.scopes {
                let around = Surroundings {
                    now_unix_ns: self.dispatcher.now_unix_ns(),
                    scope: &scope.name,
                    service: service.filter(|service| *service != self.service),
                    aliases: &self.settings.aliases,
                    count_tokens: self.settings.count_tokens.as_ref(),
                    keep: &|media_type, text| self.dispatcher.keep_content(media_type, text),
                };
                for span in items {
                    taken.add(&self.span(&mut state, span, &around));
                }
            }
        }
        taken
    }

    fn span(&self, state: &mut State, span: &Span<'_>, around: &Surroundings<'_>) -> Taken {
        let Some((trace_id, span_id)) = span.trace_id.zip(span.span_id) else {
            return Taken { rejected: 1, ..Taken::default() };
        };
        let key = SpanKey {
            trace_id: retake_schemas::TraceId::from_bytes(trace_id),
            span_id: retake_schemas::SpanId::from_bytes(span_id),
        };
        if !state.spans.insert(key) {
            return Taken { repeated: 1, ..Taken::default() };
        }
        let Some(events) = translate(span, around) else {
            return Taken { rejected: 1, ..Taken::default() };
        };
        state.note_unmapped(&events.opened.attributes);
        match self.emit(events) {
            Ok(()) => Taken { accepted: 1, ..Taken::default() },
            Err(cause) => {
                state.spans.remove(&key);
                Taken { dropped: 1, cause: Some(cause), ..Taken::default() }
            }
        }
    }

    /// The service of a resource; what else it says is kept once a run.
    fn meet<'a>(&self, state: &mut State, resource: &'a KeyValues<'_>) -> Option<&'a str> {
        let service = resource_text(resource, "service.name");
        if resource.is_empty() {
            return service;
        }
        let attributes: Attributes = resource
            .iter()
            .filter(|(_, value)| !matches!(value, AnyValue::Empty))
            .map(|(key, value)| (key.to_string().into(), value.to_value()))
            .collect();
        if state.resources.len() < RESOURCES_MAX
            && state.resources.insert(key_of(&format!("{attributes:?}")))
        {
            self.dispatcher.emit(&EventBody::Annotated(Annotated {
                span: None,
                level: Level::Info,
                name: "otel.resource".to_owned(),
                target: service.unwrap_or_default().to_owned(),
                message: None,
                attributes,
            }));
        }
        service
    }

    fn emit(&self, events: SpanEvents) -> Result<(), DropCause> {
        let SpanEvents {
            start_unix_ns,
            opened,
            usage,
            retrieved,
            tokens,
            annotated,
            end_unix_ns,
            closed,
        } = events;
        self.offer(start_unix_ns, &EventBody::SpanOpened(Box::new(opened)))?;
        for (time, token) in tokens {
            self.offer(time, &EventBody::Token(token))?;
        }
        if let Some(usage) = usage {
            self.offer(end_unix_ns, &EventBody::Usage(usage))?;
        }
        for retrieved in retrieved {
            self.offer(end_unix_ns, &EventBody::Retrieved(retrieved))?;
        }
        for (time, line) in annotated {
            self.offer(time, &EventBody::Annotated(line))?;
        }
        self.offer(end_unix_ns, &EventBody::SpanClosed(closed))
    }

    fn offer(&self, time_unix_ns: i64, body: &EventBody) -> Result<(), DropCause> {
        match self.dispatcher.emit_at(time_unix_ns, body) {
            Offered::Accepted => Ok(()),
            Offered::Dropped(cause) => Err(cause),
        }
    }

    fn logs(&self, group: Option<&Group<'_, LogRecord<'_>>>) -> Taken {
        let mut taken = Taken::default();
        let mut state = self.state.lock();
        let now = self.dispatcher.now_unix_ns();
        if let Some(group) = group {
            self.meet(&mut state, &group.resource);
            // Once for all that follows: a resource has dozens of attributes.
            let resource = key_of(&format!("{:?}", group.resource));
            for Scoped { scope, items } in &group.scopes {
                for record in items {
                    let text = format!("{record:?}{}{resource:?}", scope.name);
                    let key = key_of(&text);
                    if !state.others.insert(key) {
                        taken.repeated += 1;
                        continue;
                    }
                    let keep = |media_type: &str, text: &str| {
                        self.dispatcher.keep_content(media_type, text)
                    };
                    let made = logs::translate(record, &scope.name, now, &keep);
                    let span = made.line.span;
                    let offered =
                        self.update(made.time_unix_ns, span, made.of_span).and_then(|()| {
                            self.offer(made.time_unix_ns, &EventBody::Annotated(made.line))
                        });
                    if let (Ok(()), Some(span), Some(message)) = (offered, span, made.message) {
                        state.conversations.add(span, message, text.len());
                    }
                    taken.count(offered, || state.others.remove(&key));
                }
            }
        }
        self.converse(&mut state, now);
        taken
    }

    /// Tells spans their prompts and answers, as far as their messages have come. A span that the
    /// journal has no room for hears of them with its next message; each has its row in any case.
    fn converse(&self, state: &mut State, now_unix_ns: i64) {
        for (span, input, output) in state.conversations.changed() {
            let sides = [("gen_ai.input.messages", input), ("gen_ai.output.messages", output)];
            let kept = sides.into_iter().filter_map(|(name, text)| {
                let digest = self.dispatcher.keep_content(messages::MEDIA_TYPE, &text?)?;
                Some((name.into(), format!("{CONTENT_REF_PREFIX}{digest}").into()))
            });
            let _ = self.update(now_unix_ns, Some(span), kept.collect());
        }
    }

    fn update(
        &self,
        time_unix_ns: i64,
        span: Option<SpanKey>,
        attributes: Attributes,
    ) -> Result<(), DropCause> {
        let Some(span) = span.filter(|_| !attributes.is_empty()) else { return Ok(()) };
        self.offer(time_unix_ns, &EventBody::SpanUpdated(SpanUpdated { span, attributes }))
    }

    fn metrics(&self, group: Option<&Group<'_, Metric<'_>>>) -> Taken {
        let mut taken = Taken::default();
        let mut state = self.state.lock();
        let now = self.dispatcher.now_unix_ns();
        if let Some(group) = group {
            self.meet(&mut state, &group.resource);
            // Once for all that follows: a resource has dozens of attributes.
            let resource = key_of(&format!("{:?}", group.resource));
            let metrics = group
                .scopes
                .iter()
                .flat_map(|scoped| scoped.items.iter().map(|metric| (&scoped.scope.name, metric)));
            for (scope, metric) in metrics {
                let source = metrics::Source { resource, scope };
                for point in &metric.points {
                    let key = key_of(&format!("{}{point:?}{resource:?}", metric.name));
                    if !state.others.insert(key) {
                        taken.repeated += 1;
                        continue;
                    }
                    let (time, samples) = metrics::translate(metric, point, &source, now);
                    let offered = samples
                        .into_iter()
                        .try_for_each(|sample| self.offer(time, &EventBody::Measured(sample)));
                    taken.count(offered, || state.others.remove(&key));
                }
            }
        }
        taken
    }
}

/// A body that was read whole.
pub(super) enum Decoded<'a> {
    Spans(Vec<Group<'a, Span<'a>>>),
    Logs(Vec<Group<'a, LogRecord<'a>>>),
    Metrics(Vec<Group<'a, Metric<'a>>>),
}

impl<'a> Decoded<'a> {
    pub(super) fn new(
        signal: Signal,
        encoding: Encoding,
        body: &'a [u8],
        settings: &IntakeSettings,
    ) -> Result<Self, DecodeError> {
        let budget = Budget::new(settings.decoded_bytes_max);
        Ok(match (signal, encoding) {
            (Signal::Traces, Encoding::Protobuf) => Self::Spans(proto::request(body, &budget)?),
            (Signal::Traces, Encoding::Json) => Self::Spans(json::request(body, &budget)?),
            (Signal::Logs, Encoding::Protobuf) => Self::Logs(proto::request(body, &budget)?),
            (Signal::Logs, Encoding::Json) => Self::Logs(json::request(body, &budget)?),
            (Signal::Metrics, Encoding::Protobuf) => Self::Metrics(proto::request(body, &budget)?),
            (Signal::Metrics, Encoding::Json) => Self::Metrics(json::request(body, &budget)?),
        })
    }

    /// Resources in the body.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Spans(groups) => groups.len(),
            Self::Logs(groups) => groups.len(),
            Self::Metrics(groups) => groups.len(),
        }
    }

    /// What a resource says of itself.
    pub(super) fn resource(&self, index: usize) -> &KeyValues<'a> {
        const NONE: &KeyValues<'static> = &Vec::new();
        let found = match self {
            Self::Spans(groups) => groups.get(index).map(|group| &group.resource),
            Self::Logs(groups) => groups.get(index).map(|group| &group.resource),
            Self::Metrics(groups) => groups.get(index).map(|group| &group.resource),
        };
        found.unwrap_or(NONE)
    }
}

/// An attribute of a resource that is a text and not empty.
pub(super) fn resource_text<'a>(resource: &'a KeyValues<'_>, name: &str) -> Option<&'a str> {
    let (_, value) = resource.iter().find(|(key, _)| key == name)?;
    value.as_text().filter(|text| !text.is_empty())
}

impl State {
    fn note_unmapped(&mut self, attributes: &Attributes) {
        for (name, _) in attributes {
            if is_mapped(name) {
                continue;
            }
            let has_room = self.unmapped.len() < UNMAPPED_MAX;
            if let Some(spans) = self.unmapped.get_mut(name.as_ref()) {
                *spans += 1;
            } else if has_room {
                self.unmapped.insert(name.to_string(), 1);
            }
        }
    }
}

fn is_mapped(name: &str) -> bool {
    // Its parameters are taken out of it.
    name == "llm.invocation_parameters"
        || name.starts_with("retake.")
        || name.starts_with("otel.")
        || BUILT_IN.places(name).next().is_some()
        || BUILT_IN.is_content(name)
}

impl Taken {
    fn count(&mut self, offered: Result<(), DropCause>, forget: impl FnOnce()) {
        match offered {
            Ok(()) => self.accepted += 1,
            Err(cause) => {
                forget();
                self.dropped += 1;
                self.cause = self.cause.or(Some(cause));
            }
        }
    }
}

fn key_of(text: &str) -> [u8; 16] {
    let digest = Digest::of(text.as_bytes());
    digest.as_bytes().first_chunk().copied().unwrap_or_default()
}

/// Names without a column that are told apart; senders may make up as many as they like.
const UNMAPPED_MAX: usize = 1_000;
/// Distinct resources stated per run; a sender with a new one for every body is not listened to.
const RESOURCES_MAX: usize = 256;
