//! A `tracing` subscriber that only records.
//!
//! The registry of `tracing-subscriber` is what a recording layer costs most (measured: 150 of
//! 177 ns a span), because it keeps data for layers that may ask. This subscriber keeps, per open
//! span, a count of handles and its metadata, and nothing else. It therefore cannot host layers:
//! programs that want `fmt` or OpenTelemetry beside the recording use [`crate::RecorderLayer`].

#![expect(unsafe_code, reason = "metadata of spans is kept as a pointer that is stored atomically")]

use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};

use parking_lot::Mutex;
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_core::span::Current;

use crate::dispatcher::Dispatcher;
use crate::door::{Door, FreeSlots, SLOT_BATCH, SlotPool, with_state};
use crate::layer;

/// Records spans and events into a run.
#[derive(Debug)]
pub struct RecorderSubscriber {
    door: Arc<Door>,
    slots: Slots,
    max_level: LevelFilter,
}

impl RecorderSubscriber {
    /// A subscriber that records everything into one run.
    #[must_use]
    pub fn new(dispatcher: &Dispatcher) -> Self {
        let door = Door::new();
        let slots = Slots { free: Arc::clone(door.free_slots()), ..Slots::default() };
        let subscriber = Self { door, slots, max_level: LevelFilter::TRACE };
        subscriber.attach(Some(dispatcher));
        subscriber
    }

    /// Records only what is at least this severe.
    #[must_use]
    pub fn with_max_level(mut self, level: LevelFilter) -> Self {
        self.max_level = level;
        self
    }

    /// Directs spans and events opened from now on into another run, or nowhere. Spans that are
    /// open stay with the run they were opened in.
    pub fn attach(&self, dispatcher: Option<&Dispatcher>) {
        self.door.lead(dispatcher.map(Dispatcher::target));
    }
}

impl Subscriber for RecorderSubscriber {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if *metadata.level() <= self.max_level { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.max_level
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.max_level)
    }

    #[inline]
    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let metadata = attributes.metadata();
        let opened = with_state!(self.door, |state| {
            let id = self.slots.take(state.free_slots(), metadata);
            let key = self.door.key(id.into_u64());
            layer::open(&self.door, state, key, attributes);
            id
        });
        // Without a run the span is still a span to the program.
        opened.unwrap_or_else(|| self.slots.take_alone(metadata))
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        let key = self.door.key(id.into_u64());
        self.door.with(|state| state.each_run(|state| layer::update(state, key, values)));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    #[inline]
    fn event(&self, event: &Event<'_>) {
        with_state!(self.door, |state| layer::tell(&self.door, state, event));
    }

    #[inline]
    fn enter(&self, id: &Id) {
        let key = self.door.key(id.into_u64());
        with_state!(self.door, |state| layer::enter(state, key));
    }

    #[inline]
    fn exit(&self, id: &Id) {
        let key = self.door.key(id.into_u64());
        with_state!(self.door, |state| layer::exit(state, key));
    }

    #[inline]
    fn clone_span(&self, id: &Id) -> Id {
        self.slots.hold(id.into_u64());
        id.clone()
    }

    #[inline]
    fn try_close(&self, id: Id) -> bool {
        let id = id.into_u64();
        if !self.slots.release(id) {
            return false;
        }
        let key = self.door.key(id);
        match self.door.last_state() {
            Some(state)
                if layer::can_close_at_once(state) && state.free_slots().push(id as u32) =>
            {
                layer::close_at_once(state, key);
            }
            _ => self.close_otherwise(id, key),
        }
        true
    }

    fn current_span(&self) -> Current {
        let current = self.door.with(|state| state.current()).filter(|key| *key != 0);
        let Some(key) = current else { return Current::none() };
        let id = self.door.id(key);
        match self.slots.metadata(id) {
            Some(metadata) => Current::new(Id::from_u64(id), metadata),
            None => Current::none(),
        }
    }
}

impl RecorderSubscriber {
    /// Records the end of a span, and keeps its slot, where [`Subscriber::try_close`] cannot do
    /// both at once.
    #[cold]
    #[inline(never)]
    fn close_otherwise(&self, id: u64, key: u64) {
        let recorded = self.door.with(|state| {
            layer::close_in_each_run(state, key);
            self.slots.give_back(state.free_slots(), id);
        });
        if recorded.is_none() {
            self.slots.free.lock().push(id as u32);
        }
    }
}

/// The open spans: how many handles each has, and its metadata. Pages are only ever added, so a
/// slot is found without a lock on the hot path's side.
#[derive(Debug, Default)]
struct Slots {
    /// The slots most programs need, in one piece: found without looking for their page. Memory
    /// that is not touched is not taken.
    first: FirstSlots,
    pages: [std::sync::OnceLock<Box<[Slot]>>; PAGES],
    /// Slots that no thread keeps; shared with the door, whose threads leave theirs here.
    free: Arc<SlotPool>,
    made: AtomicU32,
    /// Serialises the making of pages.
    growing: Mutex<()>,
    /// Handles of spans that do not exist; a bug of the program's that must not panic here
    /// (tokio-rs/tracing #3514).
    misuses: AtomicU64,
}

#[derive(Debug, Default)]
struct Slot {
    /// Steps with every use of the slot; the high half of the span's id.
    generation: AtomicU32,
    handles: AtomicU32,
    /// A `&'static Metadata`, or null.
    metadata: AtomicPtr<Metadata<'static>>,
}

#[derive(Debug)]
struct FirstSlots(Box<[Slot]>);

impl Default for FirstSlots {
    fn default() -> Self {
        let slots = Box::new_zeroed_slice(FIRST_SLOTS);
        // SAFETY: a slot is two numbers and a pointer, all atomic, for which zero is a value.
        Self(unsafe { slots.assume_init() })
    }
}

impl Slots {
    /// A slot for a new span, from the thread's own free ones if there are. Gives the span's id.
    #[inline(always)]
    fn take(&self, own: &FreeSlots, metadata: &'static Metadata<'static>) -> Id {
        let index = match own.pop() {
            Some(index) => index,
            None => self.refill(own),
        };
        let Some(slot) = self.slot(index) else { return Id::from_u64(u64::MAX) };
        // Odd generations only, so that no id is zero.
        let generation = slot.generation.load(Ordering::Relaxed).wrapping_add(2) | 1;
        slot.generation.store(generation, Ordering::Relaxed);
        slot.metadata.store(std::ptr::from_ref(metadata).cast_mut(), Ordering::Relaxed);
        slot.handles.store(1, Ordering::Release);
        Id::from_u64(u64::from(generation) << 32 | u64::from(index))
    }

    /// The same for a thread that keeps no slots.
    #[cold]
    #[inline(never)]
    fn take_alone(&self, metadata: &'static Metadata<'static>) -> Id {
        let own = FreeSlots::default();
        let id = self.take(&own, metadata);
        self.free.take_from(&own, SLOT_BATCH);
        id
    }

    /// Gives the thread a batch of slots, and takes one of them.
    #[cold]
    #[inline(never)]
    fn refill(&self, own: &FreeSlots) -> u32 {
        let mut free = self.free.lock();
        let keep = free.len().saturating_sub(SLOT_BATCH);
        free.drain(keep..).for_each(|index| _ = own.push(index));
        drop(free);
        if let Some(index) = own.pop() {
            return index;
        }
        let first = self.made.fetch_add(SLOT_BATCH as u32, Ordering::Relaxed);
        (first + 1..first + SLOT_BATCH as u32).rev().for_each(|index| _ = own.push(index));
        first
    }

    /// The slot of that number; makes its page if need be.
    #[inline]
    fn slot(&self, index: u32) -> Option<&Slot> {
        match self.first.0.get(index as usize) {
            Some(slot) => Some(slot),
            None => self.slot_of_page(index - FIRST_SLOTS as u32),
        }
    }

    #[cold]
    #[inline(never)]
    fn slot_of_page(&self, index: u32) -> Option<&Slot> {
        let (page, place) = place_of(index);
        let cell = self.pages.get(page)?;
        match cell.get() {
            Some(slots) => slots.get(place),
            None => self.make_page(page).get(place),
        }
    }

    #[cold]
    fn make_page(&self, page: usize) -> &[Slot] {
        let _one_at_a_time = self.growing.lock();
        match self.pages.get(page) {
            Some(cell) => {
                cell.get_or_init(|| (0..PAGE_SLOTS << page).map(|_| Slot::default()).collect())
            }
            None => &[],
        }
    }

    /// The slot of an open span.
    #[inline]
    fn open(&self, id: u64) -> Option<&Slot> {
        let slot = self.slot(id as u32)?;
        let is_current = slot.generation.load(Ordering::Relaxed) == (id >> 32) as u32;
        if is_current { Some(slot) } else { None }
    }

    #[inline]
    fn hold(&self, id: u64) {
        match self.open(id) {
            Some(slot) => {
                slot.handles.fetch_add(1, Ordering::Relaxed);
            }
            None => {
                self.misuses.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// One handle less; `true` when it was the last.
    #[inline]
    fn release(&self, id: u64) -> bool {
        let Some(slot) = self.open(id) else {
            self.misuses.fetch_add(1, Ordering::Relaxed);
            return false;
        };
        // With one handle left, which is the caller's, nobody else can make another: no atomic
        // step is needed for the spans that were never cloned, which are most.
        if slot.handles.load(Ordering::Acquire) == 1 {
            slot.handles.store(0, Ordering::Relaxed);
            return true;
        }
        if slot.handles.fetch_sub(1, Ordering::Release) != 1 {
            return false;
        }
        fence(Ordering::Acquire);
        true
    }

    fn give_back(&self, own: &FreeSlots, id: u64) {
        if !own.push(id as u32) {
            self.free.take_from(own, SLOT_BATCH);
            own.push(id as u32);
        }
    }

    fn metadata(&self, id: u64) -> Option<&'static Metadata<'static>> {
        let metadata = self.open(id)?.metadata.load(Ordering::Relaxed);
        // SAFETY: only `take` stores here, and what it stores is `&'static`.
        unsafe { metadata.as_ref() }
    }
}

/// Page and place of a slot beyond the first: pages double in size.
#[inline]
fn place_of(index: u32) -> (usize, usize) {
    let shifted = index as usize / PAGE_SLOTS + 1;
    let page = shifted.ilog2() as usize;
    let before = PAGE_SLOTS * ((1 << page) - 1);
    (page, index as usize - before)
}

/// Spans open at once before pages are needed: a mebibyte of addresses.
const FIRST_SLOTS: usize = 1 << 16;
/// Slots of the first page.
const PAGE_SLOTS: usize = 256;
/// Pages: more slots than memory for open spans.
const PAGES: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_found_in_their_pages() {
        let mut last = (0, usize::MAX);
        for index in 0..100_000 {
            let (page, place) = place_of(index);
            assert!(place < PAGE_SLOTS << page, "slot {index}");
            let follows = (page == last.0 && place == last.1.wrapping_add(1))
                || (page == last.0 + 1 && place == 0);
            assert!(follows, "slot {index} is at {page}/{place} after {last:?}");
            last = (page, place);
        }
    }
}
