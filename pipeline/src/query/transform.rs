//! What a question becomes before it is searched for.
//!
//! The answer is still one to the question as it was asked; only what is searched for changes.

use retake_schemas::settings::{QueryTransform, RagSettings};
use tracing::{Instrument as _, Span};

use super::spans;
use crate::answer::ChatRequest;
use crate::answer::prompt::message;
use crate::error::PipelineError;
use crate::llm_call::{Caller, Spent};
use crate::synthesize::check::is_not_known;
use crate::trace::Stage;

/// Texts whose vectors, averaged, are searched for.
///
/// *Rewrite* searches for the question in the model's words. *HyDE* searches for a passage that the
/// model makes up, together with the question itself, so that a made-up passage on something else
/// cannot lead it all the way astray (Gao et al., "Precise Zero-Shot Dense Retrieval without
/// Relevance Labels", ACL 2023, <https://arxiv.org/abs/2212.10496>). A model that has nothing to say
/// changes nothing.
///
/// # Errors
/// The model failed.
pub(super) async fn searched_texts(
    question: &str,
    settings: &RagSettings,
    caller: Caller<'_>,
    root: &Span,
    spent: &mut Spent,
) -> Result<Vec<String>, PipelineError> {
    let own = question.to_owned();
    let (name, system, max_tokens) = match settings.query.transform {
        QueryTransform::None => return Ok(vec![own]),
        QueryTransform::Rewrite => ("rewrite", REWRITE, REWRITE_TOKENS_MAX),
        QueryTransform::Hyde => ("hyde", HYDE, HYDE_TOKENS_MAX),
    };
    let request = ChatRequest {
        model: caller.llm.model().to_owned(),
        messages: vec![message("system", system.to_owned()), message("user", own.clone())],
        temperature: settings.synthesize.temperature,
        max_tokens,
        seed: settings.seed,
        stream: false,
        response_schema: None,
    };
    let stage = Stage::new(spans::transform(name, root));
    let span = stage.span().clone();
    let reply = caller.complete(&request, &span, &mut |_| {}).instrument(span.clone()).await;
    let reply = stage.end(reply)?;
    spent.add(&reply.end);
    let text = reply.text.trim();
    if text.is_empty() || is_not_known(text) {
        return Ok(vec![own]);
    }
    Ok(match settings.query.transform {
        QueryTransform::Hyde => vec![own, text.to_owned()],
        _ => vec![first_line(text).to_owned()],
    })
}

/// A model that explains itself does so below what it was asked for.
fn first_line(text: &str) -> &str {
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or(text);
    line.trim().trim_matches('"')
}

/// The mean of vectors, of length 1; the first where they cancel each other out.
pub(super) fn mean_vector(vectors: Vec<Vec<f32>>) -> Vec<f32> {
    let mut vectors = vectors.into_iter();
    let Some(first) = vectors.next() else { return Vec::new() };
    let mut sum = first.clone();
    let mut count = 1;
    for vector in vectors {
        sum.iter_mut().zip(&vector).for_each(|(sum, value)| *sum += value);
        count += 1;
    }
    if count == 1 {
        return first;
    }
    crate::embed::normalized(sum).unwrap_or(first)
}

const REWRITE: &str = "Word the question as a query for a search engine: the words that a text with \
    the answer would have, names written out, nothing about how to answer. Write the query on one \
    line and nothing else.";
const HYDE: &str = "Write a passage of a few sentences, as it could stand in a document, that answers \
    the question. Write nothing else. It does not matter if it is right.";
/// A query is a line.
const REWRITE_TOKENS_MAX: u32 = 96;
/// About the size of a chunk.
const HYDE_TOKENS_MAX: u32 = 256;

#[cfg(test)]
mod tests {
    use retake_schemas::settings::QuerySettings;

    use super::*;
    use crate::answer::scripted::Scripted;

    async fn texts(transform: QueryTransform, reply: &'static str) -> (Vec<String>, u64) {
        let llm = Scripted::new(move |_| reply.to_owned());
        let settings = RagSettings { query: QuerySettings { transform }, ..RagSettings::default() };
        let mut spent = Spent::default();
        let caller = Caller { llm: &llm, source: None, cutoff: None };
        let texts = searched_texts("who?", &settings, caller, &Span::none(), &mut spent).await;
        (texts.expect("texts"), spent.calls)
    }

    /// Guarantees: a rewritten question takes the place of the question, a made-up passage stands
    /// beside it, and a model without an idea changes nothing.
    #[tokio::test]
    async fn what_is_searched_for_is_what_the_model_says_if_it_says_something() {
        use QueryTransform::{Hyde, None, Rewrite};
        assert_eq!(texts(None, "x").await, (vec!["who?".to_owned()], 0));
        let (rewritten, calls) = texts(Rewrite, "\n\"keeper Skerryvore\"\nI chose these.").await;
        assert_eq!((rewritten, calls), (vec!["keeper Skerryvore".to_owned()], 1));
        let (made_up, _) = texts(Hyde, "The keeper was\nAnn.").await;
        assert_eq!(made_up, ["who?", "The keeper was\nAnn."]);
        for nothing in ["  \n", "I do not know.", crate::answer::extractive::NOT_KNOWN] {
            assert_eq!(texts(Rewrite, nothing).await.0, ["who?"]);
            assert_eq!(texts(Hyde, nothing).await.0, ["who?"]);
        }
    }

    #[test]
    fn the_mean_has_length_one() {
        assert_eq!(mean_vector(vec![vec![0.3, 0.4]]), [0.3, 0.4], "one vector stays as it is");
        let mean = mean_vector(vec![vec![1.0, 0.0], vec![0.0, 1.0]]);
        assert!((mean[0] - 0.5_f32.sqrt()).abs() < 1e-6 && (mean[0] - mean[1]).abs() < 1e-6);
        assert_eq!(mean_vector(vec![vec![1.0, 0.0], vec![-1.0, 0.0]]), [1.0, 0.0]);
        assert!(mean_vector(vec![]).is_empty());
    }
}
