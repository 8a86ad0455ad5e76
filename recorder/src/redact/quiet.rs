//! Catching a panic of the program's own code without printing its message.
//!
//! The recorder calls code that the program would not have called here: `Debug` of a field, a
//! redaction rule. When that panics, the default hook prints the panic's message, which may hold
//! what was being formatted: a prompt, a key. The hook below, put before whatever hook the program
//! has, says where it happened and keeps the message to itself, only on a thread that is inside
//! [`catch_quietly`]; every other panic goes to the program's hook as it was.

use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::sync::Once;

/// Runs `work`; `None` when it panicked.
pub(crate) fn catch_quietly<T>(work: impl FnOnce() -> T) -> Option<T> {
    // A hook cannot be set while this thread unwinds. Then the message is printed once, by a
    // panic inside a panic that the first call on any other thread would have kept quiet.
    if !std::thread::panicking() {
        HOOK.call_once(install_hook);
    }
    let was_quiet = IS_QUIET.replace(true);
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(work));
    IS_QUIET.set(was_quiet);
    outcome.ok()
}

fn install_hook() {
    let of_the_program = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        // A thread that is ending has no quiet part any more.
        if IS_QUIET.try_with(Cell::get).unwrap_or(false) {
            let place = info.location().map_or_else(|| "somewhere".to_owned(), ToString::to_string);
            eprintln!(
                "retake: code called while recording panicked at {place}; its message is not shown"
            );
        } else {
            of_the_program(info);
        }
    }));
}

thread_local! {
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
}

static HOOK: Once = Once::new();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_caught_and_nested_calls_stay_quiet() {
        assert_eq!(catch_quietly(|| 7), Some(7));
        let nested = catch_quietly(|| {
            assert_eq!(catch_quietly(|| -> u8 { panic!("inner") }), None);
            assert!(IS_QUIET.get());
            panic!("outer")
        });
        assert_eq!(nested, None::<()>);
        assert!(!IS_QUIET.get());
    }
}
