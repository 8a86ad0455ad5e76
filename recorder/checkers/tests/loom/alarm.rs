//! Waking the writer thread, under loom.

use std::time::Duration;

use loom::sync::Arc;

use crate::sync;

#[path = "../../../src/journal/alarm.rs"]
mod protocol;

/// Scenario: two threads leave something each and ring; a third one sleeps until it has both. A
/// sleep never times out.
/// Guarantees: J9 - whoever rings is heard: nothing lies there while everybody sleeps.
#[test]
fn nobody_sleeps_while_something_is_left() {
    let explored = crate::explore(|| {
        let alarm = Arc::new(protocol::Alarm::new());
        let left = Arc::new(sync::Mutex::new(0));
        let threads = [(); 2].map(|()| {
            let (alarm, left) = (Arc::clone(&alarm), Arc::clone(&left));
            loom::thread::spawn(move || {
                *left.lock() += 1;
                alarm.wake();
            })
        });
        while *left.lock() < 2 {
            alarm.wait(Duration::MAX);
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    println!("{explored} executions");
}
