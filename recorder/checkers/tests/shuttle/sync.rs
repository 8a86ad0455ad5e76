//! Shuttle's locks, atomics and channels, as `sync` of the recorder has them.

#![expect(unsafe_code, reason = "the same faces as those of the journal's words")]

use std::collections::VecDeque;
use std::sync::Arc;

pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

crate::locks::locks_of!(shuttle);

pub(crate) type Word = shuttle::sync::atomic::AtomicU64;

pub(crate) unsafe fn load(word: *const Word, order: Ordering) -> u64 {
    // SAFETY: as the caller says.
    unsafe { &*word }.load(order)
}

pub(crate) unsafe fn store(word: *mut Word, value: u64, order: Ordering) {
    // SAFETY: as the caller says.
    unsafe { &*word }.store(value, order);
}

pub(crate) unsafe fn read(word: *const Word) -> u64 {
    // SAFETY: as the caller says.
    unsafe { load(word, Ordering::SeqCst) }
}

pub(crate) unsafe fn write(word: *mut Word, value: u64) {
    // SAFETY: as the caller says.
    unsafe { store(word, value, Ordering::SeqCst) };
}

/// A channel as crossbeam's: what nobody will receive any more is dropped with the receiver.
pub(crate) fn bounded<T>(room: usize) -> (Sender<T>, Receiver<T>) {
    let channel = Arc::new(Channel {
        waiting: shuttle::sync::Mutex::new(Waiting {
            messages: VecDeque::new(),
            senders: 1,
            has_receiver: true,
        }),
        changed: shuttle::sync::Condvar::new(),
        room,
    });
    (Sender(Arc::clone(&channel)), Receiver(channel))
}

#[derive(Debug)]
struct Channel<T> {
    waiting: shuttle::sync::Mutex<Waiting<T>>,
    changed: shuttle::sync::Condvar,
    room: usize,
}

#[derive(Debug)]
struct Waiting<T> {
    messages: VecDeque<T>,
    senders: usize,
    has_receiver: bool,
}

#[derive(Debug)]
pub(crate) struct Sender<T>(Arc<Channel<T>>);

#[derive(Debug)]
pub(crate) struct Receiver<T>(Arc<Channel<T>>);

/// Nobody is at the other end.
#[derive(Debug)]
pub(crate) struct Gone;

impl<T> Sender<T> {
    pub(crate) fn send(&self, message: T) -> Result<(), Gone> {
        let mut waiting = self.0.waiting.lock().unwrap();
        while waiting.has_receiver && waiting.messages.len() >= self.0.room {
            waiting = self.0.changed.wait(waiting).unwrap();
        }
        if !waiting.has_receiver {
            drop(waiting);
            return Err(Gone);
        }
        waiting.messages.push_back(message);
        self.0.changed.notify_all();
        Ok(())
    }
}

impl<T> Receiver<T> {
    pub(crate) fn try_recv(&self) -> Result<T, Gone> {
        let message = self.0.waiting.lock().unwrap().messages.pop_front().ok_or(Gone)?;
        self.0.changed.notify_all();
        Ok(message)
    }

    pub(crate) fn recv(&self) -> Result<T, Gone> {
        let mut waiting = self.0.waiting.lock().unwrap();
        loop {
            if let Some(message) = waiting.messages.pop_front() {
                self.0.changed.notify_all();
                return Ok(message);
            }
            if waiting.senders == 0 {
                return Err(Gone);
            }
            waiting = self.0.changed.wait(waiting).unwrap();
        }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.waiting.lock().unwrap().senders += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        // A panic elsewhere ends the test; waiting for locks would hide it.
        if !std::thread::panicking() {
            self.0.waiting.lock().unwrap().senders -= 1;
            self.0.changed.notify_all();
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let mut waiting = self.0.waiting.lock().unwrap();
            waiting.has_receiver = false;
            // Outside the lock: messages may hold senders themselves.
            let unread = std::mem::take(&mut waiting.messages);
            drop(waiting);
            self.0.changed.notify_all();
            drop(unread);
        }
    }
}
