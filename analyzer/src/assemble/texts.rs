//! Texts that repeat, each kept once.

use std::sync::Arc;

use foldhash::{HashMap, HashMapExt};

/// A text of a [`Texts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Text(u32);

/// Texts by number. A run has few stages, models and services, and very many spans. The default
/// text is the empty one.
#[derive(Debug)]
pub(crate) struct Texts {
    numbers: HashMap<Arc<str>, Text>,
    texts: Vec<Arc<str>>,
}

impl Text {
    /// Below the number of different texts there are.
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

impl Default for Texts {
    fn default() -> Self {
        let mut texts = Self { numbers: HashMap::new(), texts: Vec::new() };
        texts.number("");
        texts
    }
}

impl Texts {
    pub(crate) fn number(&mut self, text: &str) -> Text {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = Text(u32::try_from(self.texts.len()).unwrap_or(u32::MAX));
        let text: Arc<str> = text.into();
        self.texts.push(Arc::clone(&text));
        self.numbers.insert(text, number);
        number
    }

    pub(crate) fn text(&self, number: Text) -> &str {
        self.texts.get(number.0 as usize).map_or("", AsRef::as_ref)
    }
}
