//! `retake top`.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use retake_analyzer::{Analyzer, Scope, pulse};
use retake_recorder::Store;
use retake_schemas::RunId;
use retake_schemas::event::RunStatus;

use crate::cli::{Format, Top};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{print, print_json, unsupported};
use crate::recording::cancel_on_signal;
use crate::render;

pub(crate) async fn run(context: &Context, args: &Top) -> Result<Code, Failure> {
    // A run that is being recorded is not repaired, and looking at it changes nothing.
    let store = context.store_untouched()?;
    let format = context.format_or(Format::Table);
    if !matches!(format, Format::Table | Format::Markdown | Format::Json) {
        return Err(unsupported(format, "a look"));
    }
    let run_id = match &args.run {
        Some(selector) => context.select(&store, selector)?,
        None => recording(&store)?,
    };
    let cancel = cancel_on_signal()?;
    let is_screen = std::io::stdout().is_terminal() && !args.once && format == Format::Table;
    let mut rates = Rates::default();
    loop {
        let analyzer = Analyzer::open_with(
            &store,
            Scope::Runs(vec![run_id.clone()]),
            &context.analyzer_options(),
        )?;
        let pulse = pulse(&analyzer, &run_id, i64::from(args.window) * 1_000_000_000).await?;
        rates.look(pulse.spans);
        if format == Format::Json {
            print_json(&pulse)?;
        } else {
            let shown = render::top(&pulse, rates.seen.make_contiguous(), format);
            // The screen is written over rather than scrolled: home, then clear to its end.
            let begin = if is_screen { "\u{1b}[H\u{1b}[J" } else { "" };
            print(&format!("{begin}{shown}"))?;
        }
        if args.once || pulse.status != "recording" {
            return Ok(Code::Ok);
        }
        tokio::select! {
            () = cancel.cancelled() => return Ok(Code::Ok),
            () = tokio::time::sleep(Duration::from_secs(args.every.into())) => {}
        }
    }
}

/// The youngest run that is being recorded.
fn recording(store: &Store) -> Result<RunId, Failure> {
    let runs = store.runs()?;
    let found = runs.into_iter().rev().find(|entry| {
        entry.manifest.as_ref().is_ok_and(|manifest| manifest.status == RunStatus::Recording)
    });
    found.map(|entry| entry.run_id).ok_or_else(|| {
        Failure::new(Code::NotFound, "find a run that is being recorded: there is none")
            .help("`retake top last` looks at the last seconds of the last run")
    })
}

/// Spans a second between looks.
#[derive(Debug, Default)]
struct Rates {
    seen: VecDeque<f64>,
    before: Option<(i64, Instant)>,
}

impl Rates {
    fn look(&mut self, spans: i64) {
        let now = Instant::now();
        if let Some((before, at)) = self.before {
            let seconds = now.duration_since(at).as_secs_f64().max(1e-3);
            self.seen.push_back((spans - before).max(0) as f64 / seconds);
            if self.seen.len() > LOOKS_MAX {
                self.seen.pop_front();
            }
        }
        self.before = Some((spans, now));
    }
}

/// Looks kept: a minute of them at the usual pace.
const LOOKS_MAX: usize = 60;
