//! The dispatcher: one face to emit events, and handlers that subscribe to them.
//!
//! What LlamaIndex calls by this name, without its defects: handlers run off the hot path on
//! batches, each behind a bounded queue of its own, so one that is slow, fails or panics is
//! counted and reported, and harms neither the program nor the other handlers. Scopes are dotted
//! names and match by prefix when an event comes, so it does not matter which was made first.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, TrySendError};
use parking_lot::Mutex;
use retake_schemas::event::EventKind;
use retake_schemas::{Event, EventBody, RunId, SpanId};

use crate::capture::CapturePolicy;
use crate::fold::Fold;
use crate::journal::{Lane, Offered};

/// Emits events into a run. Cheap to clone; any thread may use it.
#[derive(Debug, Clone)]
pub struct Dispatcher {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    run_id: RunId,
    lane: Arc<Lane>,
    policy: CapturePolicy,
    handlers: Mutex<Vec<Subscription>>,
    /// High half of every span id of this recorder: random, so that two processes of one trace
    /// do not collide; the low half counts, which compresses well.
    span_id_base: u64,
    next_span: AtomicU64,
}

impl Dispatcher {
    pub(crate) fn new(run_id: RunId, lane: Arc<Lane>, policy: CapturePolicy) -> Self {
        Self {
            shared: Arc::new(Shared {
                run_id,
                lane,
                policy,
                handlers: Mutex::new(Vec::new()),
                // Never zero: OpenTelemetry reads an all-zero span id as "no id".
                span_id_base: u64::from(rand::random::<u32>() | 1) << 32,
                next_span: AtomicU64::new(0),
            }),
        }
    }

    /// The run events go into.
    #[must_use]
    pub fn run_id(&self) -> &RunId {
        &self.shared.run_id
    }

    /// Now on the run's clock, ns since the Unix epoch.
    #[must_use]
    pub fn now_unix_ns(&self) -> i64 {
        self.shared.lane.clock().now_unix_ns()
    }

    /// A span id that is new in this run.
    #[must_use]
    pub fn new_span_id(&self) -> SpanId {
        let count = self.shared.next_span.fetch_add(1, Ordering::Relaxed);
        SpanId::from_u64(self.shared.span_id_base.wrapping_add(count))
    }

    /// Emits an event that happens now. Never blocks on the disk and never fails the caller.
    pub fn emit(&self, body: &EventBody) -> Offered {
        self.emit_at(self.now_unix_ns(), body)
    }

    /// Emits an event that happened at `time_unix_ns`.
    pub fn emit_at(&self, time_unix_ns: i64, body: &EventBody) -> Offered {
        self.shared.lane.offer(time_unix_ns, body)
    }

    /// Stores a content as the run's capture policy allows and gives the digest to refer to it
    /// by; `None` when not even that may be kept.
    pub fn keep_content(&self, media_type: &str, text: &str) -> Option<retake_schemas::Digest> {
        self.shared.policy.keep(&self.shared.lane, self.now_unix_ns(), media_type, text)
    }

    /// Subscribes a handler; it sees events from the next batch on.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub fn subscribe(
        &self,
        interest: Interest,
        handler: impl Handler + 'static,
    ) -> std::io::Result<()> {
        let subscription = Subscription::start(interest, Box::new(handler))?;
        self.shared.handlers.lock().push(subscription);
        Ok(())
    }

    /// How each handler fares.
    #[must_use]
    pub fn handler_reports(&self) -> Vec<HandlerReport> {
        self.shared.handlers.lock().iter().map(|s| s.counters.report()).collect()
    }

    /// Hands a drained batch to every handler that wants some of it.
    pub(crate) fn fan_out(&self, events: &[Event], fold: &Fold) {
        for subscription in self.shared.handlers.lock().iter() {
            subscription.offer(events, fold);
        }
    }

    /// Lets every handler finish what it was given, and ends its thread.
    pub(crate) fn finish_handlers(&self) -> Vec<HandlerReport> {
        let subscriptions = std::mem::take(&mut *self.shared.handlers.lock());
        subscriptions.into_iter().map(Subscription::finish).collect()
    }
}

/// Receives batches of events on a thread of its own.
pub trait Handler: Send {
    /// Name for reports.
    fn name(&self) -> &str;

    /// Takes a batch. An error is counted and reported; the handler stays subscribed.
    ///
    /// # Errors
    /// Whatever went wrong, in words.
    fn handle(&mut self, events: &[Event]) -> Result<(), String>;

    /// The run is over; nothing follows.
    ///
    /// # Errors
    /// Whatever went wrong, in words.
    fn finish(&mut self) -> Result<(), String> {
        Ok(())
    }
}

/// Which events a handler wants.
#[derive(Debug, Clone, Default)]
pub struct Interest {
    kinds: Option<BTreeSet<EventKind>>,
    scope: Option<String>,
}

impl Interest {
    /// Everything.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Only events of these kinds.
    #[must_use]
    pub fn kinds(mut self, kinds: impl IntoIterator<Item = EventKind>) -> Self {
        self.kinds = Some(kinds.into_iter().collect());
        self
    }

    /// Only events of this scope and below: `app.rag` wants `app.rag` and `app.rag.query`, not
    /// `app.ragtime`. `tracing` targets count with `::` read as a dot.
    #[must_use]
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = Some(scope.into().replace("::", "."));
        self
    }

    fn wants(&self, event: &Event, fold: &Fold) -> bool {
        let wants_kind = self.kinds.as_ref().is_none_or(|k| k.contains(&event.body.kind()));
        wants_kind && self.scope.as_ref().is_none_or(|scope| in_scope(event, fold, scope))
    }
}

fn in_scope(event: &Event, fold: &Fold, scope: &str) -> bool {
    let target = match &event.body {
        EventBody::SpanOpened(opened) => Some(opened.target.as_str()),
        EventBody::Annotated(line) => Some(line.target.as_str()),
        body => body.span().and_then(|key| fold.scope_of(key)),
    };
    target.is_some_and(|target| {
        let target = target.replace("::", ".");
        target.strip_prefix(scope).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

/// How a handler fares.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HandlerReport {
    /// Its name.
    pub name: String,
    /// Events given to it.
    pub delivered: u64,
    /// Events it lost because its queue was full.
    pub lagged: u64,
    /// Batches it failed on, panics included.
    pub failures: u64,
    /// What it last failed with.
    pub last_failure: Option<String>,
}

#[derive(Debug)]
struct Counters {
    name: String,
    delivered: AtomicU64,
    lagged: AtomicU64,
    failures: AtomicU64,
    last_failure: Mutex<Option<String>>,
}

impl Counters {
    fn report(&self) -> HandlerReport {
        HandlerReport {
            name: self.name.clone(),
            delivered: self.delivered.load(Ordering::Relaxed),
            lagged: self.lagged.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            last_failure: self.last_failure.lock().clone(),
        }
    }

    fn failed(&self, reason: String) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        *self.last_failure.lock() = Some(reason);
    }
}

#[derive(Debug)]
struct Subscription {
    interest: Interest,
    queue: Sender<Arc<[Event]>>,
    counters: Arc<Counters>,
    thread: JoinHandle<()>,
}

impl Subscription {
    fn start(interest: Interest, handler: Box<dyn Handler>) -> std::io::Result<Self> {
        let counters = Arc::new(Counters {
            name: handler.name().to_owned(),
            delivered: AtomicU64::new(0),
            lagged: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            last_failure: Mutex::new(None),
        });
        let (queue, batches) = crossbeam_channel::bounded(QUEUE_BATCHES);
        let thread = std::thread::Builder::new().name("retake-handler".to_owned()).spawn({
            let counters = Arc::clone(&counters);
            move || run_handler(handler, &batches, &counters)
        })?;
        Ok(Self { interest, queue, counters, thread })
    }

    fn offer(&self, events: &[Event], fold: &Fold) {
        let wanted: Arc<[Event]> =
            events.iter().filter(|event| self.interest.wants(event, fold)).cloned().collect();
        if wanted.is_empty() {
            return;
        }
        let count = wanted.len() as u64;
        match self.queue.try_send(wanted) {
            Ok(()) => self.counters.delivered.fetch_add(count, Ordering::Relaxed),
            // Waiting for a handler would hold up sealing; it reads the run later if it must.
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.counters.lagged.fetch_add(count, Ordering::Relaxed)
            }
        };
    }

    fn finish(self) -> HandlerReport {
        let Self { queue, counters, thread, .. } = self;
        drop(queue);
        if thread.join().is_err() {
            counters.failed("its thread ended by a panic".to_owned());
        }
        counters.report()
    }
}

fn run_handler(
    mut handler: Box<dyn Handler>,
    batches: &Receiver<Arc<[Event]>>,
    counters: &Counters,
) {
    // A handler's panic is its own: it is caught, counted, and the next batch is tried.
    let mut guarded = |work: &mut dyn FnMut(&mut dyn Handler) -> Result<(), String>| {
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| work(handler.as_mut())));
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => counters.failed(reason),
            Err(_) => counters.failed("panicked".to_owned()),
        }
    };
    for batch in batches {
        guarded(&mut |handler| handler.handle(&batch));
    }
    guarded(&mut |handler| handler.finish());
}

/// Batches a handler may lag behind; a batch is at most one drain of the journal.
const QUEUE_BATCHES: usize = 256;
