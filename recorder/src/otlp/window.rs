//! What was taken lately, so that a batch that is sent again changes nothing.

use std::collections::{HashSet, VecDeque};

/// The last so many things taken, by a key of 128 bits or more.
#[derive(Debug)]
pub(crate) struct Window<K> {
    known: HashSet<K>,
    order: VecDeque<K>,
    max: usize,
}

impl<K: Copy + Eq + std::hash::Hash> Window<K> {
    pub(crate) fn new(max: usize) -> Self {
        Self { known: HashSet::new(), order: VecDeque::new(), max: max.max(1) }
    }

    /// Remembers a key; `false` when it was known.
    pub(crate) fn insert(&mut self, key: K) -> bool {
        if !self.known.insert(key) {
            return false;
        }
        if self.order.len() == self.max
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.order.push_back(key);
        true
    }

    /// Whether a key is among the last.
    pub(crate) fn contains(&self, key: &K) -> bool {
        self.known.contains(key)
    }

    /// Forgets a key that was not recorded after all.
    pub(crate) fn remove(&mut self, key: &K) {
        if self.known.remove(key) {
            // It was among the last, if it was there at all.
            if let Some(at) = self.order.iter().rposition(|known| known == key) {
                self.order.remove(at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_keys_are_known_and_older_ones_forgotten() {
        let mut window = Window::new(2);
        assert!(window.insert(1) && window.insert(2));
        assert!(!window.insert(1));
        assert!(window.insert(3), "and 1 is forgotten");
        assert!(window.insert(1) && !window.insert(3));
        window.remove(&3);
        assert!(window.insert(3));
    }
}
