//! What a span's descendants decide about it, on the whole trace.

use super::lean::LeanSpan;
use super::texts::Texts;
use crate::trace::Forest;

/// The verdicts on the spans of a trace, in the order of the spans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Family {
    /// It failed, and no child of it did.
    pub(crate) is_error_origin: Vec<bool>,
    /// It states tokens, and no descendant does: a parent's count is a roll-up.
    pub(crate) counts_tokens: Vec<bool>,
    /// It states a cost, and no descendant does.
    pub(crate) counts_cost: Vec<bool>,
}

/// Decides.
pub(crate) fn family(spans: &[LeanSpan], forest: &Forest, texts: &Texts) -> Family {
    let failed: Vec<bool> = spans.iter().map(|span| texts.text(span.status) == "error").collect();
    let states_tokens: Vec<bool> = spans
        .iter()
        .map(|span| span.input_tokens.is_some() || span.output_tokens.is_some())
        .collect();
    let states_cost: Vec<bool> = spans.iter().map(|span| span.cost_usd.is_some()).collect();
    let has = |flags: &[bool], index: usize| flags.get(index).copied().unwrap_or(false);
    let is_error_origin = (0..spans.len())
        .map(|index| {
            let child_failed = forest.children(index).iter().any(|child| has(&failed, *child));
            has(&failed, index) && !child_failed
        })
        .collect();
    Family {
        is_error_origin,
        counts_tokens: lowest(&states_tokens, forest),
        counts_cost: lowest(&states_cost, forest),
    }
}

/// Those that state something which none of their descendants states.
fn lowest(states: &[bool], forest: &Forest) -> Vec<bool> {
    let mut below = vec![false; states.len()];
    for index in forest.preorder().iter().rev() {
        let is_stated = states.get(*index) == Some(&true) || below.get(*index) == Some(&true);
        if let Some(slot) = forest.parent(*index).and_then(|parent| below.get_mut(parent)) {
            *slot |= is_stated;
        }
    }
    states.iter().zip(&below).map(|(states, below)| *states && !below).collect()
}
