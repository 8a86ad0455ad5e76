//! The `tracing` layer: spans and events of any program, into a run.
//!
//! It composes with other layers of `tracing-subscriber` (`fmt`, OpenTelemetry, filters). Fields
//! may be given at creation or filled in later with `Span::record`; `otel.name`, `otel.kind` and
//! `otel.status_code` mean what they mean to tracing-opentelemetry.
//!
//! It keeps nothing in the registry's extensions: a span is a number to it, its parent the number
//! on top of the thread's own stack, and whatever belongs together is put together on the writer
//! thread. Programs that want nothing but recording use [`crate::RecorderSubscriber`], which needs
//! no registry at all.

pub(crate) mod fields;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use retake_schemas::event::DropCause;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use crate::dispatcher::Dispatcher;
use crate::door::{Door, Entered, ThreadState, with_state};
use crate::journal::record::{self, Kind};
use crate::journal::{Callsite, Refused};
use fields::{Fields, definition, write_record, write_update};

/// Records spans and events into the run it is attached to.
#[derive(Debug, Clone)]
pub struct RecorderLayer {
    door: Arc<Door>,
}

impl Default for RecorderLayer {
    fn default() -> Self {
        Self { door: Door::new() }
    }
}

impl RecorderLayer {
    /// A layer that records into one run.
    #[must_use]
    pub fn new(dispatcher: &Dispatcher) -> Self {
        let layer = Self::default();
        layer.attach(Some(dispatcher));
        layer
    }

    /// Directs spans and events opened from now on into another run, or nowhere. Spans that are
    /// open stay with the run they were opened in. For programs that install one global
    /// subscriber and make several runs, one after the other.
    pub fn attach(&self, dispatcher: Option<&Dispatcher>) {
        self.door.lead(dispatcher.map(Dispatcher::target));
    }
}

impl<S: Subscriber> Layer<S> for RecorderLayer {
    #[inline]
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, _: Context<'_, S>) {
        let key = self.door.key(id.into_u64());
        with_state!(self.door, |state| open(&self.door, state, key, attributes));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        let key = self.door.key(id.into_u64());
        self.door.with(|state| state.each_run(|state| update(state, key, values)));
    }

    #[inline]
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        with_state!(self.door, |state| tell(&self.door, state, event));
    }

    #[inline]
    fn on_enter(&self, id: &Id, _: Context<'_, S>) {
        let key = self.door.key(id.into_u64());
        with_state!(self.door, |state| enter(state, key));
    }

    #[inline]
    fn on_exit(&self, id: &Id, _: Context<'_, S>) {
        let key = self.door.key(id.into_u64());
        with_state!(self.door, |state| exit(state, key));
    }

    #[inline]
    fn on_close(&self, id: Id, _: Context<'_, S>) {
        let key = self.door.key(id.into_u64());
        with_state!(self.door, |state| close_in_each_run(state, key));
    }
}

/// Records the opening of a span, if its door still leads into a run.
///
/// Nearly always nothing is in the way, and then there is no call in between after which anything
/// would have to be looked at again.
#[inline(always)]
pub(crate) fn open(door: &Door, state: &ThreadState, key: u64, attributes: &Attributes<'_>) {
    let address = std::ptr::from_ref(attributes.metadata()) as usize;
    match state.known_callsite(address) {
        Some(callsite) if state.is_ready() && state.last_left.get() == 0 => {
            let parent = parent(door, state, attributes);
            open_at(state, state, (key, parent), (callsite, attributes));
        }
        _ => open_otherwise(door, state, key, attributes),
    }
}

/// Records the opening of the first span of a callsite, of one in a new chunk, of one while another
/// record is being written or another run is recorded too, or after a span was left and not ended.
#[cold]
#[inline(never)]
fn open_otherwise(door: &Door, state: &ThreadState, key: u64, attributes: &Attributes<'_>) {
    if !door.is_current(state) {
        return;
    }
    settle_left(state);
    state.last_opened.set(key);
    let Some(free) = state.free() else { return lose_span(state, key, DropCause::TooLarge) };
    let metadata = attributes.metadata();
    match free.callsite(std::ptr::from_ref(metadata) as usize, || definition(metadata)) {
        Ok(callsite) => {
            let parent = parent(door, state, attributes);
            open_at(state, free, (key, parent), (callsite, attributes));
        }
        Err(refused) => lose_span(state, key, cause(refused)),
    }
}

#[inline(always)]
fn parent(door: &Door, state: &ThreadState, attributes: &Attributes<'_>) -> u64 {
    match attributes.parent() {
        Some(parent) => door.key(parent.into_u64()),
        None if attributes.is_contextual() => state.current(),
        None => 0,
    }
}

/// Records the opening of a span with the lane of `free`.
#[inline(always)]
fn open_at(
    state: &ThreadState,
    free: &ThreadState,
    (key, parent): (u64, u64),
    (callsite, attributes): (&Callsite, &impl Fields),
) {
    state.last_opened.set(key);
    if callsite.is_polled.load(Ordering::Relaxed) {
        state.last_opened.set(0);
    }
    let written = write_record(free, Kind::Open, (key, Some(parent)), (callsite, attributes));
    if let Err(refused) = written {
        lose_span(state, key, cause(refused));
    }
}

/// Records the end of a span, in whichever run it was opened.
#[inline(always)]
pub(crate) fn close_in_each_run(state: &ThreadState, key: u64) {
    if can_close_at_once(state) {
        close_at_once(state, key);
    } else {
        close_otherwise(state, key);
    }
}

/// Whether nothing is in the way of [`close_at_once`].
#[inline(always)]
pub(crate) fn can_close_at_once(state: &ThreadState) -> bool {
    state.is_ready_for_end() && !state.target.journal.has_lost_spans()
}

/// [`close_in_each_run`], as it nearly always goes.
#[inline(always)]
pub(crate) fn close_at_once(state: &ThreadState, key: u64) {
    let flags = close_flags(state, key);
    close_with(state, key, flags);
}

#[cold]
#[inline(never)]
fn close_otherwise(state: &ThreadState, key: u64) {
    let flags = close_flags(state, key);
    close(state, key, flags);
    if state.has_earlier() {
        state.each_earlier_run(&|state| close(state, key, flags));
    }
}

/// Records the end of a span.
#[inline(never)]
pub(crate) fn close(state: &ThreadState, key: u64, flags: u32) {
    let journal = &state.target.journal;
    if journal.forget_lost(key) {
        // Its opening was lost and counted with it.
        return;
    }
    match state.free() {
        Some(free) => close_with(free, key, flags),
        None => journal.count_loss(DropCause::TooLarge, false),
    }
}

#[inline(always)]
pub(crate) fn close_with(free: &ThreadState, key: u64, flags: u32) {
    let written =
        free.write(|cursor, journal| cursor.write_words(journal, (Kind::Close, flags), [key]));
    if let Err(refused) = written {
        lose_event(free, refused);
    }
}

#[cold]
#[inline(never)]
fn lose_event(state: &ThreadState, refused: Refused) {
    state.target.journal.count_loss(cause(refused), false);
}

/// The flags of a span's end on this thread.
#[inline(always)]
fn close_flags(state: &ThreadState, key: u64) -> u32 {
    if state.last_left.get() == key {
        state.last_left.set(0);
        record::FLAG_THROUGHOUT
    } else {
        0
    }
}

/// Records that a span is entered, if that is worth a record.
#[inline(always)]
pub(crate) fn enter(state: &ThreadState, key: u64) {
    let entered = Entered { key, is_recorded: false };
    if state.last_opened.get() == key && state.push_in_place(entered) {
        // No span was left since this one was opened, so there is nothing to settle.
        state.last_opened.set(0);
    } else {
        enter_otherwise(state, key);
    }
}

#[inline(never)]
fn enter_otherwise(state: &ThreadState, key: u64) {
    settle_left(state);
    let is_recorded = state.last_opened.get() != key;
    state.last_opened.set(0);
    state.push(Entered { key, is_recorded });
    if is_recorded {
        mark_in_each_run(state, Kind::Enter, key);
    }
}

/// Records that a span is left, if its entry was recorded.
#[inline(always)]
pub(crate) fn exit(state: &ThreadState, key: u64) {
    if state.last_left.get() == 0 && state.pop_unrecorded(key) {
        state.last_opened.set(0);
        state.last_left.set(key);
    } else {
        exit_otherwise(state, key);
    }
}

#[inline(never)]
fn exit_otherwise(state: &ThreadState, key: u64) {
    settle_left(state);
    state.last_opened.set(0);
    match state.pop(key) {
        Some(true) => mark_in_each_run(state, Kind::Exit, key),
        // Most such spans end right now; one that does not is found out by the next call.
        Some(false) => state.last_left.set(key),
        None => {}
    }
}

/// The span that was left last did not end: it will be entered again.
#[inline(always)]
pub(crate) fn settle_left(state: &ThreadState) {
    let left = state.last_left.get();
    if left != 0 {
        state.last_left.set(0);
        mark_in_each_run(state, Kind::Left, left);
    }
}

#[inline(never)]
fn mark_in_each_run(state: &ThreadState, kind: Kind, key: u64) {
    state.each_run(|state| mark(state, kind, key));
}

fn mark(state: &ThreadState, kind: Kind, key: u64) {
    if state.target.journal.is_lost(key) {
        return;
    }
    if let Some(free) = state.free() {
        // Not an event of the program: without it a busy time is unknown, which rows can say.
        let _ = free.write(|cursor, journal| cursor.write_words(journal, (kind, 0), [key]));
    }
}

/// Records fields that were filled in later.
pub(crate) fn update(state: &ThreadState, key: u64, values: &Record<'_>) {
    let journal = &state.target.journal;
    if journal.is_lost(key) {
        return journal.count_loss(DropCause::JournalFull, false);
    }
    let Some(free) = state.free() else { return journal.count_loss(DropCause::TooLarge, false) };
    if let Err(refused) = write_update(free, key, values) {
        journal.count_loss(cause(refused), false);
    }
}

/// Records an event inside a span in the span's run, or one outside any (0) in the present run.
#[inline(always)]
pub(crate) fn tell(door: &Door, state: &ThreadState, event: &Event<'_>) {
    let span = match event.parent() {
        Some(parent) => door.key(parent.into_u64()),
        None if event.is_contextual() => state.current(),
        None => 0,
    };
    if state.has_earlier() {
        tell_one_of_several(door, state, span, event);
    } else {
        annotate(state, span, event);
    }
}

#[cold]
#[inline(never)]
fn tell_one_of_several(door: &Door, state: &ThreadState, span: u64, event: &Event<'_>) {
    if span != 0 {
        state.each_run(|state| annotate(state, span, event));
    } else if door.is_current(state) {
        annotate(state, 0, event);
    }
}

#[inline(always)]
fn annotate(state: &ThreadState, span: u64, event: &Event<'_>) {
    let journal = &state.target.journal;
    let metadata = event.metadata();
    let address = std::ptr::from_ref(metadata) as usize;
    if journal.is_lost(span) {
        return journal.count_loss(DropCause::JournalFull, false);
    }
    let Some(free) = state.free() else { return journal.count_loss(DropCause::TooLarge, false) };
    let written = free
        .callsite(address, || definition(metadata))
        .and_then(|callsite| write_record(free, Kind::Event, (span, None), (callsite, event)));
    if let Err(refused) = written {
        journal.count_loss(cause(refused), false);
    }
}

/// Counts a span whose opening was lost; nothing else of it is recorded.
#[cold]
pub(crate) fn lose_span(state: &ThreadState, key: u64, cause: DropCause) {
    let journal = &state.target.journal;
    journal.count_loss(cause, true);
    journal.lose_span(key);
}

/// The loss that a refusal is.
pub(crate) fn cause(refused: Refused) -> DropCause {
    match refused {
        Refused::Dropped(cause) => cause,
        Refused::TooLong => DropCause::TooLarge,
    }
}

#[cfg(test)]
mod tests;
