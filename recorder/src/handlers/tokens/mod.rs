//! How many tokens the calls of a run used, while it runs, and whether a budget is crossed.
//!
//! A call is a span that states token counts, by a `Usage` event or by attributes of any
//! convention the mapping knows. Its counts are posted once, when it has ended:
//!
//! * **Leaf-most.** Instrumentations nest: an agent's span repeats the sum of its calls. A span
//!   counts only if nothing below it counted. One that ends before its children waits for them.
//! * **By source.** Counts of the provider, of the model's tokenizer, and estimates are never
//!   added up silently; [`BySource::total`] does it in the open.
//! * **A true 0 counts:** a call that used no tokens is a call.
//!
//! These are the rules by which `spans.tokens_counted` is set, so the totals of a finished run
//! equal a `sum` over the table. What is exact and what is not:
//!
//! * Exact while the handler keeps up and at most [`OPEN_SPANS_MAX`] spans are open at once. What
//!   it knows to have missed is in [`TokenTotals::untracked`]; batches lost to lag are in the
//!   handler's [`HandlerReport`](crate::dispatcher::HandlerReport).
//! * A span that *opens* below one that has ended cannot take back what that one counted.
//! * Counts that arrive after their span has ended, with no child left open, are not posted but
//!   reported as untracked; the table has them if the span was not sealed yet.
//! * Counts on a log line count for the span it is written in, or, outside any span, as a call of
//!   their own. The table `spans` does not look at log lines.
//! * Only `input` and `output` make a call; a span that states only cached tokens is none.
//!
//! A call is posted in the period between two resets in which it ends. A span that is open across
//! a reset remembers that a call below it counted, even though that was in the period before.
//!
//! A budget is crossed when the posted calls use more than its limit. The handler is off the hot
//! path, so this is known at most one tick of the writer (50 ms) after the call's span has ended,
//! plus the time for batches queued before; calls under way meanwhile add to the excess.

mod calls;
mod ledger;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use retake_schemas::Event;
use retake_schemas::event::EventKind;
use retake_schemas::settings::{Budget, OnExceeded};

use crate::dispatcher::{Dispatcher, Handler, Interest};

pub use calls::OPEN_SPANS_MAX;
pub(super) use calls::{Call, Calls};
use ledger::Ledger;
pub use ledger::{BySource, Counts, MODELS_MAX, OTHER_MODELS, TokenTotals, Untracked, Violation};

/// Counts tokens. Subscribe it with [`TokenCounter::interest`], or by [`count_tokens`].
pub struct TokenCounter {
    calls: Calls,
    ended: Vec<Call>,
    shared: Arc<Shared>,
    on_violation: Box<dyn FnMut(&Violation) + Send>,
}

/// Reads and resets what a [`TokenCounter`] counted. Cheap to clone; any thread may use it.
#[derive(Debug, Clone)]
pub struct TokenUsage {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    ledger: Mutex<Ledger>,
    /// Written under the ledger's lock, so that a reset cannot be overtaken by a crossing of
    /// before it.
    is_exceeded: AtomicBool,
}

/// Counts the tokens of a run from now on.
///
/// `on_violation` is called on the handler's thread, once for each budget that is crossed, and
/// again after a reset. What it does delays only this handler.
///
/// # Errors
/// The system cannot start a thread.
pub fn count_tokens(
    dispatcher: &Dispatcher,
    budgets: Vec<Budget>,
    on_violation: impl FnMut(&Violation) + Send + 'static,
) -> io::Result<TokenUsage> {
    let (counter, usage) = TokenCounter::new(budgets, on_violation);
    dispatcher.subscribe(TokenCounter::interest(), counter)?;
    Ok(usage)
}

impl TokenCounter {
    /// A counter, and the handle to read it by.
    #[must_use]
    pub fn new(
        budgets: Vec<Budget>,
        on_violation: impl FnMut(&Violation) + Send + 'static,
    ) -> (Self, TokenUsage) {
        let shared = Arc::new(Shared {
            ledger: Mutex::new(Ledger::new(budgets)),
            is_exceeded: AtomicBool::new(false),
        });
        let counter = Self {
            calls: Calls::new(OPEN_SPANS_MAX),
            ended: Vec::new(),
            shared: Arc::clone(&shared),
            on_violation: Box::new(on_violation),
        };
        (counter, TokenUsage { shared })
    }

    /// The events it needs.
    #[must_use]
    pub fn interest() -> Interest {
        Interest::all().kinds([
            EventKind::SpanOpened,
            EventKind::SpanUpdated,
            EventKind::SpanClosed,
            EventKind::Usage,
            EventKind::Annotated,
        ])
    }

    /// Posts the calls that have ended.
    fn post(&mut self) {
        let untracked = self.calls.take_untracked();
        if self.ended.is_empty() && untracked == Untracked::default() {
            return;
        }
        let mut violations = Vec::new();
        {
            let mut ledger = self.shared.ledger.lock();
            for call in self.ended.drain(..) {
                ledger.post(&call, &mut violations);
            }
            ledger.post_untracked(untracked);
            if violations.iter().any(|v| v.budget.on_exceeded == OnExceeded::Error) {
                self.shared.is_exceeded.store(true, Ordering::Release);
            }
        }
        // Outside the lock: the callback may read the totals.
        for violation in &violations {
            (self.on_violation)(violation);
        }
    }
}

impl Handler for TokenCounter {
    fn name(&self) -> &str {
        "tokens"
    }

    fn handle(&mut self, events: &[Event]) -> Result<(), String> {
        for event in events {
            self.calls.apply(&event.body, &mut self.ended);
            if self.ended.len() >= CALLS_PER_LOCK {
                self.post();
            }
        }
        self.post();
        Ok(())
    }

    fn finish(&mut self) -> Result<(), String> {
        self.calls.end_all(&mut self.ended);
        self.post();
        Ok(())
    }
}

impl TokenUsage {
    /// What was counted since the last reset.
    #[must_use]
    pub fn snapshot(&self) -> TokenTotals {
        self.shared.ledger.lock().totals().clone()
    }

    /// Gives what was counted since the last reset, and starts at zero: every call is in exactly
    /// one period. Budgets start anew, too.
    #[must_use = "what was counted is gone otherwise; use `snapshot` to only look"]
    pub fn reset(&self) -> TokenTotals {
        let mut ledger = self.shared.ledger.lock();
        self.shared.is_exceeded.store(false, Ordering::Release);
        ledger.reset()
    }

    /// Whether a budget with `on_exceeded = "error"` was crossed since the last reset. One atomic
    /// load: a program can ask before each call.
    #[must_use]
    pub fn is_exceeded(&self) -> bool {
        self.shared.is_exceeded.load(Ordering::Acquire)
    }
}

impl std::fmt::Debug for TokenCounter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenCounter").field("calls", &self.calls).finish_non_exhaustive()
    }
}

/// Posting so many takes well below a millisecond, which is what a reader may have to wait.
const CALLS_PER_LOCK: usize = 1024;

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;
