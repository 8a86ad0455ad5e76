//! Callsites: what stays the same for all spans of one place in the program, stated once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use retake_schemas::convention;
use retake_schemas::event::Level;
use retake_schemas::mapping::BUILT_IN;
use rustc_hash::FxBuildHasher;
use serde::{Deserialize, Serialize};

use super::body::Sizes;
use crate::redact;

/// What a reader must know of a callsite. Stands in the journal once, before its first use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CallsiteDef {
    pub(crate) name: String,
    pub(crate) target: String,
    pub(crate) level: Level,
    #[serde(default)]
    pub(crate) file: Option<String>,
    #[serde(default)]
    pub(crate) line: Option<u32>,
    /// Names of the fields, by index.
    pub(crate) fields: Vec<String>,
}

/// What the recording thread must know of it.
#[derive(Debug)]
pub(crate) struct Callsite {
    pub(crate) number: u32,
    pub(crate) fields: usize,
    /// The same for records in place; `None` when they cannot be written there.
    pub(crate) sizes: Option<Sizes>,
    /// No field holds content, and none is a secret by its name.
    pub(crate) is_plain: bool,
    /// Bit `i`: field `i` holds content (a prompt, an answer) that the capture policy governs.
    pub(crate) content: u64,
    /// Bit `i`: the name of field `i` says that its value is a secret.
    pub(crate) secret: u64,
    /// Its spans are entered more than once (futures): entries and exits are recorded, so that
    /// their busy time is known. Learned from the first such span.
    pub(crate) is_polled: AtomicBool,
}

impl Callsite {
    /// Stands for the callsite of an update, which who writes it does not know.
    pub(crate) fn unknown() -> &'static Self {
        static UNKNOWN: Callsite = Callsite {
            number: u32::MAX,
            fields: 0,
            sizes: None,
            // The names of its fields must be looked at.
            is_plain: false,
            content: 0,
            secret: 0,
            is_polled: AtomicBool::new(false),
        };
        &UNKNOWN
    }

    /// Whether the field holds content that the capture policy governs.
    #[inline]
    pub(crate) const fn is_content(&self, index: usize) -> bool {
        index < 64 && self.content >> index & 1 != 0
    }

    /// Whether the field's name says that its value is a secret.
    #[inline]
    pub(crate) const fn is_secret(&self, index: usize) -> bool {
        index < 64 && self.secret >> index & 1 != 0
    }

    /// Whether the policy or redaction must look at the field for the sake of its name.
    #[inline]
    pub(crate) const fn is_told(&self, index: usize) -> bool {
        self.is_content(index) || self.is_secret(index)
    }

    pub(crate) const fn is_unknown(&self) -> bool {
        self.number == u32::MAX
    }
}

/// Whether a field holds content: by the mapping, and the text of a document.
fn is_content(target: &str, field: &str) -> bool {
    BUILT_IN.is_content(field)
        || (target == convention::TARGET_DOCUMENT && field == convention::DOCUMENT_CONTENT)
}

/// The callsites seen, by the address of their static description.
#[derive(Debug, Default)]
pub(crate) struct Callsites {
    known: Mutex<HashMap<usize, Arc<Callsite>, FxBuildHasher>>,
}

impl Callsites {
    /// The callsite at `address`. When it is new, `define` describes it and `write` puts the
    /// definition into the journal; a callsite that could not be written stays unknown.
    pub(crate) fn get<E>(
        &self,
        address: usize,
        define: impl FnOnce() -> CallsiteDef,
        write: impl FnOnce(u32, &CallsiteDef) -> Result<(), E>,
    ) -> Result<Arc<Callsite>, E> {
        // Held while writing: nobody may use a number before its definition is in the journal.
        let mut known = self.known.lock();
        if let Some(callsite) = known.get(&address) {
            return Ok(Arc::clone(callsite));
        }
        let number = u32::try_from(known.len()).unwrap_or(u32::MAX);
        let definition = define();
        write(number, &definition)?;
        let mask = |is: &dyn Fn(&str) -> bool| {
            let fields = definition.fields.iter().take(u64::BITS as usize).enumerate();
            fields.filter(|(_, name)| is(name)).fold(0, |mask, (index, _)| mask | 1 << index)
        };
        let content = mask(&|name| is_content(&definition.target, name));
        let secret = mask(&redact::is_secret_key);
        let fields = definition.fields.len();
        let is_polled = AtomicBool::new(false);
        let sizes = Sizes::of(fields);
        let is_plain = content | secret == 0 && fields <= u64::BITS as usize;
        let callsite =
            Arc::new(Callsite { number, fields, sizes, is_plain, content, secret, is_polled });
        known.insert(address, Arc::clone(&callsite));
        Ok(callsite)
    }

    /// A span of this callsite was entered again. For the writer thread, which must not wait:
    /// who holds the lock may be waiting for it to free a chunk.
    pub(crate) fn mark_polled(&self, number: u32) {
        let Some(known) = self.known.try_lock() else { return };
        if let Some(callsite) = known.values().find(|callsite| callsite.number == number) {
            callsite.is_polled.store(true, Ordering::Relaxed);
        }
    }
}
