//! What the verbs that record other programs share.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use retake_analyzer::Analyzer;
use retake_recorder::otlp::{Aliases, Intake, IntakeSettings};
use retake_schemas::event::TokensSource;
use retake_schemas::propagation::percent_encoded;
use retake_schemas::settings::{RecordSettings, WhenFull};
use retake_server::Token;

use crate::cli::Received;
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::inert;

/// The settings in force, with what receiving needs: a full journal holds the sender up instead of
/// dropping, and a trace that is still arriving is waited for.
pub(crate) fn record_settings(context: &Context, args: &Received) -> RecordSettings {
    let mut record = context.config.settings.record.clone();
    record.capture = args.capture.unwrap_or(record.capture);
    record.when_full = WhenFull::Block;
    if record.trace_wait_ms == 0 {
        record.trace_wait_ms = TRACE_WAIT_MS;
    }
    record
}

/// How bodies are taken.
pub(crate) fn intake_settings(record: &RecordSettings) -> IntakeSettings {
    IntakeSettings {
        aliases: Aliases::new(record.alias.clone()),
        count_tokens: Some(Arc::new(count_tokens)),
        ..IntakeSettings::default()
    }
}

/// Labels as given.
pub(crate) fn labels(args: &Received) -> Result<BTreeMap<String, String>, Failure> {
    super::rag::labels(&args.label)
}

/// The token clients must know: of a file, else of the environment.
pub(crate) fn token(file: Option<&Path>) -> Result<Option<Token>, Failure> {
    let text = match file {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| {
                Failure::new(Code::Environment, format!("read token {}: {error}", path.display()))
            })?;
            Some(text.trim().to_owned())
        }
        None => std::env::var("RETAKE_TOKEN").ok().filter(|token| !token.is_empty()),
    };
    text.map(Token::new)
        .transpose()
        .map_err(|error| Failure::new(Code::Usage, format!("use the token: {error}")))
}

/// Counts with cl100k: the count of OpenAI's models of that generation, an estimate for others.
fn count_tokens(model: &str, text: &str) -> (u64, TokensSource) {
    let is_own = CL100K_MODELS.iter().any(|known| model.starts_with(known))
        && !OTHER_MODELS.iter().any(|other| model.starts_with(other));
    let source = if is_own { TokensSource::Tokenizer } else { TokensSource::Estimate };
    (retake_pipeline::tokens::count(text) as u64, source)
}

/// Attributes that have no column, the most frequent named.
pub(crate) fn unmapped_line(unmapped: &[(String, u64)]) -> String {
    let named: Vec<_> = unmapped
        .iter()
        .take(UNMAPPED_NAMED_MAX)
        .map(|(name, spans)| format!("{} ({spans})", inert(name)))
        .collect();
    let more = unmapped.len().saturating_sub(UNMAPPED_NAMED_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!(
        "{} attributes have no column of their own and are kept in `attributes`: {}{more}",
        unmapped.len(),
        named.join(", ")
    )
}

/// What OpenTelemetry SDKs of any language read, so that an unmodified program sends here.
pub(crate) fn environment(
    command: &mut Command,
    (http, grpc): (SocketAddr, SocketAddr),
    run: &str,
    service: &str,
) {
    let endpoint = format!("http://{http}");
    // They would win over what is set here.
    for signal in ["TRACES", "METRICS", "LOGS"] {
        for what in ["ENDPOINT", "PROTOCOL", "HEADERS", "INSECURE", "CERTIFICATE"] {
            command.env_remove(format!("OTEL_EXPORTER_OTLP_{signal}_{what}"));
        }
    }
    command.env_remove("OTEL_SDK_DISABLED").env_remove("OTEL_EXPORTER_OTLP_HEADERS");
    let is_grpc = std::env::var("OTEL_EXPORTER_OTLP_PROTOCOL").is_ok_and(|text| text == "grpc");
    if is_grpc {
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{grpc}"));
    } else {
        command
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
    }
    let mut resource = std::env::var("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    if !resource.is_empty() {
        resource.push(',');
    }
    resource.push_str(&format!("retake.run={}", percent_encoded(run)));
    command.env("OTEL_RESOURCE_ATTRIBUTES", resource);
    for (name, value) in [
        ("OTEL_SERVICE_NAME", service),
        ("OTEL_TRACES_EXPORTER", "otlp"),
        ("OTEL_METRICS_EXPORTER", "otlp"),
        ("OTEL_LOGS_EXPORTER", "otlp"),
        // A second instead of five until the spans of a crashing program are here.
        ("OTEL_BSP_SCHEDULE_DELAY", "1000"),
        // What SDKs on top of OpenTelemetry read instead.
        ("TRACELOOP_BASE_URL", &endpoint),
        ("PHOENIX_COLLECTOR_ENDPOINT", &endpoint),
    ] {
        if std::env::var_os(name).is_none() {
            command.env(name, value);
        }
    }
}

/// Waits until nothing more comes: exporters flush before their process ends, so what is still
/// under way was sent by then; children of the program may take longer.
pub(crate) async fn settle(intake: &Intake, at_most: Duration) {
    let deadline = tokio::time::Instant::now() + at_most;
    let mut before = intake.counts();
    loop {
        tokio::time::sleep(QUIET).await;
        let now = intake.counts();
        if now == before || tokio::time::Instant::now() >= deadline {
            return;
        }
        before = now;
    }
}

/// Spans that others name as their parent and that never came.
pub(crate) async fn lost_spans(analyzer: &Analyzer) -> Result<u64, Failure> {
    let result = analyzer.query(LOST_SPANS).await?;
    let count = result.batches.iter().find(|batch| batch.num_rows() == 1).map(|batch| {
        arrow::util::display::array_value_to_string(batch.column(0), 0).unwrap_or_default()
    });
    Ok(count.and_then(|count| count.parse().ok()).unwrap_or_default())
}

const LOST_SPANS: &str = "SELECT count(*) FROM (SELECT DISTINCT trace_id, parent_span_id FROM spans \
     WHERE flags LIKE '%orphan%') AS missing";
const UNMAPPED_NAMED_MAX: usize = 6;
/// Exporters send every five seconds when nobody told them otherwise.
const TRACE_WAIT_MS: u64 = 10_000;
/// Models whose own tokenizer is cl100k, by how their names begin.
const CL100K_MODELS: [&str; 4] = ["gpt-3.5", "gpt-4", "text-embedding-3", "text-embedding-ada-002"];
/// Models whose names begin like those, and whose tokenizer is another.
const OTHER_MODELS: [&str; 3] = ["gpt-4o", "gpt-4.1", "gpt-4.5"];
const QUIET: Duration = Duration::from_millis(150);
