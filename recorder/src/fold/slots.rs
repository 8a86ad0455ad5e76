//! Spans by number, from their opening until the rows they become are sealed.

use super::held::HeldSpan;

/// Spans by number. Numbers hold until the rows of the closed spans are taken.
#[derive(Debug, Default)]
pub(super) struct Slots {
    /// Empty where a span was moved on to the next rows.
    spans: Vec<Option<HeldSpan>>,
}

impl Slots {
    pub(super) fn insert(&mut self, span: HeldSpan) -> u32 {
        self.spans.push(Some(span));
        // Memory ends long before four billion spans.
        u32::try_from(self.spans.len() - 1).unwrap_or(u32::MAX)
    }

    #[inline]
    pub(super) fn get(&self, slot: u32) -> Option<&HeldSpan> {
        self.spans.get(slot as usize)?.as_ref()
    }

    #[inline]
    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut HeldSpan> {
        self.spans.get_mut(slot as usize)?.as_mut()
    }

    /// Moves a span out.
    pub(super) fn take(&mut self, slot: u32) -> Option<HeldSpan> {
        self.spans.get_mut(slot as usize)?.take()
    }

    /// Spans held.
    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &HeldSpan> {
        self.spans.iter().flatten()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut HeldSpan> {
        self.spans.iter_mut().flatten()
    }

    /// Forgets all spans and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.spans.clear();
    }
}
