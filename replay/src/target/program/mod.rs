//! Any program that speaks JSON lines as a replay target: `--target-cmd 'python replay_app.py'`.
//!
//! The program is started once for a replay, told its settings, and given every operation at the
//! moment it is due. An operation's span is recorded here. What the program itself records with
//! OpenTelemetry becomes a part of it, because each operation comes with a `traceparent`.

mod process;
mod protocol;

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use retake_recorder::capture::CapturePolicy;
use retake_recorder::{Dispatcher, OpenSpan};
use retake_schemas::event::{EventBody, TokensSource, Usage};
use retake_schemas::propagation::{Propagation, Tags};
use retake_schemas::{Attributes, Key, SpanId, SpanKey, TraceId, Value, convention};
use serde_json::Value as Json;

use self::process::Process;
use self::protocol::Outcome;
use super::spans::words;
use super::{Operation, OperationContext, Target, TargetError};

/// A running program.
#[derive(Debug)]
pub struct ProgramTarget {
    command: String,
    name: String,
    settings: BTreeMap<String, Json>,
    process: Process,
    /// Where operations are recorded.
    dispatcher: Mutex<Option<Dispatcher>>,
}

/// Why a program cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// It cannot be started.
    #[error("start {command:?}: {error}")]
    Start {
        /// As it was given.
        command: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// It ended, or said nothing, before it was ready.
    #[error("start {command:?}: {reason}")]
    NotReady {
        /// As it was given.
        command: String,
        /// What happened instead.
        reason: String,
    },
    /// It does not want these settings.
    #[error("set up {command:?}: {message}")]
    Refused {
        /// As it was given.
        command: String,
        /// What the program said.
        message: String,
    },
    /// It does not say that it uses a setting.
    #[error("set {setting} of {command:?}: its settings are {known}")]
    Unknown {
        /// As it was given.
        command: String,
        /// `NAME=VALUE`.
        setting: String,
        /// Those it uses.
        known: String,
    },
}

impl ProgramTarget {
    /// Starts a program by the shell and waits until it is ready. `prepare` may change its
    /// environment.
    ///
    /// # Errors
    /// See [`ProgramError`]. The program has been ended then.
    pub async fn start(
        command: &str,
        prepare: impl FnOnce(&mut Command),
        settings: &BTreeMap<String, Json>,
    ) -> Result<Self, ProgramError> {
        let process = Process::start(command, prepare)
            .map_err(|error| ProgramError::Start { command: command.to_owned(), error })?;
        let started = process.hello(settings, READY_WITHIN).await;
        let outcome = started
            .map_err(|reason| ProgramError::NotReady { command: command.to_owned(), reason })
            .and_then(|answer| {
                let refused =
                    |message| ProgramError::Refused { command: command.to_owned(), message };
                answer.map_err(refused)
            })
            .and_then(|(name, in_force)| {
                uses(command, settings, &in_force)?;
                Ok((name, in_force))
            });
        match outcome {
            Ok((name, settings)) => Ok(Self {
                name: name.unwrap_or_else(|| command.to_owned()),
                command: command.to_owned(),
                settings,
                process,
                dispatcher: Mutex::new(None),
            }),
            Err(error) => {
                process.stop().await;
                Err(error)
            }
        }
    }

    /// Records operations from now on into this run.
    pub fn record_into(&self, dispatcher: &Dispatcher) {
        *self.dispatcher.lock() = Some(dispatcher.clone());
    }

    /// Tells the program that it is over and waits for its end; one that does not end is killed.
    /// Says what was odd about its end, if anything.
    pub async fn stop(&self) -> Option<String> {
        self.process.stop().await
    }

    async fn run(
        &self,
        recorded: &Recorded,
        operation: &Operation,
        context: &OperationContext,
    ) -> Result<Outcome, TargetError> {
        let pending = self.process.begin(operation, context, recorded)?;
        tokio::select! {
            biased;
            () = context.cancellation.cancelled() => {
                self.process.give_up(operation.index);
                Err(TargetError::Cancelled)
            }
            ended = tokio::time::timeout(ENDS_WITHIN, pending) => match ended {
                Ok(Ok(outcome)) => Ok(outcome),
                Ok(Err(_)) => Err(failed("exited", self.process.end().await)),
                Err(_) => {
                    self.process.give_up(operation.index);
                    let seconds = ENDS_WITHIN.as_secs();
                    Err(failed("timeout", format!("no result within {seconds} s")))
                }
            },
        }
    }
}

#[async_trait]
impl Target for ProgramTarget {
    fn name(&self) -> &str {
        &self.name
    }

    fn settings(&self) -> BTreeMap<String, Json> {
        let mut settings = self.settings.clone();
        settings.insert("target".to_owned(), self.command.as_str().into());
        settings
    }

    fn waits_on_io(&self) -> bool {
        true
    }

    async fn execute(
        &self,
        operation: &Operation,
        context: &OperationContext,
    ) -> Result<(), TargetError> {
        let dispatcher = self.dispatcher.lock().clone();
        let span = dispatcher.as_ref().map(|dispatcher| open(dispatcher, operation, context));
        let recorded = Recorded {
            // Without a run the program is still given a name for the operation.
            span: span.as_ref().map_or_else(|| unrecorded(operation), OpenSpan::key),
            dispatcher,
        };
        let ran = self.run(&recorded, operation, context).await;
        let outcome = match &ran {
            Ok(outcome) => verdict(outcome),
            Err(TargetError::Cancelled) => Err(TargetError::Cancelled),
            Err(error) => Err(failed(error.error_type(), error.to_string())),
        };
        if let (Some(dispatcher), Some(span)) = (&recorded.dispatcher, span) {
            close(dispatcher, span, ran.as_ref().ok(), &outcome);
        }
        outcome
    }
}

/// Whether every setting that was asked for is in force.
fn uses(
    command: &str,
    asked: &BTreeMap<String, Json>,
    in_force: &BTreeMap<String, Json>,
) -> Result<(), ProgramError> {
    let Some((name, value)) = asked.iter().find(|(name, value)| in_force.get(*name) != Some(value))
    else {
        return Ok(());
    };
    let known: Vec<_> = in_force.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let known = if known.is_empty() { "not said".to_owned() } else { known.join(", ") };
    let setting = format!("{name}={value}");
    Err(ProgramError::Unknown { command: command.to_owned(), setting, known })
}

fn verdict(outcome: &Outcome) -> Result<(), TargetError> {
    if let Some(reason) = &outcome.refused {
        return Err(TargetError::Refused(reason.clone()));
    }
    match &outcome.error {
        None => Ok(()),
        Some(error) => Err(failed(error.kind.as_deref().unwrap_or("error"), error.message.clone())),
    }
}

fn failed(error_type: &str, message: String) -> TargetError {
    TargetError::Failed { error_type: error_type.to_owned(), message }
}

/// Where what is said of an operation while it is under way is recorded.
#[derive(Debug, Clone)]
struct Recorded {
    dispatcher: Option<Dispatcher>,
    span: SpanKey,
}

impl Recorded {
    fn traceparent(&self) -> String {
        Propagation::recorded(self.span, Tags::default()).traceparent()
    }
}

fn unrecorded(operation: &Operation) -> SpanKey {
    SpanKey { trace_id: TraceId::generate(), span_id: SpanId::from_u64(operation.index + 1) }
}

/// Opens the span of an operation.
fn open(dispatcher: &Dispatcher, operation: &Operation, context: &OperationContext) -> OpenSpan {
    let (kind, _, name) = words(&operation.kind);
    let text = |text: &str| Value::Str(text.to_owned());
    let mut attributes: Attributes = vec![
        ("retake.kind".into(), text(kind)),
        // What the program records itself keeps the stages it has: this is what is left.
        (convention::STAGE.into(), text("program")),
        (convention::OPERATION_KIND.into(), text(&operation.kind)),
        (convention::DUE_UNIX_NS.into(), Value::from(context.due_unix_ns)),
        (convention::STAGE_SOURCE.into(), text("live")),
    ];
    if let Some(link) = &operation.source {
        attributes.extend([
            (convention::SOURCE_RUN.into(), text(&link.run_id.to_string())),
            (convention::SOURCE_TRACE.into(), text(&link.trace_id.to_string())),
            (convention::SOURCE_SPAN.into(), text(&link.span_id.to_string())),
        ]);
    }
    if let Some(session) = &operation.shape.session {
        attributes.push(("gen_ai.conversation.id".into(), text(session)));
    }
    attributes.extend(content(dispatcher, convention::OPERATION, &operation.input));
    dispatcher.scope("retake_replay").open_with(name, attributes)
}

fn close(
    dispatcher: &Dispatcher,
    span: OpenSpan,
    outcome: Option<&Outcome>,
    verdict: &Result<(), TargetError>,
) {
    if let Some(outcome) = outcome {
        let output = outcome.output.as_ref().and_then(|o| content(dispatcher, "output.value", o));
        if let Some((name, value)) = output {
            span.set(name, value);
        }
        if let Some(model) = &outcome.model {
            span.set("gen_ai.response.model", model.as_str());
        }
        let (input, output) = (outcome.input_tokens, outcome.output_tokens);
        if input.or(output).is_some() {
            dispatcher.emit(&EventBody::Usage(Usage {
                span: span.key(),
                source: TokensSource::Provider,
                input,
                output,
                cache_read: None,
                cache_write: None,
                reasoning: None,
            }));
        }
    }
    match verdict {
        Ok(()) => span.finish(),
        // Dropped before its end: cancelled.
        Err(TargetError::Cancelled) => drop(span),
        Err(error) => span.fail(error.error_type(), &error.to_string()),
    }
}

/// A content by reference, kept as the run's capture policy says.
fn content(dispatcher: &Dispatcher, name: &'static str, content: &Json) -> Option<(Key, Value)> {
    let digest = match content {
        Json::Null => None,
        Json::String(text) => dispatcher.keep_content("text/plain", text),
        content => dispatcher.keep_content("application/json", &content.to_string()),
    }?;
    Some((name.into(), CapturePolicy::reference(digest)))
}

/// Long enough for a program that loads models or builds an index first.
const READY_WITHIN: Duration = Duration::from_secs(600);
/// Long enough for any answer; a program that hangs must not hold up the end of a replay for ever.
const ENDS_WITHIN: Duration = Duration::from_secs(600);
