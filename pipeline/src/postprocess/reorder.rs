//! The best chunks at the beginning and the end of the prompt.
//!
//! Models use the beginning and the end of a long context better than its middle (Liu et al.,
//! "Lost in the Middle", TACL 2024, <https://arxiv.org/abs/2307.03172>).

use async_trait::async_trait;

use super::{Postprocessor, Processed, Query};
use crate::document::Hit;
use crate::error::PipelineError;

/// Puts chunks where a model looks: the best first, the second best last, and so on inwards.
#[derive(Debug, Clone, Copy, Default)]
pub struct LongContextReorder;

#[async_trait]
impl Postprocessor for LongContextReorder {
    fn name(&self) -> &str {
        "long_context_reorder"
    }

    fn is_choosing(&self) -> bool {
        false
    }

    async fn process(&self, _: &Query<'_>, hits: Vec<Hit>) -> Result<Processed, PipelineError> {
        Ok(long_context_order(hits).into())
    }
}

/// `items`, best first, so that the best stand outside: 1 3 5 … 6 4 2.
#[must_use]
pub fn long_context_order<T>(items: Vec<T>) -> Vec<T> {
    let mut front = Vec::with_capacity(items.len());
    let mut back = Vec::new();
    for (position, item) in items.into_iter().enumerate() {
        if position % 2 == 0 { front.push(item) } else { back.push(item) }
    }
    front.extend(back.into_iter().rev());
    front
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_stand_outside_and_none_is_lost() {
        assert_eq!(long_context_order(vec![1, 2, 3, 4, 5, 6]), [1, 3, 5, 6, 4, 2]);
        assert_eq!(long_context_order(vec![1, 2, 3]), [1, 3, 2]);
        assert_eq!(long_context_order(vec![1]), [1]);
        assert_eq!(long_context_order(Vec::<u8>::new()), Vec::<u8>::new());
    }
}
