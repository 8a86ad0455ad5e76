//! The end of a run, under loom.

#![expect(unsafe_code, reason = "loom watches memory that is shared without a lock")]

use std::sync::atomic::{AtomicUsize, Ordering};

use loom::sync::Arc;

use crate::sync;

#[path = "../../../src/journal/gate.rs"]
mod protocol;

/// Something that threads write without a lock.
#[derive(Default)]
struct Place(loom::cell::UnsafeCell<bool>);

// SAFETY: loom ends the test when two threads use it at the same time.
unsafe impl Sync for Place {}

/// Scenario: two threads go in and write, one closes the gate, waits until everybody has left, and
/// reads what they wrote.
/// Guarantees: J9 - what was written by a thread that was let in is seen by who waited; nobody is
/// let in later.
#[test]
fn what_was_let_in_is_seen_by_who_closed_the_gate() {
    let let_in = std::sync::Arc::new(AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&let_in);
    let explored = crate::explore(move || {
        let gate = Arc::new(protocol::Gate::new());
        let written = Arc::new([Place::default(), Place::default()]);
        let threads = [0, 1].map(|number| {
            let (gate, written) = (Arc::clone(&gate), Arc::clone(&written));
            loom::thread::spawn(move || {
                let Some(_inside) = gate.enter() else {
                    return false;
                };
                // SAFETY: see `Place`.
                written[number].0.with_mut(|place| unsafe { *place = true });
                true
            })
        });
        gate.close();
        while !gate.is_empty() {
            loom::thread::yield_now();
        }
        assert!(gate.is_closed());
        // SAFETY: see `Place`.
        let seen = [0, 1].map(|number| written[number].0.with(|place| unsafe { *place }));
        let accepted = threads.map(|thread| thread.join().unwrap());
        assert_eq!(seen, accepted);
        let let_in = accepted.iter().filter(|accepted| **accepted).count();
        count.fetch_add(let_in, Ordering::Relaxed);
    });
    let let_in = let_in.load(Ordering::Relaxed);
    println!("{explored} executions, {let_in} threads let in");
    assert!(let_in > 0 && let_in < explored * 2, "some are let in and some are not");
}
