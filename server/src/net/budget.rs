//! The memory that bodies may take, together and each.
//!
//! Large buffers are mappings of their own rather than parts of the heap: allocators keep what was
//! freed, one heap for each thread, so that a few large bodies would cost many times the limit for
//! good (measured: 36 MiB after two bodies of 16). A mapping also grows without being copied.

use std::sync::Arc;

use memmap2::MmapMut;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes that all bodies share.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    left: Arc<Semaphore>,
    bytes_max: usize,
}

impl Budget {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { left: Arc::new(Semaphore::new(bytes_max)), bytes_max }
    }

    /// Bytes in use.
    pub(crate) fn used(&self) -> usize {
        self.bytes_max - self.left.available_permits().min(self.bytes_max)
    }

    /// An empty buffer that may grow to `bytes_max`.
    pub(crate) fn buffer(&self, bytes_max: usize) -> Buffer {
        Buffer {
            small: Vec::new(),
            large: None,
            len: 0,
            bytes_max,
            held: None,
            budget: self.clone(),
        }
    }
}

/// Why a buffer could not grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// It is as large as it may be.
    TooLarge,
    /// All bodies together are.
    Busy,
}

/// Bytes whose memory is taken from a budget before it is allocated, and given back on drop.
#[derive(Debug)]
pub(crate) struct Buffer {
    /// What it holds, while that is little.
    small: Vec<u8>,
    /// Room for all it may hold, once it holds more. The system gives pages when they are written.
    large: Option<MmapMut>,
    len: usize,
    bytes_max: usize,
    held: Option<OwnedSemaphorePermit>,
    budget: Budget,
}

impl Buffer {
    /// Appends all of `more`, or nothing.
    ///
    /// # Errors
    /// See [`Full`]. Never waits: two that wait for each other's bytes would wait for good.
    pub(crate) fn append(&mut self, more: &[u8]) -> Result<(), Full> {
        let len = self.len + more.len();
        if len > self.bytes_max {
            return Err(Full::TooLarge);
        }
        self.hold(len)?;
        if len > SMALL_BYTES_MAX && self.large.is_none() {
            // Who has no address space for a body has no room for it.
            let mut large = MmapMut::map_anon(self.bytes_max).map_err(|_| Full::Busy)?;
            large.get_mut(..self.len).ok_or(Full::Busy)?.copy_from_slice(&self.small);
            self.large = Some(large);
            self.small = Vec::new();
        }
        match &mut self.large {
            Some(large) => {
                large.get_mut(self.len..len).ok_or(Full::Busy)?.copy_from_slice(more);
            }
            None => self.small.extend_from_slice(more),
        }
        self.len = len;
        Ok(())
    }

    /// Takes what is missing for `len` bytes from the budget: twice as much as before, so that
    /// small parts do not ask each time.
    fn hold(&mut self, len: usize) -> Result<(), Full> {
        let held = self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        if len <= held {
            return Ok(());
        }
        let wanted = (held * 2).max(HELD_BYTES_MIN).max(len).min(self.bytes_max);
        let more = u32::try_from(wanted - held).map_err(|_| Full::Busy)?;
        let permit = Arc::clone(&self.budget.left).try_acquire_many_owned(more);
        let permit = permit.map_err(|_| Full::Busy)?;
        match &mut self.held {
            Some(held) => held.merge(permit),
            None => self.held = Some(permit),
        }
        Ok(())
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        match &self.large {
            Some(large) => large.get(..self.len).unwrap_or_default(),
            None => &self.small,
        }
    }
}

/// What the smallest body costs of the budget, bytes.
const HELD_BYTES_MIN: usize = 4096;
/// Up to here a buffer is a part of the heap, bytes: most batches are smaller.
const SMALL_BYTES_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: buffers that grow until their own limit, and until the common one.
    /// Guarantees: O1, O3 - what is held is never above the limit, and all of it comes back.
    #[test]
    fn what_buffers_hold_is_counted_and_bounded() {
        let budget = Budget::new(10_000);
        let mut first = budget.buffer(6000);
        first.append(&[1; 10]).unwrap();
        assert_eq!(budget.used(), HELD_BYTES_MIN);
        first.append(&[2; 5990]).unwrap();
        assert_eq!(budget.used(), 6000);
        assert_eq!(first.append(&[3]), Err(Full::TooLarge));
        assert_eq!(first.as_slice().len(), 6000);

        let mut second = budget.buffer(6000);
        assert_eq!(second.append(&[4; 5000]), Err(Full::Busy));
        second.append(&[4; 4000]).unwrap_err();
        assert_eq!(budget.used(), 6000);
        drop(first);
        second.append(&[4; 5000]).unwrap();
        drop(second);
        assert_eq!(budget.used(), 0);
    }

    /// Scenario: parts of odd sizes, through the size at which a buffer becomes a mapping.
    /// Guarantees: what comes out is what went in, also when a part was refused.
    #[test]
    fn buffers_keep_their_bytes_when_they_grow() {
        let budget = Budget::new(1 << 20);
        let mut buffer = budget.buffer(300_000);
        let mut expected = Vec::new();
        for number in 0..600u32 {
            let part: Vec<u8> = (0..number).map(|n| (n ^ number) as u8).collect();
            buffer.append(&part).unwrap();
            expected.extend_from_slice(&part);
            assert_eq!(buffer.append(&[0; 300_001]), Err(Full::TooLarge));
        }
        assert!(expected.len() > SMALL_BYTES_MAX);
        assert!(buffer.as_slice() == expected);
    }
}
