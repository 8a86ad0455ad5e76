//! What becomes of an attribute, worked out once per key.
//!
//! [`Mapping::apply`] looks every key of every span up by its text. Keys in memory are symbols, and
//! a run has a few dozen of them, so the answer is kept by symbol: the columns the key feeds, its
//! precedence in each, the column of its own if it has one, and its text as it stands in the JSON
//! of the column `attributes`.

mod choice;
mod json;

use retake_schemas::convention;
use retake_schemas::mapping::{Mapping, Place, Read, content_ref, seconds_to_ns};
use retake_schemas::tables::stored::column_of_key;

use super::cells::{Bool, Cells, Float, Int, Kind, Word};
use crate::attrs::{self, ValueRef};
use crate::symbols::{Sym, Symbols};
pub(crate) use choice::Frequent;
use json::JsonObject;

/// Attributes that only steer the fold and have their column elsewhere.
pub(super) const STEERING: [&str; 4] =
    [convention::OTEL_NAME, convention::OTEL_STATUS_CODE, convention::FLAGS, "retake.cancelled"];

/// The plans of all keys met so far.
#[derive(Debug)]
pub(super) struct Plans {
    mapping: &'static Mapping,
    by_symbol: Vec<Plan>,
    /// By entry of the mapping: when it last stored, and the precedence it held.
    held: Vec<(Turn, usize)>,
    /// The span at hand.
    turn: Turn,
    /// What of the span at hand has no column.
    rest: JsonObject,
}

/// Counts spans from 1, so that what an earlier span left behind needs no clearing.
type Turn = u64;

/// What becomes of one key.
#[derive(Debug, Default)]
struct Plan {
    is_known: bool,
    is_steering: bool,
    /// The last span that had the key.
    seen: Turn,
    targets: Vec<Target>,
    /// The key as a JSON string, with the colon.
    json_key: Vec<u8>,
    /// Name of a column for it; `None` for a key that the mapping knows or that is no name.
    column: Option<String>,
    /// Its values by [`Kind`], as far as they were counted for the next choice.
    counts: [u32; Kind::ALL.len()],
    /// Which of the segment's columns of attributes is its.
    typed: Option<usize>,
}

#[derive(Debug)]
struct Target {
    entry: usize,
    precedence: usize,
    write: Write,
}

/// A column, and how the value is read for it.
#[derive(Debug)]
enum Write {
    Text(Word),
    Content(Word),
    /// The words as found, in lowercase, and as they stand in the column.
    Vocabulary(Word, Vec<(String, String)>),
    Int(Int, Read),
    Float(Float),
    Bool(Bool),
}

impl Plans {
    pub(super) fn new(mapping: &'static Mapping) -> Self {
        Self {
            mapping,
            by_symbol: Vec::new(),
            held: vec![(0, 0); mapping.entry_count()],
            turn: 0,
            rest: JsonObject::default(),
        }
    }

    /// Moves a row's attributes into its columns, and what has none into the JSON of `attributes`.
    pub(super) fn apply(&mut self, packed: &[u8], row: u32, cells: &mut Cells, symbols: &Symbols) {
        self.turn += 1;
        if self.prepare(packed, symbols) {
            for (key, value) in latest(packed) {
                self.apply_one((key, value), row, cells);
            }
        } else {
            for (key, value) in attrs::iter(packed) {
                self.apply_one((key, value), row, cells);
            }
        }
        self.rest.close(row, cells, symbols);
    }

    /// Makes sure every key has a plan; says whether a key comes twice.
    fn prepare(&mut self, packed: &[u8], symbols: &Symbols) -> bool {
        let mut has_duplicates = false;
        let turn = self.turn;
        for key in attrs::keys(packed) {
            let Some(plan) = self.plan(key, symbols) else { continue };
            has_duplicates |= plan.seen == turn;
            plan.seen = turn;
        }
        has_duplicates
    }

    /// The plan of a key, made if it is new.
    #[inline]
    fn plan(&mut self, key: Sym, symbols: &Symbols) -> Option<&mut Plan> {
        if self.by_symbol.len() <= key.index() {
            let len = symbols.len().max(key.index() + 1);
            self.by_symbol.resize_with(len, Plan::default);
        }
        let plan = self.by_symbol.get_mut(key.index())?;
        if !plan.is_known {
            *plan = Plan::new(self.mapping, symbols.text(key));
        }
        Some(plan)
    }

    fn apply_one(&mut self, (key, value): (Sym, ValueRef<'_>), row: u32, cells: &mut Cells) {
        let Some(plan) = self.by_symbol.get(key.index()).filter(|plan| !plan.is_steering) else {
            return;
        };
        let mut is_stored = false;
        for target in &plan.targets {
            let Some(held) = self.held.get_mut(target.entry) else { continue };
            let wins = held.0 != self.turn || target.precedence < held.1;
            if wins && target.write.store(value, row, cells) {
                *held = (self.turn, target.precedence);
                is_stored = true;
            }
        }
        if !is_stored && let Some(typed) = plan.typed.and_then(|typed| cells.typed.get_mut(typed)) {
            is_stored = typed.store(value, row);
        }
        if !is_stored {
            self.rest.push((key, &plan.json_key), value, cells.attributes.buffer());
        }
    }
}

impl Plan {
    fn new(mapping: &Mapping, key: &str) -> Self {
        let mut json_key = serde_json::Value::from(key).to_string().into_bytes();
        json_key.push(b':');
        let is_steering = STEERING.contains(&key);
        let targets: Vec<_> = mapping.places(key).filter_map(Target::new).collect();
        let has_place = is_steering || !targets.is_empty();
        Self {
            is_known: true,
            is_steering,
            targets,
            json_key,
            column: if has_place { None } else { column_of_key(key) },
            ..Self::default()
        }
    }
}

impl Target {
    fn new(place: Place<'_>) -> Option<Self> {
        let Place { entry, precedence, column, read, words } = place;
        let write = if let Some(word) = Word::named(column) {
            match read {
                // A word that is not lowercase matches nothing in the mapping, and not here.
                Read::Word => Write::Vocabulary(
                    word,
                    words
                        .clone()
                        .into_iter()
                        .filter(|(w, _)| *w == w.to_ascii_lowercase())
                        .collect(),
                ),
                Read::Content => Write::Content(word),
                _ => Write::Text(word),
            }
        } else if let Some(int) = Int::named(column) {
            Write::Int(int, read)
        } else if let Some(float) = Float::named(column) {
            Write::Float(float)
        } else {
            Write::Bool(Bool::named(column)?)
        };
        Some(Self { entry, precedence, write })
    }
}

impl Write {
    /// Stores the value; `false` when it cannot be read for the column.
    fn store(&self, value: ValueRef<'_>, row: u32, cells: &mut Cells) -> bool {
        match self {
            Self::Text(word) => {
                with_text(value, |text| cells[*word].set(row, text));
                true
            }
            Self::Content(word) => {
                with_text(value, |text| cells[*word].set(row, &content_ref(text)));
                true
            }
            Self::Vocabulary(word, words) => with_text(value, |text| {
                let found = words.iter().find(|(found, _)| found.eq_ignore_ascii_case(text));
                found.map(|(_, in_column)| cells[*word].set(row, in_column)).is_some()
            }),
            Self::Int(int, read) => {
                let value = value.to_value();
                let number = match read {
                    Read::Int => value.as_int(),
                    Read::Seconds => seconds_to_ns(&value),
                    _ => value.as_count(),
                };
                let fits = |n: &i64| *int != Int::SourceLine || i32::try_from(*n).is_ok();
                number.filter(fits).map(|n| cells[*int].set(row, n)).is_some()
            }
            Self::Float(float) => {
                value.to_value().as_float().map(|v| cells[*float].set(row, v)).is_some()
            }
            Self::Bool(bool) => {
                value.to_value().as_bool().map(|v| cells[*bool].set(row, v)).is_some()
            }
        }
    }
}

/// The text of a value, without a copy where it is one.
fn with_text<T>(value: ValueRef<'_>, mut then: impl FnMut(&str) -> T) -> T {
    match value {
        ValueRef::Str(text) => then(text),
        other => then(&other.to_value().to_text()),
    }
}

/// The latest value of each key, in the order of the keys' first occurrence.
fn latest(packed: &[u8]) -> Vec<(Sym, ValueRef<'_>)> {
    let mut latest: Vec<(Sym, ValueRef<'_>)> = Vec::new();
    for (key, value) in attrs::iter(packed) {
        match latest.iter_mut().find(|(seen, _)| *seen == key) {
            Some(entry) => entry.1 = value,
            None => latest.push((key, value)),
        }
    }
    latest
}
