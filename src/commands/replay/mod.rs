//! `retake replay`.

pub(crate) mod outside;
mod prepared;
mod program;
mod resume;
mod simulated;
mod verify;

use std::path::Path;

use retake_replay::engine::{Arrival, ReplayReport};
use retake_replay::workload::Workload;
use retake_schemas::RunId;

pub(crate) use self::prepared::{Lane, OTHER_DOCUMENTS, Prepared, Source};
use super::workload;
use crate::cli::{ArrivalArg, ClockArg, Format, Replay, ReplayArgs};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{print, print_json};
use crate::recording::cancel_on_signal;
use crate::render;

pub(crate) async fn run(context: &Context, verb: Replay) -> Result<Code, Failure> {
    let (args, is_plan) = match verb {
        Replay::Plan(args) => (args, true),
        Replay::Run(args) => (args, false),
        Replay::Verify(args) => return verify::run(context, &args),
    };
    if args.clock == ClockArg::Virtual {
        return simulated::run(context, &args, is_plan);
    }
    if args.no_record {
        let message = "replay without recording: what runs on the wall clock is always recorded";
        return Err(Failure::new(Code::Usage, message).help("leave --no-record out"));
    }
    if args.target.is_some() || args.target_cmd.is_some() {
        return outside::run(context, &args, is_plan).await;
    }
    refuse_file(&args)?;
    let store = context.store()?;
    let source = context.select(&store, &args.source)?;
    let prepared = Prepared::new(context, &store, &source, &args)?;
    let format = context.format_or(Format::Table);
    if is_plan {
        match format {
            Format::Json => print_json(&prepared.plan_json())?,
            format => print(&render::plan(&prepared.timed_plan(), &source, format))?,
        }
    }
    if let Some(reason) = &prepared.plan.refusal {
        return Err(Failure::new(Code::NotReplayable, format!("replay run {source}: {reason}")));
    }
    if is_plan {
        return Ok(Code::Ok);
    }
    let cancel = cancel_on_signal()?;
    let group = (args.repeat > 1).then(|| RunId::generate(unix_ns()).to_string());
    let mut code = Code::Ok;
    for number in 1..=args.repeat {
        let lane = Lane { args: &args, group: group.as_deref(), number };
        let replayed = prepared.execute(context, &store, lane, cancel.clone()).await?;
        match format {
            Format::Json => print_json(&replayed.json(&source, &prepared.plan))?,
            format => print(&render::replay(&replayed.report, &prepared.plan, format))?,
        }
        if replayed.done_before > 0 {
            context.say(&format!("{} operations were done before", replayed.done_before));
        }
        if let Some(uses) = replayed.uses {
            context.say(&render::cassette(&uses));
        }
        for (index, message) in &replayed.report.failures {
            context.warn(&format!("operation {index}: {message}"));
        }
        context.say(&format!("recorded as run {}", replayed.run_id));
        if code == Code::Ok {
            code = replayed.code();
        }
        if cancel.is_cancelled() {
            context.say(&format!(
                "go on with it: retake replay run {source} --resume {}",
                replayed.run_id
            ));
            break;
        }
    }
    context.say(&format!("next: retake diff {source} last"));
    Ok(code)
}

/// Now, ns since the Unix epoch.
fn unix_ns() -> i64 {
    retake_recorder::clock::Clock::start().now_unix_ns()
}

/// The workload and the policy by which it arrives.
fn arranged(workload: Workload, args: &ReplayArgs) -> (Workload, Arrival) {
    let workload = workload.with_stamps(workload::stamps(args.stamps, args.seed));
    let speed = args.speed;
    match (args.arrival, args.concurrency) {
        (_, Some(slots)) => (workload, Arrival::Closed { concurrency: usize::from(slots) }),
        (None | Some(ArrivalArg::Open), None) => (workload, Arrival::Open { speed }),
        (Some(ArrivalArg::Session), None) => (workload, Arrival::Session { speed }),
        (Some(ArrivalArg::Closed(concurrency)), None) => {
            (workload, Arrival::Closed { concurrency })
        }
        (Some(ArrivalArg::Poisson(per_second)), None) => {
            (workload.with_poisson(per_second, args.seed), Arrival::Open { speed })
        }
        (Some(ArrivalArg::ScaleSessions(copies)), None) => {
            let scaled = workload.scale_sessions(copies, args.seed);
            let turns = scaled.operations.iter().filter(|o| o.shape.parent.is_some());
            let has_think = turns.clone().all(|o| o.shape.think_ns.is_some());
            // Clones of conversations are conversations, where the recording lets them.
            let is_session = has_think && turns.count() > 0;
            let arrival =
                if is_session { Arrival::Session { speed } } else { Arrival::Open { speed } };
            (scaled, arrival)
        }
    }
}

/// The built-in pipeline needs inputs, and where they came from: a run.
fn refuse_file(args: &ReplayArgs) -> Result<(), Failure> {
    if !workload::is_file(Path::new(&args.source)) {
        return Ok(());
    }
    let message = format!("replay {}: it is a workload file, not a run", args.source);
    Err(Failure::new(Code::NotReplayable, message).help(
        "replay it in virtual time (--clock virtual --model FILE), to a service (--target URL) or to \
         a program (--target-cmd CMD)",
    ))
}

/// The exit code of a replay.
fn code_of(report: &ReplayReport, is_cancelled: bool) -> Code {
    if is_cancelled {
        Code::Interrupted
    } else if report.objection.is_some() {
        Code::ReplayInvalid
    } else if report.error + report.refused > 0 {
        Code::Environment
    } else {
        Code::Ok
    }
}

/// A replay for scripts.
fn report_json(
    report: &ReplayReport,
    run_id: &RunId,
    source: Option<&RunId>,
    changes: serde_json::Map<String, serde_json::Value>,
) -> serde_json::Value {
    serde_json::json!({
        "schema_version": 1,
        "run_id": run_id,
        "replay_of": source,
        "settings_diff": changes,
        "planned": report.planned,
        "ok": report.ok,
        "error": report.error,
        "cancelled": report.cancelled,
        "refused": report.refused,
        "valid": report.objection.is_none(),
        "objection": report.objection,
        "latency_from_due": report.latency_from_due,
        "latency_from_send": report.latency_from_send,
        "fidelity": report.fidelity,
        "wall_ns": report.wall_ns,
        "verdict": if report.objection.is_none() { "VALID" } else { "INVALID" },
    })
}
