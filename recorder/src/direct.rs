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

use std::marker::PhantomData;

use retake_schemas::event::{DropCause, Level};

use crate::dispatcher::Dispatcher;
use crate::door::{Entered, ThreadState, with_state};
use crate::journal::record::{FLAG_THROUGHOUT, Kind, field};
use crate::journal::{Callsite, CallsiteDef, FieldsInPlace, Refused, Sizes};
use crate::layer;

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

/// The values of a span's fields: `()`, `((), first)`, `(((), first), second)` and so on.
///
/// A list of types rather than a slice, so that the place that opens a span is compiled for the
/// types of its values: three stores instead of a loop that looks at each.
pub trait FieldValues: Copy {
    /// How many.
    const LEN: usize;

    /// Calls `work` with each value, in order.
    fn each(&self, work: &mut dyn FnMut(FieldArg<'_>));

    #[doc(hidden)]
    fn write(self, writer: &mut SpanWriter<'_>);
}

impl FieldValues for () {
    const LEN: usize = 0;

    fn each(&self, _: &mut dyn FnMut(FieldArg<'_>)) {}

    #[inline(always)]
    fn write(self, _: &mut SpanWriter<'_>) {}
}

impl<Before: FieldValues> FieldValues for (Before, FieldArg<'_>) {
    const LEN: usize = Before::LEN + 1;

    fn each(&self, work: &mut dyn FnMut(FieldArg<'_>)) {
        self.0.each(work);
        work(self.1);
    }

    #[inline(always)]
    fn write(self, writer: &mut SpanWriter<'_>) {
        self.0.write(writer);
        writer.push(Before::LEN, self.1);
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
        let values = ();
        $(let values = (values, $crate::direct::FieldArg::from($value));)*
        $dispatcher.open_span(&SITE, values)
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
    /// order, at most 32; more than it has fields are left out.
    #[inline(always)]
    pub fn open_span<V: FieldValues>(&self, site: &'static SpanSite, values: V) -> SpanGuard<'_> {
        const { assert!(V::LEN <= field::FIELDS_MAX, "a span has at most 32 fields") };
        let door = self.door();
        let opened = with_state!(door, |state| {
            let key = door.key(state.next_id());
            open(state, (key, state.current()), site, values);
            state.push(Entered { key, is_recorded: false });
            key
        });
        let key = opened.unwrap_or(0);
        SpanGuard { dispatcher: self, key, _stays: PhantomData }
    }

    /// Output tokens arrived in the innermost open span of this thread: the index of the first of
    /// them in the answer, from 0, and how many. Outside any span there is no answer they could
    /// belong to, and nothing is recorded.
    #[inline]
    pub fn token(&self, index: u32, count: u32) {
        with_state!(self.door(), |state| {
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
            let counts = u64::from(index) | u64::from(count) << 32;
            let written = free.write(|cursor, journal| {
                cursor.write_words(journal, (Kind::Token, 0), [span, counts])
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
            let key = self.key;
            with_state!(self.dispatcher.door(), |state| leave(state, key));
        }
    }
}

/// Leaves and ends a span.
#[inline(always)]
fn leave(state: &ThreadState, key: u64) {
    if layer::can_close_at_once(state) && state.pop_unrecorded(key) {
        layer::close_with(state, key, FLAG_THROUGHOUT);
    } else {
        leave_otherwise(state, key);
    }
}

#[cold]
#[inline(never)]
fn leave_otherwise(state: &ThreadState, key: u64) {
    state.pop(key);
    layer::close(state, key, FLAG_THROUGHOUT);
}

#[inline(always)]
fn open<V: FieldValues>(
    state: &ThreadState,
    (key, parent): (u64, u64),
    site: &'static SpanSite,
    values: V,
) {
    match write(state, (key, parent), site, values) {
        Ok(()) => {}
        Err(refused) => {
            // Moved, so that the values themselves need no place in memory.
            open_otherwise(state, [key, parent], (site, &move |work| values.each(work)), refused);
        }
    }
}

#[inline(always)]
fn write<V: FieldValues>(
    state: &ThreadState,
    (key, parent): (u64, u64),
    site: &'static SpanSite,
    values: V,
) -> Result<(), Refused> {
    let known = state.known_callsite(std::ptr::from_ref(site) as usize);
    let sizes = const { Sizes::of(V::LEN) };
    // The general way finds out about callsites, has another lane for what is inside a record of
    // this one, and can do with values that are not one for each field.
    let (Some(callsite), Some(sizes)) = (known, sizes) else { return Err(Refused::TooLong) };
    if !state.is_alone() || V::LEN != callsite.fields {
        return Err(Refused::TooLong);
    }
    let body = state.begin(Kind::Open, (key, Some(parent)))?;
    let fields = FieldsInPlace::new(body, callsite.number, sizes);
    let mut writer = SpanWriter { state, callsite, fields };
    values.write(&mut writer);
    let body = writer.fields.finish(sizes);
    if body.is_cut_short {
        state.abandon();
        return Err(Refused::TooLong);
    }
    state.commit(Kind::Open, body);
    Ok(())
}

/// Writes the values of a span's fields in place.
#[derive(Debug)]
pub struct SpanWriter<'a> {
    state: &'a ThreadState,
    callsite: &'a Callsite,
    fields: FieldsInPlace,
}

impl SpanWriter<'_> {
    #[inline(always)]
    fn push(&mut self, index: usize, value: FieldArg<'_>) {
        let fields = &mut self.fields;
        match value {
            FieldArg::U64(v) => fields.number(index, field::U64, v),
            FieldArg::I64(v) => fields.number(index, field::I64, v.cast_unsigned()),
            FieldArg::F64(v) => fields.number(index, field::F64, v.to_bits()),
            FieldArg::Bool(v) => {
                fields.note(index, if v { field::TRUE } else { field::FALSE });
            }
            FieldArg::Str(text) => self.text(index, text),
        }
    }

    #[inline(always)]
    fn text(&mut self, index: usize, text: &str) {
        let is_plain = self.callsite.is_plain || !self.callsite.is_told(index);
        if is_plain && self.state.is_short(text) {
            self.fields.short_text(index, text);
        } else if is_plain && self.state.was_clean(text) {
            self.fields.text(index, text);
        } else {
            self.fields.body.is_cut_short = true;
        }
    }
}

/// A span that could not be written in place: texts that may hold secrets, contents, and long
/// ones go the general way; without room the span is lost.
#[cold]
#[inline(never)]
fn open_otherwise(
    state: &ThreadState,
    head: [u64; 2],
    (site, values): (&'static SpanSite, &EachValue<'_>),
    refused: Refused,
) {
    let Some(free) = state.free() else {
        return layer::lose_span(state, head[0], DropCause::TooLarge);
    };
    let written = match refused {
        Refused::TooLong => {
            let address = std::ptr::from_ref(site) as usize;
            free.callsite(address, || definition(site)).and_then(|callsite| {
                layer::fields::write_long(free, head, (callsite, site.fields), values)
            })
        }
        refused => Err(refused),
    };
    if let Err(refused) = written {
        layer::lose_span(state, head[0], layer::cause(refused));
    }
}

/// Calls with each value of a span's fields.
pub(crate) type EachValue<'a> = dyn Fn(&mut dyn FnMut(FieldArg<'_>)) + 'a;

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
