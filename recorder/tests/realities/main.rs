//! The realities of a process: it is killed, forks, runs out of room, is told to stop, and its
//! threads come and go while they record.
//!
//! Tests that need a process of their own start this program again for themselves alone, with a
//! folder in the environment: see [`support::child`].

#![expect(unsafe_code, reason = "fork, signals, and memory that outlives its process")]

mod cancellation;
mod doors;
mod fork;
mod kills;
mod large;
mod one_writer;
mod overload;
mod reentrancy;
mod shutdown;
mod support;
mod threads;
