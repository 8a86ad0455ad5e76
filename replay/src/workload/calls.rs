//! Calls of models that a program made which knows nothing of retake: recorded by OTLP or by
//! `retake proxy`, and put together again into the requests they were.
//!
//! An operation's input is `{"route": "/v1/chat/completions", "body": {...}}`. The route is one of
//! five known ones, never text out of the trace: where a request goes is decided by whoever starts
//! the replay (R2).

use retake_schemas::tables::SpanRow;
use serde_json::{Map, Value as Json, json};

use super::Shape;
use super::cut::Root;

/// How a call is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Chat,
    Completions,
    Responses,
    Embeddings,
    Rerank,
}

/// The calls of models among spans, each once: the innermost span of a call.
pub(super) fn of(spans: Vec<SpanRow>) -> Vec<Root> {
    let calls = spans.into_iter().filter(|span| span.is_call == Some(true));
    calls
        .filter_map(|span| {
            let call = Call::of(&span)?;
            Some(Root { kind: call.kind().to_owned(), call: Some(call), span })
        })
        .collect()
}

impl Call {
    fn of(span: &SpanRow) -> Option<Self> {
        let attributes = attributes(span);
        if let Some(route) = attributes.get("http.route").and_then(Json::as_str) {
            let known = Self::ALL.into_iter().find(|call| call.route() == route);
            if known.is_some() {
                return known;
            }
        }
        match (span.kind.as_str(), span.operation.as_deref()) {
            ("llm", Some("text_completion")) => Some(Self::Completions),
            ("llm", _) => Some(Self::Chat),
            ("embedding", _) => Some(Self::Embeddings),
            _ => None,
        }
    }

    const ALL: [Self; 5] =
        [Self::Chat, Self::Completions, Self::Responses, Self::Embeddings, Self::Rerank];

    const fn route(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
            Self::Responses => "/v1/responses",
            Self::Embeddings => "/v1/embeddings",
            Self::Rerank => "/v1/rerank",
        }
    }

    const fn kind(self) -> &'static str {
        match self {
            Self::Chat | Self::Responses => "chat",
            Self::Completions => "text_completion",
            Self::Embeddings => "embeddings",
            Self::Rerank => "rerank",
        }
    }

    /// What is known of the call besides its text. Calls of one trace are turns of one session
    /// when nothing names the conversation: an agent's next call waits for the one before it.
    pub(super) fn shape(self, span: &SpanRow) -> Shape {
        let count = |tokens: Option<i64>| tokens.and_then(|tokens| u64::try_from(tokens).ok());
        Shape {
            session: Some(span.session_id.clone().unwrap_or_else(|| span.trace_id.clone())),
            model: span.model_request.clone().or_else(|| span.model_response.clone()),
            tokens_in: count(span.input_tokens),
            tokens_out: count(span.output_tokens),
            ..Shape::default()
        }
    }

    /// The call that a replayed operation was, which a replay can repeat once more.
    pub(super) fn of_replayed(kind: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|call| call.kind() == kind)
    }

    /// The request that the span was, from its recorded content. `Err` says what is missing.
    pub(super) fn request(self, span: &SpanRow, content: &str) -> Result<Json, String> {
        if content.is_empty() {
            return Err("the request's text was not kept".to_owned());
        }
        let parsed: Option<Json> = serde_json::from_str(content).ok();
        if let Some(replayed) = parsed.as_ref().and_then(replayed_request) {
            return Ok(replayed);
        }
        // Some instrumentations keep the whole request, most keep its texts alone.
        let whole = parsed.as_ref().and_then(Json::as_object).filter(|o| self.is_request(o));
        let mut body = whole.cloned().unwrap_or_default();
        if whole.is_none() {
            self.fill_texts(&mut body, parsed.unwrap_or_else(|| content.into()))?;
        }
        self.fill_settings(&mut body, span);
        if !body.contains_key("model") {
            return Err("the recording does not say which model was asked".to_owned());
        }
        Ok(json!({ "route": self.route(), "body": body }))
    }

    /// Whether an object is a request's body.
    fn is_request(self, object: &Map<String, Json>) -> bool {
        match self {
            Self::Chat => object.get("messages").is_some_and(is_messages),
            Self::Completions => object.contains_key("prompt"),
            Self::Responses | Self::Embeddings => object.contains_key("input"),
            Self::Rerank => object.contains_key("documents"),
        }
    }

    fn fill_texts(self, body: &mut Map<String, Json>, content: Json) -> Result<(), String> {
        match (self, content) {
            (Self::Chat, content) => {
                body.insert("messages".to_owned(), messages(content)?);
            }
            (Self::Completions, content) => {
                body.insert("prompt".to_owned(), content);
            }
            (Self::Embeddings | Self::Responses, content) => {
                body.insert("input".to_owned(), content);
            }
            (Self::Rerank, _) => {
                return Err("the documents of a rerank call are not kept with it".to_owned());
            }
        }
        Ok(())
    }

    /// Sampling settings that the recording has and the body has not.
    fn fill_settings(self, body: &mut Map<String, Json>, span: &SpanRow) {
        let attributes = attributes(span);
        let has_limit = LIMITS.iter().any(|name| body.contains_key(*name));
        let mut set = |name: &str, value: Option<Json>| {
            if let Some(value) = value
                && !body.contains_key(name)
            {
                body.insert(name.to_owned(), value);
            }
        };
        set("model", span.model_request.as_deref().map(Json::from));
        set("model", span.model_response.as_deref().map(Json::from));
        if self == Self::Embeddings {
            let dimensions = attributes.get("gen_ai.request.embedding.dimensions").cloned();
            return set("dimensions", dimensions);
        }
        let parameters = attributes.get("llm.invocation_parameters").and_then(Json::as_str);
        let parameters: Option<Json> = parameters.and_then(|text| serde_json::from_str(text).ok());
        if let Some(Json::Object(parameters)) = parameters {
            for (name, value) in parameters {
                let is_setting = SETTINGS.iter().any(|(known, _)| *known == name);
                let is_limit = LIMITS.contains(&name.as_str());
                if is_setting || name == "stream" || (is_limit && !has_limit) {
                    set(&name, Some(value));
                }
            }
        }
        set("temperature", span.temperature.map(Json::from));
        set("stream", span.stream.filter(|stream| *stream).map(Json::from));
        for (name, attribute) in SETTINGS {
            set(name, attributes.get(attribute).cloned());
        }
        if !LIMITS.iter().any(|name| body.contains_key(*name))
            && let Some(tokens) = span.max_tokens
        {
            let limit = if self == Self::Responses { "max_output_tokens" } else { "max_tokens" };
            body.insert(limit.to_owned(), tokens.into());
        }
    }
}

/// What a replay records of a call: the route and the whole body.
fn replayed_request(content: &Json) -> Option<Json> {
    let (route, body) = (content.get("route")?.as_str()?, content.get("body")?.as_object()?);
    let is_known = Call::ALL.into_iter().any(|call| call.route() == route);
    (is_known && content.as_object()?.len() == 2).then(|| json!({ "route": route, "body": body }))
}

/// Messages in the form that services take, from the forms in which they are recorded.
fn messages(content: Json) -> Result<Json, String> {
    match content {
        Json::String(text) => Ok(json!([{ "role": "user", "content": text }])),
        Json::Array(items) => {
            // LangChain records a batch of conversations; one is a conversation.
            if let [Json::Array(inner)] = items.as_slice() {
                return messages(Json::Array(inner.clone()));
            }
            items.into_iter().map(message).collect::<Result<Vec<_>, _>>().map(Json::Array)
        }
        Json::Object(mut object) => match object.remove("messages") {
            Some(inner) => messages(inner),
            None => Err("its text is in no form that a chat request can be made of".to_owned()),
        },
        _ => Err("its text is no list of messages".to_owned()),
    }
}

fn message(item: Json) -> Result<Json, String> {
    let Json::Object(mut object) = item else {
        return Err("a message is no object".to_owned());
    };
    // OpenInference nests: {"message": {"role": ..., "content": ...}}.
    if let Some(Json::Object(inner)) = object.remove("message") {
        object = inner;
    }
    // OTel GenAI has parts: [{"type": "text", "content": "..."}].
    if let Some(Json::Array(parts)) = object.remove("parts") {
        let texts: Vec<&str> =
            parts.iter().filter_map(|part| part.get("content")?.as_str()).collect();
        if texts.len() != parts.len() {
            return Err("a message has parts that are no text".to_owned());
        }
        object.insert("content".to_owned(), texts.join("").into());
    }
    if !object.get("role").is_some_and(Json::is_string) {
        return Err("a message has no role".to_owned());
    }
    Ok(Json::Object(object))
}

fn is_messages(value: &Json) -> bool {
    let is_message = |item: &Json| item.get("role").is_some_and(Json::is_string);
    value.as_array().is_some_and(|items| !items.is_empty() && items.iter().all(is_message))
}

fn attributes(span: &SpanRow) -> Map<String, Json> {
    let parsed = span.attributes.as_deref().and_then(|text| serde_json::from_str(text).ok());
    parsed.unwrap_or_default()
}

/// Names under which a request limits its answer; one of them is enough.
const LIMITS: [&str; 3] = ["max_completion_tokens", "max_output_tokens", "max_tokens"];
/// Settings of a request, and the attributes that hold them.
const SETTINGS: [(&str, &str); 7] = [
    ("temperature", "gen_ai.request.temperature"),
    ("top_p", "gen_ai.request.top_p"),
    ("seed", "gen_ai.request.seed"),
    ("n", "gen_ai.request.choice.count"),
    ("frequency_penalty", "gen_ai.request.frequency_penalty"),
    ("presence_penalty", "gen_ai.request.presence_penalty"),
    ("reasoning_effort", "gen_ai.request.reasoning.level"),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: the forms in which instrumentations record one and the same conversation.
    /// Guarantees: each gives the messages that the service was sent.
    #[test]
    fn every_form_of_a_conversation_is_the_same_request() {
        let expected = json!([{ "role": "user", "content": "hi" }]);
        for form in [
            json!("hi"),
            json!([{ "role": "user", "content": "hi" }]),
            json!([[{ "role": "user", "content": "hi" }]]),
            json!({ "messages": [{ "role": "user", "content": "hi" }] }),
            json!([{ "message": { "role": "user", "content": "hi" } }]),
            json!([{ "role": "user", "parts": [{ "type": "text", "content": "hi" }] }]),
        ] {
            assert_eq!(messages(form.clone()), Ok(expected.clone()), "{form}");
        }
        for form in [json!(7), json!({ "prompt": "hi" }), json!([{ "content": "hi" }]), json!([3])]
        {
            assert!(messages(form.clone()).is_err(), "{form}");
        }
    }

    fn span() -> SpanRow {
        SpanRow { model_request: Some("m".to_owned()), ..SpanRow::default() }
    }

    /// Scenario: a call with settings, of which the recording has columns and attributes.
    /// Guarantees: the request is asked with them; what the text itself says wins.
    #[test]
    fn a_request_keeps_its_settings() {
        let mut span = span();
        (span.temperature, span.max_tokens, span.stream) = (Some(0.5), Some(9), Some(true));
        span.attributes =
            Some(json!({ "gen_ai.request.top_p": 0.9, "gen_ai.request.seed": 7 }).to_string());
        let request = Call::Chat.request(&span, "hi").unwrap();
        let body = &request["body"];
        assert_eq!(request["route"], "/v1/chat/completions");
        assert_eq!((&body["model"], &body["temperature"]), (&json!("m"), &json!(0.5)));
        assert_eq!((&body["max_tokens"], &body["stream"]), (&json!(9), &json!(true)));
        assert_eq!((&body["top_p"], &body["seed"]), (&json!(0.9), &json!(7)));

        let whole = json!({ "model": "other", "temperature": 0, "messages": [{ "role": "user", "content": "x" }] });
        let request = Call::Chat.request(&span, &whole.to_string()).unwrap();
        assert_eq!(
            (&request["body"]["model"], &request["body"]["temperature"]),
            (&json!("other"), &json!(0))
        );
        let request = Call::Embeddings.request(&span, r#"["a","b"]"#).unwrap();
        assert_eq!(request["body"], json!({ "input": ["a", "b"], "model": "m" }));
        assert!(Call::Chat.request(&span, "").is_err());
    }

    /// Scenario: forty things that a trace may name where a route should be: other hosts, services
    /// inside a network, files, ways up, parameters, encodings of these.
    /// Guarantees: R2 - only the five known routes are ever asked.
    #[test]
    fn a_route_is_never_taken_out_of_a_trace() {
        for route in [
            "http://169.254.169.254/latest",
            "http://169.254.169.254/latest/meta-data/iam",
            "http://[fd00:ec2::254]/latest",
            "http://metadata.google.internal/computeMetadata/v1",
            "http://127.0.0.1:22",
            "http://localhost:6379",
            "http://0.0.0.0:8080/",
            "http://[::1]:5432/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://0177.0.0.1/",
            "http://127.1/",
            "https://evil.example/v1/chat/completions",
            "https://good.example@evil.example/v1/chat/completions",
            "https://evil.example#/v1/chat/completions",
            "//evil/v1/chat/completions",
            "///evil/v1/chat/completions",
            "\\\\evil\\v1\\chat\\completions",
            "/\\evil/v1/chat/completions",
            "@evil.example/v1/chat/completions",
            ":80/v1/chat/completions",
            ".evil.example/v1/chat/completions",
            "/../admin",
            "/v1/../../admin",
            "/v1/chat/completions/../../../admin",
            "/v1/chat/completions/%2e%2e/admin",
            "/%2e%2e/%2e%2e/etc/passwd",
            "/v1//chat/completions",
            "/V1/CHAT/COMPLETIONS",
            "/v1/chat/completions/",
            "/v1/chat/completions?x=1",
            "/v1/chat/completions#x",
            "/v1/chat/completions\r\nHost: evil",
            "/v1/chat/completions HTTP/1.1\r\n\r\nGET /admin",
            "/v1/chat/completions\0",
            "file:///etc/passwd",
            "gopher://127.0.0.1:6379/_FLUSHALL",
            "ftp://evil.example/",
            "unix:/var/run/docker.sock",
            "",
        ] {
            let mut span = span();
            span.kind = "llm".to_owned();
            span.attributes = Some(json!({ "http.route": route, "url.full": route }).to_string());
            let call = Call::of(&span).unwrap();
            let request = call.request(&span, "hi").unwrap();
            assert_eq!(request["route"], "/v1/chat/completions", "{route}");
            let text = request.to_string();
            for part in ["evil", "admin", "169.254", "127.0.0.1", "passwd", "docker"] {
                assert!(!text.contains(part), "{route}: {text}");
            }
        }
    }
}
