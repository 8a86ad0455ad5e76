//! Passages to an answer, in one model call or in several.
//!
//! Every prompt is counted in tokens before it is sent and fits the model's context window together
//! with its answer; a passage that is longer than that comes in pieces. Only the text of the answer
//! itself is streamed, not the drafts on the way to it.

pub mod check;
pub mod structured;

use std::time::Instant;

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use retake_schemas::settings::{RagSettings, SynthesisMode};
use serde_json::Value as Json;
use tracing::Span;

use crate::answer::prompt::{Prompt, build_request, message};
use crate::answer::window::Window;
use crate::answer::{AnswerEnd, ChatRequest};
use crate::document::{Chunk, Hit};
use crate::error::PipelineError;
use crate::llm_call::{Caller, Completion, OnPart, Spent};

/// What an answer is to be made of.
#[derive(Clone, Copy)]
pub(crate) struct Job<'a> {
    /// The model.
    pub(crate) caller: Caller<'a>,
    /// How.
    pub(crate) settings: &'a RagSettings,
    /// The question.
    pub(crate) question: &'a str,
    /// The passages, best first.
    pub(crate) hits: &'a [Hit],
    /// The form of the answer, if it is to have one.
    pub(crate) schema: Option<&'a Json>,
    /// The span of the synthesis.
    pub(crate) span: &'a Span,
}

/// An answer.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// Its text.
    pub(crate) text: String,
    /// The same, read by its schema.
    pub(crate) structured: Option<Json>,
    /// When its first piece came.
    pub(crate) first_piece: Option<Instant>,
    /// Why it ended.
    pub(crate) finish_reason: Option<String>,
    /// What the model calls came to.
    pub(crate) spent: Spent,
    /// Passages that were cut or left out because they did not fit.
    pub(crate) passages_cut: u64,
}

/// Makes the answer.
///
/// # Errors
/// The model failed, the context window is too small, or the answer does not have the wanted form.
pub(crate) async fn synthesize(
    job: Job<'_>,
    on_part: OnPart<'_>,
) -> Result<Written, PipelineError> {
    let mode = job.settings.synthesize.mode;
    if job.schema.is_some() && !has_one_answer(mode) {
        return Err(PipelineError::Configuration(
            "give the answer a form: synthesize.mode must be compact, refine, simple_summarize, \
             tree_summarize or generation"
                .to_owned(),
        ));
    }
    match mode {
        SynthesisMode::NoText => Ok(Written::default()),
        SynthesisMode::ContextOnly => Ok(job.context_only(on_part)),
        SynthesisMode::Generation => job.generate(on_part).await,
        SynthesisMode::SimpleSummarize => job.simple(on_part).await,
        SynthesisMode::Compact => {
            let room = job.window().room(&job.request(&[], None))?;
            let mut groups = job.window().packed(job.hits, room);
            if groups.len() > 1 {
                groups = job.window().packed(job.hits, job.room_beside_draft()?);
            }
            job.refined(groups, on_part).await
        }
        SynthesisMode::Refine => {
            let groups = job.singles(job.room_beside_draft()?);
            job.refined(groups, on_part).await
        }
        SynthesisMode::TreeSummarize => job.tree(on_part).await,
        SynthesisMode::Accumulate => {
            let room = job.window().room(&job.request(&[], None))?;
            job.accumulated(job.singles(room), on_part).await
        }
        SynthesisMode::CompactAccumulate => {
            let room = job.window().room(&job.request(&[], None))?;
            job.accumulated(job.window().packed(job.hits, room), on_part).await
        }
    }
}

fn has_one_answer(mode: SynthesisMode) -> bool {
    use SynthesisMode::{Compact, Generation, Refine, SimpleSummarize, TreeSummarize};
    matches!(mode, Compact | Refine | SimpleSummarize | TreeSummarize | Generation)
}

impl Job<'_> {
    fn window(&self) -> Window {
        let settings = &self.settings.synthesize;
        Window::new(self.caller.llm.model(), settings.context_window, settings.max_tokens)
    }

    /// The request for an answer, or a draft of it, from some of the passages.
    fn request(&self, hits: &[Hit], draft: Option<&str>) -> ChatRequest {
        let prompt = Prompt { question: self.question, hits, draft };
        let (model, seed) = (self.caller.llm.model(), self.settings.seed);
        let request = build_request(prompt, &self.settings.synthesize, model, seed);
        match self.schema {
            Some(schema) => structured::asking_for(request, schema),
            None => request,
        }
    }

    /// Tokens left for passages when a draft of the answer stands beside them.
    fn room_beside_draft(&self) -> Result<u64, PipelineError> {
        let settings = &self.settings.synthesize;
        let answer_and_draft = settings.max_tokens.saturating_mul(2);
        let model = self.caller.llm.model();
        let window = Window::new(model, settings.context_window, answer_and_draft);
        window.room(&self.request(&[], Some("")))
    }

    /// Each passage alone, in pieces if it has to be. Without passages there is one prompt
    /// without any.
    fn singles(&self, room: u64) -> Vec<Vec<Hit>> {
        let window = self.window();
        let pieces = self.hits.iter().flat_map(|hit| window.pieces(hit, room));
        let groups: Vec<Vec<Hit>> = pieces.map(|piece| vec![piece]).collect();
        if groups.is_empty() { vec![Vec::new()] } else { groups }
    }

    fn context_only(&self, on_part: OnPart<'_>) -> Written {
        let texts: Vec<&str> = self.hits.iter().map(|hit| hit.chunk.text.as_str()).collect();
        let text = texts.join("\n\n");
        on_part(&text);
        Written { text, first_piece: Some(Instant::now()), ..Written::default() }
    }

    async fn generate(&self, on_part: OnPart<'_>) -> Result<Written, PipelineError> {
        let with_context = self.request(&[], None);
        let request = ChatRequest {
            messages: vec![
                message("system", SYSTEM_GENERATE.to_owned()),
                message("user", self.question.to_owned()),
            ],
            ..with_context
        };
        let request = match self.schema {
            Some(schema) => structured::asking_for(request, schema),
            None => request,
        };
        self.last(request, Spent::default(), on_part).await
    }

    async fn simple(&self, on_part: OnPart<'_>) -> Result<Written, PipelineError> {
        let window = self.window();
        let room = window.room(&self.request(&[], None))?;
        let mut left = room;
        let mut kept = Vec::new();
        for hit in self.hits {
            let tokens = window.passage_tokens(hit);
            if tokens > left {
                // The first one is cut rather than answering from nothing.
                if kept.is_empty() {
                    kept.push(window.shortened(hit, left));
                }
                break;
            }
            left -= tokens;
            kept.push(hit.clone());
        }
        let whole = kept.iter().zip(self.hits).filter(|(kept, hit)| kept == hit).count();
        let written = self.last(self.request(&kept, None), Spent::default(), on_part).await?;
        Ok(Written { passages_cut: (self.hits.len() - whole) as u64, ..written })
    }

    async fn refined(
        &self,
        groups: Vec<Vec<Hit>>,
        on_part: OnPart<'_>,
    ) -> Result<Written, PipelineError> {
        let mut draft: Option<String> = None;
        let mut spent = Spent::default();
        let mut groups = groups.into_iter().peekable();
        while let Some(group) = groups.next() {
            if groups.peek().is_none() {
                return self.last(self.request(&group, draft.as_deref()), spent, on_part).await;
            }
            let completion = self.draft(&group, draft.as_deref()).await?;
            spent.add(&completion.end);
            draft = Some(completion.text);
        }
        Ok(Written { spent, ..Written::default() })
    }

    async fn tree(&self, on_part: OnPart<'_>) -> Result<Written, PipelineError> {
        let window = self.window();
        let room = window.room(&self.request(&[], None))?;
        let mut spent = Spent::default();
        let mut groups = window.packed(self.hits, room);
        while groups.len() > 1 {
            let calls: Vec<_> = groups.iter().map(|group| self.draft(group, None)).collect();
            let drafts: Vec<Completion> =
                stream::iter(calls).buffered(CONCURRENCY).try_collect().await?;
            drafts.iter().for_each(|draft| spent.add(&draft.end));
            let answers: Vec<Hit> = drafts
                .into_iter()
                .enumerate()
                .map(|(n, draft)| as_passage(n, draft.text))
                .collect();
            let next = window.packed(&answers, room);
            // Two answers must fit into one prompt, or the tree never comes to its root.
            if next.len() >= groups.len() {
                return Err(PipelineError::Configuration(format!(
                    "join {} answers in synthesize.context_window: {room} tokens are left for \
                     them; raise synthesize.context_window or lower synthesize.max_tokens",
                    groups.len()
                )));
            }
            groups = next;
        }
        let last = groups.pop().unwrap_or_default();
        self.last(self.request(&last, None), spent, on_part).await
    }

    async fn accumulated(
        &self,
        groups: Vec<Vec<Hit>>,
        on_part: OnPart<'_>,
    ) -> Result<Written, PipelineError> {
        let calls: Vec<_> = groups.iter().map(|group| self.draft(group, None)).collect();
        let mut answers = stream::iter(calls).buffered(CONCURRENCY);
        let mut written = Written::default();
        while let Some(answer) = answers.next().await {
            let answer = answer?;
            let number = written.spent.calls + 1;
            let between = if number > 1 { SEPARATOR } else { "" };
            let part = format!("{between}Response {number}: {}", answer.text);
            written.first_piece.get_or_insert_with(Instant::now);
            on_part(&part);
            written.text.push_str(&part);
            written.spent.add(&answer.end);
            written.finish_reason = worse_end(written.finish_reason, &answer.end);
        }
        Ok(written)
    }

    /// An answer that is not the last one, and not streamed.
    async fn draft(&self, hits: &[Hit], draft: Option<&str>) -> Result<Completion, PipelineError> {
        let plain = Job { schema: None, ..*self };
        let request = ChatRequest { stream: false, ..plain.request(hits, draft) };
        self.caller.complete(&request, self.span, &mut |_| {}).await
    }

    /// The call whose text is the answer.
    async fn last(
        &self,
        request: ChatRequest,
        mut spent: Spent,
        on_part: OnPart<'_>,
    ) -> Result<Written, PipelineError> {
        if let Some(schema) = self.schema {
            return structured::complete(self, request, schema, spent, on_part).await;
        }
        let completion = self.caller.complete(&request, self.span, on_part).await?;
        spent.add(&completion.end);
        Ok(Written {
            text: completion.text,
            first_piece: completion.first_piece,
            finish_reason: completion.end.finish_reason,
            spent,
            ..Written::default()
        })
    }
}

/// An answer as material of the next level of a tree.
fn as_passage(number: usize, text: String) -> Hit {
    let id = format!("answer {}", number + 1);
    let chunk = Chunk {
        document_id: id.clone(),
        id,
        ordinal: 0,
        start_char: 0,
        end_char: text.chars().count() as u64,
        tokens: 0,
        text,
    };
    Hit::new(chunk, 0.0)
}

/// Of several answers, one that was cut is what matters.
fn worse_end(so_far: Option<String>, end: &AnswerEnd) -> Option<String> {
    match so_far.as_deref() {
        Some("length") => so_far,
        _ => end.finish_reason.clone().or(so_far),
    }
}

const SYSTEM_GENERATE: &str = "Answer the question. Be brief. If you do not know, say so.";
/// Between the answers of `accumulate`.
const SEPARATOR: &str = "\n---------------------\n";
/// Calls at the same time, where one does not need the other's answer.
const CONCURRENCY: usize = 4;

#[cfg(test)]
mod tests;
