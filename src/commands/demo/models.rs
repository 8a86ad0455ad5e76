//! The models of the demo: a service in this process that answers in the times of a real one.
//!
//! Models that compute in a microsecond have no batch size worth choosing. The service's embeddings
//! are feature hashes and its answers are made of the passages, so that what is shown means something,
//! offline.

use std::net::SocketAddr;
use std::time::Duration;

use retake_pipeline::fake::{FakeServer, FakeSettings, Latency, ServeError, Served};
use retake_schemas::settings::{EmbedProvider, RagSettings, SynthesizeProvider};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::commands::rag;
use crate::failure::{Code, Failure};

/// A service under way.
pub(super) struct Models {
    /// Settings that lead the pipeline to it.
    pub(super) settings: RagSettings,
    /// What starts one like it.
    pub(super) command: String,
    stop: CancellationToken,
    serving: JoinHandle<Served>,
}

impl Models {
    /// Starts the service, unless somebody chose other models: by settings, or by `given`, the
    /// changes on the command line.
    pub(super) async fn start(
        settings: &RagSettings,
        given: &[String],
    ) -> Result<Option<Self>, Failure> {
        let is_chosen = given.iter().any(|set| set.contains("provider="))
            || settings.embed.provider != EmbedProvider::Hashing
            || settings.synthesize.provider != SynthesizeProvider::Extractive;
        if is_chosen {
            return Ok(None);
        }
        let server = match bind(SocketAddr::from(([127, 0, 0, 1], PORT))).await {
            // Another one may be there.
            Err(_) => bind(SocketAddr::from(([127, 0, 0, 1], 0))).await,
            bound => bound,
        };
        let server = server.map_err(|error| Failure::new(Code::Environment, error.to_string()))?;
        let url = server.url();
        let mut changes = vec![
            "embed.provider=openai".to_owned(),
            format!("embed.url={url}"),
            "embed.model=demo-embed".to_owned(),
            format!("embed.api_key_env={NO_KEY}"),
            "synthesize.provider=openai".to_owned(),
            format!("synthesize.url={url}"),
            "synthesize.model=demo-chat".to_owned(),
            format!("synthesize.api_key_env={NO_KEY}"),
        ];
        if !given.iter().any(|set| set.starts_with("embed.batch_size=")) {
            // A first guess, as people make it.
            changes.push("embed.batch_size=4".to_owned());
        }
        let stop = CancellationToken::new();
        let listen = url.trim_start_matches("http://").trim_end_matches("/v1");
        let command = format!(
            "fake-server --listen {listen} --ttft-ms {TTFT_MS} --inter-token-ms {INTER_TOKEN_MS} \
             --input-ms {INPUT_MS}"
        );
        Ok(Some(Self {
            settings: rag::settings(settings, &changes)?,
            command,
            serving: tokio::spawn(server.run(stop.clone())),
            stop,
        }))
    }

    pub(super) async fn stop(self) {
        self.stop.cancel();
        // How often it answered is in the run.
        let _ = self.serving.await;
    }
}

async fn bind(listen: SocketAddr) -> Result<FakeServer, ServeError> {
    let ms = |ms: f64| Duration::from_secs_f64(ms / 1_000.0);
    let latency = Latency {
        ttft: ms(TTFT_MS),
        inter_token: ms(INTER_TOKEN_MS),
        per_thousand_input: ms(INPUT_MS),
        jitter: 0.0,
    };
    FakeServer::bind(FakeSettings { listen, latency, ..FakeSettings::default() }).await
}

/// Where `retake fake-server` listens by itself.
const PORT: u16 = 8319;
const TTFT_MS: f64 = 15.0;
const INTER_TOKEN_MS: f64 = 0.1;
const INPUT_MS: f64 = 1.0;
/// The service wants no key, and is to get none of the user's.
const NO_KEY: &str = "RETAKE_DEMO_HAS_NO_KEY";
