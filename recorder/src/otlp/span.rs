//! One OTLP span as the events it stands for.
//!
//! Names are understood by the attribute mapping of `retake_schemas`; what is done here is what a
//! name alone cannot say: indexed attributes (`retrieval.documents.0.document.id`) become one
//! thing, contents go through the capture policy, span events become token arrivals, errors and
//! log lines, and times that cannot be are replaced and flagged.

use std::borrow::Cow;
use std::collections::BTreeMap;

use retake_schemas::event::{
    Annotated, DocumentRole, Level, Retrieved, RetrievedDocument, SpanClosed, SpanOpened, Status,
    Token, TokensSource, Usage,
};
use retake_schemas::mapping::{BUILT_IN, CONTENT_REF_PREFIX};
use retake_schemas::{Attributes, SpanId, SpanKey, TraceId, Value, convention};

use super::contents::Collected;
use super::documents;
use super::model::{AnyValue, KeyValues, Span, SpanEvent, Text};
use super::rules;
use super::{Aliases, CountTokens};

/// What translating a span needs of its surroundings.
pub(super) struct Surroundings<'r> {
    /// When the body came, ns since the Unix epoch.
    pub(super) now_unix_ns: i64,
    pub(super) scope: &'r str,
    /// The service that sent it, where it is another than the run's.
    pub(super) service: Option<&'r str>,
    pub(super) aliases: &'r Aliases,
    pub(super) count_tokens: Option<&'r CountTokens>,
    /// Keeps a content as the run's policy allows: media type and text to what refers to it.
    pub(super) keep: &'r dyn Fn(&str, &str) -> Option<retake_schemas::Digest>,
}

/// The events of one span, with their times.
#[derive(Debug, PartialEq)]
pub(super) struct SpanEvents {
    pub(super) start_unix_ns: i64,
    pub(super) opened: SpanOpened,
    pub(super) usage: Option<Usage>,
    pub(super) retrieved: Vec<Retrieved>,
    pub(super) tokens: Vec<(i64, Token)>,
    pub(super) annotated: Vec<(i64, Annotated)>,
    pub(super) end_unix_ns: i64,
    pub(super) closed: SpanClosed,
}

/// Translates a span; `None` when it has no usable ids.
pub(super) fn translate(span: &Span<'_>, around: &Surroundings<'_>) -> Option<SpanEvents> {
    let key = SpanKey {
        trace_id: TraceId::from_bytes(span.trace_id?),
        span_id: SpanId::from_bytes(span.span_id?),
    };
    let mut made = Made {
        around,
        key,
        attributes: Vec::new(),
        flags: Vec::new(),
        pieces: Collected::default(),
    };
    let (start, end) = made.times(span);
    let details = span.events.iter().filter(|event| rules::is_detail(&event.name));
    let details = details.flat_map(|event| &event.attributes);
    for (name, value) in span.attributes.iter().chain(details) {
        made.attribute(name, value);
    }
    let retrieved = made.documents();
    let texts = made.contents();
    made.by_rule(span);
    let tokens = made.tokens(span, start);
    let status = made.status(span);
    let annotated = made.annotated(&span.events, start);
    // A call that failed used nothing that anybody knows of.
    let usage = if status == Status::Error { None } else { made.usage(&texts) };
    if !made.flags.is_empty() {
        let flags = made.flags.join(",");
        made.attributes.push((convention::FLAGS.into(), flags.into()));
    }
    let opened = SpanOpened {
        span: key,
        parent: span.parent_span_id.map(SpanId::from_bytes),
        name: span.name.to_string(),
        target: around.scope.to_owned(),
        level: Level::Info,
        source_file: None,
        source_line: None,
        thread: None,
        attributes: made.attributes,
    };
    let message = Some(span.status_message.to_string()).filter(|message| !message.is_empty());
    let closed = SpanClosed { span: key, busy_ns: None, status, message };
    Some(SpanEvents {
        start_unix_ns: start,
        opened,
        usage,
        retrieved,
        tokens,
        annotated,
        end_unix_ns: end,
        closed,
    })
}

struct Made<'a, 'r> {
    around: &'r Surroundings<'r>,
    key: SpanKey,
    attributes: Attributes,
    flags: Vec<&'static str>,
    pieces: Collected<'a>,
}

impl<'a> Made<'a, '_> {
    /// Start and end. A time that is missing or lies out of all bounds is replaced by the other,
    /// or by the time of arrival; an end before the start is left for the fold to flag.
    fn times(&mut self, span: &Span<'_>) -> (i64, i64) {
        let now = self.around.now_unix_ns;
        let usable = |time: u64| {
            i64::try_from(time)
                .ok()
                .filter(|time| *time > 0 && *time <= now.saturating_add(AHEAD_NS_MAX))
        };
        let (start, end) = (usable(span.start_unix_ns), usable(span.end_unix_ns));
        if start.is_none() || end.is_none() {
            self.flags.push("bad_time");
        }
        let start = start.or(end).unwrap_or(now);
        (start, end.unwrap_or(start))
    }

    fn attribute(&mut self, name: &'a str, value: &'a AnyValue<'a>) {
        let name = self.around.aliases.resolve(name);
        if matches!(value, AnyValue::Empty) {
            return;
        }
        if self.pieces.media_type(&name, value) {
            return;
        }
        // What an alias stands for is one attribute, not a piece of a list.
        if let Cow::Borrowed(name) = name
            && self.pieces.take(name, value)
        {
            return;
        }
        if BUILT_IN.is_content(&name) {
            return self.pieces.whole(name, value);
        }
        self.parts_of_json(&name, value);
        if name == "ai.response.msToFirstChunk"
            && let Some(ms) = value.to_value().as_float()
        {
            self.attributes.push((FIRST_CHUNK_SECONDS.into(), Value::Float(ms / 1e3)));
        }
        if rules::is_bad_count(&name, value) {
            self.flags.push("bad_tokens");
        }
        self.attributes.push((Cow::Owned(name.into_owned()), value.to_value()));
    }

    /// What some instrumentations state inside the JSON of one attribute.
    fn parts_of_json(&mut self, name: &str, value: &AnyValue<'_>) {
        let Some((_, parts)) = JSON_PARTS.iter().find(|(known, _)| *known == name) else { return };
        let found = match value {
            AnyValue::Text(text) => serde_json::from_str(text).unwrap_or_default(),
            other => other.to_json(),
        };
        for (from, to) in *parts {
            let value = match found.get(from) {
                Some(serde_json::Value::Number(number)) => match number.as_i64() {
                    Some(whole) => Value::Int(whole),
                    None => number.as_f64().map_or(Value::Bool(false), Value::Float),
                },
                Some(serde_json::Value::Bool(truth)) => Value::Bool(*truth),
                _ => continue,
            };
            self.attributes.push(((*to).into(), value));
        }
    }

    /// Documents that passed through the span, by role.
    fn documents(&mut self) -> Vec<Retrieved> {
        let mut by_role: BTreeMap<u8, Vec<RetrievedDocument>> = BTreeMap::new();
        for (role, pieces) in self.pieces.documents() {
            let documents = by_role.entry(role as u8).or_default();
            for (rank, piece) in pieces {
                let content = piece.content.and_then(|text| (self.around.keep)(TEXT, text));
                documents.push(documents::document(rank, &piece, content));
            }
        }
        if by_role.is_empty() {
            for (rank, found) in documents::in_contents(&self.pieces).into_iter().enumerate() {
                let content =
                    found.content.as_deref().and_then(|text| (self.around.keep)(TEXT, text));
                let documents = by_role.entry(DocumentRole::Retrieved as u8).or_default();
                documents.push(found.into_document(rank, content));
            }
        }
        by_role
            .into_iter()
            .map(|(role, documents)| Retrieved { span: self.key, role: role_of(role), documents })
            .collect()
    }

    /// Contents become references, as the capture policy allows; gives the texts by which tokens
    /// may be counted.
    fn contents(&mut self) -> Texts {
        let texts = Texts {
            input: self.pieces.input_text(),
            output: self.pieces.output_text(),
            embedded: self.pieces.embedded_texts(),
        };
        let (count, dimensions) = self.pieces.embeddings();
        if count > 0 {
            self.attributes.push((convention::EMBEDDING_COUNT.into(), Value::from(count)));
        }
        if dimensions > 0 {
            self.attributes
                .push(("gen_ai.embeddings.dimension.count".into(), Value::from(dimensions)));
        }
        for (name, media_type, text) in self.pieces.contents() {
            if let Some(digest) = (self.around.keep)(media_type, &text) {
                let reference = format!("{CONTENT_REF_PREFIX}{digest}");
                self.attributes.push((Cow::Owned(name.into_owned()), reference.into()));
            }
        }
        texts
    }

    /// What follows from several attributes together.
    fn by_rule(&mut self, span: &Span<'_>) {
        if let Some(kind) = rules::kind(&span.attributes, &span.name) {
            self.attributes.push((convention::KIND.into(), kind.into()));
        }
        if let Some(kind) = rules::span_kind(span.kind) {
            self.attributes.push((convention::OTEL_KIND.into(), kind.into()));
        }
        if let Some(service) = self.around.service {
            self.attributes.push(("service.name".into(), service.into()));
        }
        if !span.links.is_empty() {
            let links: serde_json::Value = span
                .links
                .iter()
                .filter_map(|link| {
                    let trace_id = TraceId::from_bytes(link.trace_id?).to_string();
                    let span_id = SpanId::from_bytes(link.span_id?).to_string();
                    Some(serde_json::json!({"trace_id": trace_id, "span_id": span_id}))
                })
                .collect();
            self.attributes.push(("otel.links".into(), links.to_string().into()));
        }
    }

    /// Arrivals of output tokens: an event per chunk, one event for the first, or a number of
    /// seconds.
    fn tokens(&self, span: &Span<'_>, start: i64) -> Vec<(i64, Token)> {
        let mut tokens = Vec::new();
        let chunks = span.events.iter().filter(|event| rules::is_chunk(&event.name));
        for (index, chunk) in chunks.enumerate() {
            tokens.push((self.time_in(chunk.time_unix_ns, start), token(self.key, index)));
        }
        if tokens.is_empty()
            && let Some(first) = span.events.iter().find(|event| rules::is_first_token(&event.name))
        {
            tokens.push((self.time_in(first.time_unix_ns, start), token(self.key, 0)));
        }
        if tokens.is_empty()
            && let Some(after_ns) = rules::time_to_first_token_ns(&self.attributes)
        {
            tokens.push((start.saturating_add(after_ns), token(self.key, 0)));
        }
        tokens
    }

    fn time_in(&self, time: u64, start: i64) -> i64 {
        let latest = self.around.now_unix_ns.saturating_add(AHEAD_NS_MAX);
        i64::try_from(time).ok().filter(|time| (1..=latest).contains(time)).unwrap_or(start)
    }

    /// The status. `error.type` says that the operation failed although the status is unset; an
    /// exception that was merely recorded does not (it may have been handled).
    fn status(&mut self, span: &Span<'_>) -> Status {
        let has_error_type =
            self.attributes.iter().any(|(name, _)| convention::is_error_type(name));
        let has_escaped = span.events.iter().any(|event| {
            let escaped = |(name, value): &(Text<'_>, AnyValue<'_>)| {
                name == "exception.escaped" && value.to_value().as_bool() == Some(true)
            };
            is_exception(event) && event.attributes.iter().any(escaped)
        });
        let status = match span.status_code {
            STATUS_ERROR => Status::Error,
            STATUS_OK => Status::Ok,
            _ if has_error_type || has_escaped => Status::Error,
            _ => Status::Ok,
        };
        if status == Status::Ok && (has_error_type || span.events.iter().any(is_exception)) {
            // Else the exception's event or the type would make the span one that failed.
            self.attributes.push((convention::OTEL_STATUS_CODE.into(), "OK".into()));
        }
        status
    }

    /// Span events that are not token arrivals, as log lines inside the span.
    fn annotated(&mut self, events: &[SpanEvent<'_>], start: i64) -> Vec<(i64, Annotated)> {
        let mut annotated = Vec::new();
        for event in events {
            let is_told = rules::is_chunk(&event.name)
                || rules::is_first_token(&event.name)
                || rules::is_detail(&event.name);
            if is_told {
                continue;
            }
            let line = Annotated {
                span: Some(self.key),
                level: if is_exception(event) { Level::Error } else { Level::Info },
                name: event.name.to_string(),
                target: self.around.scope.to_owned(),
                message: None,
                attributes: kept(&event.name, &event.attributes, self.around.keep),
            };
            annotated.push((self.time_in(event.time_unix_ns, start), line));
        }
        annotated
    }

    /// Counts of a call that states none, by a tokenizer, where there is one and the texts came.
    fn usage(&self, texts: &Texts) -> Option<Usage> {
        let count = self.around.count_tokens?;
        let kind = BUILT_IN.kind_of(&self.attributes)?;
        let is_call = matches!(kind, "llm" | "embedding");
        if !is_call || BUILT_IN.has_tokens(&self.attributes) {
            return None;
        }
        let model = BUILT_IN.model_of(&self.attributes).unwrap_or_default();
        let source = std::cell::Cell::new(TokensSource::Tokenizer);
        let tokens = |text: &str| {
            let (count, counted_by) = count(&model, text);
            source.set(counted_by);
            i64::try_from(count).unwrap_or(i64::MAX)
        };
        let (input, output) = if kind == "embedding" {
            let embedded = (!texts.embedded.is_empty())
                .then(|| texts.embedded.iter().map(|text| tokens(text)).sum());
            (embedded.or_else(|| texts.input.as_deref().map(tokens)), None)
        } else {
            (texts.input.as_deref().map(tokens), texts.output.as_deref().map(tokens))
        };
        (input.is_some() || output.is_some()).then_some(Usage {
            span: self.key,
            source: source.get(),
            input,
            output,
            cache_read: None,
            cache_write: None,
            reasoning: None,
        })
    }
}

/// Texts by which the tokens of a call can be counted.
struct Texts {
    input: Option<String>,
    output: Option<String>,
    embedded: Vec<String>,
}

fn token(span: SpanKey, index: usize) -> Token {
    Token { span, index: u32::try_from(index).unwrap_or(u32::MAX), count: 1 }
}

fn is_exception(event: &SpanEvent<'_>) -> bool {
    event.name == "exception" || event.name == "gen_ai.client.operation.exception"
}

/// Attributes of a log line, contents by reference. In GenAI events, which say what was said, so
/// are attributes with names that mean nothing by themselves.
pub(super) fn kept(
    event: &str,
    attributes: &KeyValues<'_>,
    keep: &dyn Fn(&str, &str) -> Option<retake_schemas::Digest>,
) -> Attributes {
    let mut kept = Vec::with_capacity(attributes.len());
    for (name, value) in attributes {
        let is_said = event.starts_with("gen_ai.") && SAID.contains(&name.as_ref());
        if is_said || BUILT_IN.is_content(name) {
            if let Some(digest) = keep(TEXT, &value.to_content()) {
                kept.push((
                    Cow::Owned(name.to_string()),
                    format!("{CONTENT_REF_PREFIX}{digest}").into(),
                ));
            }
        } else if !matches!(value, AnyValue::Empty) {
            kept.push((Cow::Owned(name.to_string()), value.to_value()));
        }
    }
    kept
}

fn role_of(number: u8) -> DocumentRole {
    [DocumentRole::RerankInput, DocumentRole::RerankOutput, DocumentRole::BatchMember]
        .into_iter()
        .find(|role| *role as u8 == number)
        .unwrap_or(DocumentRole::Retrieved)
}

const FIRST_CHUNK_SECONDS: &str = "gen_ai.response.time_to_first_chunk";
const SAID: [&str; 6] = ["content", "message", "tool_calls", "body", "event_body", "arguments"];
const TEXT: &str = "text/plain";
/// How far ahead of our clock a sender's may be before its times are not believed.
const AHEAD_NS_MAX: i64 = 24 * 3600 * 1_000_000_000;
const STATUS_OK: i32 = 1;
const STATUS_ERROR: i32 = 2;
/// Attributes whose JSON holds more than one fact, and the attributes those are.
const JSON_PARTS: [(&str, &[(&str, &str)]); 3] = [
    // OpenInference.
    ("llm.invocation_parameters", &PARAMETERS),
    // MLflow.
    (
        "mlflow.chat.tokenUsage",
        &[
            ("input_tokens", "gen_ai.usage.input_tokens"),
            ("output_tokens", "gen_ai.usage.output_tokens"),
        ],
    ),
    // Langfuse.
    (
        "langfuse.observation.usage_details",
        &[
            ("input", "gen_ai.usage.input_tokens"),
            ("output", "gen_ai.usage.output_tokens"),
            ("cache_read_input_tokens", "gen_ai.usage.cache_read.input_tokens"),
        ],
    ),
];
const PARAMETERS: [(&str, &str); 8] = [
    ("temperature", "gen_ai.request.temperature"),
    ("max_tokens", "gen_ai.request.max_tokens"),
    ("max_completion_tokens", "gen_ai.request.max_tokens"),
    ("max_output_tokens", "gen_ai.request.max_tokens"),
    ("top_p", "gen_ai.request.top_p"),
    ("top_k", "gen_ai.request.top_k"),
    ("seed", "gen_ai.request.seed"),
    ("stream", "gen_ai.request.stream"),
];
