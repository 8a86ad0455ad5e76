//! The program's process: a thread writes its input, another reads its output.
//!
//! Threads and not tasks, so that a result's time is that of its arrival however busy the runtime
//! is, and a program that does not read its input holds up nobody.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use retake_schemas::event::{EventBody, Token};
use serde_json::Value as Json;
use tokio::sync::oneshot;

use super::protocol::{Failed, Message, Outcome, PROTOCOL, Request};
use super::{Recorded, failed};
use crate::target::{Operation, OperationContext, TargetError};

/// A program with its input and output.
#[derive(Debug)]
pub(super) struct Process {
    child: Mutex<Child>,
    /// `None` once its input is closed.
    input: Mutex<Option<SyncSender<String>>>,
    heard: Arc<Heard>,
    ready: Mutex<Option<oneshot::Receiver<Answer>>>,
}

/// What the program answered to its settings: its name and what is in force, or why it refuses.
pub(super) type Answer = Result<(Option<String>, BTreeMap<String, Json>), String>;

/// What the reading thread shares with the others.
#[derive(Debug)]
struct Heard {
    /// `None` once the program's output has ended.
    pending: Mutex<Option<HashMap<u64, Pending>>>,
}

/// An operation under way.
#[derive(Debug)]
struct Pending {
    ended: oneshot::Sender<Outcome>,
    recorded: Recorded,
    /// Output tokens so far.
    tokens: u32,
}

impl Process {
    pub(super) fn start(
        command: &str,
        prepare: impl FnOnce(&mut Command),
    ) -> std::io::Result<Self> {
        let mut shell = Command::new("/bin/sh");
        shell
            // `exec`: the process to be ended is the program, not a shell around it.
            .args(["-c", &format!("exec {command}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A Ctrl-C on the terminal ends the replay, which then ends the program: what was under
            // way counts as cancelled and not as failed.
            .process_group(0);
        prepare(&mut shell);
        let mut child = shell.spawn()?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(std::io::Error::other("it has no input and output"));
        };
        let (input, lines) = sync_channel(UNREAD_MAX);
        let (ready, is_ready) = oneshot::channel();
        let heard = Arc::new(Heard { pending: Mutex::new(Some(HashMap::new())) });
        let process = Self {
            child: Mutex::new(child),
            input: Mutex::new(Some(input)),
            heard: Arc::clone(&heard),
            ready: Mutex::new(Some(is_ready)),
        };
        let threads = std::thread::Builder::new()
            .name("retake-to-program".to_owned())
            .spawn(move || write(stdin, &lines))
            .and_then(|_| {
                std::thread::Builder::new()
                    .name("retake-from-program".to_owned())
                    .spawn(move || heard.read(stdout, ready))
            });
        if let Err(error) = threads {
            let _ = process.child.lock().kill();
            return Err(error);
        }
        Ok(process)
    }

    /// Tells the program its settings and waits for its answer.
    pub(super) async fn hello(
        &self,
        settings: &BTreeMap<String, Json>,
        within: Duration,
    ) -> Result<Answer, String> {
        let Some(ready) = self.ready.lock().take() else {
            return Err("it was asked before".into());
        };
        self.send(&Request::Start { protocol: PROTOCOL, settings });
        match tokio::time::timeout(within, ready).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(format!("{} before it was ready", self.end().await)),
            Err(_) => Err(format!(
                "it did not answer {{\"type\":\"start\"}} with a line \
                 {{\"type\":\"ready\",\"settings\":{{...}}}} within {} s",
                within.as_secs()
            )),
        }
    }

    /// Hands an operation over. What comes back resolves when it has ended, with an error when the
    /// program has.
    ///
    /// # Errors
    /// The program does not read what it is told: waiting for it would hide that it is slow.
    pub(super) fn begin(
        &self,
        operation: &Operation,
        context: &OperationContext,
        recorded: &Recorded,
    ) -> Result<oneshot::Receiver<Outcome>, TargetError> {
        let (ended, receiver) = oneshot::channel();
        let pending = Pending { ended, recorded: recorded.clone(), tokens: 0 };
        if let Some(all) = &mut *self.heard.pending.lock() {
            all.insert(operation.index, pending);
        }
        let is_taken = self.send(&Request::Operation {
            id: operation.index,
            kind: &operation.kind,
            input: &operation.input,
            due_unix_ns: context.due_unix_ns,
            traceparent: &recorded.traceparent(),
        });
        if is_taken {
            return Ok(receiver);
        }
        self.heard.remove(operation.index);
        let message = format!("the program has not read the last {UNREAD_MAX} lines it was sent");
        Err(failed("busy", message))
    }

    /// Nobody waits for this operation any more.
    pub(super) fn give_up(&self, id: u64) {
        if self.heard.remove(id).is_some() {
            self.send(&Request::Cancel { id });
        }
    }

    /// How the program ended, in words, after its output has.
    pub(super) async fn end(&self) -> String {
        let deadline = Instant::now() + ENDS_AFTER_OUTPUT_WITHIN;
        while Instant::now() < deadline {
            if let Ok(Some(status)) = self.child.lock().try_wait() {
                return format!("the program ended ({status})");
            }
            tokio::time::sleep(POLL).await;
        }
        "the program closed its output".to_owned()
    }

    /// Closes its input and waits for its end; a program that does not end is killed.
    pub(super) async fn stop(&self) -> Option<String> {
        *self.input.lock() = None;
        let deadline = Instant::now() + STOPS_WITHIN;
        loop {
            match self.child.lock().try_wait() {
                Ok(Some(status)) if status.success() => return None,
                Ok(Some(status)) => return Some(format!("the program ended with {status}")),
                Ok(None) if Instant::now() < deadline => {}
                Ok(None) | Err(_) => break,
            }
            tokio::time::sleep(POLL).await;
        }
        let mut child = self.child.lock();
        let _ = child.kill();
        let _ = child.wait();
        let seconds = STOPS_WITHIN.as_secs();
        Some(format!("the program did not end within {seconds} s of its input, and was killed"))
    }

    /// Whether there was room for it. A program that has ended takes everything: its output tells.
    fn send(&self, request: &Request<'_>) -> bool {
        let (Ok(line), Some(input)) = (serde_json::to_string(request), &*self.input.lock()) else {
            return true;
        };
        !matches!(input.try_send(line + "\n"), Err(TrySendError::Full(_)))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let child = self.child.get_mut();
        // A replay that was dropped leaves no program behind.
        if let Ok(None) = child.try_wait() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Writes lines until there are no more, or nobody reads them.
fn write(mut stdin: ChildStdin, lines: &Receiver<String>) {
    while let Ok(line) = lines.recv() {
        if stdin.write_all(line.as_bytes()).and_then(|()| stdin.flush()).is_err() {
            return;
        }
    }
}

impl Heard {
    /// Reads the program's output to its end.
    fn read(&self, stdout: ChildStdout, ready: oneshot::Sender<Answer>) {
        let mut ready = Some(ready);
        let mut reader = BufReader::new(stdout);
        let mut line = Vec::new();
        loop {
            line.clear();
            match reader.read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => break,
                Ok(_) => self.take(&line, &mut ready),
            }
        }
        // Whoever waits learns that nothing more comes.
        *self.pending.lock() = None;
    }

    fn remove(&self, id: u64) -> Option<Pending> {
        self.pending.lock().as_mut()?.remove(&id)
    }

    fn take(&self, line: &[u8], ready: &mut Option<oneshot::Sender<Answer>>) {
        match serde_json::from_slice(line) {
            Ok(Message::Ready { name, settings }) => answer(ready, Ok((name, settings))),
            Ok(Message::Refused { message }) => answer(ready, Err(message)),
            Ok(Message::Token { id, count }) => self.token(id, count),
            Ok(Message::Result(outcome)) => self.end(*outcome),
            Err(error) => self.other(line, &error, ready),
        }
    }

    /// One that was given up, or never was, is of no interest.
    fn end(&self, outcome: Outcome) {
        if let Some(pending) = self.remove(outcome.id) {
            let _ = pending.ended.send(outcome);
        }
    }

    /// A line that is no message. Mostly a library that prints, which people want to see; but a
    /// result that cannot be read is the end of its operation, and so is an answer to the settings.
    fn other(
        &self,
        line: &[u8],
        error: &serde_json::Error,
        ready: &mut Option<oneshot::Sender<Answer>>,
    ) {
        let _ = std::io::stderr().write_all(line);
        let json: Option<Json> = serde_json::from_slice(line).ok();
        let Some(meant) = json.filter(|json| json.get("type").is_some()) else { return };
        let message = format!("its message cannot be read: {error}");
        if ready.is_some() {
            return answer(ready, Err(message));
        }
        let Some(id) = meant.get("id").and_then(Json::as_u64) else { return };
        let error = Some(Failed { kind: Some("protocol".to_owned()), message });
        self.end(Outcome { id, error, ..Outcome::default() });
    }

    fn token(&self, id: u64, count: u32) {
        let mut pending = self.pending.lock();
        let pending = pending.as_mut().and_then(|all| all.get_mut(&id));
        let Some(pending) = pending.filter(|_| count > 0) else { return };
        if let Some(dispatcher) = &pending.recorded.dispatcher {
            let token = Token { span: pending.recorded.span, index: pending.tokens, count };
            dispatcher.emit(&EventBody::Token(token));
        }
        pending.tokens = pending.tokens.saturating_add(count);
    }
}

/// Only the first answer counts.
fn answer(ready: &mut Option<oneshot::Sender<Answer>>, what: Answer) {
    if let Some(ready) = ready.take() {
        let _ = ready.send(what);
    }
}

/// Long enough to flush what it recorded.
const STOPS_WITHIN: Duration = Duration::from_secs(10);
/// A process ends a moment after its output has.
const ENDS_AFTER_OUTPUT_WITHIN: Duration = Duration::from_secs(1);
/// Lines to the program that it has not read.
const UNREAD_MAX: usize = 4096;
const POLL: Duration = Duration::from_millis(10);
