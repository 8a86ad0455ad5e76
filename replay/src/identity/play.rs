//! Lets the events of a log happen again.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::causes::{Causes, EventId, end_of, start_of};
use super::log::Log;

/// Replays a log in virtual time: the log of what happened then. Traces are shared out among threads,
/// which changes nothing about the result.
#[must_use]
pub fn play(recorded: &Log, threads: usize) -> Log {
    let causes = Causes::of(recorded);
    let times = times(&causes, threads.max(1));
    let first_ns = recorded.first_unix_ns();
    let at = |event: EventId| first_ns + times.get(event as usize).copied().unwrap_or(NEVER);
    let mut log = recorded.clone();
    for (number, span) in log.spans.iter_mut().enumerate() {
        span.start_unix_ns = at(start_of(number));
        span.duration_ns = at(end_of(number)) - span.start_unix_ns;
    }
    let mut next = 2 * log.spans.len() as u32;
    let mut time_of_next = |time_unix_ns: &mut i64| {
        *time_unix_ns = at(next);
        next += 1;
    };
    log.tokens.iter_mut().for_each(|row| time_of_next(&mut row.time_unix_ns));
    log.events.iter_mut().for_each(|row| time_of_next(&mut row.time_unix_ns));
    log.documents.iter_mut().for_each(|row| time_of_next(&mut row.time_unix_ns));
    log
}

/// When each event happens, ns after the first.
pub(super) fn times(causes: &Causes, threads: usize) -> Vec<i64> {
    let followers = Followers::of(causes);
    let mut times = vec![NEVER; causes.after.len()];
    let found: Vec<Vec<(EventId, i64)>> = std::thread::scope(|scope| {
        let followers = &followers;
        let share = |part: usize| move || play_part(causes, followers, part as u32, threads as u32);
        let started: Vec<_> = (1..threads)
            .map(|part| {
                let name = format!("retake-identity-{part}");
                (part, std::thread::Builder::new().name(name).spawn_scoped(scope, share(part)))
            })
            .collect();
        let mut found = vec![share(0)()];
        for (part, thread) in started {
            // Without its thread a share is played here.
            let played = thread.ok().and_then(|thread| thread.join().ok());
            found.push(played.unwrap_or_else(share(part)));
        }
        found
    });
    for (event, time_ns) in found.into_iter().flatten() {
        if let Some(time) = times.get_mut(event as usize) {
            *time = time_ns;
        }
    }
    times
}

/// Plays every `parts`-th trace, in order of (time, event).
fn play_part(causes: &Causes, followers: &Followers, part: u32, parts: u32) -> Vec<(EventId, i64)> {
    let is_ours = |event: usize| causes.trace.get(event).is_some_and(|trace| trace % parts == part);
    let first = causes.after.iter().enumerate();
    let mut heap: BinaryHeap<Reverse<(i64, EventId)>> = first
        .filter(|(event, (cause, _))| cause.is_none() && is_ours(*event))
        .map(|(event, (_, time_ns))| Reverse((*time_ns, event as EventId)))
        .collect();
    let mut happened = Vec::new();
    while let Some(Reverse((time_ns, event))) = heap.pop() {
        happened.push((event, time_ns));
        for follower in followers.of_event(event) {
            let pause_ns = causes.after.get(*follower as usize).map_or(0, |(_, pause)| *pause);
            heap.push(Reverse((time_ns + pause_ns, *follower)));
        }
    }
    happened
}

/// Who waits for an event, in one list with the places where each event's begin.
struct Followers {
    begins: Vec<u32>,
    events: Vec<EventId>,
}

impl Followers {
    fn of(causes: &Causes) -> Self {
        let count = causes.after.len();
        let mut begins = vec![0_u32; count + 1];
        let links = || {
            causes
                .after
                .iter()
                .enumerate()
                .filter_map(|(event, (cause, _))| Some((event, (*cause)?)))
        };
        for (_, cause) in links() {
            if let Some(begin) = begins.get_mut(cause as usize + 1) {
                *begin += 1;
            }
        }
        for at in 1..begins.len() {
            begins[at] += begins[at - 1];
        }
        let mut free = begins.clone();
        let mut events = vec![0; begins.last().map_or(0, |all| *all as usize)];
        for (event, cause) in links() {
            if let Some(at) = free.get_mut(cause as usize) {
                events[*at as usize] = event as EventId;
                *at += 1;
            }
        }
        Self { begins, events }
    }

    fn of_event(&self, event: EventId) -> &[EventId] {
        let at = |event: usize| self.begins.get(event).map_or(0, |begin| *begin as usize);
        self.events.get(at(event as usize)..at(event as usize + 1)).unwrap_or_default()
    }
}

/// Time of an event that did not happen, which no recorded one has.
const NEVER: i64 = i64::MIN / 2;
