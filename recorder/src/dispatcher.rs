//! The dispatcher: one face to emit events, and handlers that subscribe to them.
//!
//! What LlamaIndex calls by this name, without its defects: handlers run off the hot path on
//! batches, each behind a bounded queue of its own, so one that is slow, fails or panics is
//! counted and reported, and harms neither the program nor the other handlers. Scopes are dotted
//! names and match by prefix when an event comes, so it does not matter which was made first.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, TrySendError};
use parking_lot::Mutex;
use retake_schemas::event::{DropCause, EventKind};
use retake_schemas::{Event, EventBody, RunId, SpanId};

use crate::door::{Door, Target};
use crate::fold::{Fold, Ids};
use crate::journal::Offered;
use crate::symbols::Sym;

/// Emits events into a run. Cheap to clone; any thread may use it.
#[derive(Debug, Clone)]
pub struct Dispatcher {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    run_id: RunId,
    target: Arc<Target>,
    door: Arc<Door>,
    handlers: Mutex<Vec<Subscription>>,
    handler_count: AtomicUsize,
    /// Ids given out by [`Dispatcher::new_span_id`] share their high half with no thread's spans;
    /// the low half counts, which compresses well.
    span_id_base: u64,
    next_span: AtomicU64,
}

impl Dispatcher {
    pub(crate) fn new(run_id: RunId, target: Arc<Target>) -> Self {
        let door = Door::new();
        door.lead(Some(&target));
        let span_id_base = Ids::new(&run_id).counter_base();
        Self {
            shared: Arc::new(Shared {
                run_id,
                target,
                door,
                handlers: Mutex::new(Vec::new()),
                handler_count: AtomicUsize::new(0),
                span_id_base,
                next_span: AtomicU64::new(0),
            }),
        }
    }

    pub(crate) fn target(&self) -> &Arc<Target> {
        &self.shared.target
    }

    pub(crate) fn door(&self) -> &Arc<Door> {
        &self.shared.door
    }

    /// The run events go into.
    #[must_use]
    pub fn run_id(&self) -> &RunId {
        &self.shared.run_id
    }

    /// Now on the run's clock, ns since the Unix epoch.
    #[must_use]
    pub fn now_unix_ns(&self) -> i64 {
        self.shared.target.journal.clock.now_unix_ns()
    }

    /// A span id that is new in this run.
    #[must_use]
    pub fn new_span_id(&self) -> SpanId {
        let count = self.shared.next_span.fetch_add(1, Ordering::Relaxed);
        SpanId::from_u64(self.shared.span_id_base.wrapping_add(count))
    }

    /// Emits an event that happens now. Never waits for the disk and never fails the caller.
    pub fn emit(&self, body: &EventBody) -> Offered {
        self.emit_at(self.now_unix_ns(), body)
    }

    /// Emits an event that happened at `time_unix_ns`.
    pub fn emit_at(&self, time_unix_ns: i64, body: &EventBody) -> Offered {
        let body = self.shared.target.policy.redactor().scrub_event(body);
        self.shared.door.with(|state| state.emit(time_unix_ns, &body)).unwrap_or_else(|| {
            self.shared
                .target
                .journal
                .count_loss(DropCause::Finished, matches!(*body, EventBody::SpanOpened(_)));
            Offered::Dropped(DropCause::Finished)
        })
    }

    /// Stores a content as the run's capture policy allows and gives the digest to refer to it
    /// by; `None` when not even that may be kept.
    pub fn keep_content(&self, media_type: &str, text: &str) -> Option<retake_schemas::Digest> {
        if self.shared.target.journal.is_inherited() {
            return None;
        }
        let policy = &self.shared.target.policy;
        let kept = policy.decide(media_type, text);
        let digest = kept.digest?;
        if let Some(payload) = kept.payload
            && let Offered::Accepted = self.emit(&EventBody::Payload(payload))
        {
            policy.stored(digest);
        }
        Some(digest)
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
        self.shared.handler_count.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// How each handler fares.
    #[must_use]
    pub fn handler_reports(&self) -> Vec<HandlerReport> {
        self.shared.handlers.lock().iter().map(|s| s.counters.report()).collect()
    }

    /// Whether anybody listens.
    pub(crate) fn has_handlers(&self) -> bool {
        self.shared.handler_count.load(Ordering::Acquire) > 0
    }

    /// Hands a drained batch to every handler that wants some of it.
    pub(crate) fn fan_out(&self, told: &Told, fold: &Fold) {
        for subscription in self.shared.handlers.lock().iter() {
            subscription.offer(told, fold);
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

    fn wants(&self, event: &Event, scope: Option<&str>) -> bool {
        let wants_kind = self.kinds.as_ref().is_none_or(|k| k.contains(&event.body.kind()));
        wants_kind && self.scope.as_ref().is_none_or(|wanted| is_within(scope, wanted))
    }
}

fn is_within(scope: Option<&str>, wanted: &str) -> bool {
    scope.is_some_and(|scope| {
        let scope = scope.replace("::", ".");
        scope.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

/// A batch for handlers: events, and the scope each belongs to.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) events: Vec<Event>,
    pub(crate) scopes: Vec<Option<Sym>>,
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

    fn offer(&self, told: &Told, fold: &Fold) {
        let wanted: Arc<[Event]> = told
            .events
            .iter()
            .zip(&told.scopes)
            .filter(|(event, scope)| self.interest.wants(event, scope.map(|s| fold.text(s))))
            .map(|(event, _)| event.clone())
            .collect();
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
