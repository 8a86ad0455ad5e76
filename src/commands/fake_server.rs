//! `retake fake-server`.

use std::path::Path;

use retake_pipeline::fake::{FakeServer, Reply, ServeError, Served};

use crate::cli;
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{print, print_json};
use crate::progress::Progress;
use crate::recording::cancel_on_signal;

pub(crate) async fn run(context: &Context, args: cli::FakeServer) -> Result<Code, Failure> {
    let replies = args.replies.as_deref().map(read_replies).transpose()?.unwrap_or_default();
    let server = FakeServer::bind(args.settings(replies)).await.map_err(|error| {
        let code = match &error {
            ServeError::Setting(_) => Code::Usage,
            _ => Code::Environment,
        };
        Failure::new(code, error.to_string())
    })?;
    let url = server.url();
    let cancel = cancel_on_signal()?;
    context.say(&format!(
        "answering at {url}; --set synthesize.provider=openai --set synthesize.url={url} leads retake rag here; Ctrl-C ends"
    ));
    let progress = Progress::spinner(context.quiet, "answering");
    let served = server.run(cancel).await;
    progress.finish();
    match context.format_or(cli::Format::Table) {
        cli::Format::Json => {
            print_json(&serde_json::json!({"schema_version": 1, "url": url, "served": served}))?;
        }
        _ => print(&summary(&served))?,
    }
    Ok(Code::Ok)
}

fn read_replies(path: &Path) -> Result<Vec<Reply>, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let code = match error.kind() {
            std::io::ErrorKind::NotFound => Code::NotFound,
            _ => Code::Environment,
        };
        Failure::new(code, format!("read {}: {error}", path.display()))
    })?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| {
            serde_json::from_str(line).map_err(|error| {
                let place = format!("read {} line {}", path.display(), index + 1);
                Failure::new(Code::Usage, format!("{place}: {error}"))
            })
        })
        .collect()
}

fn summary(served: &Served) -> String {
    let counts = |counts: &std::collections::BTreeMap<&'static str, u64>| {
        let all: Vec<String> =
            counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
        if all.is_empty() { "none".to_owned() } else { all.join(", ") }
    };
    format!(
        "answered: {}\nfailed on purpose: {}\nover a limit: {}\nrefused: {}\n",
        counts(&served.answered),
        counts(&served.failed),
        served.rate_limited,
        served.refused
    )
}
