//! A rig app as people have them, which knows nothing of retake: an index of documents, agents that
//! look into it, one with a tool, a streamed answer, and a service that fails.

pub mod service;

use std::error::Error;
use std::fmt;

use futures::StreamExt;
use rig_agent::prelude::{
    Agent, AgentBuilder, EmbeddingsBuilder, InMemoryVectorStore, MultiTurnStreamItem, Tool,
};
use rig_agent::tool::ToolContext;
use rig_core::completion::Usage;
use rig_core::providers::openai::{OpenAI, OpenAIConfig, Route};
use serde_json::{Value, json};
use tracing::Instrument;

/// What the app does, or why it could not.
pub type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// What rig says of the app's prompts.
#[derive(Debug, Default)]
pub struct Said {
    /// Usage of each prompt that was answered, in their order.
    pub prompts: Vec<Usage>,
    /// Answers, in their order.
    pub answers: Vec<String>,
    /// What became of the prompts that failed.
    pub failures: Vec<String>,
}

/// The model that answers.
pub const MODEL: &str = "gpt-4o-mini";
/// The model that fails.
pub const FAILING_MODEL: &str = "error-503";
/// The model that embeds.
pub const EMBEDDING_MODEL: &str = "text-embedding-3-small";
/// Stands in all contents of the app, so that one can look for it.
pub const CANARY: &str = "zodiacal-canary";

const DOCUMENTS: [&str; 4] = [
    "zodiacal-canary Rayleigh scattering makes the sky blue",
    "zodiacal-canary Polar lights are made by particles of the sun",
    "zodiacal-canary Rainbows are seen with the sun in the back",
    "zodiacal-canary Halos are made by crystals of ice",
];

/// Runs the app against a service.
pub async fn run(base_url: &str) -> Outcome<Said> {
    let openai = OpenAIConfig::new("none").with_base_url(base_url).with_route(Route::Chat).client();
    let guide = guide(&openai).await?;
    let mut said = Said::default();
    said.ask(&guide, "zodiacal-canary Why is the sky blue?").await?;
    // An app's own span around a prompt: rig puts its spans below it and makes none for the agent.
    let request = tracing::info_span!("request", http.route = "/ask");
    said.ask(&guide, "zodiacal-canary What are polar lights?").instrument(request).await?;
    let observer = observer(&openai);
    said.ask(&observer, "zodiacal-canary Which lights are seen in Kiruna?").await?;
    // The tool fails for want of a place, the prompt does not: rig tells the model.
    said.ask(&observer, "zodiacal-canary Which lights are seen there?").await?;
    said.ask_streamed(&guide, "zodiacal-canary Tell me of rainbows").await?;
    let failing = AgentBuilder::new(openai.completion(FAILING_MODEL)).name("failing").build();
    let failures =
        [said.ask(&failing, "zodiacal-canary Are you there?").await, ask_telling(&failing).await];
    said.failures = failures.into_iter().filter_map(Result::err).map(|e| e.to_string()).collect();
    Ok(said)
}

/// Asks in a span of the app's own, which says when it fails.
#[tracing::instrument(skip_all, err)]
async fn ask_telling(agent: &Agent) -> Outcome<()> {
    Said::default().ask(agent, "zodiacal-canary And now?").await
}

/// An agent that is told of the documents nearest to a question.
async fn guide(openai: &OpenAI) -> Outcome<Agent> {
    let embedding = openai.embedding(EMBEDDING_MODEL, None);
    let documents = DOCUMENTS.map(str::to_owned);
    let embedded = EmbeddingsBuilder::new(embedding.clone()).documents(documents)?.build().await?;
    let index = InMemoryVectorStore::from_documents(embedded).index(embedding);
    Ok(AgentBuilder::new(openai.completion(MODEL))
        .name("guide")
        .preamble("zodiacal-canary Answer from what you are told")
        .temperature(0.2)
        .dynamic_context(2, index)
        .build())
}

/// An agent with a tool.
fn observer(openai: &OpenAI) -> Agent {
    AgentBuilder::new(openai.completion(MODEL))
        .name("observer")
        .preamble("zodiacal-canary Ask for the lights of a place")
        .tool(LightsOf)
        .default_max_turns(2)
        .build()
}

impl Said {
    async fn ask(&mut self, agent: &Agent, question: &str) -> Outcome<()> {
        let answer = agent.prompt(question).await?;
        self.prompts.push(answer.usage());
        self.answers.push(answer.output());
        Ok(())
    }

    async fn ask_streamed(&mut self, agent: &Agent, question: &str) -> Outcome<()> {
        let mut items = agent.prompt(question).stream();
        while let Some(item) = items.next().await {
            if let MultiTurnStreamItem::FinalResponse(answer) = item? {
                self.prompts.push(answer.usage());
                self.answers.push(answer.output());
            }
        }
        Ok(())
    }
}

/// A tool: the lights that are seen in a place.
#[derive(Debug)]
struct LightsOf;

/// A place without a name.
#[derive(Debug)]
struct Nowhere;

impl fmt::Display for Nowhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no place was named")
    }
}

impl Error for Nowhere {}

impl Tool for LightsOf {
    const NAME: &'static str = "lights_of";
    type Args = Value;
    type Output = String;
    type Error = Nowhere;

    fn description(&self) -> String {
        "The lights that are seen in a place".to_owned()
    }

    fn parameters(&self) -> Value {
        let place = json!({"type": "string"});
        json!({"type": "object", "properties": {"place": place}, "required": ["place"]})
    }

    async fn call(&self, _: &mut ToolContext, arguments: Value) -> Result<String, Nowhere> {
        let place = arguments["place"].as_str().ok_or(Nowhere)?;
        Ok(format!("zodiacal-canary polar lights over {place}"))
    }
}
