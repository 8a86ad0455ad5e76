//! What a thread keeps for a door: its lane, the spans it is in, and what it has learned.

#![expect(unsafe_code, reason = "the cursor and the callsites are reached without a borrow flag")]

use std::borrow::Cow;
use std::cell::{Cell, OnceCell, RefCell, UnsafeCell};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use retake_schemas::EventBody;
use retake_schemas::event::DropCause;

use super::slot_pool::SLOTS_KEPT;
use super::stack::{Entered, Stack};
use super::{FreeSlots, SlotPool, Target};
use crate::journal::record::{self, Kind};
use crate::journal::{Body, Callsite, CallsiteDef, Cursor, Journal, Offered, Refused, encode_body};
use crate::redact::CleanTexts;

/// What a thread keeps for a door.
#[derive(Debug)]
pub(crate) struct ThreadState {
    /// The door's ticket when this was made; 0 for a state that no door looks for.
    pub(super) ticket: u64,
    pub(crate) target: Arc<Target>,
    /// Texts up to this length, bytes, are neither looked through nor cut.
    short_text_max: usize,
    /// Somebody further up this thread's stack is writing a record with `cursor`: a `Debug` of the
    /// program's own that records something itself uses `nested`.
    busy: Cell<bool>,
    cursor: UnsafeCell<Cursor>,
    nested: OnceCell<Box<ThreadState>>,
    /// How deep this state is nested.
    depth: u32,
    /// Spans entered on this thread, innermost last.
    pub(super) stack: Stack,
    /// The span opened last, as long as nothing else was entered or left: its entry need not be
    /// recorded. 0 when its callsite is known for spans that are entered again.
    pub(crate) last_opened: Cell<u64>,
    /// The span whose entry was not recorded and that was just left: when it ends now, it was
    /// busy throughout.
    pub(crate) last_left: Cell<u64>,
    callsites: UnsafeCell<[CachedCallsite; CALLSITES_CACHED]>,
    clean: UnsafeCell<CleanTexts>,
    pub(super) has_earlier: Cell<bool>,
    earlier: RefCell<Vec<ThreadState>>,
    next_id: Cell<u64>,
    slots: FreeSlots,
    /// Where they go when the thread ends.
    pub(super) slot_pool: Option<Arc<SlotPool>>,
}

/// The address of a callsite's static description (0 for none), and the callsite in the table of
/// the journal.
type CachedCallsite = (usize, NonNull<Callsite>);

impl ThreadState {
    pub(super) fn new(ticket: u64, target: Arc<Target>) -> Self {
        let mut cursor = target.journal.adopt_lane();
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        let ticks = target.journal.clock.ticks();
        let words = record::with_payload(Kind::Thread, ticks, 0, name.as_bytes());
        // Without room the lane keeps the name it had.
        let _ = cursor.append(&target.journal, Kind::Thread, &words);
        Self {
            ticket,
            short_text_max: target.journal.limits.attribute_bytes_max.min(SCRUB_BYTES_MIN - 1),
            target,
            busy: Cell::new(false),
            cursor: UnsafeCell::new(cursor),
            nested: OnceCell::new(),
            depth: 0,
            stack: Stack::default(),
            last_opened: Cell::new(0),
            last_left: Cell::new(0),
            callsites: UnsafeCell::new([(0, NonNull::from(Callsite::unknown())); CALLSITES_CACHED]),
            clean: UnsafeCell::default(),
            has_earlier: Cell::new(false),
            earlier: RefCell::default(),
            next_id: Cell::new(first_id()),
            slots: FreeSlots::default(),
            slot_pool: None,
        }
    }

    /// A number for a span that no other open span of this door has.
    #[inline(always)]
    pub(crate) fn next_id(&self) -> u64 {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        id
    }

    /// Span slots that this thread keeps for the next spans it opens.
    #[inline(always)]
    pub(crate) fn free_slots(&self) -> &FreeSlots {
        &self.slots
    }

    pub(super) fn add_earlier(&self, targets: Vec<Arc<Target>>) {
        let others = targets.into_iter().filter(|target| !Arc::ptr_eq(target, &self.target));
        let states: Vec<Self> = others.map(|t| Self::new(0, t)).collect();
        self.has_earlier.set(!states.is_empty());
        for state in &states {
            state.has_earlier.set(true);
        }
        self.earlier.replace(states);
    }

    /// Whether a caller further up this stack is writing with it, or on behalf of an earlier run.
    pub(super) fn is_in_use(&self) -> bool {
        self.busy.get() || self.earlier.borrow().iter().any(Self::is_in_use)
    }

    pub(super) fn is_over(&self) -> bool {
        self.target.journal.is_closed()
    }

    /// Innermost span entered, or 0.
    #[inline(always)]
    pub(crate) fn current(&self) -> u64 {
        self.stack.current()
    }

    pub(crate) fn push(&self, entered: Entered) {
        self.stack.push(entered);
    }

    /// [`ThreadState::push`], if that takes next to no work; `false` if it does.
    #[inline(always)]
    pub(crate) fn push_in_place(&self, entered: Entered) -> bool {
        self.stack.push_in_place(entered)
    }

    /// [`ThreadState::pop`], if the span is the innermost one, its entry was not recorded, and
    /// that takes next to no work; `false` if not.
    #[inline(always)]
    pub(crate) fn pop_unrecorded(&self, key: u64) -> bool {
        self.stack.pop_unrecorded(key)
    }

    /// The span is left; whether its entry was recorded, `None` if it was not entered here.
    #[inline(always)]
    pub(crate) fn pop(&self, key: u64) -> Option<bool> {
        self.stack.pop(key)
    }

    /// Whether the text is known to hold no secret and not to be longer than an attribute may be;
    /// `false` says nothing.
    #[inline(always)]
    pub(crate) fn knows_clean(&self, text: &str) -> bool {
        self.is_short(text) || self.was_clean(text)
    }

    /// Whether the text is too short for a secret, and not longer than an attribute may be.
    #[inline(always)]
    pub(crate) fn is_short(&self, text: &str) -> bool {
        text.len() <= self.short_text_max
    }

    /// Whether the text was found clean lately. Those it remembers were not too long either.
    #[inline(never)]
    pub(crate) fn was_clean(&self, text: &str) -> bool {
        // SAFETY: the state belongs to this thread, and nothing is called that could come back.
        unsafe { &*self.clean.get() }.has(text)
    }

    /// A text without secrets, not longer than an attribute may be (`true` when it was cut).
    pub(crate) fn scrubbed<'a>(&self, text: &'a str) -> (Cow<'a, str>, bool) {
        let bytes_max = self.target.journal.limits.attribute_bytes_max;
        let (scrubbed, is_cut) = self.target.policy.redactor().scrub_cut(text, bytes_max);
        if matches!(scrubbed, Cow::Borrowed(_)) && !is_cut {
            // SAFETY: as in `was_clean`.
            unsafe { &mut *self.clean.get() }.add(text);
        }
        (scrubbed, is_cut)
    }

    /// Whether nobody is in the middle of a record, and what is recorded is the business of no
    /// other run.
    #[inline(always)]
    pub(crate) fn is_alone(&self) -> bool {
        !self.busy.get() && !self.has_earlier.get()
    }

    /// Whether, besides, a record can be begun without another chunk.
    #[inline(always)]
    pub(crate) fn is_ready(&self) -> bool {
        // SAFETY: the state belongs to this thread; nobody further up the stack is writing.
        self.is_alone() && unsafe { &*self.cursor.get() }.has_room()
    }

    /// The same for the end of a span, which needs less room.
    #[inline(always)]
    pub(crate) fn is_ready_for_end(&self) -> bool {
        // SAFETY: as in `is_ready`.
        self.is_alone() && unsafe { &*self.cursor.get() }.has_room_for_end()
    }

    /// The state to write with: this one, or one for calls from inside a record that is being
    /// written. `None` beyond a depth that only endless recursion reaches.
    #[inline(always)]
    pub(crate) fn free(&self) -> Option<&Self> {
        if self.busy.get() { self.nested_free() } else { Some(self) }
    }

    #[cold]
    fn nested_free(&self) -> Option<&Self> {
        if self.depth >= DEPTH_MAX {
            return None;
        }
        let nested = self.nested.get_or_init(|| {
            let mut nested = Self::new(0, Arc::clone(&self.target));
            nested.depth = self.depth + 1;
            Box::new(nested)
        });
        nested.free()
    }

    /// Writes with the cursor. Nobody else may be using it: see [`ThreadState::free`]. Whatever
    /// is called meanwhile and records (an allocator of the program's own) uses another lane.
    #[inline(always)]
    pub(crate) fn write<R>(&self, work: impl FnOnce(&mut Cursor, &Journal) -> R) -> R {
        assert!(!self.busy.replace(true), "the lane is in use further up the stack");
        // SAFETY: the state belongs to this thread, every way to the cursor goes through here,
        // and `busy` keeps a second one out.
        let written = work(unsafe { &mut *self.cursor.get() }, &self.target.journal);
        self.busy.set(false);
        written
    }

    /// Begins a record, to be ended with [`ThreadState::commit`]. Until then the lane is in use:
    /// what code of the program's own (`Debug`) records in between goes into another one.
    #[inline(always)]
    pub(crate) fn begin(&self, kind: Kind, head: (u64, Option<u64>)) -> Result<Body, Refused> {
        let begun = self.write(|cursor, journal| cursor.begin(journal, kind, head));
        self.busy.set(begun.is_ok());
        begun
    }

    /// Appends the record that was begun last, which was not cut short.
    #[inline(always)]
    pub(crate) fn commit(&self, kind: Kind, body: &Body) {
        debug_assert!(self.busy.get(), "no record was begun");
        // SAFETY: who begins a record has the cursor until now.
        unsafe { &mut *self.cursor.get() }.commit(kind, body);
        self.busy.set(false);
    }

    /// Leaves out the record that was begun last.
    pub(crate) fn abandon(&self) {
        self.busy.set(false);
    }

    /// The callsite described at `address`; `Err` when its definition could not be written.
    #[inline]
    pub(crate) fn callsite(
        &self,
        address: usize,
        define: impl FnOnce() -> CallsiteDef,
    ) -> Result<&Callsite, Refused> {
        match self.known_callsite(address) {
            Some(callsite) => Ok(callsite),
            None => self.learn(address, define),
        }
    }

    /// The same if this thread remembers it.
    #[inline(always)]
    pub(crate) fn known_callsite(&self, address: usize) -> Option<&Callsite> {
        // SAFETY: the state belongs to this thread; the reference ends before anything is called.
        let cached = unsafe { &*self.callsites.get() };
        let (known, callsite) = cached.get(place_of(address))?;
        // SAFETY: callsites live as long as the journal, which `target` keeps alive.
        if *known == address { Some(unsafe { callsite.as_ref() }) } else { None }
    }

    #[cold]
    #[inline(never)]
    fn learn(
        &self,
        address: usize,
        define: impl FnOnce() -> CallsiteDef,
    ) -> Result<&Callsite, Refused> {
        let journal = &self.target.journal;
        let callsite = journal.callsites.get(address, define, |number, definition| {
            // Strings and numbers always encode.
            let bytes = rmp_serde::to_vec_named(definition).unwrap_or_default();
            let ticks = journal.clock.ticks();
            let words = record::with_payload(Kind::Callsite, ticks, u64::from(number), &bytes);
            self.write(|cursor, journal| cursor.append(journal, Kind::Callsite, &words))
        })?;
        let callsite = NonNull::from(&*callsite);
        // SAFETY: the state belongs to this thread, and no reference into the cache is held.
        let cache = unsafe { &mut *self.callsites.get() };
        if let Some(place) = cache.get_mut(place_of(address)) {
            *place = (address, callsite);
        }
        // SAFETY: the journal's table holds it as well and drops nothing while the journal lives.
        Ok(unsafe { callsite.as_ref() })
    }

    /// Calls `work` for this state and for those of earlier runs that are still recorded: which
    /// run a span belongs to only its opening knows, and a run ignores what it did not open.
    #[inline]
    pub(crate) fn each_run(&self, work: impl Fn(&Self)) {
        work(self);
        if self.has_earlier() {
            self.each_earlier_run(&work);
        }
    }

    /// Whether there are earlier runs. Where it matters, what is done for this state is inlined
    /// and what is done for those is not.
    #[inline(always)]
    pub(crate) fn has_earlier(&self) -> bool {
        self.has_earlier.get()
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn each_earlier_run(&self, work: &dyn Fn(&Self)) {
        self.earlier.borrow().iter().for_each(work);
    }

    /// Writes an event in its general form.
    pub(crate) fn emit(&self, time_unix_ns: i64, body: &EventBody) -> Offered {
        let journal = &self.target.journal;
        let is_span = matches!(body, EventBody::SpanOpened(_));
        let lost = |cause| {
            journal.count_loss(cause, is_span);
            Offered::Dropped(cause)
        };
        let Some(_answering) = journal.answer() else { return lost(DropCause::Finished) };
        let Some(state) = self.free() else { return lost(DropCause::TooLarge) };
        let mut bytes = Vec::with_capacity(BODY_BYTES_TYPICAL);
        if encode_body(body, &mut bytes).is_err() {
            // MessagePack can hold every event; only a length over u32 fails, far above the limit.
            return lost(DropCause::TooLarge);
        }
        let time = time_unix_ns.cast_unsigned();
        let words = record::with_payload(Kind::Body, journal.clock.ticks(), time, &bytes);
        match state.write(|cursor, journal| cursor.append(journal, Kind::Body, &words)) {
            Ok(()) => Offered::Accepted,
            Err(Refused::Dropped(cause)) => lost(cause),
            Err(Refused::TooLong) => lost(DropCause::TooLarge),
        }
    }
}

impl Drop for ThreadState {
    fn drop(&mut self) {
        if self.target.journal.is_inherited() {
            return;
        }
        let lane = std::sync::Arc::clone(&self.cursor.get_mut().lane);
        let cursor = std::mem::replace(self.cursor.get_mut(), Cursor::new(lane));
        self.target.journal.park_lane(cursor);
        if let Some(pool) = &self.slot_pool {
            pool.take_from(&self.slots, SLOTS_KEPT);
        }
    }
}

/// The first of the numbers of a thread state: a trillion spans for each of 16 million of them.
fn first_id() -> u64 {
    NEXT_STATE.fetch_add(1, Ordering::Relaxed) << 40
}

/// Where a thread looks for a callsite: descriptions are some words long and lie side by side.
#[inline]
const fn place_of(address: usize) -> usize {
    (address >> 5) % CALLSITES_CACHED
}

static NEXT_STATE: AtomicU64 = AtomicU64::new(1);
/// Callsites a thread finds again without a lock.
const CALLSITES_CACHED: usize = 64;
/// `Debug` impls that record spans whose `Debug` impls record spans: deeper is endless recursion.
const DEPTH_MAX: u32 = 8;
/// No secret that can be told from other texts is shorter, bytes.
const SCRUB_BYTES_MIN: usize = 8;
/// First allocation for an encoded event.
const BODY_BYTES_TYPICAL: usize = 512;
