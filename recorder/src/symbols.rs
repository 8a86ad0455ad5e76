//! Interned texts: names, targets, attribute keys, thread names.
//!
//! A run has few of them and repeats them in every span, so spans in memory hold a number.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use rustc_hash::FxBuildHasher;

/// The number of an interned text. Only meaningful to the [`Symbols`] that gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Sym(NonZeroU32);

impl Sym {
    /// Position in the table, from 0.
    pub(crate) fn index(self) -> usize {
        self.0.get() as usize - 1
    }

    pub(crate) fn to_u32(self) -> u32 {
        self.0.get()
    }

    pub(crate) fn from_u32(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }
}

/// Texts by number and numbers by text. Numbers are given in order and never change.
#[derive(Debug, Clone, Default)]
pub(crate) struct Symbols {
    texts: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, Sym, FxBuildHasher>,
}

impl Symbols {
    /// The number of a text, new or known.
    pub(crate) fn intern(&mut self, text: &str) -> Sym {
        if let Some(sym) = self.find(text) {
            return sym;
        }
        let text: Arc<str> = text.into();
        // A run with four billion distinct names does not fit any memory.
        let number = u32::try_from(self.texts.len()).unwrap_or(u32::MAX - 1) + 1;
        let sym = Sym(NonZeroU32::new(number).unwrap_or(NonZeroU32::MAX));
        self.texts.push(Arc::clone(&text));
        self.numbers.insert(text, sym);
        sym
    }

    /// The number of a known text.
    pub(crate) fn find(&self, text: &str) -> Option<Sym> {
        self.numbers.get(text).copied()
    }

    /// The text of a number; empty for one that this table did not give.
    pub(crate) fn text(&self, sym: Sym) -> &str {
        self.texts.get(sym.index()).map_or("", |text| text)
    }

    /// How many texts there are; every [`Sym::index`] is below it.
    pub(crate) fn len(&self) -> usize {
        self.texts.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_share_a_number_and_numbers_give_their_text_back() {
        let mut symbols = Symbols::default();
        let (a, b) = (symbols.intern("a"), symbols.intern("b"));
        assert_ne!(a, b);
        assert_eq!(symbols.intern("a"), a);
        assert_eq!((symbols.text(a), symbols.text(b)), ("a", "b"));
        assert_eq!((a.index(), b.index(), symbols.len()), (0, 1, 2));
        assert_eq!(Sym::from_u32(a.to_u32()), Some(a));
        assert_eq!(Sym::from_u32(9).map(|sym| symbols.text(sym)), Some(""));
    }
}
