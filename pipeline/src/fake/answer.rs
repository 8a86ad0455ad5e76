//! What is answered: a pure function of the request and the settings.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt as _;
use serde_json::{Value as Json, json};

use super::settings::{DIM_MAX, FakeSettings};
use crate::answer::extractive::ExtractiveLlm;
use crate::answer::{AnswerPart, ChatRequest, Llm as _, Message};
use crate::embed::hashing::HashingEmbedder;
use crate::tokens::{self, Piece};
use crate::usage::estimate::Estimator;

/// A request that cannot be answered: 400 with this message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unanswerable(pub(super) String);

/// A text that is answered token by token.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Text {
    /// Model, as asked for.
    pub(super) model: String,
    /// Whether it is streamed.
    pub(super) is_streamed: bool,
    /// Whether the stream ends with token counts.
    pub(super) counts_in_stream: bool,
    /// The answer.
    pub(super) pieces: Vec<Piece>,
    /// Why it ends.
    pub(super) finish_reason: &'static str,
    /// Tokens of the request.
    pub(super) input_tokens: u64,
}

impl Text {
    /// Its text.
    pub(super) fn text(&self) -> String {
        self.pieces.iter().map(|piece| piece.text.as_str()).collect()
    }

    /// Its token counts.
    pub(super) fn usage(&self) -> Json {
        let output: u64 = self.pieces.iter().map(|piece| u64::from(piece.tokens)).sum();
        json!({
            "prompt_tokens": self.input_tokens, "completion_tokens": output,
            "total_tokens": self.input_tokens + output,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        })
    }
}

/// Answers `/v1/chat/completions`.
pub(super) async fn chat(request: &Json, settings: &FakeSettings) -> Result<Text, Unanswerable> {
    let messages = request.get("messages").and_then(Json::as_array).filter(|all| !all.is_empty());
    let messages =
        messages.ok_or_else(|| Unanswerable("messages: must not be empty".to_owned()))?;
    let tools = request.get("tools").and_then(Json::as_array).cloned().unwrap_or_default();
    let read: Vec<Message> = messages.iter().map(message).collect::<Result<_, _>>()?;
    let input_tokens = Estimator::for_model(&model(request)).chat(messages, &tools).tokens;
    text(request, read, input_tokens, settings).await
}

/// Answers `/v1/completions`.
pub(super) async fn completion(
    request: &Json,
    settings: &FakeSettings,
) -> Result<Text, Unanswerable> {
    let prompt = request.get("prompt").and_then(Json::as_str);
    let prompt = prompt.ok_or_else(|| Unanswerable("prompt: must be a text".to_owned()))?;
    let input_tokens = Estimator::for_model(&model(request)).text(prompt).tokens;
    let message = Message { role: "user".to_owned(), content: prompt.to_owned() };
    text(request, vec![message], input_tokens, settings).await
}

/// Answers `/v1/embeddings`.
pub(super) fn embeddings(request: &Json, settings: &FakeSettings) -> Result<Json, Unanswerable> {
    let wrong = |reason: &str| Unanswerable(format!("input: {reason}"));
    let texts = match request.get("input") {
        Some(Json::String(text)) => vec![text.as_str()],
        Some(Json::Array(texts)) if !texts.is_empty() => texts
            .iter()
            .map(|text| text.as_str().ok_or_else(|| wrong("must be texts")))
            .collect::<Result<_, _>>()?,
        _ => return Err(wrong("must be a text or a list of texts")),
    };
    if texts.len() > BATCH_MAX {
        return Err(wrong(&format!("must be at most {BATCH_MAX} texts")));
    }
    let asked = request.get("dimensions").and_then(Json::as_u64);
    let dim = asked.and_then(|dim| usize::try_from(dim).ok()).unwrap_or(settings.dim);
    if dim == 0 || dim > DIM_MAX {
        return Err(Unanswerable(format!("dimensions: must be from 1 to {DIM_MAX}")));
    }
    let embedder = HashingEmbedder::new(dim).map_err(|error| Unanswerable(error.to_string()))?;
    let is_base64 = request.get("encoding_format").and_then(Json::as_str) == Some("base64");
    let estimator = Estimator::for_model(&model(request));
    let tokens: u64 = texts.iter().map(|text| estimator.text(text).tokens).sum();
    let items: Vec<Json> = texts
        .iter()
        .enumerate()
        .map(|(index, text)| {
            let vector = embedder.vector(text);
            let embedding = if is_base64 { base64(&vector) } else { json!(vector) };
            json!({"object": "embedding", "index": index, "embedding": embedding})
        })
        .collect();
    Ok(json!({
        "object": "list", "model": model(request), "data": items,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }))
}

/// Answers `/rerank` as Jina, Cohere and vLLM do, or, to a request with `texts`, as Text Embeddings
/// Inference: best first, with a score from 0 to 1.
pub(super) fn rerank(request: &Json, settings: &FakeSettings) -> Result<Json, Unanswerable> {
    let query = request.get("query").and_then(Json::as_str);
    let query = query.ok_or_else(|| Unanswerable("query: must be a text".to_owned()))?;
    let documents = request.get("documents").or_else(|| request.get("texts"));
    let documents = documents
        .and_then(Json::as_array)
        .ok_or_else(|| Unanswerable("documents: must be a list".to_owned()))?;
    let embedder =
        HashingEmbedder::new(settings.dim).map_err(|error| Unanswerable(error.to_string()))?;
    let asked = embedder.vector(query);
    let mut tokens = tokens::count(query);
    let mut scored = Vec::with_capacity(documents.len());
    for (index, document) in documents.iter().enumerate() {
        let text = document.as_str().or_else(|| document.get("text").and_then(Json::as_str));
        let text = text.ok_or_else(|| Unanswerable("documents: must be texts".to_owned()))?;
        tokens += tokens::count(text);
        let cosine: f32 =
            embedder.vector(text).iter().zip(&asked).map(|(one, other)| one * other).sum();
        scored.push((f64::from(cosine).clamp(0.0, 1.0), index, text));
    }
    scored.sort_by(|one, other| other.0.total_cmp(&one.0).then(one.1.cmp(&other.1)));
    let top_n = request.get("top_n").and_then(Json::as_u64);
    scored.truncate(top_n.and_then(|top_n| usize::try_from(top_n).ok()).unwrap_or(usize::MAX));
    if request.get("documents").is_none() {
        let score =
            |(score, index, _): &(f64, usize, &str)| json!({"index": index, "score": score});
        return Ok(scored.iter().map(score).collect());
    }
    let with_text = request.get("return_documents").and_then(Json::as_bool) == Some(true);
    let results: Vec<Json> = scored
        .into_iter()
        .map(|(score, index, text)| {
            let mut result = json!({"index": index, "relevance_score": score});
            if with_text {
                result["document"] = json!({"text": text});
            }
            result
        })
        .collect();
    Ok(json!({
        "model": model(request), "results": results,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }))
}

async fn text(
    request: &Json,
    messages: Vec<Message>,
    input_tokens: u64,
    settings: &FakeSettings,
) -> Result<Text, Unanswerable> {
    let number = |name: &str| request.get(name).and_then(Json::as_u64);
    let limit = number("max_completion_tokens").or_else(|| number("max_tokens"));
    let max_tokens = limit.and_then(|limit| u32::try_from(limit).ok()).unwrap_or(ANSWER_TOKENS_MAX);
    if max_tokens == 0 {
        return Err(Unanswerable("max_tokens: must be at least 1".to_owned()));
    }
    let prompt = ChatRequest {
        model: model(request),
        messages,
        temperature: 0.0,
        max_tokens,
        seed: settings.seed,
        stream: false,
        response_schema: None,
    };
    let said = said(&prompt, settings).await;
    let (pieces, finish_reason) = limited(tokens::pieces(&said), max_tokens);
    let flag = |place: &str| request.pointer(place).and_then(Json::as_bool) == Some(true);
    Ok(Text {
        is_streamed: flag("/stream"),
        counts_in_stream: flag("/stream_options/include_usage"),
        model: prompt.model,
        pieces,
        finish_reason,
        input_tokens,
    })
}

/// The reply that was given for such a prompt, or an answer from its passages.
async fn said(prompt: &ChatRequest, settings: &FakeSettings) -> String {
    let given = settings.replies.iter().find(|reply| {
        prompt.messages.iter().any(|message| message.content.contains(&reply.contains))
    });
    if let Some(given) = given {
        return given.reply.clone();
    }
    let Ok(mut parts) = ExtractiveLlm::new(SENTENCES_MAX).answer(prompt).await else {
        return String::new();
    };
    let mut said = String::new();
    while let Some(part) = parts.next().await {
        if let Ok(AnswerPart::Text { text, .. }) = part {
            said.push_str(&text);
        }
    }
    said
}

fn limited(pieces: Vec<Piece>, tokens_max: u32) -> (Vec<Piece>, &'static str) {
    let mut tokens = 0;
    let count = pieces.len();
    let fits = |piece: &Piece| {
        tokens += piece.tokens;
        tokens <= tokens_max
    };
    let kept: Vec<Piece> = pieces.into_iter().take_while(fits).collect();
    let reason = if kept.len() < count { "length" } else { "stop" };
    (kept, reason)
}

fn message(json: &Json) -> Result<Message, Unanswerable> {
    let role = json.get("role").and_then(Json::as_str);
    let role = role.ok_or_else(|| Unanswerable("messages: each must have a role".to_owned()))?;
    let content = match json.get("content") {
        Some(Json::Array(parts)) => parts
            .iter()
            .filter_map(|part| part.get("text").and_then(Json::as_str))
            .collect::<Vec<_>>()
            .join("\n"),
        content => content.and_then(Json::as_str).unwrap_or_default().to_owned(),
    };
    Ok(Message { role: role.to_owned(), content })
}

fn model(request: &Json) -> String {
    request.get("model").and_then(Json::as_str).unwrap_or("fake").to_owned()
}

fn base64(vector: &[f32]) -> Json {
    let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
    Json::String(STANDARD.encode(bytes))
}

/// Most texts of one embeddings request; OpenAI's own limit.
const BATCH_MAX: usize = 2_048;
/// Output limit when the request names none.
const ANSWER_TOKENS_MAX: u32 = 1_024;
/// Sentences of an answer from passages.
const SENTENCES_MAX: usize = 3;
