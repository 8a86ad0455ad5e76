//! What is known at the end of a call of a language model, recorded in one way by everything that
//! makes one.

use retake_schemas::event::TokensSource;
use tracing::Span;

/// The end of a call. What is not known is not recorded.
#[derive(Debug, Clone, Copy, Default)]
pub struct CallEnd<'a> {
    /// Model that answered.
    pub model: Option<&'a str>,
    /// Why the answer ended: `stop`, `length`, ...
    pub finish_reason: Option<&'a str>,
    /// Input tokens, cached ones included.
    pub input_tokens: Option<i64>,
    /// Output tokens, those of reasoning included.
    pub output_tokens: Option<i64>,
    /// Input tokens that the provider read from its cache.
    pub cache_read_tokens: Option<i64>,
    /// Output tokens spent on reasoning.
    pub reasoning_tokens: Option<i64>,
    /// Who counted.
    pub tokens_source: TokensSource,
}

impl CallEnd<'_> {
    /// Records it on the span of the call, which has to have declared the fields.
    pub fn record(&self, span: &Span) {
        let counts = [
            ("gen_ai.usage.input_tokens", self.input_tokens),
            ("gen_ai.usage.output_tokens", self.output_tokens),
            ("gen_ai.usage.cache_read.input_tokens", self.cache_read_tokens),
            ("gen_ai.usage.reasoning.output_tokens", self.reasoning_tokens),
        ];
        for (name, count) in counts {
            if let Some(count) = count {
                span.record(name, count);
            }
        }
        if let Some(model) = self.model {
            span.record("gen_ai.response.model", model);
        }
        if let Some(reason) = self.finish_reason {
            span.record("gen_ai.response.finish_reasons", reason);
        }
        if self.tokens_source != TokensSource::None {
            span.record("retake.tokens.source", self.tokens_source.as_str());
        }
    }
}
