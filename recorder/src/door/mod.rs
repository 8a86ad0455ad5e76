//! What every door shares: the way from an instrumented thread to its lane.
//!
//! A door (a layer, a subscriber, a dispatcher) leads into a run. Each thread that uses it keeps
//! its state for it (lane, stack of entered spans, known callsites), so recording takes no lock.
//! Which state belongs to a door is looked up once; after that one comparison finds it again.

#![expect(unsafe_code, reason = "thread states are reached through a raw pointer in a const cell")]

mod slot_pool;
mod stack;
mod state;

use std::cell::{Cell, RefCell};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::RwLock;

use crate::capture::CapturePolicy;
use crate::journal::Journal;
pub(crate) use slot_pool::{FreeSlots, SLOT_BATCH, SlotPool};
pub(crate) use stack::Entered;
pub(crate) use state::ThreadState;

/// [`Door::with`] where every instruction counts: what the work refers to stays in registers,
/// because a closure is made of it only where the state must be looked up.
macro_rules! with_state {
    ($door:expr, |$state:ident| $work:expr) => {
        match $door.last_state() {
            Some($state) => Some($work),
            None => $door.with_another(move |$state| $work),
        }
    };
}
pub(crate) use with_state;

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
            door.ticket.fetch_add(1, Ordering::Release);
        }
    }
}

/// One way for events into runs.
#[derive(Debug)]
pub(crate) struct Door {
    /// Which door it is (high half), and how often its targets have changed: threads compare it to
    /// what they know.
    ticket: AtomicU64,
    /// Span numbers of different doors must not meet in one journal.
    salt: u64,
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
        let number = u64::from(NEXT_DOOR.fetch_add(1, Ordering::Relaxed));
        let salt = number.wrapping_mul(SALT).rotate_left(17) & !1;
        Arc::new(Self {
            ticket: AtomicU64::new(number << 32),
            salt,
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
        self.ticket.fetch_add(1, Ordering::Release);
    }

    /// The run it leads into.
    pub(crate) fn target(&self) -> Option<Arc<Target>> {
        self.targets.read().current.clone()
    }

    /// Works with the thread's state; `None` when the door leads nowhere.
    #[inline]
    pub(crate) fn with<R>(&self, work: impl FnOnce(&ThreadState) -> R) -> Option<R> {
        match self.last_state() {
            Some(state) => Some(work(state)),
            None => self.with_another(work),
        }
    }

    /// The thread's state if it is the one used last. Not to be kept: the next look for a state
    /// may drop it.
    #[inline(always)]
    pub(crate) fn last_state(&self) -> Option<&ThreadState> {
        let (ticket, state) = LAST.get();
        if ticket != self.ticket.load(Ordering::Acquire) {
            return None;
        }
        // SAFETY: `LAST` points to a state that `STATES` of this thread owns, and is cleared
        // before the state goes.
        Some(unsafe { state.as_ref() })
    }

    /// Works with a state other than the one used last. Apart, because that one need not be
    /// dropped afterwards.
    #[cold]
    #[inline(never)]
    pub(crate) fn with_another<R>(&self, work: impl FnOnce(&ThreadState) -> R) -> Option<R> {
        let mut own = None;
        let state = self.look_up(&mut own)?;
        // SAFETY: `STATES` of this thread owns it, or `own`, which lives to the end of this call.
        Some(work(unsafe { state.as_ref() }))
    }

    #[cold]
    #[inline(never)]
    fn look_up(&self, own: &mut Option<Box<ThreadState>>) -> Option<NonNull<ThreadState>> {
        match STATES.try_with(|states| self.find(states)) {
            Ok(state) => {
                let state = state?;
                // SAFETY: `STATES` owns it.
                LAST.set((unsafe { state.as_ref() }.ticket, state));
                Some(state)
            }
            // The thread is ending and its states are gone: a lane for this once.
            Err(_) => Some(NonNull::from(&**own.insert(Box::new(self.make_state()?)))),
        }
    }

    /// The thread's state for this door, up to date; makes it if need be.
    fn find(&self, states: &RefCell<States>) -> Option<NonNull<ThreadState>> {
        let ticket = self.ticket.load(Ordering::Acquire);
        let mut states = states.try_borrow_mut().ok()?;
        if let Some(place) = states.0.iter().position(|state| state.ticket >> 32 == ticket >> 32) {
            let is_current =
                states.0.get(place).is_some_and(|state| state.ticket == ticket && !state.is_over());
            // A state in use by a caller further up this stack must not be replaced under it.
            let is_busy = states.0.get(place).is_some_and(|state| state.is_in_use());
            if is_current || is_busy {
                return states.0.get(place).map(|state| NonNull::from(&**state));
            }
            let old = states.0.swap_remove(place);
            if LAST.get().1 == NonNull::from(&*old) {
                LAST.set(NONE);
            }
            let state = self.renew(*old)?;
            states.0.push(Box::new(state));
        } else {
            states.forget_ended();
            let state = self.make_state()?;
            states.0.push(Box::new(state));
        }
        states.0.last().map(|state| NonNull::from(&**state))
    }

    fn make_state(&self) -> Option<ThreadState> {
        let ticket = self.ticket.load(Ordering::Acquire);
        let (target, earlier) = self.live_targets();
        let leads_nowhere = target.is_none();
        let target = target.or_else(|| earlier.first().cloned())?;
        let mut state = ThreadState::new(ticket, target);
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

/// Lets the thread look its states up again. For the child of a fork.
pub(crate) fn forget_last() {
    LAST.set(NONE);
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
            if !is_kept && LAST.get().1 == NonNull::from(&**state) {
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
    /// The ticket of the door used last, and the state for it. Without destructor, so that reading
    /// it is one load.
    static LAST: Cell<(u64, NonNull<ThreadState>)> = const { Cell::new(NONE) };
    static STATES: RefCell<States> = RefCell::new(States::default());
}

static NEXT_DOOR: AtomicU32 = AtomicU32::new(1);
const NONE: (u64, NonNull<ThreadState>) = (0, NonNull::dangling());
const SALT: u64 = 0x9E37_79B9_7F4A_7C15;
