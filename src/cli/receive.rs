//! Options of the verbs that record other programs, and of `export`, which gives runs to them.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use retake_schemas::event::Capture;
use retake_schemas::settings::SyncPolicy;

use retake_server::proxy::Url;

use super::parse_capture;
use crate::complete;

/// What every verb that receives takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Received {
    /// Label of the run; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<String>,
    /// How much content the run keeps
    #[arg(long, value_name = "POLICY", value_parser = parse_capture)]
    pub(crate) capture: Option<Capture>,
}

/// Options of `record`.
#[derive(Debug, Args)]
pub(crate) struct Record {
    /// Name of the run [default: that of the program]
    #[arg(long, value_name = "NAME")]
    pub(crate) run: Option<String>,
    #[command(flatten)]
    pub(crate) received: Received,
    /// Wait so many seconds at most for what the program sent last
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub(crate) wait: u64,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<OsString>,
}

/// Options of `serve`.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Where OTLP over HTTP is expected
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4318")]
    pub(crate) listen: SocketAddr,
    /// Where OTLP over gRPC is expected
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4317")]
    pub(crate) grpc: SocketAddr,
    /// File with the token that clients must send as `Authorization: Bearer`; needed for an
    /// address that other machines can reach [default: $RETAKE_TOKEN]
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Name by which clients reach this receiver, besides `localhost`; may be repeated
    #[arg(long, value_name = "NAME")]
    pub(crate) host: Vec<String>,
    #[command(flatten)]
    pub(crate) received: Received,
    /// What a power cut may cost of what was acknowledged
    #[arg(long, value_enum, default_value_t = Sync::Batch)]
    pub(crate) sync: Sync,
    /// End a run when its service was silent for so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub(crate) idle: u64,
    /// End a run after so many seconds even if more comes
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    pub(crate) session: u64,
}

/// What an answer promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sync {
    /// Nothing: what is answered is on the disk.
    Batch,
    /// What came since the last flush; the death of the process still costs nothing.
    Never,
}

impl Sync {
    pub(crate) fn policy(self) -> SyncPolicy {
        match self {
            Self::Batch => SyncPolicy::Batch,
            Self::Never => SyncPolicy::Never,
        }
    }
}

/// Options of `import`.
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// Files: OTLP bodies (protobuf or JSON), or JSON lines as the OpenTelemetry Collector's file
    /// exporter writes them; also with gzip or zstd. `-` is standard input
    #[arg(required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Name of the run [default: that of the first file]
    #[arg(long, value_name = "NAME")]
    pub(crate) run: Option<String>,
    /// What protobuf files hold, which do not say it themselves
    #[arg(long, value_enum, default_value_t = SignalArg::Traces)]
    pub(crate) signal: SignalArg,
    #[command(flatten)]
    pub(crate) received: Received,
}

/// Options of `proxy`.
#[derive(Debug, Args)]
pub(crate) struct Proxy {
    /// The service to pass requests on to, such as https://api.openai.com
    #[arg(long, value_name = "URL", value_parser = parse_upstream)]
    pub(crate) to: Url,
    /// Where programs ask; set their base URL to it
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8318")]
    pub(crate) listen: SocketAddr,
    /// File with the token that programs must send as `x-retake-token`; needed for an address that
    /// other machines can reach [default: $RETAKE_TOKEN]
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Name by which programs reach the proxy, besides `localhost`; may be repeated
    #[arg(long, value_name = "NAME")]
    pub(crate) host: Vec<String>,
    /// Name of the run
    #[arg(long, value_name = "NAME", default_value = "proxy")]
    pub(crate) run: String,
    #[command(flatten)]
    pub(crate) received: Received,
}

/// Refused here, before there is a run.
fn parse_upstream(text: &str) -> Result<Url, String> {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(url),
        _ => Err("expected an address that begins with http:// or https://".to_owned()),
    }
}

/// What a body holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SignalArg {
    /// Spans.
    Traces,
    /// Log records.
    Logs,
    /// Metric points.
    Metrics,
}

/// Options of `export`.
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// The run
    #[arg(default_value = "last", add = complete::one_run())]
    pub(crate) run: String,
    /// What to write: perfetto, chrome, otlp (JSON lines), otlp-json-body, otlp-proto (length-prefixed),
    /// otlp-proto-body
    #[arg(long, value_name = "FORMAT", default_value = "perfetto")]
    pub(crate) to: retake_recorder::export::Format,
    /// Where to write; `-` is standard output [default: the run's id with the format's ending]
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Put prompts, answers and documents into the file, as far as the run holds them
    #[arg(long)]
    pub(crate) with_text: bool,
}
