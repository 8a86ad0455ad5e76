//! What the fold itself wants to know of an attribute key, worked out once per key.

use retake_schemas::convention;
use retake_schemas::mapping::BUILT_IN;

use crate::attrs::{self, ValueRef};
use crate::symbols::{Sym, Symbols};

/// Roles of keys, as bits.
pub(super) struct KeyRole;

impl KeyRole {
    /// Counts tokens.
    pub(super) const TOKENS: u8 = 1;
    /// Decides the status.
    pub(super) const STATUS: u8 = 2;
    /// Replaces the span's name.
    pub(super) const NAME: u8 = 4;
    /// States what its sender found odd about the span.
    pub(super) const FLAGS: u8 = 8;
    /// Names the kind of the span.
    pub(super) const KIND: u8 = 16;
}

/// Roles by [`Sym::index`].
#[derive(Debug, Default)]
pub(super) struct Keys {
    known: Vec<Option<Key>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Key {
    roles: u8,
    /// Which count it gives (0 input, 1 output), and its precedence in the mapping.
    tokens: Option<(usize, usize)>,
    /// Its precedence among those that name the kind.
    kind: Option<usize>,
    /// Names the type of an error.
    is_error_type: bool,
}

impl Keys {
    /// The roles of a key.
    #[inline]
    pub(super) fn roles(&mut self, key: Sym, symbols: &Symbols) -> u8 {
        match self.known.get(key.index()) {
            Some(Some(known)) => known.roles,
            _ => self.learn(key, symbols),
        }
    }

    #[cold]
    fn learn(&mut self, key: Sym, symbols: &Symbols) -> u8 {
        let name = symbols.text(key);
        let mut known = Key::default();
        for place in BUILT_IN.places(name) {
            match place.column {
                "input_tokens" => known.tokens = Some((0, place.precedence)),
                "output_tokens" => known.tokens = Some((1, place.precedence)),
                "kind" => {
                    known.kind = Some(place.precedence);
                    known.roles |= KeyRole::KIND;
                    continue;
                }
                _ => continue,
            }
            known.roles |= KeyRole::TOKENS;
        }
        known.is_error_type = convention::is_error_type(name);
        known.roles |= match name {
            _ if known.is_error_type => KeyRole::STATUS,
            convention::OTEL_STATUS_CODE | "retake.cancelled" => KeyRole::STATUS,
            convention::OTEL_NAME => KeyRole::NAME,
            convention::FLAGS => KeyRole::FLAGS,
            _ => 0,
        };
        if self.known.len() <= key.index() {
            self.known.resize(key.index() + 1, None);
        }
        if let Some(place) = self.known.get_mut(key.index()) {
            *place = Some(known);
        }
        known.roles
    }

    /// The kind that attributes give a span, as a bit; 0 for one that is no call. The attribute
    /// of highest precedence whose value is a kind decides, as in the mapping.
    pub(super) fn call_kind(&self, bytes: &[u8]) -> u8 {
        let mut best: Option<(usize, u8)> = None;
        for (key, value) in attrs::iter(bytes) {
            let Some(Some(Key { kind: Some(precedence), .. })) = self.known.get(key.index()) else {
                continue;
            };
            if best.is_some_and(|(held, _)| held < *precedence) {
                continue;
            }
            let word = match value {
                ValueRef::Str(text) => BUILT_IN.kind_word(text),
                _ => None,
            };
            if let Some(word) = word {
                let place = CALL_KINDS.iter().position(|kind| *kind == word);
                best = Some((*precedence, place.map_or(0, |place| 1 << place)));
            }
        }
        best.map_or(0, |(_, bit)| bit)
    }

    /// Whether attributes name the type of an error, which only an operation that failed has.
    pub(super) fn has_error_type(&self, bytes: &[u8]) -> bool {
        attrs::iter(bytes).any(|(key, value)| {
            let is_error_type =
                matches!(self.known.get(key.index()), Some(Some(Key { is_error_type: true, .. })));
            is_error_type && !matches!(value, ValueRef::Str("") | ValueRef::Bool(false))
        })
    }

    /// The tokens that attributes state, input and output, as the mapping would read them: the
    /// latest value of a key, the key of highest precedence whose value is a count.
    pub(super) fn tokens(&self, bytes: &[u8]) -> (Option<i64>, Option<i64>) {
        let mut best: [Option<(usize, Option<i64>)>; 2] = [None; 2];
        for (key, value) in attrs::iter(bytes) {
            let Some(Some(Key { tokens: Some((which, precedence)), .. })) =
                self.known.get(key.index())
            else {
                continue;
            };
            let Some(best) = best.get_mut(*which) else { continue };
            let count = count(value);
            match best {
                // A later value of the same key replaces the earlier one, even by nothing.
                Some((held, old)) if *held == *precedence => *old = count,
                Some((held, Some(_))) if *held <= *precedence => {}
                _ if count.is_some() => *best = Some((*precedence, count)),
                _ => {}
            }
        }
        let [input, output] = best.map(|best| best.and_then(|(_, count)| count));
        (input, output)
    }
}

/// Kinds of which a span is a call of something, by the bit they are here.
const CALL_KINDS: [&str; 7] =
    ["llm", "embedding", "retriever", "reranker", "tool", "guardrail", "evaluator"];

fn count(value: ValueRef<'_>) -> Option<i64> {
    match value {
        ValueRef::Int(count) => Some(count).filter(|count| *count >= 0),
        other => other.to_value().as_count(),
    }
}
