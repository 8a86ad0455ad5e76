//! Which attributes get a column of their own in a segment.
//!
//! A column is smaller than the same values in JSON, and is read without parsing, but it costs 200
//! bytes in every segment: only attributes that many spans carry get one.

use std::collections::HashSet;

use super::super::cells::{Kind, Typed};
use super::Plans;
use crate::attrs;
use crate::symbols::Symbols;

/// How often an attribute must occur in a segment to have a column.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frequent {
    /// Values there must be.
    pub(crate) values: usize,
    /// Values there must be of an attribute of floats: eight bytes each where JSON has a few
    /// digits, until enough of them repeat.
    pub(crate) floats: usize,
}

impl Frequent {
    /// With fewer values, files of most programs were larger (measured with synthetic attributes
    /// of eight sorts).
    pub(crate) const IN_SEGMENT: Self = Self { values: 1024, floats: 4096 };
}

impl Plans {
    /// Counts the attributes of the spans to come and makes columns for the most frequent. A key
    /// has one column, of its most frequent type; values of another type stay in the JSON.
    pub(in super::super) fn choose<'a>(
        &mut self,
        packed: impl ExactSizeIterator<Item = &'a [u8]>,
        symbols: &Symbols,
        frequent: Frequent,
        typed: &mut Vec<Typed>,
    ) {
        let rows = packed.len();
        for plan in &mut self.by_symbol {
            plan.typed = None;
            plan.counts = [0; Kind::ALL.len()];
        }
        if rows >= frequent.values {
            for (key, value) in packed.flat_map(attrs::iter) {
                if let Some(plan) = self.plan(key, symbols)
                    && let Some(kind) = Kind::of(value)
                    && let Some(count) = plan.counts.get_mut(kind as usize)
                {
                    *count += 1;
                }
            }
        }
        let mut candidates = self.candidates(rows, frequent);
        candidates.sort_by(|a, b| (b.count, &a.column).cmp(&(a.count, &b.column)));
        // Engines that fold the case of names would take two columns for one.
        let mut folded = HashSet::new();
        candidates.retain(|candidate| folded.insert(candidate.column.to_ascii_lowercase()));
        candidates.truncate(COLUMNS_MAX);
        candidates.sort_by(|a, b| a.column.cmp(&b.column));
        let mut before = std::mem::take(typed);
        for Candidate { symbol, column, kind, .. } in candidates {
            // Memory of the segment before, if the attribute had a column there.
            let same = before.iter().position(|old| old.name == column && old.kind() == kind);
            if let Some(plan) = self.by_symbol.get_mut(symbol) {
                plan.typed = Some(typed.len());
            }
            typed.push(match same {
                Some(at) => before.swap_remove(at),
                None => Typed::new(column, kind),
            });
        }
    }

    /// The keys that are frequent enough.
    fn candidates(&self, rows: usize, frequent: Frequent) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        for (symbol, plan) in self.by_symbol.iter().enumerate() {
            let counted = Kind::ALL.into_iter().zip(plan.counts);
            let Some((kind, count)) = counted.max_by_key(|(_, count)| *count) else { continue };
            let least = if kind == Kind::Float { frequent.floats } else { frequent.values };
            let values = count as usize;
            let is_frequent = values >= least && values * SHARE_DIVISOR >= rows;
            if let Some(column) = plan.column.clone().filter(|_| is_frequent) {
                candidates.push(Candidate { symbol, column, kind, count });
            }
        }
        candidates
    }
}

/// A key that is frequent enough for a column.
#[derive(Debug)]
struct Candidate {
    /// Index of its symbol.
    symbol: usize,
    column: String,
    kind: Kind,
    count: u32,
}

/// Columns of attributes in a segment: as many again as the table has, so that the footer of a
/// segment stays small whatever a program records.
const COLUMNS_MAX: usize = 64;
/// The places of an attribute of fewer than one in so many spans take as much as its name in JSON.
const SHARE_DIVISOR: usize = 128;
