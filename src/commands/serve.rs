//! `retake serve`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use retake_recorder::otlp::{Collector, CollectorSettings};
use retake_recorder::recorder::RunSummary;
use retake_server::{Collecting, Server, ServerSettings};

use super::pages::History;
use super::receiving;
use crate::cli::Serve;
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::progress::Progress;
use crate::recording::{self, cancel_on_signal};

pub(crate) async fn run(context: &Context, args: Serve) -> Result<Code, Failure> {
    let store = context.store_for_writing()?;
    let mut record = receiving::record_settings(context, &args.received);
    record.sync = args.sync.policy();
    // This process does nothing else.
    record.seal_idle = false;
    let settings = CollectorSettings {
        intake: receiving::intake_settings(&record),
        record,
        idle_max: Duration::from_secs(args.idle),
        session_max: Duration::from_secs(args.session),
        labels: receiving::labels(&args.received)?,
        ..CollectorSettings::default()
    };
    let collector = Arc::new(Collector::new(&store, settings));
    let settings = ServerSettings {
        http: args.listen,
        grpc: args.grpc,
        token: receiving::token(args.token_file.as_deref())?,
        hosts: args.host.clone(),
        ..ServerSettings::default()
    };
    let server = Server::bind(settings, Arc::new(Collecting::new(Arc::clone(&collector))))?
        .with_pages(Arc::new(History::new(context, &store)));
    let (http, grpc) = (server.http_addr(), server.grpc_addr());
    let cancel = cancel_on_signal()?;
    context.say(&format!("receiving OTLP at http://{http} and grpc://{grpc}; Ctrl-C ends"));
    let seen = seen_as(http, &args.host);
    match server.invitation() {
        // Not for a log that is kept: it opens once, and within ten minutes.
        Some(path) => context.say(&format!(
            "the history in a browser, once and within ten minutes: http://{seen}{path}; later, and \
             in others, http://{seen}/ asks for the token"
        )),
        None => context.say(&format!("the history in a browser: http://{seen}/")),
    }
    let serving = tokio::spawn(server.run(cancel.clone().cancelled_owned()));
    let progress = Progress::spinner(context.quiet, "receiving");
    while !cancel.is_cancelled() {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let ending = Arc::clone(&collector);
        let ended = tokio::task::spawn_blocking(move || ending.end_idle()).await;
        tell(context, &ended.unwrap_or_default());
        let counts = collector.counts();
        progress.message(&format!(
            "{} spans, {} log records, {} metric points; {} runs open",
            counts.spans,
            counts.logs,
            counts.points,
            collector.runs().len()
        ));
    }
    let served =
        serving.await.map_err(|error| Failure::new(Code::Internal, error.to_string()))??;
    let ending = Arc::clone(&collector);
    let ended = tokio::task::spawn_blocking(move || ending.finish()).await.unwrap_or_default();
    progress.finish();
    tell(context, &ended);
    let counts = collector.counts();
    context.say(&format!(
        "{} requests answered, {} acknowledged; {} spans taken, {} repeated, {} without ids",
        served.answered, served.acknowledged, counts.spans, counts.repeated, counts.rejected
    ));
    if served.cut > 0 {
        context.warn(&format!(
            "{} requests were told to come again because this receiver ended",
            served.cut
        ));
    }
    Ok(Code::Ok)
}

/// What a browser is to be given for an address: nobody can go to all addresses of a machine.
fn seen_as(address: SocketAddr, hosts: &[String]) -> String {
    match (address.ip().is_unspecified(), hosts.first()) {
        (false, _) => address.to_string(),
        (true, Some(host)) => format!("{host}:{}", address.port()),
        (true, None) => format!("localhost:{}", address.port()),
    }
}

fn tell(context: &Context, ended: &[RunSummary]) {
    for summary in ended {
        context.say(&format!("run {} ended with {} spans", summary.run_id, summary.spans));
        recording::warn_of_losses(context, summary);
    }
}

const LOOK_EVERY: Duration = Duration::from_secs(1);
