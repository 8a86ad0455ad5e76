//! The `tracing` layer: spans and events of any program, into a run.
//!
//! It composes with other layers of `tracing-subscriber` (`fmt`, OpenTelemetry, filters). Fields
//! may be given at creation or filled in later with `Span::record`; `otel.name`, `otel.kind` and
//! `otel.status_code` mean what they mean to tracing-opentelemetry.

mod fields;

use std::sync::Arc;
use std::time::Instant;

use parking_lot::RwLock;
use retake_schemas::event::{
    Annotated, DocumentRole, Level, Measured, Retrieved, RetrievedDocument, SpanClosed, SpanOpened,
    SpanUpdated, Status, Token, TokensSource, Usage,
};
use retake_schemas::mapping::BUILT_IN;
use retake_schemas::{Attributes, EventBody, SpanKey, TraceId, Value, convention};
use tracing::span::{Attributes as SpanAttributes, Id, Record};
use tracing::{Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use crate::capture::CapturePolicy;
use crate::dispatcher::Dispatcher;
use fields::FieldVisitor;

/// Records spans and events into the run it is attached to.
#[derive(Debug, Clone, Default)]
pub struct RecorderLayer {
    target: Arc<RwLock<Option<Dispatcher>>>,
}

impl RecorderLayer {
    /// A layer that records into one run.
    #[must_use]
    pub fn new(dispatcher: Dispatcher) -> Self {
        let layer = Self::default();
        layer.attach(Some(dispatcher));
        layer
    }

    /// Directs spans and events opened from now on into another run, or nowhere. Spans that are
    /// open stay with the run they were opened in. For programs that install one global
    /// subscriber and make several runs, one after the other.
    pub fn attach(&self, dispatcher: Option<Dispatcher>) {
        *self.target.write() = dispatcher;
    }
}

/// What the layer keeps with a span.
struct Recorded {
    dispatcher: Dispatcher,
    key: SpanKey,
    busy_ns: i64,
    /// Since when it is entered, and how many times at once.
    entered: Option<(Instant, u32)>,
}

impl<S> Layer<S> for RecorderLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attrs: &SpanAttributes<'_>, id: &Id, ctx: Context<'_, S>) {
        let Some(dispatcher) = self.target.read().clone() else { return };
        let Some(span) = ctx.span(id) else { return };
        // The nearest ancestor of the same run: a parent that a filter hid is skipped, and a
        // parent of another run is none of ours.
        let parent = span.scope().skip(1).find_map(|ancestor| {
            let extensions = ancestor.extensions();
            let recorded = extensions.get::<Recorded>()?;
            (recorded.dispatcher.run_id() == dispatcher.run_id()).then_some(recorded.key)
        });
        let key = SpanKey {
            trace_id: parent.map_or_else(TraceId::generate, |parent| parent.trace_id),
            span_id: dispatcher.new_span_id(),
        };
        let mut visitor = FieldVisitor::default();
        attrs.record(&mut visitor);
        let metadata = attrs.metadata();
        let name = visitor.find(convention::OTEL_NAME).map(Value::to_text);
        let opened = SpanOpened {
            span: key,
            parent: parent.map(|parent| parent.span_id),
            name: name.unwrap_or_else(|| metadata.name().to_owned()),
            target: metadata.target().to_owned(),
            level: level(metadata),
            source_file: metadata.file().map(str::to_owned),
            source_line: metadata.line(),
            thread: std::thread::current().name().map(str::to_owned),
            attributes: governed(&dispatcher, visitor.attributes),
        };
        dispatcher.emit(&EventBody::SpanOpened(Box::new(opened)));
        let recorded = Recorded { dispatcher, key, busy_ns: 0, entered: None };
        span.extensions_mut().insert(recorded);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, ctx: Context<'_, S>) {
        let Some((dispatcher, key)) = recorded(&ctx, id) else { return };
        // Formatting a field may itself emit spans, so no lock is held here.
        let mut visitor = FieldVisitor::default();
        values.record(&mut visitor);
        let attributes = governed(&dispatcher, visitor.attributes);
        if !attributes.is_empty() {
            dispatcher.emit(&EventBody::SpanUpdated(SpanUpdated { span: key, attributes }));
        }
    }

    fn on_event(&self, event: &tracing::Event<'_>, ctx: Context<'_, S>) {
        let span = ctx.event_span(event).and_then(|span| {
            span.scope().find_map(|span| {
                let extensions = span.extensions();
                extensions.get::<Recorded>().map(|r| (r.dispatcher.clone(), r.key))
            })
        });
        let (dispatcher, key) = match span {
            Some((dispatcher, key)) => (dispatcher, Some(key)),
            None => match self.target.read().clone() {
                Some(dispatcher) => (dispatcher, None),
                None => return,
            },
        };
        let mut visitor = FieldVisitor::default();
        event.record(&mut visitor);
        if let Some(body) = event_body(&dispatcher, event.metadata(), key, visitor) {
            dispatcher.emit(&body);
        }
    }

    fn on_enter(&self, id: &Id, ctx: Context<'_, S>) {
        let Some(span) = ctx.span(id) else { return };
        if let Some(recorded) = span.extensions_mut().get_mut::<Recorded>() {
            match &mut recorded.entered {
                // Entered on several threads at once: busy is the time any of them is in it.
                Some((_, times)) => *times += 1,
                None => recorded.entered = Some((Instant::now(), 1)),
            }
        }
    }

    fn on_exit(&self, id: &Id, ctx: Context<'_, S>) {
        let Some(span) = ctx.span(id) else { return };
        if let Some(recorded) = span.extensions_mut().get_mut::<Recorded>()
            && let Some((since, times)) = recorded.entered.take()
        {
            if times > 1 {
                recorded.entered = Some((since, times - 1));
            } else {
                let busy = i64::try_from(since.elapsed().as_nanos()).unwrap_or(i64::MAX);
                recorded.busy_ns = recorded.busy_ns.saturating_add(busy);
            }
        }
    }

    fn on_close(&self, id: Id, ctx: Context<'_, S>) {
        let Some(span) = ctx.span(&id) else { return };
        let Some(recorded) = span.extensions_mut().remove::<Recorded>() else { return };
        recorded.dispatcher.emit(&EventBody::SpanClosed(SpanClosed {
            span: recorded.key,
            busy_ns: Some(recorded.busy_ns),
            status: Status::Ok,
            message: None,
        }));
    }
}

fn recorded<S>(ctx: &Context<'_, S>, id: &Id) -> Option<(Dispatcher, SpanKey)>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let span = ctx.span(id)?;
    let extensions = span.extensions();
    extensions.get::<Recorded>().map(|r| (r.dispatcher.clone(), r.key))
}

fn level(metadata: &Metadata<'_>) -> Level {
    match *metadata.level() {
        tracing::Level::TRACE => Level::Trace,
        tracing::Level::DEBUG => Level::Debug,
        tracing::Level::INFO => Level::Info,
        tracing::Level::WARN => Level::Warn,
        tracing::Level::ERROR => Level::Error,
    }
}

/// Replaces contents (prompts, answers) by what the capture policy keeps of them.
fn governed(dispatcher: &Dispatcher, attributes: Attributes) -> Attributes {
    attributes
        .into_iter()
        .filter_map(|(key, value)| {
            if !BUILT_IN.is_content(&key) {
                return Some((key, value));
            }
            let text = value.to_text();
            let media =
                if text.starts_with(['{', '[']) { "application/json" } else { "text/plain" };
            let digest = dispatcher.keep_content(media, &text)?;
            Some((key, CapturePolicy::reference(digest)))
        })
        .collect()
}

/// The event a `tracing` event stands for; `None` for one of ours that makes no sense outside a
/// span.
fn event_body(
    dispatcher: &Dispatcher,
    metadata: &Metadata<'_>,
    span: Option<SpanKey>,
    visitor: FieldVisitor,
) -> Option<EventBody> {
    let int = |name: &str| visitor.find(name).and_then(Value::as_int);
    let small = |name: &str| int(name).and_then(|n| u32::try_from(n).ok());
    let text = |name: &str| visitor.find(name).map(Value::to_text);
    Some(match metadata.target() {
        convention::TARGET_TOKEN => EventBody::Token(Token {
            span: span?,
            index: small("index")?,
            count: small("count").unwrap_or(1),
        }),
        convention::TARGET_USAGE => EventBody::Usage(Usage {
            span: span?,
            source: text("source").and_then(|s| TokensSource::parse(&s)).unwrap_or_default(),
            input: int("input"),
            output: int("output"),
            cache_read: int("cache_read"),
            cache_write: int("cache_write"),
            reasoning: int("reasoning"),
        }),
        convention::TARGET_DOCUMENT => EventBody::Retrieved(Retrieved {
            span: span?,
            role: text("role")
                .and_then(|role| DocumentRole::parse(&role))
                .unwrap_or(DocumentRole::Retrieved),
            documents: vec![RetrievedDocument {
                rank: small("rank").unwrap_or_default(),
                id: text("id").unwrap_or_default(),
                score: visitor.find("score").and_then(Value::as_float),
                source: text("source"),
                start_char: int("start_char"),
                end_char: int("end_char"),
                content: text("content")
                    .and_then(|content| dispatcher.keep_content("text/plain", &content)),
            }],
        }),
        convention::TARGET_MEASURE => EventBody::Measured(Measured {
            name: text("name")?,
            unit: text("unit").unwrap_or_default(),
            value: visitor.find("value").and_then(Value::as_float)?,
            attributes: Vec::new(),
        }),
        _ => EventBody::Annotated(Annotated {
            span,
            level: level(metadata),
            name: metadata.name().to_owned(),
            target: metadata.target().to_owned(),
            message: visitor.message.clone(),
            attributes: governed(dispatcher, visitor.attributes),
        }),
    })
}

#[cfg(test)]
mod tests;
