//! `retake proxy`.

use retake_recorder::RecorderBuilder;
use retake_recorder::sampler::{Sampler, SamplerSettings};
use retake_schemas::event::RunStatus;
use retake_server::proxy::{Proxy, ProxySettings};

use super::receiving;
use crate::cli;
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::progress::Progress;
use crate::recording::{self, cancel_on_signal};

pub(crate) async fn run(context: &Context, args: cli::Proxy) -> Result<Code, Failure> {
    let store = context.store_for_writing()?;
    let record = receiving::record_settings(context, &args.received);
    let sampling = SamplerSettings::from(&record);
    let labels = receiving::labels(&args.received)?;
    let token = receiving::token(args.token_file.as_deref())?;
    let recorder = RecorderBuilder::new(&args.run, "proxy")
        .record_settings(record)
        .labels(labels)
        .start(&store)?;
    let settings = ProxySettings {
        listen: args.listen,
        token,
        hosts: args.host,
        ..ProxySettings::new(args.to)
    };
    let proxy = Proxy::bind(settings, recorder.dispatcher().clone())?;
    let address = proxy.addr();
    // A run without samples is still a run.
    let sampler = Sampler::start(recorder.dispatcher().clone(), sampling).ok();
    let cancel = cancel_on_signal()?;
    context.say(&format!(
        "recording run {} at http://{address}; OPENAI_BASE_URL=http://{address}/v1 leads a program here; Ctrl-C ends",
        recorder.run_id()
    ));
    let progress = Progress::spinner(context.quiet, "passing on");
    let served = proxy.run(cancel.cancelled_owned()).await;
    progress.finish();
    drop(sampler);
    let summary = tokio::task::spawn_blocking(move || recorder.finish(RunStatus::Finished))
        .await
        .map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
    recording::warn_of_losses(context, &summary);
    let served = served?;
    context.say(&format!(
        "{} calls recorded, {} requests passed unrecorded, {} refused",
        served.recorded, served.passed, served.refused
    ));
    if served.unread > 0 {
        context.warn(&format!(
            "{} calls could not be read whole (too large, compressed, or not what the interface says)",
            served.unread
        ));
    }
    context.say("next: retake breakdown last \u{b7} retake trace slowest");
    Ok(Code::Ok)
}
