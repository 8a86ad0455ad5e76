//! What every door shares: the way from an instrumented thread to its lane.
//!
//! A door (a layer, a subscriber, a dispatcher) leads into a run. Each thread that uses it keeps
//! its state for it (lane, stack of entered spans, known callsites), so recording takes no lock.
//! Which state belongs to a door is looked up once; after that two loads and two comparisons find
//! it again.

#![expect(unsafe_code, reason = "thread states are reached through a raw pointer in a const cell")]

mod stack;

use std::borrow::Cow;
use std::cell::{Cell, OnceCell, RefCell, RefMut, UnsafeCell};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};
use retake_schemas::EventBody;
use retake_schemas::event::DropCause;

use crate::capture::CapturePolicy;
use crate::journal::record::{self, Kind};
use crate::journal::{Body, Callsite, CallsiteDef, Cursor, Journal, Offered, Refused, encode_body};
use crate::redact::CleanTexts;
pub(crate) use stack::Entered;
use stack::Stack;

/// Where a door leads.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) journal: Journal,
    pub(crate) policy: CapturePolicy,
    /// Doors that lead here, to be told when the run is over.
    doors: RwLock<Vec<Weak<Door>>>,
}

impl Target {
    pub(crate) fn new(journal: Journal, policy: CapturePolicy) -> Self {
        Self { journal, policy, doors: RwLock::default() }
    }

    /// Refuses further events, at once in threads that look again, and soon in all.
    pub(crate) fn close(&self) {
        self.journal.close();
        for door in self.doors.read().iter().filter_map(Weak::upgrade) {
            door.generation.fetch_add(1, Ordering::Release);
        }
    }
}

/// One way for events into runs.
#[derive(Debug)]
pub(crate) struct Door {
    id: u32,
    /// Span numbers of different doors must not meet in one journal.
    salt: u64,
    /// Steps when the targets change; threads compare it to what they know.
    generation: AtomicU64,
    targets: RwLock<Targets>,
    /// Span slots that no thread keeps; only subscribers have such.
    free_slots: Arc<SlotPool>,
}

#[derive(Debug, Default)]
struct Targets {
    current: Option<Arc<Target>>,
    /// Runs it led into before; spans that were opened then still belong to them.
    earlier: Vec<Weak<Target>>,
}

impl Door {
    /// A door that leads nowhere yet.
    pub(crate) fn new() -> Arc<Self> {
        let id = NEXT_DOOR.fetch_add(1, Ordering::Relaxed);
        let salt = u64::from(id).wrapping_mul(SALT).rotate_left(17) & !1;
        Arc::new(Self {
            id,
            salt,
            generation: AtomicU64::new(1),
            targets: RwLock::default(),
            free_slots: Arc::new(SlotPool::new()),
        })
    }

    /// What the journal calls a span that this door calls `id`. Never 0.
    #[inline(always)]
    pub(crate) fn key(&self, id: u64) -> u64 {
        let key = id ^ self.salt;
        if key == 0 { u64::MAX } else { key }
    }

    /// What this door calls a span that the journal calls `key`.
    pub(crate) fn id(&self, key: u64) -> u64 {
        key ^ self.salt
    }

    /// See [`ThreadState::free_slots`].
    pub(crate) fn free_slots(&self) -> &Arc<SlotPool> {
        &self.free_slots
    }

    /// Leads into another run from now on, or nowhere.
    pub(crate) fn lead(self: &Arc<Self>, to: Option<&Arc<Target>>) {
        let mut targets = self.targets.write();
        if let Some(earlier) = targets.current.take() {
            targets.earlier.retain(|target| target.strong_count() > 0);
            targets.earlier.push(Arc::downgrade(&earlier));
        }
        if let Some(target) = to {
            let mut doors = target.doors.write();
            doors.retain(|door| door.strong_count() > 0);
            doors.push(Arc::downgrade(self));
        }
        targets.current = to.cloned();
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// The run it leads into.
    pub(crate) fn target(&self) -> Option<Arc<Target>> {
        self.targets.read().current.clone()
    }

    /// Works with the thread's state; `None` when the door leads nowhere.
    #[inline(always)]
    pub(crate) fn with<R>(&self, work: impl FnOnce(&ThreadState) -> R) -> Option<R> {
        let mut own = None;
        let (id, state) = LAST.get();
        // SAFETY: `LAST` points to a state that `STATES` of this thread owns, and is cleared
        // before the state goes.
        let is_current = id == self.id
            && unsafe { &*state }.generation.get() == self.generation.load(Ordering::Acquire);
        let state = if is_current { state } else { self.look_up(&mut own)? };
        // SAFETY: as above, or `own` is alive to the end of this call.
        Some(work(unsafe { &*state }))
    }

    #[cold]
    #[inline(never)]
    fn look_up(&self, own: &mut Option<Box<ThreadState>>) -> Option<*const ThreadState> {
        match STATES.try_with(|states| self.find(states)) {
            Ok(state) => {
                let state = state?;
                LAST.set((self.id, state));
                Some(state)
            }
            // The thread is ending and its states are gone: a lane for this once.
            Err(_) => Some(std::ptr::from_ref(&**own.insert(Box::new(self.make_state()?)))),
        }
    }

    /// The thread's state for this door, up to date; makes it if need be.
    fn find(&self, states: &RefCell<States>) -> Option<*const ThreadState> {
        let generation = self.generation.load(Ordering::Acquire);
        let mut states = states.try_borrow_mut().ok()?;
        if let Some(place) = states.0.iter().position(|state| state.door == self.id) {
            let is_current = states
                .0
                .get(place)
                .is_some_and(|state| state.generation.get() == generation && !state.is_over());
            // A state in use by a caller further up this stack must not be replaced under it.
            let is_busy = states.0.get(place).is_some_and(|state| state.is_in_use());
            if is_current || is_busy {
                return states.0.get(place).map(|state| std::ptr::from_ref(&**state));
            }
            let old = states.0.swap_remove(place);
            if std::ptr::eq(LAST.get().1, &raw const *old) {
                LAST.set(NONE);
            }
            let state = self.renew(*old)?;
            states.0.push(Box::new(state));
        } else {
            states.forget_ended();
            let state = self.make_state()?;
            states.0.push(Box::new(state));
        }
        states.0.last().map(|state| std::ptr::from_ref(&**state))
    }

    fn make_state(&self) -> Option<ThreadState> {
        let generation = self.generation.load(Ordering::Acquire);
        let (target, earlier) = self.live_targets();
        let leads_nowhere = target.is_none();
        let target = target.or_else(|| earlier.first().cloned())?;
        let mut state = ThreadState::new(self.id, generation, target);
        state.slot_pool = Some(Arc::clone(&self.free_slots));
        state.add_earlier(earlier);
        if leads_nowhere {
            state.has_earlier.set(true);
        }
        Some(state)
    }

    /// The state after the targets have changed: the stack of entered spans stays.
    fn renew(&self, mut old: ThreadState) -> Option<ThreadState> {
        let mut state = self.make_state()?;
        state.stack = std::mem::take(&mut old.stack);
        Some(state)
    }

    /// The current target, and earlier ones that are still being recorded.
    fn live_targets(&self) -> (Option<Arc<Target>>, Vec<Arc<Target>>) {
        let targets = self.targets.read();
        let is_live = |target: &Arc<Target>| !target.journal.is_closed();
        let current = targets.current.clone().filter(is_live);
        let earlier = targets.earlier.iter().filter_map(Weak::upgrade).filter(is_live).collect();
        (current, earlier)
    }

    /// Whether spans may be opened: an earlier run only sees the ends of its spans.
    #[inline(always)]
    pub(crate) fn is_current(&self, state: &ThreadState) -> bool {
        !state.has_earlier.get() || self.is_current_slowly(state)
    }

    #[cold]
    fn is_current_slowly(&self, state: &ThreadState) -> bool {
        self.target().is_some_and(|target| Arc::ptr_eq(&target, &state.target))
    }
}

/// What a thread keeps for a door.
#[derive(Debug)]
pub(crate) struct ThreadState {
    door: u32,
    generation: Cell<u64>,
    pub(crate) target: Arc<Target>,
    /// Somebody further up this thread's stack is writing a record with `cursor`: a `Debug` of the
    /// program's own that records something itself uses `nested`.
    busy: Cell<bool>,
    cursor: UnsafeCell<Cursor>,
    nested: OnceCell<Box<ThreadState>>,
    /// How deep this state is nested.
    depth: u32,
    /// Spans entered on this thread, innermost last.
    stack: Stack,
    /// The span opened last, as long as nothing else was entered: its entry need not be recorded,
    /// unless its callsite is known for spans that are entered again.
    pub(crate) last_opened: Cell<u64>,
    /// Whether that one's callsite is.
    pub(crate) is_last_polled: Cell<bool>,
    /// The span whose entry was not recorded and that was just left: when it ends now, it was
    /// busy throughout.
    pub(crate) last_left: Cell<u64>,
    callsites: UnsafeCell<[CachedCallsite; CALLSITES_CACHED]>,
    clean: RefCell<CleanTexts>,
    has_earlier: Cell<bool>,
    earlier: RefCell<Vec<ThreadState>>,
    next_id: Cell<u64>,
    slots: RefCell<Vec<u32>>,
    /// Where they go when the thread ends.
    slot_pool: Option<Arc<SlotPool>>,
}

/// The address of a callsite's static description (0 for none), and the callsite in the table of
/// the journal.
type CachedCallsite = (usize, *const Callsite);

impl ThreadState {
    fn new(door: u32, generation: u64, target: Arc<Target>) -> Self {
        let mut cursor = target.journal.adopt_lane();
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        let ticks = target.journal.clock.ticks();
        let words = record::with_payload(Kind::Thread, ticks, 0, name.as_bytes());
        // Without room the lane keeps the name it had.
        let _ = cursor.append(&target.journal, Kind::Thread, &words);
        Self {
            door,
            generation: Cell::new(generation),
            target,
            busy: Cell::new(false),
            cursor: UnsafeCell::new(cursor),
            nested: OnceCell::new(),
            depth: 0,
            stack: Stack::default(),
            last_opened: Cell::new(0),
            is_last_polled: Cell::new(false),
            last_left: Cell::new(0),
            callsites: UnsafeCell::new([(0, std::ptr::null()); CALLSITES_CACHED]),
            clean: RefCell::default(),
            has_earlier: Cell::new(false),
            earlier: RefCell::default(),
            next_id: Cell::new(first_id()),
            slots: RefCell::default(),
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
    #[inline]
    pub(crate) fn free_slots(&self) -> RefMut<'_, Vec<u32>> {
        self.slots.borrow_mut()
    }

    fn add_earlier(&self, targets: Vec<Arc<Target>>) {
        let others = targets.into_iter().filter(|target| !Arc::ptr_eq(target, &self.target));
        let states: Vec<Self> = others.map(|t| Self::new(self.door, 0, t)).collect();
        self.has_earlier.set(!states.is_empty());
        for state in &states {
            state.has_earlier.set(true);
        }
        self.earlier.replace(states);
    }

    /// Whether a caller further up this stack is writing with it, or on behalf of an earlier run.
    fn is_in_use(&self) -> bool {
        self.busy.get() || self.earlier.borrow().iter().any(Self::is_in_use)
    }

    fn is_over(&self) -> bool {
        self.target.journal.is_closed()
    }

    /// Innermost span entered, or 0.
    #[inline(always)]
    pub(crate) fn current(&self) -> u64 {
        self.stack.current()
    }

    #[inline(always)]
    pub(crate) fn push(&self, entered: Entered) {
        self.stack.push(entered);
    }

    /// The span is left; whether its entry was recorded, `None` if it was not entered here.
    #[inline(always)]
    pub(crate) fn pop(&self, key: u64) -> Option<bool> {
        self.stack.pop(key)
    }

    /// Whether the text is known to hold no secret; `false` says nothing.
    #[inline(always)]
    pub(crate) fn knows_clean(&self, text: &str) -> bool {
        text.len() < SCRUB_BYTES_MIN || self.was_clean(text)
    }

    #[inline(never)]
    fn was_clean(&self, text: &str) -> bool {
        self.clean.borrow().has(text)
    }

    /// A text without secrets, not longer than `bytes_max` (`true` when it was cut).
    pub(crate) fn scrubbed<'a>(&self, text: &'a str, bytes_max: usize) -> (Cow<'a, str>, bool) {
        let (scrubbed, is_cut) = self.target.policy.redactor().scrub_cut(text, bytes_max);
        if matches!(scrubbed, Cow::Borrowed(_)) && !is_cut {
            self.clean.borrow_mut().add(text);
        }
        (scrubbed, is_cut)
    }

    /// See [`ThreadState::free`].
    #[inline(always)]
    pub(crate) fn is_busy(&self) -> bool {
        self.busy.get()
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
            let mut nested = Self::new(self.door, 0, Arc::clone(&self.target));
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
    pub(crate) fn begin(&self, kind: Kind) -> Result<Body, Refused> {
        let begun = self.write(|cursor, journal| cursor.begin(journal, kind));
        self.busy.set(begun.is_ok());
        begun
    }

    /// Appends the record that was begun last.
    #[inline(always)]
    pub(crate) fn commit(&self, kind: Kind, body: &Body) -> Result<(), Refused> {
        self.busy.set(false);
        self.write(|cursor, _| cursor.commit(kind, body))
    }

    /// The callsite described at `address`; `Err` when its definition could not be written.
    #[inline]
    pub(crate) fn callsite(
        &self,
        address: usize,
        define: impl FnOnce() -> CallsiteDef,
    ) -> Result<&Callsite, Refused> {
        let place = place_of(address);
        // SAFETY: the state belongs to this thread; the reference ends before anything is called.
        let cached = unsafe { &*self.callsites.get() };
        if let Some((known, callsite)) = cached.get(place)
            && *known == address
        {
            // SAFETY: callsites live as long as the journal, which `target` keeps alive.
            return Ok(unsafe { &**callsite });
        }
        self.learn(address, define)
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
        let callsite = Arc::as_ptr(&callsite);
        // SAFETY: the state belongs to this thread, and no reference into the cache is held.
        let cache = unsafe { &mut *self.callsites.get() };
        if let Some(place) = cache.get_mut(place_of(address)) {
            *place = (address, callsite);
        }
        // SAFETY: the journal's table holds it as well and drops nothing while the journal lives.
        Ok(unsafe { &*callsite })
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
            pool.lock().append(self.slots.get_mut());
        }
    }
}

/// Lets the thread look its states up again. For the child of a fork.
pub(crate) fn forget_last() {
    LAST.set(NONE);
}

/// Span slots that no thread keeps.
#[derive(Debug, Default)]
pub(crate) struct SlotPool {
    pid: u32,
    free: Mutex<Vec<u32>>,
    /// The same in forked children: there the other lock may be held by a thread that does not
    /// exist.
    free_in_child: Mutex<Vec<u32>>,
}

impl SlotPool {
    fn new() -> Self {
        Self { pid: crate::fork::current_pid(), ..Self::default() }
    }

    pub(crate) fn lock(&self) -> parking_lot::MutexGuard<'_, Vec<u32>> {
        if crate::fork::current_pid() == self.pid { &self.free } else { &self.free_in_child }.lock()
    }
}

/// The states of a thread.
#[expect(clippy::vec_box, reason = "pointers to states must survive the vector's growth")]
#[derive(Default)]
struct States(Vec<Box<ThreadState>>);

impl States {
    /// Drops what belongs to runs that are over, with all the memory of their journals: a thread
    /// may see thousands of runs come and go.
    fn forget_ended(&mut self) {
        self.0.retain(|state| {
            let is_kept = state.is_in_use() || !state.is_over();
            if !is_kept && std::ptr::eq(LAST.get().1, &raw const **state) {
                LAST.set(NONE);
            }
            is_kept
        });
    }
}

impl Drop for States {
    fn drop(&mut self) {
        LAST.set(NONE);
    }
}

thread_local! {
    /// The door used last, and the state for it. Without destructor, so that reading it is one
    /// load.
    static LAST: Cell<(u32, *const ThreadState)> = const { Cell::new(NONE) };
    static STATES: RefCell<States> = RefCell::new(States::default());
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

static NEXT_DOOR: AtomicU32 = AtomicU32::new(1);
static NEXT_STATE: AtomicU64 = AtomicU64::new(1);
const NONE: (u32, *const ThreadState) = (0, std::ptr::null());
const SALT: u64 = 0x9E37_79B9_7F4A_7C15;
/// Callsites a thread finds again without a lock.
const CALLSITES_CACHED: usize = 64;
/// `Debug` impls that record spans whose `Debug` impls record spans: deeper is endless recursion.
const DEPTH_MAX: u32 = 8;
/// No secret that can be told from other texts is shorter, bytes.
const SCRUB_BYTES_MIN: usize = 8;
/// First allocation for an encoded event.
const BODY_BYTES_TYPICAL: usize = 512;
