//! A model for tests: it says what a function says, and remembers what it was asked.

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt as _};
use parking_lot::Mutex;
use retake_schemas::event::TokensSource;

use super::{AnswerEnd, AnswerPart, ChatRequest, Llm};
use crate::error::PipelineError;

type Reply = Box<dyn Fn(&ChatRequest) -> Result<String, PipelineError> + Send + Sync>;

/// The model. Each answer counts 10 tokens in and 1 out, and is streamed word by word.
pub(crate) struct Scripted {
    reply: Reply,
    pub(crate) requests: Mutex<Vec<ChatRequest>>,
}

impl Scripted {
    pub(crate) fn new(reply: impl Fn(&ChatRequest) -> String + Send + Sync + 'static) -> Self {
        Self::fallible(move |request| Ok(reply(request)))
    }

    pub(crate) fn fallible(
        reply: impl Fn(&ChatRequest) -> Result<String, PipelineError> + Send + Sync + 'static,
    ) -> Self {
        Self { reply: Box::new(reply), requests: Mutex::new(Vec::new()) }
    }
}

#[async_trait]
impl Llm for Scripted {
    fn provider(&self) -> &str {
        "test"
    }

    fn model(&self) -> &str {
        "gpt-4"
    }

    async fn answer(
        &self,
        request: &ChatRequest,
    ) -> Result<BoxStream<'static, Result<AnswerPart, PipelineError>>, PipelineError> {
        self.requests.lock().push(request.clone());
        let text = (self.reply)(request)?;
        let words: Vec<String> = text.split_inclusive(' ').map(ToOwned::to_owned).collect();
        let end = AnswerPart::End(AnswerEnd {
            input_tokens: Some(10),
            output_tokens: Some(1),
            tokens_source: TokensSource::Provider,
            finish_reason: Some("stop".to_owned()),
            ..AnswerEnd::default()
        });
        let parts = words.into_iter().map(|text| AnswerPart::Text { text, tokens: 1 }).chain([end]);
        Ok(stream::iter(parts.map(Ok).collect::<Vec<_>>()).boxed())
    }
}
