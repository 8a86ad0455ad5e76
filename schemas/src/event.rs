//! The events: immutable facts in the order their writer saw them.
//!
//! Everything else (span rows, run summaries, breakdowns, reports) is a fold of these and can be
//! rebuilt. Events are journalled as self-describing MessagePack maps, so a newer reader
//! understands an older journal: a field may be added with a default, never renamed or retyped.

mod run;

pub use run::{Capture, HostFacts, RunFacts, RunFinished, RunStatus};

use serde::{Deserialize, Serialize};

use crate::attributes::Attributes;
use crate::id::{Digest, EventSeq, SpanId, SpanKey};

/// One journalled fact. The run and the writer stand once, in the journal's header.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Position in the writer's gapless sequence.
    pub seq: EventSeq,
    /// When it happened, nanoseconds since the Unix epoch. Inside one process all times come from
    /// one monotonic clock anchored once to wall time, so they never step back.
    pub time_unix_ns: i64,
    /// What happened.
    pub body: EventBody,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum EventBody {
    /// A run began.
    RunStarted(Box<RunFacts>),
    /// A span began.
    SpanOpened(Box<SpanOpened>),
    /// A span learned more attributes.
    SpanUpdated(SpanUpdated),
    /// A span ended.
    SpanClosed(SpanClosed),
    /// Output tokens arrived.
    Token(Token),
    /// A call's token counts became known.
    Usage(Usage),
    /// A log line, inside a span or outside any.
    Annotated(Annotated),
    /// Documents were retrieved, reranked, or put into a batch.
    Retrieved(Retrieved),
    /// A text or vector, stored once under its digest.
    Payload(Payload),
    /// A sample of a resource.
    Measured(Measured),
    /// Events were lost, and how many.
    Gap(Gap),
    /// A run ended.
    RunFinished(RunFinished),
}

/// The kinds of events, for subscribing to some of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// [`EventBody::RunStarted`].
    RunStarted,
    /// [`EventBody::SpanOpened`].
    SpanOpened,
    /// [`EventBody::SpanUpdated`].
    SpanUpdated,
    /// [`EventBody::SpanClosed`].
    SpanClosed,
    /// [`EventBody::Token`].
    Token,
    /// [`EventBody::Usage`].
    Usage,
    /// [`EventBody::Annotated`].
    Annotated,
    /// [`EventBody::Retrieved`].
    Retrieved,
    /// [`EventBody::Payload`].
    Payload,
    /// [`EventBody::Measured`].
    Measured,
    /// [`EventBody::Gap`].
    Gap,
    /// [`EventBody::RunFinished`].
    RunFinished,
}

impl EventBody {
    /// Which kind this is.
    #[must_use]
    pub const fn kind(&self) -> EventKind {
        match self {
            Self::RunStarted(_) => EventKind::RunStarted,
            Self::SpanOpened(_) => EventKind::SpanOpened,
            Self::SpanUpdated(_) => EventKind::SpanUpdated,
            Self::SpanClosed(_) => EventKind::SpanClosed,
            Self::Token(_) => EventKind::Token,
            Self::Usage(_) => EventKind::Usage,
            Self::Annotated(_) => EventKind::Annotated,
            Self::Retrieved(_) => EventKind::Retrieved,
            Self::Payload(_) => EventKind::Payload,
            Self::Measured(_) => EventKind::Measured,
            Self::Gap(_) => EventKind::Gap,
            Self::RunFinished(_) => EventKind::RunFinished,
        }
    }

    /// The span the event belongs to, if any.
    #[must_use]
    pub fn span(&self) -> Option<SpanKey> {
        match self {
            Self::SpanOpened(e) => Some(e.span),
            Self::SpanUpdated(e) => Some(e.span),
            Self::SpanClosed(e) => Some(e.span),
            Self::Token(e) => Some(e.span),
            Self::Usage(e) => Some(e.span),
            Self::Annotated(e) => e.span,
            Self::Retrieved(e) => Some(e.span),
            Self::RunStarted(_)
            | Self::Payload(_)
            | Self::Measured(_)
            | Self::Gap(_)
            | Self::RunFinished(_) => None,
        }
    }
}

/// A span began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SpanOpened {
    /// The span.
    pub span: SpanKey,
    /// Its parent; `None` for the root of a trace.
    #[serde(default)]
    pub parent: Option<SpanId>,
    /// Its name (OTel span name; `otel.name` wins over the callsite's).
    pub name: String,
    /// The instrumentation scope or `tracing` target.
    #[serde(default)]
    pub target: String,
    /// Severity, if the source has one.
    #[serde(default)]
    pub level: Level,
    /// Source file of the instrumentation.
    #[serde(default)]
    pub source_file: Option<String>,
    /// Line in it, from 1.
    #[serde(default)]
    pub source_line: Option<u32>,
    /// Name of the thread that opened it.
    #[serde(default)]
    pub thread: Option<String>,
    /// Attributes known at the start.
    #[serde(default)]
    pub attributes: Attributes,
}

/// A span learned more attributes after it began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SpanUpdated {
    /// The span.
    pub span: SpanKey,
    /// The attributes; they win over earlier ones of the same key.
    pub attributes: Attributes,
}

/// A span ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SpanClosed {
    /// The span.
    pub span: SpanKey,
    /// Time during which the span was entered on some thread, nanoseconds.
    #[serde(default)]
    pub busy_ns: Option<i64>,
    /// How it ended.
    #[serde(default)]
    pub status: Status,
    /// Why, when it failed.
    #[serde(default)]
    pub message: Option<String>,
}

/// How a span ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Ended, and nobody reported an error (OTel `OK` and `UNSET`).
    #[default]
    Ok,
    /// Ended in an error.
    Error,
    /// Given up before its end: dropped future, aborted stream.
    Cancelled,
    /// Its end was never seen: still open, or the process died.
    Unfinished,
}

impl Status {
    /// The word used in tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
            Self::Cancelled => "cancelled",
            Self::Unfinished => "unfinished",
        }
    }
}

/// Severity of a span or a log line.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Default, Hash,
)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Finest.
    Trace,
    /// For developers.
    Debug,
    /// Normal.
    #[default]
    Info,
    /// Worth a look.
    Warn,
    /// Something failed.
    Error,
}

impl Level {
    /// The word used in tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// Output tokens arrived. One network chunk may hold several.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Token {
    /// The call that streams.
    pub span: SpanKey,
    /// Index of the first of them in the answer, from 0.
    pub index: u32,
    /// How many arrived together.
    pub count: u32,
}

/// Where a token count comes from. Provider counts and estimates are never mixed silently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum TokensSource {
    /// The model's provider reported it.
    Provider,
    /// The model's own tokenizer counted it.
    Tokenizer,
    /// Another tokenizer, or a rule of thumb.
    Estimate,
    /// Nobody counted.
    #[default]
    None,
}

impl TokensSource {
    /// The word used in tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Provider => "provider",
            Self::Tokenizer => "tokenizer",
            Self::Estimate => "estimate",
            Self::None => "none",
        }
    }

    /// Reads the word used in tables and attributes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Provider, Self::Tokenizer, Self::Estimate, Self::None]
            .into_iter()
            .find(|source| source.as_str() == text)
    }
}

/// Token counts of one call. A count of 0 is a count; an absent one is `None`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// The call.
    pub span: SpanKey,
    /// Who counted.
    pub source: TokensSource,
    /// Input tokens, cached ones included (OTel GenAI).
    #[serde(default)]
    pub input: Option<i64>,
    /// Output tokens, reasoning ones included (OTel GenAI).
    #[serde(default)]
    pub output: Option<i64>,
    /// Input tokens read from the provider's cache; part of `input`.
    #[serde(default)]
    pub cache_read: Option<i64>,
    /// Input tokens written to the provider's cache; part of `input`.
    #[serde(default)]
    pub cache_write: Option<i64>,
    /// Output tokens spent on reasoning; part of `output`.
    #[serde(default)]
    pub reasoning: Option<i64>,
}

/// A log line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Annotated {
    /// The span it was written in.
    #[serde(default)]
    pub span: Option<SpanKey>,
    /// Severity.
    #[serde(default)]
    pub level: Level,
    /// Event name (OTel event name, or the `tracing` callsite's).
    pub name: String,
    /// The instrumentation scope or `tracing` target.
    #[serde(default)]
    pub target: String,
    /// The text.
    #[serde(default)]
    pub message: Option<String>,
    /// The rest.
    #[serde(default)]
    pub attributes: Attributes,
}

/// What the documents of a [`Retrieved`] were to the stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DocumentRole {
    /// Found by a search.
    Retrieved,
    /// Given to a reranker.
    RerankInput,
    /// What the reranker kept, in its order.
    RerankOutput,
    /// Member of an embedding or insert batch, in batch order.
    BatchMember,
}

impl DocumentRole {
    /// The word used in tables and attributes.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retrieved => "retrieved",
            Self::RerankInput => "rerank_input",
            Self::RerankOutput => "rerank_output",
            Self::BatchMember => "batch_member",
        }
    }

    /// Reads the word used in tables and attributes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Retrieved, Self::RerankInput, Self::RerankOutput, Self::BatchMember]
            .into_iter()
            .find(|role| role.as_str() == text)
    }
}

/// Documents that passed through a stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Retrieved {
    /// The stage's span.
    pub span: SpanKey,
    /// What they were to it.
    pub role: DocumentRole,
    /// The documents in rank order.
    pub documents: Vec<RetrievedDocument>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct RetrievedDocument {
    /// Position, from 0.
    pub rank: u32,
    /// Id of the document or chunk.
    pub id: String,
    /// Score of the stage; its scale is the stage's own.
    pub score: Option<f64>,
    /// Where it comes from: a path or URL.
    pub source: Option<String>,
    /// First character in the source, in Unicode code points.
    pub start_char: Option<i64>,
    /// One past the last character in the source, in Unicode code points.
    pub end_char: Option<i64>,
    /// Digest of its text, when the capture policy keeps one.
    pub content: Option<Digest>,
}

/// A content stored once under its digest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Payload {
    /// BLAKE3 of the whole content, also when it was cut.
    pub digest: Digest,
    /// Size of the whole content, bytes.
    pub bytes: u64,
    /// `text/plain`, `application/json`, …
    pub media_type: String,
    /// The content, if the capture policy keeps it.
    #[serde(default)]
    pub content: Option<String>,
    /// Whether `content` was cut at the size limit.
    #[serde(default)]
    pub truncated: bool,
}

/// A sample of a resource.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Name (OTel metric name), such as `process.memory.usage`.
    pub name: String,
    /// Unit (UCUM), such as `By`.
    pub unit: String,
    /// Value.
    pub value: f64,
    /// Dimensions.
    #[serde(default)]
    pub attributes: Attributes,
}

/// Why events were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Hash)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DropCause {
    /// The journal reached its size limit because sealing is slower than recording.
    JournalFull,
    /// The disk is full or the folder is gone.
    Disk,
    /// The event alone is larger than the frame limit.
    TooLarge,
    /// The run was already finished.
    Finished,
}

impl DropCause {
    /// The word used in manifests.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::JournalFull => "journal_full",
            Self::Disk => "disk",
            Self::TooLarge => "too_large",
            Self::Finished => "finished",
        }
    }
}

/// States a loss, so that it can be read back: offered = accepted + dropped, always.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    /// How many events.
    pub dropped: u64,
    /// How many of them were openings of spans; the rest of such a span is not recorded either.
    #[serde(default)]
    pub spans: u64,
    /// Why.
    pub cause: DropCause,
}
