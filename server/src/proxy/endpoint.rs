//! Which requests are calls of a model.

use hyper::Method;

/// A kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Chat,
    Completions,
    Responses,
    Embeddings,
    Rerank,
}

impl Endpoint {
    /// The call that a request is, if it is one. Services put the paths under prefixes of their own.
    pub(crate) fn of(method: &Method, path: &str) -> Option<Self> {
        if method != Method::POST {
            return None;
        }
        let known = [
            ("/v1/chat/completions", Self::Chat),
            ("/v1/completions", Self::Completions),
            ("/v1/responses", Self::Responses),
            ("/v1/embeddings", Self::Embeddings),
            ("/rerank", Self::Rerank),
        ];
        known.into_iter().find(|(end, _)| path.ends_with(end)).map(|(_, endpoint)| endpoint)
    }

    /// `http.route` of its span: a path that holds nothing of the request.
    pub(crate) const fn route(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
            Self::Responses => "/v1/responses",
            Self::Embeddings => "/v1/embeddings",
            Self::Rerank => "/v1/rerank",
        }
    }

    /// `gen_ai.operation.name`.
    pub(crate) const fn operation(self) -> &'static str {
        match self {
            Self::Chat | Self::Responses => "chat",
            Self::Completions => "text_completion",
            Self::Embeddings => "embeddings",
            Self::Rerank => "rerank",
        }
    }

    /// `retake.stage`, by the names of the built-in pipeline.
    pub(crate) const fn stage(self) -> &'static str {
        match self {
            Self::Chat | Self::Responses | Self::Completions => "llm",
            Self::Embeddings => "embed",
            Self::Rerank => "rerank",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_calls_of_models_are_recorded() {
        for (path, expected) in [
            ("/v1/chat/completions", Some(Endpoint::Chat)),
            ("/openai/v1/chat/completions", Some(Endpoint::Chat)),
            ("/v1/completions", Some(Endpoint::Completions)),
            ("/v1/embeddings", Some(Endpoint::Embeddings)),
            ("/v1/responses", Some(Endpoint::Responses)),
            ("/v1/rerank", Some(Endpoint::Rerank)),
            ("/v2/rerank", Some(Endpoint::Rerank)),
            ("/rerank", Some(Endpoint::Rerank)),
            ("/v1/models", None),
            ("/v1/responses/resp_1", None),
            ("/v1/embeddings/", None),
            ("/prerank", None),
        ] {
            assert_eq!(Endpoint::of(&Method::POST, path), expected, "{path}");
            assert_eq!(Endpoint::of(&Method::GET, path), None, "{path}");
        }
    }
}
