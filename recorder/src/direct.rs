//! Recording without `tracing`: spans of the hottest code, and token streams.
//!
//! ```
//! # use retake_recorder::{RecorderBuilder, Store, span};
//! # let folder = tempfile::tempdir()?;
//! # let recorder = RecorderBuilder::new("doc", "svc").start(&Store::create(folder.path())?)?;
//! let dispatcher = recorder.dispatcher();
//! {
//!     let _search = span!(dispatcher, "vector.search", "top_k" = 8u64, "index" = "docs-v2");
//!     dispatcher.token(0, 1);
//! } // the span ends here
//! # let _ = recorder.finish(retake_schemas::event::RunStatus::Finished);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A span's parent is the innermost guard that is alive on the thread. It costs two readings of
//! the clock and a copy of the fields.

use std::cell::Cell;
use std::marker::PhantomData;

use retake_schemas::event::{DropCause, Level};

use crate::dispatcher::Dispatcher;
use crate::door::{Entered, ThreadState};
use crate::journal::record::{FLAG_THROUGHOUT, Kind, field};
use crate::journal::{CallsiteDef, Refused};
use crate::layer;
use crate::layer::fields::SCRUB_BYTES_MIN;

/// The static description of a span in the source; [`span!`](crate::span) makes it.
#[derive(Debug)]
pub struct SpanSite {
    /// Name of the span.
    pub name: &'static str,
    /// Module it stands in.
    pub target: &'static str,
    /// Source file.
    pub file: &'static str,
    /// Line in it, from 1.
    pub line: u32,
    /// Names of the fields.
    pub fields: &'static [&'static str],
}

/// A field's value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FieldArg<'a> {
    /// An unsigned integer.
    U64(u64),
    /// A signed integer.
    I64(i64),
    /// A float.
    F64(f64),
    /// A boolean.
    Bool(bool),
    /// Text.
    Str(&'a str),
}

macro_rules! field_arg {
    ($($type:ty => $variant:ident as $wide:ty),+ $(,)?) => {$(
        impl From<$type> for FieldArg<'_> {
            #[inline]
            fn from(value: $type) -> Self {
                Self::$variant(<$wide>::from(value))
            }
        }
    )+};
}

field_arg!(
    u8 => U64 as u64, u16 => U64 as u64, u32 => U64 as u64, u64 => U64 as u64,
    i8 => I64 as i64, i16 => I64 as i64, i32 => I64 as i64, i64 => I64 as i64,
    f32 => F64 as f64, f64 => F64 as f64, bool => Bool as bool,
);

impl From<usize> for FieldArg<'_> {
    #[inline]
    fn from(value: usize) -> Self {
        Self::U64(value as u64)
    }
}

impl<'a> From<&'a str> for FieldArg<'a> {
    #[inline]
    fn from(value: &'a str) -> Self {
        Self::Str(value)
    }
}

impl<'a> From<&'a String> for FieldArg<'a> {
    #[inline]
    fn from(value: &'a String) -> Self {
        Self::Str(value)
    }
}

/// Opens a span that ends when the guard is dropped: `span!(dispatcher, "name", "key" = value)`.
#[macro_export]
macro_rules! span {
    ($dispatcher:expr, $name:literal $(, $key:literal = $value:expr)* $(,)?) => {{
        static SITE: $crate::direct::SpanSite = $crate::direct::SpanSite {
            name: $name,
            target: module_path!(),
            file: file!(),
            line: line!(),
            fields: &[$($key),*],
        };
        $dispatcher.open_span(&SITE, &[$($crate::direct::FieldArg::from($value)),*])
    }};
}

/// An open span; dropping it ends the span. Stays on its thread.
#[derive(Debug)]
#[must_use = "the span ends when the guard is dropped"]
pub struct SpanGuard<'a> {
    dispatcher: &'a Dispatcher,
    key: u64,
    /// Not `Send`: the parent of other spans is found on the thread's own stack.
    _stays: PhantomData<*const ()>,
}

impl Dispatcher {
    /// Opens a span, see [`span!`](crate::span). `values` are those of the site's fields, in
    /// order; more than it has fields are left out.
    #[inline]
    pub fn open_span(&self, site: &'static SpanSite, values: &[FieldArg<'_>]) -> SpanGuard<'_> {
        let door = self.door();
        let key = door
            .with(|state| {
                let key = door.key(next_id());
                let parent = state.current();
                open(state, [key, parent], site, values);
                state.push(Entered { key, is_recorded: false });
                key
            })
            .unwrap_or(0);
        SpanGuard { dispatcher: self, key, _stays: PhantomData }
    }

    /// Output tokens arrived in the innermost open span of this thread: the index of the first of
    /// them in the answer, from 0, and how many. Outside any span there is no answer they could
    /// belong to, and nothing is recorded.
    #[inline]
    pub fn token(&self, index: u32, count: u32) {
        self.door().with(|state| {
            let span = state.current();
            let journal = &state.target.journal;
            if span == 0 {
                return;
            }
            if journal.is_lost(span) {
                return journal.count_loss(DropCause::JournalFull, false);
            }
            let Some(free) = state.free() else {
                return journal.count_loss(DropCause::TooLarge, false);
            };
            let written = free.write(|cursor, journal| {
                cursor.write(journal, Kind::Token, |body| {
                    body.push(span);
                    body.push(u64::from(index) | u64::from(count) << 32);
                })
            });
            if let Err(refused) = written {
                journal.count_loss(layer::cause(refused), false);
            }
        });
    }
}

impl Drop for SpanGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.key != 0 {
            self.dispatcher.door().with(|state| {
                state.pop(self.key);
                layer::close(state, self.key, FLAG_THROUGHOUT);
            });
        }
    }
}

#[inline]
fn open(
    state: &ThreadState,
    [key, parent]: [u64; 2],
    site: &'static SpanSite,
    values: &[FieldArg<'_>],
) {
    let Some(free) = state.free() else {
        return layer::lose_span(state, key, DropCause::TooLarge);
    };
    let address = std::ptr::from_ref(site) as usize;
    let written = free.callsite(address, || definition(site)).and_then(|callsite| {
        free.write(|cursor, journal| {
            cursor.write(journal, Kind::Open, |body| {
                body.push(key);
                body.push(parent);
                body.is_cut_short |= callsite.content | callsite.secret != 0;
                let types = body.reserve(u64::from(callsite.number));
                for _ in 0..field::more_words(callsite.fields) {
                    body.push(0);
                }
                let bytes_max = journal.limits.attribute_bytes_max;
                for (index, value) in values.iter().take(callsite.fields).enumerate() {
                    let (kind, word) = match *value {
                        FieldArg::U64(v) => (field::U64, v),
                        FieldArg::I64(v) => (field::I64, v.cast_unsigned()),
                        FieldArg::F64(v) => (field::F64, v.to_bits()),
                        FieldArg::Bool(false) => (field::FALSE, 0),
                        FieldArg::Bool(true) => (field::TRUE, 0),
                        FieldArg::Str(text) => {
                            if text.len() >= SCRUB_BYTES_MIN || text.len() > bytes_max {
                                body.is_cut_short = true;
                                return;
                            }
                            let place = index + 4;
                            let bits = u64::from(field::STR) << (place % 8 * 8);
                            body.add_bits(&types, place / 8, bits);
                            body.push_str(text);
                            continue;
                        }
                    };
                    let place = index + 4;
                    body.add_bits(&types, place / 8, u64::from(kind) << (place % 8 * 8));
                    if kind != field::FALSE && kind != field::TRUE {
                        body.push(word);
                    }
                }
            })
        })
    });
    match written {
        Ok(()) => {}
        // Texts that may hold secrets, contents, and long ones: through the general way.
        Err(Refused::TooLong) => open_long(free, [key, parent], site, values),
        Err(refused) => layer::lose_span(state, key, layer::cause(refused)),
    }
}

#[cold]
fn open_long(
    state: &ThreadState,
    head: [u64; 2],
    site: &'static SpanSite,
    values: &[FieldArg<'_>],
) {
    let address = std::ptr::from_ref(site) as usize;
    let written = state.callsite(address, || definition(site)).and_then(|callsite| {
        layer::fields::write_long(state, head, (callsite, site.fields), values)
    });
    if let Err(refused) = written {
        layer::lose_span(state, head[0], layer::cause(refused));
    }
}

fn definition(site: &SpanSite) -> CallsiteDef {
    CallsiteDef {
        name: site.name.to_owned(),
        target: site.target.to_owned(),
        level: Level::Info,
        file: Some(site.file.to_owned()),
        line: Some(site.line),
        fields: site.fields.iter().map(|name| (*name).to_owned()).collect(),
    }
}

/// A number for a span that no other open span of this door has: of the thread, and counted.
#[inline]
fn next_id() -> u64 {
    thread_local! {
        static NEXT: Cell<u64> = const { Cell::new(0) };
    }
    let next = NEXT.get();
    let next = if next == 0 { first_id() } else { next + 1 };
    NEXT.set(next);
    next
}

#[cold]
fn first_id() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static THREADS: AtomicU64 = AtomicU64::new(1);
    // A trillion spans for each of 16 million threads.
    THREADS.fetch_add(1, Ordering::Relaxed) << 40
}
