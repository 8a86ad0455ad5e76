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
use retake_recorder::Dispatcher;
use retake_recorder::capture::CapturePolicy;
use retake_schemas::event::{
    EventBody, Level, SpanClosed, SpanOpened, SpanUpdated, Status, TokensSource, Usage,
};
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
        let recorded = Recorded::open(self.dispatcher.lock().clone(), operation, context);
        let ran = self.run(&recorded, operation, context).await;
        let outcome = match &ran {
            Ok(outcome) => verdict(outcome),
            Err(TargetError::Cancelled) => Err(TargetError::Cancelled),
            Err(error) => Err(failed(error.error_type(), error.to_string())),
        };
        recorded.close(ran.as_ref().ok(), &outcome);
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

/// The span of an operation.
#[derive(Debug, Clone)]
struct Recorded {
    dispatcher: Option<Dispatcher>,
    span: SpanKey,
}

impl Recorded {
    fn open(
        dispatcher: Option<Dispatcher>,
        operation: &Operation,
        context: &OperationContext,
    ) -> Self {
        // Without a run the program is still given a name for the operation.
        let span_id = dispatcher
            .as_ref()
            .map_or_else(|| SpanId::from_u64(operation.index + 1), Dispatcher::new_span_id);
        let recorded =
            Self { span: SpanKey { trace_id: TraceId::generate(), span_id }, dispatcher };
        let Some(dispatcher) = &recorded.dispatcher else { return recorded };
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
        let input = content(dispatcher, convention::OPERATION, &operation.input);
        attributes.extend(input);
        let opened = SpanOpened {
            span: recorded.span,
            parent: None,
            name: name.to_owned(),
            target: "retake_replay".to_owned(),
            level: Level::Info,
            source_file: None,
            source_line: None,
            thread: None,
            attributes,
        };
        dispatcher.emit(&EventBody::SpanOpened(Box::new(opened)));
        recorded
    }

    fn close(&self, outcome: Option<&Outcome>, verdict: &Result<(), TargetError>) {
        let Some(dispatcher) = &self.dispatcher else { return };
        let span = self.span;
        let mut attributes: Attributes = Vec::new();
        if let Some(outcome) = outcome {
            let output = outcome.output.as_ref().filter(|output| !output.is_null());
            attributes.extend(output.and_then(|o| content(dispatcher, "output.value", o)));
            if let Some(model) = &outcome.model {
                attributes.push(("gen_ai.response.model".into(), Value::Str(model.clone())));
            }
            let (input, output) = (outcome.input_tokens, outcome.output_tokens);
            if input.or(output).is_some() {
                let source = TokensSource::Provider;
                let usage = Usage {
                    span,
                    source,
                    input,
                    output,
                    cache_read: None,
                    cache_write: None,
                    reasoning: None,
                };
                dispatcher.emit(&EventBody::Usage(usage));
            }
        }
        let (status, message) = match verdict {
            Ok(()) => (Status::Ok, None),
            Err(TargetError::Cancelled) => (Status::Cancelled, None),
            Err(error) => {
                let kind = Value::Str(error.error_type().to_owned());
                attributes.push((convention::ERROR_TYPE.into(), kind));
                (Status::Error, Some(error.to_string()))
            }
        };
        if !attributes.is_empty() {
            dispatcher.emit(&EventBody::SpanUpdated(SpanUpdated { span, attributes }));
        }
        let closed = SpanClosed { span, busy_ns: None, status, message };
        dispatcher.emit(&EventBody::SpanClosed(closed));
    }

    fn traceparent(&self) -> String {
        format!("00-{}-{}-01", self.span.trace_id, self.span.span_id)
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
