//! The protocols between threads, under [loom](https://docs.rs/loom): it tries every order of the
//! threads' steps, up to a number of preemptions, and every value that the memory orders let a
//! load see. So it finds a `Release` that is missing, which no test on a real processor must.
//!
//! The files of the protocols are compiled once more here, with loom's locks and atomics in place
//! of `sync`: what is checked is the code that runs, not a copy of it. What stands around it is a
//! model: chunks of a few words, records of two.

mod alarm;
mod gate;
mod lanes;
#[path = "../locks/mod.rs"]
mod locks;
mod sync;

/// Times a thread may be interrupted in one execution; bugs that need more are unheard of
/// (Musuvathi and Qadeer, "Iterative context bounding", 2007: two found all they knew).
const PREEMPTIONS_MAX: usize = 5;

/// Runs `execution` in every way there is, and gives how many those were.
fn explore(execution: impl Fn() + Sync + Send + 'static) -> usize {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    let explored = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&explored);
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(PREEMPTIONS_MAX);
    model.check(move || {
        count.fetch_add(1, Ordering::Relaxed);
        execution();
    });
    explored.load(Ordering::Relaxed)
}
