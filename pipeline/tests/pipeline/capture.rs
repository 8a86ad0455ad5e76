//! A `tracing` layer that remembers everything, for all tests of the process.
//!
//! It is set globally: a thread-local default would not be seen by the pipeline's other threads.
//! A test names its request and then looks at the trace of that request alone.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::OnceLock;

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

/// Fields by name, as text.
pub(crate) type Fields = BTreeMap<String, String>;

/// A span as it was seen.
#[derive(Debug, Clone)]
pub(crate) struct SeenSpan {
    pub(crate) name: &'static str,
    pub(crate) parent: Option<usize>,
    pub(crate) fields: Fields,
    pub(crate) events: Vec<(String, Fields)>,
    /// Position among all ends, if it ended.
    pub(crate) ended: Option<usize>,
}

#[derive(Default)]
struct Seen {
    spans: Vec<SeenSpan>,
    ends: usize,
}

static SEEN: Mutex<Seen> = Mutex::new(Seen { spans: Vec::new(), ends: 0 });

struct Capture;

/// Number of a span in [`SEEN`]; the registry uses its own ids again.
struct Number(usize);

impl Visit for TextFields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

struct TextFields<'a>(&'a mut Fields);

impl<S: Subscriber + for<'a> LookupSpan<'a>> tracing_subscriber::Layer<S> for Capture {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let span = context.span(id).unwrap();
        let parent = span.parent().and_then(|p| p.extensions().get::<Number>().map(|n| n.0));
        let mut fields = Fields::new();
        attributes.record(&mut TextFields(&mut fields));
        let mut seen = SEEN.lock();
        span.extensions_mut().insert(Number(seen.spans.len()));
        let name = attributes.metadata().name();
        seen.spans.push(SeenSpan { name, parent, fields, events: Vec::new(), ended: None });
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(number) = number(&context, id) {
            values.record(&mut TextFields(&mut SEEN.lock().spans[number].fields));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let Some(span) = context.event_span(event) else { return };
        let Some(number) = span.extensions().get::<Number>().map(|n| n.0) else { return };
        let mut fields = Fields::new();
        event.record(&mut TextFields(&mut fields));
        let target = event.metadata().target().to_owned();
        SEEN.lock().spans[number].events.push((target, fields));
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        if let Some(number) = number(&context, &id) {
            let mut seen = SEEN.lock();
            seen.ends += 1;
            let end = seen.ends;
            seen.spans[number].ended = Some(end);
        }
    }
}

fn number<S: for<'a> LookupSpan<'a> + Subscriber>(
    context: &Context<'_, S>,
    id: &Id,
) -> Option<usize> {
    context.span(id).and_then(|span| span.extensions().get::<Number>().map(|n| n.0))
}

/// Starts remembering.
pub(crate) fn install() {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let subscriber = tracing_subscriber::registry().with(Capture);
        tracing::subscriber::set_global_default(subscriber).unwrap();
    });
}

/// All spans under the root whose request id is `request`, the root first.
pub(crate) fn trace(request: &str) -> Vec<SeenSpan> {
    traces_where("retake.request_id", request)
}

/// All spans under the roots with this field, each root before its own.
pub(crate) fn traces_where(field: &str, value: &str) -> Vec<SeenSpan> {
    let seen = SEEN.lock();
    let is_root = |span: &SeenSpan| span.fields.get(field).is_some_and(|v| v == value);
    let mut kept: Vec<usize> = Vec::new();
    for (number, span) in seen.spans.iter().enumerate() {
        if is_root(span) || span.parent.is_some_and(|parent| kept.contains(&parent)) {
            kept.push(number);
        }
    }
    let renumber = |parent: Option<usize>| kept.iter().position(|n| Some(*n) == parent);
    kept.iter()
        .map(|number| {
            let span = seen.spans[*number].clone();
            SeenSpan { parent: renumber(span.parent), ..span }
        })
        .collect()
}

/// The spans of one name.
pub(crate) fn named<'a>(spans: &'a [SeenSpan], name: &str) -> Vec<&'a SeenSpan> {
    spans.iter().filter(|span| span.name == name).collect()
}

/// The tree as indented names, with the events of a span under it.
pub(crate) fn tree(spans: &[SeenSpan]) -> String {
    fn write(spans: &[SeenSpan], parent: Option<usize>, depth: usize, text: &mut String) {
        for (number, span) in spans.iter().enumerate().filter(|(_, span)| span.parent == parent) {
            text.push_str(&format!("{}{}", "  ".repeat(depth), span.name));
            let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
            for (target, _) in &span.events {
                *counts.entry(target).or_default() += 1;
            }
            for (target, count) in counts {
                text.push_str(&format!(" +{count} {target}"));
            }
            text.push('\n');
            write(spans, Some(number), depth + 1, text);
        }
    }
    let mut text = String::new();
    write(spans, None, 0, &mut text);
    text
}
