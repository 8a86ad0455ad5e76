//! `retake record`.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use retake_analyzer::{Analyzer, GroupKey, Scope};
use retake_recorder::otlp::Intake;
use retake_recorder::sampler::{Sampler, SamplerSettings};
use retake_recorder::{RecorderBuilder, Store};
use retake_schemas::RunId;
use retake_schemas::event::RunStatus;
use retake_server::{IntoRun, Server, ServerSettings};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::receiving;
use crate::cli::{Format, Record};
use crate::context::Context;
use crate::failure::{Code, Exit, Failure};
use crate::output::inert;
use crate::terminal::Look;
use crate::{recording, render};

pub(crate) async fn run(context: &Context, args: Record) -> Result<Exit, Failure> {
    let store = context.store_for_writing()?;
    let record = receiving::record_settings(context, &args.received);
    let (program, arguments) = args
        .command
        .split_first()
        .ok_or_else(|| Failure::new(Code::Usage, "record: no program is given"))?;
    let service = program_name(program, arguments);
    let name = args.run.clone().unwrap_or_else(|| service.clone());
    let intake_settings = receiving::intake_settings(&record);
    let sampling = SamplerSettings::from(&record);
    let recorder = RecorderBuilder::new(&name, &service)
        .record_settings(record)
        .labels(receiving::labels(&args.received)?)
        .start(&store)?;
    let run_id = recorder.run_id().clone();
    let intake = Arc::new(Intake::new(recorder.dispatcher(), &service, intake_settings));
    let ingest = Arc::new(IntoRun::new(Arc::clone(&intake)));
    let server = Server::bind(ServerSettings::on_free_ports(), ingest)?;
    let (http, grpc) = (server.http_addr(), server.grpc_addr());
    let stop = CancellationToken::new();
    let serving = tokio::spawn(server.run(stop.clone().cancelled_owned()));
    // A run without samples is still a run.
    let sampler = Sampler::start(recorder.dispatcher().clone(), sampling).ok();

    let mut command = Command::new(program);
    command.args(arguments);
    receiving::environment(&mut command, (http, grpc), &name, &service);
    let outcome = match command.spawn() {
        Ok(child) => {
            context.say(&format!("recording run {run_id} of {}", inert(&name)));
            wait(child).await
        }
        Err(error) => Err(error),
    };
    if outcome.is_ok() {
        receiving::settle(&intake, Duration::from_secs(args.wait)).await;
    }
    stop.cancel();
    let served =
        serving.await.map_err(|error| Failure::new(Code::Internal, error.to_string()))??;
    drop(sampler);
    let status = match &outcome {
        Ok(status) if status.success() => RunStatus::Finished,
        _ => RunStatus::Interrupted,
    };
    let summary = tokio::task::spawn_blocking(move || recorder.finish(status))
        .await
        .map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
    recording::warn_of_losses(context, &summary);
    let ended = outcome.map_err(|error| {
        let code = match error.kind() {
            std::io::ErrorKind::NotFound => Code::NotFound,
            _ => Code::Environment,
        };
        Failure::new(code, format!("run {}: {error}", Path::new(program).display()))
    })?;
    if !context.quiet {
        show(context, &store, &run_id, &intake).await?;
    }
    if served.cut > 0 {
        context.warn(&format!("{} requests came too late and were refused", served.cut));
    }
    Ok(exit_of(ended))
}

/// Waits for the program, passing signals on. Ctrl-C on a terminal reaches the program by itself.
async fn wait(mut child: Child) -> std::io::Result<ExitStatus> {
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    let on_terminal = std::io::IsTerminal::is_terminal(&std::io::stdin());
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut quit = signal(SignalKind::quit())?;
    let mut ended = tokio::task::spawn_blocking(move || child.wait());
    loop {
        let (kind, is_shared) = tokio::select! {
            status = &mut ended => return status.map_err(std::io::Error::other)?,
            _ = interrupt.recv() => (rustix::process::Signal::INT, on_terminal),
            _ = terminate.recv() => (rustix::process::Signal::TERM, false),
            _ = hangup.recv() => (rustix::process::Signal::HUP, on_terminal),
            _ = quit.recv() => (rustix::process::Signal::QUIT, on_terminal),
        };
        if let Some(pid) = pid.filter(|_| !is_shared) {
            // It may have ended just now.
            let _ = rustix::process::kill_process(pid, kind);
        }
    }
}

/// Where the time went, and what is missing, on stderr: stdout is the program's.
async fn show(
    context: &Context,
    store: &Store,
    run_id: &RunId,
    intake: &Intake,
) -> Result<(), Failure> {
    let counts = intake.counts();
    if counts.spans == 0 {
        context.warn(
            "no span came: the program must set up an OpenTelemetry SDK with the OTLP exporter",
        );
        context.say(
            "help: for Python, `opentelemetry-instrument` before the program, or an instrumentation such as openinference; docs/otlp.md shows both",
        );
        return Ok(());
    }
    let analyzer =
        Analyzer::open_with(store, Scope::Runs(vec![run_id.clone()]), &context.analyzer_options())?;
    let breakdown = retake_analyzer::breakdown(&analyzer, run_id, &[GroupKey::Stage]).await?;
    let name = analyzer.run(run_id)?.name;
    let look = Look::of_stderr();
    context.show(&render::breakdown(&breakdown, &name, "stage", Format::Table, look));
    let lost = receiving::lost_spans(&analyzer).await?;
    if lost > 0 {
        context.warn(&format!(
            "{lost} spans never came although others name them as their parent; their children are flagged `orphan`"
        ));
    }
    if counts.rejected > 0 {
        context.warn(&format!("{} spans had no usable ids", counts.rejected));
    }
    let unmapped = intake.unmapped();
    if !unmapped.is_empty() {
        context.say(&receiving::unmapped_line(&unmapped));
    }
    context.say("next: retake trace slowest \u{b7} retake report \u{b7} retake sql");
    Ok(())
}

/// A name for the program: that of the script where an interpreter runs one.
fn program_name(program: &OsStr, arguments: &[OsString]) -> String {
    let stem = |word: &OsStr| {
        Path::new(word)
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned())
            .unwrap_or_default()
    };
    let interpreter = stem(program);
    let runs_scripts = INTERPRETERS.iter().any(|known| interpreter.starts_with(known));
    let script = arguments.iter().find(|word| {
        runs_scripts
            && !word.to_string_lossy().starts_with('-')
            && Path::new(word).extension().is_some()
    });
    script.map_or(interpreter, |script| stem(script))
}

/// The program's own end as shells tell it.
fn exit_of(status: ExitStatus) -> Exit {
    let code = status.code().or_else(|| status.signal().map(|signal| SIGNALLED + signal));
    Exit::Program(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX))
}

const INTERPRETERS: [&str; 10] = [
    "bash",
    "sh",
    "python",
    "node",
    "deno",
    "bun",
    "ruby",
    "uv",
    "npx",
    "opentelemetry-instrument",
];
/// What shells add to the number of the signal that ended a program.
const SIGNALLED: i32 = 128;
