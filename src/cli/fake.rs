//! Options of `fake-server`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use retake_pipeline::fake::{FailureKind, FakeSettings, Latency, Reply};
use retake_schemas::settings::LimitSettings;

/// Options of `fake-server`.
#[derive(Debug, Args)]
pub(crate) struct FakeServer {
    /// Where to listen: an address of this machine only
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8319")]
    pub(crate) listen: SocketAddr,
    /// From the request to the first token, ms
    #[arg(long, value_name = "MS", default_value_t = 0.0, value_parser = parse_ms)]
    ttft_ms: f64,
    /// From one token to the next, ms
    #[arg(long, value_name = "MS", default_value_t = 0.0, value_parser = parse_ms)]
    inter_token_ms: f64,
    /// More before the first token for every thousand input tokens, ms
    #[arg(long, value_name = "MS", default_value_t = 0.0, value_parser = parse_ms)]
    input_ms: f64,
    /// Spread of these times: standard deviation as a share of the mean
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    jitter: f64,
    /// Share of requests that fail, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    fail_rate: f64,
    /// How they fail: 500, 503, 429, 400, reset, cut, garbage, stall
    #[arg(long, value_name = "KIND,...", value_delimiter = ',', default_value = "503")]
    fail: Vec<FailureKind>,
    /// Requests a minute before it answers 429; 0: any number
    #[arg(long, value_name = "N", default_value_t = 0)]
    requests_per_minute: u64,
    /// Tokens a minute before it answers 429; 0: any number
    #[arg(long, value_name = "N", default_value_t = 0)]
    tokens_per_minute: u64,
    /// Requests at the same time before it answers 429; 0: any number
    #[arg(long, value_name = "N", default_value_t = 0)]
    concurrency: usize,
    /// Width of embeddings
    #[arg(long, value_name = "N", default_value_t = 384)]
    dim: usize,
    /// JSON lines of `{"contains": "...", "reply": "..."}`: what prompts with a text get as answer
    #[arg(long, value_name = "FILE")]
    pub(crate) replies: Option<PathBuf>,
    /// Seed of everything that is drawn
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u64,
}

impl FakeServer {
    /// The server's settings, with these replies.
    pub(crate) fn settings(&self, replies: Vec<Reply>) -> FakeSettings {
        let ms = |ms: f64| Duration::from_secs_f64(ms / 1_000.0);
        FakeSettings {
            listen: self.listen,
            latency: Latency {
                ttft: ms(self.ttft_ms),
                inter_token: ms(self.inter_token_ms),
                per_thousand_input: ms(self.input_ms),
                jitter: self.jitter,
            },
            failure_rate: self.fail_rate,
            failures: self.fail.clone(),
            limits: LimitSettings {
                requests_per_minute: self.requests_per_minute,
                tokens_per_minute: self.tokens_per_minute,
                concurrency: self.concurrency,
            },
            dim: self.dim,
            replies,
            seed: self.seed,
        }
    }
}

/// Milliseconds: not negative, and less than an hour.
fn parse_ms(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(ms) if (0.0..=MS_MAX).contains(&ms) => Ok(ms),
        _ => Err(format!("expected a number of milliseconds from 0 to {MS_MAX}")),
    }
}

/// Nobody waits longer.
const MS_MAX: f64 = 3_600_000.0;
