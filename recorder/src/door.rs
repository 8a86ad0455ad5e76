//! What every door shares: the way from an instrumented thread to its lane.
//!
//! A door (a layer, a subscriber, a dispatcher) leads into a run. Each thread that uses it keeps
//! its state for it (lane, stack of entered spans, known callsites), so recording takes no lock.
//! Which state belongs to a door is looked up once; after that two loads and two comparisons find
//! it again.

#![expect(unsafe_code, reason = "thread states are reached through a raw pointer in a const cell")]

use std::cell::{Cell, OnceCell, RefCell, RefMut, UnsafeCell};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};
use retake_schemas::EventBody;
use retake_schemas::event::DropCause;

use crate::capture::CapturePolicy;
use crate::journal::record::{self, Kind};
use crate::journal::{Callsite, CallsiteDef, Cursor, Journal, Offered, Refused, encode_body};

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
    #[inline]
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
    #[inline]
    pub(crate) fn with<R>(&self, work: impl FnOnce(&ThreadState) -> R) -> Option<R> {
        let (id, state) = LAST.get();
        if id == self.id {
            // SAFETY: `LAST` points to a state that `STATES` of this thread owns, and is cleared
            // before the state goes.
            let state = unsafe { &*state };
            if state.generation.get() == self.generation.load(Ordering::Acquire) {
                return Some(work(state));
            }
        }
        self.with_slowly(work)
    }

    #[cold]
    #[inline(never)]
    fn with_slowly<R>(&self, work: impl FnOnce(&ThreadState) -> R) -> Option<R> {
        let found = STATES.try_with(|states| self.find(states));
        let state = match found {
            Ok(state) => state?,
            // The thread is ending and its states are gone: a lane for this once.
            Err(_) => {
                let state = self.make_state()?;
                return Some(work(&state));
            }
        };
        LAST.set((self.id, state));
        // SAFETY: as above; the state is boxed, so it stays where it is.
        Some(work(unsafe { &*state }))
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
            let is_busy = states.0.get(place).is_some_and(|state| state.busy.get());
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
    fn renew(&self, old: ThreadState) -> Option<ThreadState> {
        let state = self.make_state()?;
        state.stack.replace(old.stack.take());
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
    #[inline]
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
    stack: RefCell<Vec<Entered>>,
    /// The span opened last, as long as nothing else was entered: its entry need not be recorded,
    /// unless its callsite is known for spans that are entered again.
    pub(crate) last_opened: Cell<(u64, bool)>,
    /// The span whose entry was not recorded and that was just left: when it ends now, it was
    /// busy throughout.
    pub(crate) last_left: Cell<u64>,
    callsites: UnsafeCell<[Option<CachedCallsite>; CALLSITES_CACHED]>,
    has_earlier: Cell<bool>,
    earlier: RefCell<Vec<ThreadState>>,
    slots: RefCell<Vec<u32>>,
    /// Where they go when the thread ends.
    slot_pool: Option<Arc<SlotPool>>,
}

/// A callsite and the address of its static description.
type CachedCallsite = (usize, Arc<Callsite>);

/// A span that is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entered {
    pub(crate) key: u64,
    /// Its entry was recorded, so its exit must be.
    pub(crate) is_recorded: bool,
}

/// What writing needs of a callsite, copied out of the cache.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KnownCallsite {
    pub(crate) number: u32,
    pub(crate) fields: usize,
    pub(crate) content: u64,
    pub(crate) secret: u64,
    pub(crate) is_polled: bool,
}

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
            stack: RefCell::default(),
            last_opened: Cell::new((0, false)),
            last_left: Cell::new(0),
            callsites: UnsafeCell::new([const { None }; CALLSITES_CACHED]),
            has_earlier: Cell::new(false),
            earlier: RefCell::default(),
            slots: RefCell::default(),
            slot_pool: None,
        }
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

    /// Whether the run that this is the state for is one of several that are recorded now.
    #[inline]
    pub(crate) fn is_of_several(&self) -> bool {
        self.has_earlier.get()
    }

    fn is_over(&self) -> bool {
        self.target.journal.is_closed()
    }

    /// Innermost span entered, or 0.
    #[inline]
    pub(crate) fn current(&self) -> u64 {
        self.stack.borrow().last().map_or(0, |entered| entered.key)
    }

    #[inline]
    pub(crate) fn push(&self, entered: Entered) {
        self.stack.borrow_mut().push(entered);
    }

    /// The span is left; `None` if it was not entered here.
    #[inline]
    pub(crate) fn pop(&self, key: u64) -> Option<Entered> {
        let mut stack = self.stack.borrow_mut();
        if stack.last().is_some_and(|top| top.key == key) {
            return stack.pop();
        }
        // Guards may be dropped in any order.
        let place = stack.iter().rposition(|entered| entered.key == key)?;
        Some(stack.remove(place))
    }

    /// Does `work` while calls from inside it use another lane.
    #[inline]
    pub(crate) fn while_busy<R>(&self, work: impl FnOnce() -> R) -> R {
        let was_busy = self.busy.replace(true);
        let result = work();
        self.busy.set(was_busy);
        result
    }

    /// The state to write with: this one, or one for calls from inside a record that is being
    /// written. `None` beyond a depth that only endless recursion reaches.
    #[inline]
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

    /// Writes with the cursor. Nobody else may be using it: see [`ThreadState::free`].
    #[inline]
    pub(crate) fn write<R>(&self, work: impl FnOnce(&mut Cursor, &Journal) -> R) -> R {
        assert!(!self.busy.get(), "the lane is in use further up the stack");
        // SAFETY: the state belongs to this thread, and every way to the cursor goes through
        // here. Code that runs inside `work` and may call back (`Debug` of the program's own)
        // runs with `busy` set, so it cannot come here with this state.
        work(unsafe { &mut *self.cursor.get() }, &self.target.journal)
    }

    /// The callsite described at `address`; `Err` when its definition could not be written.
    #[inline]
    pub(crate) fn callsite(
        &self,
        address: usize,
        define: impl FnOnce() -> CallsiteDef,
    ) -> Result<KnownCallsite, Refused> {
        let place = (address >> 5) % CALLSITES_CACHED;
        // SAFETY: the state belongs to this thread; the reference ends before anything is called.
        let cached = unsafe { &*self.callsites.get() };
        if let Some(Some((known, callsite))) = cached.get(place)
            && *known == address
        {
            return Ok(KnownCallsite::of(callsite));
        }
        self.learn(address, define)
    }

    #[cold]
    fn learn(
        &self,
        address: usize,
        define: impl FnOnce() -> CallsiteDef,
    ) -> Result<KnownCallsite, Refused> {
        let journal = &self.target.journal;
        let callsite = journal.callsites.get(address, define, |number, definition| {
            // Strings and numbers always encode.
            let bytes = rmp_serde::to_vec_named(definition).unwrap_or_default();
            let ticks = journal.clock.ticks();
            let words = record::with_payload(Kind::Callsite, ticks, u64::from(number), &bytes);
            self.write(|cursor, journal| cursor.append(journal, Kind::Callsite, &words))
        })?;
        let known = KnownCallsite::of(&callsite);
        // SAFETY: the state belongs to this thread, and no reference into the cache is held.
        let cache = unsafe { &mut *self.callsites.get() };
        if let Some(place) = cache.get_mut((address >> 5) % CALLSITES_CACHED) {
            *place = Some((address, callsite));
        }
        Ok(known)
    }

    /// Calls `work` for this state and for those of earlier runs that are still recorded: which
    /// run a span belongs to only its opening knows, and a run ignores what it did not open.
    #[inline]
    pub(crate) fn each_run(&self, work: impl Fn(&Self)) {
        work(self);
        if self.has_earlier.get() {
            for earlier in self.earlier.borrow().iter() {
                work(earlier);
            }
        }
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

impl KnownCallsite {
    /// Stands for the callsite of an update, which is not known to who writes it.
    pub(crate) const fn unknown() -> Self {
        Self { number: u32::MAX, fields: 0, content: 0, secret: 0, is_polled: false }
    }

    /// Whether the field holds content that the capture policy governs.
    #[inline]
    pub(crate) const fn is_content(self, index: usize) -> bool {
        index < 64 && self.content >> index & 1 != 0
    }

    /// Whether the field's name says that its value is a secret.
    #[inline]
    pub(crate) const fn is_secret(self, index: usize) -> bool {
        index < 64 && self.secret >> index & 1 != 0
    }

    pub(crate) const fn is_unknown(self) -> bool {
        self.number == u32::MAX
    }

    #[inline]
    fn of(callsite: &Callsite) -> Self {
        Self {
            number: callsite.number,
            fields: callsite.fields,
            content: callsite.content,
            secret: callsite.secret,
            is_polled: callsite.is_polled.load(Ordering::Relaxed),
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

static NEXT_DOOR: AtomicU32 = AtomicU32::new(1);
const NONE: (u32, *const ThreadState) = (0, std::ptr::null());
const SALT: u64 = 0x9E37_79B9_7F4A_7C15;
/// Callsites a thread finds again without a lock.
const CALLSITES_CACHED: usize = 64;
/// `Debug` impls that record spans whose `Debug` impls record spans: deeper is endless recursion.
const DEPTH_MAX: u32 = 8;
/// First allocation for an encoded event.
const BODY_BYTES_TYPICAL: usize = 512;
