//! Named scopes: spans that are opened by hand, wherever the work goes on.
//!
//! ```
//! # use retake_recorder::{RecorderBuilder, Store};
//! # let folder = tempfile::tempdir()?;
//! # let recorder = RecorderBuilder::new("doc", "svc").start(&Store::create(folder.path())?)?;
//! let rag = recorder.dispatcher().scope("app.rag").from_environment().with_tags([("tenant", "a")]);
//! let query = rag.open("query");
//! let search = query.scope().child("search").with_tags([("index", "docs")]);
//! std::thread::spawn(move || search.open("nearest").finish()).join().unwrap();
//! let headers = query.propagation().headers(); // for the service that is called
//! query.finish();
//! # assert_eq!(headers[1].1, "tenant=a");
//! # let _ = recorder.finish(retake_schemas::event::RunStatus::Finished);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A scope is a value: it goes into a task, a thread, or, as two headers or variables, into another
//! process, and what is opened there is below the span it came from, with its tags. Nothing hangs on
//! the thread, so nothing is lost with it. Names are dotted; handlers subscribe to them by prefix
//! ([`Interest::scope`](crate::Interest::scope)), whichever was made first.
//!
//! Spans of `tracing` get their ids when a batch is folded, so they cannot be told to another
//! process while they are open; spans of a scope have theirs from the beginning.

use std::sync::Arc;

use retake_schemas::event::{Level, SpanClosed, SpanOpened, SpanUpdated, Status};
use retake_schemas::propagation::{BAGGAGE, Propagation, TRACEPARENT, Tags};
use retake_schemas::{EventBody, Key, SpanKey, TraceId, Value, convention};

use crate::dispatcher::Dispatcher;

/// A named place in a program, with the span that what it opens is below, and the tags it has.
#[derive(Debug, Clone)]
pub struct Scope {
    dispatcher: Dispatcher,
    name: Arc<str>,
    tags: Tags,
    parent: Option<SpanKey>,
}

impl Dispatcher {
    /// A scope of this name, at the root.
    #[must_use]
    pub fn scope(&self, name: &str) -> Scope {
        Scope { dispatcher: self.clone(), name: name.into(), tags: Tags::default(), parent: None }
    }
}

impl Scope {
    /// Its dotted name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its tags.
    #[must_use]
    pub fn tags(&self) -> &Tags {
        &self.tags
    }

    /// The scope `name` within this one, with its tags and below the same span.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        Self { name: format!("{}.{name}", self.name).into(), ..self.clone() }
    }

    /// The same scope with more tags; those it has stay, unless one is given anew.
    #[must_use]
    pub fn with_tags<K: Into<String>, V: Into<String>>(
        &self,
        tags: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        Self { tags: self.tags.merged(tags), ..self.clone() }
    }

    /// The same scope below a span of another process, with its tags under this one's own.
    #[must_use]
    pub fn below(&self, caller: &Propagation) -> Self {
        Self {
            tags: caller.tags.merged(self.tags.iter()),
            parent: Some(caller.span),
            ..self.clone()
        }
    }

    /// The same scope below the span that headers name, if they name one; `header` gives the value
    /// of one by its name in small letters.
    #[must_use]
    pub fn from_headers<'h>(&self, header: impl Fn(&str) -> Option<&'h str>) -> Self {
        let caller = header(TRACEPARENT)
            .and_then(|traceparent| Propagation::read(traceparent, header(BAGGAGE)));
        caller.map_or_else(|| self.clone(), |caller| self.below(&caller))
    }

    /// The same scope below the span that the environment of the process names, in `TRACEPARENT`
    /// and `BAGGAGE`.
    #[must_use]
    pub fn from_environment(&self) -> Self {
        let variable = |name: &str| std::env::var(name.to_uppercase()).ok();
        let (traceparent, baggage) = (variable(TRACEPARENT), variable(BAGGAGE));
        self.from_headers(|name| {
            if name == TRACEPARENT { traceparent.as_deref() } else { baggage.as_deref() }
        })
    }

    /// Opens a span. Its tags are its attributes.
    #[must_use]
    pub fn open(&self, name: &str) -> OpenSpan {
        self.open_with(name, Vec::new())
    }

    /// Opens a span with attributes; they win over tags of their name.
    #[must_use]
    pub fn open_with(&self, name: &str, attributes: Vec<(Key, Value)>) -> OpenSpan {
        let trace_id = self.parent.map_or_else(TraceId::generate, |parent| parent.trace_id);
        let span = SpanKey { trace_id, span_id: self.dispatcher.new_span_id() };
        let tags = self
            .tags
            .iter()
            .map(|(name, value)| (Key::Owned(name.to_owned()), Value::Str(value.to_owned())));
        self.dispatcher.emit(&EventBody::SpanOpened(Box::new(SpanOpened {
            span,
            parent: self.parent.map(|parent| parent.span_id),
            name: name.to_owned(),
            target: self.name.to_string(),
            level: Level::Info,
            source_file: None,
            source_line: None,
            thread: std::thread::current().name().map(str::to_owned),
            attributes: tags.chain(attributes).collect(),
        })));
        OpenSpan { scope: Self { parent: Some(span), ..self.clone() }, span, is_ended: false }
    }
}

/// A span of a scope. Dropped before it is finished it was cancelled, or failed if the thread
/// panics; either way it has an end.
#[derive(Debug)]
pub struct OpenSpan {
    scope: Scope,
    span: SpanKey,
    is_ended: bool,
}

impl OpenSpan {
    /// Its ids.
    #[must_use]
    pub const fn key(&self) -> SpanKey {
        self.span
    }

    /// The scope it was opened in, for what is below it.
    #[must_use]
    pub const fn scope(&self) -> &Scope {
        &self.scope
    }

    /// What a process that is called under this span has to be told.
    #[must_use]
    pub fn propagation(&self) -> Propagation {
        Propagation::recorded(self.span, self.scope.tags.clone())
    }

    /// Notes an attribute.
    pub fn set(&self, name: impl Into<Key>, value: impl Into<Value>) {
        let attributes = vec![(name.into(), value.into())];
        let update = SpanUpdated { span: self.span, attributes };
        self.scope.dispatcher.emit(&EventBody::SpanUpdated(update));
    }

    /// Ends it.
    pub fn finish(mut self) {
        self.close(Status::Ok, None);
    }

    /// Ends it in an error of this class.
    pub fn fail(mut self, error_type: &str, message: &str) {
        self.set(convention::ERROR_TYPE, error_type);
        self.close(Status::Error, Some(message.to_owned()));
    }

    fn close(&mut self, status: Status, message: Option<String>) {
        if std::mem::replace(&mut self.is_ended, true) {
            return;
        }
        let closed = SpanClosed { span: self.span, busy_ns: None, status, message };
        self.scope.dispatcher.emit(&EventBody::SpanClosed(closed));
    }
}

impl Drop for OpenSpan {
    fn drop(&mut self) {
        if self.is_ended {
            return;
        }
        if std::thread::panicking() {
            self.set(convention::ERROR_TYPE, "panic");
            self.close(Status::Error, Some("the thread panicked".to_owned()));
        } else {
            self.close(Status::Cancelled, None);
        }
    }
}

#[cfg(test)]
mod tests;
