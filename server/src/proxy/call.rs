//! The recording of one call.
//!
//! What has to have its time is emitted as it happens: the opening, tokens. What has to be read
//! first (a prompt, a whole answer) is read on a thread that may take its time, and emitted with
//! the time at which it was complete.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hyper::header::HeaderMap;
use parking_lot::Mutex;
use retake_recorder::Dispatcher;
use retake_schemas::event::{SpanClosed, SpanOpened, SpanUpdated, Status, Token};
use retake_schemas::propagation::Propagation;
pub(crate) use retake_schemas::propagation::TRACEPARENT;
use retake_schemas::{Attributes, EventBody, SpanKey, TraceId, Value, convention};
use serde_json::Value as Json;

use crate::net::budget::Buffer;
use crate::proxy::answer::{self, Answer};
use crate::proxy::endpoint::Endpoint;
use crate::proxy::question;
use crate::proxy::reader::Reader;
use crate::proxy::secrets::Secrets;
use crate::proxy::stream::Stream;

/// What all calls share.
#[derive(Debug)]
pub(crate) struct Recording {
    pub(crate) dispatcher: Dispatcher,
    /// Attributes of every call: whom it goes to.
    pub(crate) attributes: Attributes,
    pub(crate) reader: Reader,
    pub(crate) recorded: AtomicU64,
    pub(crate) unread: AtomicU64,
}

/// One call.
#[derive(Debug)]
pub(crate) struct Call {
    recording: Arc<Recording>,
    endpoint: Endpoint,
    span: SpanKey,
    secrets: Secrets,
    /// The request's body as far as it came; taken when it is read.
    question: Mutex<Option<Heard>>,
    answer: Mutex<Heard>,
    status: AtomicU64,
    is_ended: AtomicBool,
    is_unread: AtomicBool,
}

/// A body as it passes.
#[derive(Debug)]
pub(crate) enum Heard {
    /// Copied, to be read when it is whole.
    Whole(Buffer),
    /// Read event by event.
    Stream(Box<Stream>),
    /// Not to be read: too large, or compressed.
    Unread,
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// The answer passed whole.
    Whole,
    /// The client went away.
    Cancelled,
    /// The upstream did not answer, or not to the end: a word for it, and what happened.
    Failed(&'static str, String),
}

impl Call {
    /// Opens a call. What the client sends as `traceparent` is its parent.
    pub(crate) fn open(
        recording: &Arc<Recording>,
        endpoint: Endpoint,
        (headers, query): (&HeaderMap, Option<&str>),
        room: Buffer,
    ) -> Arc<Self> {
        let dispatcher = &recording.dispatcher;
        let start = dispatcher.now_unix_ns();
        let parent = parent_of(headers);
        let trace_id = parent.map_or_else(TraceId::generate, |parent| parent.trace_id);
        let span = SpanKey { trace_id, span_id: dispatcher.new_span_id() };
        let text = |text: &str| Value::Str(text.to_owned());
        let mut attributes: Attributes = vec![
            (convention::STAGE.into(), text(endpoint.stage())),
            ("gen_ai.operation.name".into(), text(endpoint.operation())),
            ("http.route".into(), text(endpoint.route())),
        ];
        attributes.extend(recording.attributes.iter().cloned());
        let opened = SpanOpened {
            span,
            parent: parent.map(|parent| parent.span_id),
            name: endpoint.operation().to_owned(),
            target: SCOPE.to_owned(),
            level: retake_schemas::event::Level::Info,
            source_file: None,
            source_line: None,
            thread: None,
            attributes,
        };
        dispatcher.emit_at(start, &EventBody::SpanOpened(Box::new(opened)));
        recording.recorded.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self {
            recording: Arc::clone(recording),
            endpoint,
            span,
            secrets: Secrets::of(headers, query),
            question: Mutex::new(Some(Heard::Whole(room))),
            answer: Mutex::new(Heard::Unread),
            status: AtomicU64::new(0),
            is_ended: AtomicBool::new(false),
            is_unread: AtomicBool::new(false),
        })
    }

    /// `traceparent` for the upstream: what it records becomes a part of this call.
    pub(crate) fn traceparent(&self, flags: &str) -> String {
        format!("00-{}-{}-{flags}", self.span.trace_id, self.span.span_id)
    }

    /// A part of the request passes.
    pub(crate) fn asked(&self, bytes: &[u8]) {
        if let Some(heard) = &mut *self.question.lock() {
            heard.whole(bytes);
        }
    }

    /// The request has passed.
    pub(crate) fn has_asked(self: &Arc<Self>) {
        self.recording.reader.question(Arc::clone(self));
    }

    /// The answer begins.
    pub(crate) fn answers(&self, status: u16, is_stream: bool, room: Option<Buffer>) {
        self.status.store(u64::from(status), Ordering::Relaxed);
        *self.answer.lock() = match room {
            None => Heard::Unread,
            Some(_) if is_stream && status < 400 => {
                Heard::Stream(Box::new(Stream::new(self.endpoint, self.span)))
            }
            Some(room) => Heard::Whole(room),
        };
    }

    /// A part of the answer passes.
    pub(crate) fn answered(&self, bytes: &[u8], tokens_before: &mut u32) {
        let now = self.recording.dispatcher.now_unix_ns();
        let mut heard = self.answer.lock();
        let Heard::Stream(stream) = &mut *heard else { return heard.whole(bytes) };
        let count = stream.push(bytes);
        if count > 0 {
            let token = Token { span: self.span, index: *tokens_before, count };
            self.recording.dispatcher.emit_at(now, &EventBody::Token(token));
            *tokens_before = tokens_before.saturating_add(count);
        }
    }

    /// Whether the service has said all it has to say, although its answer goes on.
    pub(crate) fn is_done(&self) -> bool {
        matches!(&*self.answer.lock(), Heard::Stream(stream) if stream.is_done())
    }

    /// The call ends now. Only the first end counts.
    pub(crate) fn end(self: &Arc<Self>, end: End) {
        if self.is_ended.swap(true, Ordering::Relaxed) {
            return;
        }
        let time = self.recording.dispatcher.now_unix_ns();
        self.recording.reader.close(self, time, end);
    }

    /// Gives up reading what has passed.
    pub(crate) fn forget(&self) {
        if let Some(heard) = &mut *self.question.lock() {
            *heard = Heard::Unread;
        }
        *self.answer.lock() = Heard::Unread;
        self.is_unread.store(true, Ordering::Relaxed);
    }

    /// Reads the request as far as it came, if that was not done yet.
    pub(crate) fn read_question(&self) {
        let Some(heard) = self.question.lock().take() else { return };
        let dispatcher = &self.recording.dispatcher;
        let found = match &heard {
            Heard::Whole(buffer) => {
                question::read(self.endpoint, self.span, buffer.as_slice(), dispatcher)
            }
            Heard::Stream(_) | Heard::Unread => None,
        };
        let Some(found) = found else { return self.is_unread.store(true, Ordering::Relaxed) };
        let time = dispatcher.now_unix_ns();
        self.update(time, found.attributes);
        if let Some(documents) = found.documents {
            dispatcher.emit_at(time, &EventBody::Retrieved(documents));
        }
    }

    /// Reads all that was not read yet, and closes the call, which ended at `time`.
    pub(crate) fn close(&self, time: i64, end: &End) {
        self.read_question();
        let heard = std::mem::replace(&mut *self.answer.lock(), Heard::Unread);
        let http = self.status.load(Ordering::Relaxed);
        let mut failure = None;
        let found = if http >= 400 {
            failure = Some((Some(http.to_string()), self.error_message(&heard)));
            None
        } else {
            self.read_answer(heard, &mut failure, end)
        };
        let mut answer = found.unwrap_or_default();
        if http > 0 {
            let status = Value::from(http);
            answer.attributes.push(("http.response.status_code".into(), status));
        }
        if let End::Failed(kind, message) = end {
            failure = Some((Some((*kind).to_owned()), message.clone()));
        }
        let status = match (end, &failure) {
            (End::Cancelled, None) => Status::Cancelled,
            (_, Some(_)) => Status::Error,
            (_, None) => Status::Ok,
        };
        let message = failure.map(|(kind, message)| {
            let kind = kind.unwrap_or_else(|| "error".to_owned());
            let kind = Value::Str(self.secrets.scrub(&kind));
            answer.attributes.push((convention::ERROR_TYPE.into(), kind));
            // First the credentials: half of one would no longer be found.
            self.secrets.scrub(&message).chars().take(MESSAGE_CHARS_MAX).collect()
        });
        self.emit_end(time, answer, SpanClosed { span: self.span, busy_ns: None, status, message });
        if self.is_unread.load(Ordering::Relaxed) {
            self.recording.unread.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn read_answer(
        &self,
        heard: Heard,
        failure: &mut Option<(Option<String>, String)>,
        end: &End,
    ) -> Option<Answer> {
        let dispatcher = &self.recording.dispatcher;
        let found = match heard {
            Heard::Stream(stream) => {
                let streamed = stream.finish(dispatcher);
                *failure = streamed.error;
                if streamed.is_unread {
                    self.is_unread.store(true, Ordering::Relaxed);
                }
                return Some(streamed.answer);
            }
            Heard::Whole(buffer) => {
                answer::read(self.endpoint, self.span, buffer.as_slice(), dispatcher)
            }
            Heard::Unread => None,
        };
        if found.is_none() && *end == End::Whole {
            self.is_unread.store(true, Ordering::Relaxed);
        }
        found
    }

    /// What an error's body says, or nothing: a page of HTML is no message.
    fn error_message(&self, heard: &Heard) -> String {
        let Heard::Whole(buffer) = heard else { return String::new() };
        let json: Option<Json> = serde_json::from_slice(buffer.as_slice()).ok();
        let found = json.as_ref().and_then(answer::error_of);
        found.map(|(_, message)| message.to_owned()).unwrap_or_default()
    }

    fn update(&self, time: i64, attributes: Attributes) {
        if !attributes.is_empty() {
            let update = SpanUpdated { span: self.span, attributes };
            self.recording.dispatcher.emit_at(time, &EventBody::SpanUpdated(update));
        }
    }

    fn emit_end(&self, time: i64, answer: Answer, closed: SpanClosed) {
        let dispatcher = &self.recording.dispatcher;
        self.update(time, answer.attributes);
        if let Some(usage) = answer.usage {
            dispatcher.emit_at(time, &EventBody::Usage(usage));
        }
        if let Some(documents) = answer.documents {
            dispatcher.emit_at(time, &EventBody::Retrieved(documents));
        }
        dispatcher.emit_at(time, &EventBody::SpanClosed(closed));
    }
}

impl Heard {
    /// Copies a part, or gives up reading the body at all.
    fn whole(&mut self, bytes: &[u8]) {
        if let Self::Whole(buffer) = self
            && buffer.append(bytes).is_err()
        {
            *self = Self::Unread;
        }
    }
}

/// The span that a W3C `traceparent` names. A wrong one is as good as none.
fn parent_of(headers: &HeaderMap) -> Option<SpanKey> {
    let stated = headers.get(TRACEPARENT)?.to_str().ok()?;
    Propagation::read(stated, None).map(|caller| caller.span)
}

/// The last field of a `traceparent`, if it can be told.
pub(crate) fn trace_flags(headers: &HeaderMap) -> Option<&str> {
    parent_of(headers)?;
    headers.get(TRACEPARENT)?.to_str().ok()?.split('-').nth(3)
}

/// The instrumentation scope of its spans.
const SCOPE: &str = "retake.proxy";
/// Longest message taken over from a service, characters.
const MESSAGE_CHARS_MAX: usize = 300;

#[cfg(test)]
mod tests {
    use retake_recorder::{RecorderBuilder, RunReader, Store};
    use retake_schemas::event::RunStatus;
    use retake_schemas::tables::SpanRow;

    use super::*;
    use crate::net::budget::Budget;

    /// Scenario: there is no thread to read what has passed.
    /// Guarantees: the call is in the run all the same, with its status, and counted as not read.
    #[test]
    fn a_call_that_cannot_be_read_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(folder.path()).unwrap();
        let recorder = RecorderBuilder::new("t", "svc").start(&store).unwrap();
        let recording = Arc::new(Recording {
            dispatcher: recorder.dispatcher().clone(),
            attributes: Attributes::new(),
            reader: Reader::ended(),
            recorded: AtomicU64::new(0),
            unread: AtomicU64::new(0),
        });
        let room = || Budget::new(1000).buffer(100);
        for status in [200, 503] {
            let headers = (&HeaderMap::new(), None);
            let call = Call::open(&recording, Endpoint::Chat, headers, room());
            call.asked(b"{\"model\": \"m\"}");
            call.has_asked();
            call.answers(status, false, Some(room()));
            call.answered(b"{}", &mut 0);
            call.end(End::Whole);
            call.end(End::Cancelled);
        }
        assert_eq!(recording.unread.load(Ordering::Relaxed), 2);
        let run_id = recorder.run_id().clone();
        let _ = recorder.finish(RunStatus::Finished);
        let spans: Vec<SpanRow> = RunReader::open(&store, &run_id).unwrap().rows().unwrap();
        let mut found: Vec<_> =
            spans.iter().map(|span| (span.status.as_str(), span.error_type.as_deref())).collect();
        found.sort_unstable();
        assert_eq!(found, [("error", Some("503")), ("ok", None)]);
    }

    /// Scenario: good and bad values of `traceparent`, of which a program may send any.
    /// Guarantees: only a good one makes a parent.
    #[test]
    fn parents_are_read_by_the_standard() {
        let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        for (value, is_good) in [
            (format!("00-{trace}-{span}-01"), true),
            (format!("00-{trace}-{span}-00"), true),
            (format!("cc-{trace}-{span}-01-more"), true),
            (format!("ff-{trace}-{span}-01"), false),
            (format!("00-{}-{span}-01", "0".repeat(32)), false),
            (format!("00-{trace}-{}-01", "0".repeat(16)), false),
            (format!("00-{}-{span}-01", trace.to_uppercase()), false),
            (format!("00-{trace}-{span}"), false),
            (format!("00-{span}-{trace}-01"), false),
            ("garbage".to_owned(), false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(TRACEPARENT, value.parse().unwrap());
            let parent = parent_of(&headers);
            assert_eq!(parent.is_some(), is_good, "{value}");
            if let Some(parent) = parent {
                assert_eq!(parent.trace_id.to_string(), trace);
                assert_eq!(parent.span_id.to_string(), span);
            }
        }
    }
}
