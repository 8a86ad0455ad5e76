//! A program as a replay's target, with a receiver for what it records itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use retake_recorder::Dispatcher;
use retake_recorder::otlp::Intake;
use retake_replay::target::{ProgramTarget, Target};
use retake_schemas::settings::RecordSettings;
use retake_server::{
    Accepted, Encoding, Health, Ingest, IntoRun, Refused, ServeReport, Server, ServerSettings,
    Signal,
};
use serde_json::Value as Json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::commands::receiving;
use crate::context::Context;
use crate::failure::{Code, Failure};

/// A program that is ready for operations.
pub(super) struct Program {
    target: Arc<ProgramTarget>,
    early: Arc<Early>,
    record: RecordSettings,
    stop: CancellationToken,
    serving: JoinHandle<std::io::Result<ServeReport>>,
}

impl Program {
    /// Starts it. Its settings are known when this returns, and no run has begun yet: a program
    /// that cannot be used leaves none behind.
    pub(super) async fn start(
        context: &Context,
        command: &str,
        settings: &BTreeMap<String, Json>,
        cancel: &CancellationToken,
    ) -> Result<Self, Failure> {
        let early = Arc::new(Early::default());
        let ingest: Arc<dyn Ingest> = Arc::clone(&early) as Arc<dyn Ingest>;
        let server = Server::bind(ServerSettings::on_free_ports(), ingest)?;
        let addresses = (server.http_addr(), server.grpc_addr());
        let stop = CancellationToken::new();
        let serving = tokio::spawn(server.run(stop.clone().cancelled_owned()));
        let prepare = |shell: &mut std::process::Command| {
            receiving::environment(shell, addresses, "replay", "replay-target");
        };
        let started = tokio::select! {
            biased;
            () = cancel.cancelled() => {
                Err(Failure::new(Code::Interrupted, format!("start {command:?}: cancelled")))
            }
            started = ProgramTarget::start(command, prepare, settings) => started.map_err(Failure::from),
        };
        let target = match started {
            Ok(target) => Arc::new(target),
            Err(failure) => {
                stop.cancel();
                let _ = serving.await;
                return Err(failure);
            }
        };
        let record = context.config.settings.record.clone();
        Ok(Self { target, early, record, stop, serving })
    }

    pub(super) fn target(&self) -> Arc<dyn Target> {
        Arc::clone(&self.target) as Arc<dyn Target>
    }

    /// From now on operations, and what the program records, belong to this run.
    pub(super) fn record_into(&self, dispatcher: &Dispatcher) {
        let settings = receiving::intake_settings(&self.record);
        let intake = Arc::new(Intake::new(dispatcher, "replay-target", settings));
        self.target.record_into(dispatcher);
        self.early.lead_into(intake);
    }

    /// Ends the program, and waits for what it still has to send.
    pub(super) async fn stop(self, context: &Context) {
        if let Some(oddity) = self.target.stop().await {
            context.warn(&oddity);
        }
        if let Some((intake, _)) = self.early.into.get() {
            receiving::settle(intake, SETTLES_WITHIN).await;
        }
        self.stop.cancel();
        if let Ok(Err(error)) = self.serving.await {
            context.warn(&format!("receive what the program recorded: {error}"));
        }
        let lost = self.early.held().lost;
        if lost > 0 {
            context.warn(&format!(
                "{lost} batches that the program sent before the replay began are not in the run"
            ));
        }
    }
}

/// Takes what a program records from its very start, and holds it until there is a run.
#[derive(Default)]
struct Early {
    into: OnceLock<(Arc<Intake>, IntoRun)>,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    bodies: Vec<(Signal, Encoding, Vec<u8>)>,
    bytes: usize,
    /// Bodies that found no room.
    lost: u64,
}

impl Early {
    fn held(&self) -> MutexGuard<'_, Held> {
        // Bodies are whole or not there, whoever panicked.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lead_into(&self, intake: Arc<Intake>) {
        let mut held = self.held();
        let into = IntoRun::new(Arc::clone(&intake));
        for (signal, encoding, body) in std::mem::take(&mut held.bodies) {
            // What is refused now would have been refused then, when its sender could be told.
            if into.ingest(signal, encoding, &body).is_err() {
                held.lost += 1;
            }
        }
        let _ = self.into.set((intake, into));
    }
}

impl Ingest for Early {
    fn ingest(&self, signal: Signal, encoding: Encoding, body: &[u8]) -> Result<Accepted, Refused> {
        if let Some((_, into)) = self.into.get() {
            return into.ingest(signal, encoding, body);
        }
        let mut held = self.held();
        // It may have been set while this waited for the lock.
        if let Some((_, into)) = self.into.get() {
            return into.ingest(signal, encoding, body);
        }
        if held.bytes + body.len() > HELD_BYTES_MAX {
            held.lost += 1;
        } else {
            held.bytes += body.len();
            held.bodies.push((signal, encoding, body.to_vec()));
        }
        Ok(Accepted::default())
    }

    fn health(&self) -> Health {
        Health::Ready
    }
}

/// More than any program records before it is ready, and little enough to hold.
const HELD_BYTES_MAX: usize = 64 << 20;
/// A program has ended when this is waited for, so what comes is under way already.
const SETTLES_WITHIN: Duration = Duration::from_secs(5);
